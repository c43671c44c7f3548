"""The messages of one reliable topic, as its owner knows them. Pure.

A topic is a set of *segments*. Each ownership of the topic's partition writes one: a segment is named by the
stamp of its first message and the member that made it, and its messages are numbered 1, 2, 3 … So no two
messages ever have the same place, whatever died, moved or was split, and copies are merged by union. A reader
keeps a *cursor*: how far it read each segment. From it follows what is new to it, what is gone (numbers are
missing), and what came late (a segment of the other side of a split).

Rules:
* A message is shown when every copy has it, so that nobody has read what a crash takes back.
* Messages of a segment are shown in order. A number that is missing is waited for, `HOLE_PATIENCE` seconds,
  because copies are merged in any order; then it is reported as missed, as are numbers at or below the
  *floor*, which made room.
* Segments are read one after the other, the oldest first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from sortedcontainers import SortedDict

from cache.cluster.wire.messages import CURSOR_MAX, Place

HOLE_PATIENCE: Final = 3.0
"""Seconds that a missing message is waited for: offers after a split are made once a second."""

Segment = tuple[int, int]
"""(stamp of its first message, origin of the member that wrote it)."""

Cursor = Mapping[Segment, int]
"""Per segment the last number read."""


class _Segment:
    __slots__ = ("floor", "high", "holes", "sizes", "unconfirmed")

    def __init__(self) -> None:
        self.floor = 0
        """All numbers up to this one made room."""
        self.high = 0
        """The highest number there ever was."""
        self.sizes: SortedDict[int, int] = SortedDict()
        """Bytes of each message that is here, by number."""
        self.unconfirmed: dict[int, None] = {}
        self.holes: dict[int, float] = {}
        """Missing numbers, and since when."""


@dataclass(slots=True)
class Slice:
    """What a reader is to be given."""

    places: list[Place] = field(default_factory=list)
    missed: list[int] = field(default_factory=list)
    cursor: dict[Segment, int] = field(default_factory=dict)
    missed_after: int = 0
    waits: bool = False
    """It ends where a message may still come: ask again after `HOLE_PATIENCE`."""

    def __bool__(self) -> bool:
        return bool(self.places or self.missed_after)


class Ring:
    """Places of the messages of one topic."""

    def __init__(self) -> None:
        self._segments: SortedDict[Segment, _Segment] = SortedDict()
        self._own: Segment | None = None
        self.count = 0
        self.size_bytes = 0

    # -- what there is -----------------------------------------------------------------------------

    def put(self, place: Place, size_bytes: int) -> None:
        """A message is here; repeats change nothing."""
        segment = self._segment(place[:2])
        number = place[2]
        if number in segment.sizes:
            return
        segment.sizes[number] = size_bytes
        segment.high = max(segment.high, number)
        segment.holes.pop(number, None)
        self.count += 1
        self.size_bytes += size_bytes

    def remove(self, place: Place) -> None:
        """A message is not here any more."""
        segment = self._segments.get(place[:2])
        if segment is not None and (size := segment.sizes.pop(place[2], None)) is not None:
            segment.unconfirmed.pop(place[2], None)
            self.count -= 1
            self.size_bytes -= size

    def raise_floors(self, floors: Iterable[Place]) -> None:
        """Take note of what made room, here or under former owners."""
        for stamp, origin, floor in floors:
            segment = self._segment((stamp, origin))
            segment.floor = max(segment.floor, floor)
            segment.high = max(segment.high, floor)

    def floors(self) -> list[Place]:
        """Return what made room, of the latest segments."""
        return [(*name, s.floor) for name, s in self._segments.items() if s.floor][-CURSOR_MAX:]

    def _segment(self, name: Segment) -> _Segment:
        if name not in self._segments:
            self._segments[name] = _Segment()
        return self._segments[name]

    # -- adding ------------------------------------------------------------------------------------

    def append(self, stamp: int, origin: int, size_bytes: int) -> Place:
        """Give a new message its place; it is shown once it is confirmed."""
        if self._own is None:
            self._own = (stamp, origin)
        segment = self._segment(self._own)
        place = (*self._own, segment.high + 1)
        segment.unconfirmed[place[2]] = None
        self.put(place, size_bytes)
        return place

    def doubt(self, place: Place) -> None:
        """Some copy may lack a message that is here: it is not shown before it is confirmed."""
        self._segment(place[:2]).unconfirmed[place[2]] = None

    def confirm(self, place: Place) -> None:
        """Every copy has the message."""
        self._segment(place[:2]).unconfirmed.pop(place[2], None)

    def make_room(self, capacity: int, capacity_bytes: int) -> list[Place]:
        """Remove the oldest confirmed messages beyond the capacity; return them.

        Messages of more than `CURSOR_MAX` segments are beyond it, too: no cursor has room for them.
        """
        removed: list[Place] = []
        excess = len(self._segments) - CURSOR_MAX
        for index, (name, segment) in enumerate(list(self._segments.items())):
            while segment.sizes and (
                index < excess or self.count > capacity or self.size_bytes > capacity_bytes
            ):
                number = segment.sizes.peekitem(0)[0]
                if self.count == 1 or number in segment.unconfirmed:
                    return removed
                segment.floor = max(segment.floor, number)
                place = (*name, number)
                self.remove(place)
                removed.append(place)
        self._forget_segments()
        return removed

    def _forget_segments(self) -> None:
        """Forget the oldest segments that have no messages, beyond what a cursor has room for."""
        for name in list(self._segments)[:-CURSOR_MAX]:
            if not self._segments[name].sizes and name != self._own:
                del self._segments[name]

    # -- reading -----------------------------------------------------------------------------------

    def present(self) -> dict[Segment, int]:
        """Return the cursor of a reader that wants nothing of what was shown before."""
        return {
            name: min(segment.unconfirmed, default=segment.high + 1) - 1
            for name, segment in self._segments.items()
        }

    def read(self, cursor: Cursor, *, limit: int, limit_bytes: int, now: float) -> Slice:
        """Return the next messages after a cursor, `limit` at most and so many bytes, one at least."""
        found = Slice(cursor=dict(cursor))
        size = missed = 0
        for name, segment in self._segments.items():
            number = found.cursor.get(name, 0)
            while number < segment.high:
                number += 1
                if number in segment.unconfirmed:
                    return self._end(found, missed)
                size_here = segment.sizes.get(number)
                if number <= segment.floor and size_here is None:
                    skipped = self._gone(segment, number)
                    missed += skipped
                    number += skipped - 1
                elif size_here is None:
                    if now - segment.holes.setdefault(number, now) < HOLE_PATIENCE:
                        found.waits = True
                        return self._end(found, missed)
                    missed += 1
                else:
                    if found.places and (
                        len(found.places) >= limit or size + size_here > limit_bytes
                    ):
                        return self._end(found, missed)
                    found.places.append((*name, number))
                    found.missed.append(missed)
                    size += size_here
                    missed = 0
                found.cursor[name] = number
        return self._end(found, missed)

    def _gone(self, segment: _Segment, number: int) -> int:
        """Count the messages from `number` on that made room."""
        first = next(iter(segment.sizes.irange(number, segment.floor)), segment.floor + 1)
        return int(first) - number

    def _end(self, found: Slice, missed: int) -> Slice:
        """Finish a slice. A segment that is not known here stays in the cursor, as far as there is room.

        It may be one of the other side of a split, and arrive: what the reader read there is not new.
        """
        found.missed_after = missed
        names = sorted(found.cursor, key=lambda name: (name in self._segments, name))
        found.cursor = {name: found.cursor[name] for name in names[-CURSOR_MAX:]}
        return found
