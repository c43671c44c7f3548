"""Values that were read lately: never one that the copy does not hold any more."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from cache.cluster.replication.entries import Entry
from cache.cluster.replication.recent import (
    OVERHEAD_BYTES,
    TURNS,
    VALUE_BYTES_MAX,
    RecentReads,
)
from cache.cluster.replication.replica import PartitionReplica
from cache.cluster.wire.messages import KeyVersion
from cache.codec import decode_value, encode_key, encode_value

LIFETIME = 10.0
MAP = "users"
KEYS = ["ada", "bob", "köln"]
LIMIT = 100 * OVERHEAD_BYTES


def replica_with(**values: object) -> PartitionReplica:
    replica = PartitionReplica(operation_memory=4, tombstone_lifetime=LIFETIME)
    for number, (key, value) in enumerate(values.items()):
        replica.apply(MAP, encode_key(key), Entry(encode_value(value), 1 + number, 0, math.inf))
    return replica


def note(recent: RecentReads, replica: PartitionReplica, key: str) -> None:
    """Remember what a copy holds, as a read that has its turn does."""
    entry = replica.entry(MAP, encode_key(key))
    if entry is not None and entry.value is not None:
        recent.of(MAP)
        recent.note(replica, MAP, encode_key(key), decode_value(entry.value), entry)


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(
            ["write", "delete", "older", "shorter", "restore", "drop", "sweep", "read"]
        ),
        st.sampled_from(KEYS),
        st.integers(1, 9),
    ),
    max_size=30,
)


class Twin:
    """One copy with what was read of it, and steps that change it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.recent = RecentReads(LIMIT)
        self.replica = replica_with()
        self._hlc = 10

    def step(self, kind: str, key: str, number: int) -> None:
        encoded, held = encode_key(key), self.replica.entry(MAP, encode_key(key))
        self._hlc += 1
        ends_at = self.now + number if number % 2 else math.inf
        entry = Entry(encode_value(self._hlc), self._hlc, 0, ends_at)
        match kind:
            case "write":
                self.replica.apply(MAP, encoded, entry)
            case "delete":
                self.replica.apply(MAP, encoded, Entry(None, self._hlc, 0, self.now + LIFETIME))
            case "older":
                self.replica.apply(MAP, encoded, Entry(encode_value(0), number, 0, math.inf))
            case "shorter" if held is not None and held.value is not None:
                self.replica.apply(MAP, encoded, replace(held, expires_at=self.now))
            case "restore":
                self.replica.restore(MAP, encoded, entry if number % 2 else None)
            case "drop" if held is not None:
                self.replica.drop(KeyVersion(MAP, encoded, held.hlc, held.origin))
            case "sweep":
                self.now += number
                self.replica.sweep(self.now, 100)
            case _:
                note(self.recent, self.replica, key)

    def remembered(self) -> dict[str, object]:
        """Return what a reader would find now."""
        found = {}
        for key, value in self.recent.of(MAP).items():
            if type(value) is not tuple:
                found[key] = value
            elif self.now < value[1]:
                found[key] = value[0]
        return found


@given(OPERATIONS)
def test_what_is_remembered_is_what_the_copy_holds(operations: list[tuple[str, str, int]]) -> None:
    """Invariant of `recent.py`, against the dumb twin: a read of the copy itself."""
    twin = Twin()

    for operation in operations:
        twin.step(*operation)

        for key, value in twin.remembered().items():
            assert encode_value(value) == twin.replica.get(MAP, encode_key(key), twin.now)


@pytest.mark.parametrize("kind", ["write", "delete", "shorter", "restore", "drop", "sweep"])
def test_every_change_of_an_entry_is_forgotten(kind: str) -> None:
    """Each way in which an entry is replaced, shortened or given up."""
    twin = Twin()
    twin.step("write", "ada", 9)
    twin.step("read", "ada", 1)
    assert "ada" in twin.recent.of(MAP)

    twin.step(kind, "ada", 15)

    assert {} == twin.recent.of(MAP)
    assert 0 == twin.recent.size_bytes


