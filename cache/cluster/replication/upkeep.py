"""Background work of a member's copies: expiring entries, noticing a stalled event loop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from cache.cluster.replication.service import ReplicationService

STALL_LIMIT: Final = 1.0
"""Seconds without a turn of the event loop after which ownership is checked before serving again.
Below the shortest time in which others can declare this member dead and take over."""

VALID_INTERVAL: Final = 0.25

SWEEP_INTERVAL: Final = 0.5
SWEEP_LIMIT: Final = 512
"""Entries expired in one turn of the event loop, about: a millisecond of work."""


async def stay_valid(replication: ReplicationService) -> None:
    """Serve only while the event loop runs; after a stall, ask first whether others took over."""
    while True:
        if replication.clock.monotonic() > replication.valid_until:
            replication.stalls.add()
            await replication.partitions.revalidate()
        replication.valid_until = replication.clock.monotonic() + STALL_LIMIT
        await asyncio.sleep(VALID_INTERVAL)


async def sweep(replication: ReplicationService) -> None:
    """Turn expired entries into tombstones and forget old ones, a bounded number at a time."""
    while True:
        await asyncio.sleep(SWEEP_INTERVAL)
        now = replication.clock.monotonic()
        worked = 0
        for replica in list(replication.copies.values()):
            replica.drop_views(now)
            while True:
                expired, forgotten = replica.sweep(now, SWEEP_LIMIT)
                replication.expired.add(expired)
                worked += expired + forgotten
                if worked >= SWEEP_LIMIT:
                    worked = 0
                    await asyncio.sleep(0)  # Others have waited long enough.
                if expired + forgotten < SWEEP_LIMIT:
                    break
