"""Room for new entries: how much memory a partition may take, and which entries go. Pure.

Every partition has the same share of the member's limit, so that each makes room for its own writes and no
member gives up its own entries because it keeps many for others.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Container
from typing import Final

from cache.cluster.partitions.table import Table
from cache.cluster.replication.replica import PartitionReplica, Usage
from cache.cluster.wire.messages import KeyVersion

EVICTED_MAX: Final = 16
"""Entries given up by one write, at most, besides one per entry written."""

FULL_FACTOR: Final = 1.5
"""Above this multiple of the limit evictions do not keep up: writes are refused."""


class Room:
    """Watches the memory of all copies of one member.

    Args:
        limit: `limits.memory_bytes_max`; None gives up nothing.
    """

    def __init__(self, limit: int | None) -> None:
        self.usage = Usage(limit)
        self.share = math.inf
        """Bytes that one partition may take: the limit over the most copies that any member keeps."""

    def follow(self, table: Table) -> None:
        """Take note of who keeps how many copies."""
        if self.usage.limit is not None:
            held = Counter(member for row in table.rows for member in row.holders)
            self.share = self.usage.limit / max(held.values(), default=1)

    @property
    def full(self) -> bool:
        """Whether no further write may be taken."""
        return self.usage.limit is not None and self.usage.bytes > FULL_FACTOR * self.usage.limit

    def make(
        self, replica: PartitionReplica, kept: Container[tuple[str, bytes]], written: int
    ) -> list[KeyVersion]:
        """Drop the entries written longest ago, but none of `kept`; return what was dropped."""
        dropped: list[KeyVersion] = []
        while replica.memory_bytes > self.share and len(dropped) < EVICTED_MAX + written:
            victim = replica.oldest(kept)
            if victim is None:
                break
            replica.drop(victim)
            dropped.append(victim)
        return dropped
