"""Decorated functions over a `Cache`: hits, loads that are shared, errors, None, tags."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from cache.decorator import cached
from cache.errors import (
    ConfigError,
)
from cache.flights import Loaded
from cache.local import LocalCache
from tests.unit.decorator.support import World, counts, reading, turns, world

MINUTE = 60.0


@pytest.fixture
async def here() -> AsyncIterator[World]:
    async with world() as made:
        yield made


# -- the table of other decorators, for ours -------------------------------------------------------


async def test_50_callers_of_one_key_are_one_load(here: World) -> None:
    """python-caches §1.1, first column: 1, where aiocache has 50."""
    read = reading(here, ttl="1m")
    here.source.open.clear()

    calls = [asyncio.ensure_future(read()) for _ in range(50)]
    await turns()
    here.source.open.set()

    assert await asyncio.gather(*calls) == ["it#1"] * 50
    assert counts(read.cache_info()) == {"misses": 50, "loads": 1}
    assert await read() == "it#1"
    assert read.cache_info().hits == 1


async def test_none_is_a_value(here: World) -> None:
    """Second column: cached, unless `skip_none` says otherwise."""
    here.source.answer = lambda name: None
    read = reading(here)

    assert [await read(), await read()] == [None, None]
    assert here.source.read_count == 1


@pytest.mark.parametrize("leaver", [0, 1, 4])
async def test_a_cancelled_caller_leaves_the_others_waiting(here: World, leaver: int) -> None:
    """Third column: the second caller gets the value, where cachebox, theine and cashews cancel it too."""
    read = reading(here)
    here.source.open.clear()
    calls = [asyncio.ensure_future(read()) for _ in range(5)]
    await turns()

    calls[leaver].cancel()
    await turns()
    here.source.open.set()

    results = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(results.pop(leaver), asyncio.CancelledError)
    assert results == ["it#1"] * 4
    assert here.source.read_count == 1


async def test_an_error_reaches_all_10_callers_and_is_not_stored(here: World) -> None:
    """Fourth column: one load, where aiocache has 10."""
    read = reading(here)
    here.source.error = LookupError("gone")

    results = await asyncio.gather(*[read() for _ in range(10)], return_exceptions=True)

    assert [type(result) for result in results] == [LookupError] * 10
    assert counts(read.cache_info()) == {"misses": 10, "loads": 1, "errors": 1}
    here.source.error = None
    assert await read() == "it#2"


async def test_the_last_caller_that_leaves_ends_the_load(here: World) -> None:
    """Nobody wants the value."""
    read = reading(here)
    here.source.open.clear()
    call = asyncio.ensure_future(read())
    await turns()

    call.cancel()
    await turns()
    here.source.open.set()

    assert await read() == "it#2"


# -- values ---------------------------------------------------------------------------------------


async def test_arguments_make_the_key_and_ttl_ends_the_value(here: World) -> None:
    """`ttl` in any of its forms."""
    read = reading(here, ttl="1m")

    assert [await read("a"), await read("b"), await read(name="a")] == ["a#1", "b#2", "a#1"]
    await here.pass_time(MINUTE + 1)

    assert await read("a") == "a#3"


async def test_without_options_the_cache_decides(here: World) -> None:
    """Its own time to live is the default."""
    cache: LocalCache[Any] = LocalCache(ttl=5, clock=here.clock)

    @cache.cached(key="k:{name}")
    async def read(name: str) -> Any:
        return await here.source.read(name)

    await read("a")

    entry = await cache.get_entry("k:a")
    assert entry is not None
    assert entry.ttl == 5


async def test_skip_none_does_not_store_it(here: World) -> None:
    """The next call asks again."""
    answers: Iterator[Any] = iter([None, None, 3])
    here.source.answer = lambda name: next(answers)
    read = reading(here, skip_none=True)

    assert [await read(), await read(), await read(), await read()] == [None, None, 3, 3]


async def test_none_ttl_keeps_none_for_its_own_time(here: World) -> None:
    """Negative caching: shorter than values."""
    here.source.answer = lambda name: None
    read = reading(here, ttl="1h", none_ttl=10)

    await read()
    await here.pass_time(9)
    await read()
    assert here.source.read_count == 1

    await here.pass_time(2)
    here.source.answer = lambda name: "there"
    assert await read() == "there"
    await here.pass_time(MINUTE)
    assert await read() == "there"


async def test_a_function_may_say_how_to_keep_what_it_returns(here: World) -> None:
    """`Loaded`: its own time to live, further tags, or not at all."""
    here.source.answer = lambda name: Loaded(name, ttl=5, tags=("t",), store=name != "no")
    read = reading(here, ttl="1h")

    assert [await read("a"), await read("no"), await read("no")] == ["a", "no", "no"]
    assert here.source.read_count == 3
    assert await here.cache.ttl("read:a") == 5
    assert await here.cache.invalidate_tags("t") == 1


async def test_jitter_cuts_the_time_to_live(here: World) -> None:
    """By up to its share, so that values loaded together do not end together."""
    read = reading(here, ttl=100, jitter=0.2)

    for name in range(50):
        await read(name)

    ttls = [await here.cache.ttl(f"read:{name}") or 0 for name in range(50)]
    assert 80 <= min(ttls) < 84
    assert 96 < max(ttls) <= 100


async def test_a_list_changed_after_the_call_does_not_reach_the_load(here: World) -> None:
    """The key says what it held when the function was called; so does what the function gets."""
    seen: list[Any] = []

    @cached(here.cache, key=lambda names: f"k:{len(names)}")
    async def read(names: list[str]) -> None:
        seen.append(names)

    names = ["a"]
    call = asyncio.ensure_future(read(names))
    await asyncio.sleep(0)  # The call has begun; its load has not.
    names.append("b")
    await call

    assert seen == [["a"]]


# -- invalidation ---------------------------------------------------------------------------------


async def test_invalidate_removes_one_call(here: World) -> None:
    """By its arguments, however they are given; says whether it was there."""
    read = reading(here)
    await read("a")
    await read("b")

    assert await read.invalidate(name="a")
    assert not await read.invalidate("a")

    assert [await read("a"), await read("b")] == ["a#3", "b#2"]


async def test_what_is_invalidated_while_it_loads_is_not_stored(here: World) -> None:
    """Those who wait get it; who comes later gets what was loaded later."""
    read = reading(here, tags=["user:{name}"])
    for invalidate in (read.invalidate, lambda: here.cache.invalidate_tags("user:it")):
        here.source.open.clear()
        first = asyncio.ensure_future(read())
        await turns()

        await invalidate()
        second = asyncio.ensure_future(read())
        await turns()
        here.source.open.set()

        assert await first != await second
        assert await read() == await second
        await read.invalidate()


async def test_tags_are_templates(here: World) -> None:
    """One tag for each user, one for all."""
    read = reading(here, tags=["user:{name}", "users"])
    for name in "abc":
        await read(name)

    assert await here.cache.invalidate_tags("user:a") == 1
    assert await here.cache.size() == 2
    assert await read.invalidate_all() == 2


async def test_invalidate_all_needs_a_tag_common_to_all(here: World) -> None:
    """It would cost every function memory for each value; who wants it says so."""
    read = reading(here, tags=["user:{name}"])

    with pytest.raises(ConfigError, match=r"no tag is common.*tags="):
        await read.invalidate_all()


@pytest.mark.parametrize("ttl", ["1h", None])
async def test_refresh_loads_anew(here: World, ttl: str | None) -> None:
    """And stores; also over a value that never ends."""
    read = reading(here, ttl=ttl)

    assert [await read(), await read.refresh(), await read()] == ["it#1", "it#2", "it#2"]


async def test_while_refresh_loads_others_get_the_old_value(here: World) -> None:
    """Also after it failed."""
    read = reading(here, ttl="1h")
    await read()
    here.source.open.clear()
    here.source.error = LookupError()

    refresh = asyncio.ensure_future(read.refresh())
    await turns()
    assert await read() == "it#1"
    here.source.open.set()

    with pytest.raises(LookupError):
        await refresh
    assert await read() == "it#1"


async def test_refresh_to_nothing_removes_the_old_value(here: World) -> None:
    """A None that is not stored must not leave what it replaces."""
    read = reading(here, ttl="1h", skip_none=True)
    await read()
    here.source.answer = lambda name: None

    assert await read.refresh() is None

    assert await here.cache.size() == 0


# -- sync functions -------------------------------------------------------------------------------


async def test_a_sync_function_becomes_async_and_runs_in_a_thread(here: World) -> None:
    """A loop that stands still would count as a dead member; hits need no thread."""
    ran_in: list[int] = []

    @cached(here.cache, key="sync:{a}")
    def slow(a: int) -> int:
        ran_in.append(threading.get_ident())
        return a + 1

    assert [await slow(1), await slow(1)] == [2, 2]
    assert len(ran_in) == 1
    assert ran_in[0] != threading.get_ident()


async def test_a_sync_function_that_raises_stop_iteration_ends_the_wait(here: World) -> None:
    """No future can carry it."""

    @cached(here.cache)
    def empty() -> int:
        return next(iter(()))

    with pytest.raises(RuntimeError, match="StopIteration"):
        await empty()


async def test_a_sync_function_may_return_an_awaitable(here: World) -> None:
    """As one that some other decorator made does."""

    @cached(here.cache, key="hidden:{name}")
    def hidden(name: str) -> Any:
        return here.source.read(name)

    assert await hidden("a") == "a#1"


async def test_one_decorated_function_may_be_decorated_again(here: World) -> None:
    """Two levels: a short one here, a long one elsewhere."""
    near: LocalCache[Any] = LocalCache(clock=here.clock)
    far = reading(here, ttl="1h")
    both = cached(near, ttl=1, key="near:{name}")(far)

    assert [await both("a"), await both("a")] == ["a#1", "a#1"]
    assert counts(far.cache_info()) == {"misses": 1, "loads": 1}
    await here.pass_time(2)
    assert await both("a") == "a#1"
    assert far.cache_info().hits == 1
