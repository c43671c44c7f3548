"""What may be decorated and with what, and what comes out: names, loops, kinds of cache."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from cache.decorator import cached
from cache.decorator.calls import AsyncCalls
from cache.decorator.options import CachedOptions
from cache.errors import (
    ConfigError,
)
from cache.interface import Cache
from cache.local import LocalCache, NullCache
from tests.contract.conftest import ManualClock
from tests.unit.decorator.support import (
    World,
    reading,
    turns,
    world,
)


@pytest.fixture
async def here() -> AsyncIterator[World]:
    async with world() as made:
        yield made


def test_generators_are_refused_with_the_remedy() -> None:
    """What they yield could be read once only."""

    def numbers() -> Iterator[int]:
        yield 1

    async def async_numbers() -> AsyncIterator[int]:
        yield 1

    for function in (numbers, async_numbers):
        with pytest.raises(TypeError, match=r"is a generator.*return a list"):
            cached(NullCache())(function)


@pytest.mark.parametrize("thing", [3, None, int, "profile"])
def test_what_is_no_function_is_refused(thing: Any) -> None:
    """A class too: its instances would be shared."""
    with pytest.raises(TypeError, match="is no function"):
        cached(NullCache())(thing)


def test_the_cache_comes_first() -> None:
    """`@cached` without a cache says how to write it."""

    class AwaitedButNoCache:
        async def get(self, key: Any, default: Any = None) -> Any: ...

        get_entry = delete = get_or_set = invalidate_tags = get

    for thing in (test_the_cache_comes_first, LocalCache, None, AwaitedButNoCache()):
        wrong: Any = thing
        with pytest.raises(TypeError, match="takes a cache first"):
            cached(wrong)


BAD_OPTIONS: list[tuple[CachedOptions, str]] = [
    ({"ttl": 0}, "ttl"),
    ({"ttl": -1}, "ttl"),
    ({"ttl": "5x"}, "ttl"),
    ({"ttl": 5, "stale": 0}, "stale"),
    ({"stale": 5}, "stale"),
    ({"ttl": None, "stale": 5}, "stale"),
    ({"ttl": None, "early": 1.0}, "early"),
    ({"ttl": 5, "early": -1.0}, "early"),
    ({"jitter": 0.1}, "jitter"),
    ({"ttl": 5, "jitter": 1.1}, "jitter"),
    ({"ttl": 5, "soft_timeout": 1}, "soft_timeout"),
    ({"skip_none": True, "none_ttl": 1}, "none_ttl"),
    ({"tags": "users"}, "tags"),
    ({"tags": [""]}, "tags"),
    ({"timeout": 0}, "timeout"),
]


@pytest.mark.parametrize(("options", "name"), BAD_OPTIONS, ids=str)
def test_a_bad_option_is_named_at_decoration(options: CachedOptions, name: str) -> None:
    """What is missing or out of range."""
    with pytest.raises(ConfigError, match=f"^{name}"):
        cached(NullCache(), **options)


def test_an_unknown_option_is_named() -> None:
    """With those there are."""
    wrong: Any = {"expire": 5}
    with pytest.raises(TypeError, match=r"no option 'expire'; it has: ttl, key"):
        cached(NullCache(), **wrong)


def test_no_loop_is_needed_at_decoration_and_several_may_follow() -> None:
    """Functions are decorated at import; each test of an application has a loop of its own."""
    here = World()
    read = reading(here, ttl="1m", stale="1h")

    async def leave_a_reload_behind() -> None:
        here.source.open = asyncio.Event()
        assert await read() == "it#1"
        await turns()

    async def reload() -> None:
        here.source.open = asyncio.Event()
        here.source.open.set()
        assert await read() == "it#1"
        await turns()
        assert await read() == "it#3"

    assert asyncio.run(read()) == "it#1"
    here.clock.now += 70
    asyncio.run(leave_a_reload_behind())
    asyncio.run(reload())


def test_a_reload_of_a_loop_that_was_torn_down_is_not_waited_for() -> None:
    """Its task will never end: another loop starts its own."""
    here = World()
    calls = AsyncCalls(here.cache, reading(here)._calls.plan, is_async=True)
    lost = asyncio.new_event_loop()

    async def enter(_: object = None) -> int:
        calls._enter_loop()
        return len(calls._refreshes)

    lost.run_until_complete(enter())
    calls._refreshes["read:it"] = lost.create_future()  # type: ignore[assignment]  # as a task
    assert lost.run_until_complete(enter()) == 1
    lost.close()

    assert asyncio.run(enter()) == 0


async def test_the_fast_path_of_a_local_cache_is_the_clear_one(here: World) -> None:
    """The same values, counts and keys with `get_nowait` and without."""
    fast: LocalCache[Any] = LocalCache(clock=here.clock)
    seen = []
    for cache in (fast, here.cache):
        here.source.read_count = 0
        here.source.answer = lambda name: None if name == 2 else name

        @cached(cache, ttl=10, key="k:{name}")
        async def read(name: int) -> Any:
            return await here.source.read(name)

        values = [await read(number % 4) for number in range(9)]
        await here.pass_time(11)
        values += [await read(name=number % 3) for number in range(4)]
        seen.append((values, read.cache_info(), here.source.read_count))

    assert seen[0] == seen[1]
    assert seen[0][2] == 7


async def test_it_looks_like_the_function_it_wraps() -> None:
    """Frameworks look at names, signatures, and whether a handler is async."""

    async def profile(user_id: int, *, full: bool = False) -> str:
        """Return a profile."""
        return ""

    decorated = NullCache[Any]().cached(key="p:{user_id}")(profile)

    assert decorated.__name__ == "profile"  # type: ignore[attr-defined]  # as of any callable object
    assert decorated.__doc__ == profile.__doc__
    assert inspect.signature(decorated) == inspect.signature(profile)
    assert decorated.__wrapped__ is profile
    assert inspect.iscoroutinefunction(decorated.__call__)
    assert asyncio.iscoroutinefunction(decorated)
    assert "profile" in repr(decorated)


async def test_a_namespace_and_a_null_cache_decorate_too() -> None:
    """Every cache does."""
    clock = ManualClock()
    outer: LocalCache[Any] = LocalCache(clock=clock)
    nothing: NullCache[Any] = NullCache()
    caches: list[Cache[Any]] = [outer.namespace("inner"), nothing]
    for cache in caches:
        count = 0

        @cache.cached(key="{name}")
        async def read(name: str) -> int:
            nonlocal count
            count += 1
            return count

        assert await read("a") == 1
        assert await read("a") == (2 if cache is nothing else 1)
    assert await outer.get("inner:a") == 1
