"""Sending the entries of an owner's copy to another copy, a chunk at a time.

A chunk is made when it is its turn, of the entries as they are then, and the next one waits until there is
room in the window: the chunks under way to one member, of all partitions (`chunk_window`). What a holder has
later versions of comes back. Chunks and live writes may overtake each other: versions decide.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from cache.cluster.ids import Address
from cache.cluster.replication.chunks import Cutter
from cache.cluster.replication.ownership import Ownership
from cache.cluster.replication.service import ReplicationService
from cache.cluster.replication.transit import TRANSIT_MAX, check_transit, mortal
from cache.cluster.wire.messages import (
    CopyEntries,
    EntryRecord,
    OperationRecord,
    Replicated,
    Reply,
)
from cache.metrics import Metrics

CHUNK_TIMEOUT: Final = 5.0
"""Seconds for one chunk; copying is repeated, so this only bounds a wait."""

Newer = Callable[[Ownership, Sequence[EntryRecord], Sequence[OperationRecord], float], object]
"""Called with what a holder has later versions of, and when it was asked."""

_Sent = tuple[float, CopyEntries, asyncio.Future[Reply]]
"""When a chunk was sent, and the call."""


class Copier:
    """Sends entries; made once for each member.

    Args:
        on_newer: takes what other copies have later versions of.
    """

    def __init__(self, replication: ReplicationService, metrics: Metrics, on_newer: Newer) -> None:
        self._replication = replication
        self._clock = replication.clock
        self._on_newer = on_newer
        self._window = replication.config.chunk_window
        self._windows: dict[Address, asyncio.Semaphore] = {}
        self._keys_sent = metrics.counter("repair.keys_sent")

    def keep(self, addresses: Iterable[Address]) -> None:
        """Forget all other addresses."""
        known = dict.fromkeys(addresses)
        self._windows = {to: window for to, window in self._windows.items() if to in known}

    async def send(
        self,
        ownership: Ownership,
        keys: Mapping[str, list[bytes]],
        address: Address,
        away: float,
    ) -> None:
        """Send entries; `away` is how many seconds a question to that address took.

        Their times to live are shortened by that, but not by more than `TRANSIT_MAX`.

        Raises:
            CacheError: not all were confirmed, or not in time; those that may end too late are noted.
        """
        away = min(away, TRANSIT_MAX)
        sent: deque[_Sent] = deque()
        window = self._windows.setdefault(address, asyncio.Semaphore(self._window))
        cutter = Cutter(ownership.replica, keys, self._replication.config.chunk_bytes)
        try:
            while True:
                await window.acquire()
                now = self._clock.monotonic()
                message = cutter.cut(ownership.partition, ownership.epoch, now + away)
                if message is None:
                    window.release()
                    break
                call = self._replication.rpc.call(address, message, timeout=CHUNK_TIMEOUT)
                call.add_done_callback(lambda _: window.release())
                sent.append((now, message, call))
                self._keys_sent.add(len(message.keys))
                if len(sent) >= self._window:
                    await self._confirmed(ownership, sent)
            while sent:
                await self._confirmed(ownership, sent)
        finally:
            for _, message, _ in sent:
                self._replication.late.note(ownership.partition, address, mortal(message))

    async def _confirmed(self, ownership: Ownership, sent: deque[_Sent]) -> None:
        """Wait for the answer to the first chunk, and forget it when it came in time."""
        sent_at, _, call = sent[0]
        answer = await call
        assert isinstance(answer, Replicated)
        check_transit(self._clock.monotonic() - sent_at)
        if answer.newer:
            self._on_newer(ownership, answer.newer, answer.operations, sent_at)
        sent.popleft()
