"""How blocking calls reach a cache: in the calling thread under a lock, or on the loop where the cache lives.

`LocalEngine` is for caches of this process: their methods never wait, so that a thread that holds the lock
can carry them out by itself. `LoopEngine` is for all others. Both run the factories of `get_or_set` in the
calling thread: there it finds its thread-local connections, may call the cache again, and holds nobody up.
"""

from __future__ import annotations

import asyncio
import inspect
import math
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from copy import deepcopy
from functools import cache as once
from typing import Any, Final, Protocol, TypeVar, cast
from weakref import WeakKeyDictionary

from cache.background import check_may_wait, loop_thread, submit, wait_for
from cache.clock import SystemClock
from cache.durations import Default
from cache.errors import CacheError, ClosedError
from cache.flights import Flight, Loaded, check_factory
from cache.forks import watch
from cache.interface import Cache, CacheEntry, CacheStats, NamespacedCache
from cache.keys import Key, Ttl, check_plain_key, check_tags
from cache.local import LocalCache, NullCache
from cache.local.eviction import USES_MAX

R = TypeVar("R")

MISSING: Final = object()

SyncFactory = Callable[[], Any]
"""Makes the value of an absent key, or `Loaded`; any type, as values are."""

Method = Callable[..., Coroutine[Any, Any, R]]
"""A method of an async cache. Any: what coroutines send and yield."""

Reader = Callable[..., Any]
"""Called with key and default. Any: values are."""


class Engine(Protocol):
    """Carries out the calls of every `SyncCache` on one cache."""

    def run(self, method: Method[R], *args: object, **kwargs: object) -> R:
        """Return what the method returns."""
        ...

    def reader(self, cache: Cache[Any]) -> Reader:  # Any: values of every type
        """Return the function that is `get` of a view of the cache."""
        ...

    def load(
        self,
        cache: Cache[Any],
        key: Key,
        factory: SyncFactory,
        *,
        ttl: Ttl,
        tags: tuple[str, ...],
        min_ttl: float,
    ) -> Any:
        """Carry out `get_or_set`.  Any: values of every type."""
        ...

    def stats(self, cache: Cache[Any]) -> CacheStats:  # Any: as above
        """Return the statistics of the cache."""
        ...

    def forget(self, keys: AsyncIterator[Key]) -> None:
        """End a scan early."""
        ...

    def close(self) -> None:
        """Close the cache."""
        ...


def root_of(cache: Cache[Any], key: Key) -> tuple[Cache[Any], Key]:  # Any: values of every type
    """Return the cache that a view is of, and the key's name there."""
    while isinstance(cache, NamespacedCache):
        key = cache._outer(key)
        cache = cache._cache
    return cache, check_plain_key(key)


def engine_for(
    cache: Cache[Any],  # Any: values of every type
    loop: asyncio.AbstractEventLoop | None,
) -> Engine:
    """Return what serves a cache, or a view of one, that lives on `loop`; None is the background's."""
    root, _ = root_of(cache, "")
    if isinstance(root, (LocalCache, NullCache)):
        return LocalEngine(root)
    return LoopEngine(root, loop)


def make(factory: SyncFactory) -> Loaded[Any]:  # Any: values of every type
    """Run a factory and return what it made with how to keep it.

    Raises:
        CacheError: it is an async one.
    """
    made = check_factory(factory)()
    if inspect.isawaitable(made):
        if inspect.iscoroutine(made):
            made.close()
        raise CacheError("a factory of a SyncCache must not be async; use the async cache for it")
    return made if isinstance(made, Loaded) else Loaded(made)


# -- in the calling thread -----------------------------------------------------------------------


class ThreadFlight(Flight[Any]):
    """A load by one thread that others wait for.  Any: values of every type."""

    __slots__ = ("done", "error", "thread", "value")

    def __init__(self, tags: tuple[str, ...]) -> None:
        super().__init__(tags)
        self.waiter_count = 1
        self.thread = threading.get_ident()
        self.done = threading.Event()
        self.value: Any = MISSING  # Any: as above
        self.error: Exception | None = None
        """Neither: the thread was interrupted, and another one has to load."""


