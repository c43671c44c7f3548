"""`DistributedLock`: the lock of a key, for whoever gets it first in the whole cluster. The holder's side.

The holder counts its lease from before the owner does: from the sending of the request that got the lock,
plus the seconds that the owner says it kept that request. So the holder's lease ends first, however long the
messages took, as long as two clocks run about equally fast.
"""

from __future__ import annotations

import asyncio
import logging
import math
from types import TracebackType
from typing import Final, Self

from cache.cluster.structures.access import MapAccess
from cache.cluster.wire.messages import (
    LOCK_FREE,
    LOCK_FULL,
    LOCK_HELD,
    AcquireLock,
    CheckLock,
    LockTurn,
    ReleaseLock,
    RenewLock,
)
from cache.errors import (
    CacheError,
    ConfigError,
    LockLostError,
    LockTimeoutError,
    OverloadedError,
    RejectedError,
)
from cache.keys import Key

logger = logging.getLogger(__name__)

LEASE_MIN: Final = 0.1
LEASE_MAX: Final = 86_400.0
"""Seconds of a lease. A shorter one would end while it is being confirmed."""

RENEWALS: Final = 3
"""Renewals in one lease: two may be lost."""

ANSWER_SECONDS: Final = 2.0
"""As long as an owner keeps a request, see `KEEP_SECONDS`; its answer may take as long as any other's."""


class LockToken(int):
    """A fencing number: of two holders of a lock, the later one's is higher.

    Hand it to whatever the lock protects, and let that refuse a lower number than it has seen.
    """

    lost: asyncio.Event
    """Set when the lease has ended, or another holds the lock, before it was given back."""

    def __new__(cls, number: int) -> Self:
        """Return a token that is not lost."""
        token = super().__new__(cls, number)
        token.lost = asyncio.Event()
        return token

    def __repr__(self) -> str:
        return f"<LockToken {int(self)}{' lost' * self.lost.is_set()}>"


class _Hold:
    """One acquisition that succeeded: its token, and until when it is known to be good."""

    def __init__(self, attempt: bytes, token: LockToken) -> None:
        self.attempt = attempt
        self.token = token
        self.ends_at = 0.0
        self.renewing: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def extend(self, ends_at: float, now: float) -> None:
        """The lease goes on until an instant of this member's clock."""
        self.ends_at = ends_at
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(ends_at - now, self.token.lost.set)

    def end(self) -> None:
        """The lock is being given back, or was lost."""
        if self._timer is not None:
            self._timer.cancel()
        if self.renewing is not None:
            self.renewing.cancel()


