"""How the writes of an owner reach the holders: sent, sent again, confirmed, refused, reconciled.

Plain writes of one tick to one holder leave as one message, with one column for each part of them. A lone
write waits for nothing: while no other is under way, and the last message had a single write, it leaves at
once. What comes of each write is its own affair: a holder may refuse one and take the others. Whatever else
is sent to a holder goes after what was gathered for it, so that it hears of writes in their order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from cache.cluster.ids import Address, MemberId
from cache.cluster.replication.entries import Entry, remaining, to_record
from cache.cluster.replication.ownership import Ownership, PendingWrite
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

BATCH_MAX: Final = 256
"""Writes of one message; more would make others wait, and save nothing."""

BATCH_BYTES_MAX: Final = 64 * 1024
"""Bytes of values from which on a message is full. A larger value goes alone."""

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

    __slots__ = ("size", "writes")

    def __init__(self) -> None:
        self.writes: list[PendingWrite] = []
        self.size = 0


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
            return
        if not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._flush_all)
        for holder in pending.waiting:
            batches = self._gathered.get(holder)
            batch = None if batches is None else batches.get(name)
            if batch is not None and (
                len(batch.writes) >= BATCH_MAX or batch.size >= BATCH_BYTES_MAX
            ):
                self._flush(holder)
                batch = None
            if batch is None:
                batch = self._gathered.setdefault(holder, {})[name] = _Batch()
            batch.writes.append(pending)
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
            writes = [
                pending
                for pending in batch.writes
                if holder in pending.waiting and self._is_owned(pending.ownership)
            ]
            if len(writes) > 1 or len(batches) > 1:
                self._was_alone = False
            if address is None:
                for pending in writes:
                    self._missed(holder, pending)
            elif writes:
                self._send_each(holder, address, name, writes)

    def _send_each(
        self, holder: MemberId, address: Address, name: str, sent: list[PendingWrite]
    ) -> None:
        now = self._clock.monotonic()
        epochs = [pending.ownership.epoch for pending in sent]
        changes = [pending.changes[0] for pending in sent]
        message = ReplicateEach(
            name,
            self._replication.origin,
            [pending.ownership.partition for pending in sent],
            epochs,
            [key for _, key, _ in changes],
            [entry.value for _, _, entry in changes],
            [entry.hlc for _, _, entry in changes],
            [remaining(entry.expires_at, now) for _, _, entry in changes],
        )
        call = self._rpc.call(address, message, timeout=self._timeout(sent[0]))
        self._under_way += 1
        call.add_done_callback(partial(self._each_answered, holder, sent, epochs, now))

    def _each_answered(
        self,
        holder: MemberId,
        sent: list[PendingWrite],
        epochs: list[int],
        sent_at: float,
        call: asyncio.Future[Reply],
    ) -> None:
        self._under_way -= 1
        if call.cancelled():
            return
        error = call.exception()
        if error is not None:
            for pending, epoch in zip(sent, epochs, strict=True):
                self._outcome(holder, pending, (sent_at, epoch), error)
            return
        reply = call.result()
        assert isinstance(reply, ReplicatedEach)
        special: dict[int, Replicated | BaseException] = {
            place: failure_to_exception(failure) for place, failure in reply.refused
        }
        special.update(reply.newer)
        if special or self._clock.monotonic() - sent_at > TRANSIT_MAX:
            ordinary = Replicated([], [])
            for place, pending in enumerate(sent):
                outcome = special.get(place, ordinary)
                self._outcome(holder, pending, (sent_at, epochs[place]), outcome)
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

    def _timeout(self, pending: PendingWrite) -> float:
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
