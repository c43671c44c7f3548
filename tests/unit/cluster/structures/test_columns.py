"""Columns of keys: each key once, beside its own bytes and partition, whatever is done to them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.cluster.ids import MemberId
from cache.cluster.partitions.table import map_seed, partition_of
from cache.cluster.structures.columns import Columns
from cache.codec import encode_key
from cache.errors import CodecError
from cache.keys import Key

SEED = map_seed("users")
COUNT = 7
OWNERS = [MemberId(f"m{number % 3}") for number in range(COUNT)]

KEYS = st.lists(st.text(max_size=5) | st.binary(max_size=5) | st.integers(), max_size=30)


def columns(keys: list[Key]) -> Columns[Key]:
    return Columns.of(keys, SEED, COUNT)


@given(keys=KEYS)
def test_each_key_is_beside_its_bytes_and_partition(keys: list[Key]) -> None:
    """As when each is located alone."""
    made = columns(keys)

    assert list(dict.fromkeys(keys)) == made.keys
    assert [encode_key(key) for key in made.keys] == made.encoded
    assert [partition_of(one, SEED, COUNT) for one in made.encoded] == made.partitions


@given(keys=KEYS, limit=st.integers(1, 10))
def test_each_key_goes_to_its_owner_in_batches_within_the_limit(
    keys: list[Key], limit: int
) -> None:
    """Together they are all keys; those of one owner keep their order."""
    made = columns(keys)

    batches = made.by_owner(OWNERS, limit)

    places = made.places()
    for member, batch in batches:
        assert 1 <= len(batch.keys) <= limit
        assert {member} == {OWNERS[partition] for partition in batch.partitions}
        assert {key: places[key] for key in batch.keys} == batch.places()
    for owner in dict.fromkeys(OWNERS):
        sent = [key for member, batch in batches if member == owner for key in batch.keys]
        assert sent == [key for key in made.keys if OWNERS[places[key][1]] == owner]


def test_keys_without_an_owner_are_together() -> None:
    """Whoever sends them learns that there is none."""
    ((member, batch),) = columns(["a", "b"]).by_owner([None] * COUNT, 10)

    assert member is None
    assert ["a", "b"] == batch.keys


@pytest.mark.parametrize("key", [1.5, ["a"], "\ud800", True])
def test_what_is_no_key_is_refused(key: object) -> None:
    """Also what cannot be hashed; the error names it."""
    with pytest.raises(CodecError, match="key"):
        columns(["a", key])  # type: ignore[list-item]  # that is the point
