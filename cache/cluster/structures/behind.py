"""Write-behind: brings what waits in the queues of this member's partitions to the stores.

At least once: what the store got is taken out of the queue afterwards, on all copies, and only if it is still
the latest write of its key. An owner that dies in between leaves it to the next one, who brings it again.
One call at a time for each map, so that the writes of a key reach the store in order.

Only what its copies have confirmed is brought.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterator
from random import Random
from typing import Final

from cache.cluster.replication.entries import Entry
from cache.cluster.replication.ownership import Change, Ownership
from cache.cluster.replication.sending import CONFIRM_TIMEOUT
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
        return sum(len(keys) for name in self._stores.behind for _, keys in self._queues(name))

    def _queues(self, map_name: str) -> Iterator[tuple[Ownership, Collection[bytes]]]:
        """Yield the keys that wait in each partition served here."""
        queue = queue_of(map_name)
        for ownership in self._replication.owned.values():
            books = ownership.replica.kept.get(queue) if ownership.serving else None
            if books is not None and books.pending:
                yield ownership, books.pending

    def _owned(
        self, map_name: str, most: int | None, seen: Collection[tuple[int, bytes]] = ()
    ) -> list[Waiting]:
        """Return what waits in the partitions served here but for what was seen, `most` of it at most."""
        found: list[Waiting] = []
        queue = queue_of(map_name)
        for ownership, keys in self._queues(map_name):
            for key in keys:
                if (ownership.partition, key) in seen:
                    continue
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
            while any(self._queues(store.map)) and clock.monotonic() < deadline:
                try:
                    is_idle = not await self._flush(store)
                except CacheError:
                    is_idle = True
                if is_idle:
                    await asyncio.sleep(min(store.config.delay, LOOK_INTERVAL))

    async def _flush(self, store: Store) -> bool:
        """Bring what waits now to the store, batch by batch; return whether anything was brought."""
        clock, is_any = self._replication.clock, False
        async with self._flushing[store.map]:
            rounds = len(self._owned(store.map, None)) // store.config.batch_max + 1
            patient_until = clock.monotonic() + CONFIRM_TIMEOUT
            seen: dict[tuple[int, bytes], None] = {}
            for _ in range(rounds):
                found = self._owned(store.map, store.config.batch_max, seen)
                batch = await self._confirmed(found, store.map, patient_until - clock.monotonic())
                if not found or self._replication.stalled:
                    break
                seen.update({(ownership.partition, key): None for ownership, key, _ in found})
                if batch:
                    is_any = True
                    await store.write({key: _unpacked(entry) for _, key, entry in batch})
                    self._flushed.add(len(batch))
                    self._take_out(store, batch)
        return is_any

    async def _confirmed(
        self, found: list[Waiting], map_name: str, patience: float
    ) -> list[Waiting]:
        """Return those that stand: their copies have them, within `patience` seconds.

        One that is not confirmed may yet be taken back (`Ownership.abandon`), and the store would keep it.
        What is waited for is the write that was found: a key that is written all the time has its turn.
        """
        queue = queue_of(map_name)
        by_owner = {o: o.unconfirmed(queue) for o in dict.fromkeys(o for o, _, _ in found)}
        writes = [by_owner[ownership].get(key) for ownership, key, _ in found]
        if waited := [write for write in writes if write is not None and not write.done()]:
            await asyncio.wait(waited, timeout=max(0.0, patience))
        owned = self._replication.owned
        return [
            one
            for one, write in zip(found, writes, strict=True)
            if (write is None or _stands(write)) and owned.get(one[0].partition) is one[0]
        ]

    def _take_out(self, store: Store, batch: list[Waiting]) -> None:
        """The store has these: on all copies, unless they were written again."""
        queue = queue_of(store.map)
        changes: dict[Ownership, list[Change]] = {}
        ends_at = self._replication.clock.monotonic() + self._replication.config.tombstone_lifetime
        for ownership, key, entry in batch:
            if self._replication.owned.get(ownership.partition) is not ownership:
                continue  # Its next owner brings them again.
            held = ownership.replica.entry(queue, key)
            if held is not None and held.version == entry.version:
                tombstone = Entry(None, entry.hlc, entry.origin, ends_at)
                changes.setdefault(ownership, []).append((queue, key, tombstone))
        for ownership, done in changes.items():
            self._replication.commit(ownership, done, merging=True)


def _unpacked(entry: Entry) -> tuple[bytes | None, int]:
    value = entry.value
    assert value is not None, "what waits has a value, or says that there is none"
    return (None if value[:1] == DELETED else value[1:]), entry.hlc


def _stands(write: asyncio.Future[None]) -> bool:
    return write.done() and not write.cancelled() and write.exception() is None
