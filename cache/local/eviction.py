"""Which key goes when there is no room: S3-FIFO, LRU and W-TinyLFU. Pure.

A policy knows neither values nor bounds: the store says what happens to a key and asks for a victim until
it is back within its bounds. Shares of queues are shares of the keys held at that moment, so that one policy
serves bounds in entries and in bytes. Every operation is O(1), amortised.

Hits are what a cache has most of, so a policy does next to nothing for them. S3-FIFO counts them in the
entry itself, up to 3, after which a reader need not come here at all. The others write them down, and
look at what was written when they have to choose.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, Protocol, TypeVar

from cache.keys import Key

V = TypeVar("V")

Entry = tuple[V, float, int, int, bool]
"""(value, instant at which it ends or `math.inf`, weight in bytes, uses, whether it is in the main queue).

The last two belong to the policy. A tuple of atoms: CPython's collector leaves it alone."""

Entries = dict[Key, Entry[Any]]
"""Any: policies carry values from one tuple to the next, and do not look at them."""

USES_MAX: Final = 3
"""Uses that are counted in an entry; a policy that does not count leaves them at 0."""
SHARE_MIN: Final = 0.01
SHARE_MAX: Final = 0.9
"""Bounds of the small queue's share of all keys."""
SHARE_GROWTH: Final = 80
"""Keys by which the small queue may grow when one of its keys is promoted; less under 1,000 keys."""
SHARE_DECAY: Final = 0.75
"""Promotions per eviction at which a small queue of all keys would stay as large as it is."""
GONE_MIN: Final = 64
"""Places of removed keys that are always tolerated."""
SIFT_STEP: Final = 8
"""Places of each queue that one removal looks at while there are too many."""
RECENT_MAX: Final = 4096
"""Hits written down between two writes: looking at them takes about 1 ms."""


class Policy(Protocol):
    """What the store tells a policy, and asks it."""

    @property
    def entries(self) -> Entries:
        """The keys held, which the store puts in and takes out; always the same object."""
        ...

    def record(self, key: Key) -> None:
        """A held key was read or overwritten; may be left out if its entry has `USES_MAX` uses."""
        ...

    def added(self, key: Key) -> None:
        """A key that was not held is held now, with no uses and not in the main queue."""
        ...

    def removed(self, key: Key) -> None:
        """A held key was deleted or has expired; it is taken out next."""
        ...

    def evict(self) -> Key:
        """Choose a held key and forget it; there is at least one. It is taken out next."""
        ...

    def clear(self) -> None:
        """Take out all keys and forget them."""
        ...


class Lru:
    """The key unused for longest goes first; the entries themselves are in that order.

    Hits are written down, and looked at by the next write. Of more than `RECENT_MAX` between two writes the
    oldest are lost, and the order is wrong by those.
    """

    __slots__ = ("_recent", "entries", "record")

    def __init__(self) -> None:
        self.entries: OrderedDict[Key, Entry[Any]] = OrderedDict()  # Any: as in `Entries`
        self._recent: deque[Key] = deque(maxlen=RECENT_MAX)  # all of them held
        self.record: Callable[[Key], None] = self._recent.append

    def _settle(self) -> None:
        for key in self._recent:
            self.entries.move_to_end(key)
        self._recent.clear()

    def added(self, key: Key) -> None:
        """Those read before are older."""
        if self._recent:
            self._settle()
            self.entries.move_to_end(key)

    def removed(self, key: Key) -> None:
        """Have nothing left to say about the key."""
        self._settle()

    def evict(self) -> Key:
        """Take the oldest."""
        self._settle()
        oldest: Key = next(iter(self.entries))
        return oldest

    def clear(self) -> None:
        """Forget all keys."""
        self._recent.clear()
        self.entries.clear()