@once
def _locks() -> WeakKeyDictionary[Cache[Any], threading.RLock]:  # Any: values of every type
    return WeakKeyDictionary()


class LocalEngine:
    """Calls a cache of this process under a lock, in whichever thread the call comes from.

    The cache must not be used by anybody else. Its methods are coroutines that never wait, so that one `send`
    runs them to their end. They must not see the event loop of the calling thread, if there is one: the
    cache would set timers there, which take no lock.

    The lock can be taken again by its holder: removing a value may run code that calls the cache, and so
    may a signal. It is taken for a fork, so that a child finds nothing half changed.
    """

    def __init__(self, root: LocalCache[Any] | NullCache[Any]) -> None:  # Any: as in `Engine`
        self.root = root
        self.lock = _locks().setdefault(root, threading.RLock())
        self._flights = root._flights
        self._take_hits: list[Callable[[], int]] = []  # of the readers, since they were last taken
        watch(
            self,
            LocalEngine._in_child,
            before=LocalEngine._before_fork,
            in_parent=LocalEngine._in_parent,
        )

    def _before_fork(self) -> None:
        self.lock.acquire()

    def _in_parent(self) -> None:
        self.lock.release()

    def _in_child(self) -> None:
        self._flights.loading.clear()  # Those threads are not here.
        self.lock.release()

    def run(self, method: Method[R], *args: object, **kwargs: object) -> R:
        """Return what the method returns."""
        with self.lock:
            loop = asyncio._get_running_loop()
            if loop is None:
                return _finish(method(*args, **kwargs))
            asyncio._set_running_loop(None)
            try:
                return _finish(method(*args, **kwargs))
            finally:
                asyncio._set_running_loop(loop)

    def reader(self, cache: Cache[Any]) -> Reader:
        """Return `get`; hits of text keys cost the lock, two lookups and a look at the clock."""

        def get(key: Key, default: object = None) -> Any:
            return self.run(cache.get, key, default)

        root = self.root
        if cache is not root or not isinstance(root, LocalCache) or not root._is_fast:
            return get
        read, take_hits = _fast_reader(root, self.lock, get)
        self._take_hits.append(take_hits)
        return read

    def load(
        self,
        cache: Cache[Any],
        key: Key,
        factory: SyncFactory,
        *,
        ttl: Ttl,
        tags: tuple[str, ...],
        min_ttl: float,
    ) -> Any:
        """Return the value of `key`; of the threads that find it absent one makes it."""
        _, outer = root_of(cache, key)
        while True:
            with self.lock:
                entry: CacheEntry[Any] | None = self.run(cache.get_entry, key)
                if entry is not None and (min_ttl <= 0 or entry.ttl >= min_ttl < math.inf):
                    return entry.value
                flight = self._flights.loading.get(outer)
                if isinstance(flight, ThreadFlight):
                    flight.waiter_count += 1
                else:
                    own = self._flights.loading[outer] = ThreadFlight(tags)
                    break
            if flight.thread == threading.get_ident():
                raise CacheError(
                    f"get_or_set of {key!r} inside its own factory would wait for itself"
                )
            flight.done.wait()
            if flight.error is not None:
                raise flight.error
            if flight.value is not MISSING:
                return self._out(flight.value)
        try:
            loaded = make(factory)
            with self.lock:
                self._part(outer, own)
                self._keep(cache, key, loaded, own, ttl=ttl, tags=tags)
            own.value = loaded.value
        except Exception as error:
            own.error = error
            raise
        finally:
            with self.lock:
                self._part(outer, own)
            own.done.set()
        return self._out(loaded.value)

    def _keep(
        self,
        cache: Cache[Any],
        key: Key,
        loaded: Loaded[Any],
        flight: Flight[Any],
        *,
        ttl: Ttl,
        tags: tuple[str, ...],
    ) -> None:
        bears = check_tags((*tags, *loaded.tags))
        if loaded.store and not self.root._closed and flight.may_keep(bears):
            own = ttl if isinstance(loaded.ttl, Default) else loaded.ttl
            self.run(cache.set, key, loaded.value, ttl=own, tags=bears)

    def _part(self, key: Key, flight: Flight[Any]) -> None:
        if self._flights.loading.get(key) is flight:
            del self._flights.loading[key]

    def _out(self, value: Any) -> Any:  # Any: as in `Engine`
        copies = isinstance(self.root, LocalCache) and self.root._copy
        return deepcopy(value) if copies else value

    def stats(self, cache: Cache[Any]) -> CacheStats:
        """Return the statistics of the cache."""
        with self.lock:
            if isinstance(self.root, LocalCache):
                self.root._fast_hits += sum(take() for take in self._take_hits)
            return cache.stats()

    def forget(self, keys: AsyncIterator[Key]) -> None:
        """Nothing to do: such a scan holds nothing."""

    def close(self) -> None:
        """Close the cache; those who wait for a load of another thread's get `ClosedError`."""
        with self.lock:
            waiting = [f for f in self._flights.loading.values() if isinstance(f, ThreadFlight)]
            self._flights.loading.clear()
            self.run(self.root.close)
        for flight in waiting:
            flight.error = ClosedError("the cache was closed during the load")
            flight.done.set()


