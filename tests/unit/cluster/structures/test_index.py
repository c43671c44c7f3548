"""Indexes, against looking at every entry."""

from __future__ import annotations

import gc
import math
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from cache.cluster.replication.entries import Entry
from cache.cluster.replication.replica import PartitionReplica
from cache.cluster.replication.usage import Usage
from cache.cluster.structures import index, postings
from cache.cluster.structures.conditions import (
    AtLeast,
    AtMost,
    Between,
    LessThan,
    MoreThan,
    conditions_of,
)
from cache.cluster.structures.index import POSTING_BYTES, SLICE, Condition, MapIndex, rank_of
from cache.cluster.wire.messages import ConditionRecord
from cache.codec import encode_value
from cache.errors import ConfigError, RemoteProtocolError

KEYS = [b"s%d" % number for number in range(8)]
INDEXES = {"city": "city", "age": "age", "zip": "address.zip"}

plain = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([0.5, 1.0, math.nan, math.inf]),
    st.text("ab", max_size=2),
    st.binary(max_size=1),
)
fields = st.one_of(plain, st.lists(st.integers(0, 9), max_size=1))
values = st.one_of(
    plain,
    st.fixed_dictionaries(
        {},
        optional={"city": fields, "age": fields, "address": st.fixed_dictionaries({"zip": fields})},
    ),
)
steps = st.lists(
    st.tuples(st.sampled_from(KEYS), st.one_of(st.just("gone"), st.just("grow"), values))
)
queries = st.dictionaries(
    st.sampled_from(list(INDEXES)),
    st.one_of(
        plain,
        st.builds(AtLeast, plain),
        st.builds(MoreThan, plain),
        st.builds(AtMost, plain),
        st.builds(LessThan, plain),
        st.builds(Between, st.integers(-3, 3), st.integers(-3, 3)),
    ),
    min_size=1,
)


def kind(value: Any) -> str:
    if value is None or isinstance(value, (bool, str, bytes)):
        return type(value).__name__
    if isinstance(value, (int, float)):
        return "nothing" if math.isnan(value) else "number"
    return "nothing"


def naive(field: Any, wanted: Any) -> bool:
    """Whether a field meets a condition."""
    ends = [getattr(wanted, end) for end in ("low", "high") if hasattr(wanted, end)] or [wanted]
    if kind(field) == "nothing" or kind(field) != kind(ends[0]):
        return False
    if field is None:
        return not isinstance(wanted, (MoreThan, LessThan))
    match wanted:
        case Between(low, high):
            return bool(low <= field <= high)
        case AtLeast(low):
            return bool(field >= low)
        case MoreThan(low):
            return bool(field > low)
        case AtMost(high):
            return bool(field <= high)
        case LessThan(high):
            return bool(field < high)
        case _:
            return bool(field == wanted)


def looked_up(value: Any, path: str) -> Any:
    for name in path.split("."):
        if not isinstance(value, dict) or name not in value:
            return math.nan  # Indexed by nobody.
        value = value[name]
    return value


class Partition:
    """A replica with an index, and a dictionary beside it."""

    def __init__(self) -> None:
        self.replica = PartitionReplica(operation_memory=1, tombstone_lifetime=10.0, usage=Usage())
        self.replica.apply("m", b"sother", self._entry("no map"))
        self.model: dict[bytes, Any] = {}
        self.index = MapIndex(self.replica.entries("m"), 0.0)
        self.replica.attach("m", self.index)
        self._version = 0

    def _entry(self, value: Any) -> Entry:
        self._version = getattr(self, "_version", 0) + 1
        return Entry(encode_value(value), self._version, 1, math.inf)

    def write(self, key: bytes, value: Any) -> None:
        self.model[key] = value
        self.replica.apply("m", key, self._entry(value))

    def delete(self, key: bytes) -> None:
        self.model.pop(key, None)
        self.replica.apply("m", key, Entry(None, self._entry(0).hlc, 1, 1.0))

    def find(self, query: dict[str, Any], after: bytes = b"") -> list[bytes]:
        conditions = [Condition.of(c) for c in conditions_of(query, INDEXES, "m")]
        size = self.index.size_bytes
        while not self.index.grow([condition.path for condition in conditions]):
            pass
        self.replica.count_view(self.index.size_bytes - size)
        found = self.index.find(conditions, after)
        return [k for k in found if all(c.holds(self.model.get(k)) for c in conditions)]


def usable(query: dict[str, Any]) -> bool:
    ends = [getattr(v, e) for v in query.values() for e in ("low", "high") if hasattr(v, e)]
    flat = [v for v in query.values() if not hasattr(v, "low") and not hasattr(v, "high")]
    return all(kind(value) != "nothing" for value in (*ends, *flat))


