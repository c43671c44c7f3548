"""What the tests of the decorator share: a source that is slow on demand, and caches that fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from cache.decorator import CacheInfo, cached
from cache.errors import UnavailableError
from cache.flights import Loaded
from cache.interface import CacheEntry
from cache.keys import Key
from cache.local import LocalCache
from tests.contract.conftest import ManualClock


async def turns(count: int = 8) -> None:
    """Let everything that can go on do so."""
    for _ in range(count):
        await asyncio.sleep(0)


class Source:
    """What decorated functions read from: counts its reads, and can wait, fail and change."""

    def __init__(self) -> None:
        self.read_count = 0
        self.error: Exception | None = None
        self.answer: Callable[[object], Any] = lambda name: f"{name}#{self.read_count}"
        self.open = asyncio.Event()
        self.open.set()

    async def read(self, name: object = "it") -> Any:  # Any: tests choose the answer
        self.read_count += 1
        answer = self.answer(name)
        await self.open.wait()
        if self.error is not None:
            raise self.error
        return answer


class FlakyCache(LocalCache[Any]):
    """A cache that fails, or does not answer, when told to."""

    get_nowait: Any = None  # It may have to wait.
    get_entry_nowait: Any = None

    def __init__(self, **options: Any) -> None:  # Any: those of `LocalCache`
        super().__init__(**options)
        self.read_error: Exception | None = None
        self.load_error: Exception | None = None
        self.is_silent = False

    async def _answer(self) -> None:
        if self.read_error is not None:
            raise self.read_error
        if self.is_silent:
            await asyncio.Event().wait()

    async def get(self, key: Key, default: object = None) -> Any:  # Any: as above
        entry = await self.get_entry(key)
        return default if entry is None else entry.value

    async def get_entry(self, key: Key) -> CacheEntry[Any] | None:
        await self._answer()
        return LocalCache.get_entry_nowait(self, key)

    async def get_or_set(self, key: Key, factory: Any, **options: Any) -> Any:
        """Fail after the load: the value could not be stored."""
        value = await super().get_or_set(key, factory, **options)
        if self.load_error is not None:
            raise self.load_error
        return value


class World:
    """A cache on a clock that is moved by hand, and a source."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.cache = FlakyCache(clock=self.clock)
        self.source = Source()

    async def pass_time(self, seconds: float) -> None:
        await self.clock.advance(seconds)
        await turns()


def reading(here: World, **options: Any) -> Any:  # Any: signatures are the subject of test_typing
    """Return the source's `read`, cached."""

    @cached(here.cache, key="read:{name}", **options)
    async def read(name: object = "it") -> Any:
        return await here.source.read(name)

    return read


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    here = World()
    async with here.cache:
        yield here


def counts(info: CacheInfo) -> dict[str, int]:
    """Return the counts that are not 0."""
    named = {name: getattr(info, name) for name in CacheInfo.__dataclass_fields__}
    return {name: count for name, count in named.items() if count}


UNAVAILABLE = UnavailableError("nobody there")
KEPT = Loaded("kept")
