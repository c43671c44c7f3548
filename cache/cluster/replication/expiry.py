"""Which entries end when: a wheel of buckets, the wider the farther their end, looked into when due. Pure.

The wheel says only at which keys to look now. One that lives on, because its bucket was wide or because it
was written again, is added anew by who looked. Keys are held in dictionaries of nothing but bytes, which the
garbage collector passes by: a million keys with a time to live lengthen no collection.
"""

from __future__ import annotations

import math
from typing import Final

TICKS: Final = 4
"""Narrowest buckets of one second."""

WIDENING: Final = 4
"""Bits: a bucket is 1, 16, 256 … ticks wide, and never wider than the time until its end."""

NO_END: Final = 2.0**62
"""Seconds: an instant that no clock reaches. Peers may send any finite time to live."""

Reference = tuple[str, bytes]


class ExpiryWheel:
    """Keys by when to look at them: a quarter second after their end at the latest."""

    __slots__ = ("_buckets", "_next", "_now", "count")

    def __init__(self) -> None:
        self._buckets: dict[str, dict[int, dict[bytes, None]]] = {}
        """Per map, by the first tick."""
        self._next = math.inf
        self._now = 0
        self.count = 0
        """References held, stale ones included."""

    def add(self, map_name: str, key: bytes, expires_at: float) -> None:
        """Remember that a key ends at `expires_at`."""
        if expires_at >= NO_END:
            return
        tick = int(expires_at * TICKS) + 1
        left = tick - self._now
        if left >> WIDENING > 0:
            narrower = (left.bit_length() - 1) // WIDENING * WIDENING
            tick = tick >> narrower << narrower
        buckets = self._buckets.get(map_name)
        if buckets is None:
            buckets = self._buckets[map_name] = {}
        bucket = buckets.get(tick)
        if bucket is None:
            bucket = buckets[tick] = {}
            self._next = min(self._next, tick)
        self.count -= len(bucket)
        bucket[key] = None
        self.count += len(bucket)

    def due(self, now: float, limit: int) -> list[Reference]:
        """Take out at most `limit` keys to look at: all that ended a quarter second ago, others too."""
        self._now = int(now * TICKS)
        if self._now < self._next:
            return []
        taken: list[Reference] = []
        places = [(tick, name) for name, buckets in self._buckets.items() for tick in buckets]
        for tick, name in sorted(place for place in places if place[0] <= self._now):
            bucket = self._buckets[name][tick]
            while bucket and len(taken) < limit:
                taken.append((name, bucket.popitem()[0]))
            if bucket:
                break
            del self._buckets[name][tick]
        self._buckets = {name: buckets for name, buckets in self._buckets.items() if buckets}
        self._next = min((min(buckets) for buckets in self._buckets.values()), default=math.inf)
        self.count -= len(taken)
        return taken
