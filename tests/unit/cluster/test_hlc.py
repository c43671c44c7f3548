"""Version stamps only rise, whatever the wall clock and the other members do."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from cache.cluster.hlc import COUNTER_BITS, DRIFT_MAX, HybridClock, origin_hash

WALLS = st.floats(0.0, 4e9)


def stamp_of(wall: float) -> int:
    return int(wall * 1000) << COUNTER_BITS


@given(st.lists(WALLS, min_size=2))
def test_stamps_rise_also_when_the_wall_clock_jumps_back(walls: list[float]) -> None:
    """A version is later than every version before it on the same member."""
    clock = HybridClock()

    stamps = [clock.stamp(wall) for wall in walls]

    assert all(earlier < later for earlier, later in pairwise(stamps))


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
