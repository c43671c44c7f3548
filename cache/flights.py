"""Loads that several callers share: `SingleFlight`, and `Loaded`, what a load may say beside its value."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar, cast

from cache.durations import DEFAULT
from cache.errors import CacheError, ClosedError, WrongLoopError
from cache.keys import Key, Ttl, has_prefix

F = TypeVar("F")
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Loaded(Generic[V]):
    """What a factory of `get_or_set` may return instead of a bare value: how to keep it."""

    value: V
    ttl: Ttl = DEFAULT
    """Time to live, or `DEFAULT` for the one given to `get_or_set`."""
    tags: tuple[str, ...] = ()
    """In addition to those given to `get_or_set`."""
    store: bool = True
    """False: everybody who waits gets the value, and nobody keeps it."""


Factory = Callable[[], Awaitable[V | Loaded[V]] | V | Loaded[V]]
"""Makes the value of an absent key; sync or async."""


class Flight(Generic[V]):
    """One load, how many wait for it, and what happened to its key meanwhile."""

    __slots__ = ("invalidated", "is_outdated", "tags", "task", "waiter_count")

    def __init__(self, tags: Iterable[str]) -> None:
        self.tags = dict.fromkeys(tags)
        self.task: asyncio.Task[V]  # set by whoever makes it, before anything can look
        self.waiter_count = 0
        self.is_outdated = False
        """The key was written."""
        self.invalidated: dict[str, None] = {}
        """Tags that were invalidated since the load began."""

    def may_keep(self, tags: Iterable[str]) -> bool:
        """Whether a value with these tags may be stored: nothing of it has been overtaken."""
        return not self.is_outdated and not any(tag in self.invalidated for tag in tags)


class SingleFlight(Generic[V]):
    """Lets callers that want the same key at the same time share one load.

    A load belongs to nobody who waits for it: it runs in a task of its own, which ends with its load, with
    the last caller that waits, or with `close`.
    """

    def __init__(self) -> None:
        self.loading: dict[Key, Flight[V]] = {}  # that a caller may still join
        self._tasks: dict[asyncio.Task[V], None] = {}  # also those of outdated loads
        self._closed = False

    async def run(
        self,
        key: Key,
        factory: Factory[V],
        keep: Callable[[Loaded[V], Flight[V]], object],
        tags: Iterable[str] = (),
    ) -> V:
        """Return what the load of `key` makes; `keep` gets it first, and decides whether it is stored.

        `tags` are those that the value will bear, as far as they are known before.

        Raises:
            ClosedError: `close` came first.
            WrongLoopError: the key is being loaded in another loop.
            CacheError: the load cancelled itself.
        """
        flight = self.loading.get(key)
        if flight is not None and not self._is_shareable(flight):
            flight = None
        if flight is None:
            flight = self.loading[key] = self._start(key, factory, keep, tags)
        flight.waiter_count += 1
        try:
            return await asyncio.shield(flight.task)
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if flight.task.cancelled() and current is not None and not current.cancelling():
                if self._closed:
                    raise ClosedError("the cache was closed during the load") from None
                raise CacheError("the load was cancelled from inside; nothing stored") from None
            raise
        finally:
            flight.waiter_count -= 1
            if flight.waiter_count == 0 and not flight.task.done():
                self._part(key, flight)  # Who comes now must not join a load that is being ended.
                if not flight.task.get_loop().is_closed():
                    flight.task.cancel()

    def _is_shareable(self, flight: Flight[V]) -> bool:
        """Whether a load can be waited for here; one whose loop was closed never ends, and is forgotten.

        Raises:
            WrongLoopError: it runs in another loop, in another thread.
        """
        home = flight.task.get_loop()
        if home is asyncio.get_running_loop():
            return True
        if home.is_closed():
            self._tasks.pop(flight.task, None)
            return False
        raise WrongLoopError(
            "this key is being loaded in another event loop; use a cache from one loop at a time, "
            "or `cache.SyncCache` from several threads"
        )

    def _start(
        self,
        key: Key,
        factory: Factory[V],
        keep: Callable[[Loaded[V], Flight[V]], object],
        tags: Iterable[str],
    ) -> Flight[V]:
        flight: Flight[V] = Flight(tags)

        async def load() -> V:
            try:
                loaded = await load_value(factory)
                if not self._closed:
                    self._part(key, flight)  # `keep` writes the key: that outdates others only.
                    keep(loaded, flight)
                return loaded.value
            finally:
                self._part(key, flight)

        flight.task = asyncio.get_running_loop().create_task(load(), name="cache.load")
        self._tasks[flight.task] = None
        flight.task.add_done_callback(self._ended)
        return flight

    def _part(self, key: Key, flight: Flight[V]) -> None:
        if self.loading.get(key) is flight:
            del self.loading[key]

    def _ended(self, task: asyncio.Task[V]) -> None:
        del self._tasks[task]

    def outdate(self, key: Key) -> None:
        """Say that a key was written: its load still serves those who wait, but is not stored."""
        if flight := self.loading.pop(key, None):
            flight.is_outdated = True

    def outdate_all(self, prefix: str = "") -> None:
        """Say that every key with this prefix was written."""
        for key in tuple(self.loading):
            if has_prefix(key, prefix):
                self.outdate(key)

    def invalidate(self, tags: Iterable[str]) -> None:
        """Say that tags were invalidated: loads of values that bear one are not stored."""
        gone = dict.fromkeys(tags)
        for key, flight in tuple(self.loading.items()):
            if gone.keys() & flight.tags.keys():
                self.outdate(key)  # Who comes now must not be given what is old.
            else:
                flight.invalidated.update(gone)  # The load may still add one of them.

    async def close(self) -> None:
        """Cancel every load and wait until all have ended; idempotent."""
        self._closed = True
        for task in tuple(self._tasks):
            if task.get_loop().is_closed():
                del self._tasks[task]  # It never ends.
        if not self._tasks:
            return  # Without a load to wait for, no loop is needed either.
        current = asyncio.current_task()
        while tasks := [task for task in self._tasks if task is not current]:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await asyncio.sleep(0)  # Let `_ended` see them.


def check_factory(factory: F) -> F:
    """Return `factory`; one that cannot be called is a `TypeError` that says what to use instead."""
    if not callable(factory):
        raise TypeError(
            f"get_or_set needs a function that makes the value, not {type(factory).__name__}; "
            "to store a value itself, use add"
        )
    return factory


async def load_value(factory: Factory[V]) -> Loaded[V]:
    """Run a factory, sync or async, and return what it made with how to keep it."""
    made = check_factory(factory)()
    value = await made if inspect.isawaitable(made) else made
    if isinstance(value, Loaded):
        return value
    return Loaded(cast(V, value))  # by the tests above
