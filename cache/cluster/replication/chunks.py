"""Entries cut into pieces for the way, each as it is at the moment it is cut. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from cache.cluster.replication.differences import Key
from cache.cluster.replication.entries import to_record
from cache.cluster.replication.replica import PartitionReplica
from cache.cluster.wire.messages import EntryRecord

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
