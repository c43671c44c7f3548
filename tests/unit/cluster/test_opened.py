"""A cache of a cluster that opens itself, and where it may be used."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from cache.cluster import ClusterConfig, DistributedMap, Node
from cache.cluster.opened import BOUND, ClusterCache
from cache.errors import CacheError, ClosedError, WrongLoopError
from cache.interface import Cache
from cache.local import LocalCache


def make(**overrides: Any) -> ClusterCache[Any]:  # Any: fields, and values of every type
    config = ClusterConfig.local(partition_count=8, leave_timeout=0.5, **overrides)
    return ClusterCache(config, "users", ttl="1h")


def elsewhere(body: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run a coroutine on a loop of its own in another thread; return what it returns or raises."""
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(asyncio.run(body()))
        except CacheError as error:
            results.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return results[0]


async def test_the_first_call_opens_it_once() -> None:
    """Calls at the same time share the start."""
    cache = make()
    assert "not open" in repr(cache)
    with pytest.raises(ClosedError, match="is not open"):
        _ = cache.node

    await asyncio.gather(*(cache.set(number, number) for number in range(20)))

    assert 20 == await cache.size()
    assert pytest.approx(3600, abs=5) == await cache.ttl(1)
    assert 20 == cache.stats().sets
    await cache.close()
    await cache.close()
    with pytest.raises(ClosedError, match="closed"):
        await cache.get("k")


async def test_open_it_costs_nothing() -> None:
    """Its methods are the map's; each awaited method of a cache is among them."""
    async with make() as cache:
        opened = await cache.open()

        assert all(getattr(cache, name) == getattr(opened, name) for name in BOUND)
    assert cache.get.__func__ is ClusterCache.get  # type: ignore[attr-defined]  # a method has it
    awaited = {name for name in dir(Cache) if not name.startswith("_")}
    assert awaited - {"cached", "namespace", "stats", "close"} == {*BOUND}


async def test_a_start_that_fails_is_tried_again() -> None:
    """Everybody who waits is told; the next call is another try."""
    async with Node(ClusterConfig.local(partition_count=8)) as node:
        cache = make(bind=node.address)

        results = await asyncio.gather(cache.get("a"), cache.get("b"), return_exceptions=True)

        assert [OSError, OSError] == [type(result) for result in results]
    assert await cache.get("a") is None
    await cache.close()


async def test_a_caller_who_leaves_does_not_stop_the_start() -> None:
    """The others wait for it."""
    cache = make()
    first, second = asyncio.ensure_future(cache.get("a")), asyncio.ensure_future(cache.get("b"))
    await asyncio.sleep(0)
    first.cancel()

    assert await second is None
    await cache.close()


async def test_closing_it_while_it_starts_ends_both() -> None:
    """Nothing is left behind."""
    cache = make()
    opening = asyncio.ensure_future(cache.get("k"))
    await asyncio.sleep(0)

    await cache.close()

    with pytest.raises(ClosedError, match="closed while it started"):
        await opening


async def test_a_node_that_an_operator_drained_does_not_come_back() -> None:
    """It is closed, then."""
    cache = make()
    await cache.set("k", 1)

    await cache.node.drain()
    await asyncio.sleep(0)

    with pytest.raises(ClosedError):
        await cache.get("k")


def test_each_loop_gets_a_node_of_its_own() -> None:
    """Tests call `asyncio.run` again and again; nobody closed the cache between them."""
    cache = make()

    async def use() -> str:
        assert await cache.add("k", 1)
        return cache.node.name

    assert asyncio.run(use()) != asyncio.run(use())
    assert "not open" in repr(cache)


async def test_from_another_threads_loop_it_is_refused() -> None:
    """With the remedy; writes, batches, loads, the whole map, and the end of it. It goes on at home."""
    cache = make()
    await cache.set("k", 1)
    users: DistributedMap[Any] = cache.node.map("users")
    calls: list[Callable[[], Coroutine[Any, Any, Any]]] = [
        cache.size,
        cache.close,
        lambda: cache.set("k", 2),
        lambda: cache.set_many({"k": 1}),
        lambda: cache.get_or_set("absent", lambda: 1),
        lambda: users.set("k", 2),
        cache.node.drain,
    ]

    errors = [await asyncio.to_thread(elsewhere, call) for call in calls]

    assert [WrongLoopError] * len(calls) == [type(error) for error in errors]
    assert all("`cache.SyncCache`" in str(error) for error in errors)
    assert 1 == await cache.get("k")
    await cache.close()


async def test_a_local_cache_refuses_another_loop_only_while_it_loads() -> None:
    """It lives nowhere otherwise: one loop at a time is all it asks."""
    local: LocalCache[int] = LocalCache()
    release = asyncio.Event()

    async def load() -> int:
        await release.wait()
        return 1

    loading = asyncio.ensure_future(local.get_or_set("k", load))
    await asyncio.sleep(0)

    error = await asyncio.to_thread(elsewhere, lambda: local.get_or_set("k", lambda: 2))
    release.set()

    assert isinstance(error, WrongLoopError)
    assert 1 == await loading
    assert 1 == await asyncio.to_thread(elsewhere, lambda: local.get("k"))


def test_a_load_whose_loop_was_closed_is_forgotten() -> None:
    """It would never end. In a process of its own, where what it leaves behind bothers nobody."""
    program = """
import asyncio
from cache.local import LocalCache
local, loop = LocalCache(), asyncio.new_event_loop()
waiting = loop.create_task(local.get_or_set("k", loop.create_future))
loop.run_until_complete(asyncio.sleep(0))
loop.close()
print(asyncio.run(local.get_or_set("k", lambda: 2)))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=20
    )

    assert "2" == done.stdout.strip()