def _finish(coroutine: Coroutine[Any, Any, R]) -> R:  # Any: nothing is sent or yielded
    try:
        coroutine.send(None)
    except StopIteration as done:
        return cast(R, done.value)
    coroutine.close()
    raise AssertionError("a cache of this process never waits")


def _fast_reader(
    root: LocalCache[Any],  # Any: as in `Engine`
    lock: threading.RLock,
    slow: Reader,
) -> tuple[Reader, Callable[[], int]]:
    """Return `LocalCache.get_nowait` for threads, and what tells its hits since the last time."""
    lookup, record = root._lookup, root._record
    monotonic = root._clock.monotonic
    if getattr(monotonic, "__func__", None) is SystemClock.monotonic:
        monotonic = time.monotonic  # without a detour
    hits = 0

    def get(key: Key, default: object = None) -> Any:  # Any: as in `Engine`
        nonlocal hits
        with lock:
            entry = lookup(key)
            if entry is None or type(key) is not str or entry[1] <= monotonic():
                return slow(key, default)
            if entry[3] != USES_MAX:
                record(key)
            hits += 1
            return entry[0]

    def take_hits() -> int:
        nonlocal hits
        taken, hits = hits, 0
        return taken

    return get, take_hits


# -- on the loop -----------------------------------------------------------------------------------


