"""Which keys of one partition have which values in the indexed fields of their MessagePack maps. Pure.

A field is a path of names, joined by dots. What it holds is indexed if it is None, a bool, a number other
than NaN, text or bytes; these types are never mixed: 1 and True differ, 1 and 1.0 do not, and an interval
has only values of the type of its ends. A value that is no map, a field that is missing, or one that holds
anything else, is not indexed.

An index is made when a partition is first asked about the field, a slice at a time, and then follows each
change in the same turn. The field of what was there before is read from the old entry, so that no second
table of keys is needed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cache.cluster.replication.entries import Entry
from cache.cluster.structures.postings import Postings
from cache.cluster.wire.messages import ConditionRecord
from cache.codec import decode_value
from cache.errors import CodecError, RemoteProtocolError

IDLE_SECONDS: Final = 600.0
"""After so long without a query the indexes of a partition are given up; the next one makes them again."""

SLICE: Final = 250
"""Values decoded in one turn of the event loop: two milliseconds of work, about."""

POSTING_BYTES: Final = 140
"""Memory of one key in one index, about: a tuple, the field's value, its place in the list.
Measured by `benchmarks/bench_query.py`."""

Rank = tuple[int, Any]
"""(number of the type, value); those of one type compare. Any: a value of that type."""

MISSING: Final = object()


def rank_of(value: object) -> Rank | None:
    """Return the place of a field's value among all, None if it is not indexed."""
    if value is None:
        return (0, 0)
    if isinstance(value, bool):
        return (1, value)
    if isinstance(value, (int, float)):
        return None if math.isnan(value) else (2, value)
    if isinstance(value, str):
        return (3, value)
    return (4, value) if isinstance(value, bytes) else None


def field_of(value: object, names: Sequence[str]) -> object:
    """Return what a path leads to, or `MISSING`."""
    for name in names:
        if not isinstance(value, dict) or name not in value:
            return MISSING
        value = value[name]
    return value


def decoded(entry: Entry | None) -> object:
    """Return the value of an entry, None for none: whatever is no map has no fields."""
    if entry is None or entry.value is None:
        return None
    try:
        return decode_value(entry.value)
    except CodecError:
        return None  # Of a serializer, or damaged.


def _rank_in(value: object, names: Sequence[str]) -> Rank | None:
    field = field_of(value, names)
    return None if field is MISSING else rank_of(field)


@dataclass(frozen=True, slots=True)
class Condition:
    """An interval that a field has to be in; an end that is None is open to all of the type."""

    path: str
    names: tuple[str, ...]
    kind: int
    """Number of the type."""
    low: Any
    high: Any
    # Any: values of that type.
    low_is_open: bool
    high_is_open: bool

    @classmethod
    def of(cls, record: ConditionRecord) -> Condition:
        """Return the condition of its wire form.

        Raises:
            RemoteProtocolError: the ends cannot be compared, or there are none.
        """
        ends = [_end(record.low), _end(record.high)]
        kinds = {end[0]: None for end in ends if end is not None}
        if len(kinds) != 1:
            raise RemoteProtocolError(f"condition on {record.path!r}: its ends differ in type")
        low, high = (None if end is None else end[1] for end in ends)
        names = tuple(record.path.split("."))
        return cls(record.path, names, next(iter(kinds)), low, high, *record.is_open)

    def holds(self, value: object) -> bool:
        """Return whether a map's field is in the interval."""
        rank = _rank_in(value, self.names)
        if rank is None or rank[0] != self.kind:
            return False
        found = rank[1]
        if self.low is not None and (found < self.low or (self.low_is_open and found == self.low)):
            return False
        return (
            self.high is None or found < self.high or (found == self.high and not self.high_is_open)
        )


def _end(encoded: bytes) -> Rank | None:
    if not encoded:
        return None
    try:
        rank = rank_of(decode_value(encoded))
    except CodecError as error:
        raise RemoteProtocolError(f"condition: {error}") from error
    if rank is None:
        raise RemoteProtocolError("condition: an end of a type that is not indexed")
    return rank


class MapIndex:
    """The indexes of one map in one partition: a `View`."""

    __slots__ = ("_count", "_entries", "_fields", "idle_at")

    def __init__(self, entries: Mapping[bytes, Entry], now: float) -> None:
        self._entries = entries
        self._fields: dict[str, Postings] = {}
        self._count = 0
        self.idle_at = now + IDLE_SECONDS

    @property
    def size_bytes(self) -> int:
        """Memory it takes, about."""
        return POSTING_BYTES * self._count

    # -- making ------------------------------------------------------------------------------

    def grow(self, paths: Iterable[str]) -> bool:
        """Look at one more slice of entries for indexes on these paths; return whether all are complete."""
        for path in paths:
            field = self._fields.get(path)
            if field is None:
                field = Postings(tuple(path.split(".")), self._entries)
                self._fields[path] = field
            if keys := field.take(SLICE):
                self._add_all(field, keys)
                return False
        return True

    def _add_all(self, field: Postings, keys: Sequence[bytes]) -> None:
        postings = []
        for key in keys:
            rank = _rank_in(decoded(self._entries.get(key)), field.names)
            # A key that was written meanwhile is there already.
            if rank is not None and (*rank, key) not in field:
                postings.append((*rank, key))
        field.update(postings)
        self._count += len(postings)

    def changed(self, key: bytes, old: Entry | None, new: Entry | None) -> None:
        """Follow a change of an entry."""
        before, after = decoded(old), decoded(new)
        for field in self._fields.values():
            gone, come = _rank_in(before, field.names), _rank_in(after, field.names)
            if gone == come:
                continue
            if gone is not None and (*gone, key) in field:
                field.remove((*gone, key))
                self._count -= 1
            if come is not None:
                field.add((*come, key))
                self._count += 1

    # -- asking ------------------------------------------------------------------------------

    def find(self, conditions: Sequence[Condition], after: bytes) -> Iterator[bytes]:
        """Return the keys after one that meet the most selective condition, in order.

        The others are to be looked at in the entries, and so is whether these live.
        """
        spans = [(*self._span(condition), condition) for condition in conditions]
        start, end, condition = min(spans, key=lambda span: span[1] - span[0])
        postings = self._fields[condition.path]
        if condition.low is not None and condition.low == condition.high:
            start = max(start, postings.up_to((condition.kind, condition.low, after)))
            return (posting[2] for posting in postings.between(start, max(start, end)))
        return iter(sorted(p[2] for p in postings.between(start, end) if p[2] > after))

    def _span(self, condition: Condition) -> tuple[int, int]:
        """Return where the postings of an interval begin and end."""
        postings = self._fields[condition.path]
        kind = condition.kind
        if condition.low is None:
            start = postings.before((kind,))
        elif condition.low_is_open:
            start = postings.before((kind, condition.low, AFTER_ALL))
        else:
            start = postings.before((kind, condition.low, b""))
        if condition.high is None:
            end = postings.before((kind + 1,))
        elif condition.high_is_open:
            end = postings.before((kind, condition.high, b""))
        else:
            end = postings.before((kind, condition.high, AFTER_ALL))
        return start, max(start, end)


AFTER_ALL: Final = b"\xff"
"""After every key: keys begin with a letter."""
