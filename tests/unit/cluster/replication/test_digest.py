"""Digests: what they depend on, what they do not, and that toggling undoes itself."""

from __future__ import annotations

from functools import reduce
from operator import xor
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xxhash import xxh3_64_intdigest

from cache.cluster.partitions.table import map_seed, partitions_of
from cache.cluster.replication.digest import (
    BUCKET_COUNT,
    Digest,
    add_to_buckets,
    bucket_of,
    entry_digest,
)
from cache.cluster.replication.entries import Entry

Item = tuple[str, bytes, int, int]

ITEMS = st.lists(
    st.tuples(
        st.sampled_from(["m", "map"]),
        st.binary(max_size=3),
        st.integers(0, 2**63),
        st.integers(0, 2**32 - 1),
    ),
    max_size=10,
)


def digest_of(items: list[Item]) -> int:
    digest = Digest()
    for item in items:
        digest.toggle(*item)
    return digest.total


def buckets_of(items: list[Item]) -> list[int]:
    buckets = [0] * BUCKET_COUNT
    for name, key, hlc, origin in items:
        add_to_buckets(buckets, name, [key], [hlc], [origin])
    return buckets


@given(ITEMS, st.randoms(use_true_random=False))
def test_order_makes_no_difference(items: list[Item], random: Random) -> None:
    """Copies get their entries in different orders."""
    shuffled = list(items)
    random.shuffle(shuffled)

    assert digest_of(items) == digest_of(shuffled)


@given(ITEMS, st.integers(0, 2**63), st.integers(0, 2**32 - 1))
def test_replacing_is_taking_out_and_adding(items: list[Item], hlc: int, origin: int) -> None:
    """The hot path's way gives the same digests."""
    one, two = Digest(), Digest()

    for name, key, old_hlc, old_origin in items:
        one.toggle(name, key, old_hlc, old_origin)
        one.toggle(name, key, hlc, origin)
        two.replace(name, key, Entry(b"", old_hlc, old_origin, 0.0), Entry(None, hlc, origin, 1.0))

    assert one.total == two.total


@given(ITEMS)
def test_toggling_twice_takes_everything_out(items: list[Item]) -> None:
    """The digest of nothing is 0."""
    assert 0 == digest_of(items + items)


@given(ITEMS)
def test_the_total_is_that_of_the_buckets(items: list[Item]) -> None:
    """A difference in the total is found in some bucket."""
    assert reduce(xor, buckets_of(items)) == digest_of(items)


@given(st.text(max_size=3), st.binary(max_size=3))
def test_an_entry_changes_only_the_bucket_of_its_key(map_name: str, key: bytes) -> None:
    """Buckets narrow a difference down."""
    expected = [0] * BUCKET_COUNT
    expected[bucket_of(map_name, key)] = entry_digest(map_name, key, 5, 6)

    assert expected == buckets_of([(map_name, key, 5, 6)])


@pytest.mark.parametrize(
    "other", [("n", b"k", 1, 2), ("m", b"K", 1, 2), ("m", b"k", 3, 2), ("m", b"k", 1, 3)]
)
def test_map_key_and_version_all_count(other: Item) -> None:
    """Copies that differ in any of them are unequal."""
    assert entry_digest("m", b"k", 1, 2) != entry_digest(*other)


def test_hlc_and_origin_cannot_be_exchanged() -> None:
    """Version (1, 2) is not (2, 1)."""
    assert entry_digest("m", b"k", 1, 2) != entry_digest("m", b"k", 2, 1)


def test_map_and_key_have_a_border() -> None:
    """Map "a" with key "bc" is not map "ab" with key "c"."""
    assert entry_digest("a", b"bc", 1, 1) != entry_digest("ab", b"c", 1, 1)


def test_the_formula_is_part_of_the_wire() -> None:
    """Members of two releases compare digests: changing the formula breaks rolling upgrades."""
    version = b"\x07\x00\x00\x00\x00\x00\x00\x00" + b"\x03\x00\x00\x00\x00\x00\x00\x00"

    hashed = xxh3_64_intdigest(b"k", xxh3_64_intdigest(b"m"))

    assert xxh3_64_intdigest(version, hashed) == entry_digest("m", b"k", 7, 3)
    assert hashed // 2**58 == bucket_of("m", b"k")


def test_keys_spread_over_all_buckets() -> None:
    """One bucket for everything would narrow nothing down."""
    used = {bucket_of("m", b"%d" % number) for number in range(1000)}

    assert set(range(BUCKET_COUNT)) == used


@pytest.mark.parametrize("partition_count", [64, 271, 1024])
def test_keys_of_one_partition_spread_over_all_buckets(partition_count: int) -> None:
    """Partitions are cut by the same hash of a key: by its remainder, buckets by its top."""
    keys = [b"%d" % number for number in range(1000 * partition_count)]
    partitions = partitions_of(keys, map_seed("m"), partition_count)
    used = {
        bucket_of("m", key)
        for key, partition in zip(keys, partitions, strict=True)
        if not partition
    }

    assert set(range(BUCKET_COUNT)) == used


@given(ITEMS)
def test_adding_many_is_adding_each(items: list[Item]) -> None:
    """One map at a time, as entries are copied; what comes second finds something there."""
    digest, buckets = Digest(), [0] * BUCKET_COUNT

    for name in ("m", "map"):
        batch = [(key, hlc, origin) for item, key, hlc, origin in items if item == name]
        keys = [key for key, _, _ in batch]
        hlcs, origins = [hlc for _, hlc, _ in batch], [origin for _, _, origin in batch]
        digest.add(name, keys, hlcs, origins)
        add_to_buckets(buckets, name, keys, hlcs, origins)

    assert (digest_of(items), buckets_of(items)) == (digest.total, buckets)


def test_every_bit_of_an_origin_counts() -> None:
    """Loads have origins of 63 bits; see `cache.cluster.hlc`."""
    digests = {entry_digest("m", b"k", 1, 1 << bit) for bit in range(64)}

    assert 64 == len(digests)
