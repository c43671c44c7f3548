"""Lifeguard's arithmetic: how long a suspicion lasts, and how patient a doubtful member is."""

from __future__ import annotations

import math

import pytest

from cache.cluster.ids import MemberId
from cache.cluster.membership.suspicion import (
    Awareness,
    Suspicion,
    remaining_suspicion,
    suspicion_timeout,
)

FIRST, SECOND, THIRD, FOURTH, FIFTH = (MemberId(f"{name}#1") for name in "abcde")


def a_suspicion(needed: int = 3) -> Suspicion:
    return Suspicion(FIRST, needed=needed, shortest=2.0, longest=30.0, now=100.0)


@pytest.mark.parametrize(
    ("members", "seconds"), [(0, 3.0), (5, 3.0), (10, 3.0), (50, 5.097), (100, 6.0), (1000, 9.0)]
)
def test_suspicion_grows_with_the_logarithm_of_the_cluster(members: int, seconds: float) -> None:
    """multiplier * max(1, log10 n) * interval (memberlist suspicionTimeout, multiplier 3)."""
    actual = suspicion_timeout(3, members, 1.0)

    assert pytest.approx(seconds, abs=0.001) == actual


def test_suspicion_is_proportional_to_interval_and_multiplier() -> None:
    """Detection time scales with the probe interval (SWIM §3, memberlist suspicionTimeout)."""
    actual = suspicion_timeout(4, 100, 0.5)

    assert 4.0 == actual


@pytest.mark.parametrize(
    ("confirmations", "elapsed", "seconds"),
    [(0, 0.0, 30.0), (1, 2.0, 14.0), (2, 3.0, 4.810), (3, 4.0, -2.0), (5, 10.0, -8.0)],
)
def test_remaining_suspicion_falls_with_the_logarithm_of_confirmations(
    confirmations: int, elapsed: float, seconds: float
) -> None:
    """max(min, max - (max-min)·log(C+1)/log(K+1)) - elapsed (Lifeguard §3.2)."""
    actual = remaining_suspicion(
        confirmations=confirmations, needed=3, elapsed=elapsed, shortest=2.0, longest=30.0
    )

    assert pytest.approx(seconds, abs=0.001) == actual


def test_without_confirmations_to_wait_for_the_shortest_suspicion_applies_at_once() -> None:
    """K = 0 uses the minimum: nobody could confirm (memberlist TestSuspicion_Timer_ZeroK)."""
    suspicion = a_suspicion(needed=0)

    assert 102.0 == suspicion.deadline


def test_unconfirmed_suspicion_lasts_longest() -> None:
    """A single accuser may be the slow one itself (Lifeguard §3.2)."""
    suspicion = a_suspicion()

    assert 130.0 == suspicion.deadline


def test_each_distinct_accuser_shortens_the_suspicion() -> None:
    """1, 2 and 3 confirmations bring the deadline down to the minimum (Lifeguard §3.2)."""
    suspicion = a_suspicion()

    deadlines = []
    for accuser in (SECOND, THIRD, FOURTH):
        assert suspicion.confirm(accuser, 101.0)
        deadlines.append(suspicion.deadline)

    expected = [116.0, 130.0 - 28.0 * math.log(3) / math.log(4), 102.0]
    assert pytest.approx(expected) == deadlines


def test_first_accuser_does_not_confirm_itself() -> None:
    """Only independent accusers count (Lifeguard §3.2; memberlist TestSuspicion_Timer)."""
    suspicion = a_suspicion()

    news = suspicion.confirm(FIRST, 101.0)

    assert (False, 130.0) == (news, suspicion.deadline)


def test_repeated_accuser_counts_once() -> None:
    """The same accusation heard twice is gossip, not evidence (memberlist TestSuspicion_Timer)."""
    suspicion = a_suspicion()
    suspicion.confirm(SECOND, 101.0)

    news = suspicion.confirm(SECOND, 102.0)

    assert (False, 116.0) == (news, suspicion.deadline)


def test_accuser_beyond_the_needed_ones_is_no_news() -> None:
    """A fourth confirmation of three is refused (memberlist TestSuspicion_Timer)."""
    suspicion = a_suspicion()
    for accuser in (SECOND, THIRD, FOURTH):
        suspicion.confirm(accuser, 101.0)

    news = suspicion.confirm(FIFTH, 101.0)

    assert (False, 102.0) == (news, suspicion.deadline)


def test_late_confirmation_makes_the_suspicion_overdue() -> None:
    """It fires at once (memberlist TestSuspicion_Timer_Immediate)."""
    suspicion = a_suspicion()

    suspicion.confirm(SECOND, 120.0)

    assert 120.0 == suspicion.deadline


@pytest.mark.parametrize(
    ("deltas", "score", "seconds"),
    [([0], 0, 1.0), ([-1], 0, 1.0), ([10], 7, 8.0), ([10, -1], 6, 7.0), ([1, -10], 0, 1.0)],
)
def test_awareness_stays_within_its_bounds_and_stretches_time(
    deltas: list[int], score: int, seconds: float
) -> None:
    """0 .. max-1, each point one more interval (Lifeguard §3.1; memberlist TestAwareness)."""
    awareness = Awareness(8)

    for delta in deltas:
        awareness.add(delta)

    assert (score, seconds) == (awareness.score, awareness.scale(1.0))


def test_awareness_of_one_is_plain_swim() -> None:
    """With max 1 the score cannot leave 0, which turns local health off (memberlist)."""
    awareness = Awareness(1)

    awareness.add(5)

    assert 0 == awareness.score
