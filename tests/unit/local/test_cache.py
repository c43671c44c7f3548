"""What `LocalCache` adds to the contract: time by turns, the sync path, bounds, copies, its end."""

from __future__ import annotations

import asyncio
import gc
import math
import weakref
from random import Random
from typing import Any

import pytest

from cache.errors import CacheError, ClosedError, ConfigError
from cache.interface import CacheEntry
from cache.keys import Key
from cache.local import LocalCache, NullCache
from cache.local.cache import PolicyName
from tests.contract.conftest import ManualClock

POLICY_NAMES: list[PolicyName] = ["s3fifo", "lru", "wtinylfu"]


async def test_the_clock_is_read_once_per_turn() -> None:
    """What happens in one turn of the loop happens at one instant."""
    clock = ManualClock()
    async with LocalCache[int](clock=clock) as cache:
        await cache.set("k", 1, ttl=5)

        clock.now += 10
        same_turn = cache.get_nowait("k")
        await asyncio.sleep(0)

        assert same_turn == 1
        assert cache.get_nowait("k") is None


def test_outside_a_loop_the_clock_is_read_at_every_call() -> None:
    """There are no turns; also after a loop was torn down."""
    clock = ManualClock()
    cache: LocalCache[int] = LocalCache(clock=clock)

    async def fill() -> None:
        await cache.set("k", 1, ttl=5)

    asyncio.run(fill())

    assert cache.get_nowait("k") == 1
    clock.now += 10
    assert cache.get_nowait("k") is None


def test_a_cache_outlives_a_loop_that_was_torn_down_within_a_turn() -> None:
    """Its end-of-turn callback never ran: the next slow call notices."""
    clock = ManualClock()
    cache: LocalCache[int] = LocalCache(clock=clock)
    loop = asyncio.new_event_loop()
    loop.call_soon(lambda: (cache.get_nowait("k"), loop.stop()))
    loop.run_forever()
    loop.close()

    clock.now += 10

    assert cache._now() == clock.now


@pytest.mark.parametrize("policy", POLICY_NAMES)
async def test_get_nowait_is_get(policy: PolicyName) -> None:
    """Fast and slow path (here: forced by `copy`) evict the same keys and count the same."""
    fast: LocalCache[int] = LocalCache(max_entries=20, policy=policy)
    clear: LocalCache[int] = LocalCache(max_entries=20, policy=policy, copy=True)
    rng = Random(5)
    for _ in range(2_000):
        key = f"k{min(rng.randrange(60), rng.randrange(60))}"
        assert await clear.get(key) == fast.get_nowait(key)
        if not await fast.exists(key):
            await fast.set(key, 1)
            await clear.set(key, 1)

    assert clear.stats() == fast.stats()
    assert fast.stats().evictions > 100


@pytest.mark.parametrize("copy", [False, True])
@pytest.mark.parametrize("key", ["text", b"bytes", 1])
async def test_get_entry_nowait_is_get_entry(copy: bool, key: Key) -> None:
    """By the fast path and by the slow one; each is a use, and counted."""
    clock = ManualClock()
    async with LocalCache[str](clock=clock, copy=copy) as cache:
        assert cache.get_entry_nowait(key) is None
        await cache.set(key, "v", ttl=8)
        await clock.advance(5)
        cache.get_nowait("a turn begins")

        assert CacheEntry("v", 3.0) == cache.get_entry_nowait(key) == await cache.get_entry(key)
        assert cache.stats().hits == 2
        await clock.advance(3)
        assert cache.get_entry_nowait(key) is None


async def test_a_look_at_an_entry_is_a_use_of_it() -> None:
    """`max_idle` counts from it; the seconds left are those before it."""
    clock = ManualClock()
    async with LocalCache[str](clock=clock, max_idle=10) as cache:
        await cache.set("k", "v")
        await clock.advance(4)

        assert CacheEntry("v", 6.0) == await cache.get_entry("k")
        assert await cache.ttl("k") == 10


@pytest.mark.parametrize("policy", POLICY_NAMES)
async def test_bounds_hold(policy: PolicyName) -> None:
    """In entries and in bytes, as `weigh` has it."""
    async with LocalCache[str](max_entries=10, max_bytes=60, policy=policy, weigh=len) as cache:
        for number in range(100):
            await cache.set(f"{number:02}", "x" * (number % 13))
            assert cache.stats().entries <= 10
            assert cache.stats().bytes <= 60

        assert cache.stats().evictions > 50


