"""What happens to the cluster, as one member sees it: typed events for whoever asks `Node.events`."""

from __future__ import annotations

import weakref
from collections.abc import AsyncIterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from cache.cluster.feed import BYTES_MAX, COUNT_MAX, Feed
from cache.cluster.ids import MemberId
from cache.cluster.membership.members import Member
from cache.cluster.membership.service import MembershipService
from cache.cluster.partitions.service import PartitionService
from cache.cluster.partitions.table import Table
from cache.cluster.replication.merges import MergeReport
from cache.cluster.replication.repair import Repair
from cache.errors import CacheError, ClosedError


@dataclass(frozen=True, slots=True)
class MemberJoined:
    """A member is here now; each life of a process is a member of its own."""

    member: Member


@dataclass(frozen=True, slots=True)
class MemberLeft:
    """A member said goodbye, or was found dead."""

    member: Member


@dataclass(frozen=True, slots=True)
class MemberSuspect:
    """A member does not answer. Either `MemberLeft` follows, or nothing: it was heard of again."""

    member: Member


@dataclass(frozen=True, slots=True)
class PartitionMoved:
    """Partitions have another owner, by one table; None for nobody."""

    partitions: tuple[int, ...]
    before: MemberId | None
    now: MemberId | None


@dataclass(frozen=True, slots=True)
class PartitionLost:
    """Every copy of these partitions died: they begin anew, empty."""

    partitions: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SplitMerged:
    """What this member, as owner, merged after a split; the merge is complete."""

    report: MergeReport


@dataclass(frozen=True, slots=True)
class EventsMissed:
    """Events were lost here."""

    count: int | None
    """How many; None when nobody knows, and it may be none."""


ClusterEvent = (
    MemberJoined
    | MemberLeft
    | MemberSuspect
    | PartitionMoved
    | PartitionLost
    | SplitMerged
    | EventsMissed
)


class ClusterEvents:
    """Events from the moment it was made on: `async for` over it. Nothing is kept when it is let go.

    Guarantees:
        Consistency: this member's own view, each event once, in the order it was seen here. Other
            members may see the same in another order, or not at all (a table that was skipped).
        Under partition: each side sees the other one leave.
        Loss is reported by: `EventsMissed`. The queue holds 1,024 events unless `queue_max` says
            otherwise; when it is full the oldest go.
        Tested by: tests/integration/test_cluster_events.py.
    """

    def __init__(self, queue_max: int = COUNT_MAX) -> None:
        self._feed: Feed[ClusterEvent] = Feed(queue_max, BYTES_MAX)
        self._next: ClusterEvent | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._feed.close()

    def __aiter__(self) -> AsyncIterator[ClusterEvent]:
        return self

    async def __anext__(self) -> ClusterEvent:
        if self._next is not None:
            event, self._next = self._next, None
            return event
        event, missed = await self._feed.next()
        if missed:
            self._next = event
            return EventsMissed(missed)
        return event

    def push(self, event: ClusterEvent) -> None:
        """Queue an event."""
        self._feed.push(event)

    def end(self, error: CacheError) -> None:
        """What is queued can still be read, then `error` is raised."""
        self._feed.close(error)


class ClusterEventSource:
    """Watches this member's services, and tells all `ClusterEvents`."""

    def __init__(
        self, membership: MembershipService, partitions: PartitionService, repair: Repair
    ) -> None:
        self._membership = membership
        self._readers: list[weakref.ref[ClusterEvents]] = []
        self._known: dict[MemberId, Member] = {}
        membership.subscribe(self._on_members)
        membership.on_noted = self._on_noted
        partitions.subscribe(self._on_table)
        repair.on_merged = lambda report: self._tell(SplitMerged(report))
        self._on_members()

    def open(self, queue_max: int) -> ClusterEvents:
        """Return a new reader."""
        events = ClusterEvents(queue_max)
        self._readers.append(weakref.ref(events))
        return events

    def close(self) -> None:
        """End every reader; idempotent."""
        for reader in self._living():
            reader.end(ClosedError("the node was closed"))

    def _living(self) -> list[ClusterEvents]:
        living = [(ref, reader) for ref in self._readers if (reader := ref()) is not None]
        self._readers = [ref for ref, _ in living]
        return [reader for _, reader in living]

    def _tell(self, event: ClusterEvent) -> None:
        for reader in self._living():
            reader.push(event)

    def _on_members(self) -> None:
        live = {member.id: member for member in self._membership.members()}
        before, self._known = self._known, live
        for member in before.values():
            if member.id not in live:
                self._tell(MemberLeft(self._membership.member(member.id) or member))
        for member in live.values():
            if member.id not in before:
                self._tell(MemberJoined(member))

    def _on_noted(self, event: str, member: MemberId) -> None:
        known = self._membership.member(member)
        if event == "member.suspect" and known is not None:
            self._tell(MemberSuspect(known))

    def _on_table(self, old: Table, new: Table) -> None:
        if not self._readers or not old.id.version:
            return  # The first table of a member moves nothing.
        moved: dict[tuple[MemberId | None, MemberId | None], list[int]] = {}
        lost = []
        for partition, (before, now) in enumerate(zip(old.rows, new.rows, strict=True)):
            if before.owner != now.owner:
                moved.setdefault((before.owner, now.owner), []).append(partition)
            if now.lost > before.lost:
                lost.append(partition)
        for (giver, taker), partitions in moved.items():
            self._tell(PartitionMoved(tuple(partitions), giver, taker))
        if lost:
            self._tell(PartitionLost(tuple(lost)))
