"""The owner's side of scans and queries: pages of keys and values, in the order of the keys.

A page is made in turns of a millisecond or two. Between them the partition may be lost, written or emptied,
so each turn asks anew whether it is served here, and looks at the entries as they are. A page goes on after
the last key that was looked at, on whichever owner: that is why each key present throughout is given once.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable, Iterator
from itertools import islice
from typing import Any, Final

from cache.cluster.replication.entries import Entry
from cache.cluster.replication.replica import PartitionReplica
from cache.cluster.replication.service import ReplicationService
from cache.cluster.structures.answers import Answer
from cache.cluster.structures.index import IDLE_SECONDS as INDEX_IDLE
from cache.cluster.structures.index import Condition, MapIndex, decoded
from cache.cluster.structures.key_order import IDLE_SECONDS as ORDER_IDLE
from cache.cluster.structures.key_order import SLICE, KeyOrder
from cache.cluster.transport.rpc import Peer
from cache.cluster.wire.messages import (
    EntriesPage,
    FindEntries,
    Reply,
    ScanEntries,
    ScanKeys,
    Scanned,
)
from cache.errors import ConfigError, NotOwnerError, RemoteProtocolError
from cache.globs import check_pattern, key_matcher
from cache.metrics import Metrics

PAGE_MAX: Final = 10_000
"""Entries of one page, whatever was asked for."""

PAGE_BYTES: Final = 1024 * 1024
"""Bytes of keys and values after which a page ends."""

LOOKED_MAX: Final = 50_000
"""Keys looked at for one page, so that a search for little is answered before its caller gives up."""

SMALL: Final = 2_000
"""Keys that are sorted for each page; of more, an order is kept."""

PARTITION_WORK: Final = 10
"""Keys that could be looked at in the time that it takes to come to a partition."""

Lister = Callable[[int, bytes], Awaitable[bool]]
"""Adds what a partition has after a key to the page; returns whether it came to its end."""


class _Page:
    """A page as it grows."""

    def __init__(self, limit: int, *, with_values: bool, looked_max: float = LOOKED_MAX) -> None:
        self.limit = min(max(1, limit), PAGE_MAX)
        self.keys: list[bytes] = []
        self.values: list[bytes] = []
        self.finished: list[int] = []
        self.refused: list[int] = []
        self.halfway = -1
        self.after = b""
        """Last key that was looked at."""
        self._with_values = with_values
        self._looked, self._looked_max = 0, looked_max
        self._size = 0

    @property
    def is_full(self) -> bool:
        return (
            len(self.keys) >= self.limit
            or self._size >= PAGE_BYTES
            or self._looked >= self._looked_max
        )

    @property
    def looked(self) -> int:
        return self._looked

    def take(
        self,
        keys: Iterator[bytes],
        replica: PartitionReplica,
        map_name: str,
        now: float,
        wanted: Callable[[bytes, Entry], bool],
    ) -> bool:
        """Look at one slice of keys; return whether there are no more."""
        for key in islice(keys, SLICE):
            self._looked += 1
            self.after = key
            entry = replica.entry(map_name, key)
            if entry is None or entry.value is None or now >= entry.expires_at:
                continue
            if not wanted(key, entry):
                continue
            self.keys.append(key)
            self._size += len(key)
            if self._with_values:
                self.values.append(entry.value)
                self._size += len(entry.value)
            if self.is_full:
                return False
        return next(keys, None) is None

    def reply(self) -> EntriesPage:
        return EntriesPage(
            keys=self.keys,
            values=self.values,
            finished=self.finished,
            halfway=self.halfway,
            after=self.after if self.halfway >= 0 else b"",
            refused=self.refused,
        )


class QueryService:
    """Lists entries of partitions this member owns."""

    def __init__(self, replication: ReplicationService, metrics: Metrics) -> None:
        self._replication = replication
        self._clock = replication.clock
        self._looked = metrics.counter("queries.looked")
        self._sorted = metrics.counter("queries.sorted")
        self._indexed = metrics.counter("queries.indexed")
        metrics.gauge("queries.bytes", self._count_bytes)
        self.handlers: dict[type, Callable[[Any, Peer | None], Answer]] = {  # Any: by its key
            ScanKeys: self._on_scan_keys,
            ScanEntries: self._on_scan,
            FindEntries: self._on_find,
        }

    def _count_bytes(self) -> float:
        return sum(copy.view_bytes for copy in self._replication.copies.values())

    # -- requests ----------------------------------------------------------------------------

    async def _on_scan_keys(self, message: ScanKeys, peer: Peer | None) -> Reply:
        """As members of before ask; they go on after the last key given, so there has to be one."""
        page = _Page(message.limit, with_values=False, looked_max=math.inf)
        await self._list(message.partitions, message.after, page, self._scanner(message, page))
        return Scanned(page.keys, page.finished, page.halfway, page.refused)

    async def _on_scan(self, message: ScanEntries, peer: Peer | None) -> Reply:
        page = _Page(message.limit, with_values=message.with_values)
        await self._list(message.partitions, message.after, page, self._scanner(message, page))
        return page.reply()

    async def _on_find(self, message: FindEntries, peer: Peer | None) -> Reply:
        page = _Page(message.limit, with_values=True)
        finder = self._finder(message.map, [Condition.of(c) for c in message.conditions], page)
        await self._list(message.partitions, message.after, page, finder)
        return page.reply()

    async def _list(
        self, partitions: Iterable[int], after: bytes, page: _Page, lister: Lister
    ) -> None:
        turn_at, work = 0, 0
        for partition in partitions:
            try:
                is_finished = await lister(partition, after)
            except NotOwnerError:
                page.refused.append(partition)
            else:
                if is_finished:
                    page.finished.append(partition)
                if not is_finished or page.is_full:
                    break
            after = b""
            work += PARTITION_WORK
            if work + page.looked - turn_at >= SLICE:
                turn_at, work = page.looked, 0
                await asyncio.sleep(0)
        self._looked.add(page.looked)

    # -- scans -------------------------------------------------------------------------------

    def _scanner(self, message: ScanKeys | ScanEntries, page: _Page) -> Lister:
        name, prefix = message.map, message.prefix
        pattern = message.match if isinstance(message, ScanEntries) else ""
        wanted = _matching(pattern) if pattern else _everything

        def keys_after(replica: PartitionReplica, after: bytes) -> Iterator[bytes] | None:
            return self._in_order(replica, name, after, prefix)

        walk = self._walker(name, page, keys_after, wanted)

        async def scan(partition: int, after: bytes) -> bool:
            count = len(self._replication.serve(partition).replica.entries(name))
            if page.keys and page.limit - len(page.keys) < count <= min(SMALL, page.limit):
                return False  # It fits into the next page as a whole.
            return await walk(partition, after)

        return scan

    def _walker(
        self,
        name: str,
        page: _Page,
        keys_after: Callable[[PartitionReplica, bytes], Iterator[bytes] | None],
        wanted: Callable[[bytes, Entry], bool],
    ) -> Lister:
        """Return what goes through the keys of a partition, which are None until they are in order."""

        async def walk(partition: int, after: bytes) -> bool:
            while True:
                replica = self._replication.serve(partition).replica
                if not replica.entries(name):
                    return True
                keys = keys_after(replica, after)
                if keys is not None:
                    is_end = page.take(keys, replica, name, self._clock.monotonic(), wanted)
                    after = page.after
                    if is_end:
                        return True
                    if page.is_full:
                        page.halfway = partition
                        return False
                await asyncio.sleep(0)

        return walk

    def _in_order(
        self, replica: PartitionReplica, name: str, after: bytes, prefix: bytes
    ) -> Iterator[bytes] | None:
        """Return the keys after one; None when the order is not made yet."""
        entries, now = replica.entries(name), self._clock.monotonic()
        order = replica.view(name, KeyOrder)
        if order is None:
            if len(entries) <= SMALL:
                starts = (b"s" + prefix, b"b" + prefix) if prefix else (b"",)
                return iter(sorted(k for k in entries if k > after and k.startswith(starts)))
            order = KeyOrder(entries, now)
            replica.attach(name, order)
        order.idle_at = now + ORDER_IDLE
        if order.is_complete:
            return order.after(after, prefix)
        size, count = order.size_bytes, order.sorted_count
        order.grow()
        replica.count_view(order.size_bytes - size)
        self._sorted.add(order.sorted_count - count)
        return None

    # -- queries -----------------------------------------------------------------------------

    def _finder(self, name: str, conditions: list[Condition], page: _Page) -> Lister:
        if not conditions:
            raise RemoteProtocolError("a query without a condition")

        def holds(_: bytes, entry: Entry) -> bool:
            value = decoded(entry)
            return all(condition.holds(value) for condition in conditions)

        def keys_after(replica: PartitionReplica, after: bytes) -> Iterator[bytes] | None:
            index = self._index(replica, name, conditions)
            return None if index is None else index.find(conditions, after)

        return self._walker(name, page, keys_after, holds)

    def _index(
        self, replica: PartitionReplica, name: str, conditions: list[Condition]
    ) -> MapIndex | None:
        """Return the indexes of a map, once those on the fields asked about are complete."""
        now = self._clock.monotonic()
        index = replica.view(name, MapIndex)
        if index is None:
            index = MapIndex(replica.entries(name), now)
            replica.attach(name, index)
        index.idle_at = now + INDEX_IDLE
        size = index.size_bytes
        is_complete = index.grow([condition.path for condition in conditions])
        replica.count_view(index.size_bytes - size)
        if not is_complete:
            self._indexed.add()
        return index if is_complete else None


def _everything(_: bytes, entry: Entry) -> bool:
    return True


def _matching(pattern: str) -> Callable[[bytes, Entry], bool]:
    try:
        matches = key_matcher(check_pattern(pattern))
    except ConfigError as error:
        raise RemoteProtocolError(str(error)) from error
    return lambda key, _: matches(key)
