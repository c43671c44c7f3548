"""Loads that several callers share, where the loop goes and comes; the rest is in the contract."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from cache.errors import ClosedError, WrongLoopError
from cache.local import LocalCache

Runner = Callable[[Coroutine[Any, Any, object]], object]  # Any: what is sent in is not looked at


def run_and_tear_down(main: Coroutine[Any, Any, object]) -> object:  # Any: as above
    """Run without what `asyncio.run` does at the end: tasks are left as they are."""
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(main)
    finally:
        loop.close()


async def begin(cache: LocalCache[str]) -> asyncio.Task[str]:
    """Leave a load behind that would never end, and somebody who waits for it."""

    async def load() -> str:
        await asyncio.Event().wait()
        return "lost"

    waiting = asyncio.ensure_future(cache.get_or_set("k", load))
    for _ in range(3):
        await asyncio.sleep(0)
    assert not waiting.done()
    return waiting


@pytest.mark.parametrize("run", [asyncio.run, run_and_tear_down])
def test_a_load_of_a_loop_that_is_gone_starts_anew(run: Runner) -> None:
    """Whether the loop cancelled its tasks at its end or not: nobody waits for what cannot come."""
    cache: LocalCache[str] = LocalCache()
    run(begin(cache))

    async def again() -> str:
        async with asyncio.timeout(10):
            return await cache.get_or_set("k", lambda: "new")

    assert asyncio.run(again()) == "new"
    gc.collect()
    assert (cache._flights.loading, cache._flights._tasks) == ({}, {})


def test_a_load_of_a_loop_that_is_gone_does_not_hold_up_the_end() -> None:
    """`close` waits for loads that can end."""
    cache: LocalCache[str] = LocalCache()
    run_and_tear_down(begin(cache))

    asyncio.run(asyncio.wait_for(cache.close(), 10))

    assert cache._flights._tasks == {}


async def test_a_load_of_a_loop_that_runs_is_not_joined_from_another() -> None:
    """Two threads with a loop each cannot share a `LocalCache`; the message says what can."""
    cache: LocalCache[str] = LocalCache()
    waiting = await begin(cache)

    with pytest.raises(WrongLoopError, match="SyncCache"):
        await asyncio.to_thread(asyncio.run, cache.get_or_set("k", lambda: "new"))

    await cache.close()
    with pytest.raises(ClosedError):
        await waiting
