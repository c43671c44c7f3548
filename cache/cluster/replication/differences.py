"""What two copies of a partition have to tell each other. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from cache.cluster.wire.messages import KeyVersion

VERSIONS_BATCH: Final = 2048
"""Keys whose versions are compared by one message, about."""

Key = tuple[str, bytes]
"""(map, key)."""

Version = tuple[int, int]
"""(hlc, origin)."""


def difference(
    mine: Sequence[KeyVersion], theirs: Sequence[KeyVersion]
) -> tuple[list[Key], list[Key]]:
    """Return the keys of which this side has a later version, and those of which the other has."""
    here: dict[Key, Version] = {(v.map, v.key): (v.hlc, v.origin) for v in mine}
    there: dict[Key, Version] = {(v.map, v.key): (v.hlc, v.origin) for v in theirs}
    none: Version = (-1, -1)
    send = [key for key, version in here.items() if version > there.get(key, none)]
    fetch = [key for key, version in there.items() if version > here.get(key, none)]
    return send, fetch


def by_map(keys: Iterable[Key]) -> dict[str, list[bytes]]:
    """Return the keys of each map."""
    maps: dict[str, list[bytes]] = {}
    for name, key in keys:
        maps.setdefault(name, []).append(key)
    return maps


def batches(buckets: Sequence[int], entry_count: int) -> Iterator[list[int]]:
    """Cut the buckets so that one message compares about `VERSIONS_BATCH` keys."""
    parts = max(1, entry_count // VERSIONS_BATCH)
    size = max(1, len(buckets) // parts)
    for start in range(0, len(buckets), size):
        yield list(buckets[start : start + size])
