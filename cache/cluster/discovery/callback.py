"""Peers from the application itself: its own service registry, a cloud's API, a table in a database."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from cache.cluster.config.checks import check_address, require
from cache.cluster.discovery.base import Discovery, Presence
from cache.cluster.ids import Address


@dataclass(frozen=True, slots=True)
class PeersFunction(Discovery, Presence):
    """Addresses that an async function returns."""

    function: Callable[[], Awaitable[Sequence[str]]]
    """Called each time peers are looked for, from the start on and every `gossip.rejoin_interval`; has
    `FIND_TIMEOUT` (5 seconds). What it raises is logged, and its last answer is used again."""

    def __post_init__(self) -> None:
        rule = "must be an async function"
        require(callable(self.function), "PeersFunction function", self.function, rule)

    def presence(self) -> Presence:
        """Return the setting itself: it remembers nothing of a node."""
        return self

    async def find(self) -> Sequence[Address]:
        """Ask the function.

        Raises:
            ConfigError: what it returned is no list of addresses.
        """
        found = await self.function()
        is_list = isinstance(found, Sequence) and not isinstance(found, str)
        require(is_list, "PeersFunction returned", found, "must be a list of host:port")
        for address in found:
            check_address("PeersFunction returned", address, port_required=True)
        return [Address(address) for address in found]
