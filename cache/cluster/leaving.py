"""A graceful leave: everything held here gets its copies elsewhere before goodbye is said."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from cache.cluster.consensus import Consensus
from cache.cluster.discovery.finder import Finder
from cache.cluster.membership.service import MembershipService
from cache.cluster.replication.repair import Repair
from cache.cluster.replication.service import ReplicationService
from cache.cluster.structures.behind import Behind

DRAIN_POLL_INTERVAL: Final = 0.02
"""Seconds between two looks at how far a drain is."""

FAREWELL_TIMEOUT: Final = 1.0
"""Seconds for giving a session back; one that is not ends by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainReceipt:
    """Proof of a graceful leave."""

    complete: bool
    """True when every key held here has its copies on other members."""
    partitions: int
    """Partitions held here when the drain began."""
    keys: int
    """Entries held here when the drain began, deletes remembered included."""
    seconds: float
    """How long it took."""
    remaining: int
    """Partitions with data that could not be handed over (0 when complete)."""
    queued: int = 0
    """Writes that wait for a store and were handed to nobody (0 when complete); they are lost."""
    voting: int = 0
    """Groups with state in memory in which this member still had a vote (0 when complete)."""


class Leaving:
    """Takes this member out of the cluster."""

    def __init__(
        self,
        membership: MembershipService,
        replication: ReplicationService,
        repair: Repair,
        finder: Finder,
        behind: Behind,
        consensus: Consensus,
    ) -> None:
        self._membership = membership
        self._replication = replication
        self._repair = repair
        self._finder = finder
        self._behind = behind
        self._consensus = consensus

    async def hand_over(self) -> DrainReceipt:
        """Hand every copy over within `config.leave_timeout`, then leave."""
        clock, copies = self._replication.clock, self._replication.copies
        started_at = clock.monotonic()
        held = [copy for copy in copies.values() if copy.entry_count]
        keys = sum(copy.entry_count for copy in held)
        deadline = started_at + self._replication.config.leave_timeout
        # What waits for a store goes there first, for half of the time: the rest moves with its partition.
        await self._behind.flush(started_at + self._replication.config.leave_timeout / 2)
        self._membership.announce_leaving()
        # Three unrelated things can end the wait, so that it looks from time to time.
        while self._is_needed() and self._has_successor() and clock.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(DRAIN_POLL_INTERVAL)
        await self._behind.flush(deadline)  # If nobody is left to take it.
        remaining, queued = self._remaining_with_data(), self._behind.waiting()
        voting = len(self._consensus.voting(with_state=True))
        await self._consensus.close_sessions(FAREWELL_TIMEOUT)
        await self._finder.withdraw()
        await self._membership.leave()
        return DrainReceipt(
            complete=remaining == queued == voting == 0,
            partitions=len(held),
            keys=keys,
            seconds=clock.monotonic() - started_at,
            remaining=remaining,
            queued=queued,
            voting=voting,
        )

    def _is_needed(self) -> bool:
        return bool(self._remaining() or self._consensus.voting())

    def _remaining(self) -> int:
        """Partitions that still need this member."""
        return len(self._listed()) + len(self._repair.orphans())

    def _remaining_with_data(self) -> int:
        copies = self._replication.copies
        with_data = [p for p in self._listed() if p in copies and copies[p].entry_count]
        return len(with_data) + len(self._repair.orphans())

    def _listed(self) -> list[int]:
        return self._replication.partitions.table.held_by(self._replication.member)

    def _has_successor(self) -> bool:
        return any(
            member.id != self._replication.member and not member.leaving and member.holds_data
            for member in self._membership.members()
        )
