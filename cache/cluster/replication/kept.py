"""Books about one map in one copy of a partition, for policies that ask for more than a time to live. Pure.

* *Room*: how many live entries there are and what all weigh, when the policy sets bounds.
* *Uses*: when an entry was last read or written, when the policy ends idle entries or spares used ones. Only
  the owner knows, and tells nobody: whoever takes a partition over counts every entry as used at that
  moment. So none ends early because its owner died, and one may stay up to `max_idle` longer, once for
  each change of owner. Anything less would end entries early that were read just before.
* *Pending*: the live keys in order of arrival, of maps that are queues (write-behind).

Reads are noted by putting the key into a dictionary, by any thread; `settle` gives them the time.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable
from typing import Final

from cache.cluster.config.maps import Rules
from cache.cluster.replication.expiry import ExpiryWheel

REFERENCES_FACTOR: Final = 3
REFERENCES_MIN: Final = 64
"""References to idle ends beyond so many per entry, and so many in all, are made anew."""


class Kept:
    """The books of one map in one copy."""

    __slots__ = (
        "_fresh",
        "_is_idle_bounded",
        "_read",
        "_spared",
        "_used",
        "_wheel",
        "live",
        "pending",
        "rules",
        "size_bytes",
    )

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.live = 0
        """Live entries."""
        self.size_bytes = 0
        """Memory of all entries, tombstones included."""
        self.pending: dict[bytes, None] | None = {} if rules.is_queue else None
        """Live keys of a queue, those that came first in front."""
        self._is_idle_bounded = rules.max_idle < math.inf
        self._read: dict[bytes, None] = {}
        """Read since the last `settle`; may name keys that are gone."""
        self._fresh: dict[bytes, None] = {}
        """Written since the last `settle`."""
        self._used: dict[bytes, float] = {}
        """When each entry was used last, if idle ones end."""
        self._spared: dict[bytes, None] = {}
        """Entries that were read since they were last looked at to make room."""
        self._wheel = ExpiryWheel()
        """One reference to each key of `_used`; stale ones are skipped."""

    # -- entries -----------------------------------------------------------------------------

    def written(self, key: bytes, size: int, *, was_live: bool) -> None:
        """A key has a new live entry; `size` is by how much the map weighs more than before."""
        self.size_bytes += size
        self.live += not was_live
        if self._is_idle_bounded:
            self._fresh[key] = None
        if self.pending is not None:
            self.pending.pop(key, None)
            self.pending[key] = None

    def ended(self, key: bytes, size: int, *, was_live: bool) -> None:
        """A key has a tombstone now, or nothing."""
        self.size_bytes += size
        self.live -= was_live
        self._fresh.pop(key, None)
        self._used.pop(key, None)
        self._spared.pop(key, None)
        if self.pending is not None:
            self.pending.pop(key, None)

    # -- uses --------------------------------------------------------------------------------

    def use(self, key: bytes, now: float) -> bool:
        """Note that a live entry is read; False if it was idle for too long. For any thread."""
        if self.is_idle(key, now):
            return False
        self._read[key] = None
        return True

    def is_idle(self, key: bytes, now: float) -> bool:
        """Return whether nobody used an entry for `max_idle`."""
        used_at = self._used.get(key, math.inf)
        is_due = now - used_at >= self.rules.max_idle
        return is_due and key not in self._read and key not in self._fresh

    def settle(self, now: float, live: Container[bytes]) -> int:
        """Count as used now what was used since the last time; return how many that were.

        `live` has the keys of live entries.
        """
        read = [key for key in list(self._read) if key in live]
        self._read.clear()
        if self.rules.lru:
            self._spared.update(dict.fromkeys(read))
        if self._is_idle_bounded:
            for key in (*read, *self._fresh):
                if key not in self._used:
                    self._wheel.add("", key, now + self.rules.max_idle)
                self._used[key] = now
            if self._wheel.count > REFERENCES_FACTOR * len(self._used) + REFERENCES_MIN:
                self._refer_anew()
        count = len(read) + len(self._fresh)
        self._fresh.clear()
        return count

    def _refer_anew(self) -> None:
        self._wheel = ExpiryWheel()
        for key, used_at in self._used.items():
            self._wheel.add("", key, used_at + self.rules.max_idle)

    def take_over(self, live: Iterable[bytes], now: float) -> None:
        """This copy is the owner's from now on: every entry counts as used now."""
        if self._is_idle_bounded:
            self._used = dict.fromkeys(live, now)
            self._refer_anew()

    def rest(self) -> None:
        """Another member owns the partition: forget all uses."""
        self._read.clear()
        self._fresh.clear()
        if self._used:
            self._used.clear()
            self._wheel = ExpiryWheel()

    def idle(self, now: float, limit: int) -> list[bytes]:
        """Return keys that nobody used for `max_idle`, after looking at no more than `limit`."""
        ended = []
        for _, key in self._wheel.due(now, limit):
            if self.is_idle(key, now):
                ended.append(key)
                del self._used[key]
            elif key in self._used:
                used_at = max(self._used[key], now - self.rules.max_idle)
                self._wheel.add("", key, used_at + self.rules.max_idle)
        return ended

    def spare(self, key: bytes) -> bool:
        """Return whether an entry was read since this was last asked about it; then it is not, any more."""
        if key in self._read:
            del self._read[key]
            self._spared.pop(key, None)
            return True
        return self._spared.pop(key, self) is None
