"""`AttachedCache`: what caches have in common whose data is on a server: a loop, connections, counts, loads.

It connects with its first awaited call, and lives on the event loop of that call. When that loop ends,
or in a forked child, the next call connects anew; from another thread's loop everything raises
`WrongLoopError`.
"""

from __future__ import annotations

import asyncio
import logging
from abc import abstractmethod
from collections.abc import Iterable
from typing import Any, Self, TypeVar, cast

from cache.adapters.layout import Values, milliseconds
from cache.adapters.life import Life, Target
from cache.adapters.loads import Load
from cache.adapters.routing import Router
from cache.cluster.transport.inherited import let_go
from cache.durations import DEFAULT, Default, parse_ttl
from cache.errors import CacheError, ClosedError, ConfigError, WrongLoopError
from cache.flights import Factory, Flight, Loaded, check_factory
from cache.forks import watch
from cache.interface import Cache, CacheStats
from cache.keys import Key, Ttl, check_tags
from cache.serializers import Serializer

logger = logging.getLogger(__name__)

V = TypeVar("V")


class AttachedCache(Cache[V]):
    """See the module; subclasses say what is asked of the server."""

    def __init__(
        self,
        target: Target,
        *,
        name: str,
        ttl: Ttl = None,
        serializer: Serializer | None = None,
    ) -> None:
        self.target = target
        self.name = name
        self._values = Values(serializer, name)
        self._ttl = _default_ttl(ttl)
        self._life: Life | None = None
        self._closed = False
        self._parents: list[Life] = []  # in a child: kept, lest the end of their tasks be reported
        self._hits = self._misses = self._sets = self._deletes = 0
        watch(self, AttachedCache._in_child)

    def __repr__(self) -> str:
        state = "closed" if self._closed else "not open" if self.loop is None else "open"
        return f"<{type(self).__name__} {self.name!r} at {self.target} {state}>"

    # -- life ------------------------------------------------------------------------------------

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The event loop it lives on; None while it is not open."""
        return None if self._life is None or self._life.loop.is_closed() else self._life.loop

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def open(self) -> None:
        """Connect now, where others do so with their first call.

        Raises:
            UnavailableError, ConfigError: there is no server, or it refuses us.
            ClosedError, WrongLoopError: as every call.
        """
        await self._begun(self._here())

    async def _begun(self, life: Life) -> Life:
        if life.is_begun:
            return life
        async with life.beginning:
            if not life.is_begun:
                await self._begin(life)
                life.is_begun = True
        return life

    @abstractmethod
    async def _begin(self, life: Life) -> None:
        """Find out what must be known about the servers; may be repeated after an error."""

    def _here(self) -> Life:
        """Return what there is on this loop.

        Raises:
            ClosedError: the cache was closed.
            WrongLoopError: it lives on another loop.
        """
        life = self._life
        if life is not None and life.loop is asyncio._get_running_loop() and not self._closed:
            return life
        if self._closed:
            raise ClosedError(f"{self!r}: open another")
        if life is not None and not life.loop.is_closed():
            raise WrongLoopError(
                f"{self!r} lives on another event loop; use `cache.SyncCache` from threads, or one "
                "cache for each loop"
            )
        life = self._life = Life(f"cache.{self.name}", self._router)
        return life

    @abstractmethod
    def _router(self) -> Router:
        """Return connections to the servers, for a loop."""

    def _in_child(self) -> None:
        if self._life is not None:
            let_go(self._life.router.sockets())
            self._parents.append(self._life)
            self._life = None

    async def close(self) -> None:
        """End loads and connections; what is on the server stays. Idempotent.

        Raises:
            WrongLoopError: it lives on another thread's loop.
        """
        life = self._life
        if life is not None and not life.loop.is_closed():
            if life.loop is not asyncio.get_running_loop():
                raise WrongLoopError(f"{self!r} lives on another event loop; close it there")
            self._closed = True
            await life.flights.close()
            await life.close()
            await asyncio.sleep(0)  # Let transports end in this turn, not after their loop.
        self._closed = True
        self._life = None

    # -- loads -----------------------------------------------------------------------------------

    @abstractmethod
    async def _get(self, key: Key) -> bytes | None:
        """Return the bytes of a value."""

    @abstractmethod
    def _new_load(self, life: Life, key: Key, tags: tuple[str, ...]) -> Load:
        """Return an attempt to load a key."""

    async def get_or_set(
        self,
        key: Key,
        factory: Factory[V],
        *,
        ttl: Ttl = DEFAULT,
        tags: Iterable[str] = (),
        min_ttl: float = 0.0,
    ) -> V:
        """Return the value of `key`; if it is absent, what `factory` makes, and store that.

        Of all callers in all processes one runs `factory`, by a lease on the server, renewed while it runs.
        When its process dies another one takes over, 10 seconds later at most. Callers in other processes
        learn of the value within 0.2 seconds. An error reaches them as the same exception where its class
        is known, else as `LoaderError`.

        Raises:
            RejectedError, IndeterminateError: the server does not answer; `factory` did not run.
            CodecError: the value cannot be stored.
        """
        check_factory(factory)
        if min_ttl <= 0 and (raw := await self._get(key)) is not None:
            self._hits += 1
            return cast(V, self._values.decode(raw))
        bears, life = check_tags(tags), self._here()
        milliseconds(ttl, self._ttl)  # A bad one is refused before anything runs.

        async def load() -> V:
            await self._begun(life)
            return await self._load(self._new_load(life, key, bears), key, factory, ttl, min_ttl)

        return cast(V, await life.flights.run(key, load, _keep_nothing, bears))

    async def _load(self, load: Load, key: Key, factory: Factory[V], ttl: Ttl, min_ttl: float) -> V:
        found = await load.turn(min_ttl)
        if found is not None:
            self._hits += 1
            return cast(V, self._values.decode(found))
        self._misses += 1
        loaded = await load.run(factory, lambda: load.life.flights.outdate(key))
        try:
            bears = check_tags((*load.tags, *loaded.tags))
            encoded = self._values.encode(loaded.value, bears)
            left = milliseconds(ttl if loaded.ttl is DEFAULT else loaded.ttl, self._ttl)
        except ValueError:
            load.give_up()
            raise
        try:
            self._sets += await load.keep(encoded, left, bears, store=loaded.store)
        except CacheError as error:
            logger.warning("adapters.loaded_not_stored cache=%s error=%s", self.name, error)
        return cast(V, loaded.value)

    # -- counts ----------------------------------------------------------------------------------

    def _outdate_loads(self, prefix: str) -> None:
        if self._life is not None:
            self._life.flights.outdate_all(prefix)

    def _counted(
        self, *, evictions: int = 0, expired: int = 0, entries: int = 0, size: int = 0
    ) -> CacheStats:
        return CacheStats(
            hits=self._hits,
            misses=self._misses,
            sets=self._sets,
            deletes=self._deletes,
            evictions=evictions,
            expired=expired,
            entries=entries,
            bytes=size,
        )


def _keep_nothing(loaded: Loaded[Any], flight: Flight[Any]) -> None:  # Any: values of the cache
    """The server keeps what was loaded."""


def _default_ttl(ttl: Ttl) -> float | None:
    if isinstance(ttl, Default):
        return None
    try:
        return parse_ttl(ttl)
    except ValueError as error:
        raise ConfigError(f"ttl: {error}") from error
