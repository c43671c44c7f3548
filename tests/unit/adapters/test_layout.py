"""What keys and values are called on a server. Source: the docstring of cache/adapters/layout.py."""

from __future__ import annotations

import enum
import fnmatch
import secrets

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.adapters.batches import BATCH_KEYS_MAX, ROUND_BATCHES_MAX, batches_of
from cache.adapters.layout import (
    BUCKETS,
    KEY_BYTES_MAX,
    SLOTS,
    TTL_MS_MAX,
    Layout,
    Values,
    key_of,
    milliseconds,
    name_of,
    slot_of,
)
from cache.errors import CodecError, ConfigError
from cache.serializers import SignedPickle

KEYS = st.one_of(st.text().filter(str.isprintable), st.text("\x00sbia"), st.binary(), st.integers())


@given(st.lists(KEYS, max_size=30))
def test_keys_come_back_as_they_went_in_and_stay_apart(keys: list[str | bytes | int]) -> None:
    """Whatever their type; True is no key, so that equal keys of two types do not occur."""
    distinct = {(type(key), key) for key in keys}

    assert keys == [key_of(name_of(key)) for key in keys]
    assert len(distinct) == len({name_of(key) for _, key in distinct})


@pytest.mark.parametrize(
    "name", [b"\x00lk", b"\x00r", b"\x00i07", b"\x00i", b"\x00sann", b"\xff", b"\x00"]
)
def test_what_is_no_key_is_none(name: bytes) -> None:
    """Records of the cache, and what others put there."""
    assert key_of(name) is None


def test_a_key_has_a_limit() -> None:
    """64 KiB."""
    with pytest.raises(CodecError, match="at most"):
        name_of("x" * (KEY_BYTES_MAX + 1))


@pytest.mark.parametrize(
    ("name", "slot"),
    [(b"123456789", 12739), (b"foo", 12182), (b"{foo}bar", 12182), (b"x{}foo", None)],
)
def test_slots_are_those_of_redis(name: bytes, slot: int | None) -> None:
    """Source: Redis cluster specification, key distribution and hash tags; an empty tag is none."""
    assert slot_of(name) == (slot if slot is not None else slot_of(b"x{}foo"))
    assert 0 <= slot_of(name) < SLOTS


def test_every_record_of_a_bucket_has_its_slot() -> None:
    """Scripts stay in one."""
    layout = Layout("shop", is_spread=True)

    for base, slot in zip(layout.bases, layout.slots, strict=True):
        assert {slot} == {
            slot_of(base + rest) for rest in (b"ann", b"\x00lann", b"\x00t{x}", b"{y}")
        }
    assert len(set(layout.slots)) == BUCKETS


@given(KEYS)
def test_a_layout_finds_its_keys_again(key: str | bytes | int) -> None:
    """On one server and on a cluster; another cache's are not its own."""
    for is_spread in (False, True):
        layout = Layout("shop", is_spread=is_spread)
        bucket, name = layout.locate(key)

        assert key == layout.key_of(layout.bases[bucket] + name)
        assert Layout("shops", is_spread=is_spread).key_of(layout.bases[bucket] + name) is None


def test_a_pattern_takes_special_characters_as_they_are() -> None:
    """A prefix is no pattern."""
    assert Layout("a*b", is_spread=False).pattern("c?[d]") == rb"a\*b:*c\?\[d\]*"
    assert fnmatch.fnmatchcase(
        "shop:{25}user:7", Layout("shop", is_spread=True).pattern("user:").decode()
    )


@pytest.mark.parametrize("prefix", ["", "a\nb", "x" * 129])
def test_what_is_no_prefix_is_refused(prefix: str) -> None:
    """It names the option."""
    with pytest.raises(ConfigError, match="prefix="):
        Layout(prefix, is_spread=False)
    with pytest.raises(ConfigError, match="braces"):
        Layout("{a}", is_spread=True)


class Size(enum.IntEnum):
    LARGE = 3


def test_whole_numbers_are_digits_with_any_serializer() -> None:
    """So that the server counts; what is beyond 64 bits or no plain number is not."""
    plain, pickled = Values(None, "m"), Values(SignedPickle(secrets.token_bytes(32)), "m")

    for values in (plain, pickled):
        assert b"-42" == values.encode(-42)
        assert [-42, True, 2**64 - 1, {"a": 1}] == [
            values.decode(values.encode(value, ["t"])) for value in (-42, True, 2**64 - 1, {"a": 1})
        ]
    assert b"3" == plain.encode(Size.LARGE)
    assert pickled.decode(pickled.encode(Size.LARGE)) is Size.LARGE


class Json:
    """Makes bytes that look like text."""

    def encode(self, value: object, context: str) -> bytes:
        return f'"{value}"'.encode()

    def decode(self, encoded: bytes, context: str) -> object:
        return encoded.decode().strip('"')


def test_what_a_serializer_makes_may_begin_with_anything() -> None:
    """Digits too; who has no serializer is told."""
    values = Values(Json(), "m")
    encoded = values.encode("7", ["t"])

    assert values.decode(encoded) == "7"
    with pytest.raises(CodecError, match="the same"):
        Values(None, "m").decode(encoded)


@pytest.mark.parametrize(
    ("ttl", "expected"), [(0.0001, 1), (1.9999, 1999), (None, None), (1e300, TTL_MS_MAX)]
)
def test_a_time_to_live_is_never_made_longer(ttl: float | None, expected: int | None) -> None:
    """Milliseconds, at least one."""
    assert milliseconds(ttl, 5.0) == expected


@given(st.lists(st.integers(), unique=True, max_size=2000))
def test_batches_hold_each_key_once(keys: list[int]) -> None:
    """In bounded commands and rounds."""
    layout = Layout("shop", is_spread=True)

    rounds = batches_of(layout, keys)

    batches = [batch for part in rounds for batch in part]
    assert list(range(len(keys))) == sorted(index for batch in batches for index in batch.indexes)
    assert all(len(batch.names) <= BATCH_KEYS_MAX for batch in batches)
    assert all(len(part) <= ROUND_BATCHES_MAX for part in rounds)


def test_large_values_go_alone() -> None:
    """A megabyte for each command, or one value."""
    rounds = batches_of(Layout("shop", is_spread=False), ["a", "b", "c"], [900_000, 2_000_000, 10])

    assert [[0], [1], [2]] == [batch.indexes for part in rounds for batch in part]
