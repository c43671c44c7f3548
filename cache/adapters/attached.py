"""`AttachedCache`: what caches have in common whose data is on a server: a loop, connections, counts, loads.

It connects with its first awaited call, and lives on the event loop of that call. When that loop ends,
or in a forked child, the next call connects anew; from another thread's loop everything raises
`WrongLoopError`.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Self, TypeVar

from cache.adapters.connection import Access, Place
from cache.adapters.layout import Layout, Values
from cache.adapters.routing import Router
from cache.cluster.scope import Scope
from cache.cluster.transport.inherited import let_go
from cache.durations import Default, parse_ttl
from cache.errors import ClosedError, ConfigError, WrongLoopError
from cache.flights import Flight, Loaded, SingleFlight
from cache.forks import watch
from cache.interface import Cache, CacheStats
from cache.keys import Ttl
from cache.serializers import Serializer

V = TypeVar("V")

OPERATION_TIMEOUT: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Servers and how they are spoken to; `cache.open` makes it from a URL.

    Raises:
        ConfigError: a field has a bad value.
    """

    places: tuple[Place, ...]
    """One server, or some servers of a cluster."""
    is_cluster: bool = False
    access: Access = field(default_factory=Access)
    operation_timeout: float = OPERATION_TIMEOUT
    """Seconds for each request, connecting and repeating included."""

    def __post_init__(self) -> None:
        if not self.operation_timeout > 0:
            raise ConfigError(f"operation_timeout={self.operation_timeout!r}: must be above 0 s")
        for name in ("connections_max", "in_flight_max"):
            value = getattr(self.access, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(f"{name}={value!r}: must be 1 or more")

    def __str__(self) -> str:
        return ",".join(map(str, self.places))


class Life(Scope):
    """What a cache has on one event loop."""

    def __init__(self, name: str, make_router: Callable[[], Router]) -> None:
        super().__init__(name)
        self.loop = asyncio.get_running_loop()
        self.flights: SingleFlight[Any] = SingleFlight()  # Any: values of the cache
        self.router = make_router()
        self.is_begun = False
        self.beginning = asyncio.Lock()  # what must be known first is asked for once
        self.spawn(self._live(), name="life")

    async def _live(self) -> None:
        """Let go of the connections when the loop ends without `close`."""
        try:
            await self.loop.create_future()
        finally:
            self.router.close()


class AttachedCache(Cache[V]):
    """See the module; subclasses say what is asked of the server."""

    def __init__(
        self,
        target: Target,
        *,
        prefix: str,
        ttl: Ttl = None,
        serializer: Serializer | None = None,
    ) -> None:
        self.target = target
        self.prefix = prefix
        self._layout = Layout(prefix, is_spread=target.is_cluster)
        self._values = Values(serializer, prefix)
        self._ttl = _default_ttl(ttl)
        self._life: Life | None = None
        self._closed = False
        self._parents: list[Life] = []  # in a child: kept, lest the end of their tasks be reported
        self._hits = self._misses = self._sets = self._deletes = 0
        watch(self, AttachedCache._in_child)

    def __repr__(self) -> str:
        state = "closed" if self._closed else "not open" if self.loop is None else "open"
        return f"<{type(self).__name__} {self.prefix!r} at {self.target} {state}>"

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
        life = self._life = Life(f"cache.{self.prefix}", self._router)
        return life

    def _router(self) -> Router:
        target = self.target
        return Router(
            target.places,
            target.access,
            slots=self._layout.slots if target.is_cluster else None,
            timeout=target.operation_timeout,
        )

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


def keep_nothing(loaded: Loaded[Any], flight: Flight[Any]) -> None:  # Any: values of the cache
    """The server keeps what was loaded."""


def _default_ttl(ttl: Ttl) -> float | None:
    if isinstance(ttl, Default):
        return None
    try:
        return parse_ttl(ttl)
    except ValueError as error:
        raise ConfigError(f"ttl: {error}") from error