@given(steps, queries.filter(usable), st.sampled_from([b"", *KEYS]), st.sampled_from([0, 3, 1000]))
def test_what_is_found_is_what_looking_finds(
    changes: list[tuple[bytes, Any]], query: dict[str, Any], after: bytes, few: int
) -> None:
    """Whatever is written and deleted while the index is made, and afterwards; few keys or many."""
    partition = Partition()
    with mock.patch.object(index, "SLICE", 2), mock.patch.object(postings, "FEW", few):
        for key, value in changes:
            if value == "gone":
                partition.delete(key)
            elif value == "grow":
                partition.index.grow(["city", "age"])
            else:
                partition.write(key, value)

    expected = [
        key
        for key, value in sorted(partition.model.items())
        if key > after
        and all(naive(looked_up(value, INDEXES[name]), want) for name, want in query.items())
    ]
    assert expected == partition.find(query, after)


def test_expired_and_forgotten_entries_leave() -> None:
    """An index counts what is in it."""
    partition = Partition()
    for key in KEYS:
        partition.write(key, {"city": "Oslo"})
    partition.find({"city": "Oslo"})
    assert len(KEYS) * POSTING_BYTES == partition.index.size_bytes == partition.replica.view_bytes

    held = partition.replica.entry("m", KEYS[0])
    assert held is not None
    partition.replica.apply("m", KEYS[0], replace(held, expires_at=5.0))
    partition.replica.sweep(7.0, 10)
    partition.replica.restore("m", KEYS[1], None)
    partition.delete(KEYS[2])

    assert KEYS[3:] == partition.find({"city": "Oslo"})
    assert 5 * POSTING_BYTES == partition.index.size_bytes == partition.replica.view_bytes


def collected(root: object, but: object) -> list[object]:
    """Return what the garbage collector looks at for an object: it, and what it refers to."""
    found, left = {id(but): but}, [root]
    while left:
        one = left.pop()
        if id(one) not in found and gc.is_tracked(one) and not isinstance(one, type):
            found[id(one)] = one
            left += gc.get_referents(one)
    return list(found.values())[1:]


def test_the_index_of_a_small_partition_is_four_objects() -> None:
    """A thousand partitions have one each: with more, making them sets off a full garbage collection."""
    partition = Partition()
    for key in KEYS:
        partition.write(key, {"city": "Oslo"})

    partition.find({"city": "Oslo"})
    gc.collect()

    found = collected(partition.index, partition.replica.entries("m"))
    assert ["MapIndex", "dict", "Postings", "list"] == [type(one).__name__ for one in found]


def test_an_index_is_made_in_slices() -> None:
    """No turn looks at more than a slice."""
    partition = Partition()
    for number in range(3 * SLICE):
        partition.write(b"s%05d" % number, {"age": number})
    turns = 0
    while not partition.index.grow(["age"]):
        turns += 1
        assert turns * SLICE * POSTING_BYTES >= partition.index.size_bytes

    assert 4 == turns  # One more for the entry that is no map.
    assert [b"s00007"] == partition.find({"age": 7})


def test_types_have_an_order_and_the_rest_is_not_indexed() -> None:
    """1 is 1.0 and not True."""
    ranks = [rank_of(value) for value in (None, False, True, -1, 0.5, 7, "", "a", b"", b"a")]

    assert ranks == sorted(ranks, key=lambda rank: rank or ())
    assert rank_of(1) == rank_of(1.0) != rank_of(True)
    assert [None] * 4 == [rank_of(value) for value in (math.nan, [1], {"a": 1}, object())]


def test_queries_are_checked() -> None:
    """By name, with what there is."""
    with pytest.raises(ConfigError, match=r"no index 'town'; it has: age, city, zip\. Make one"):
        conditions_of({"town": "Oslo"}, INDEXES, "m")
    with pytest.raises(ConfigError, match="it has: none"):
        conditions_of({"town": "Oslo"}, {}, "m")
    with pytest.raises(ConfigError, match="give a condition"):
        conditions_of({}, INDEXES, "m")
    with pytest.raises(ConfigError, match="both ends must be of one type"):
        conditions_of({"age": Between(1, "b")}, INDEXES, "m")
    for value in (math.nan, [1], AtLeast({})):
        with pytest.raises(ConfigError, match="age="):
            conditions_of({"age": value}, INDEXES, "m")


@pytest.mark.parametrize(
    ("low", "high"),
    [(b"", b""), (encode_value(1), encode_value("a")), (b"\x09", b""), (encode_value([1]), b"")],
)
def test_conditions_of_strangers_are_checked(low: bytes, high: bytes) -> None:
    """They break the protocol, and nothing else."""
    with pytest.raises(RemoteProtocolError, match="condition"):
        Condition.of(ConditionRecord("age", low, high, (False, False)))


def test_what_is_written_while_it_is_made_is_found() -> None:
    """Keys that were looked at already, keys that were not, and new ones."""
    partition = Partition()
    for key in KEYS[:6]:
        partition.write(key, {"city": "Rome"})
    with mock.patch.object(index, "SLICE", 2):
        assert not partition.index.grow(["city"])
        for key in KEYS:
            partition.write(key, {"city": "Oslo"})
        assert KEYS == partition.find({"city": "Oslo"})

    assert [] == partition.find({"city": "Rome"})
