"""Balancing along shortest paths, stepped by hand."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

from cache.cluster.partitions.balance import balance


def run(
    loads: list[int], shares: list[Fraction], links: dict[int, list[int]]
) -> list[tuple[int, int]]:
    """Balance where u may give anything to its links; return the steps taken."""
    taken: list[tuple[int, int]] = []

    def steps(giver: int, seen: list[bool]) -> Iterator[tuple[int, int]]:
        return ((taker, 0) for taker in links[giver] if not seen[taker])

    balance(loads, shares, steps, lambda _, giver, taker: taken.append((giver, taker)))
    return taken


def test_a_load_moves_straight_from_over_to_under() -> None:
    """First to who is under the floor of its share, which helps both, then below the ceiling."""
    loads = [4, 1, 0]

    taken = run(loads, [Fraction(5, 3)] * 3, {0: [1, 2], 1: [0, 2], 2: [0, 1]})

    assert loads == [2, 2, 1]
    assert taken == [(0, 2), (0, 1)]


def test_a_chain_leaves_the_load_between_its_ends_alone() -> None:
    """0 can give only to 1, which passes something else on to 2."""
    loads = [2, 1, 0]

    taken = run(loads, [Fraction(1)] * 3, {0: [1], 1: [2], 2: []})

    assert taken == [(0, 1), (1, 2)]
    assert loads == [1, 1, 1]


def test_the_shortest_chain_is_taken() -> None:
    """Every step copies data, so that a detour costs."""
    taken = run([2, 1, 1, 0], [Fraction(1)] * 4, {0: [1], 1: [2, 3], 2: [3], 3: []})

    assert taken == [(0, 1), (1, 3)]


def test_without_a_path_nothing_moves() -> None:
    """An imbalance that cannot be helped is no reason to spin."""
    loads = [3, 0]

    assert run(loads, [Fraction(3, 2)] * 2, {0: [], 1: [0]}) == []
    assert loads == [3, 0]


def test_loads_within_one_of_their_share_stay() -> None:
    """Floor and ceiling are both fair: stickiness."""
    assert run([2, 1, 1], [Fraction(4, 3)] * 3, {0: [1, 2], 1: [0, 2], 2: [0, 1]}) == []
