"""`NullCache`: forgets everything at once. Switches caching off without touching the code that uses it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from typing import TypeVar, overload

from cache.durations import DEFAULT, Default, parse_ttl
from cache.errors import ClosedError
from cache.flights import Factory, Flight, Loaded, SingleFlight
from cache.interface import Cache, CacheEntry, CacheStats
from cache.keys import K, Key, Ttl, add_whole, check_keys, check_plain_key, check_tags

V = TypeVar("V")
D = TypeVar("D")


class NullCache(Cache[V]):
    """A cache in which every key is absent, always.

    Writes are counted and forgotten; keys and times to live are checked, so that code which works here works
    elsewhere. `get_or_set` still lets concurrent callers share one load.
    """

    def __init__(self) -> None:
        self._flights: SingleFlight[V] = SingleFlight()
        self._misses = 0
        self._sets = 0
        self._closed = False

    def __repr__(self) -> str:
        return f"<NullCache {'closed' if self._closed else 'open'}>"

    def _check(self, key: Key, ttl: Ttl = DEFAULT, tags: Iterable[str] = ()) -> None:
        if self._closed:
            raise ClosedError("this cache was closed")
        check_plain_key(key)
        check_tags(tags)
        if not isinstance(ttl, Default):
            parse_ttl(ttl)

    @overload
    async def get(self, key: Key) -> V | None: ...
    @overload
    async def get(self, key: Key, default: D) -> V | D: ...
    async def get(self, key: Key, default: object = None) -> object:
        """Return `default`."""
        self._check(key)
        self._misses += 1
        return default

    async def get_entry(self, key: Key) -> CacheEntry[V] | None:
        """Return None."""
        self._check(key)
        self._misses += 1
        return None

    async def exists(self, key: Key) -> bool:
        """Return False."""
        self._check(key)
        return False

    async def ttl(self, key: Key) -> float | None:
        """Return None."""
        self._check(key)
        return None

    async def set(
        self, key: Key, value: V, *, ttl: Ttl = DEFAULT, tags: Iterable[str] = ()
    ) -> bool:
        """Forget `value`; return True."""
        await self.set_many({key: value}, ttl=ttl, tags=tags)
        return True

    async def add(
        self, key: Key, value: V, *, ttl: Ttl = DEFAULT, tags: Iterable[str] = ()
    ) -> bool:
        """Forget `value`; return True, as the key was absent."""
        await self.set(key, value, ttl=ttl, tags=tags)
        return True

    async def replace(
        self, key: Key, value: V, *, ttl: Ttl = DEFAULT, tags: Iterable[str] = ()
    ) -> bool:
        """Return False."""
        self._check(key, ttl, tags)
        return False

    async def delete(self, key: Key) -> bool:
        """Return False."""
        return await self.delete_many([key]) > 0

    @overload
    async def pop(self, key: Key) -> V | None: ...
    @overload
    async def pop(self, key: Key, default: D) -> V | D: ...
    async def pop(self, key: Key, default: object = None) -> object:
        """Return `default`."""
        await self.delete_many([key])
        return default

    async def touch(self, key: Key, ttl: Ttl = DEFAULT) -> bool:
        """Return False."""
        self._check(key, ttl)
        return False

    async def persist(self, key: Key) -> bool:
        """Return False."""
        self._check(key)
        return False

    async def incr(self, key: Key, delta: int = 1, *, initial: int = 0, ttl: Ttl = DEFAULT) -> int:
        """Return `initial + delta`."""
        self._check(key, ttl)
        self._sets += 1
        return add_whole(initial, delta)

    async def get_or_set(
        self,
        key: Key,
        factory: Factory[V],
        *,
        ttl: Ttl = DEFAULT,
        tags: Iterable[str] = (),
        min_ttl: float = 0.0,
    ) -> V:
        """Return what `factory` makes; callers at the same time share one load."""
        self._check(key, ttl, tags)
        self._misses += 1
        return await self._flights.run(check_plain_key(key), factory, self._forget)

    def _forget(self, loaded: Loaded[V], flight: Flight[V]) -> None:
        self._sets += 1

    async def get_many(self, keys: Iterable[K]) -> dict[K, V]:
        """Return nothing."""
        for key in check_keys(keys):
            self._check(key)
            self._misses += 1
        return {}

    async def set_many(
        self, items: Mapping[K, V], *, ttl: Ttl = DEFAULT, tags: Iterable[str] = ()
    ) -> None:
        """Forget all `items`."""
        for key in items:
            self._check(key, ttl, tags)
            self._flights.outdate(check_plain_key(key))
            self._sets += 1

    async def delete_many(self, keys: Iterable[K]) -> int:
        """Return 0."""
        for key in check_keys(keys):
            self._check(key)
            self._flights.outdate(check_plain_key(key))
        return 0

    async def scan(self, prefix: str = "") -> AsyncIterator[Key]:
        """Yield nothing."""
        self._check(prefix)
        nothing: tuple[Key, ...] = ()
        for key in nothing:
            yield key

    async def size(self) -> int:
        """Return 0."""
        self._check("")
        return 0

    async def clear(self) -> int:
        """Return 0."""
        self._check("")
        self._flights.outdate_all()
        return 0

    async def invalidate_tags(self, *tags: str) -> int:
        """Return 0."""
        self._check("", tags=tags)
        self._flights.invalidate(tags)
        return 0

    def _outdate_loads(self, prefix: str) -> None:
        self._flights.outdate_all(prefix)

    def stats(self) -> CacheStats:
        """Return what was asked for and forgotten."""
        return CacheStats(
            hits=0,
            misses=self._misses,
            sets=self._sets,
            deletes=0,
            evictions=0,
            expired=0,
            entries=0,
            bytes=0,
        )

    async def close(self) -> None:
        """End loads; idempotent."""
        self._closed = True
        await self._flights.close()
