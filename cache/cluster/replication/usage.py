"""What the copies of one member take in all, and what happened to the entries of each map. Pure."""

from __future__ import annotations

from cache.cluster.config.maps import Policies


class MapUsage:
    """What happened to the entries of one map on one member."""

    __slots__ = ("evicted", "expired", "pending")

    def __init__(self) -> None:
        self.expired = 0
        """Entries of this member's copies whose time to live or idle time was over."""
        self.evicted = 0
        """Entries that this member, as owner, gave up to make room."""
        self.pending = 0
        """Live entries on this member, of maps that are queues."""


class Usage:
    """Memory that all copies of one member take, about, and how much they may; what each map goes by."""

    __slots__ = ("_maps", "bytes", "limit", "policies")

    def __init__(self, limit: int | None = None, policies: Policies | None = None) -> None:
        self.bytes = 0
        self.limit = limit
        """Bytes above which old entries make room for new ones; None is no limit."""
        self.policies = policies or Policies()
        self._maps: dict[str, MapUsage] = {}

    def of(self, map_name: str) -> MapUsage:
        """Return the counts of a map. There are as many as names of maps with entries."""
        counts = self._maps.get(map_name)
        if counts is None:
            counts = self._maps[map_name] = MapUsage()
        return counts
