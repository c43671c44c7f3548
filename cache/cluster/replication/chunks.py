"""Entries cut into pieces for the way, each as it is at the moment it is cut. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from cache.cluster.replication.differences import Key
from cache.cluster.replication.entries import Entry, remaining, to_record
from cache.cluster.replication.replica import PartitionReplica
from cache.cluster.wire.messages import NEVER, CopyEntries, EntryRecord

OVERHEAD_BYTES: Final = 48
"""Bytes of an entry on the way besides its key and its value, about."""


def chunks(
    replica: PartitionReplica, keys: Iterable[Key], chunk_bytes: int, now: Callable[[], float]
) -> Iterator[list[EntryRecord]]:
    """Yield the entries of `keys` that are there, about `chunk_bytes` at a time.

    Args:
        replica: where they are looked up when their piece is asked for.
        keys: of which maps and keys.
        chunk_bytes: a piece ends with the entry that brings it there.
        now: the instant that the times to live of a piece count from.
    """
    chunk: list[EntryRecord] = []
    size, at = 0, now()
    for map_name, key in keys:
        entry = replica.entry(map_name, key)
        if entry is None:
            continue
        chunk.append(to_record(map_name, key, entry, at))
        size += len(key) + len(entry.value or b"") + OVERHEAD_BYTES
        if size >= chunk_bytes:
            yield chunk
            chunk, size, at = [], 0, now()
    if chunk:
        yield chunk


class Cutter:
    """Cuts entries of a copy into messages, for the copies that are to be made equal to it.

    Args:
        replica: where they are looked up when their message is made.
        keys: of each map; what is not there any more is left out.
        chunk_bytes: what a message has, about; never over twice as much, unless it is a single entry.
    """

    def __init__(
        self, replica: PartitionReplica, keys: Mapping[str, list[bytes]], chunk_bytes: int
    ) -> None:
        self._replica = replica
        self._keys = keys
        self._chunk_bytes = chunk_bytes
        self._names = list(keys)[::-1]
        """Maps that are not cut to their end; the last one is next."""
        self._at = 0
        """Keys of that map that were cut."""
        self._entry_bytes = OVERHEAD_BYTES + replica.size_bytes // max(1, replica.entry_count)
        """Bytes of an entry, going by those looked up last."""

    def cut(self, partition: int, epoch: int, now: float) -> CopyEntries | None:
        """Return the next message, None when there is nothing more.

        Args:
            partition: whose copy it is.
            epoch: of the owner that sends it.
            now: the instant that times to live count from.
        """
        maps: list[str] = []
        counts: list[int] = []
        keys: list[bytes] = []
        entries: list[Entry] = []
        left = self._chunk_bytes
        while left > 0 and self._names:
            name = self._names[-1]
            taken, found, size = self._take(name, left)
            left -= size
            if taken:
                maps.append(name)
                counts.append(len(taken))
                keys += taken
                entries += found
            if self._at >= len(self._keys[name]):
                self._names.pop()
                self._at = 0
        if not keys:
            return None
        origins, ends = [e.origin for e in entries], [e.expires_at for e in entries]
        is_endless = ends.count(math.inf) == len(ends)
        return CopyEntries(
            partition,
            epoch,
            maps,
            counts,
            keys,
            [e.value for e in entries],
            [e.hlc for e in entries],
            origins[:1] if origins.count(origins[0]) == len(origins) else origins,
            [NEVER] if is_endless else [remaining(end, now) for end in ends],
        )

    def _take(self, name: str, room: int) -> tuple[list[bytes], list[Entry], int]:
        """Take entries of a map, as many as should have `room` bytes; return them and their bytes.

        They are looked up all at once, which takes a fraction of the time, and counted afterwards.
        """
        entries = self._replica.entries(name)
        count = max(1, room // self._entry_bytes)
        while True:
            keys = present = self._keys[name][self._at : self._at + count]
            try:
                found = list(map(entries.__getitem__, present))
            except KeyError:
                present = [key for key in keys if key in entries]
                found = list(map(entries.__getitem__, present))
            size = OVERHEAD_BYTES * len(found) + sum(map(len, present))
            size += sum(map(len, filter(None, [entry.value for entry in found])))
            if size <= 2 * room or len(present) <= 1:
                break
            count = (len(keys) + 1) // 2
        self._at += len(keys)
        if found:
            self._entry_bytes = size // len(found)
        return present, found, size
