"""The reader's side of near copies: brings them here, and follows the journals of their owners.

One poll is on its way to each owner that has copies here, and none to others. What makes a copy readable
is in `copies.py`.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Final

from cache.cluster.partitions.table import Table
from cache.cluster.scope import Scope
from cache.cluster.structures.batches import Batches
from cache.cluster.structures.columns import Columns
from cache.cluster.structures.copies import MapCopies, Source
from cache.cluster.structures.near import NearCache
from cache.cluster.structures.router import Router
from cache.cluster.wire.messages import GetNear, NearChanges, NearPoll, NearValue
from cache.errors import CacheError, ConfigError
from cache.keys import K
from cache.metrics import Metrics

POLLS_PER_BOUND: Final = 3
"""A copy stays readable while answers are late by less than two thirds of the bound, ways included."""

ANSWER_TIMEOUT: Final = 1.0
"""Seconds that a poll's answer may take besides the time it is kept; then it is asked again."""

RETRY_INTERVAL: Final = 0.2
"""Seconds before an owner that did not answer is polled again, at most."""


class NearReader:
    """The near copies of one member."""

    def __init__(self, router: Router, scope: Scope, metrics: Metrics) -> None:
        self.copies = router.near
        self._router = router
        self._site = router.site
        self.clock = router.clock
        self.serving = router.site.serving
        self._scope = scope
        self._closed = False
        self._site.on_table(self._on_table)
        for name in self.copies.totals():
            metrics.gauge(f"near.{name}", partial(self._total, name))

    def open(self, map_name: str, settings: NearCache) -> NearMap:
        """Return what a handle of a map reads near with.

        Raises:
            ConfigError: the map is read near with other settings, or reads need a quorum.
        """
        if self._router.config.read_quorum > 1:
            raise ConfigError("near_cache needs read_quorum=1: a copy is that of the owner alone")
        copies = self.copies.open(map_name, settings)
        if copies.settings != settings:
            raise ConfigError(
                f"near_cache={settings}: map {map_name!r} has {copies.settings} on this node; "
                "handles of one map share their copies and need equal settings"
            )
        return NearMap(self, map_name, copies, Batches(map_name, self._router))

    def _total(self, name: str) -> float:
        return self.copies.totals()[name]

    def close(self) -> None:
        """Give up all copies, and keep no more."""
        self._closed = True
        self.copies.clear()

    async def fetch(
        self, map_name: str, copies: MapCopies, partition: int, key: bytes
    ) -> bytes | None:
        """Read a key on its owner and keep what it says."""
        fill = copies.begin(key)
        try:
            request = GetNear(map_name, partition, key)
            reply, owner, sent_at = await self._router.read_on_owner(partition, request)
        finally:
            copies.end(key, fill)
        assert isinstance(reply, NearValue)
        is_present_owner = owner == self._router.owner(partition)
        if owner != self._site.member and is_present_owner and not self._closed:
            source = self.copies.install(
                copies,
                key,
                fill,
                reply,
                partition=partition,
                owner=owner,
                sent_at=sent_at,
                now=self.clock.monotonic(),
            )
            if source is not None:
                self._scope.spawn(self._watch(source), name="near.watch")
        return reply.value

    async def _watch(self, source: Source) -> None:
        """Follow an owner's journal for as long as there are copies of its entries here."""
        while source.copy_count and self.copies.sources.get(source.owner) is source:
            wait = self.copies.bound / POLLS_PER_BOUND
            address = self._site.address_of(source.owner)
            if address is None:
                break  # It left the table, and its partitions have other owners.
            poll = NearPoll(source.journal, source.sequence, wait)
            sent_at = self.clock.monotonic()
            try:
                news = await self._site.rpc.call(address, poll, timeout=wait + ANSWER_TIMEOUT)
            except CacheError:
                await asyncio.sleep(min(wait, RETRY_INTERVAL))
                continue
            assert isinstance(news, NearChanges)
            self.copies.follow(source, news, sent_at=sent_at, now=self.clock.monotonic())
        if self.copies.sources.get(source.owner) is source:
            self.copies.forget(source.owner)

    def _on_table(self, old: Table, new: Table) -> None:
        pairs = enumerate(zip(old.owners, new.owners, strict=False))
        self.copies.leave([partition for partition, (before, now) in pairs if before != now])


class NearMap:
    """One map, as a handle with a near cache reads what others own."""

    __slots__ = ("_batches", "_copies", "_map", "_reader", "get", "peek")

    def __init__(
        self, reader: NearReader, map_name: str, copies: MapCopies, batches: Batches
    ) -> None:
        self._reader = reader
        self._batches = batches
        self._map = map_name
        self._copies = copies
        self.get = copies.get
        """The copy of a key, if it is fresh enough: see `MapCopies.get`."""
        self.peek = copies.peek
        """The same for any thread: see `MapCopies.peek`."""

    async def fetch(self, partition: int, key: bytes) -> bytes | None:
        """Read a key on its owner, and keep a copy."""
        return await self._reader.fetch(self._map, self._copies, partition, key)

    async def get_many(self, columns: Columns[K]) -> dict[K, bytes | None]:
        """Return copies where they are fresh enough, and what the owners say of the other keys.

        The latter is not kept. Copies of those keys are given up, so that later reads do not go back.
        """
        now, serving = self._reader.clock.monotonic(), self._reader.serving
        found: dict[K, bytes | None] = {}
        for key, (encoded, partition) in columns.places().items():
            if serving[partition] is None and (copy := self.get(encoded, now)) is not None:
                found[key] = copy
        asked = columns.at([place for place, key in enumerate(columns.keys) if key not in found])
        found.update(await self._batches.get(asked))
        for encoded in asked.encoded:
            self._copies.drop(encoded)
        return found

    def readings(self) -> dict[str, int]:
        """Return the counts of `MapStats`."""
        copies = self._copies
        copies.count_peeked(self._reader.clock.monotonic())
        return {
            "near_hits": copies.hits,
            "near_misses": copies.misses,
            "near_unverified": copies.unverified,
            "near_invalidations": copies.invalidations,
            "near_overtaken": copies.overtaken,
            "near_entries": copies.count,
            "near_bytes": copies.size_bytes,
            "near_gaps": self._reader.copies.gaps,
        }
