"""Version stamps only rise, whatever the wall clock and the other members do."""

from __future__ import annotations

import sys
import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.cluster.hlc import (
    COUNTER_BITS,
    DRIFT_MAX,
    LOADED,
    HybridClock,
    loaded_above,
    made_at,
    origin_hash,
)

WALLS = st.floats(0.0, 4e9)
STAMPS = st.integers(0, int(4e12) << COUNTER_BITS)
ORIGINS = st.integers(0, 2**32 - 1)


WALL = 1_763_000_000.5


def stamp_of(wall: float) -> int:
    return int(wall * 1000) << COUNTER_BITS


def stamp_bytes(clock: HybridClock, wall: float) -> int:
    """Return the memory that Python asks for to keep the next stamp."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        stamp = clock.stamp(wall)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert stamp
    return after - before


@given(st.lists(WALLS, min_size=2))
def test_stamps_rise_also_when_the_wall_clock_jumps_back(walls: list[float]) -> None:
    """A version is later than every version before it on the same member."""
    clock = HybridClock()

    stamps = [clock.stamp(wall) for wall in walls]

    assert all(earlier < later for earlier, later in pairwise(stamps))


@pytest.mark.parametrize("wall", [WALL, WALL + 1], ids=["counted on", "a later moment"])
def test_a_stamp_takes_no_more_memory_than_its_number_needs(wall: float) -> None:
    """Python makes sums and shifts with room for a carry, and an entry keeps its stamp for life."""
    clock = HybridClock()
    first = clock.stamp(WALL)

    assert stamp_bytes(clock, wall) == sys.getsizeof(first)


@given(st.lists(st.tuples(WALLS, st.integers(-5, 2**63))))
def test_a_stamp_is_later_than_all_that_were_believed(steps: list[tuple[float, int]]) -> None:
    """What was read here is never later than what is written here next."""
    clock = HybridClock()
    latest = -1

    for wall, seen in steps:
        believed = [hlc for hlc in (seen,) if clock.observe(hlc, wall)]
        stamp = clock.stamp(wall)

        assert stamp > max([latest, *believed])

        latest = stamp


def test_a_stamp_is_milliseconds_and_a_counter() -> None:
    """48 bits of wall clock, 16 bits of counter."""
    clock = HybridClock()

    stamps = [clock.stamp(1.5), clock.stamp(1.5), clock.stamp(1.501)]

    assert [1500 << 16, (1500 << 16) + 1, 1501 << 16] == stamps


def test_a_full_counter_runs_over_into_the_milliseconds() -> None:
    """More than 65536 stamps in a millisecond still rise."""
    clock = HybridClock()
    clock.observe(stamp_of(1.0) + 0xFFFF, 1.0)

    assert 1001 << 16 == clock.stamp(1.0)


def test_a_clock_set_back_an_hour_goes_on_counting() -> None:
    """Up from its last stamp, until the wall clock has caught up."""
    clock = HybridClock()
    last = clock.stamp(7200.0)

    assert [last + 1, last + 2] == [clock.stamp(3600.0), clock.stamp(3600.0)]
    assert stamp_of(7201.0) == clock.stamp(7201.0)


def test_an_older_stamp_from_elsewhere_changes_nothing() -> None:
    """It is believed, and the clock stays."""
    clock = HybridClock()
    last = clock.stamp(100.0)

    assert clock.observe(5, 100.0)
    assert last + 1 == clock.stamp(100.0)


def test_a_stamp_too_far_ahead_is_not_believed() -> None:
    """One broken clock would push all others to the end of time. Exactly the limit is believed."""
    clock = HybridClock()
    limit = stamp_of(100.0 + DRIFT_MAX)

    assert not clock.observe(limit + 1, 100.0)
    assert stamp_of(100.0) == clock.stamp(100.0)
    assert clock.observe(limit, 100.0)
    assert limit + 1 == clock.stamp(100.0)


def test_a_stamp_below_zero_is_not_believed() -> None:
    """No member ever made it."""
    assert not HybridClock().observe(-1, 100.0)


def test_stamps_up_to_the_clock_are_believed_after_the_wall_was_set_back() -> None:
    """Its own earlier stamps come back from other members."""
    clock = HybridClock()
    last = clock.stamp(10 * DRIFT_MAX)

    assert clock.observe(last, 0.0)
    assert not clock.observe(last + 1, 0.0)


def test_origins_are_fixed_32_bit_numbers() -> None:
    """Part of the wire: all members break ties alike."""
    assert 0x32D153FF == origin_hash("abc")
    assert origin_hash("a#1") != origin_hash("a#2")


@given(st.tuples(STAMPS, ORIGINS), STAMPS, ORIGINS, st.tuples(STAMPS, ORIGINS))
def test_a_load_comes_after_what_it_replaces_and_before_every_later_write(
    held: tuple[int, int], stamp: int, loader: int, write: tuple[int, int]
) -> None:
    """Whatever the clock said when it was loaded, and when the other one was written."""
    loaded = loaded_above(held, stamp, loader)

    assert held < loaded
    assert (write < loaded) == (write[0] <= held[0])
    assert loaded_above(None, stamp, loader) < write or write[0] == 0


@given(st.none() | st.tuples(STAMPS, ORIGINS), st.lists(STAMPS, min_size=2), ORIGINS)
def test_loads_in_place_of_loads_rise_also_when_the_clock_is_set_back(
    held: tuple[int, int] | None, stamps: list[int], loader: int
) -> None:
    """They stay above the write that began the row of them, and fit into 63 bits."""
    row = [loaded_above(held, stamps[0], loader)]
    for stamp in stamps[1:]:
        row.append(loaded_above(row[-1], stamp, loader))

    assert all(earlier < later for earlier, later in pairwise(row))
    assert {0 if held is None else held[0]} == {hlc for hlc, _ in row}
    assert all(LOADED <= origin < 2**63 for _, origin in row)


def test_a_version_tells_when_it_was_made() -> None:
    """A load when it was loaded, not when what it replaced was written."""
    written = (stamp_of(1000.0), 7)

    assert 1000.0 == made_at(*written)
    assert 5000.5 == made_at(*loaded_above(written, stamp_of(5000.5), 7))


def test_two_loaders_of_one_instant_differ() -> None:
    """Else copies with different values would look equal."""
    stamp = stamp_of(1000.0)

    assert loaded_above(None, stamp, 1) != loaded_above(None, stamp, 2)
    assert loaded_above(None, stamp, 1) != loaded_above(None, stamp + 1, 1)
