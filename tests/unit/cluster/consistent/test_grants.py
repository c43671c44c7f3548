"""Locks, semaphores and offices: who has it, who is next, and which number protects."""

from __future__ import annotations

import pytest

from cache.cluster.consistent.machine import ConsistentMachine
from cache.cluster.consistent.state.commands import (
    LEASE_MAX,
    PERMITS_MAX,
    VALUE_BYTES_MAX,
    WAITERS_MAX,
    WITHDRAWN_MAX,
    Acquire,
    AwaitGrant,
    Code,
    Ended,
    Failure,
    Granted,
    Kind,
    Look,
    Outcome,
    Queued,
    Release,
    Renew,
    Seats,
    Touch,
    Withdraw,
)
from tests.unit.cluster.consistent.scene import LOCK, Scene

SEMAPHORE = Kind.SEMAPHORE
ELECTION = Kind.ELECTION


def permits(owner: int, count: int, *, capacity: int = 3, wait: bool = True) -> Acquire:
    """Return a claim of some permits of the semaphore `x`."""
    return Acquire(b"x", SEMAPHORE, owner, capacity, count, wait)


def test_the_longest_waiting_is_next() -> None:
    """By the order of the log, whatever the session."""
    scene = Scene()
    assert Granted(1, 7) == scene.acquire(7)
    assert Queued(9, 0) == scene.acquire(9)
    assert Queued(8, 1) == scene.acquire(8)
    assert scene.ask(AwaitGrant(b"x", LOCK, 9, 1)) is None

    assert Outcome(True) == scene.tell(Release(b"x", LOCK, 1, 1), session=7)
    assert (4, 0) == (scene.granted(9), scene.granted(8))
    assert Ended() == scene.ask(AwaitGrant(b"x", LOCK, 7, 1))


def test_a_restored_queue_has_the_same_order() -> None:
    """A replica that got a snapshot grants to whom the others grant."""
    scene = Scene()
    for session in (5, 9, 8, 7):
        scene.acquire(session)
    restored = ConsistentMachine()
    restored.restore(scene.machine.snapshot())
    scene.machine = restored
    scene.end(5)

    assert (5, 0, 0) == (scene.granted(9), scene.granted(8), scene.granted(7))


def test_only_the_holder_with_its_token_gives_it_back() -> None:
    """Not another session, another owner, or a token of an earlier hold."""
    scene = Scene()
    scene.acquire(7)
    for session, owner, token in ((8, 1, 1), (7, 2, 1), (7, 1, 2), (0, 1, 1)):
        assert Outcome(False) == scene.tell(Release(b"x", LOCK, owner, token), session=session)
        assert Outcome(False) == scene.tell(Renew(b"x", LOCK, owner, token), session=session)

    assert 1 == scene.granted(7)


def test_tokens_rise_after_the_object_was_forgotten() -> None:
    """Nothing is kept of a free lock, and still no token comes twice."""
    scene = Scene()
    tokens = []
    for _ in range(3):
        answer = scene.acquire(7)
        assert isinstance(answer, Granted)
        tokens.append(answer.token)
        scene.tell(Release(b"x", LOCK, 1, answer.token), session=7)
        assert 0 == scene.machine.used_bytes

    assert [1, 3, 5] == tokens


def test_a_session_that_ended_holds_and_awaits_nothing() -> None:
    """Whoever is next gets it in the same entry, but not the dead one's second claim."""
    scene = Scene()
    scene.acquire(7, 1)
    scene.acquire(7, 2)
    scene.acquire(8, 1)
    scene.acquire(7, 1, kind=ELECTION)
    scene.acquire(9, 1, kind=ELECTION)
    scene.tell(permits(1, 3), session=7)
    scene.tell(permits(1, 2), session=9)

    scene.end(7)

    assert (8, 8, 8) == (
        scene.granted(8),
        scene.granted(9, kind=ELECTION),
        scene.granted(9, kind=SEMAPHORE),
    )
    assert Seats(8, 8, b"", 1, 0, 0.0) == scene.ask(Look(b"x", LOCK))


