"""`Claims`: what lock, semaphore and election have in common. A claim, its grant, and how either ends.

Every claim is an *owner* of its own, so that a handle may be used by several tasks, and a claim whose answer
was lost can be withdrawn without knowing whether it waits or holds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from cache.cluster.consistent.access import Access, Wait, error_of, seconds_of
from cache.cluster.consistent.state.commands import (
    LEASE_MAX,
    LEASE_MIN,
    Acquire,
    Answer,
    AwaitGrant,
    Ended,
    Failure,
    Granted,
    Kind,
    Look,
    Outcome,
    Queued,
    Release,
    Renew,
    Seats,
    Touch,
    Withdraw,
    decode_answer,
    encode,
)
from cache.cluster.structures.lock import LockToken
from cache.errors import (
    CacheError,
    ConfigError,
    LockLostError,
    LockTimeoutError,
    RejectedError,
    SessionLostError,
)

logger = logging.getLogger(__name__)

LEASE_MARGIN: Final = 0.05
"""Seconds after the end of another's lease until the group is asked to look at its clock."""


class Hold:
    """A grant that this node has."""

    def __init__(self, owner: int, session: int, token: LockToken, label: str) -> None:
        self.owner = owner
        self.session = session
        self.token = token
        self.depth = 1
        self.task = asyncio.current_task()
        self.ends_at: float | None = None
        self.error: CacheError | None = None
        """Why it is lost, once it is."""
        self._label = label
        self._timer: asyncio.TimerHandle | None = None

    def lose(self) -> None:
        """Its session is lost."""
        self._lose(
            SessionLostError(
                f"{self._label}: session {self.session} of this node ended while it was held; another may "
                "have it"
            )
        )

    def end_lease(self) -> None:
        """Its lease is over."""
        self._lose(LockLostError(f"{self._label}: its lease ended; another may have it"))

    def _lose(self, error: CacheError) -> None:
        if self.error is None:
            self.error = error
            self.token.lost.set()

    def extend(self, seconds: float) -> None:
        """Its lease goes on for so long."""
        self.stop()
        self._timer = asyncio.get_running_loop().call_later(seconds, self.end_lease)

    def stop(self) -> None:
        """The lease is of no interest any more."""
        if self._timer is not None:
            self._timer.cancel()


class _Attempt:
    """A claim on its way; while it is open the group may know of it."""

    def __init__(self, owner: int) -> None:
        self.owner = owner
        self.is_open = True


