"""What a change of an entry means to a listener, and how much is remembered."""

from __future__ import annotations

import math

import pytest

from cache.cluster.replication.entries import CHANGED, EVICTED, EXPIRED, Entry
from cache.cluster.structures.event_log import (
    BYTES_MAX,
    COUNT_MAX,
    EVENT_CREATED,
    EVENT_EVICTED,
    EVENT_EXPIRED,
    EVENT_INVALIDATED,
    EVENT_REMOVED,
    EVENT_UPDATED,
    EventLog,
    LoggedChange,
    changes_of,
)

OLD = Entry(b"old", 1, 1, math.inf)
NEW = Entry(b"new", 2, 1, math.inf)
GONE = Entry(None, 2, 1, 100.0)
ENDED = Entry(b"old", 1, 1, 5.0)


@pytest.mark.parametrize(
    ("before", "after", "cause", "kinds"),
    [
        (None, NEW, CHANGED, [EVENT_CREATED]),
        (GONE, Entry(b"v", 3, 1, math.inf), CHANGED, [EVENT_CREATED]),
        (OLD, NEW, CHANGED, [EVENT_UPDATED]),
        (OLD, GONE, CHANGED, [EVENT_REMOVED]),
        (OLD, None, CHANGED, [EVENT_REMOVED]),
        (OLD, None, EVICTED, [EVENT_EVICTED]),
        (GONE, None, EVICTED, []),
        (None, GONE, CHANGED, []),
        (ENDED, Entry(None, 1, 1, 100.0), EXPIRED, [EVENT_EXPIRED]),
        (ENDED, NEW, CHANGED, [EVENT_EXPIRED, EVENT_CREATED]),
        (ENDED, GONE, CHANGED, [EVENT_EXPIRED]),
        (OLD, Entry(b"old", 1, 1, 50.0), CHANGED, []),
    ],
)
def test_a_change_is_an_event(
    before: Entry | None, after: Entry | None, cause: int, kinds: list[int]
) -> None:
    """At second 10: what has ended by then is not there."""
    changes = changes_of(b"k", before, after, cause, now=10.0, invalidating=False)

    assert kinds == [change.kind for change in changes]


def test_an_invalidated_entry_is_told_apart() -> None:
    """From one that was deleted by its key."""
    (change,) = changes_of(b"k", OLD, GONE, CHANGED, now=0.0, invalidating=True)

    assert (EVENT_INVALIDATED, b"old") == (change.kind, change.value)


def test_what_is_forgotten_is_counted() -> None:
    """Readers are told how many they missed."""
    log = EventLog(1, owned=0)
    for number in range(COUNT_MAX + 10):
        log.add(LoggedChange(EVENT_CREATED, b"%d" % number, None, number))

    missed, changes = log.since(5)
    assert (5, COUNT_MAX) == (missed, len(changes))
    assert b"10" == changes[0].key
    assert (0, []) == log.since(log.sequence)


def test_large_values_are_forgotten_sooner() -> None:
    """The log is bounded by bytes, too."""
    log = EventLog(1, owned=0)
    for number in range(4):
        log.add(LoggedChange(EVENT_CREATED, b"k", bytes(BYTES_MAX // 2), number))

    missed, changes = log.since(0)

    assert (3, 1) == (missed, len(changes))
