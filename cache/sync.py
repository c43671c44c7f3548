"""`SyncCache`: the blocking twin of `Cache`, for threads, scripts, and frameworks without an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Generic, Self, TypeVar, Unpack, cast, overload

from cache.durations import DEFAULT
from cache.engines import MISSING, Engine, SyncFactory, engine_for, root_of
from cache.errors import ConfigError
from cache.interface import Cache, CacheEntry, CacheStats
from cache.keys import K, Key, Ttl, check_keys, check_tags
from cache.opening import open_cache

if TYPE_CHECKING:
    from cache.cluster.structures.lock import DistributedLock, LockToken
    from cache.decorator.cached import BlockingDecorator
    from cache.decorator.options import CachedOptions

V = TypeVar("V")
D = TypeVar("D")

SCAN_KEYS: Final = 256
"""Keys taken from a scan at a time."""


class SyncCache(Generic[V]):
    """A cache whose methods block, under the names of `Cache`; for any number of threads.

    A hit in this process takes a lock and no other thread: every hit of a `LocalCache`, and keys of a
    cluster that this member owns. Other calls on a `LocalCache` do not leave the calling thread either. All
    others cross to the event loop where the cache lives: one in a background thread, shared by the process
    and started by the first such call; or the loop that the application runs it on.

    Interrupting a call (Ctrl-C) cancels what it waits for. On a thread that runs an event loop, hits and
    calls on a `LocalCache` work; whatever would hold that loop up raises `WrongLoopError`.

    A forked child gets a cache of its own: a copy of what a `LocalCache` held, a new member of a cluster.

    Args:
        cache: a cache, or the URL of one, see `cache.open`. A `LocalCache` must not be used from elsewhere.
        loop: the event loop that the cache lives on, in another thread. By default the one that runs when
            this is made (an application's start-up), else the background's.
        options: those of `cache.open`, for a URL.
    """

    def __init__(
        self,
        cache: Cache[V] | str,
        *,
        loop: asyncio.AbstractEventLoop | None = None,
        **options: Any,  # Any: as `cache.open`
    ) -> None:
        if isinstance(cache, str):
            self._serve(open_cache(cache, **options))
            return
        if options:
            raise ConfigError(f"{next(iter(options))}: options go with a URL, not with a cache")
        self._serve(cache, loop=loop or asyncio._get_running_loop())

    @classmethod
    def open(cls, target: Any, **options: Any) -> Self:  # Any: as `cache.open`
        """Return the blocking twin of what `cache.open` returns; it lives on the background's loop."""
        opened = cls.__new__(cls)
        opened._serve(open_cache(target, **options))
        return opened

    def _serve(
        self,
        cache: Cache[V],
        *,
        engine: Engine | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._cache = cache
        self._is_view = engine is not None
        self._engine = engine = engine or engine_for(cache, loop)
        self._run = engine.run
        if type(self).get is SyncCache.get:
            self.get = engine.reader(cache)  # type: ignore[method-assign]  # the hot path

    def __repr__(self) -> str:
        return f"<SyncCache of {self._cache!r}>"

    @property
    def cache(self) -> Cache[V]:
        """The async cache."""
        return self._cache

    def __enter__(self) -> Self:
        """Open it now: a cache of a cluster joins, where others do so with their first call."""
        start = getattr(root_of(self._cache, "")[0], "open", None)
        if start is not None:
            self._run(start)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # -- one key, read -----------------------------------------------------------------------

    @overload
    def get(self, key: Key) -> V | None: ...
    @overload
    def get(self, key: Key, default: D) -> V | D: ...
    def get(self, key: Key, default: object = None) -> object:
        """Return the value of `key`, or `default`. A stored None is a value: see `exists`."""
        return self._engine.reader(self._cache)(key, default)

    def get_entry(self, key: Key) -> CacheEntry[V] | None:
        """Return the value of `key` with the seconds it has left, None if it is absent."""
        return self._run(self._cache.get_entry, key)

    def exists(self, key: Key) -> bool:
        """Return whether `key` is present (also when its value is None)."""
        return self._run(self._cache.exists, key)

    def ttl(self, key: Key) -> float | None:
        """Return the seconds `key` has left, `math.inf` if it does not expire, None if absent."""
        return self._run(self._cache.ttl, key)

    # -- one key, write ----------------------------------------------------------------------

    def set(self, key: Key, value: V, *, ttl: Ttl = DEFAULT, tags: Iterable[str] = ()) -> bool:
        """Store `value`, replacing what was there, its time to live and its tags included; return True."""
        return self._run(self._cache.set, key, value, ttl=ttl, tags=tags)

    def add(self, key: Key, value: V, *, ttl: Ttl = DEFAULT, tags: Iterable[str] = ()) -> bool:
        """Store `value` only if `key` is absent; return whether it was."""
        return self._run(self._cache.add, key, value, ttl=ttl, tags=tags)

    def replace(self, key: Key, value: V, *, ttl: Ttl = DEFAULT, tags: Iterable[str] = ()) -> bool:
        """Store `value` only if `key` is present; return whether it was."""
        return self._run(self._cache.replace, key, value, ttl=ttl, tags=tags)

    def delete(self, key: Key) -> bool:
        """Remove `key`; return whether it was present."""
        return self._run(self._cache.delete, key)

    @overload
    def pop(self, key: Key) -> V | None: ...
    @overload
    def pop(self, key: Key, default: D) -> V | D: ...
    def pop(self, key: Key, default: object = None) -> object:
        """Remove `key` and return its value, or `default`."""
        return self._run(self._cache.pop, key, default)

    def touch(self, key: Key, ttl: Ttl = DEFAULT) -> bool:
        """Give `key` a new time to live; return whether it is present."""
        return self._run(self._cache.touch, key, ttl)

    def persist(self, key: Key) -> bool:
        """Let `key` never expire; return whether it is present."""
        return self._run(self._cache.persist, key)

    def incr(self, key: Key, delta: int = 1, *, initial: int = 0, ttl: Ttl = DEFAULT) -> int:
        """Add `delta` to a whole number and return the sum; an absent key starts at `initial`.

        Raises:
            WrongTypeError: the key holds something else, or the sum would leave 64 bits.
        """
        return self._run(self._cache.incr, key, delta, initial=initial, ttl=ttl)

    def decr(self, key: Key, delta: int = 1, *, initial: int = 0, ttl: Ttl = DEFAULT) -> int:
        """Subtract `delta`; otherwise as `incr`."""
        return self.incr(key, -delta, initial=initial, ttl=ttl)

    def get_or_set(
        self,
        key: Key,
        factory: SyncFactory,
        *,
        ttl: Ttl = DEFAULT,
        tags: Iterable[str] = (),
        min_ttl: float = 0.0,
    ) -> V:
        """Return the value of `key`; if it is absent, what `factory` makes, and store that.

        Of many threads one runs `factory`, in itself; of a cluster's members one does. An error reaches every
        waiting caller and is not stored. When the thread that loads is interrupted, a `LocalCache` lets the
        next one load; in a cluster those who wait get a `CacheError`. A write of the key while it is loaded
        wins, and so does an invalidation of one of the tags.

        Args:
            key: what to look up.
            factory: makes the value; not async; it may return `Loaded` to say how to keep it. It may use this
                cache for other keys. Two factories that wait for each other's key do so for ever.
            ttl: time to live of what was made.
            tags: its tags, see `invalidate_tags`.
            min_ttl: a value with fewer seconds left counts as absent, and is replaced.
        """
        bears = check_tags(tags)
        load = self._engine.load
        value = load(self._cache, key, factory, ttl=ttl, tags=bears, min_ttl=min_ttl)
        return cast(V, value)

    @contextmanager
    def lock(self, key: Key, *, lease: float = 10.0, wait: float = 5.0) -> Iterator[LockToken]:
        """Hold the lock of `key`, in the whole cluster, in a `with` that gives its fencing number.

        The lease is renewed in the background; see `DistributedMap.lock` and its guarantees.

        Raises:
            LockTimeoutError: another held it for `wait` seconds.
            LockLostError: at the end of the body: it was lost meanwhile, and the body raised nothing.
            ConfigError: the cache is not of a cluster, or `lease` or `wait` cannot be used.
        """
        held = self._run(_lock_of, self._cache, key, lease, wait)
        try:  # An interrupted wait may have got the lock.
            yield self._run(held.__aenter__)
        except BaseException as error:
            self._run(held.__aexit__, type(error), error, error.__traceback__)
            raise
        self._run(held.__aexit__, None, None, None)

    # -- many keys ---------------------------------------------------------------------------

    def get_many(self, keys: Iterable[K]) -> dict[K, V]:
        """Return the values of those `keys` that are present."""
        return self._run(self._cache.get_many, list(check_keys(keys)))

    def set_many(
        self, items: Mapping[K, V], *, ttl: Ttl = DEFAULT, tags: Iterable[str] = ()
    ) -> None:
        """Store all `items`."""
        self._run(self._cache.set_many, items, ttl=ttl, tags=tags)

    def delete_many(self, keys: Iterable[K]) -> int:
        """Remove `keys`; return how many were present."""
        return self._run(self._cache.delete_many, list(check_keys(keys)))

    # -- all of it ---------------------------------------------------------------------------

    def scan(self, prefix: str = "") -> Iterator[Key]:
        """Yield the keys that begin with `prefix`, each once, in no order.

        A key that is present all the while is yielded; one that comes or goes meanwhile may be.
        """
        keys = self._cache.scan(prefix)
        is_over = False
        try:
            while not is_over:
                taken = self._run(_take, keys)
                is_over = len(taken) < SCAN_KEYS
                yield from taken
        finally:
            if not is_over:
                self._engine.forget(keys)

    def size(self) -> int:
        """Return the number of keys."""
        return self._run(self._cache.size)

    def clear(self) -> int:
        """Remove every key that is present now; return how many."""
        return self._run(self._cache.clear)

    def invalidate_tags(self, *tags: str) -> int:
        """Remove every key that bears one of `tags`; return how many."""
        return self._run(self._cache.invalidate_tags, *tags)

    def stats(self) -> CacheStats:
        """Return counts since the cache was made, and what it holds now."""
        return self._engine.stats(self._cache)

    def close(self) -> None:
        """Close the cache; idempotent. Of a view: do nothing, it owns nothing."""
        if not self._is_view:
            self._engine.close()

    def cached(self, **options: Unpack[CachedOptions]) -> BlockingDecorator:
        """Return a decorator that keeps what functions return in this cache; see `cache.cached`."""
        from cache.decorator import cached  # noqa: PLC0415  it stands on this package

        return cached(self, **options)

    def namespace(self, prefix: str, *, ttl: Ttl = DEFAULT) -> SyncCache[V]:
        """Return a view of this cache whose keys begin with `prefix` and a colon; see `Cache.namespace`."""
        view: SyncCache[V] = SyncCache.__new__(SyncCache)
        view._serve(self._cache.namespace(prefix, ttl=ttl), engine=self._engine)
        return view

    def as_mapping(self) -> MutableMapping[Key, V]:
        """Return this cache as a mapping. It may forget any key at any time."""
        return CacheMapping(self)


async def _lock_of(cache: Cache[V], key: Key, lease: float, wait: float) -> DistributedLock:
    """Return the lock of a key, under its name in the cache that a view is of."""
    root, key = root_of(cache, key)
    start = getattr(root, "open", None)
    make = getattr(root if start is None else await start(), "lock", None)
    if make is None:
        raise ConfigError(
            f"lock({key!r}): {type(root).__name__} has no locks; those of a cluster have (cluster:// or "
            "client://), and within one process threading.Lock does it"
        )
    lock: DistributedLock = make(key, lease=lease, wait=wait)
    return lock


async def _take(keys: AsyncIterator[Key]) -> list[Key]:
    """Return the next keys of a scan; fewer than `SCAN_KEYS` are the last ones."""
    taken: list[Key] = []
    async for key in keys:
        taken.append(key)  # up to a limit
        if len(taken) == SCAN_KEYS:
            break
    return taken


class CacheMapping(MutableMapping[Key, V]):
    """A `SyncCache` as a mapping: `KeyError` where a cache says None; what is stored has its default life."""

    __slots__ = ("_cache",)

    def __init__(self, cache: SyncCache[V]) -> None:
        self._cache = cache

    def __repr__(self) -> str:
        return f"<mapping of {self._cache!r}>"

    def __getitem__(self, key: Key) -> V:
        value = self._cache.get(key, MISSING)
        if value is MISSING:
            raise KeyError(key)
        return cast(V, value)  # by the test above

    def __setitem__(self, key: Key, value: V) -> None:
        self._cache.set(key, value)

    def __delitem__(self, key: Key) -> None:
        if not self._cache.delete(key):
            raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, (str, bytes, int)) and self._cache.exists(key)

    def __iter__(self) -> Iterator[Key]:
        return self._cache.scan()

    def __len__(self) -> int:
        return self._cache.size()

    def pop(self, key: Key, default: Any = MISSING) -> Any:  # Any: V, or what the caller gives
        """Remove `key` and return its value, or `default`.

        Raises:
            KeyError: it is absent, and there is no default.
        """
        value = self._cache.pop(key, default)
        if value is MISSING:
            raise KeyError(key)
        return value

    def setdefault(self, key: Key, default: Any = None) -> Any:  # Any: V, as the mapping holds
        """Return the value of `key`; store `default` if it is absent, in one step."""
        while True:
            value = self._cache.get(key, MISSING)
            if value is not MISSING:
                return value
            if self._cache.add(key, default):
                return default

    def update(self, other: Any = (), /, **more: Any) -> None:  # Any: mapping or pairs, as dict
        """Store what another mapping, or pairs, and the keywords hold."""
        self._cache.set_many(dict(other, **more))

    def clear(self) -> None:
        """Remove every key that is present now."""
        self._cache.clear()
