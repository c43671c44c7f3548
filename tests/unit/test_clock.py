"""The clock that tests move."""

from __future__ import annotations

import pytest

from cache.clock import FrozenClock
from cache.local import LocalCache


def test_it_stands_still_until_it_is_moved() -> None:
    """Both readings move together."""
    clock = FrozenClock(wall=100.0)
    assert (clock.monotonic(), clock.wall()) == (0.0, 100.0)

    clock.advance(2.5)

    assert (clock.monotonic(), clock.wall()) == (2.5, 102.5)


def test_it_does_not_go_back() -> None:
    """And says so."""
    with pytest.raises(ValueError, match="seconds=-1"):
        FrozenClock().advance(-1)


async def test_a_local_cache_sees_a_move_within_one_turn_of_the_loop() -> None:
    """It reads a clock once a turn otherwise."""
    clock = FrozenClock()
    cache: LocalCache[int] = LocalCache(clock=clock)
    await cache.set("k", 1, ttl=10)
    assert cache.get_nowait("k") == 1

    clock.advance(10)

    assert cache.get_nowait("k") is None