def test_who_does_not_want_to_wait_is_told() -> None:
    """And has no place in the queue."""
    scene = Scene()
    scene.acquire(7)

    assert Failure(Code.HELD) == scene.tell(Acquire(b"x", LOCK, 1, wait=False), session=8)
    assert Ended() == scene.ask(AwaitGrant(b"x", LOCK, 8, 1))
    assert Failure(Code.CLAIMED) == scene.acquire(7)


def test_without_a_session_nothing_is_held() -> None:
    """There would be nobody whose end gives it back."""
    scene = Scene()

    assert Failure(Code.NO_SESSION) == scene.acquire(0)
    assert Failure(Code.NO_SESSION) == scene.tell(Withdraw(b"x", LOCK, 1))


# -- withdrawals ---------------------------------------------------------------------------------


def test_a_withdrawal_ends_a_claim_that_waits_or_holds() -> None:
    """Its caller does not know which of the two it is."""
    scene = Scene()
    scene.acquire(7)
    scene.acquire(8)
    scene.acquire(9)
    assert Outcome(True) == scene.tell(Withdraw(b"x", LOCK, 1), session=8)
    assert Outcome(True) == scene.tell(Withdraw(b"x", LOCK, 1), session=7)

    assert (0, 5) == (scene.granted(8), scene.granted(9))


def test_a_claim_that_comes_after_its_withdrawal_is_refused_once() -> None:
    """Messages overtake each other: nobody would give back what it is granted."""
    scene = Scene()
    assert Outcome(False) == scene.tell(Withdraw(b"x", LOCK, 1), session=7)

    assert Failure(Code.WITHDRAWN) == scene.acquire(7)
    assert Granted(3, 7) == scene.acquire(7)


def test_withdrawals_of_one_session_are_bounded() -> None:
    """The oldest are forgotten; all of them with the session."""
    scene = Scene()
    for owner in range(WITHDRAWN_MAX + 1):
        scene.tell(Withdraw(b"x", LOCK, owner), session=7)
    assert Failure(Code.WITHDRAWN) == scene.acquire(7, 1)
    assert isinstance(scene.acquire(7, 0), Granted)

    scene.end(7)
    assert isinstance(scene.acquire(7, 2), Granted)


def test_who_waits_behind_a_large_claim_goes_when_that_is_withdrawn() -> None:
    """Order first; but nobody waits for one that is gone."""
    scene = Scene()
    scene.tell(permits(1, 2), session=7)
    scene.tell(permits(1, 2), session=8)
    scene.tell(permits(1, 1), session=9)
    assert 0 == scene.granted(9, kind=SEMAPHORE)

    scene.tell(Withdraw(b"x", SEMAPHORE, 1), session=8)
    assert 4 == scene.granted(9, kind=SEMAPHORE)


# -- semaphores ----------------------------------------------------------------------------------


def test_permits_are_granted_in_order() -> None:
    """A later claim does not overtake one that needs more, though there is enough for it."""
    scene = Scene()
    assert Granted(1, 7) == scene.tell(permits(1, 2), session=7)
    assert Queued(8, 0) == scene.tell(permits(1, 2), session=8)
    assert Queued(9, 1) == scene.tell(permits(1, 1), session=9)
    assert Failure(Code.HELD) == scene.tell(permits(2, 1, wait=False), session=7)

    scene.tell(Release(b"x", SEMAPHORE, 1, 1), session=7)
    assert (5, 5) == (scene.granted(8, kind=SEMAPHORE), scene.granted(9, kind=SEMAPHORE))
    assert Seats(5, 9, b"", 3, 0, 0.0) == scene.ask(Look(b"x", SEMAPHORE))


def test_a_semaphore_in_use_keeps_its_number_of_permits() -> None:
    """One that nobody uses can have another."""
    scene = Scene()
    scene.tell(permits(1, 1), session=7)
    assert Failure(Code.MISMATCH, 3) == scene.tell(permits(1, 1, capacity=4), session=8)

    scene.end(7)
    assert Granted(4, 8) == scene.tell(permits(1, 4, capacity=4), session=8)


# -- leases --------------------------------------------------------------------------------------


