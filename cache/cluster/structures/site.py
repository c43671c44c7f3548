"""The seam between maps and the cluster: what a call on a map needs where it is made.

A member and a client differ in nothing else. On a member the partition service is the `TableSource` and the
replication service the `Site`; a client has one object for both (`cache.cluster.client.site`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from cache.cluster.ids import Address, MemberId
from cache.cluster.partitions.table import Table
from cache.cluster.replication.owned import Validity
from cache.cluster.replication.recent import RecentReads
from cache.cluster.replication.replica import PartitionReplica
from cache.cluster.replication.usage import MapUsage
from cache.cluster.scope import Scope
from cache.cluster.transport.rpc import RpcEndpoint


class TableSource(Protocol):
    """Knows which member holds which partition."""

    @property
    def table(self) -> Table:
        """The table that calls made here go by."""
        ...

    async def refresh(self) -> None:
        """Ask for a newer table, together with everybody else here who wants one now."""
        ...

    async def confirm(self, timeout: float) -> bool:
        """Return whether `table` was the cluster's current one at some instant during the call."""
        ...


class Site(Protocol):
    """Where calls are made: who this process is, what it serves by itself, and how it reaches members."""

    member: MemberId
    """This member; "" for a client, which no table lists."""
    rpc: RpcEndpoint
    scope: Scope
    """What owns tasks that outlast a call, such as the renewal of a lock."""
    validity: Validity
    """Until when what is in `serving` and in `recent` may be read."""
    recent: RecentReads
    """Values of what is served here, as callers get them."""

    @property
    def serving(self) -> Sequence[PartitionReplica | None]:
        """Per partition: the copy to read when it is served here, else None; always the same list."""
        ...

    @property
    def copies(self) -> Mapping[int, PartitionReplica]:
        """The copies held here, by partition."""
        ...

    def usage_of(self, map_name: str) -> MapUsage:
        """Return what happened to the entries of a map here."""
        ...

    @property
    def stalled(self) -> bool:
        """Whether this process stood still and has not asked yet what it missed."""
        ...

    def address_of(self, member: MemberId) -> Address | None:
        """Return where a member listens, if the table knows it."""
        ...

    def check_member_quorum(self) -> None:
        """Raise unless operations may be begun here and now."""
        ...

    def on_table(self, hook: Callable[[Table, Table], None]) -> None:
        """Call `hook(old, new)` after each change of the table."""
        ...
