"""Copies of each key: the owner's commit. What a holder answers stands in `holder.py`.

A write runs like this: the owner stamps it, applies it, sends it to every holder in parallel and resolves
when they confirmed (`commit`). A holder refuses an owner whose epoch is older than its own table's, which is
what makes a deposed owner harmless. A holder that has a *later* version of the key says so; the owner then
gives its value a still later stamp, because in order of events the write it was asked for came last.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final

from cache.clock import Clock
from cache.cluster.config import ClusterConfig
from cache.cluster.config.maps import Policies
from cache.cluster.hlc import HybridClock, origin_hash
from cache.cluster.home import Home
from cache.cluster.ids import Address, MemberId
from cache.cluster.partitions.service import PartitionService
from cache.cluster.partitions.table import Table
from cache.cluster.replication.entries import Entry, from_record
from cache.cluster.replication.holder import Holder
from cache.cluster.replication.owned import Validity
from cache.cluster.replication.ownership import (
    BATCH_BYTES_MAX,
    Change,
    Ownership,
    Pending,
    PendingBatch,
    PendingWrite,
    ServingHook,
)
from cache.cluster.replication.recent import RecentReads
from cache.cluster.replication.replica import PartitionReplica
from cache.cluster.replication.room import Room
from cache.cluster.replication.sending import Sender
from cache.cluster.replication.transit import Late
from cache.cluster.replication.upkeep import STALL_LIMIT, stay_valid, sweep
from cache.cluster.replication.usage import MapUsage
from cache.cluster.replication.yielding import Yielding
from cache.cluster.scope import Scope
from cache.cluster.transport.rpc import RpcEndpoint
from cache.cluster.wire.messages import (
    EntryRecord,
    KeyVersion,
    OperationRecord,
)
from cache.errors import (
    CacheError,
    IndeterminateError,
    NoQuorumError,
    NotOwnerError,
    OverloadedError,
)
from cache.metrics import Metrics

logger = logging.getLogger(__name__)

OVERDUE_SECONDS: Final = 0.5
"""Seconds after its deadline when a write is failed, should what sends it to the copies not have done so."""

ORIGINS_MAX: Final = 1024
"""Origins of entries that are remembered at once: members that wrote, about."""


class Written:
    """What became of many writes that were asked for together.

    `alone` are those that were done, or refused, each by itself, by their places: as `put` returns. The
    others have no other copy, or are in one of the `batches`.
    """

    __slots__ = ("alone", "batches", "count")

    def __init__(self, count: int) -> None:
        self.count = count
        self.alone: dict[int, PendingWrite | CacheError | None] = {}
        self.batches: list[PendingBatch] = []


class ReplicationService:
    """Holds this member's copies; commits writes of the partitions it owns."""

    def __init__(
        self,
        *,
        config: ClusterConfig,
        member: MemberId,
        partitions: PartitionService,
        rpc: RpcEndpoint,
        clock: Clock,
        metrics: Metrics,
        scope: Scope,
    ) -> None:
        self.config = config
        self.member = member
        self.partitions = partitions
        self.rpc = rpc
        self.clock = clock
        self.scope = scope
        self.home = Home(member)
        self.hlc = HybridClock()
        self.late = Late()
        self.origin = origin_hash(member)
        self._origins = {self.origin: self.origin}
        self.policies = Policies(config.maps)
        self.room = Room(config.limits.memory_bytes_max, self.policies)
        self.copies: dict[int, PartitionReplica] = {}
        self.wanted = [0] * config.partition_count
        """Per partition: how often an owner asked what this copy holds."""
        self.owned: dict[int, Ownership] = {}
        self.serving: list[PartitionReplica | None] = [None] * config.partition_count
        """Per partition: the copy to read when this member serves it now, else None. The hot path."""
        self.validity = Validity(self.clock.monotonic() + STALL_LIMIT)
        """Until when this member may believe its table; put off as long as its event loop runs."""
        self.recent = RecentReads(config.limits.recent_bytes_max, self.home.is_here)
        """Values of what is served, as callers get them; forgotten when it is not served any more."""
        self._has_quorum = True
        self._needed = None if config.write_quorum is None else config.write_quorum - 1
        self.unconfirmed: dict[Pending, None] = {}
        """Writes that wait for other copies."""
        self._unconfirmed_count = 0  # Those of batches one by one.
        self.doubtful: dict[int, None] = {}
        """Partitions with a write that some copies may lack: to be compared before long."""
        self.on_doubt: Callable[[], None] = lambda: None
        self.on_serving: ServingHook | None = None
        self._table_hooks: list[Callable[[Table, Table], None]] = []
        self._writes = metrics.counter("replication.writes")
        self.evicted = metrics.counter("replication.evicted")
        self._overdue = metrics.counter("replication.overdue")
        self._absurd = metrics.counter("replication.absurd_versions")
        self.stalls = metrics.counter("replication.stalls")
        self.expired = metrics.counter("replication.expired")
        metrics.gauge("replication.partitions_owned", lambda: len(self.owned))
        metrics.gauge("replication.entries", self._count_entries)
        metrics.gauge("replication.bytes", self._count_bytes)
        metrics.gauge("replication.recent_bytes", lambda: self.recent.size_bytes)
        metrics.gauge("replication.recent_forgotten", lambda: self.recent.forgotten)
        partitions.subscribe(self._on_table)
        self.yielding = Yielding(self)
        partitions.set_releaser(self.yielding.release)
        self._sender = Sender(self, metrics)
        Holder(self, metrics)

    def start(self) -> None:
        """Begin to expire entries and to watch for stalls."""
        self.scope.spawn(sweep(self), name="sweep")
        self.scope.spawn(stay_valid(self), name="stay_valid")

    def on_table(self, hook: Callable[[Table, Table], None]) -> None:
        """Call `hook(old, new)` after this service followed a new table."""
        self._table_hooks.append(hook)

    def copy_of(self, partition: int) -> PartitionReplica:
        """Return this member's copy of a partition, made empty on first use."""
        replica = self.copies.get(partition)
        if replica is None:
            replica = self.copies[partition] = PartitionReplica(
                operation_memory=self.config.limits.operation_memory,
                tombstone_lifetime=self.config.tombstone_lifetime,
                usage=self.room.usage,
            )
        return replica

    def drop_copy(self, partition: int) -> None:
        """Give up this member's copy of a partition."""
        replica = self.copies.pop(partition, None)
        if replica is not None:
            replica.close()

    def address_of(self, member: MemberId) -> Address | None:
        """Return where a holder listens, if the table knows it."""
        return self.partitions.table.addresses.get(member)

    def usage_of(self, map_name: str) -> MapUsage:
        """Return what happened to the entries of a map on this member."""
        return self.room.usage.of(map_name)

    def stamp(self) -> int:
        """Return a version stamp later than any seen."""
        return self.hlc.stamp(self.clock.wall())

    @property
    def stalled(self) -> bool:
        """Whether the event loop stood still and this member has not asked yet what it missed."""
        return self.clock.monotonic() > self.validity.until

    def set_quorum(self, *, reached: bool) -> None:
        """Serve only while enough members are in view."""
        if reached != self._has_quorum:
            self._has_quorum = reached
            for partition in range(self.config.partition_count):
                self.refresh_serving(partition)

    def check_member_quorum(self) -> None:
        """Raise `NoQuorumError` while fewer members are in view than the member quorum.

        Every operation comes through here, so that one from another thread or a forked child is
        refused here, too.
        """
        self.home.check()
        if not self._has_quorum:
            raise NoQuorumError(
                f"fewer live members in view than member_quorum={self.config.member_quorum}"
            )

    # -- owner side --------------------------------------------------------------------------

    def check_current(self) -> None:
        """Raise unless this member may say that nothing has changed, as `serve` does."""
        self.check_member_quorum()
        if self.stalled:
            raise NotOwnerError(f"{self.member} was stalled and checks what it owns")

    def serve(self, partition: int) -> Ownership:
        """Return the ownership of a partition that this member serves now.

        Raises:
            NoQuorumError: too few members in view, or too few copies for the write quorum.
            NotOwnerError: another member owns it, or it is being handed over.
        """
        self.check_member_quorum()
        if self.stalled:
            raise NotOwnerError(f"{self.member} was stalled and checks what it still owns")
        ownership = self.owned.get(partition)
        if ownership is None or not ownership.serving:
            raise NotOwnerError(f"partition {partition} is not served by {self.member}")
        return ownership

    def check_room(self) -> None:
        """Raise `OverloadedError` when too much memory is held or too many writes are unconfirmed."""
        if self.room.full:
            raise OverloadedError(
                f"{self.member} holds {self.room.usage.bytes} bytes, far over "
                f"limits.memory_bytes_max={self.room.usage.limit}"
            )
        if self._unconfirmed_count >= self.config.limits.pending_writes_max:
            raise OverloadedError(
                f"{self._unconfirmed_count} writes of {self.member} wait for other copies "
                "(limits.pending_writes_max)"
            )

    def check_write_quorum(self, ownership: Ownership) -> None:
        """Raise `NoQuorumError` when the table lists fewer copies than the write quorum."""
        quorum = self.config.write_quorum
        if quorum is not None and len(ownership.row.replicas) < quorum:
            raise NoQuorumError(
                f"partition {ownership.partition} has {len(ownership.row.replicas)} of "
                f"write_quorum={quorum} copies; add members or lower write_quorum"
            )

    def commit(
        self,
        ownership: Ownership,
        changes: Sequence[Change],
        operations: Sequence[OperationRecord] = (),
        *,
        merging: bool = False,
        dropping: Sequence[KeyVersion] = (),
    ) -> PendingWrite | None:
        """Apply `changes` here and send them to every holder.

        `merging` says that they are versions made earlier, by whomever: a holder's later version wins.
        Otherwise they are writes of this moment, and a holder's later version makes them later still.
        `dropping` are entries that make room for the new ones, here and on the holders.

        Returns:
            None when no other copy is needed, else the write, which ends when enough copies have it.
        """
        self._writes.add(len(changes))
        replica = ownership.replica
        before = [replica.entry(map_name, key) for map_name, key, _ in changes]
        for map_name, key, entry in changes:
            replica.apply(map_name, key, entry)
        for operation in operations:
            replica.operations.remember(operation)
        evicted = [victim for victim in dropping if replica.drop(victim)]
        if replica.memory_bytes > self.room.share or replica.kept:
            # Holders hear of it with the write itself.
            made = self.room.make(replica, [(map_name, key) for map_name, key, _ in changes])
            self.evicted.add(len(made))
            evicted += made
        if not ownership.holders:
            return None
        pending = PendingWrite(
            ownership,
            changes,
            before,
            self._needed,
            self.clock.monotonic() + self.config.operation_timeout,
            self._confirmed,
            operations,
            merging,
            evicted,
        )
        plain = len(changes) == 1 and not operations and not evicted and not merging
        return self._send(pending, plain=plain)

    def put(
        self, ownership: Ownership, map_name: str, key: bytes, entry: Entry
    ) -> PendingWrite | None:
        """Commit one entry of this moment, as `commit`."""
        deadline = self.clock.monotonic() + self.config.operation_timeout
        return self._put(ownership, map_name, key, entry, deadline)

    def _put(
        self, ownership: Ownership, map_name: str, key: bytes, entry: Entry, deadline: float
    ) -> PendingWrite | None:
        replica = ownership.replica
        if replica.kept or self.room.usage.limit is not None:
            return self.commit(ownership, [(map_name, key, entry)])
        self._writes.value += 1
        before = replica.entry(map_name, key)
        replica.apply(map_name, key, entry)
        if not ownership.holders:
            return None
        change = (map_name, key, entry)
        pending = PendingWrite(
            ownership, (change,), (before,), self._needed, deadline, self._confirmed
        )
        return self._send(pending, plain=True)

    def put_each(
        self,
        map_name: str,
        partitions: Sequence[int],
        keys: Sequence[bytes],
        values: Sequence[bytes],
        expires_at: float,
    ) -> Written:
        """Write many keys of one map, each for itself.

        Those with the same holders go to them, and are confirmed by them, together.

        Raises:
            RejectedError: nothing can be written here at present.
        """
        self.check_current()
        self.check_room()
        wall, deadline = self.clock.wall(), self.clock.monotonic() + self.config.operation_timeout
        stamps = self.hlc.stamps(wall, len(keys))
        origin, count, serving, owned = self.origin, len(self.serving), self.serving, self.owned
        each_alone = self._needed is not None or self.room.usage.limit is not None
        written = Written(len(keys))
        batches: dict[tuple[MemberId, ...], PendingBatch] = {}
        columns = enumerate(zip(partitions, keys, values, stamps, strict=True))
        try:
            for place, (partition, key, value, stamp) in columns:
                if not 0 <= partition < count or (replica := serving[partition]) is None:
                    text = f"partition {partition} is not served by {self.member}"
                    written.alone[place] = NotOwnerError(text)
                    continue
                ownership, entry = owned[partition], Entry(value, stamp, origin, expires_at)
                if each_alone or replica.kept or len(value) >= BATCH_BYTES_MAX:
                    self._send_batches(batches)
                    alone = self._try_put(ownership, map_name, key, entry, deadline)
                    written.alone[place] = alone
                    continue
                before = replica.entry(map_name, key)
                replica.apply(map_name, key, entry)
                self._writes.value += 1
                held_by = ownership.held_by
                if not held_by:
                    continue
                batch = batches.get(held_by)
                if batch is None or batch.is_full:
                    if batch is not None:
                        self._send_batches(batches)
                    batch = batches[held_by] = PendingBatch(
                        map_name, held_by, expires_at, deadline, self._confirmed, self._split
                    )
                    written.batches.append(batch)
                batch.add(place, ownership, key, entry, before)
        finally:  # What was applied is sent, whatever became of the rest.
            self._send_batches(batches)
        return written

    def _try_put(
        self, ownership: Ownership, map_name: str, key: bytes, entry: Entry, deadline: float
    ) -> PendingWrite | CacheError | None:
        try:
            self.check_write_quorum(ownership)
        except NoQuorumError as error:
            return error
        return self._put(ownership, map_name, key, entry, deadline)

    def _send(self, pending: PendingWrite, *, plain: bool) -> PendingWrite:
        self._unconfirmed_count += 1
        self.unconfirmed[pending] = pending.ownership.pending[pending] = None
        self._sender.send(pending, plain=plain)
        return pending

    def _send_batches(self, batches: dict[tuple[MemberId, ...], PendingBatch]) -> None:
        for batch in batches.values():
            self._unconfirmed_count += len(batch.keys)
            self.unconfirmed[batch] = None
            self._sender.send_batch(batch)
        batches.clear()

    def _confirmed(self, pending: Pending) -> None:
        del self.unconfirmed[pending]
        self._unconfirmed_count -= len(pending.keys) if type(pending) is PendingBatch else 1

    def _split(self, batch: PendingBatch, parts: Sequence[PendingWrite]) -> None:
        del self.unconfirmed[batch]
        self.unconfirmed.update(dict.fromkeys(parts))

    def end_overdue(self, now: float) -> None:
        """Fail writes that nobody ended in time: whoever waits for one waits no longer than was promised."""
        overdue: list[PendingWrite] = []
        for one in [one for one in self.unconfirmed if now >= one.deadline + OVERDUE_SECONDS]:
            overdue += one.take_apart() if isinstance(one, PendingBatch) else (one,)
        for pending in overdue:
            self._overdue.add()
            pending.fail(IndeterminateError("no copy confirmed it in time"))

    # -- following the table -----------------------------------------------------------------

    def _on_table(self, old: Table, new: Table) -> None:
        rows, owned = new.rows, self.owned
        frozen = [partition for partition, ownership in owned.items() if ownership.frozen]
        for partition in dict.fromkeys((*new.changed_since(old), *frozen)):
            row, ownership = rows[partition], owned.get(partition)
            if row.owner == self.member:
                if ownership is None:
                    self._take_over(partition, new)
                elif row != ownership.row or ownership.frozen:
                    ownership.update(row)
            elif ownership is not None:
                del self.owned[partition]
                ownership.replica.rest()
                ownership.abandon(IndeterminateError("the partition moved during the write"))
            self.refresh_serving(partition)
        self.room.follow(old, new)
        for hook in self._table_hooks:
            hook(old, new)

    def _take_over(self, partition: int, table: Table) -> None:
        row = table.rows[partition]
        ownership = Ownership(partition, row, self.copy_of(partition))
        ownership.replica.take_over(self.clock.monotonic())
        quorum = self.config.write_quorum
        if quorum is not None and quorum < self.config.replica_count and len(row.replicas) > 1:
            ownership.settled = False  # A quorum write may be on another copy only.
        self.owned[partition] = ownership

    def refresh_serving(self, partition: int) -> None:
        """Recompute the hot path's answer for one partition."""
        ownership = self.owned.get(partition)
        serves = ownership is not None and ownership.serving and self._has_quorum
        before, now = self.serving[partition], ownership.replica if ownership and serves else None
        if before is not None and before is not now and before.recent is not None:
            before.recent.clear()
            before.recent = None
        self.serving[partition] = now
        if self.on_serving is not None and now is not before:
            self.on_serving(partition, before, now)

    # -- copies ------------------------------------------------------------------------------

    def shared_origin(self, origin: int) -> int:
        """Return an equal number, the same object for all entries from there: they keep it alive."""
        if len(self._origins) >= ORIGINS_MAX:
            self._origins.clear()
        return self._origins.setdefault(origin, origin)

    def received(self, record: EntryRecord, at: float) -> Entry:
        """Return the entry of a record, whose time to live counts from the instant `at`."""
        origin, lifetime = self.shared_origin(record.origin), self.config.tombstone_lifetime
        return from_record(record, at, tombstone_lifetime=lifetime, origin=origin)

    def apply_records(
        self, replica: PartitionReplica, records: Sequence[EntryRecord], *, observed: bool = False
    ) -> list[EntryRecord]:
        """Apply by version; return the entries held here that are later than the ones given.

        `observed` says that the clock has taken note of the latest of them.
        """
        now, wall = self.clock.monotonic(), self.clock.wall()
        newer = []
        for record in records:
            if not observed and not self.hlc.observe(record.hlc, wall):
                self._absurd.add()
                continue  # A day ahead of this clock: it would beat every write from now on.
            entry = self.received(record, now)
            applied = replica.apply(record.map, record.key, entry)
            if not applied and replica.is_later(record.map, record.key, entry):
                newer += replica.records_for([(record.map, record.key)], now)
        return newer

    # -- readings ----------------------------------------------------------------------------

    def _count_entries(self) -> float:
        return sum(copy.entry_count for copy in self.copies.values())

    def _count_bytes(self) -> float:
        return sum(copy.size_bytes for copy in self.copies.values())