class DistributedLock:
    """The lock of a key; get one from `DistributedMap.lock`. One handle holds it once.

    Guarantees:
        Consistency: while the members can reach each other, at most one holder at a time, also while owners
            die and partitions move. Whoever waits longest is next; after a change of owner, the first
            to ask the new one if the lock is free just then, else again in the order of waiting.
        An ack means: the lease is in memory on every copy of the key that the table lists (or on
            `write_quorum`), and the token is higher than that of every earlier holder.
        Under partition: **each side with `member_quorum` members may give the lock to one holder.** Only
            the token protects: let what the lock protects refuse a lower one than it has seen. On heal
            the later holder stays, the other's next renewal says that the lock is lost. Which
            side's tokens are higher follows wall clocks; in the same millisecond they may be equal.
        Under pause: a holder that stands still longer than its lease may run on while another holds the
            lock; `token.lost` is set when it resumes. Only the token protects meanwhile.
        Clocks: leases need two clocks that run about equally fast. Tokens rise whatever the wall clocks
            show as long as a copy of the lock lives; after that, and after `tombstone_lifetime`
            without use, if the members' wall clocks differ by less than the time that has passed.
        Loss is reported by: `token.lost`, `LockLostError` when the lock is given back; for all copies of a
            partition that died at once, which frees its locks, the counter `partitions.lost`.
        Tested by: tests/integration/test_locks.py.

    A holder that dies holds the lock until its lease ends, and half a second longer, which is for what clocks
    and copies may differ by. Not shorter: that its member is believed dead does not prove that it is.
    """

    def __init__(
        self, access: MapAccess, key: Key, *, lease: float, wait: float, renew: bool
    ) -> None:
        if not LEASE_MIN <= lease <= LEASE_MAX:
            raise ConfigError(f"lease={lease!r}: must be {LEASE_MIN} to {LEASE_MAX:.0f} seconds")
        if not 0 <= wait < math.inf:
            raise ConfigError(f"wait={wait!r}: must be 0 or more seconds, and finite")
        self._access = access
        self._router = access.router
        self._clock = access.router.clock
        self._key, self._partition = access.locate(key)
        self._name = f"lock of {key!r} in map {access.name!r}"
        self._lease = float(lease)
        self._wait = float(wait)
        self._renews = renew
        self._hold: _Hold | None = None
        self._acquiring = False

    def __repr__(self) -> str:
        return f"<DistributedLock {self._name} {'held' if self._hold else 'not held'}>"

    # -- getting it --------------------------------------------------------------------------

    async def acquire(self) -> LockToken:
        """Wait for the lock, `wait` seconds at most; return its fencing number.

        The lease is not renewed by itself, unlike in `async with`: call `renew`.

        Raises:
            LockTimeoutError: another held it all the while.
            OverloadedError: too many wait for locks already (`limits.lock_waiters_max`).
            RejectedError: its owner could not be asked, or this handle holds the lock already: locks are not
                reentrant. A second handle would wait for the first.
        """
        if self._hold is not None or self._acquiring:
            raise RejectedError(
                f"{self._name}: this handle holds it, or waits for it, already; locks are not reentrant, "
                "make another handle with map.lock"
            )
        self._acquiring = True
        attempt = self._access.operation_ids.next()
        try:
            hold = await self._wait_for(attempt)
        except BaseException:
            # It may have a place in the queue, or even hold the lock: its answer did not arrive.
            self._tell_release(attempt)
            raise
        finally:
            self._acquiring = False
        self._hold = hold
        return hold.token

    async def _wait_for(self, attempt: bytes) -> _Hold:
        began_at = self._clock.monotonic()
        while True:
            reply, sent_at = await self._ask(attempt, began_at)
            now = self._clock.monotonic()
            if reply.turn == LOCK_HELD:
                ends_at = sent_at + reply.kept + self._lease
                if now < ends_at:
                    hold = _Hold(attempt, LockToken(reply.token))
                    hold.extend(ends_at, now)
                    return hold
            elif reply.turn == LOCK_FULL:
                raise OverloadedError(
                    f"{self._name}: too many wait for locks on its owner (limits.lock_waiters_max)"
                )
            if now >= began_at + self._wait:
                raise LockTimeoutError(f"{self._name}: held by another for wait={self._wait} s")

    async def _ask(self, attempt: bytes, began_at: float) -> tuple[LockTurn, float]:
        """Ask once, or again where the owner died; return the answer and when it was asked for."""
        timeout = self._router.config.operation_timeout

        def request() -> AcquireLock:
            waited = self._clock.monotonic() - began_at
            left = max(0.0, self._wait - waited)
            return AcquireLock(
                self._access.name, self._partition, self._key, attempt, self._lease, left, waited
            )

        deadline = max(began_at + self._wait, self._clock.monotonic() + timeout)
        reply, sent_at = await self._router.ask_owner(
            self._partition, request, ANSWER_SECONDS + timeout, deadline
        )
        assert isinstance(reply, LockTurn)
        return reply, sent_at

    async def locked(self) -> bool:
        """Return whether somebody holds the lock."""
        request = CheckLock(self._access.name, self._partition, self._key)
        reply = await self._router.write(self._partition, request)
        assert isinstance(reply, LockTurn)
        return reply.turn == LOCK_HELD

    # -- keeping it --------------------------------------------------------------------------

    async def renew(self) -> None:
        """Begin the lease anew.

        Raises:
            LockLostError: this handle does not hold the lock any more.
            RejectedError: its owner could not be asked; the lease goes on until its end.
        """
        hold = self._require_held()
        timeout = self._router.config.operation_timeout
        request = RenewLock(
            self._access.name, self._partition, self._key, hold.attempt, self._lease
        )
        deadline = min(hold.ends_at, self._clock.monotonic() + timeout)
        reply, sent_at = await self._router.ask_owner(
            self._partition, lambda: request, timeout, deadline
        )
        assert isinstance(reply, LockTurn)
        now = self._clock.monotonic()
        if reply.turn != LOCK_HELD or hold.token.lost.is_set() or now >= sent_at + self._lease:
            hold.token.lost.set()
            raise LockLostError(f"{self._name}: the lease was over before it was renewed")
        hold.extend(sent_at + self._lease, now)

    def _require_held(self) -> _Hold:
        hold = self._hold
        if hold is None:
            raise LockLostError(f"{self._name}: this handle does not hold it")
        if self._clock.monotonic() >= hold.ends_at:
            hold.token.lost.set()
        if hold.token.lost.is_set():
            raise LockLostError(f"{self._name}: the lease is over")
        return hold

    async def _keep(self, hold: _Hold) -> None:
        """Renew the lease for as long as it is held."""
        while not hold.token.lost.is_set():
            await asyncio.sleep(self._lease / RENEWALS)
            try:
                await self.renew()
            except CacheError as error:
                logger.debug("lock.not_renewed lock=%s error=%s", self._name, error)

    # -- giving it back ----------------------------------------------------------------------

    async def release(self) -> bool:
        """Give the lock back; return False if it was lost before, which changes nothing for its holder now.

        Raises:
            UnavailableError: its owner could not be told; the lock is free when its lease ends.
        """
        hold, self._hold = self._hold, None
        if hold is None:
            return False
        hold.end()
        in_time = not hold.token.lost.is_set() and self._clock.monotonic() < hold.ends_at
        if not in_time:
            hold.token.lost.set()
        timeout = self._router.config.operation_timeout
        deadline = self._clock.monotonic() + timeout
        reply, _ = await self._router.ask_owner(
            self._partition, lambda: self._release(hold.attempt), timeout, deadline
        )
        assert isinstance(reply, LockTurn)
        if reply.turn != LOCK_FREE:
            hold.token.lost.set()
        return in_time and reply.turn == LOCK_FREE

    def _release(self, attempt: bytes) -> ReleaseLock:
        return ReleaseLock(self._access.name, self._partition, self._key, attempt)

    def _tell_release(self, attempt: bytes) -> None:
        self._router.tell_owner(self._partition, self._release(attempt))

    async def __aenter__(self) -> LockToken:
        """Acquire the lock, and renew it in the background if it was made with `renew=True`."""
        token = await self.acquire()
        hold = self._hold
        assert hold is not None, "just acquired"
        if self._renews:
            scope = self._router.site.scope
            hold.renewing = scope.spawn(self._keep(hold), name="lock.renew")
        return token

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give the lock back.

        Raises:
            LockLostError: it was lost while the body ran, and the body raised nothing.
        """
        hold = self._hold
        if hold is None:
            return  # Given back by the body.
        if isinstance(error, asyncio.CancelledError):
            self._hold = None
            hold.end()
            self._tell_release(hold.attempt)
            return
        try:
            released = await self.release()
        except CacheError as failure:
            logger.debug("lock.not_released lock=%s error=%s", self._name, failure)
            released = not hold.token.lost.is_set()  # It is free when the lease ends.
        if not released and error is None:
            raise LockLostError(
                f"{self._name}: the lease ended while the body ran; another may have held the lock"
            )
