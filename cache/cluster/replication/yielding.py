"""Ceasing to serve: on request, so that another member may take over, or because copies refuse this owner.

Either way the question is the same: who serves the partition now? The coordinator knows, and until it has
answered, this member serves nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final, Protocol

from cache.cluster.partitions.service import PartitionService
from cache.cluster.replication.ownership import Ownership
from cache.cluster.scope import Scope

DRAIN_TIMEOUT: Final = 1.0
"""Seconds for unfinished writes to settle before a hand-over; else it is put off."""

THAW_TIMEOUT: Final = 3.0
"""Seconds that a hand-over takes at most, before its coordinator is asked what came of it."""

CONFIRM_TIMEOUT: Final = 1.0
CONFIRM_INTERVAL: Final = 0.05
"""Seconds for one such question, and between two."""

RECLAIM_INTERVAL: Final = 0.2
"""Seconds between two requests for a later epoch."""


class Owned(Protocol):
    """What a member owns."""

    owned: dict[int, Ownership]
    partitions: PartitionService
    scope: Scope

    def refresh_serving(self, partition: int) -> None:
        """Say what is served now."""


class Yielding:
    """Stops serving partitions, and begins again where nobody else took over."""

    def __init__(self, replication: Owned) -> None:
        self._replication = replication
        self._reclaiming = False

    async def release(self, partitions: Sequence[int]) -> list[int]:
        """Stop serving `partitions`; return those whose every write is on every copy."""
        frozen = []
        for partition in partitions:
            ownership = self._replication.owned.get(partition)
            if ownership is not None and ownership.serving and not ownership.row.joining:
                ownership.frozen = True
                self._replication.refresh_serving(partition)
                frozen.append(ownership)
        writes = [p.future for owned in frozen for p in owned.writes() if not p.is_over]
        if writes:
            await asyncio.wait(writes, timeout=DRAIN_TIMEOUT)
        released = []
        for ownership in frozen:
            if any(pending.waiting for pending in ownership.pending):
                self._thaw(ownership)
            else:
                released.append(ownership.partition)
        if released:
            self._replication.scope.spawn(self._thaw_later(frozen), name="thaw")
        return released

    async def _thaw_later(self, frozen: Sequence[Ownership]) -> None:
        await asyncio.sleep(THAW_TIMEOUT)
        while any(ownership.frozen for ownership in frozen):
            # Another member may serve them by a table that did not arrive here.
            if await self._replication.partitions.confirm(CONFIRM_TIMEOUT):
                for ownership in frozen:
                    self._thaw(ownership)
            else:
                await asyncio.sleep(CONFIRM_INTERVAL)

    def _thaw(self, ownership: Ownership) -> None:
        if ownership.frozen:
            ownership.frozen = False
            self._replication.refresh_serving(ownership.partition)

    def fenced(self) -> None:
        """A copy refused this member's epoch: find out who owns those partitions, or get a later one."""
        if not self._reclaiming:
            self._reclaiming = True
            self._replication.scope.spawn_if_open(self._reclaim(), name="reclaim")

    async def _reclaim(self) -> None:
        try:
            while True:
                await self._replication.partitions.refresh()
                owned = self._replication.owned.items()
                fenced = [p for p, ownership in owned if ownership.fence > ownership.epoch]
                if not fenced:
                    return
                # By the table it is still this member.
                await self._replication.partitions.report_fenced(fenced)
                await asyncio.sleep(RECLAIM_INTERVAL)
        finally:
            self._reclaiming = False
