"""`Target`: where the servers of a cache are. `Life`: what a cache has on one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from cache.adapters.connection import Access, Place
from cache.adapters.routing import Router
from cache.cluster.scope import Scope
from cache.errors import ConfigError
from cache.flights import SingleFlight

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
