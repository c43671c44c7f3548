"""Who waits for which lock, in the order of asking. Pure: every method takes `now`.

A place belongs to an attempt, and is that of the instant at which it first asked, on whichever owner: after a
change of owner, those that have asked again stand in the old order. Whoever does not ask again for
`PLACE_SECONDS` after its last request was answered has left, and so has a caller whose member is gone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from sortedcontainers import SortedDict

PLACE_SECONDS: Final = 1.0
"""How long a place is kept for a caller that is about to ask again."""

LockKey = tuple[int, str, bytes]
"""(partition, map, key)."""


@dataclass(slots=True, eq=False)
class Waiter:
    """One attempt that waits."""

    attempt: bytes
    member: str
    """Where the caller is; "" for one on no member."""
    lease: float
    """Seconds asked for."""
    asked_at: float
    """When it first asked, by the owner's clock."""
    kept_until: float
    """When its request will have been answered, and it has not asked again."""


class LockQueues:
    """The queues of the locks this member owns.

    Args:
        limit: waiters, all queues together.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._queues: dict[LockKey, SortedDict[tuple[float, bytes], Waiter]] = {}
        self._places: dict[bytes, tuple[LockKey, tuple[float, bytes]]] = {}

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, key: LockKey) -> bool:
        return key in self._queues

    def locks(self) -> list[LockKey]:
        """Return the locks that somebody waits for."""
        return list(self._queues)

    def join(self, key: LockKey, waiter: Waiter) -> bool:
        """Give an attempt its place, or keep the one it has; return False if there is no room."""
        if waiter.attempt in self._places:
            _, place = self._places[waiter.attempt]
            self._queues[key][place].kept_until = waiter.kept_until
            return True
        if len(self._places) >= self._limit:
            return False
        place = (waiter.asked_at, waiter.attempt)
        self._queues.setdefault(key, SortedDict())[place] = waiter
        self._places[waiter.attempt] = (key, place)
        return True

    def leave(self, attempt: bytes) -> bool:
        """Give up a place; return whether there was one."""
        if attempt not in self._places:
            return False
        key, place = self._places.pop(attempt)
        queue = self._queues[key]
        del queue[place]
        if not queue:
            del self._queues[key]
        return True

    def next(self, key: LockKey, now: float, is_alive: Callable[[str], bool]) -> Waiter | None:
        """Take out the first one that waits still, and those before it that do not."""
        while (queue := self._queues.get(key)) is not None:
            waiter = queue.peekitem(0)[1]
            self.leave(waiter.attempt)
            if now < waiter.kept_until and is_alive(waiter.member):
                return waiter
        return None
