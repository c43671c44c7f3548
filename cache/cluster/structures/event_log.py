"""What happened lately to the entries of one map on one owner, for those who listen. Pure.

Unlike the journal for near caches it names keys, kinds and values. It exists while somebody listens.
"""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import Final, NamedTuple

from cache.cluster.replication.entries import EVICTED, EXPIRED, Entry

EVENT_BEGINS: Final = 0
"""No change: a partition begins to be served here."""
EVENT_CREATED: Final = 1
EVENT_UPDATED: Final = 2
EVENT_REMOVED: Final = 3
EVENT_EXPIRED: Final = 4
EVENT_EVICTED: Final = 5
EVENT_INVALIDATED: Final = 6

COUNT_MAX: Final = 4096
BYTES_MAX: Final = 8 * 1024 * 1024
"""What one log remembers."""


class LoggedChange(NamedTuple):
    """One change; `value` is the new one, or for what ended the last one."""

    kind: int
    key: bytes
    value: bytes | None
    stamp: int


class EventLog:
    """Numbered changes, from 1 on; the oldest are forgotten.

    Args:
        number: tells this log from others of the same member.
        owned: partitions that were served when it began, whose earlier changes are not in it.
    """

    def __init__(self, number: int, owned: int) -> None:
        self.number = number
        self.owned_at_start = owned
        self.sequence = 0
        self._changes: deque[LoggedChange] = deque()
        self._bytes = 0

    def add(self, change: LoggedChange) -> None:
        """Remember a change."""
        self._changes.append(change)
        self.sequence += 1
        self._bytes += _size(change)
        while len(self._changes) > COUNT_MAX or (
            self._bytes > BYTES_MAX and len(self._changes) > 1
        ):
            self._bytes -= _size(self._changes.popleft())

    def since(self, sequence: int) -> tuple[int, list[LoggedChange]]:
        """Return how many changes after `sequence` are forgotten, and those that are not."""
        count = max(0, self.sequence - sequence)
        known = min(count, len(self._changes))
        return count - known, list(islice(self._changes, len(self._changes) - known, None))


def _size(change: LoggedChange) -> int:
    return len(change.key) + len(change.value or b"") + 100


def changes_of(
    key: bytes,
    before: Entry | None,
    after: Entry | None,
    cause: int,
    *,
    now: float,
    invalidating: bool,
) -> list[LoggedChange]:
    """Return what a change of an entry means to a listener: nothing, one thing, or an end and a beginning."""
    changes: list[LoggedChange] = []
    held = before is not None and before.value is not None
    if held and before is not None and (cause == EXPIRED or now >= before.expires_at):
        changes.append(LoggedChange(EVENT_EXPIRED, key, before.value, before.hlc))
        held = False
    lives = after is not None and after.value is not None and now < after.expires_at
    if lives and after is not None:
        if not held:
            changes.append(LoggedChange(EVENT_CREATED, key, after.value, after.hlc))
        elif before is None or before.version != after.version:
            changes.append(LoggedChange(EVENT_UPDATED, key, after.value, after.hlc))
    elif held and before is not None:
        kind = EVENT_INVALIDATED if invalidating else EVENT_REMOVED
        kind = EVENT_EVICTED if cause == EVICTED else kind
        stamp = before.hlc if after is None else after.hlc
        changes.append(LoggedChange(kind, key, before.value, stamp))
    return changes
