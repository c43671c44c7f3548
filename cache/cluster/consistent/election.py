"""`ConsistentElection`: one leader at a time, with a token, known to all."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

from cache.cluster.consistent.access import Access, Wait
from cache.cluster.consistent.claims import Claims
from cache.cluster.consistent.state.commands import Kind, Look, Seats
from cache.cluster.structures.lock import LockToken


@dataclass(frozen=True, slots=True)
class Leader:
    """Who leads."""

    token: int
    """Higher than that of every leader before."""
    value: Any  # Any: what the leader said of itself
    """What it campaigned with."""


class ConsistentElection:
    """An election in the whole cluster; get one from `Consistent.election`.

    Guarantees:
        Consistency: linearizable. At most one candidate is elected at a time, in the order of the campaigns.
        An ack means: a Raft majority has it, fsynced with `data_dir`, else in memory.
        Under partition: as `ConsistentLock`: a leader that is cut off is told before the next one is elected.
        Under pause: a leader that stands still may run on after its successor was elected. Only the token
            protects: hand it to whatever the leader writes to.
        Clocks: as for `ConsistentLock`.
        Observers: see every state that lasts, in order; short terms in between may be skipped.
        Loss is reported by: `token.lost`, `SessionLostError` at `resign`.
        Tested by: tests/unit/cluster/consistent (test_grants, test_election).
    """

    def __init__(self, access: Access) -> None:
        self._access = access
        self._claims = Claims(access, Kind.ELECTION)

    def __repr__(self) -> str:
        return f"<ConsistentElection {self._access.label}>"

    async def campaign(self, value: object = None, *, wait: Wait = "1d") -> LockToken:
        """Return when this candidate leads; its token is `lost` when it does not any more.

        Args:
            value: what observers are told of the leader, such as its address.
            wait: for how long to be a candidate.

        Raises:
            LockTimeoutError: others led all the while.
            CodecError: `value` cannot be stored.
            RejectedError, SessionLostError, IndeterminateError: as `ConsistentLock.acquire`.
        """
        return await self._claims.acquire(wait=wait, value=self._access.encode(value))

    def led(
        self, value: object = None, *, wait: Wait = "1d"
    ) -> AbstractAsyncContextManager[LockToken]:
        """Return what leads for the length of an `async with` block.

        Raises:
            SessionLostError: at the end of the block, which raised nothing: another may have led meanwhile.
        """
        return self._claims.held(wait=wait, value=self._access.encode(value))

    async def resign(self, token: LockToken | None = None) -> None:
        """Lead no longer; the next candidate does.

        Raises:
            SessionLostError: it was lost before.
            LockLostError: this handle does not lead.
            RejectedError, IndeterminateError: the group is told in the background until it knows.
        """
        await self._claims.release(token)

    async def leader(self, *, lease: bool = False) -> Leader | None:
        """Return who leads, None if nobody does; `lease` reads by the group leader's lease."""
        query = Look(self._access.name, Kind.ELECTION)
        return self._leader_of(await self._access.ask(query, Seats, lease=lease))

    async def observe(self) -> AsyncIterator[Leader | None]:
        """Yield who leads now, and then each change.

        Raises:
            RejectedError: the group cannot be asked; observe anew.
        """
        known = -1
        while True:
            query = Look(self._access.name, Kind.ELECTION, known)
            seats = await self._access.next(query, Seats)
            known = seats.token
            yield self._leader_of(seats)

    def _leader_of(self, seats: Seats) -> Leader | None:
        return Leader(seats.token, self._access.decode(seats.value)) if seats.token else None
