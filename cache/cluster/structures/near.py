"""`NearCache`: what a member keeps of entries that others own, and how old that may be; and its counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cache.errors import ConfigError
from cache.interface import CacheStats
from cache.local.cache import PolicyName
from cache.local.eviction import POLICIES

BOUND_MIN: Final = 0.05
BOUND_MAX: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class NearCache:
    """Local copies of entries owned by other members: `node.map("users", near_cache=NearCache())`."""

    max_bytes: int = 64 * 1024 * 1024
    """Bytes of keys and encoded values kept, at least 1. 64 MiB by default: enough for most hot sets, little
    beside an application. What the bookkeeping takes (about 450 bytes an entry) comes on top."""

    max_entries: int | None = None
    """Entries kept, at least 1; None by default: the bytes are what runs out."""

    staleness_bound: float = 0.5
    """Seconds by which a read may be behind the owner, 0.05 to 60. A half by default: people do not notice
    it, and each owner is asked only six times a second (three times per bound) when nothing changes."""

    policy: PolicyName = "s3fifo"
    """Which copy makes room: "s3fifo" (the default: scans do not wash out what is read often), "lru" or
    "wtinylfu"."""

    def __post_init__(self) -> None:
        _require_count("max_bytes", self.max_bytes)
        if self.max_entries is not None:
            _require_count("max_entries", self.max_entries)
        bound = self.staleness_bound
        is_number = isinstance(bound, (int, float)) and not isinstance(bound, bool)
        if not (is_number and BOUND_MIN <= bound <= BOUND_MAX):
            raise ConfigError(
                f"staleness_bound={bound!r}: must be {BOUND_MIN} to {BOUND_MAX:g} seconds"
            )
        if self.policy not in POLICIES:
            raise ConfigError(f"policy={self.policy!r}: must be one of {', '.join(POLICIES)}")


def _require_count(name: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"{name}={value!r}: must be a whole number of at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class MapStats(CacheStats):
    """`CacheStats` of a map, with what its near cache did on this member; all 0 without one."""

    near_hits: int = 0
    """Reads answered by a copy; part of `hits`."""
    near_misses: int = 0
    """Reads of keys of others without a copy here."""
    near_unverified: int = 0
    """Reads that found a copy, but nothing that showed it to be fresh enough: the owner was asked."""
    near_invalidations: int = 0
    """Copies given up because their owner noted a change."""
    near_overtaken: int = 0
    """Values read and not kept: a change or a write through this member came first."""
    near_entries: int = 0
    """Copies held, unreadable ones included."""
    near_bytes: int = 0
    """Bytes of their keys and values."""
    near_gaps: int = 0
    """Times an owner had forgotten what changed, and its copies were given up; of the whole member."""
