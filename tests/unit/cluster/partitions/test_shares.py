"""Fair shares, checked against the dumbest way to fill water."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from cache.cluster.partitions.shares import copy_shares, water_fill


def dumb_shares(weights: list[int], copies: int) -> list[Fraction]:
    """Split by weight; give whoever gets more than 1 exactly 1, and split the rest anew."""
    full: list[int] = []
    while True:
        free = [m for m in range(len(weights)) if m not in full]
        total = sum(weights[m] for m in free)
        part = {m: Fraction(weights[m] * (copies - len(full)), total) for m in free}
        over = [m for m in free if part[m] > 1]
        if not over:
            return [part.get(m, Fraction(1)) for m in range(len(weights))]
        full += over


@given(st.lists(st.integers(1, 50), min_size=1, max_size=8), st.integers(1, 8))
def test_flat_shares_equal_the_dumb_twin(weights: list[int], copies: int) -> None:
    """One zone, a host each: only the limit of one copy per member binds (§4.4, step 2)."""
    copies = min(copies, len(weights))
    members = list(range(len(weights)))

    shares = copy_shares(weights, [0] * len(weights), members, copies)

    assert shares == dumb_shares(weights, copies)


def test_water_stays_between_low_and_high() -> None:
    """12 over weights 1, 1, 8 with 2 at least and 6 at most."""
    assert water_fill(Fraction(12), [1, 1, 8], [0, 4, 0], [6, 6, 6]) == [2, 4, 6]


def test_a_small_zone_holds_a_copy_of_everything() -> None:
    """Two copies, two zones: the lone member of one zone holds all, the others share."""
    assert copy_shares([1, 1, 1], [0, 0, 1], [0, 1, 2], 2) == [Fraction(1, 2), Fraction(1, 2), 1]


def test_a_host_holds_one_copy_while_there_are_enough_hosts() -> None:
    """Three processes on one host get as much as the one on the other."""
    third = Fraction(1, 3)

    assert copy_shares([1, 1, 1, 1], [0] * 4, [0, 0, 0, 1], 2) == [third, third, third, 1]


def test_more_copies_than_zones_leave_each_zone_at_least_one() -> None:
    """Four copies over zones of 4, 1 and 1 members: 2 + 1 + 1."""
    half = Fraction(1, 2)

    shares = copy_shares([1] * 6, [0, 0, 0, 0, 1, 2], list(range(6)), 4)

    assert shares == [half, half, half, half, 1, 1]
