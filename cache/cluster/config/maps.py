"""`MapPolicy`: what holds for the entries of one map, or of all maps whose names match a pattern."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from typing import Final

from cache.cluster.config.checks import require
from cache.durations import DEFAULT, Default, parse_ttl
from cache.errors import ConfigError
from cache.keys import Ttl

OLDEST: Final = "oldest"
LRU: Final = "lru"
EVICTIONS: Final = (OLDEST, LRU)
MAX_IDLE_MIN: Final = 1.0
PATTERN_MAX: Final = 128
RESOLVED_MAX: Final = 4096
"""Names of maps whose policies are remembered; further ones are looked up each time."""

HIDDEN: Final = "\x00"
"""Names of maps that begin so are the library's own: nobody gets them from `Node.map`, and their entries
never make room for others."""
QUEUE: Final = HIDDEN + "queue:"
"""Names of maps that hold writes for a store."""
_GLOB: Final = re.compile(r"[*?\[]")

Inherited = int | Default | None
"""A bound; None for none, `DEFAULT` for that of the next pattern."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MapPolicy:
    """Settings of a map: `ClusterConfig(maps={"users": MapPolicy(ttl="1h"), "session:*": …})`.

    A map follows the entry of its own name, then the patterns that match it (`*`, `?`, `[…]`), the longest
    first. A field that is left at `DEFAULT` is that of the next of these, and in the end has no bound.

    All of it is decided by the owner of a key, so that it is the same whoever writes or reads. Give every
    member the same `maps`: where they differ, an entry follows the settings of the member that owned it when
    it was written (`ttl`), and of its present owner (everything else).
    """

    ttl: Ttl = DEFAULT
    """Time to live of a write that names none, neither itself nor through its handle: seconds above 0, a
    timedelta, text such as "1h30m"; None: never ends."""

    max_idle: Ttl = DEFAULT
    """Time after which an entry that was neither read nor written ends, at least 1 second, as above. None:
    idle entries stay."""

    max_bytes: Inherited = DEFAULT
    """Memory for the entries of this map on each member, copies for others included, counting 300 bytes
    on top of each key and value, deletes that are remembered included. Each partition has an equal share."""

    max_entries: Inherited = DEFAULT
    """Live entries of this map on each member, copies for others included. Each partition has an equal
    share, of at least one entry; with fewer than some twenty entries for each partition held, a part
    of it stays unused."""

    eviction: str | Default = DEFAULT
    """What makes room for new entries: "oldest" (the default: written longest ago; reads cost nothing), or
    "lru" (about: written longest ago, and not read since it was last passed over)."""

    def __post_init__(self) -> None:
        for name in ("ttl", "max_idle"):
            value = getattr(self, name)
            if not isinstance(value, Default):
                object.__setattr__(self, name, _seconds(name, value))
        if isinstance(self.max_idle, float):
            rule = f"must be at least {MAX_IDLE_MIN:g} second"
            require(self.max_idle >= MAX_IDLE_MIN, "max_idle", self.max_idle, rule)
        for name in ("max_bytes", "max_entries"):
            value = getattr(self, name)
            is_count = isinstance(value, int) and not isinstance(value, bool) and value >= 1
            rule = "must be a whole number of at least 1, or None for no bound"
            require(is_count or value in (None, DEFAULT), name, value, rule)
        known = self.eviction in (*EVICTIONS, DEFAULT)
        require(known, "eviction", self.eviction, f"must be one of {', '.join(EVICTIONS)}")

    def over(self, other: MapPolicy) -> MapPolicy:
        """Return this policy, with the fields of `other` where it says nothing."""
        own = {f.name: getattr(self, f.name) for f in fields(self)}
        return MapPolicy(**{n: getattr(other, n) if v is DEFAULT else v for n, v in own.items()})


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """A policy that leaves nothing open: what a map goes by."""

    ttl: float = math.inf
    max_idle: float = math.inf
    max_bytes: float = math.inf
    max_entries: float = math.inf
    lru: bool = False
    is_queue: bool = False
    """Whether to know which entries wait for a store."""

    @property
    def bounded(self) -> bool:
        """Whether entries of the map make room for each other."""
        return self.max_bytes < math.inf or self.max_entries < math.inf

    @property
    def watches_reads(self) -> bool:
        """Whether it matters when an entry was read."""
        return self.max_idle < math.inf or self.lru

    @property
    def ends_early(self) -> bool:
        """Whether entries end by a tombstone of their own version, made by one copy: others may miss it."""
        return self.is_queue or self.max_idle < math.inf

    @property
    def is_plain(self) -> bool:
        """Whether copies of the map need no books besides those that all maps have."""
        return not (self.bounded or self.watches_reads or self.is_queue)


class Policies:
    """The rules of each map, by name."""

    def __init__(self, maps: Mapping[str, MapPolicy] | None = None) -> None:
        self._maps = dict(maps or {})
        globs = [name for name in self._maps if _GLOB.search(name)]
        self._globs = sorted(globs, key=lambda pattern: (-len(pattern), pattern))
        self._resolved: dict[str, Rules] = {}

    def of(self, map_name: str) -> Rules:
        """Return what a map goes by."""
        rules = self._resolved.get(map_name)
        if rules is None:
            rules = self._resolve(map_name)
            if len(self._resolved) < RESOLVED_MAX:
                self._resolved[map_name] = rules
        return rules

    def _resolve(self, map_name: str) -> Rules:
        if map_name.startswith(HIDDEN):
            return Rules(is_queue=map_name.startswith(QUEUE))
        policy = self._maps.get(map_name, MapPolicy())
        for pattern in self._globs:
            if pattern != map_name and fnmatchcase(map_name, pattern):
                policy = policy.over(self._maps[pattern])
        return Rules(
            ttl=_bound(policy.ttl),
            max_idle=_bound(policy.max_idle),
            max_bytes=_bound(policy.max_bytes),
            max_entries=_bound(policy.max_entries),
            lru=policy.eviction == LRU,
        )


def check_maps(field_name: str, maps: object, kind: type) -> None:
    """Check that something is a mapping from names or patterns of maps to a `kind`."""
    require(isinstance(maps, Mapping), field_name, maps, "must be a mapping by names of maps")
    assert isinstance(maps, Mapping), "just checked"
    for name, value in maps.items():
        is_name = isinstance(name, str) and 1 <= len(name) <= PATTERN_MAX and name[0] != HIDDEN
        require(is_name, field_name, name, f"names and patterns have 1 to {PATTERN_MAX} characters")
        require(
            isinstance(value, kind), f"{field_name}[{name!r}]", value, f"must be {kind.__name__}"
        )


def _seconds(name: str, value: Ttl) -> float | None:
    assert not isinstance(value, Default), "checked by the caller"
    try:
        return parse_ttl(value)
    except ValueError as error:
        raise ConfigError(f"{name}={value!r}: {str(error).partition(': ')[2]}") from error


def _bound(value: object) -> float:
    return float(value) if isinstance(value, int | float) else math.inf
