"""Which key goes when there is no room: S3-FIFO, LRU and W-TinyLFU. Pure.

A policy knows keys, never values, sizes or bounds: the store says what happens to a key and asks for a
victim until it is back within its bounds. Shares of queues are shares of the keys held at that moment, so
that one policy serves bounds in entries and in bytes. Every operation is O(1), amortised.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from cache.keys import Key

COUNT_MASK: Final = 3
"""The bits of a mark that count hits."""
MAIN: Final = 4
"""Bit of a mark: the key is in the main queue."""
GONE: Final = 8
"""Bit of a mark: the key was removed, its place in a queue is still there."""
GONE_MIN: Final = 64
"""Places of removed keys that are always tolerated."""


class Policy(Protocol):
    """What the store tells a policy, and asks it."""

    @property
    def marks(self) -> dict[Key, int] | None:
        """Marks whose low two bits count hits up to 3, if `record` does nothing but count.

        A caller in a hurry may count there by itself: `tests/unit/local` holds the two against each other.
        """
        ...

    def record(self, key: Key) -> None:
        """A held key was read or overwritten."""
        ...

    def added(self, key: Key) -> None:
        """A key that was not held is held now."""
        ...

    def removed(self, key: Key) -> None:
        """A held key was deleted or has expired."""
        ...

    def evict(self) -> Key:
        """Choose a held key and forget it; there is at least one."""
        ...

    def clear(self) -> None:
        """No key is held any more."""
        ...


class Lru:
    """The key unused for longest goes first."""

    __slots__ = ("_order",)

    marks: Final = None

    def __init__(self) -> None:
        self._order: OrderedDict[Key, None] = OrderedDict()

    def record(self, key: Key) -> None:
        """Move the key to the young end."""
        self._order.move_to_end(key)

    def added(self, key: Key) -> None:
        """Put the key at the young end."""
        self._order[key] = None

    def removed(self, key: Key) -> None:
        """Forget the key."""
        del self._order[key]

    def evict(self) -> Key:
        """Take the oldest."""
        return self._order.popitem(last=False)[0]

    def clear(self) -> None:
        """Forget all keys."""
        self._order.clear()


class S3Fifo:
    """New keys pass a small queue; those read there, or wanted again soon after, enter the main queue.

    A hit only counts (up to 3), so reading is cheap. The head of the small queue (a tenth of the keys) moves
    to the main queue if it was read, else it goes and is remembered as a ghost. The head of the main
    queue goes round again, one count lower, until a count of 0 is found. Unlike the paper, one read is enough
    for the main queue: it does better on shifting traces and no worse elsewhere.

    A key that is deleted leaves its place in the queue marked `GONE`; coming back, it takes that place
    again. Invariant: marks and places are one to one: len(marks) = len(small) + len(main).

    Source: Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023, §4.
    """

    __slots__ = ("_ghosts", "_gone_main", "_gone_small", "_main", "_marks", "_small")

    def __init__(self) -> None:
        self._marks: dict[Key, int] = {}
        self._small: deque[Key] = deque()
        self._main: deque[Key] = deque()
        self._gone_small = 0
        self._gone_main = 0
        self._ghosts = _Ghosts()

    @property
    def marks(self) -> dict[Key, int] | None:
        """Hit counts in the low two bits: that is all a hit does."""
        return self._marks

    def record(self, key: Key) -> None:
        """Count up to 3."""
        mark = self._marks[key]
        if mark & COUNT_MASK != COUNT_MASK:
            self._marks[key] = mark + 1

    def added(self, key: Key) -> None:
        """Queue the key: ghosts into the main queue, strangers into the small one."""
        mark = self._marks.get(key)
        if mark is not None:
            assert mark & GONE, "a held key is not added again"
            self._marks[key] = mark & MAIN
            self._count_gone(mark, -1)
        elif self._ghosts.remove(key):
            self._marks[key] = MAIN
            self._main.append(key)
        else:
            self._marks[key] = 0
            self._small.append(key)

    def removed(self, key: Key) -> None:
        """Mark the place; rebuild the queues once most places are empty."""
        mark = self._marks[key]
        self._marks[key] = (mark & MAIN) | GONE
        self._count_gone(mark, 1)
        gone = self._gone_small + self._gone_main
        if gone > GONE_MIN and 2 * gone > len(self._marks):
            self._rebuild()

    def _count_gone(self, mark: int, change: int) -> None:
        if mark & MAIN:
            self._gone_main += change
        else:
            self._gone_small += change

    def _rebuild(self) -> None:
        marks = self._marks
        self._small = deque(key for key in self._small if not marks[key] & GONE)
        self._main = deque(key for key in self._main if not marks[key] & GONE)
        for key in [key for key, mark in marks.items() if mark & GONE]:
            del marks[key]
        self._gone_small = self._gone_main = 0

    def evict(self) -> Key:
        """Take the first of the small queue that nobody read, or of the main queue."""
        while True:
            small = len(self._small) - self._gone_small
            main = len(self._main) - self._gone_main
            if main == 0 or small > max(1, (small + main) // 10):
                key = self._small.popleft()
                mark = self._marks[key]
                next_mark = MAIN
            else:
                key = self._main.popleft()
                mark = self._marks[key]
                next_mark = mark - 1
            if mark & COUNT_MASK and not mark & GONE:
                self._marks[key] = next_mark
                self._main.append(key)
                continue
            del self._marks[key]
            if mark & GONE:
                self._count_gone(mark, -1)
                continue
            if not mark & MAIN:
                self._ghosts.add(key, limit=small + main)
            return key

    def clear(self) -> None:
        """Forget all keys, ghosts included."""
        self._marks.clear()  # The same dict: `marks` may have been handed out.
        self._small.clear()
        self._main.clear()
        self._gone_small = self._gone_main = 0
        self._ghosts = _Ghosts()


class _Ghosts:
    """Keys evicted lately, in two generations: no order is kept inside one, and none has to be."""

    __slots__ = ("_old", "_young")

    def __init__(self) -> None:
        self._young: dict[Key, None] = {}
        self._old: dict[Key, None] = {}

    def add(self, key: Key, *, limit: int) -> None:
        """Remember a key, and between 2/3 and 4/3 of `limit` in all."""
        self._young[key] = None
        if 3 * len(self._young) > 2 * limit:
            self._old, self._young = self._young, {}

    def remove(self, key: Key) -> bool:
        """Forget a key; return whether it was remembered."""
        if key in self._young:
            del self._young[key]
            return True
        if key in self._old:
            del self._old[key]
            return True
        return False


class TinyLfu:
    """W-TinyLFU: a key leaves the window for the main part only if it is wanted more often than its victim.

    The window is LRU and holds a hundredth of the keys. The main part is a segmented LRU: one hit moves
    a key from probation to the protected part, which holds four fifths. How often keys are wanted is counted
    exactly, also for keys not held, in two generations: frequency = this one + half of the last. A
    generation ends after 10 requests per held key, or with 2 counters per held key, which bounds the memory.

    Source: Einziger, Friedman, Manes, "TinyLFU: a highly efficient cache admission policy", ACM TOS 2017.
    """

    __slots__ = (
        "_candidate",
        "_counts",
        "_counts_before",
        "_probation",
        "_protected",
        "_requests",
        "_window",
    )

    marks: Final = None

    def __init__(self) -> None:
        self._window: OrderedDict[Key, None] = OrderedDict()
        self._probation: OrderedDict[Key, None] = OrderedDict()
        self._protected: OrderedDict[Key, None] = OrderedDict()
        self._candidate: Key | None = None
        self._counts: dict[Key, int] = {}
        self._counts_before: dict[Key, int] = {}
        self._requests = 0

    def _held(self) -> int:
        return len(self._window) + len(self._probation) + len(self._protected)

    def _count(self, key: Key) -> None:
        self._counts[key] = self._counts.get(key, 0) + 1
        self._requests += 1
        held = max(self._held(), 64)
        if self._requests >= 10 * held or len(self._counts) >= 2 * held:
            self._counts_before, self._counts = self._counts, {}
            self._requests = 0

    def _frequency(self, key: Key) -> float:
        return self._counts.get(key, 0) + self._counts_before.get(key, 0) / 2

    def record(self, key: Key) -> None:
        """Count, and move the key up."""
        self._count(key)
        if key in self._window:
            self._window.move_to_end(key)
        elif key in self._protected:
            self._protected.move_to_end(key)
        else:
            del self._probation[key]
            self._protected[key] = None
            main = len(self._probation) + len(self._protected)
            if len(self._protected) > max(1, main * 4 // 5):
                self._probation[self._protected.popitem(last=False)[0]] = None

    def added(self, key: Key) -> None:
        """Count; the key enters the window, the oldest of which moves on."""
        self._count(key)
        self._window[key] = None
        if len(self._window) > max(1, self._held() // 100):
            self._candidate = self._window.popitem(last=False)[0]
            self._probation[self._candidate] = None

    def removed(self, key: Key) -> None:
        """Forget the key, not its count."""
        for part in (self._window, self._probation, self._protected):
            if key in part:
                del part[key]
                return

    def evict(self) -> Key:
        """Take the oldest on probation or the newest from the window, whichever is wanted less."""
        candidate, self._candidate = self._candidate, None
        victim = self._oldest(candidate)
        if candidate is not None and candidate in self._probation:
            if self._frequency(candidate) <= self._frequency(victim):
                victim = candidate
        self.removed(victim)
        return victim

    def _oldest(self, candidate: Key | None) -> Key:
        """Return who has to defend its place; a candidate alone on probation challenges the next part."""
        parts = [part for part in (self._probation, self._protected, self._window) if part]
        head = next(iter(parts[0]))
        if head == candidate and len(parts[0]) == 1 and self._protected:
            return next(iter(self._protected))
        return head

    def clear(self) -> None:
        """Forget all keys and counts."""
        self.__init__()  # type: ignore[misc]  # the state of a new one, by definition


POLICIES: Final[Mapping[str, Callable[[], Policy]]] = {
    "s3fifo": S3Fifo,
    "lru": Lru,
    "wtinylfu": TinyLfu,
}
"""By the names `LocalCache` takes."""
