"""The owner's side of locks: who holds which, until when, and who is next.

A lock that is held is an entry of a hidden map, in the partition of the key it locks. Its value names the
attempt that holds it, its time to live is the lease and a little more. So it is copied, moves and expires as
entries do, and a promoted owner knows it. The queue is the owner's alone: those who wait ask again, see
`lock_queues.py`.

The fencing number of a lock is the version stamp of the entry that gave it. Why it only rises:

1. The owner stamps the entry with a hybrid clock, later than every stamp that it has given or seen.
2. The number is told only when every copy (or `write_quorum`) has confirmed the entry; each has then seen
   the stamp, so that whichever is promoted gives later ones. One that joins sees it with the entry, or
   with its tombstone, which stays for `tombstone_lifetime` after the release or the end of the lease.
3. If a copy has a later version, from another side of a split, that one stands: it is a lock that somebody
   holds, or it is none any more, and then the lock is given again with a later stamp.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from cache.cluster.config.maps import HIDDEN
from cache.cluster.ids import MemberId
from cache.cluster.partitions.table import Table
from cache.cluster.replication.entries import Entry
from cache.cluster.replication.ownership import Change, Ownership
from cache.cluster.replication.service import ReplicationService
from cache.cluster.replication.transit import TRANSIT_MAX
from cache.cluster.structures.answers import Answer
from cache.cluster.structures.lock_queues import PLACE_SECONDS, LockKey, LockQueues, Waiter
from cache.cluster.structures.writes import Writes
from cache.cluster.transport.rpc import Peer
from cache.cluster.wire.messages import (
    LOCK_BUSY,
    LOCK_FREE,
    LOCK_FULL,
    LOCK_HELD,
    LOCK_LOST,
    AcquireLock,
    CheckLock,
    LockTurn,
    OperationRecord,
    ReleaseLock,
    RenewLock,
    Reply,
)
from cache.errors import CacheError, NotOwnerError
from cache.metrics import Metrics

LOCKS: Final = HIDDEN + "lock:"
"""What the name of the hidden map of a map's locks begins with."""

KEEP_SECONDS: Final = 2.0
"""How long a caller is kept waiting before it has to ask again, which shows that it is still there."""

TIMER_SLACK: Final = 0.001
"""Seconds after the end of a lease at which it is looked at: a timer may be early by a rounding."""

DRIFT_MAX: Final = 0.001
"""Part by which the clocks of holder and owner may differ in speed."""

BUSY: Final = LockTurn(LOCK_BUSY, 0, 0.0)
LOST: Final = LockTurn(LOCK_LOST, 0, 0.0)
FREE: Final = LockTurn(LOCK_FREE, 0, 0.0)


