"""The entries of one copy by map and key, and what can be read of them without counting as a use. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from operator import itemgetter

from cache.cluster.replication.entries import Entry
from cache.codec import has_tag


class Contents:
    """What is stored in a copy; `PartitionReplica` says how it changes."""

    __slots__ = ("_maps",)

    def __init__(self) -> None:
        self._maps: dict[str, dict[bytes, Entry]] = {}

    def entry(self, map_name: str, key: bytes) -> Entry | None:
        """Return what is stored for a key, tombstones and expired entries included."""
        entries = self._maps.get(map_name)
        return None if entries is None else entries.get(key)

    def map_names(self) -> list[str]:
        """Return the names of maps with entries here, sorted."""
        return sorted(name for name, entries in self._maps.items() if entries)

    def keys(self, map_name: str, now: float) -> list[bytes]:
        """Return the live keys of a map, sorted."""
        entries = self._maps.get(map_name, {})
        return sorted(k for k, e in entries.items() if e.value is not None and now < e.expires_at)

    def entries(self, map_name: str) -> Mapping[bytes, Entry]:
        """Return all entries of a map, tombstones and expired ones included; not to be changed."""
        return self._maps.get(map_name, {})

    def items(self, map_name: str, now: float) -> list[tuple[bytes, Entry]]:
        """Return the live entries of a map, by key."""
        entries = self._maps.get(map_name, {})
        live = [(k, e) for k, e in entries.items() if e.value is not None and now < e.expires_at]
        return sorted(live, key=itemgetter(0))

    def tagged(self, map_name: str, tags: AbstractSet[str], now: float) -> list[bytes]:
        """Return the live keys of a map whose values bear one of these tags, sorted."""
        entries = self._maps.get(map_name, {})
        return sorted(
            k
            for k, e in entries.items()
            if e.value is not None and now < e.expires_at and has_tag(e.value, tags)
        )

    def live_count(self, map_name: str, now: float) -> int:
        """Count the live keys of a map."""
        entries = self._maps.get(map_name, {})
        return sum(e.value is not None and now < e.expires_at for e in entries.values())

    def everything(self) -> dict[str, list[bytes]]:
        """Return the keys of each map, tombstones and expired entries included."""
        return {name: list(entries) for name, entries in self._maps.items()}

    def footprint(self, map_name: str, now: float) -> tuple[int, int]:
        """Return how many live keys of a map there are, and the bytes of those keys and their values."""
        entries = self._maps.get(map_name, {}).items()
        live = [(k, e.value) for k, e in entries if e.value is not None and now < e.expires_at]
        return len(live), sum(len(key) + len(value) for key, value in live)