class S3Fifo:
    """New keys pass a small queue; those read there, or wanted again soon after, enter the main queue.

    A hit only counts (up to 3), so reading is cheap. The head of the small queue moves to the main queue if
    it was read, else it goes and is remembered as a ghost. The head of the main queue goes round again,
    one count lower, until a count of 0 is found.

    Two things are not the paper's. One read is enough for the main queue. And the small queue is no fixed
    tenth: promotions make it grow, evictions from it let it shrink in proportion to its size. While the
    keys in demand stay the same, few newcomers are read, and it shrinks to a few percent; when demand
    moves elsewhere, many are, and it takes the room of keys that were wanted once. The share s settles
    where promotions / evictions = SHARE_DECAY · s.

    A key that is deleted leaves its place in the queue; coming back, it takes that place again.
    Invariant: each held or gone key has one place: len(entries) + len(gone) = len(small) + len(main).

    Source: Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023, §4.
    """

    __slots__ = ("_ghosts", "_gone", "_gone_main", "_main", "_share", "_small", "entries")

    def __init__(self) -> None:
        self.entries: Entries = {}
        self._reset()

    def _reset(self) -> None:
        self._small = _Queue()
        self._main = _Queue()
        self._gone: dict[Key, bool] = {}  # to whether the place is in the main queue
        self._gone_main = 0
        self._share = 0.1  # the paper's
        self._ghosts = _Ghosts()

    def record(self, key: Key) -> None:
        """Count up to `USES_MAX`."""
        entry = self.entries[key]
        if entry[3] != USES_MAX:
            self._mark(key, entry, entry[3] + 1, in_main=entry[4])

    def _mark(self, key: Key, entry: Entry[Any], uses: int, *, in_main: bool) -> None:
        self.entries[key] = (entry[0], entry[1], entry[2], uses, in_main)

    def added(self, key: Key) -> None:
        """Queue the key: ghosts into the main queue, strangers into the small one."""
        in_main = self._gone.pop(key, None)
        if in_main is None:
            in_main = self._ghosts.remove(key)
            (self._main if in_main else self._small).append(key)
        elif in_main:
            self._gone_main -= 1
        if in_main:
            self._mark(key, self.entries[key], 0, in_main=True)

    def removed(self, key: Key) -> None:
        """Remember that the place is empty; while many are, sift a few."""
        in_main = self.entries[key][4]
        self._gone[key] = in_main
        self._gone_main += in_main
        if len(self._gone) > max(GONE_MIN, len(self.entries) // 8):
            self._small.sift(self._gone)
            self._gone_main -= self._main.sift(self._gone)

    def evict(self) -> Key:
        """Take the first of the small queue that nobody read, or of the main queue."""
        while True:
            main = len(self._main) - self._gone_main
            small = len(self.entries) - main
            room = max(1, int(len(self.entries) * self._share))
            from_main = main > 0 and small <= room
            key = (self._main if from_main else self._small).popleft()
            if key in self._gone:
                self._gone_main -= self._gone.pop(key)
                continue
            entry = self.entries[key]
            uses = entry[3]
            if not from_main:
                self._adapt(small, room, promoted=uses > 0)
                if uses == 0:
                    self._ghosts.add(key, limit=len(self.entries))
            if uses == 0:
                return key
            self._mark(key, entry, uses - 1 if from_main else 0, in_main=True)
            self._main.append(key)

    def _adapt(self, small: int, room: int, *, promoted: bool) -> None:
        """Learn from what the head of the small queue came to."""
        if small > 1.1 * room + 1:
            return  # It is far longer than it should be, after filling up, say: its keys had more time.
        held = len(self.entries)
        step = SHARE_GROWTH / max(held, 1_000)
        self._share += step if promoted else -step * SHARE_DECAY * small / held
        self._share = min(max(self._share, SHARE_MIN), SHARE_MAX)

    def clear(self) -> None:
        """Forget all keys, ghosts included."""
        self.entries.clear()
        self._reset()


class _Queue:
    """Keys in the order they came, of which some are gone.

    It is sifted in many small steps, because all at once would stop the loop for long. What was sifted in
    this round waits in front, and is older than everything at the back.
    """

    __slots__ = ("_back", "_front")

    def __init__(self) -> None:
        self._front: deque[Key] = deque()
        self._back: deque[Key] = deque()

    def __len__(self) -> int:
        return len(self._front) + len(self._back)

    def append(self, key: Key) -> None:
        """Add a key as the youngest."""
        self._back.append(key)

    def popleft(self) -> Key:
        """Take out the oldest."""
        return (self._front or self._back).popleft()

    def sift(self, gone: dict[Key, bool]) -> int:
        """Drop the places of keys that are `gone` among the next few, there too; return how many."""
        size = len(gone)
        for _ in range(min(SIFT_STEP, len(self._back))):
            key = self._back.popleft()
            if gone.pop(key, None) is None:
                self._front.append(key)
        if not self._back:
            self._front, self._back = self._back, self._front  # A new round begins.
        return size - len(gone)


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

    Hits are written down, and looked at by the next write, as in `Lru`.

    Source: Einziger, Friedman, Manes, "TinyLFU: a highly efficient cache admission policy", ACM TOS 2017.
    """

    __slots__ = (
        "_candidate",
        "_counts",
        "_counts_before",
        "_probation",
        "_protected",
        "_recent",
        "_requests",
        "_window",
        "entries",
        "record",
    )

    def __init__(self) -> None:
        self.entries: Entries = {}
        self._recent: deque[Key] = deque(maxlen=RECENT_MAX)  # all of them held
        self.record: Callable[[Key], None] = self._recent.append
        self._reset()

    def _reset(self) -> None:
        self._window: OrderedDict[Key, None] = OrderedDict()
        self._probation: OrderedDict[Key, None] = OrderedDict()
        self._protected: OrderedDict[Key, None] = OrderedDict()
        self._candidate: Key | None = None
        self._counts: dict[Key, int] = {}
        self._counts_before: dict[Key, int] = {}
        self._requests = 0

    def _held(self) -> int:
        return len(self._window) + len(self._probation) + len(self._protected)

    def _count(self, keys: Collection[Key]) -> None:
        counts = self._counts
        for key in keys:
            counts[key] = counts.get(key, 0) + 1
        self._requests += len(keys)
        held = max(self._held(), 64)
        if self._requests >= 10 * held or len(self._counts) >= 2 * held:
            self._counts_before, self._counts = self._counts, {}
            self._requests = 0

    def _frequency(self, key: Key) -> float:
        return self._counts.get(key, 0) + self._counts_before.get(key, 0) / 2

    def _settle(self) -> None:
        if self._recent:
            self._count(self._recent)
            # Each key once, where it was used last.
            for key in reversed(dict.fromkeys(reversed(self._recent))):
                self._use(key)
            self._recent.clear()

    def _use(self, key: Key) -> None:
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
        self._settle()
        self._count((key,))
        self._window[key] = None
        if len(self._window) > max(1, self._held() // 100):
            self._candidate = self._window.popitem(last=False)[0]
            self._probation[self._candidate] = None

    def removed(self, key: Key) -> None:
        """Forget the key, not its count."""
        self._settle()
        self._forget(key)

    def _forget(self, key: Key) -> None:
        for part in (self._window, self._probation, self._protected):
            if key in part:
                del part[key]
                return

    def evict(self) -> Key:
        """Take the oldest on probation or the newest from the window, whichever is wanted less."""
        self._settle()
        candidate, self._candidate = self._candidate, None
        victim = self._oldest(candidate)
        if candidate is not None and candidate in self._probation:
            if self._frequency(candidate) <= self._frequency(victim):
                victim = candidate
        self._forget(victim)
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
        self.entries.clear()
        self._recent.clear()
        self._reset()


POLICIES: Final[Mapping[str, Callable[[], Policy]]] = {
    "s3fifo": S3Fifo,
    "lru": Lru,
    "wtinylfu": TinyLfu,
}
"""By the names `LocalCache` takes."""
