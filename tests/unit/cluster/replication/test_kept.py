"""Books of one map in one copy: bounds, uses and victims, step by step."""

from __future__ import annotations

import math
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from cache.cluster.config.maps import MapPolicy, Policies
from cache.cluster.replication.entries import ENTRY_BYTES, Entry
from cache.cluster.replication.replica import PartitionReplica
from cache.cluster.replication.room import Room
from cache.cluster.replication.usage import Usage

IDLE = 8.0
LIFETIME = 100.0


def copy_with(**policy: float | str) -> PartitionReplica:
    policies = Policies({"m": MapPolicy(**policy)})  # type: ignore[arg-type]  # by name
    usage = Usage(None, policies)
    return PartitionReplica(operation_memory=1, tombstone_lifetime=LIFETIME, usage=usage)


def put(copy: PartitionReplica, key: bytes, version: int = 1, value: bytes | None = b"v") -> None:
    copy.apply("m", key, Entry(value, version, 1, math.inf))


def ended(copy: PartitionReplica, now: float) -> list[bytes]:
    return sorted(key for _, key, _ in copy.idle(now, 100)[0])


def test_an_entry_ends_when_nobody_used_it() -> None:
    """Not before `max_idle`, counted from when it was noticed to be written."""
    copy = copy_with(max_idle=IDLE)
    put(copy, b"a")
    assert [] == ended(copy, 1.0)

    assert b"v" == copy.get("m", b"a", 1.0 + IDLE - 0.1)


def test_an_idle_entry_is_gone_before_it_is_swept() -> None:
    """And reading does not bring it back."""
    copy = copy_with(max_idle=IDLE)
    put(copy, b"a")
    ended(copy, 1.0)

    assert copy.get("m", b"a", 1.0 + IDLE) is None
    assert copy.use("m", b"a", 1.0 + IDLE) is None
    assert [b"a"] == ended(copy, 1.0 + IDLE + 0.5)


def test_a_read_and_a_write_put_the_end_off() -> None:
    """Both are uses."""
    copy = copy_with(max_idle=IDLE)
    for key in (b"read", b"written", b"neither"):
        put(copy, key)
    ended(copy, 1.0)

    copy.get("m", b"read", 6.0)
    put(copy, b"written", 2)
    ended(copy, 6.0)

    assert [b"neither"] == ended(copy, 1.0 + IDLE + 0.5)
    assert [b"read", b"written"] == ended(copy, 6.0 + IDLE + 0.5)


def test_who_takes_over_counts_everything_as_used() -> None:
    """The owner before told nobody what was read; nothing may end early."""
    copy = copy_with(max_idle=IDLE)
    put(copy, b"a")
    copy.rest()

    copy.take_over(100.0)

    assert b"v" == copy.get("m", b"a", 100.0 + IDLE - 0.1)
    ended(copy, 100.0 + IDLE)
    assert [b"a"] == ended(copy, 100.0 + 2 * IDLE + 0.5)


def test_the_end_of_an_idle_entry_is_a_tombstone_of_its_version() -> None:
    """Older versions elsewhere do not come back, and a later write wins."""
    copy = copy_with(max_idle=IDLE)
    put(copy, b"a", 7)
    copy.idle(1.0, 100)

    assert [("m", b"a", Entry(None, 7, 1, 20.0 + LIFETIME))] == copy.idle(20.0, 100)[0]


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.integers(1, 3)), max_size=40))
def test_idle_ends_are_those_of_a_dumb_twin(steps: Sequence[tuple[int, bool, int]]) -> None:
    """Uses are rounded up to the next look; nothing ends early, everything ends."""
    copy, twin, now = copy_with(max_idle=IDLE), dict[bytes, float](), 0.0
    for version, (number, writes, seconds) in enumerate(steps, 1):
        key = b"%d" % number
        if writes:
            put(copy, key, version)
            twin[key] = now
        elif copy.get("m", key, now) is not None:
            twin[key] = now
        due, _ = copy.idle(now, 100)
        for _, gone, _ in due:
            assert now - twin.pop(gone) >= IDLE
        for name, gone, entry in due:
            copy.apply(name, gone, entry)
        now += seconds

    assert sorted(twin) == ended(copy, now + 3 * IDLE)


def full(copy: PartitionReplica, written: bytes) -> list[bytes]:
    room = Room(None)
    return [victim.key for victim in room.make(copy, [("m", written)])]


def test_entries_written_longest_ago_make_room() -> None:
    """An overwrite makes an entry young again."""
    copy = copy_with(max_entries=3)
    for key in (b"a", b"b", b"c"):
        put(copy, key)
    put(copy, b"a", 2)
    put(copy, b"d")

    assert [b"b"] == full(copy, b"d")
    assert 3 == copy.kept["m"].live


def test_with_lru_what_was_read_is_spared_once() -> None:
    """Read since the last look: to the end of the line. Not read again: it goes."""
    copy = copy_with(max_entries=3, eviction="lru")
    for key in (b"a", b"b", b"c"):
        put(copy, key)
    copy.get("m", b"a", 1.0)
    put(copy, b"d")
    assert [b"b"] == full(copy, b"d")

    put(copy, b"e")
    assert [b"c"] == full(copy, b"e")
    put(copy, b"f")
    assert [b"d"] == full(copy, b"f")
    put(copy, b"g")
    assert [b"a"] == full(copy, b"g")


def test_bytes_are_counted_exactly() -> None:
    """Through writes, overwrites, deletes and ends; all of it is given back."""
    copy = copy_with(max_bytes=10_000)
    put(copy, b"key", 1, b"value")
    assert ENTRY_BYTES + 8 == copy.kept["m"].size_bytes
    put(copy, b"key", 2, b"longer value")
    assert ENTRY_BYTES + 15 == copy.kept["m"].size_bytes
    put(copy, b"key", 3, None)
    assert (ENTRY_BYTES + 3, 0) == (copy.kept["m"].size_bytes, copy.kept["m"].live)
    expiring = Entry(b"v", 4, 1, 5.0)
    copy.apply("m", b"key", expiring)
    copy.sweep(6.0, 10)
    copy.sweep(6.0 + LIFETIME, 10)

    assert (0, 0) == (copy.kept["m"].size_bytes, copy.kept["m"].live)
    assert 0 == copy.memory_bytes


def test_other_maps_make_no_room_for_a_full_one() -> None:
    """Its bounds are its own."""
    copy = copy_with(max_bytes=2 * (ENTRY_BYTES + 2))
    copy.apply("other", b"a", Entry(b"v", 1, 1, math.inf))
    for key in (b"a", b"b", b"c"):
        put(copy, key)

    assert [b"a"] == full(copy, b"c")
    assert 1 == copy.live_count("other", 0.0)
