"""Which entries end when: a wheel of one-second buckets, checked when a bucket is due. Pure.

An entry that was overwritten stays in its old bucket and is skipped there, so that writing costs one append.
"""

from __future__ import annotations

import math

Reference = tuple[str, bytes]


class ExpiryWheel:
    """Keys by the second in which they end."""

    __slots__ = ("_buckets", "_next", "count")

    def __init__(self) -> None:
        self._buckets: dict[int, list[Reference]] = {}
        self._next = math.inf
        self.count = 0
        """References held, stale ones included."""

    def add(self, map_name: str, key: bytes, expires_at: float) -> None:
        """Remember that a key ends at `expires_at`."""
        if expires_at == math.inf:
            return
        second = int(expires_at) + 1
        self._buckets.setdefault(second, []).append((map_name, key))
        self.count += 1
        self._next = min(self._next, second)

    def due(self, now: float, limit: int) -> list[Reference]:
        """Take out at most `limit` keys whose second has passed."""
        if now < self._next:
            return []
        taken: list[Reference] = []
        for second in sorted(second for second in self._buckets if second <= now):
            bucket = self._buckets[second]
            room = limit - len(taken)
            taken.extend(bucket[-room:])
            del bucket[-room:]
            if bucket:
                break
            del self._buckets[second]
            if len(taken) >= limit:
                break
        self._next = min(self._buckets, default=math.inf)
        self.count -= len(taken)
        return taken
