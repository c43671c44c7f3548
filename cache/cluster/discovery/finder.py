"""What a node asks for its peers: the configured ones, and those that its discovery knows."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cache.cluster.config import ClusterConfig
from cache.cluster.discovery.base import Discovery, Presence
from cache.cluster.ids import Address
from cache.cluster.transport.base import StreamPaths
from cache.errors import CacheError
from cache.metrics import Metrics

logger = logging.getLogger(__name__)

FIND_TIMEOUT: Final = 5.0
"""Seconds for one question to a discovery."""

PEERS_MAX: Final = 1024
"""Addresses taken from one answer: each that is no member is tried in every round."""


@dataclass(frozen=True, slots=True)
class StaticPeers(Discovery, Presence):
    """A fixed list: what `ClusterConfig.peers` says, as a discovery."""

    addresses: tuple[Address, ...] = ()
    """Addresses of some members, `host:port`."""

    @property
    def is_constant(self) -> bool:
        """Always."""
        return True

    def presence(self) -> Presence:
        """Return this list itself: it remembers nothing of a node."""
        return self

    async def find(self) -> Sequence[Address]:
        """Return the list."""
        return self.addresses


class Finder:
    """The peers of one node: `config.peers`, then what `config.discovery` finds."""

    def __init__(self, config: ClusterConfig, metrics: Metrics) -> None:
        self._peers = config.peers
        self._presence = (config.discovery or StaticPeers()).presence()
        self._failures = metrics.counter("discovery.failures")
        self._found: tuple[Address, ...] = ()
        self._is_failing = False

    @property
    def is_constant(self) -> bool:
        """Whether the answer never changes."""
        return self._presence.is_constant

    @property
    def stream_paths(self) -> StreamPaths | None:
        """As of `Presence`."""
        return self._presence.stream_paths

    async def enter(self, config: ClusterConfig) -> ClusterConfig:
        """As of `Presence`."""
        return await self._presence.enter(config)

    async def listening(self, address: Address) -> None:
        """As of `Presence`."""
        await self._presence.listening(address)

    async def find(self) -> list[Address]:
        """Return the peers known now, without repeats; never raises."""
        if self.is_constant:
            self._found = tuple(await self._presence.find())
        else:
            await self._ask()
        return list(dict.fromkeys((*self._peers, *self._found)))

    async def _ask(self) -> None:
        try:
            async with asyncio.timeout(FIND_TIMEOUT):
                self._found = tuple(await self._presence.find())[:PEERS_MAX]
            self._is_failing = False
        except Exception as error:  # An application's own class may raise anything.
            self._failures.add()
            # A warning for each time that it stops to work, not one a second; the next round asks again.
            level = logging.DEBUG if self._is_failing else logging.WARNING
            expected = isinstance(error, (CacheError, OSError))  # A TimeoutError is one, too.
            logger.log(
                level,
                "discovery.failed presence=%r error=%r",
                self._presence,
                error,
                exc_info=not expected,
            )
            self._is_failing = True

    async def announce(self) -> None:
        """As of `Presence`."""
        await self._presence.announce()

    async def withdraw(self) -> None:
        """As of `Presence`; what it raises is logged, because a node that ends has to end."""
        try:
            await self._presence.withdraw()
        except Exception:  # as above
            self._failures.add()
            logger.warning("discovery.not_withdrawn presence=%r", self._presence, exc_info=True)
