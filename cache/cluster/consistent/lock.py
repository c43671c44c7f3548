"""`ConsistentLock`: a lock that at most one fenced holder has, whatever fails."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager

from cache.cluster.consistent.access import Access, Wait
from cache.cluster.consistent.claims import Claims
from cache.cluster.consistent.state.commands import Kind, Look, Seats
from cache.cluster.structures.lock import LockToken


class ConsistentLock:
    """A lock of the whole cluster; get one from `Consistent.lock`. Tasks may share a handle.

    Guarantees:
        Consistency: linearizable. The group grants the lock to one claim at a time, in the order in which
            claims entered its log.
        An ack means: a Raft majority has the grant, fsynced with `data_dir`, else in memory.
        Under partition: the side with a majority of the voters serves. A holder on the other side is told
            that its session is lost (`token.lost`) when `session_ttl` has passed by its own clock since the
            group last confirmed something; only after that the lock goes to the next one.
        Under pause: a holder that stands still for longer than `session_ttl`, or its lease, may run on while
            another holds the lock. Only the token protects.
        Clocks: none for who is granted what, and for tokens. That the holder is told before the
            next one is granted needs clocks that run about equally fast.
        Tokens: rise with every grant, for ever: over restarts, lost sessions, and when the lock was free
            meanwhile. A token of 64 bits with gaps.
        Loss is reported by: `token.lost` and `lost`, `SessionLostError` or `LockLostError` when it is given
            back.
        Tested by: tests/unit/cluster/consistent (test_grants, test_lock, test_linearizability).

    A holder's death frees the lock when its session ends, `session_ttl` later.
    """

    def __init__(
        self, access: Access, *, reentrant: bool = False, lease: Wait | None = None
    ) -> None:
        self._access = access
        self._claims = Claims(access, Kind.LOCK, lease=lease, reentrant=reentrant)

    def __repr__(self) -> str:
        return f"<ConsistentLock {self._access.label}>"

    @property
    def lost(self) -> asyncio.Event:
        """Set when the latest hold of this handle was lost before it was given back, or there is none."""
        return self._claims.lost

    async def acquire(self, *, wait: Wait = 5.0) -> LockToken:
        """Wait for the lock, `wait` at most (0: now or not at all); return its fencing number.

        A call that ends with an error or is cancelled withdraws its claim, in the background if need be until
        the group has it; should this node die first, the end of its session withdraws it.

        Raises:
            LockTimeoutError: others had it all the while.
            OverloadedError: too many wait for it.
            RejectedError: the group could not be asked, or this task holds it already by this handle, and it
                is not reentrant.
            SessionLostError: this node's session ended while it waited.
            IndeterminateError: nothing is known; the claim is withdrawn.
        """
        return await self._claims.acquire(wait=wait)

    def held(self, *, wait: Wait = 5.0) -> AbstractAsyncContextManager[LockToken]:
        """Return what holds the lock for an `async with` block, and gives its fencing number.

        Raises:
            SessionLostError, LockLostError: at the end of the block, if that raised nothing: it was lost
                meanwhile.
        """
        return self._claims.held(wait=wait)

    async def release(self, token: LockToken | None = None) -> None:
        """Give back the latest hold of this handle, or that of `token`; once for each time it was taken.

        Raises:
            SessionLostError: this node's session ended before; another may have held the lock meanwhile.
            LockLostError: the lease ended before, or this handle does not hold the lock.
            RejectedError, IndeterminateError: the group could not be told now; it is told in the background
                until it knows, or the session ends.
        """
        await self._claims.release(token)

    async def renew(self, token: LockToken | None = None) -> None:
        """Begin the lease anew.

        Raises:
            SessionLostError, LockLostError: it is held no more.
            ConfigError: it has no lease.
            RejectedError, IndeterminateError: the group could not be asked; the lease goes on until its end.
        """
        await self._claims.renew(token)

    async def locked(self, *, lease: bool = False) -> bool:
        """Return whether anybody holds the lock; `lease` reads by the leader's lease."""
        seats = await self._access.ask(Look(self._access.name, Kind.LOCK), Seats, lease=lease)
        return seats.token != 0
