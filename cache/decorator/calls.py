"""`Plan`: what the calls of one function have in common. `AsyncCalls`: serves them from a `Cache`.

A call, in order: bind the arguments, make the key, ask the cache. Found and fresh: done. Found and stale:
give it, and reload in a task of this object. Not found: `get_or_set`, whose single flight spans the cluster
if the cache does. The cache failed: the function, once for all in this process that wait for the key.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, Final, NamedTuple
from weakref import WeakSet

from cache.decorator.arguments import Arguments, copy_containers
from cache.decorator.keys import KeyMaker, Template
from cache.decorator.options import Settings
from cache.decorator.policy import FAULTS, MISSING, REFRESHES_MAX, Freshness, Policy
from cache.decorator.waiting import within
from cache.errors import ConfigError
from cache.flights import Flight, Loaded, SingleFlight
from cache.interface import Cache, CacheEntry
from cache.keys import Key

Args = tuple[Any, ...]  # Any: arguments and results of functions of any kind, in this whole module
Kwargs = dict[str, Any]

TASK_NAME: Final = "cache.refresh"


class Call(NamedTuple):
    """One call, from its arguments to what the cache calls it."""

    args: Args
    kwargs: Kwargs
    values: Args
    """The bound arguments, one for each parameter."""
    key: Key


class Plan:
    """Names, keys and tags of the calls of one function, and how their values are kept.

    Args:
        function: what is decorated.
        settings: the checked options.
        is_method: the first parameter is `self` or `cls`, and no part of a default key.
    """

    def __init__(
        self, function: Callable[..., Any], settings: Settings, *, is_method: bool
    ) -> None:
        self.function = function
        self.name: str = getattr(function, "__qualname__", None) or repr(type(function))
        self.settings = settings
        self.is_method = is_method
        self.policy = Policy(settings, self.name)
        self._arguments = Arguments(function, self.name)
        keys = KeyMaker(function, self._arguments, settings.key, skips_first=is_method)
        self.bind, self.key = self._arguments.bind, keys.make
        self._tags = [Template("tags", tag, self._arguments) for tag in settings.tags]
        self._raised: WeakSet[BaseException] = WeakSet()

    def call(self, args: Args, kwargs: Kwargs) -> Call:
        """Return a call with its key.

        Raises:
            CodecError: an argument makes no key.
            TypeError: the function cannot be called so.
        """
        values = self.bind(args, kwargs)
        return Call(args, kwargs, values, self.key(args, kwargs, values))

    def tags(self, call: Call) -> list[str]:
        """Return the tags of a call's value."""
        return [template.fill(call.values) for template in self._tags]

    def group_tags(self) -> list[str]:
        """Return the tags that every value bears.

        Raises:
            ConfigError: there is none.
        """
        tags = [template.fill(()) for template in self._tags if not template.names]
        if not tags:
            raise ConfigError(
                f"{self.name}: no tag is common to all its values; add one, as in "
                f"tags=['{self.name}']"
            )
        return tags

    def raised(self, error: Exception) -> None:
        """Count an error of the function, and remember that it is one of the cache's only in kind."""
        self.policy.counts.errors += 1
        if isinstance(error, FAULTS):
            self._raised.add(error)

    def is_fault(self, error: Exception) -> bool:
        """Return whether the cache failed, and not the function."""
        return isinstance(error, FAULTS) and error not in self._raised


class AsyncLoad:
    """A factory for `get_or_set`: runs the function once and keeps what came out."""

    __slots__ = ("_args", "_kwargs", "_plan", "_run", "loaded")

    def __init__(self, plan: Plan, run: Callable[..., Any], call: Call) -> None:
        self._plan = plan
        self._run = run
        # The caller may go on before the load begins, and change its lists: the key says what they held.
        self._args: Args = copy_containers(call.args)
        self._kwargs: Kwargs = copy_containers(call.kwargs)
        self.loaded: Loaded[Any] | None = None
        """Set when the function has returned here, and not to another caller."""

    async def __call__(self) -> Loaded[Any]:
        """Run the function, and say how to keep its value."""
        policy = self._plan.policy
        monotonic = policy.settings.clock.monotonic
        policy.counts.loads += 1
        started_at = monotonic()
        try:
            made = self._run(*self._args, **self._kwargs)
            while inspect.isawaitable(made):  # Twice for a sync function that returns an awaitable.
                made = await made
            self.loaded = policy.loaded(made, monotonic() - started_at)
        except Exception as error:
            self._plan.raised(error)
            raise
        return self.loaded