def test_a_lease_ends_by_the_clock_of_the_group() -> None:
    """The next one's begins when it is granted."""
    scene = Scene()
    scene.tell(Acquire(b"x", LOCK, 1, lease=2.0), session=7)
    scene.time = 1.5
    scene.tell(Acquire(b"x", LOCK, 1, lease=2.0), session=8)
    seats = scene.ask(Look(b"x", LOCK))
    assert isinstance(seats, Seats)
    assert 0.5 == seats.lease_left

    scene.time = 2.0
    scene.tell(Touch(b""))
    assert (0, 3) == (scene.granted(7), scene.granted(8))
    scene.time = 3.9
    scene.tell(Touch(b""))
    assert 3 == scene.granted(8)
    scene.time = 4.0
    assert Outcome(False) == scene.tell(Renew(b"x", LOCK, 1, 3), session=8)


def test_a_lease_is_renewed() -> None:
    """From the time of the renewal on; without a lease there is nothing to renew, and no end."""
    scene = Scene()
    scene.tell(Acquire(b"x", LOCK, 1, lease=2.0), session=7)
    scene.tell(Acquire(b"y", LOCK, 1), session=7)
    scene.time = 1.5
    assert Outcome(True) == scene.tell(Renew(b"x", LOCK, 1, 1), session=7)
    assert Outcome(True) == scene.tell(Renew(b"y", LOCK, 1, 2), session=7)
    scene.time = 3.4
    scene.tell(Touch(b""))
    assert 1 == scene.granted(7)

    scene.time = 3.5
    scene.tell(Touch(b""))
    assert 0 == scene.granted(7)
    assert Granted(2, 7) == scene.ask(AwaitGrant(b"y", LOCK, 7, 1))


def test_a_leader_is_known_by_token_and_value() -> None:
    """Who observes is told of each change, also of a second term of the same one."""
    scene = Scene()
    assert scene.ask(Look(b"x", ELECTION, 0)) is None
    scene.tell(Acquire(b"x", ELECTION, 1, value=b"here"), session=7)
    assert Seats(1, 7, b"here", 1, 0, 0.0) == scene.ask(Look(b"x", ELECTION, 0))
    assert scene.ask(Look(b"x", ELECTION, 1)) is None

    scene.tell(Release(b"x", ELECTION, 1, 1), session=7)
    assert Seats(0, 0, b"", 0, 0, 0.0) == scene.ask(Look(b"x", ELECTION, 1))


# -- limits --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "code", "limit"),
    [
        (Acquire(b"x", Kind.MAP, 1), Code.MALFORMED, 0),
        (permits(1, 1, capacity=0), Code.RANGE, PERMITS_MAX),
        (permits(1, 1, capacity=PERMITS_MAX + 1), Code.RANGE, PERMITS_MAX),
        (permits(1, 0), Code.RANGE, 3),
        (permits(1, 4), Code.RANGE, 3),
        (Acquire(b"x", LOCK, 1, lease=0.01), Code.RANGE, int(LEASE_MAX)),
        (Acquire(b"x", LOCK, 1, lease=LEASE_MAX + 1), Code.RANGE, int(LEASE_MAX)),
        (Acquire(b"x", LOCK, 1, lease=float("nan")), Code.RANGE, int(LEASE_MAX)),
        (
            Acquire(b"x", LOCK, 1, value=b"v" * (VALUE_BYTES_MAX + 1)),
            Code.TOO_LARGE,
            VALUE_BYTES_MAX,
        ),
    ],
)
def test_a_claim_over_a_limit_is_refused(command: Acquire, code: Code, limit: int) -> None:
    """With the limit, and without an effect."""
    scene = Scene()

    assert Failure(code, limit) == scene.tell(command, session=7)
    assert 0 == scene.machine.used_bytes


def test_a_queue_has_a_limit() -> None:
    """One more is refused."""
    scene = Scene()
    for owner in range(WAITERS_MAX + 1):
        scene.acquire(7, owner)

    assert Failure(Code.WAITERS, WAITERS_MAX) == scene.acquire(8)
