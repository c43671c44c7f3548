"""Room for new entries: how much memory a partition may take, and which entries go. Pure.

Every partition has the same share of the member's limit, so that each makes room for its own writes and no
member gives up its own entries because it keeps many for others. The bounds of a map are shared likewise.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final

from cache.cluster.config.maps import Policies
from cache.cluster.ids import MemberId
from cache.cluster.partitions.table import Table
from cache.cluster.replication.kept import Kept
from cache.cluster.replication.replica import PartitionReplica
from cache.cluster.replication.usage import Usage
from cache.cluster.wire.messages import KeyVersion

EVICTED_MAX: Final = 16
"""Entries given up by one write, at most, besides one per entry written."""

FULL_FACTOR: Final = 1.5
"""Above this multiple of the limit evictions do not keep up: writes are refused."""


class Room:
    """Watches the memory of all copies of one member.

    Args:
        limit: `limits.memory_bytes_max`; None gives up nothing.
        policies: the bounds of each map.
    """

    def __init__(self, limit: int | None, policies: Policies | None = None) -> None:
        self.usage = Usage(limit, policies)
        self._held: Counter[MemberId] = Counter()
        self.copies = 1
        """The most copies that any member keeps."""
        self.share = math.inf
        """Bytes that one partition may take: the limit over the most copies that any member keeps."""

    def follow(self, old: Table, new: Table) -> None:
        """Take note of who keeps how many copies."""
        changed = new.changed_since(old)
        self._held.update(holder for p in changed for holder in new.rows[p].holders)
        self._held.subtract(holder for p in changed for holder in old.rows[p].holders)
        self._held = +self._held  # Who keeps none is forgotten.
        self.copies = max(self._held.values(), default=1)
        if self.usage.limit is not None:
            self.share = self.usage.limit / self.copies

    @property
    def full(self) -> bool:
        """Whether no further write may be taken."""
        return self.usage.limit is not None and self.usage.bytes > FULL_FACTOR * self.usage.limit

    def make(
        self, replica: PartitionReplica, written: Iterable[tuple[str, bytes]]
    ) -> list[KeyVersion]:
        """Drop entries until a copy is back within its bounds, but none of `written`; return them."""
        kept = dict.fromkeys(written)
        dropped: list[KeyVersion] = []
        for name in dict.fromkeys(name for name, _ in kept):
            books = replica.kept.get(name)
            if books is not None and books.rules.bounded:
                self._drop(replica, kept, dropped, partial(self._crowded, name, books))
        self._drop(
            replica,
            kept,
            dropped,
            lambda: replica.largest_map() if replica.memory_bytes > self.share else None,
        )
        return dropped

    def _crowded(self, name: str, books: Kept) -> str | None:
        """Return the name of a map that is over its share."""
        over = books.live > max(1.0, books.rules.max_entries / self.copies)
        return name if over or books.size_bytes > books.rules.max_bytes / self.copies else None

    def _drop(
        self,
        replica: PartitionReplica,
        kept: dict[tuple[str, bytes], None],
        dropped: list[KeyVersion],
        crowded: Callable[[], str | None],
    ) -> None:
        most = len(dropped) + EVICTED_MAX + len(kept)
        while len(dropped) < most and (name := crowded()) is not None:
            victim = replica.victim(name, kept)
            if victim is None:
                break
            replica.drop(victim)
            self.usage.of(name).evicted += 1
            dropped.append(victim)
