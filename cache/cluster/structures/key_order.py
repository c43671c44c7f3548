"""The keys that one map has in one partition, sorted. Pure.

Made when a partition is first scanned that does not fit into one page, a slice at a time, and kept up to date
while scans go on; a map that is not scanned costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from sortedcontainers import SortedList

from cache.cluster.replication.entries import Entry

IDLE_SECONDS: Final = 30.0
"""After so long without a scan the order is given up."""

SLICE: Final = 1_000
"""Keys put in order in one turn of the event loop, and keys looked at: a millisecond or two of work."""

KEY_BYTES: Final = 10
"""Memory of a key here, about, besides the key itself, which the entry has anyway.
Measured by `benchmarks/bench_query.py`."""


class KeyOrder:
    """Keys, tombstones included, in order: a `View`."""

    def __init__(self, entries: Mapping[bytes, Entry], now: float) -> None:
        self._keys: SortedList[bytes] = SortedList()
        self._pending = list(entries)
        self._entries = entries
        self.idle_at = now + IDLE_SECONDS
        self.sorted_count = 0
        """Keys put in order so far, and not by writes: the work that making this took."""

    @property
    def size_bytes(self) -> int:
        """Memory it takes, about."""
        return KEY_BYTES * len(self._keys)

    @property
    def is_complete(self) -> bool:
        """Whether every key is in order."""
        return not self._pending

    def grow(self) -> None:
        """Put another slice of keys in order."""
        taken = self._pending[-SLICE:]
        del self._pending[-SLICE:]
        present = [key for key in taken if key in self._entries]
        if len(self._keys):
            present = [key for key in present if key not in self._keys]
        self._keys.update(present)
        self.sorted_count += len(taken)

    def changed(self, key: bytes, old: Entry | None, new: Entry | None) -> None:
        """Follow a key that comes or goes."""
        if new is None:
            self._keys.discard(key)
        elif old is None and key not in self._keys:
            self._keys.add(key)

    def after(self, after: bytes, prefix: bytes) -> Iterator[bytes]:
        """Yield the keys after one, in order: all of them, or text and bytes that begin with a prefix."""
        if not prefix:
            yield from self._keys.irange(minimum=after, inclusive=(False, True))
            return
        for start in (b"b" + prefix, b"s" + prefix):
            inclusive = (start > after, True)
            for key in self._keys.irange(minimum=max(start, after), inclusive=inclusive):
                if not key.startswith(start):
                    break
                yield key
