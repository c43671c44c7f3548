"""The expiry wheel: nothing early, nothing forgotten, no more at once than asked for."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from cache.cluster.replication.expiry import ExpiryWheel, Reference

ENDS = st.lists(st.floats(0.0, 20.0), max_size=15)


def wheel_of(ends: list[float]) -> ExpiryWheel:
    wheel = ExpiryWheel()
    for number, end in enumerate(ends):
        wheel.add("m", b"%d" % number, end)
    return wheel


def references(numbers: list[int]) -> list[Reference]:
    return sorted(("m", b"%d" % number) for number in numbers)


@given(ENDS, st.floats(0.0, 25.0))
def test_due_is_what_the_dumb_twin_finds(ends: list[float], now: float) -> None:
    """Those whose whole quarter has passed: never early, and late by at most a quarter second."""
    wheel = wheel_of(ends)

    due = wheel.due(now, 100)

    past = [number for number, end in enumerate(ends) if math.floor(end * 4) + 1 <= now * 4]
    assert references(past) == sorted(due)


@given(ENDS, st.integers(1, 4), st.lists(st.floats(0.0, 25.0), max_size=5))
def test_every_key_comes_once_however_it_is_asked_for(
    ends: list[float], limit: int, instants: list[float]
) -> None:
    """What a limit leaves behind comes later; nothing comes twice."""
    wheel = wheel_of(ends)

    parts = [wheel.due(now, limit) for now in sorted(instants) + [30.0] * 15]

    assert all(len(part) <= limit for part in parts)
    assert references(list(range(len(ends)))) == sorted(key for part in parts for key in part)


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