@given(OPERATIONS)
def test_memory_is_that_of_what_is_remembered(operations: list[tuple[str, str, int]]) -> None:
    """The count neither drifts nor forgets to come down."""
    twin = Twin()

    for operation in operations:
        twin.step(*operation)

    keys = [encode_key(key) for key in twin.recent.of(MAP)]
    held = [twin.replica.entry(MAP, key) for key in keys]
    values = [(entry and entry.value) or b"" for entry in held]
    sizes = [
        OVERHEAD_BYTES + len(key) + len(value) for key, value in zip(keys, values, strict=True)
    ]
    assert sum(sizes) == twin.recent.size_bytes


def test_a_value_is_forgotten_before_its_entry_is_replaced() -> None:
    """Another thread that looks in between finds the copy's own entry, old or new."""
    replica, recent = replica_with(ada=1), RecentReads(LIMIT)
    note(recent, replica, "ada")
    seen: list[object] = []

    class Watched(dict[bytes, Entry]):
        def __setitem__(self, key: bytes, entry: Entry) -> None:
            seen.append(recent.of(MAP).get("ada"))
            super().__setitem__(key, entry)

    replica._maps[MAP] = Watched(replica._maps[MAP])
    replica.apply(MAP, encode_key("ada"), Entry(encode_value(2), 99, 0, math.inf))

    assert [None] == seen


def test_only_what_nobody_can_change_is_shared() -> None:
    """Two readers must not get the same list."""
    values = {"a": b"bytes", "b": "text", "c": 1, "d": 1.5, "e": True, "f": [1], "g": {"x": 1}}
    replica, recent = replica_with(**values, h=None), RecentReads(LIMIT)

    for key in "abcdefgh":
        note(recent, replica, key)

    assert {key: values[key] for key in "abcde"} == recent.of(MAP)


def test_what_ends_is_remembered_with_its_end() -> None:
    """The reader compares it with the clock, as it does with an entry."""
    replica, recent = replica_with(), RecentReads(LIMIT)
    replica.apply(MAP, encode_key("ada"), Entry(encode_value(1), 5, 0, 7.5))

    note(recent, replica, "ada")

    assert {"ada": (1, 7.5)} == recent.of(MAP)


def test_large_values_are_not_remembered() -> None:
    """They would take the room of many."""
    replica, recent = replica_with(ada=b"v" * VALUE_BYTES_MAX, bob=b"v"), RecentReads(2**20)

    note(recent, replica, "ada")
    note(recent, replica, "bob")

    assert {"bob": b"v"} == recent.of(MAP)


def test_all_is_forgotten_when_the_limit_is_reached_and_then_few_are_remembered() -> None:
    """A working set that does not fit costs little: one read of `TURNS` is remembered."""
    replica = replica_with(a=1, b=2, c=3)
    recent = RecentReads(2 * OVERHEAD_BYTES + 10)

    for key in "abc":
        note(recent, replica, key)

    assert {"c": 3} == recent.of(MAP)
    assert 1 == recent.forgotten
    assert [False] * (TURNS - 1) + [True] == [recent.has_turn() for _ in range(TURNS)]


def test_a_limit_of_one_byte_keeps_nothing() -> None:
    """The way to turn it off."""
    replica, recent = replica_with(ada=1), RecentReads(1)

    note(recent, replica, "ada")

    assert {} == recent.of(MAP)
    assert 0 == recent.size_bytes


def test_another_thread_adds_nothing() -> None:
    """Between its look at the copy and its note the entry might change."""
    assert not RecentReads(LIMIT, lambda: False).has_turn()


def test_keys_that_no_caller_has_are_passed_over() -> None:
    """A peer may send any bytes as a key; they must not stop a write."""
    replica, recent = replica_with(ada=1), RecentReads(LIMIT)
    note(recent, replica, "ada")

    for key in (b"", b"s\xff", b"bada", b"i1"):
        for version in (50, 51):
            assert replica.apply(MAP, key, Entry(encode_value(version), version, 0, math.inf))

    assert {"ada": 1} == recent.of(MAP)
