"""Who is next."""

from __future__ import annotations

import pytest

from cache.cluster.structures.lock_queues import LockKey, LockQueues, Waiter

KEY: LockKey = (3, "locks", b"sann")
OTHER: LockKey = (3, "locks", b"sbob")


def waiter(attempt: bytes, asked_at: float, *, kept_until: float = 100.0) -> Waiter:
    return Waiter(attempt, f"m#{attempt.decode()}", 10.0, asked_at, kept_until)


def everybody(member: str) -> bool:
    return True


@pytest.fixture
def queues() -> LockQueues:
    return LockQueues(limit=4)


def drained(queues: LockQueues, now: float = 1.0) -> list[bytes]:
    order = []
    while (found := queues.next(KEY, now, everybody)) is not None:
        order.append(found.attempt)
    return order


def test_the_first_who_asked_is_next(queues: LockQueues) -> None:
    """Also one who arrives later than others that asked later: it waited for another owner."""
    for attempt, asked_at in ((b"b", 2.0), (b"a", 1.0), (b"c", 3.0)):
        assert queues.join(KEY, waiter(attempt, asked_at))

    assert [b"a", b"b", b"c"] == drained(queues)
    assert KEY not in queues
    assert 0 == len(queues)


def test_asking_again_keeps_the_place_and_the_caller_in_it(queues: LockQueues) -> None:
    """Whatever instant the second request tells."""
    queues.join(KEY, waiter(b"a", 1.0, kept_until=5.0))
    queues.join(KEY, waiter(b"b", 2.0))
    queues.join(KEY, waiter(b"a", 3.0, kept_until=50.0))

    assert 2 == len(queues)
    assert [b"a", b"b"] == drained(queues, now=10.0)


def test_who_does_not_ask_again_has_left(queues: LockQueues) -> None:
    """Exactly at the end of its time."""
    queues.join(KEY, waiter(b"a", 1.0, kept_until=5.0))
    queues.join(KEY, waiter(b"b", 2.0))

    assert [b"b"] == drained(queues, now=5.0)


def test_callers_on_dead_members_are_passed_over(queues: LockQueues) -> None:
    """They would hold the lock for a lease, for nothing."""
    queues.join(KEY, waiter(b"a", 1.0))
    queues.join(KEY, waiter(b"b", 2.0))

    found = queues.next(KEY, 3.0, lambda member: member != "m#a")

    assert found is not None
    assert b"b" == found.attempt


def test_places_are_limited_over_all_locks(queues: LockQueues) -> None:
    """One that leaves makes room."""
    for number in range(4):
        assert queues.join((KEY, OTHER)[number % 2], waiter(b"%d" % number, number))

    assert not queues.join(KEY, waiter(b"x", 9.0))
    assert queues.leave(b"1")
    assert not queues.leave(b"1")
    assert queues.join(KEY, waiter(b"x", 9.0))
    assert [KEY, OTHER] == queues.locks()
