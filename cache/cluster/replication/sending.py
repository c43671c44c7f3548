"""How the writes of an owner reach the holders: sent, sent again, confirmed, refused, reconciled.

Plain writes of one tick to one holder leave as one message, with one column for each part of them. A lone
write waits for nothing: while no other is under way, and the last message had a single write, it leaves at
once. What comes of each write is its own affair: a holder may refuse one and take the others. Whatever else
is sent to a holder goes after what was gathered for it, so that it hears of writes in their order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from cache.cluster.ids import Address, MemberId
from cache.cluster.replication.entries import Entry, remaining, to_record
from cache.cluster.replication.ownership import (
    BATCH_BYTES_MAX,
    BATCH_MAX,
    Ownership,
    Pending,
    PendingBatch,
    PendingWrite,
)
from cache.cluster.transport.failures import failure_to_exception
from cache.cluster.wire.messages import (
    EntryRecord,
    Replicate,
    Replicated,
    ReplicatedEach,
    ReplicateEach,
    Reply,
)
from cache.errors import IndeterminateError, NotOwnerError
from cache.metrics import Metrics

if TYPE_CHECKING:
    from cache.cluster.replication.service import ReplicationService

CONFIRM_TIMEOUT: Final = 1.0
"""Seconds a holder has to confirm a write before the owner asks for it to be struck."""

RESEND_INTERVAL: Final = 0.05
"""Seconds before a write is sent again to a replica that did not confirm it."""

TIMEOUT_MIN: Final = 0.001

TRANSIT_MAX: Final = 0.2
"""Seconds on the way by which a copy's time to live may be too long. After a longer way it is sent again:
the same version with less time left shortens the copy's."""


class _Batch:
    """Plain writes to one map that are gathered for one holder."""

    __slots__ = ("count", "size", "writes")

    def __init__(self) -> None:
        self.writes: list[Pending] = []
        self.count = 0
        """Those of batches counted one by one."""
        self.size = 0


class _Columns:
    """Writes of one message, in parallel."""

    __slots__ = ("epochs", "hlcs", "keys", "partitions", "ttls", "values")

    def __init__(self) -> None:
        self.partitions: list[int] = []
        self.epochs: list[int] = []
        self.keys: list[bytes] = []
        self.values: list[bytes | None] = []
        self.hlcs: list[int] = []
        self.ttls: list[float] = []

    def add(self, pending: Pending, now: float) -> None:
        """Add a write, or those of a batch."""
        if isinstance(pending, PendingBatch):
            self.partitions += [ownership.partition for ownership in pending.ownerships]
            self.epochs += [ownership.epoch for ownership in pending.ownerships]
            self.keys += pending.keys
            self.values += [entry.value for entry in pending.entries]
            self.hlcs += [entry.hlc for entry in pending.entries]
            self.ttls += [remaining(pending.expires_at, now)] * len(pending.keys)
            return
        _, key, entry = pending.changes[0]
        self.partitions.append(pending.ownership.partition)
        self.epochs.append(pending.ownership.epoch)
        self.keys.append(key)
        self.values.append(entry.value)
        self.hlcs.append(entry.hlc)
        self.ttls.append(remaining(entry.expires_at, now))


def _apart(sent: Sequence[Pending]) -> Iterator[PendingWrite]:
    """Yield each write by itself: something happens to some of them alone."""
    for pending in sent:
        if isinstance(pending, PendingBatch):
            yield from pending.take_apart()
        else:
            yield pending


