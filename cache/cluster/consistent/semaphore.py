"""`ConsistentSemaphore`: a number of permits for the whole cluster."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from cache.cluster.consistent.access import Access, Wait
from cache.cluster.consistent.claims import Claims
from cache.cluster.consistent.state.commands import PERMITS_MAX, Kind, Look, Seats
from cache.cluster.structures.lock import LockToken
from cache.errors import ConfigError


class ConsistentSemaphore:
    """Permits of the whole cluster; get one from `Consistent.semaphore`. Tasks may share a handle.

    Guarantees:
        Consistency: linearizable. Never more than `permits` are granted at a time. Claims are granted in
            the order in which they entered the log; one for few permits does not overtake one for many.
        An ack means: a Raft majority has the grant, fsynced with `data_dir`, else in memory.
        Under partition: the side with a majority of the voters serves; permits of a node on the other
            side are free `session_ttl` after the cut, when that node knows that they are lost.
        Under pause: who stands still for longer than `session_ttl` may run on with permits that others have.
        Clocks: none for who is granted what; as for `ConsistentLock` otherwise.
        Tokens: rise, but grants made by one entry of the log share theirs: they order, they do not count.
        Loss is reported by: `token.lost`, `SessionLostError` when permits are given back.
        Tested by: tests/unit/cluster/consistent (test_grants, test_semaphore).

    The number of permits is kept while somebody holds or awaits some; then the next user may bring another.
    """

    def __init__(self, access: Access, permits: int) -> None:
        if type(permits) is not int or not 1 <= permits <= PERMITS_MAX:
            raise ConfigError(f"{access.label}: permits={permits!r}: must be 1 to {PERMITS_MAX}")
        self.permits = permits
        """Permits altogether."""
        self._access = access
        self._claims = Claims(access, Kind.SEMAPHORE, capacity=permits)

    def __repr__(self) -> str:
        return f"<ConsistentSemaphore {self._access.label} of {self.permits}>"

    async def acquire(self, permits: int = 1, *, wait: Wait = 5.0) -> LockToken:
        """Wait for `permits`, `wait` at most; return the token to give them back with.

        A call that ends with an error or is cancelled withdraws its claim, as `ConsistentLock.acquire` does.

        Raises:
            LockTimeoutError: they were not free.
            ConfigError: more than there are altogether, or others use it with another number.
            OverloadedError: too many wait for it.
            RejectedError, SessionLostError, IndeterminateError: as `ConsistentLock.acquire`.
        """
        if type(permits) is not int or not 1 <= permits <= self.permits:
            raise ConfigError(
                f"{self._access.label}: permits={permits!r}: must be 1 to {self.permits}"
            )
        return await self._claims.acquire(wait=wait, permits=permits)

    def held(self, permits: int = 1, *, wait: Wait = 5.0) -> AbstractAsyncContextManager[LockToken]:
        """Return what holds `permits` for an `async with` block.

        Raises:
            SessionLostError: at the end of the block, which raised nothing: they were lost meanwhile.
        """
        return self._claims.held(wait=wait, permits=permits)

    async def release(self, token: LockToken | None = None) -> None:
        """Give back what was acquired last by this handle, or with `token`.

        Raises:
            SessionLostError: this node's session ended before.
            LockLostError: this handle does not hold them.
            RejectedError, IndeterminateError: the group is told in the background until it knows.
        """
        await self._claims.release(token)

    async def available(self, *, lease: bool = False) -> int:
        """Return how many permits are free; `lease` reads by the leader's lease."""
        query = Look(self._access.name, Kind.SEMAPHORE)
        return self.permits - (await self._access.ask(query, Seats, lease=lease)).taken