class LockService:
    """Gives locks of the keys this member owns."""

    def __init__(self, replication: ReplicationService, writes: Writes, metrics: Metrics) -> None:
        self._replication = replication
        self._writes = writes
        self._clock = replication.clock
        self._queues = LockQueues(replication.config.limits.lock_waiters_max)
        self._asking: dict[bytes, _Asking] = {}
        self._timers: dict[LockKey, asyncio.TimerHandle] = {}
        self._given = metrics.counter("locks.given")
        self._refused = metrics.counter("locks.refused")
        metrics.gauge("locks.waiting", lambda: len(self._queues))
        replication.on_table(self._on_table)
        self.handlers: dict[type, Callable[[Any, Peer | None], Answer]] = {  # Any: by its key
            AcquireLock: self._on_acquire,
            RenewLock: self._on_renew,
            ReleaseLock: self._on_release,
            CheckLock: self._on_check,
        }

    def _held(self, ownership: Ownership, lock: LockKey) -> Entry | None:
        """Return the entry of a lock that is held now."""
        entry = ownership.replica.entry(lock[1], lock[2])
        if entry is None or entry.value is None or self._clock.monotonic() >= entry.expires_at:
            return None
        return entry

    def _is_alive(self, holder: str) -> bool:
        member = MemberId(holder)
        is_here = member in ("", self._replication.member)
        return is_here or self._replication.address_of(member) is not None

    # -- requests ----------------------------------------------------------------------------

    def _on_acquire(self, message: AcquireLock, peer: Peer | None) -> Answer:
        self._writes.check_size(message.key, b"")
        ownership = self._writes.admit(message.partition)
        lock, now = _lock_of(message), self._clock.monotonic()
        if ownership.replica.operations.get(message.attempt) is not None:
            return LOST  # Given back already: this request was long on the way.
        held = self._held(ownership, lock)
        if held is not None and held.value == message.attempt:
            # Its answer was lost; the next one has another token.
            self._queues.leave(message.attempt)
            return self._give(ownership, lock, message.attempt, message.lease, now)
        if held is None and lock not in self._queues:
            return self._give(ownership, lock, message.attempt, message.lease, now)
        keep = min(message.wait, KEEP_SECONDS)
        if keep <= 0:
            self._queues.leave(message.attempt)
            return BUSY
        waiter = Waiter(
            attempt=message.attempt,
            member=self._replication.member if peer is None else peer.member or "",
            lease=message.lease,
            asked_at=now - message.waited,
            kept_until=now + keep + PLACE_SECONDS,
        )
        if not self._queues.join(lock, waiter):
            self._refused.add()
            return LockTurn(LOCK_FULL, 0, 0.0)
        asking = self._ask(message.attempt, now, keep)
        self._advance(lock)
        return asking.answer

    def _on_renew(self, message: RenewLock, peer: Peer | None) -> Answer:
        ownership = self._writes.admit(message.partition)
        lock, now = _lock_of(message), self._clock.monotonic()
        held = self._held(ownership, lock)
        if held is None or held.value != message.attempt:
            return LOST
        entry = self._writes.stamper(lock[1]).live(message.attempt, now + _kept(message.lease))

        def verdict() -> Answer:
            after = self._held(ownership, lock)
            is_ours = after is not None and after.value == message.attempt
            return LockTurn(LOCK_HELD, 0, 0.0) if is_ours else LOST

        return self._commit(ownership, (lock[1], lock[2], entry), [], verdict)

    def _on_release(self, message: ReleaseLock, peer: Peer | None) -> Answer:
        ownership = self._writes.admit(message.partition)
        lock = _lock_of(message)
        held = self._held(ownership, lock)
        if held is None or held.value != message.attempt:
            if self._queues.leave(message.attempt):
                return FREE
            is_repeated = ownership.replica.operations.get(message.attempt) is not None
            return FREE if is_repeated else LOST
        done = OperationRecord(message.attempt, lock[1], lock[2], b"")
        tombstone = self._writes.stamper(lock[1]).tombstone()
        answer = self._commit(ownership, (lock[1], lock[2], tombstone), [done], lambda: FREE)
        self._advance(lock)
        return answer

    def _on_check(self, message: CheckLock, peer: Peer | None) -> Answer:
        ownership = self._replication.serve(message.partition)
        held = self._held(ownership, _lock_of(message))
        return FREE if held is None else LockTurn(LOCK_HELD, 0, 0.0)

    # -- giving ------------------------------------------------------------------------------

    def _give(
        self, ownership: Ownership, lock: LockKey, attempt: bytes, lease: float, arrived_at: float
    ) -> Answer:
        """Let an attempt hold a lock that is free, or its own."""
        now = self._clock.monotonic()
        given = self._writes.stamper(lock[1]).live(attempt, now + _kept(lease))

        def verdict() -> Answer:
            held = ownership.replica.entry(lock[1], lock[2])
            if held is not None and held.version == given.version and held.value == given.value:
                self._given.add()
                return LockTurn(LOCK_HELD, given.hlc, max(0.0, now - arrived_at))
            is_over = held is None or held.version <= given.version
            if is_over or self._held(ownership, lock) is not None:
                # The lease ended before the copies had it, or another side of a split gave the lock later.
                return BUSY
            # A copy had a later version, by which nobody holds the lock.
            if ownership.replica.operations.get(attempt) is not None:
                return LOST  # The caller has left meanwhile.
            current = self._writes.admit(ownership.partition)
            return self._give(current, lock, attempt, lease, arrived_at)

        return self._commit(ownership, (lock[1], lock[2], given), [], verdict)

    def _commit(
        self,
        ownership: Ownership,
        change: Change,
        operations: list[OperationRecord],
        verdict: Callable[[], Answer],
    ) -> Answer:
        """Write an entry; once copies have it, `verdict` looks at what stands and answers.

        A later version on a copy is not overwritten: it may be somebody's lock.
        """
        pending = self._replication.commit(ownership, [change], operations, merging=True)
        return verdict() if pending is None else _decided(pending.future, verdict)

    def _advance(self, lock: LockKey) -> None:
        """Give a lock that is free to the first who waits for it, and look again when its lease ends."""
        timer = self._timers.pop(lock, None)
        if timer is not None:
            timer.cancel()
        if lock not in self._queues:
            return
        try:
            ownership = self._writes.admit(lock[0])
        except CacheError:
            return  # Those who wait will ask again, and be told.
        now = self._clock.monotonic()
        if self._held(ownership, lock) is None:
            waiter = self._queues.next(lock, now, self._is_alive)
            if waiter is None:
                return
            asking = self._asking.get(waiter.attempt)
            # One that is not there at this moment is about to ask again, and finds that it holds the lock.
            arrived_at = now if asking is None else asking.arrived_at
            answer = self._give(ownership, lock, waiter.attempt, waiter.lease, arrived_at)
            if asking is not None:
                asking.follow(answer)
            elif isinstance(answer, asyncio.Future):
                answer.add_done_callback(_forget)
        held = self._held(ownership, lock)
        if lock in self._queues and held is not None:
            delay = held.expires_at - self._clock.monotonic() + TIMER_SLACK
            loop = asyncio.get_running_loop()
            self._timers[lock] = loop.call_later(delay, self._advance, lock)

    # -- waiting -----------------------------------------------------------------------------

    def _ask(self, attempt: bytes, now: float, keep: float) -> _Asking:
        """Keep a request for a while; an earlier one of the same attempt is answered."""
        earlier = self._asking.get(attempt)
        if earlier is not None:
            earlier.settle(BUSY)
        asking = self._asking[attempt] = _Asking(now, keep)

        def forget(_: object) -> None:
            if self._asking.get(attempt) is asking:
                del self._asking[attempt]

        asking.answer.add_done_callback(forget)
        return asking

    def _on_table(self, old: Table, new: Table) -> None:
        """Whoever waits for a lock whose key is another member's now asks that one."""
        for lock in self._queues.locks():
            if lock[0] not in self._replication.owned:
                while (waiter := self._queues.next(lock, 0.0, self._is_alive)) is not None:
                    asking = self._asking.get(waiter.attempt)
                    if asking is not None:
                        asking.fail(NotOwnerError("the key's partition moved"))


