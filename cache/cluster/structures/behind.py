"""Write-behind: brings what waits in the queues of this member's partitions to the stores.

At least once: what the store got is taken out of the queue afterwards, on all copies, and only if it is still
the latest write of its key. An owner that dies in between leaves it to the next one, who brings it again.
One call at a time for each map, so that the writes of a key reach the store in order.
"""

from __future__ import annotations

import asyncio
import logging
from random import Random
from typing import Final

from cache.cluster.replication.entries import Entry
from cache.cluster.replication.ownership import Change, Ownership
from cache.cluster.replication.service import ReplicationService
from cache.cluster.structures.stores import DELETED, Store, Stores, queue_of
from cache.errors import CacheError
from cache.metrics import Metrics

logger = logging.getLogger(__name__)

LOOK_INTERVAL: Final = 0.05
"""Seconds between two looks whether a batch is full, at most."""

Waiting = tuple[Ownership, bytes, Entry]


class Behind:
    """The queues of one member."""

    def __init__(
        self, replication: ReplicationService, stores: Stores, rng: Random, metrics: Metrics
    ) -> None:
        self._replication = replication
        self._stores = stores
        self._rng = rng
        self._flushing = {name: asyncio.Lock() for name in stores.behind}
        """Guard the order of calls of one store."""
        self._flushed = metrics.counter("stores.flushed")
        metrics.gauge("stores.queued", self._count)

    def start(self) -> None:
        """Begin to flush."""
        for store in self._stores.behind.values():
            self._replication.scope.spawn(self._run(store), name=f"behind.{store.map}")

    def _count(self) -> float:
        usage = self._replication.room.usage
        return sum(usage.of(queue_of(name)).pending for name in self._stores.behind)

    def waiting(self) -> int:
        """Return how many writes wait in partitions that this member owns."""
        return sum(len(self._owned(name, None)) for name in self._stores.behind)

    def _owned(self, map_name: str, most: int | None) -> list[Waiting]:
        """Return what waits in the partitions served here, `most` of it at most."""
        found: list[Waiting] = []
        queue = queue_of(map_name)
        for ownership in self._replication.owned.values():
            books = ownership.replica.kept.get(queue) if ownership.serving else None
            for key in books.pending or () if books is not None else ():
                entry = ownership.replica.entry(queue, key)
                assert entry is not None, "what is pending is there"
                found.append((ownership, key, entry))
                if len(found) == most:
                    return found
        return found

    async def _run(self, store: Store) -> None:
        config, clock = store.config, self._replication.clock
        backoff = 0.0
        while True:
            deadline = clock.monotonic() + (backoff or config.delay)
            while clock.monotonic() < deadline:
                await asyncio.sleep(min(LOOK_INTERVAL, config.delay))
                if (
                    not backoff
                    and len(self._owned(store.map, config.batch_max)) >= config.batch_max
                ):
                    break
            try:
                await self._flush(store)
                backoff = 0.0
            except CacheError as error:
                longer = min(config.backoff_max, 2 * (backoff or config.delay / 2))
                backoff = longer * self._rng.uniform(0.75, 1.0)
                logger.warning(
                    "store.behind map=%s retry_in=%.1f error=%s", store.map, backoff, error
                )

    async def flush(self, deadline: float) -> None:
        """Bring everything that waits here to the stores, trying until `deadline`."""
        clock = self._replication.clock
        for store in self._stores.behind.values():
            while self._owned(store.map, 1) and clock.monotonic() < deadline:
                try:
                    await self._flush(store)
                except CacheError:
                    await asyncio.sleep(min(store.config.delay, LOOK_INTERVAL))

    async def _flush(self, store: Store) -> None:
        """Bring what waits now to the store, batch by batch."""
        async with self._flushing[store.map]:
            rounds = len(self._owned(store.map, None)) // store.config.batch_max + 1
            for _ in range(rounds):
                batch = self._owned(store.map, store.config.batch_max)
                if not batch or self._replication.stalled:
                    return
                await store.write({key: _unpacked(entry) for _, key, entry in batch})
                self._flushed.add(len(batch))
                self._take_out(store, batch)

    def _take_out(self, store: Store, batch: list[Waiting]) -> None:
        """The store has these: on all copies, unless they were written again."""
        queue = queue_of(store.map)
        changes: dict[Ownership, list[Change]] = {}
        ends_at = self._replication.clock.monotonic() + self._replication.config.tombstone_lifetime
        for ownership, key, entry in batch:
            if self._replication.owned.get(ownership.partition) is not ownership:
                continue  # Its next owner brings them again.
            held = ownership.replica.entry(queue, key)
            if held is not None and held[1:3] == entry[1:3]:
                tombstone: Entry = (None, entry[1], entry[2], ends_at)
                changes.setdefault(ownership, []).append((queue, key, tombstone))
        for ownership, done in changes.items():
            self._replication.commit(ownership, done, merging=True)


def _unpacked(entry: Entry) -> tuple[bytes | None, int]:
    value, version, _, _ = entry
    assert value is not None, "what waits has a value, or says that there is none"
    return (None if value[:1] == DELETED else value[1:]), version
