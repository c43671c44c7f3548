"""`BlockingCalls`: serves the calls of a sync function from a cache that blocks, for any number of threads.

The same decisions as in `calls.py`. What differs: reloads run in a few threads of their own, the wait for
the cache is bounded by the cache, and while that fails each thread calls the function for itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from functools import partial
from threading import RLock
from typing import Any, Final, Protocol, runtime_checkable

from cache.decorator.arguments import copy_containers
from cache.decorator.calls import Args, Call, Kwargs, Plan
from cache.decorator.policy import FAULTS, MISSING, REFRESHES_MAX, CacheInfo, Freshness
from cache.durations import DEFAULT
from cache.flights import Loaded
from cache.interface import CacheEntry
from cache.keys import Key, Ttl

REFRESH_THREADS: Final = 4
"""Reloads of one function at once; others wait for a thread."""


@runtime_checkable
class BlockingCache(Protocol):
    """What the decorator needs of a cache whose methods block: those of `Cache`, without `await`."""

    def get(self, key: Key, default: Any, /) -> Any:  # Any: values of any type
        """Return the value of `key`, or `default`."""
        ...

    def get_entry(self, key: Key) -> CacheEntry[Any] | None:  # Any: as above
        """Return the value of `key` with the seconds it has left."""
        ...

    def delete(self, key: Key) -> bool:
        """Remove `key`; return whether it was present."""
        ...

    def invalidate_tags(self, *tags: str) -> int:
        """Remove every key that bears one of `tags`."""
        ...

    def get_or_set(
        self,
        key: Key,
        factory: Callable[[], Any],  # Any: a value or `Loaded`
        *,
        ttl: Ttl = DEFAULT,
        tags: Iterable[str] = (),
        min_ttl: float = 0.0,
    ) -> Any:  # Any: as above
        """Return the value of `key`; if it is absent, what `factory` makes, and store that."""
        ...


class BlockingLoad:
    """A factory for `get_or_set`: runs the function once and keeps what came out."""

    __slots__ = ("_args", "_calls", "_kwargs", "loaded")

    def __init__(self, calls: BlockingCalls, call: Call) -> None:
        self._calls = calls
        self._args: Args = copy_containers(call.args)
        self._kwargs: Kwargs = copy_containers(call.kwargs)
        self.loaded: Loaded[Any] | None = None  # Any: what the function made
        """Set when the function has returned here, and not to another caller."""

    def __call__(self) -> Loaded[Any]:  # Any: as above
        """Run the function, and say how to keep its value."""
        plan = self._calls.plan
        monotonic = plan.settings.clock.monotonic
        self._calls.count("loads")
        started_at = monotonic()
        try:
            made = plan.function(*self._args, **self._kwargs)
            with self._calls.lock:
                self.loaded = plan.policy.loaded(made, monotonic() - started_at)
        except Exception as error:
            with self._calls.lock:
                plan.raised(error)
            raise
        return self.loaded


class BlockingCalls:
    """Serves the calls of one sync function; `close` waits for what runs in the background."""

    def __init__(self, cache: BlockingCache, plan: Plan) -> None:
        self.cache = cache
        self.plan = plan
        self._needs_entry = plan.settings.needs_entry
        self.lock = RLock()
        """Guards counts, pauses and `_refreshes`; never held while anything is waited for."""
        self._refreshes: dict[Key, Future[Any]] = {}  # Any: values, as everywhere here
        self._threads: ThreadPoolExecutor | None = None
        self._process = 0

    def replanned(self, plan: Plan) -> None:
        """Go by another plan for the same function."""
        self.plan = plan

    def count(self, name: str) -> None:
        """Add one to a count."""
        with self.lock:
            counts = self.plan.policy.counts
            setattr(counts, name, getattr(counts, name) + 1)

    def info(self) -> CacheInfo:
        """Return the counts as they are now."""
        with self.lock:
            return self.plan.policy.counts.snapshot()

    def value(self, args: Args, kwargs: Kwargs) -> Any:  # Any: as above
        """Return the value of a call, from wherever."""
        plan = self.plan
        values = plan.bind(args, kwargs)
        call = Call(args, kwargs, values, plan.key(args, kwargs, values))
        try:
            if self._needs_entry:
                entry = self.cache.get_entry(call.key)
            else:
                found = self.cache.get(call.key, MISSING)
                if found is not MISSING:
                    with self.lock:
                        plan.policy.counts.hits += 1
                    return found
                entry = None
        except FAULTS as error:
            self.count("misses")
            return self._without_cache(call, error)
        if entry is not None:
            return self._judged(call, entry)
        self.count("misses")
        return self._load(call)

    def _judged(self, call: Call, entry: CacheEntry[Any]) -> Any:  # Any: as above
        policy = self.plan.policy
        with self.lock:
            freshness = policy.judge(entry)
        if freshness is Freshness.SPARE:
            return self._load_or_spare(call, entry)
        if freshness is Freshness.FRESH:
            self.count("hits")
            return entry.value
        refresh = self._refresh_soon(call, policy.min_ttl(entry, freshness))
        if freshness is Freshness.EARLY:
            self.count("hits")
            return entry.value
        if refresh is not None and policy.settings.soft_timeout > 0:
            try:
                value = refresh.result(policy.settings.soft_timeout)
            except (TimeoutError, CancelledError):  # too slow, or `close`
                value = MISSING
            if value is not MISSING:
                self.count("misses")
                return value
        self.count("stale")
        return entry.value

    # -- loads -------------------------------------------------------------------------------

    def _load(self, call: Call) -> Any:  # Any: as above
        load = BlockingLoad(self, call)
        tags = self.plan.tags(call)
        try:
            return self.cache.get_or_set(call.key, load, ttl=self.plan.settings.ttl, tags=tags)
        except FAULTS as error:
            if not self.plan.is_fault(error):
                raise
            if load.loaded is not None:  # It could not be stored.
                self._cache_failed(error)
                return load.loaded.value
            return self._without_cache(call, error)

    def _load_or_spare(self, call: Call, entry: CacheEntry[Any]) -> Any:  # Any: as above
        policy = self.plan.policy
        with self.lock:
            may_reload = policy.may_reload(call.key)
        if may_reload:
            try:
                value = self._reload(call, policy.min_ttl(entry, Freshness.SPARE))
            except Exception as error:  # noqa: BLE001  # whatever the function raises
                self._reload_failed(call.key, error)
            else:
                self.count("misses")
                return value
        self.count("stale")
        return entry.value

    def _reload(self, call: Call, min_ttl: float) -> Any:  # Any: as above
        load = BlockingLoad(self, call)
        ttl, tags = self.plan.settings.ttl, self.plan.tags(call)
        value = self.cache.get_or_set(call.key, load, ttl=ttl, tags=tags, min_ttl=min_ttl)
        if load.loaded is not None and not load.loaded.store:
            self.cache.delete(call.key)  # What is there is no longer the answer.
        return value

    def _without_cache(self, call: Call, error: Exception) -> Any:  # Any: as above
        self._cache_failed(error)
        return BlockingLoad(self, call)().value

    def _cache_failed(self, error: Exception) -> None:
        with self.lock:
            self.plan.policy.cache_failed(error)

    def _reload_failed(self, key: Key, error: Exception) -> None:
        with self.lock:
            if self.plan.is_fault(error):
                self.plan.policy.cache_failed(error)
            self.plan.policy.reload_failed(key, error)

    # -- in the background -------------------------------------------------------------------

    def _refresh_soon(self, call: Call, min_ttl: float) -> Future[Any] | None:  # Any: as above
        with self.lock:
            if self._process != os.getpid():  # A forked child has none of its parent's threads.
                self._process = os.getpid()
                self._refreshes, self._threads = {}, None
            refresh = self._refreshes.get(call.key)
            if refresh is not None:
                return refresh
            may_reload = self.plan.policy.may_reload(call.key)
            if not may_reload or len(self._refreshes) >= REFRESHES_MAX:
                return None
            if self._threads is None:
                self._threads = ThreadPoolExecutor(REFRESH_THREADS, "cache.refresh")
            refresh = self._threads.submit(self._refreshed, call, min_ttl)
            self._refreshes[call.key] = refresh
        refresh.add_done_callback(partial(self._forget, call.key))
        return refresh

    def _refreshed(self, call: Call, min_ttl: float) -> Any:  # Any: as above
        try:
            return self._reload(call, min_ttl)
        except Exception as error:  # noqa: BLE001  # the root of the thread's work
            self._reload_failed(call.key, error)
            return MISSING

    def _forget(self, key: Key, refresh: Future[Any]) -> None:  # Any: as above
        with self.lock:
            if self._refreshes.get(key) is refresh:
                del self._refreshes[key]

    def close(self) -> None:
        """Drop reloads that wait for a thread, and wait for the others; calls may follow."""
        with self.lock:
            threads, self._threads = self._threads, None
            process = self._process
        if threads is not None and process == os.getpid():
            threads.shutdown(cancel_futures=True)

    # -- what the application asks for -------------------------------------------------------

    def invalidate(self, args: Args, kwargs: Kwargs) -> bool:
        """Remove the value of a call; return whether it was there."""
        return self.cache.delete(self.plan.call(args, kwargs).key)

    def invalidate_all(self) -> int:
        """Remove the values of all calls; return how many."""
        return self.cache.invalidate_tags(*self.plan.group_tags())

    def refresh(self, args: Args, kwargs: Kwargs) -> Any:  # Any: as above
        """Load the value of a call anew and return it."""
        call = self.plan.call(args, kwargs)
        return self._reload(call, float("inf"))