class _Asking:
    """A request of somebody who waits; answered at the latest after `keep` seconds."""

    def __init__(self, arrived_at: float, keep: float) -> None:
        loop = asyncio.get_running_loop()
        self.arrived_at = arrived_at
        self.answer: asyncio.Future[Reply] = loop.create_future()
        timer = loop.call_later(keep, self.settle, BUSY)
        self.answer.add_done_callback(lambda _: timer.cancel())
        self._timer = timer

    def settle(self, reply: Reply) -> None:
        """Answer, if nothing did before."""
        if not self.answer.done():
            self.answer.set_result(reply)

    def fail(self, error: BaseException) -> None:
        """Answer with an error, if nothing did before."""
        if not self.answer.done():
            self.answer.set_exception(error)

    def follow(self, answer: Answer) -> None:
        """Answer what the lock's owner answers, when it does."""
        self._timer.cancel()
        if not isinstance(answer, Awaitable):
            self.settle(answer)
            return
        assert isinstance(answer, asyncio.Future), "made by _decided"

        def finish(done: asyncio.Future[Reply]) -> None:
            error = done.exception()
            if error is None:
                self.settle(done.result())
            else:
                self.fail(error)

        answer.add_done_callback(finish)


def _decided(
    confirmed: asyncio.Future[None], verdict: Callable[[], Answer]
) -> asyncio.Future[Reply]:
    """Return a future of what `verdict` answers once `confirmed` has resolved."""
    answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

    def finish(done: asyncio.Future[Any]) -> None:  # Any: None, or the reply of another verdict
        if answer.done():
            return
        error = done.exception()
        if error is not None:
            answer.set_exception(error)
            return
        try:
            reply: Any = verdict() if done is confirmed else done.result()
        except CacheError as refused:
            answer.set_exception(refused)
            return
        if isinstance(reply, asyncio.Future):
            reply.add_done_callback(finish)
        else:
            answer.set_result(reply)

    confirmed.add_done_callback(finish)
    return answer


def _forget(answer: asyncio.Future[Reply]) -> None:
    if not answer.cancelled():
        answer.exception()  # Retrieved: nobody waits for it.


def _kept(lease: float) -> float:
    """Return how long an owner keeps a lock: a little longer than its holder believes.

    A copy that was made or repaired may have up to `TRANSIT_MAX` seconds less than the original.
    """
    return lease * (1 + DRIFT_MAX) + TRANSIT_MAX


def _lock_of(message: AcquireLock | RenewLock | ReleaseLock | CheckLock) -> LockKey:
    return (message.partition, LOCKS + message.map, message.key)