class AsyncCalls:
    """Serves the calls of one function from a cache; `close` ends what runs in the background.

    Nothing here needs an event loop before the first call. Another loop than before (a test's, say) starts
    with nothing in the background.
    """

    def __init__(self, cache: Cache[Any], plan: Plan, *, is_async: bool) -> None:
        self.cache = cache
        self.plan = plan
        self._policy = plan.policy
        self.counts = plan.policy.counts
        self._needs_entry = plan.settings.needs_entry
        # A cache that never waits offers its `get` without a coroutine too, as `LocalCache` does.
        nowait = None if self._needs_entry else getattr(cache, "get_nowait", None)
        self.get_nowait: Callable[[Key, Any], Any] | None = nowait
        entry_nowait = getattr(cache, "get_entry_nowait", None)
        self._get_entry_nowait: Callable[[Key], CacheEntry[Any] | None] | None = entry_nowait
        self._timeout = plan.settings.timeout
        # A function that blocks would block the loop, and a member whose loop stands still counts as dead.
        function = plan.function
        self._run = function if is_async else partial(asyncio.to_thread, _run_blocking, function)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._refreshes: dict[Key, asyncio.Task[Any]] = {}
        self._flights: SingleFlight[Any] = SingleFlight()

    def replanned(self, plan: Plan) -> None:
        """Go by another plan for the same function."""
        self.plan = plan
        self._policy = plan.policy
        self.counts = plan.policy.counts

    async def value(self, call: Call) -> Any:
        """Return the value of a call, from wherever."""
        try:
            if self.get_nowait is not None:
                entry = None  # Whoever calls this has looked.
            elif not self._needs_entry:
                found = await within(self.cache.get(call.key, MISSING), self._timeout)
                if found is not MISSING:
                    self.counts.hits += 1
                    return found
                entry = None
            elif self._get_entry_nowait is not None:
                entry = self._get_entry_nowait(call.key)
            else:
                entry = await within(self.cache.get_entry(call.key), self._timeout)
        except FAULTS as error:
            self.counts.misses += 1
            return await self._without_cache(call, error)
        if entry is None:
            self.counts.misses += 1
            return await self._load(call)
        freshness = self._policy.judge(entry)
        if freshness is Freshness.FRESH:
            self.counts.hits += 1
            return entry.value
        return await self._past_its_time(call, entry, freshness)

    async def _past_its_time(self, call: Call, entry: CacheEntry[Any], freshness: Freshness) -> Any:
        if freshness is Freshness.SPARE:
            return await self._load_or_spare(call, entry)
        refresh = self._refresh_soon(call, self._policy.min_ttl(entry, freshness))
        if freshness is Freshness.EARLY:
            self.counts.hits += 1
            return entry.value
        soft_timeout = self._policy.settings.soft_timeout
        if refresh is not None and soft_timeout > 0:
            await asyncio.wait([refresh], timeout=soft_timeout)
            if refresh.done() and not refresh.cancelled() and refresh.result() is not MISSING:
                self.counts.misses += 1
                return refresh.result()
        self.counts.stale += 1
        return entry.value

    # -- loads -------------------------------------------------------------------------------

    async def _load(self, call: Call) -> Any:
        load = AsyncLoad(self.plan, self._run, call)
        try:
            return await self.cache.get_or_set(
                call.key, load, ttl=self._policy.settings.ttl, tags=self.plan.tags(call)
            )
        except FAULTS as error:
            if not self.plan.is_fault(error):
                raise
            if load.loaded is not None:  # It could not be stored.
                self._policy.cache_failed(error)
                return load.loaded.value
            return await self._without_cache(call, error)

    async def _load_or_spare(self, call: Call, entry: CacheEntry[Any]) -> Any:
        if self._policy.may_reload(call.key):
            try:
                value = await self._reload(call, self._policy.min_ttl(entry, Freshness.SPARE))
            except Exception as error:  # noqa: BLE001  # whatever the function raises
                self._reload_failed(call.key, error)
            else:
                self.counts.misses += 1
                return value
        self.counts.stale += 1
        return entry.value

    async def _reload(self, call: Call, min_ttl: float) -> Any:
        """Load a value anew if what is there has less than `min_ttl` left; it stays until then."""
        load = AsyncLoad(self.plan, self._run, call)
        value = await self.cache.get_or_set(
            call.key,
            load,
            ttl=self._policy.settings.ttl,
            tags=self.plan.tags(call),
            min_ttl=min_ttl,
        )
        if load.loaded is not None and not load.loaded.store:
            await self.cache.delete(call.key)  # What is there is no longer the answer.
        return value

    async def _without_cache(self, call: Call, error: Exception) -> Any:
        """Call the function; callers in this process that find the cache failing share it."""
        self._policy.cache_failed(error)
        self._enter_loop()
        load = AsyncLoad(self.plan, self._run, call)
        return await self._flights.run(call.key, load, _keep_nothing)

    def _reload_failed(self, key: Key, error: Exception) -> None:
        if self.plan.is_fault(error):
            self._policy.cache_failed(error)
        self._policy.reload_failed(key, error)

    # -- in the background -------------------------------------------------------------------

    def _refresh_soon(self, call: Call, min_ttl: float) -> asyncio.Task[Any] | None:
        """Return the task that reloads a key, the one that runs already or a new one.

        None if the key rests after an error, or there are too many.
        """
        self._enter_loop()
        task = self._refreshes.get(call.key)
        if task is None:
            if len(self._refreshes) >= REFRESHES_MAX or not self._policy.may_reload(call.key):
                return None
            loop = asyncio.get_running_loop()
            task = loop.create_task(self._refreshed(call, min_ttl), name=TASK_NAME)
            self._refreshes[call.key] = task
            task.add_done_callback(partial(_forget, self._refreshes, call.key))
        return task

    async def _refreshed(self, call: Call, min_ttl: float) -> Any:
        try:
            return await self._reload(call, min_ttl)
        except Exception as error:  # noqa: BLE001  # the root of the task; whatever the function raises
            self._reload_failed(call.key, error)
            return MISSING

    def _enter_loop(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop = loop
            self._refreshes = {}
            self._flights = SingleFlight()

    async def close(self) -> None:
        """Cancel what runs in the background and wait until it has ended; calls may follow."""
        if self._loop is not asyncio.get_running_loop():
            return
        flights, self._flights = self._flights, SingleFlight()
        tasks = list(self._refreshes.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await flights.close()

    # -- what the application asks for -------------------------------------------------------

    async def invalidate(self, args: Args, kwargs: Kwargs) -> bool:
        """Remove the value of a call; return whether it was there."""
        key = self.plan.call(args, kwargs).key
        self._flights.outdate(key)
        return await self.cache.delete(key)

    async def invalidate_all(self) -> int:
        """Remove the values of all calls; return how many."""
        return await self.cache.invalidate_tags(*self.plan.group_tags())

    async def refresh(self, args: Args, kwargs: Kwargs) -> Any:
        """Load the value of a call anew and return it."""
        call = self.plan.call(args, kwargs)
        return await self._reload(call, float("inf"))


def _run_blocking(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    try:
        return function(*args, **kwargs)
    except StopIteration as error:  # No future can carry it: whoever waited would wait for ever.
        raise RuntimeError("the function raised StopIteration") from error


def _keep_nothing(loaded: Loaded[Any], flight: Flight[Any]) -> None:
    """Drop what was loaded without the cache."""


def _forget(refreshes: dict[Key, asyncio.Task[Any]], key: Key, task: asyncio.Task[Any]) -> None:
    if refreshes.get(key) is task:
        del refreshes[key]
