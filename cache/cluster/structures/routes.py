"""Where the owner of each partition is asked, and with whom it holds the keys. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cache.cluster.ids import Address, MemberId
from cache.cluster.partitions.table import Table


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """The way to keys that the same members hold. Equal to itself only: fast to look up."""

    address: Address
    """Where the owner listens."""
    holders: tuple[MemberId, ...]
    """All who receive writes of the keys, the owner first."""


def routes_of(
    table: Table, me: MemberId, address_of: Callable[[MemberId], Address | None]
) -> list[Route | None]:
    """Return the route of each partition, one for all with the same holders.

    None to what this member owns itself, and where there is no owner, or none that can be reached.
    """
    routes: dict[tuple[MemberId, ...], Route] = {}
    of_partition: list[Route | None] = []
    for row in table.rows:
        address = None if row.owner is None or row.owner == me else address_of(row.owner)
        if address is None:
            of_partition.append(None)
            continue
        holders = row.holders if row.joining else row.replicas
        if holders not in routes:
            routes[holders] = Route(address, holders)
        of_partition.append(routes[holders])
    return of_partition
