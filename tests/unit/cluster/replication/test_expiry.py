"""The expiry wheel: nothing forgotten, nothing late, no more at once than asked for."""

from __future__ import annotations

import gc
import math
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.cluster.replication.expiry import ExpiryWheel, Reference

ENDS = st.lists(st.one_of(st.floats(0.0, 20.0), st.floats(0.0, 1e6)), max_size=15)
INSTANTS = st.lists(st.one_of(st.floats(0.0, 25.0), st.floats(0.0, 1.1e6)), max_size=8)


def wheel_of(ends: list[float]) -> ExpiryWheel:
    wheel = ExpiryWheel()
    for number, end in enumerate(ends):
        wheel.add("m", b"%d" % number, end)
    return wheel


def references(numbers: list[int]) -> list[Reference]:
    return sorted(("m", b"%d" % number) for number in numbers)


def look(wheel: ExpiryWheel, ends: list[float], now: float, limit: int = 100) -> list[int]:
    """Take out what is due, `limit` at a time; add anew what lives on; return what has ended."""
    ended = []
    while due := wheel.due(now, limit):
        assert len(due) <= limit
        for name, key in due:
            if ends[int(key)] <= now:
                ended.append(int(key))
            else:
                wheel.add(name, key, ends[int(key)])
    return ended


@given(ENDS, INSTANTS, st.integers(1, 4))
def test_what_has_ended_is_found_once_and_within_a_quarter_second(
    ends: list[float], instants: list[float], limit: int
) -> None:
    """However far the ends are, whenever it is asked, however little at a time."""
    wheel = wheel_of(ends)
    found: list[int] = []

    for now in sorted(instants):
        found += look(wheel, ends, now, limit)

        surely = [n for n, end in enumerate(ends) if math.floor(end * 4) + 1 <= math.floor(now * 4)]
        assert set(surely) <= set(found)
    found += look(wheel, ends, 2e6)

    assert list(range(len(ends))) == sorted(found)
    assert 0 == wheel.count


@given(st.floats(0.0, 1e6), st.floats(0.25, 1e6))
def test_a_key_is_looked_at_few_times_before_its_end(start: float, left: float) -> None:
    """Once for each width of a bucket."""
    wheel, looks = ExpiryWheel(), 0
    wheel.due(start, 1)
    wheel.add("m", b"key", start + left)

    for now in instants_of(wheel):
        looks += 1
        wheel.due(now, 1)
        if now >= start + left:
            break
        wheel.add("m", b"key", start + left)

    assert looks <= 2 + math.log(4 * left + 1, 16)


def instants_of(wheel: ExpiryWheel) -> Iterator[float]:
    """Yield each instant at which something is due next."""
    while wheel.count:
        yield wheel._next / 4


def test_keys_that_are_added_again_for_the_same_time_are_held_once() -> None:
    """A key that is written a hundred times within a bucket is one reference."""
    wheel = ExpiryWheel()

    for n in range(100):
        wheel.add("m", b"key", 30.0 + n / 1000)

    assert 1 == wheel.count
    assert [("m", b"key")] == wheel.due(40.0, 10)
    assert 0 == wheel.count


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="Python 3.14 tracks every dictionary")
def test_references_are_nothing_to_the_garbage_collector() -> None:
    """The collector visits maps and buckets, not keys."""
    wheel = wheel_of([float(end) for end in range(1000)])

    keys = [bucket for buckets in wheel._buckets.values() for bucket in buckets.values()]

    assert 1000 == sum(map(len, keys))
    assert not any(map(gc.is_tracked, keys))


def test_what_never_ends_is_not_kept() -> None:
    """Endless entries cost nothing."""
    wheel = wheel_of([math.inf])

    assert [] == wheel.due(1e12, 10)


def test_earlier_seconds_come_first() -> None:
    """A limit does not starve the oldest."""
    wheel = wheel_of([9.0, 2.0, 5.0])

    assert [("m", b"1"), ("m", b"2")] == wheel.due(20.0, 2)


def test_a_key_added_after_the_wheel_was_emptied_is_found() -> None:
    """The next instant is set anew."""
    wheel = wheel_of([1.0])
    wheel.due(10.0, 10)

    wheel.add("m", b"late", 3.0)

    assert [("m", b"late")] == wheel.due(10.0, 10)


def test_an_earlier_end_than_all_known_is_found_in_time() -> None:
    """Adding moves the next instant forward."""
    wheel = wheel_of([15.0])

    wheel.add("m", b"soon", 2.0)

    assert [("m", b"soon")] == wheel.due(3.0, 10)
