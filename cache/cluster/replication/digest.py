"""Digests of a partition: copies are equal when their digests are.

Unequal copies have equal digests by accident once in 2^64. The digest of a set of entries is the
XOR of a 64-bit hash of each (map, key, version), kept up to date with every change. Values are not
hashed: equal versions carry equal values. 64 buckets by key narrow a difference down; their digests are made
when they are asked for, of copies that differ, so that no write pays for them.

One hash of map and key serves twice: it is the seed of the version's hash, and its top bits are the bucket.
It is what partitions are cut by, too, but by its remainder.

One thing ends an entry without another version: its owner's word that it was idle, or that a store has it
(`Rules.ends_early`). A copy that missed that word has the same version, so there the digest says which it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import reduce
from itertools import repeat
from operator import xor
from struct import Struct
from typing import Final

from xxhash import xxh3_64_intdigest

from cache.cluster.partitions.table import map_seed
from cache.cluster.replication.entries import Entry

BUCKET_COUNT: Final = 64

_BUCKET_SHIFT: Final = 58
"""What is left of a hash is one of `BUCKET_COUNT`."""

_pack: Final = Struct("<QQ").pack


def key_hash(map_name: str, key: bytes) -> int:
    """Return the hash of a key of a map."""
    return xxh3_64_intdigest(key, map_seed(map_name))


def bucket_of(map_name: str, key: bytes) -> int:
    """Return the bucket of a key."""
    return key_hash(map_name, key) >> _BUCKET_SHIFT


def entry_digest(map_name: str, key: bytes, hlc: int, origin: int) -> int:
    """Return the digest of one entry, which does not depend on its value or expiry."""
    return xxh3_64_intdigest(_pack(hlc, origin), key_hash(map_name, key))


def _key_hashes(map_name: str, keys: Iterable[bytes]) -> Iterator[int]:
    """Return the hash of each key of a map: `key_hash`, without the calls."""
    return map(xxh3_64_intdigest, keys, repeat(map_seed(map_name)))


def _entry_digests(
    hashes: Iterable[int], hlcs: Iterable[int], origins: Iterable[int]
) -> Iterator[int]:
    """Return the digest of each entry, given the hashes of its keys: `entry_digest`, without the calls."""
    return map(xxh3_64_intdigest, map(_pack, hlcs, origins), hashes)


class Digest:
    """Digest of one partition."""

    __slots__ = ("total",)

    def __init__(self) -> None:
        self.total = 0

    def toggle(self, map_name: str, key: bytes, hlc: int, origin: int) -> None:
        """Add an entry, or take it out if it is in."""
        self.total ^= entry_digest(map_name, key, hlc, origin)

    def replace(self, map_name: str, key: bytes, old: Entry, new: Entry) -> None:
        """Take out one version of an entry and add another: `toggle` twice, without the calls."""
        hashed = xxh3_64_intdigest(key, xxh3_64_intdigest(map_name.encode()))
        before, after = _pack(old.hlc, old.origin), _pack(new.hlc, new.origin)
        self.total ^= xxh3_64_intdigest(before, hashed) ^ xxh3_64_intdigest(after, hashed)

    def add(
        self, map_name: str, keys: Iterable[bytes], hlcs: Iterable[int], origins: Iterable[int]
    ) -> None:
        """Add many entries of one map: `toggle` for each, without the calls."""
        digests = _entry_digests(_key_hashes(map_name, keys), hlcs, origins)
        self.total = reduce(xor, digests, self.total)


def add_to_buckets(
    buckets: list[int],
    map_name: str,
    keys: Iterable[bytes],
    hlcs: Iterable[int],
    origins: Iterable[int],
) -> None:
    """Add entries of one map to the digests of their buckets."""
    hashes = list(_key_hashes(map_name, keys))
    digests = _entry_digests(hashes, hlcs, origins)
    for hashed, digest in zip(hashes, digests, strict=True):
        buckets[hashed >> _BUCKET_SHIFT] ^= digest
