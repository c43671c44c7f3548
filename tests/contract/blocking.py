"""A `SyncCache` behind the async interface, so that the contract can be held against it."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from cache.durations import DEFAULT
from cache.flights import Factory
from cache.interface import Cache, CacheEntry, CacheStats
from cache.keys import Key, Ttl
from cache.sync import SyncCache

R = TypeVar("R")

NOT_FOR_THREADS: Final[Mapping[str, str]] = {
    "test_the_last_caller_to_leave_ends_the_load": "a thread that waits cannot be cancelled",
    "test_errors_reach_all_and_are_not_kept": "threads come when they come; see tests/unit/test_sync.py",
}
"""Tests of the contract that are about tasks."""


class Awaited(Cache[Any]):  # Any: as everywhere in the contract
    """Carries out each call in a thread, as an application's threads do."""

    def __init__(self, cache: SyncCache[Any]) -> None:
        self.sync = cache

    async def _call(self, method: Callable[..., R], *args: Any, **kwargs: Any) -> R:
        return await asyncio.to_thread(method, *args, **kwargs)

    async def get(self, key: Key, default: Any = None) -> Any:
        return await self._call(self.sync.get, key, default)

    async def get_entry(self, key: Key) -> CacheEntry[Any] | None:
        return await self._call(self.sync.get_entry, key)

    async def exists(self, key: Key) -> bool:
        return await self._call(self.sync.exists, key)

    async def ttl(self, key: Key) -> float | None:
        return await self._call(self.sync.ttl, key)

    async def set(
        self, key: Key, value: Any, *, ttl: Ttl = DEFAULT, tags: Iterable[str] = ()
    ) -> bool:
        return await self._call(self.sync.set, key, value, ttl=ttl, tags=tags)

    async def add(
        self, key: Key, value: Any, *, ttl: Ttl = DEFAULT, tags: Iterable[str] = ()
    ) -> bool:
        return await self._call(self.sync.add, key, value, ttl=ttl, tags=tags)

    async def replace(
        self, key: Key, value: Any, *, ttl: Ttl = DEFAULT, tags: Iterable[str] = ()
    ) -> bool:
        return await self._call(self.sync.replace, key, value, ttl=ttl, tags=tags)

    async def delete(self, key: Key) -> bool:
        return await self._call(self.sync.delete, key)

    async def pop(self, key: Key, default: Any = None) -> Any:
        return await self._call(self.sync.pop, key, default)

    async def touch(self, key: Key, ttl: Ttl = DEFAULT) -> bool:
        return await self._call(self.sync.touch, key, ttl)

    async def persist(self, key: Key) -> bool:
        return await self._call(self.sync.persist, key)

    async def incr(self, key: Key, delta: int = 1, *, initial: int = 0, ttl: Ttl = DEFAULT) -> int:
        return await self._call(self.sync.incr, key, delta, initial=initial, ttl=ttl)

    async def decr(self, key: Key, delta: int = 1, *, initial: int = 0, ttl: Ttl = DEFAULT) -> int:
        return await self._call(self.sync.decr, key, delta, initial=initial, ttl=ttl)

    async def get_or_set(
        self,
        key: Key,
        factory: Factory[Any],
        *,
        ttl: Ttl = DEFAULT,
        tags: Iterable[str] = (),
        min_ttl: float = 0.0,
    ) -> Any:
        loop = asyncio.get_running_loop()

        async def made() -> Any:
            value = factory()
            return await value if inspect.isawaitable(value) else value

        def make() -> Any:
            return asyncio.run_coroutine_threadsafe(made(), loop).result()

        given = make if callable(factory) else factory
        return await self._call(
            self.sync.get_or_set, key, given, ttl=ttl, tags=tags, min_ttl=min_ttl
        )

    async def get_many(self, keys: Iterable[Any]) -> dict[Any, Any]:
        return await self._call(self.sync.get_many, keys)

    async def set_many(
        self, items: Mapping[Any, Any], *, ttl: Ttl = DEFAULT, tags: Iterable[str] = ()
    ) -> None:
        await self._call(self.sync.set_many, items, ttl=ttl, tags=tags)

    async def delete_many(self, keys: Iterable[Any]) -> int:
        return await self._call(self.sync.delete_many, keys)

    async def scan(self, prefix: str = "") -> AsyncIterator[Key]:
        keys = self.sync.scan(prefix)
        end = object()
        while (key := await self._call(next, keys, end)) is not end:
            yield key

    async def size(self) -> int:
        return await self._call(self.sync.size)

    async def clear(self) -> int:
        return await self._call(self.sync.clear)

    async def invalidate_tags(self, *tags: str) -> int:
        return await self._call(self.sync.invalidate_tags, *tags)

    def stats(self) -> CacheStats:
        with ThreadPoolExecutor(1) as thread:  # Not here: a loop runs in this one.
            return thread.submit(self.sync.stats).result()

    def namespace(self, prefix: str, *, ttl: Ttl = DEFAULT) -> Cache[Any]:
        return Awaited(self.sync.namespace(prefix, ttl=ttl))

    async def close(self) -> None:
        await self._call(self.sync.close)
