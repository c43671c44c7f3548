"""Which entries end when: a wheel of buckets of a quarter second, checked when a bucket is due. Pure.

An entry that was overwritten stays in its old bucket and is skipped there, so that writing costs one append.
"""

from __future__ import annotations

import math
from typing import Final

TICKS: Final = 4
"""Buckets of one second."""

NO_END: Final = 2.0**62
"""Seconds: an instant that no clock reaches. Peers may send any finite time to live."""

Reference = tuple[str, bytes]


class ExpiryWheel:
    """Keys by the quarter second in which they end."""

    __slots__ = ("_buckets", "_next", "count")

    def __init__(self) -> None:
        self._buckets: dict[int, list[Reference]] = {}
        self._next = math.inf
        self.count = 0
        """References held, stale ones included."""

    def add(self, map_name: str, key: bytes, expires_at: float) -> None:
        """Remember that a key ends at `expires_at`."""
        if expires_at >= NO_END:
            return
        tick = int(expires_at * TICKS) + 1
        self._buckets.setdefault(tick, []).append((map_name, key))
        self.count += 1
        self._next = min(self._next, tick)

    def due(self, now: float, limit: int) -> list[Reference]:
        """Take out at most `limit` keys whose quarter second has passed."""
        if now * TICKS < self._next:
            return []
        taken: list[Reference] = []
        for tick in sorted(tick for tick in self._buckets if tick <= now * TICKS):
            bucket = self._buckets[tick]
            room = limit - len(taken)
            taken.extend(bucket[-room:])
            del bucket[-room:]
            if bucket:
                break
            del self._buckets[tick]
            if len(taken) >= limit:
                break
        self._next = min(self._buckets, default=math.inf)
        self.count -= len(taken)
        return taken
