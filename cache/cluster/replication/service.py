"""Copies of each key: the owner's commit. What a holder answers stands in `holder.py`.

A write runs like this: the owner stamps it, applies it, sends it to every holder in parallel and resolves
when they confirmed (`commit`). A holder refuses an owner whose epoch is older than its own table's, which is
what makes a deposed owner harmless. A holder that has a *later* version of the key says so; the owner then
gives its value a still later stamp, because in order of events the write it was asked for came last.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from cache.clock import Clock
from cache.cluster.config import ClusterConfig
from cache.cluster.config.maps import Policies
from cache.cluster.hlc import HybridClock, origin_hash
from cache.cluster.home import Home
from cache.cluster.ids import Address, MemberId
from cache.cluster.partitions.service import PartitionService
from cache.cluster.partitions.table import Table
from cache.cluster.replication.entries import Entry, from_record, to_record
from cache.cluster.replication.holder import Holder
from cache.cluster.replication.ownership import Change, Ownership, PendingWrite, ServingHook
from cache.cluster.replication.replica import PartitionReplica
from cache.cluster.replication.room import Room
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
    Replicate,
    Replicated,
    Reply,
)
from cache.errors import (
    IndeterminateError,
    NoQuorumError,
    NotOwnerError,
    OverloadedError,
)
from cache.metrics import Metrics

logger = logging.getLogger(__name__)

CONFIRM_TIMEOUT: Final = 1.0
"""Seconds a holder has to confirm a write before the owner asks for it to be struck."""

RESEND_INTERVAL: Final = 0.05
"""Seconds before a write is sent again to a replica that did not confirm it."""

TRANSIT_MAX: Final = 0.2
"""Seconds on the way by which a copy's time to live may be too long. After a longer way it is sent again:
the same version with less time left shortens the copy's."""


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
        self.policies = Policies(config.maps)
        self.room = Room(config.limits.memory_bytes_max, self.policies)
        self.copies: dict[int, PartitionReplica] = {}
        self.wanted = [0] * config.partition_count
        """Per partition: how often an owner asked what this copy holds."""
        self.owned: dict[int, Ownership] = {}
        self.serving: list[PartitionReplica | None] = [None] * config.partition_count
        """Per partition: the copy to read when this member serves it now, else None. The hot path."""
        self.valid_until = self.clock.monotonic() + STALL_LIMIT
        """Until when this member may believe its table; put off as long as its event loop runs."""
        self._has_quorum = True
        self.unconfirmed = 0
        """Writes that wait for other copies."""
        self.doubtful: dict[int, None] = {}
        """Partitions with a write that some copies may lack: to be compared before long."""
        self.on_doubt: Callable[[], None] = lambda: None
        self.on_serving: ServingHook | None = None
        self._table_hooks: list[Callable[[Table, Table], None]] = []
        self._complained: dict[MemberId, float] = {}
        self._writes = metrics.counter("replication.writes")
        self._restamped = metrics.counter("replication.restamped")
        self.evicted = metrics.counter("replication.evicted")
        self._absurd = metrics.counter("replication.absurd_versions")
        self._resent = metrics.counter("replication.resent")
        self.stalls = metrics.counter("replication.stalls")
        self._fenced = metrics.counter("replication.fenced")
        self.expired = metrics.counter("replication.expired")
        metrics.gauge("replication.partitions_owned", lambda: len(self.owned))
        metrics.gauge("replication.entries", self._count_entries)
        metrics.gauge("replication.bytes", self._count_bytes)
        partitions.subscribe(self._on_table)
        self.yielding = Yielding(self)
        partitions.set_releaser(self.yielding.release)
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
        return self.clock.monotonic() > self.valid_until

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
        if self.unconfirmed >= self.config.limits.pending_writes_max:
            raise OverloadedError(
                f"{self.unconfirmed} writes of {self.member} wait for other copies "
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
    ) -> asyncio.Future[None] | None:
        """Apply `changes` here and send them to every holder.

        `merging` says that they are versions made earlier, by whomever: a holder's later version wins.
        Otherwise they are writes of this moment, and a holder's later version makes them later still.
        `dropping` are entries that make room for the new ones, here and on the holders.

        Returns:
            None when no other copy is needed, else a future that resolves when enough copies have
            them, or fails with `IndeterminateError`.
        """
        self._writes.add(len(changes))
        replica = ownership.replica
        before = [replica.entry(map_name, key) for map_name, key, _ in changes]
        for map_name, key, entry in changes:
            replica.apply(map_name, key, entry)
        for operation in operations:
            replica.remember_operation(operation)
        evicted = [victim for victim in dropping if replica.drop(victim)]
        if replica.memory_bytes > self.room.share or replica.kept:
            # Holders hear of it with the write itself.
            made = self.room.make(replica, [(map_name, key) for map_name, key, _ in changes])
            self.evicted.add(len(made))
            evicted += made
        if not ownership.holders:
            return None
        quorum = self.config.write_quorum
        pending = PendingWrite(
            changes=changes,
            operations=operations,
            holders=ownership.holders,
            needed=None if quorum is None else quorum - 1,
            deadline=self.clock.monotonic() + self.config.operation_timeout,
            future=asyncio.get_running_loop().create_future(),
            merging=merging,
            evicted=evicted,
        )
        self.unconfirmed += 1
        pending.future.add_done_callback(self._confirmed)
        pending.before = before
        ownership.pending[pending] = None
        message = self._message(ownership, pending)
        for holder in list(pending.waiting):
            self._send(ownership, holder, pending, message)
        pending.settle()
        return pending.future

    def _confirmed(self, _: asyncio.Future[None]) -> None:
        self.unconfirmed -= 1

    def _message(self, ownership: Ownership, pending: PendingWrite) -> Replicate:
        now = self.clock.monotonic()
        return Replicate(
            partition=ownership.partition,
            epoch=ownership.epoch,
            entries=[to_record(name, key, entry, now) for name, key, entry in pending.changes],
            operations=list(pending.operations),
            evicted=pending.evicted,
        )

    def _send(
        self, ownership: Ownership, holder: MemberId, pending: PendingWrite, message: Replicate
    ) -> None:
        address = self.address_of(holder)
        if address is None:
            self._missed(ownership, holder, pending)
            return
        call = self.rpc.call(address, message, timeout=CONFIRM_TIMEOUT)
        sent = (self.clock.monotonic(), message.epoch)
        call.add_done_callback(partial(self._answered, ownership, holder, pending, sent))

    def _answered(
        self,
        ownership: Ownership,
        holder: MemberId,
        pending: PendingWrite,
        sent: tuple[float, int],
        call: asyncio.Future[Reply],
    ) -> None:
        if call.cancelled():
            return
        error = call.exception()
        if error is None:
            reply = call.result()
            assert isinstance(reply, Replicated)
            if self.clock.monotonic() - sent[0] > TRANSIT_MAX and pending.may_repeat():
                # Seconds to live were counted anew from an arrival that may have been late.
                self._resend(ownership, holder, pending)
                return
            if reply.newer and self.owned.get(ownership.partition) is ownership:
                self._reconcile(ownership, pending, reply)
                return
            pending.confirm(holder)
            if not pending.waiting:
                ownership.pending.pop(pending, None)
        elif isinstance(error, NotOwnerError):
            self._refused(ownership, holder, pending, sent[1])
        else:
            self._missed(ownership, holder, pending)

    def _refused(
        self, ownership: Ownership, holder: MemberId, pending: PendingWrite, epoch: int
    ) -> None:
        """A holder knows a newer epoch than the one the write was sent with."""
        if self.owned.get(ownership.partition) is ownership and epoch < ownership.epoch:
            self._resend(ownership, holder, pending)  # The newer epoch is this member's own.
            return
        self._fenced.add()
        ownership.fence = max(ownership.fence, ownership.epoch + 1)
        self.refresh_serving(ownership.partition)
        ownership.abandon(IndeterminateError("another member took the partition over meanwhile"))
        self.yielding.fenced()

    def _missed(self, ownership: Ownership, holder: MemberId, pending: PendingWrite) -> None:
        """`holder` did not confirm: drop it if it is joining, else send again until struck."""
        if holder not in pending.waiting:
            return
        if (address := self.address_of(holder)) is not None:
            # It may yet arrive, with the times to live that it had when it was sent.
            self.late.note(ownership.partition, address, pending.mortal())
        ownership.deactivate(holder)
        if holder not in pending.waiting:
            ownership.pending.pop(pending, None)
            return
        if self.clock.monotonic() >= pending.deadline:
            ownership.pending.pop(pending, None)
            pending.fail(IndeterminateError(f"copy on {holder} did not confirm in time"))
            self.doubtful[ownership.partition] = None
            self.on_doubt()
            return
        self._complain(holder)
        asyncio.get_running_loop().call_later(
            RESEND_INTERVAL, self._resend, ownership, holder, pending
        )

    def _resend(self, ownership: Ownership, holder: MemberId, pending: PendingWrite) -> None:
        if holder in pending.waiting and self.owned.get(ownership.partition) is ownership:
            self._resent.add()
            self._send(ownership, holder, pending, self._message(ownership, pending))

    def _complain(self, holder: MemberId) -> None:
        """Ask the coordinator to strike a replica, at most once in `CONFIRM_TIMEOUT` each."""
        now = self.clock.monotonic()
        if now - self._complained.get(holder, -CONFIRM_TIMEOUT) < CONFIRM_TIMEOUT:
            return
        self._complained[holder] = now
        partitions = [p for p, owned in self.owned.items() if holder in owned.row.replicas]
        self.scope.spawn_if_open(
            self.partitions.report_unreachable(holder, partitions), name="report_unreachable"
        )

    def _reconcile(self, ownership: Ownership, pending: PendingWrite, reply: Replicated) -> None:
        """A holder has later versions: send all holders the ones that are to stand."""
        newer = reply.newer
        changes: dict[tuple[str, bytes], Entry] = {
            (name, key): entry for name, key, entry in pending.changes
        }
        if pending.merging:
            later = self.apply_records(ownership.replica, newer)
            overtaken = {(record.map, record.key): None for record in later}
            for operation in reply.operations:
                if (operation.map, operation.key) not in overtaken:
                    ownership.replica.remember_operation(operation)
        else:
            self._restamp(ownership, newer)
        for record in newer:
            current = ownership.replica.entry(record.map, record.key)
            if current is not None:
                changes[record.map, record.key] = current
        pending.changes = [(name, key, entry) for (name, key), entry in changes.items()]
        pending.waiting = dict.fromkeys(ownership.holders)
        message = self._message(ownership, pending)
        for holder in list(pending.waiting):
            self._send(ownership, holder, pending, message)
        pending.settle()

    def _restamp(self, ownership: Ownership, newer: Sequence[EntryRecord]) -> None:
        """Give values just written here a later stamp than the ones a holder already has."""
        wall = self.clock.wall()
        for record in newer:
            self.hlc.observe(record.hlc, wall)
            current = ownership.replica.entry(record.map, record.key)
            if current is not None and current[1:3] < (record.hlc, record.origin):
                self._restamped.add()
                current = (current[0], self.stamp(), self.origin, current[3])
                ownership.replica.apply(record.map, record.key, current)

    # -- following the table -----------------------------------------------------------------

    def _on_table(self, old: Table, new: Table) -> None:
        for partition, row in enumerate(new.rows):
            ownership = self.owned.get(partition)
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
        self.room.follow(new)
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
        self.serving[partition] = now
        if self.on_serving is not None and now is not before:
            self.on_serving(partition, before, now)

    # -- copies ------------------------------------------------------------------------------

    def apply_records(
        self, replica: PartitionReplica, records: Sequence[EntryRecord]
    ) -> list[EntryRecord]:
        """Apply by version; return the entries held here that are later than the ones given."""
        now, wall = self.clock.monotonic(), self.clock.wall()
        newer = []
        for record in records:
            if not self.hlc.observe(record.hlc, wall):
                self._absurd.add()
                continue  # A day ahead of this clock: it would beat every write from now on.
            entry = from_record(record, now, tombstone_lifetime=self.config.tombstone_lifetime)
            if not replica.apply(record.map, record.key, entry):
                held = replica.entry(record.map, record.key)
                if held is not None and held[1:3] > entry[1:3]:
                    newer.append(to_record(record.map, record.key, held, now))
        return newer

    # -- readings ----------------------------------------------------------------------------

    def _count_entries(self) -> float:
        return sum(copy.entry_count for copy in self.copies.values())

    def _count_bytes(self) -> float:
        return sum(copy.size_bytes for copy in self.copies.values())