class Claims:
    """Claims of one object by one handle.

    Args:
        lease: seconds after which a grant ends by the group's clock if it is not renewed; None: with the
            session.
    """

    def __init__(
        self,
        access: Access,
        kind: Kind,
        *,
        capacity: int = 1,
        lease: Wait | None = None,
        reentrant: bool = False,
    ) -> None:
        self._access = access
        self._reach = access.reach
        self._kind = kind
        self._capacity = capacity
        self._lease = 0.0 if lease is None else _lease_of(lease)
        self._reentrant = reentrant
        self._holds: dict[int, Hold] = {}
        """By owner, in the order of the grants."""

    # -- getting it ------------------------------------------------------------------------------

    async def acquire(self, *, wait: Wait, permits: int = 1, value: bytes = b"") -> LockToken:
        """Return the token once it is granted; see the public methods."""
        seconds = seconds_of(wait)
        mine = self._of_this_task()
        if mine is not None and self._kind is not Kind.SEMAPHORE:
            return self._reenter(mine)
        await self._reach.group.session()
        attempt = _Attempt(self._reach.next_owner())
        command = Acquire(
            self._access.name,
            self._kind,
            attempt.owner,
            self._capacity,
            permits,
            seconds > 0,
            self._lease,
            value,
        )
        try:
            return await self._claim(command, attempt, seconds)
        except BaseException:
            if attempt.is_open:
                self._reach.settle(Withdraw(self._access.name, self._kind, attempt.owner))
            raise

    def _of_this_task(self) -> Hold | None:
        task = asyncio.current_task()
        return next((hold for hold in self._holds.values() if hold.task is task), None)

    def _reenter(self, hold: Hold) -> LockToken:
        if not self._reentrant:
            raise RejectedError(
                f"{self._access.label}: this task holds it by this handle, and would wait for itself; "
                "reentrant=True lets it in again"
            )
        if hold.error is not None:
            raise hold.error
        hold.depth += 1
        return hold.token

    async def _claim(self, command: Acquire, attempt: _Attempt, seconds: float) -> LockToken:
        began_at = self._access.clock.monotonic()
        try:
            data = await self._reach.group.command(encode(command))
        except RejectedError:
            attempt.is_open = False  # Not applied.
            raise
        answer: Answer = decode_answer(data)
        if isinstance(answer, Queued | Granted):
            await self._require_session(answer.session)
        if isinstance(answer, Queued):
            answer = await self._wait(attempt, answer.session, began_at + seconds)
            if isinstance(answer, Granted) and self._lease:
                # It was granted at some time since the claim was sent: the lease is counted from here on.
                began_at = self._access.clock.monotonic()
                if not await self._renewed(attempt.owner, answer.token):
                    answer = Ended()
        if isinstance(answer, Granted):
            return self._granted(answer, attempt, began_at)
        attempt.is_open = False
        if isinstance(answer, Failure):
            raise error_of(self._access.label, answer)
        if self._lease:
            raise LockLostError(f"{self._access.label}: its lease ended before the grant was known")
        raise SessionLostError(f"{self._access.label}: the session of the claim ended")

    async def _require_session(self, session: int) -> None:
        """Keep the session that the claim was made in: the one before may have been lost on the way."""
        if await self._reach.group.session() != session:
            raise SessionLostError(f"{self._access.label}: session {session} ended under the claim")

    async def _wait(self, attempt: _Attempt, session: int, deadline: float) -> Answer:
        """Wait for the grant; where a lease stands in the way, let the group look at its clock."""
        name, clock = self._access.name, self._access.clock
        query = AwaitGrant(name, self._kind, session, attempt.owner)
        while (left := deadline - clock.monotonic()) > 0:
            seats = await self._access.held(Look(name, self._kind), Seats, 0.0)
            lease_left = 0.0 if seats is None else seats.lease_left
            patience = min(left, lease_left + LEASE_MARGIN) if lease_left else left
            answer = await self._access.held(query, Answer, patience, session=session)
            if answer is not None:
                return answer
            if lease_left:
                await self._access.tell(Touch(name), Outcome)
        raise LockTimeoutError(f"{self._access.label}: others had it all the time that was waited")

    def _granted(self, answer: Granted, attempt: _Attempt, began_at: float) -> LockToken:
        token = LockToken(answer.token)
        hold = Hold(attempt.owner, answer.session, token, self._access.label)
        self._reach.depend(hold)
        if hold.error is None and self._lease:
            hold.extend(began_at + self._lease - self._access.clock.monotonic())
        if hold.error is not None:
            self._reach.forget(hold)
            raise hold.error
        self._holds[attempt.owner] = hold
        return token

    # -- keeping it ------------------------------------------------------------------------------

    async def renew(self, token: LockToken | None = None) -> None:
        """Begin the lease anew; see the public methods."""
        hold = self._find(token)
        if not self._lease:
            raise ConfigError(f"{self._access.label}: it has no lease, and lasts with the session")
        began_at = self._access.clock.monotonic()
        if hold.error is None and not await self._renewed(hold.owner, hold.token):
            hold.end_lease()
        if hold.error is None:
            hold.extend(began_at + self._lease - self._access.clock.monotonic())
        if hold.error is not None:
            raise hold.error

    async def _renewed(self, owner: int, token: int) -> bool:
        command = Renew(self._access.name, self._kind, owner, int(token))
        return (await self._access.tell(command, Outcome)).done

    @property
    def lost(self) -> asyncio.Event:
        """The `lost` of the latest grant; set if there is none."""
        if self._holds:
            return self._find(None).token.lost
        nothing = asyncio.Event()
        nothing.set()
        return nothing

    # -- giving it back --------------------------------------------------------------------------

    async def release(self, token: LockToken | None = None) -> None:
        """Give it back; see the public methods."""
        hold = self._find(token)
        if hold.depth > 1 and hold.error is None:
            hold.depth -= 1
            return
        self._drop(hold)
        if isinstance(hold.error, SessionLostError):
            raise hold.error
        command = Release(self._access.name, self._kind, hold.owner, int(hold.token))
        try:
            released = await self._access.tell(command, Outcome)
        except SessionLostError:
            hold.lose()
            raise
        except BaseException:
            self._reach.settle(command)
            raise
        if not released.done:
            hold.end_lease()
        if hold.error is not None:
            raise hold.error

    @asynccontextmanager
    async def held(
        self, *, wait: Wait, permits: int = 1, value: bytes = b""
    ) -> AsyncIterator[LockToken]:
        """Hold it for the length of a block; see the public methods."""
        token = await self.acquire(wait=wait, permits=permits, value=value)
        try:
            yield token
        except asyncio.CancelledError:
            self._abandon(token)
            raise
        except BaseException:
            await self._release_quietly(token)
            raise
        if (error := await self._release_quietly(token)) is not None:
            raise error

    def _abandon(self, token: LockToken) -> None:
        """Give it back without waiting for that."""
        hold = self._held_by(token)
        if hold is None:
            return
        if hold.depth > 1:
            hold.depth -= 1
            return
        self._drop(hold)
        command = Release(self._access.name, self._kind, hold.owner, int(token))
        self._reach.settle(command)

    async def _release_quietly(self, token: LockToken) -> CacheError | None:
        """Give it back, unless the block did; return why it was lost, if it was."""
        if self._held_by(token) is None:
            return None
        try:
            await self.release(token)
        except (SessionLostError, LockLostError) as error:
            return error
        except CacheError as error:
            logger.debug("consistent.not_released %s error=%s", self._access.label, error)
        return None

    def _held_by(self, token: LockToken | None) -> Hold | None:
        holds = reversed(self._holds.values())
        return next((hold for hold in holds if token is None or hold.token is token), None)

    def _find(self, token: LockToken | None) -> Hold:
        hold = self._held_by(token)
        if hold is None:
            raise LockLostError(f"{self._access.label}: this handle does not hold it")
        return hold

    def _drop(self, hold: Hold) -> None:
        hold.stop()
        del self._holds[hold.owner]
        self._reach.forget(hold)


def _lease_of(lease: Wait) -> float:
    seconds = seconds_of(lease, "lease")
    if not LEASE_MIN <= seconds <= LEASE_MAX:
        raise ConfigError(f"lease={lease!r}: must be {LEASE_MIN} to {LEASE_MAX:.0f} seconds")
    return seconds