async def test_expired_keys_are_freed_while_nobody_uses_the_cache() -> None:
    """A timer sweeps, slice by slice, and stops when nothing is left to end."""
    clock = ManualClock()
    async with LocalCache[int](max_entries=None, max_bytes=10**9, clock=clock) as cache:
        await cache.set_many(dict.fromkeys(range(1_000), 1), ttl=5)
        await clock.advance(0)
        await cache.exists("k")
        clock.now += 10

        turn_count = 0
        while cache._timer is not None:
            cache._timer.cancel()
            cache._on_timer()  # What the loop would call a second later.
            turn_count += 1

        assert (cache.stats().entries, cache.stats().expired) == (0, 1_000)
        assert turn_count >= 4


async def test_a_dropped_cache_does_not_live_on_in_its_timer() -> None:
    """Its timer knows it weakly."""
    cache: LocalCache[int] = LocalCache()
    await cache.set("k", 1, ttl=100)
    await asyncio.sleep(0)
    await cache.get("absent")
    assert cache._timer is not None
    reference = weakref.ref(cache)

    del cache
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    gc.collect()

    assert reference() is None


async def test_values_are_shared_unless_copied() -> None:
    """By default what comes out is what went in."""
    shared: LocalCache[list[int]] = LocalCache()
    copying: LocalCache[list[int]] = LocalCache(copy=True)
    value = [1]
    await shared.set("k", value)
    await copying.set("k", value)

    value.append(2)
    got = await copying.get("k")
    assert got is not None
    got.append(3)

    assert await shared.get("k") is value
    assert await copying.get("k") == [1]


async def test_copies_of_one_load_are_not_shared() -> None:
    """Each caller gets its own."""
    async with LocalCache[list[int]](copy=True) as cache:
        first, second = await asyncio.gather(
            cache.get_or_set("k", lambda: [1]), cache.get_or_set("k", lambda: [1])
        )
        first.append(2)

        assert second == await cache.get("k") == [1]


async def test_defaults_of_the_cache() -> None:
    """`ttl` is for keys that have none of their own; idle time is for all."""
    async with LocalCache[int](ttl="1m", max_idle=30, clock=ManualClock()) as cache:
        await cache.set("a", 1)
        await cache.set("b", 1, ttl=None)
        await cache.set("c", 1, ttl=5)

        assert [30, 30, 5] == [await cache.ttl(key) for key in "abc"]


@pytest.mark.parametrize("make", [LocalCache, NullCache])
async def test_a_closed_cache_refuses(make: Any) -> None:  # Any: two classes, one way to call them
    """Closing twice is fine; a namespace does not close what it views."""
    cache = make()
    await cache.namespace("a").close()
    await cache.set("k", 1)
    await cache.close()
    await cache.close()

    for call in (cache.get("k"), cache.set("k", 1), cache.size(), cache.get_many(["k"])):
        with pytest.raises(ClosedError):
            await call


@pytest.mark.parametrize("make", [LocalCache, NullCache])
async def test_closing_ends_loads(make: Any) -> None:  # Any: as above
    """Who waits for one gets ClosedError; the load has ended when `close` returns."""
    cache, ended = make(), asyncio.Event()

    async def load() -> int:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return 1

    caller = asyncio.ensure_future(cache.get_or_set("k", load))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await cache.close()

    assert ended.is_set()
    with pytest.raises(ClosedError):
        await caller


async def test_a_load_that_cancels_itself_is_an_error_not_a_cancellation() -> None:
    """The caller was not cancelled, so it must not look as if."""

    async def load() -> int:
        raise asyncio.CancelledError

    async with LocalCache[int]() as cache:
        with pytest.raises(CacheError, match="from inside"):
            await cache.get_or_set("k", load)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"max_entries": None}, "max_entries"),
        ({"max_entries": 0}, "max_entries"),
        ({"max_bytes": 0}, "max_bytes"),
        ({"policy": "fifo"}, "policy"),
        ({"jitter": 1.5}, "jitter"),
        ({"jitter": math.nan}, "jitter"),
        ({"ttl": 0}, "ttl"),
        ({"max_idle": -1}, "max_idle"),
    ],
)
def test_a_bad_argument_is_named(arguments: dict[str, Any], name: str) -> None:  # Any: bad ones
    """At construction, as ConfigError."""
    with pytest.raises(ConfigError, match=name):
        LocalCache(**arguments)


def test_a_repr_shows_no_values() -> None:
    """State and identity only."""
    assert repr(LocalCache()) == "<LocalCache 0 entries>"
    assert repr(NullCache()) == "<NullCache open>"