class Desk:
    """Where a thread that waits for a loop is asked to run its factory.

    The loop asks (`ask`, a factory for the async cache); the thread serves until the result is there.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, factory: SyncFactory) -> None:
        self._loop = loop
        self._factory = factory
        self._asked: queue.SimpleQueue[asyncio.Future[Loaded[Any]] | None] = queue.SimpleQueue()
        self._waiting: asyncio.Future[Loaded[Any]] | None = None  # only touched on the loop
        self._left = False  # likewise

    async def ask(self) -> Loaded[Any]:
        """Return what the factory makes in the thread that waits; runs on the loop."""
        if self._left:
            raise CacheError("the thread that was to load was interrupted; nothing stored")
        self._waiting = self._loop.create_future()
        self._asked.put(self._waiting)
        return await self._waiting

    def finished(self, _: object) -> None:
        """Say that the result is there; called in any thread."""
        self._asked.put(None)

    def serve(self) -> None:
        """Run the factory when asked to; return when the result is there."""
        while (asked := self._asked.get()) is not None:
            loaded: Loaded[Any] | None = None
            error: Exception | None = None
            try:
                loaded = make(self._factory)
            except Exception as raised:  # noqa: BLE001  # it reaches the caller through the cache
                error = raised
            self._loop.call_soon_threadsafe(_settle, asked, loaded, error)

    def leave(self) -> None:
        """Say that nobody serves any more; runs on the loop."""
        self._left = True
        if self._waiting is not None:
            error = CacheError("the thread that was to load was interrupted; nothing stored")
            _settle(self._waiting, None, error)


def _settle(
    asked: asyncio.Future[Loaded[Any]], loaded: Loaded[Any] | None, error: Exception | None
) -> None:
    if asked.done():
        return
    if error is not None:
        asked.set_exception(error)
    else:
        assert loaded is not None, "a factory makes something or raises"
        asked.set_result(loaded)


class LoopEngine:
    """Calls a cache on the event loop where it lives."""

    def __init__(self, root: Cache[Any], loop: asyncio.AbstractEventLoop | None) -> None:
        self.root = root
        self._given_loop = loop
        self._loading = threading.local()  # keys whose factories run in this thread
        watch(self, LoopEngine._in_child)

    def _in_child(self) -> None:
        self._given_loop = None  # It is the parent's.
        self._loading = threading.local()

    def _loop(self) -> asyncio.AbstractEventLoop:
        """Return where the cache lives now."""
        for loop in (getattr(self.root, "loop", None), self._given_loop):
            if loop is not None and not loop.is_closed():
                found: asyncio.AbstractEventLoop = loop
                return found
        thread = loop_thread()
        thread.adopt(self.root)
        return thread.loop()

    def run(self, method: Method[R], *args: object, **kwargs: object) -> R:
        """Return what the method returns."""
        loop = self._loop()
        check_may_wait(loop)
        return wait_for(submit(loop, method, *args, **kwargs))

    def reader(self, cache: Cache[Any]) -> Reader:
        """Return `get`; what this process holds, as owner or near, is read in the calling thread."""
        read_here = getattr(self.root, "read_here", None)
        is_view = cache is not self.root

        def get(key: Key, default: object = None) -> Any:
            if read_here is not None:
                value = read_here(root_of(cache, key)[1] if is_view else key, MISSING)
                if value is not MISSING:
                    return value
            return self.run(cache.get, key, default)

        return get

    def load(
        self,
        cache: Cache[Any],
        key: Key,
        factory: SyncFactory,
        *,
        ttl: Ttl,
        tags: tuple[str, ...],
        min_ttl: float,
    ) -> Any:
        """Return the value of `key`; if this call is the one to load it, the factory runs in this thread."""
        if min_ttl <= 0 and (read_here := getattr(self.root, "read_here", None)) is not None:
            value = read_here(root_of(cache, key)[1], MISSING)
            if value is not MISSING:
                return value
        loading: dict[Key, None] = self._loading.__dict__.setdefault("keys", {})
        _, outer = root_of(cache, key)
        if outer in loading:
            raise CacheError(f"get_or_set of {key!r} inside its own factory would wait for itself")
        loop = self._loop()
        check_may_wait(loop)
        desk = Desk(loop, factory)
        options = {"ttl": ttl, "tags": tags, "min_ttl": min_ttl}
        loading[outer] = None
        future = submit(loop, cache.get_or_set, key, desk.ask, **options)
        try:
            future.add_done_callback(desk.finished)
            desk.serve()
        except BaseException:
            future.cancel()
            loop.call_soon_threadsafe(desk.leave)
            raise
        finally:
            del loading[outer]
        return wait_for(future)

    def stats(self, cache: Cache[Any]) -> CacheStats:
        """Return the statistics of the cache."""

        async def stats() -> CacheStats:
            return cache.stats()

        return self.run(stats)

    def forget(self, keys: AsyncIterator[Key]) -> None:
        """End a scan early, without waiting for it."""
        if inspect.isasyncgen(keys):
            submit(self._loop(), _end, keys)

    def close(self) -> None:
        """Close the cache."""
        self.run(self.root.close)


async def _end(keys: Any) -> None:  # Any: an async generator
    await keys.aclose()