class Sender:
    """Brings the writes of a `ReplicationService` to the holders of its partitions."""

    def __init__(self, replication: ReplicationService, metrics: Metrics) -> None:
        self._replication = replication
        self._rpc = replication.rpc
        self._clock = replication.clock
        self._complained: dict[MemberId, float] = {}
        self._gathered: dict[MemberId, dict[str, _Batch]] = {}
        self._is_due = False
        self._under_way = 0
        """Messages that are not answered yet."""
        self._was_alone = True
        self._restamped = metrics.counter("replication.restamped")
        self._resent = metrics.counter("replication.resent")
        self._fenced = metrics.counter("replication.fenced")

    def send(self, pending: PendingWrite, *, plain: bool) -> None:
        """Send a write to every holder it waits for; `plain`: one live entry of this moment, and no more."""
        if plain and (self._is_due or self._under_way or not self._was_alone):
            self._gather(pending)
        else:
            self._send_all(pending)
        if pending.needed is not None:
            pending.settle()

    # -- gathered writes -------------------------------------------------------------------------

    def _gather(self, pending: PendingWrite) -> None:
        name, _, entry = pending.changes[0]
        size = len(entry.value or b"")
        if size >= BATCH_BYTES_MAX:
            self._send_all(pending)
        else:
            self._add(pending, name, 1, size)

    def send_batch(self, batch: PendingBatch) -> None:
        """Send plain writes to every holder they wait for, with what else is written in this tick."""
        self._add(batch, batch.map, len(batch.keys), batch.size_bytes)

    def _add(self, pending: Pending, name: str, count: int, size: int) -> None:
        if not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._flush_all)
        for holder in pending.waiting:
            batches = self._gathered.get(holder)
            batch = None if batches is None else batches.get(name)
            if batch is not None and (
                batch.count + count > BATCH_MAX or batch.size >= BATCH_BYTES_MAX
            ):
                self._flush(holder)
                batch = None
            if batch is None:
                batch = self._gathered.setdefault(holder, {})[name] = _Batch()
            batch.writes.append(pending)
            batch.count += count
            batch.size += size

    def _flush_all(self) -> None:
        self._is_due = False
        self._was_alone = True
        for holder in list(self._gathered):
            self._flush(holder)

    def _flush(self, holder: MemberId) -> None:
        """Send what was gathered for a holder, but for what is settled already."""
        batches = self._gathered.pop(holder, None)
        if batches is None:
            return
        address = self._replication.address_of(holder)
        for name, batch in batches.items():
            if batch.count > 1 or len(batches) > 1:
                self._was_alone = False
            if address is None:
                for pending in _apart(batch.writes):
                    if self._is_wanted(holder, pending):
                        self._missed(holder, pending)
            elif writes := self._wanted(holder, batch.writes):
                self._send_each(holder, address, name, writes)

    def _wanted(self, holder: MemberId, gathered: list[Pending]) -> list[Pending]:
        """Return what `holder` is still to be sent. A partition that was lost has no whole batch left."""
        wanted: list[Pending] = []
        for pending in gathered:
            if isinstance(pending, PendingBatch) and pending.parts is None:
                wanted.append(pending)
            else:
                wanted += [one for one in _apart([pending]) if self._is_wanted(holder, one)]
        return wanted

    def _is_wanted(self, holder: MemberId, pending: PendingWrite) -> bool:
        return holder in pending.waiting and self._is_owned(pending.ownership)

    def _send_each(
        self, holder: MemberId, address: Address, name: str, sent: list[Pending]
    ) -> None:
        now = self._clock.monotonic()
        columns = _Columns()
        for pending in sent:
            columns.add(pending, now)
        message = ReplicateEach(
            name,
            self._replication.origin,
            columns.partitions,
            columns.epochs,
            columns.keys,
            columns.values,
            columns.hlcs,
            columns.ttls if len(set(columns.ttls)) > 1 else columns.ttls[:1],
        )
        call = self._rpc.call(address, message, timeout=self._timeout(sent[0]))
        self._under_way += 1
        call.add_done_callback(partial(self._each_answered, holder, sent, columns.epochs, now))

    def _each_answered(
        self,
        holder: MemberId,
        sent: list[Pending],
        epochs: list[int],
        sent_at: float,
        call: asyncio.Future[Reply],
    ) -> None:
        self._under_way -= 1
        if call.cancelled():
            return
        error = call.exception()
        if error is not None:
            for write, epoch in zip(_apart(sent), epochs, strict=True):
                self._outcome(holder, write, (sent_at, epoch), error)
            return
        reply = call.result()
        assert isinstance(reply, ReplicatedEach)
        special: dict[int, Replicated | BaseException] = {
            place: failure_to_exception(failure) for place, failure in reply.refused
        }
        special.update(reply.newer)
        if special or self._clock.monotonic() - sent_at > TRANSIT_MAX:
            ordinary = Replicated([], [])
            for place, write in enumerate(_apart(sent)):
                outcome = special.get(place, ordinary)
                self._outcome(holder, write, (sent_at, epochs[place]), outcome)
            return
        for pending in sent:
            pending.confirm(holder)

    # -- single writes ---------------------------------------------------------------------------

    def _send_all(self, pending: PendingWrite) -> None:
        message = self._message(pending)
        for holder in list(pending.waiting):
            self._send(holder, pending, message)

    def _message(self, pending: PendingWrite) -> Replicate:
        now, ownership = self._clock.monotonic(), pending.ownership
        return Replicate(
            partition=ownership.partition,
            epoch=ownership.epoch,
            entries=[to_record(name, key, entry, now) for name, key, entry in pending.changes],
            operations=list(pending.operations),
            evicted=list(pending.evicted),
        )

    def _send(self, holder: MemberId, pending: PendingWrite, message: Replicate) -> None:
        address = self._replication.address_of(holder)
        if address is None:
            self._missed(holder, pending)
            return
        if self._gathered:
            self._flush(holder)
        call = self._rpc.call(address, message, timeout=self._timeout(pending))
        self._under_way += 1
        sent = (self._clock.monotonic(), message.epoch)
        call.add_done_callback(partial(self._answered, holder, pending, sent))

    def _timeout(self, pending: Pending) -> float:
        left = pending.deadline - self._clock.monotonic()
        return max(TIMEOUT_MIN, min(CONFIRM_TIMEOUT, left))

    def _answered(
        self,
        holder: MemberId,
        pending: PendingWrite,
        sent: tuple[float, int],
        call: asyncio.Future[Reply],
    ) -> None:
        self._under_way -= 1
        if call.cancelled():
            return
        outcome: Reply | BaseException = call.exception() or call.result()
        assert isinstance(outcome, (Replicated, BaseException))
        self._outcome(holder, pending, sent, outcome)

    def _is_owned(self, ownership: Ownership) -> bool:
        return self._replication.owned.get(ownership.partition) is ownership

    # -- outcomes --------------------------------------------------------------------------------

    def _outcome(
        self,
        holder: MemberId,
        pending: PendingWrite,
        sent: tuple[float, int],
        outcome: Replicated | BaseException,
    ) -> None:
        """A holder answered a write, or did not; `sent`: when it was sent, and with which epoch."""
        if isinstance(outcome, Replicated):
            if self._clock.monotonic() - sent[0] > TRANSIT_MAX and pending.may_repeat():
                # Seconds to live were counted anew from an arrival that may have been late.
                self._resend(holder, pending)
                return
            if outcome.newer and self._is_owned(pending.ownership):
                self._reconcile(pending, outcome)
                return
            pending.confirm(holder)
        elif isinstance(outcome, NotOwnerError):
            self._refused(holder, pending, sent[1])
        else:
            self._missed(holder, pending)

    def _refused(self, holder: MemberId, pending: PendingWrite, epoch: int) -> None:
        """A holder knows a newer epoch than the one the write was sent with."""
        ownership = pending.ownership
        if self._is_owned(ownership) and epoch < ownership.epoch:
            self._resend(holder, pending)  # The newer epoch is this member's own.
            return
        self._fenced.add()
        ownership.fence = max(ownership.fence, ownership.epoch + 1)
        self._replication.refresh_serving(ownership.partition)
        ownership.abandon(IndeterminateError("another member took the partition over meanwhile"))
        self._replication.yielding.fenced()

    def _missed(self, holder: MemberId, pending: PendingWrite) -> None:
        """`holder` did not confirm: drop it if it is joining, else send again until struck."""
        ownership = pending.ownership
        if holder not in pending.waiting:
            return
        if (address := self._replication.address_of(holder)) is not None:
            # It may yet arrive, with the times to live that it had when it was sent.
            self._replication.late.note(ownership.partition, address, pending.mortal())
        ownership.deactivate(holder)
        if holder not in pending.waiting:
            return  # The ownership forgets it when nobody else is waited for, and not before.
        if self._clock.monotonic() >= pending.deadline:
            ownership.pending.pop(pending, None)
            pending.fail(IndeterminateError(f"copy on {holder} did not confirm in time"))
            self._replication.doubtful[ownership.partition] = None
            self._replication.on_doubt()
            return
        self._complain(holder)
        delay = min(RESEND_INTERVAL, self._timeout(pending))
        asyncio.get_running_loop().call_later(delay, self._resend, holder, pending)

    def _resend(self, holder: MemberId, pending: PendingWrite) -> None:
        if holder in pending.waiting and self._is_owned(pending.ownership):
            self._resent.add()
            self._send(holder, pending, self._message(pending))

    def _complain(self, holder: MemberId) -> None:
        """Ask the coordinator to strike a replica, at most once in `CONFIRM_TIMEOUT` each."""
        now = self._clock.monotonic()
        if now - self._complained.get(holder, -CONFIRM_TIMEOUT) < CONFIRM_TIMEOUT:
            return
        self._complained[holder] = now
        owned, table = self._replication.owned, self._replication.partitions
        partitions = [p for p, ownership in owned.items() if holder in ownership.row.replicas]
        self._replication.scope.spawn_if_open(
            table.report_unreachable(holder, partitions), name="report_unreachable"
        )

    def _reconcile(self, pending: PendingWrite, reply: Replicated) -> None:
        """A holder has later versions: send all holders the ones that are to stand."""
        newer, ownership = reply.newer, pending.ownership
        changes: dict[tuple[str, bytes], Entry] = {
            (name, key): entry for name, key, entry in pending.changes
        }
        if pending.merging:
            later = self._replication.apply_records(ownership.replica, newer)
            overtaken = {(record.map, record.key): None for record in later}
            for operation in reply.operations:
                if (operation.map, operation.key) not in overtaken:
                    ownership.replica.operations.remember(operation)
        else:
            self._restamp(ownership, newer)
        for record in newer:
            current = ownership.replica.entry(record.map, record.key)
            if current is not None:
                changes[record.map, record.key] = current
        pending.changes = [(name, key, entry) for (name, key), entry in changes.items()]
        pending.waiting = dict.fromkeys(ownership.holders)
        self._send_all(pending)
        pending.settle()

    def _restamp(self, ownership: Ownership, newer: Sequence[EntryRecord]) -> None:
        """Give values just written here a later stamp than the ones a holder already has."""
        wall, stamp, origin = self._clock.wall(), self._replication.stamp, self._replication.origin
        for record in newer:
            self._replication.hlc.observe(record.hlc, wall)
            current = ownership.replica.entry(record.map, record.key)
            if current is not None and current.version < (record.hlc, record.origin):
                self._restamped.add()
                current = Entry(current.value, stamp(), origin, current.expires_at)
                ownership.replica.apply(record.map, record.key, current)
