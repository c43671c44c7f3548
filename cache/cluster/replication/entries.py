"""Entries of a copy, their form on the wire, and who is told of their changes. Pure.

An entry is made of atoms, so that the garbage collector does not look at it, nor (up to Python 3.13) into a
dictionary of nothing else: a collection takes no longer beside a million of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import repeat
from typing import Final, Protocol, TypeVar

import msgspec

from cache.cluster.wire.messages import NEVER, EntryRecord


class Entry(msgspec.Struct, frozen=True, gc=False):
    """What a copy holds for a key."""

    value: bytes | None
    """None for a tombstone."""
    hlc: int
    origin: int
    expires_at: float
    """Instant of expiry, or of forgetting a tombstone."""

    @property
    def version(self) -> tuple[int, int]:
        """The greater one wins."""
        return (self.hlc, self.origin)


class View(Protocol):
    """Something made from the entries that one map has here, and kept up to date: an order, an index."""

    idle_at: float
    """Instant at which it is given up; whoever uses it puts that off."""

    @property
    def size_bytes(self) -> int:
        """Memory it takes, about."""
        ...

    def changed(self, key: bytes, old: Entry | None, new: Entry | None) -> None:
        """What is stored for a key is another entry now; None for nothing at all."""


T = TypeVar("T")
ViewT = TypeVar("ViewT", bound=View)


CHANGED: Final = 0
EXPIRED: Final = 1
EVICTED: Final = 2
"""Why an entry changed: it was written, merged or undone; its time was up; it made room."""

Listener = Callable[[str, bytes, Entry | None, Entry | None, int], None]
"""Called with map, key, the entries before and after (None for none), and one of the causes above."""

ENTRY_BYTES: Final = 240
"""Memory of an entry besides its key and value: struct, stamp, object headers, its share of the dictionary.
Measured by `benchmarks/bench_memory.py`."""


def remaining(expires_at: float, now: float) -> float:
    """Return the seconds until an instant of expiry, as the wire has them."""
    return NEVER if expires_at == math.inf else max(0.0, expires_at - now)


def weight(key: bytes, entry: Entry | None) -> int:
    """Return the memory that an entry takes with its key, about; 0 for none."""
    return 0 if entry is None else ENTRY_BYTES + len(key) + len(entry.value or b"")


def to_record(map_name: str, key: bytes, entry: Entry, now: float) -> EntryRecord:
    """Return the wire form of an entry: seconds remaining instead of an instant."""
    left = remaining(entry.expires_at, now)
    return EntryRecord(map_name, key, entry.value, entry.hlc, entry.origin, left)


def from_record(
    record: EntryRecord, now: float, *, tombstone_lifetime: float, origin: int | None = None
) -> Entry:
    """Return the entry of its wire form; a live one without time left is a tombstone.

    `origin` is a number equal to the record's, for the entry to share with others.
    """
    value, hlc, ttl = record.value, record.hlc, record.ttl
    origin = record.origin if origin is None else origin
    return entry_of(value, hlc, origin, ttl, now=now, tombstone_lifetime=tombstone_lifetime)


def entry_of(
    value: bytes | None,
    hlc: int,
    origin: int,
    ttl: float,
    *,
    now: float,
    tombstone_lifetime: float,
) -> Entry:
    """Return the entry of the parts of its wire form, see `from_record`."""
    if value is None:
        # Not max(): a hostile NaN compares as false with everything.
        left = min(ttl, tombstone_lifetime) if ttl > 0 else 0.0
        return Entry(None, hlc, origin, now + left)
    if ttl == NEVER:
        return Entry(value, hlc, origin, math.inf)
    if not ttl > 0:
        return Entry(None, hlc, origin, now + tombstone_lifetime)
    return Entry(value, hlc, origin, now + ttl)


def for_each(column: Sequence[T], count: int) -> Sequence[T]:
    """Return a column of so many entries; the wire has a single item for all where they are the same."""
    return [column[0]] * count if len(column) == 1 else column


def entries_of(
    values: Sequence[bytes | None],
    hlcs: Sequence[int],
    origins: Sequence[int],
    ttls: Sequence[float],
    *,
    now: float,
    tombstone_lifetime: float,
) -> list[Entry]:
    """Return the entries of columns, see `entry_of`; a single origin or time to live is that of all."""
    origins = for_each(origins, len(values))
    if len(ttls) == 1 and ttls[0] == NEVER and None not in values:
        return list(map(Entry, values, hlcs, origins, repeat(math.inf)))
    ttls = for_each(ttls, len(values))
    return [
        entry_of(value, hlc, origin, ttl, now=now, tombstone_lifetime=tombstone_lifetime)
        for value, hlc, origin, ttl in zip(values, hlcs, origins, ttls, strict=True)
    ]
