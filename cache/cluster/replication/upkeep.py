"""Background work of a member's copies: expiring entries, noticing a stalled event loop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from cache.cluster.replication.replica import PartitionReplica
    from cache.cluster.replication.service import ReplicationService

STALL_LIMIT: Final = 1.0
"""Seconds without a turn of the event loop after which ownership is checked before serving again.
Below the shortest time in which others can declare this member dead and take over."""

VALID_INTERVAL: Final = 0.25

SWEEP_INTERVAL: Final = 0.5
SWEEP_LIMIT: Final = 512
"""Entries expired in one turn of the event loop, about: a millisecond of work."""
IDLE_WORK: Final = 4
"""Expired entries that are as much work as an idle one, which every copy has to be told of."""


async def stay_valid(replication: ReplicationService) -> None:
    """Serve only while the event loop runs; after a stall, ask first whether others took over."""
    while True:
        if replication.clock.monotonic() > replication.validity.until:
            replication.stalls.add()
            await replication.partitions.revalidate()
        replication.validity.until = replication.clock.monotonic() + STALL_LIMIT
        await asyncio.sleep(VALID_INTERVAL)


async def sweep(replication: ReplicationService) -> None:
    """Turn expired entries into tombstones and forget old ones, a bounded number at a time."""
    while True:
        await asyncio.sleep(SWEEP_INTERVAL)
        now = replication.clock.monotonic()
        replication.end_overdue(now)
        worked = 0
        for partition, replica in list(replication.copies.items()):
            replica.drop_views(now)
            if replica.kept:
                worked += _end_idle(replication, partition, replica, now)
            while True:
                expired, _, looked = replica.sweep(now, SWEEP_LIMIT)
                replication.expired.add(expired)
                worked += looked
                if worked >= SWEEP_LIMIT:
                    worked = 0
                    await asyncio.sleep(0)  # Others have waited long enough.
                if looked < SWEEP_LIMIT:
                    break


def _end_idle(
    replication: ReplicationService, partition: int, replica: PartitionReplica, now: float
) -> int:
    """End idle entries of a partition that this member serves, on all copies; return the work done."""
    ownership = replication.owned.get(partition)
    if ownership is None or ownership.replica is not replica:
        replica.rest()
        return 0
    if replication.serving[partition] is not replica or replication.stalled:
        return 0
    ended, looked = replica.idle(now, SWEEP_LIMIT // IDLE_WORK)
    if ended:  # Nobody waits for it; copies are told until they confirm.
        replication.expired.add(len(ended))
        replication.commit(ownership, ended, merging=True)
    return IDLE_WORK * looked
