"""Bring loads within one of their fair shares, along shortest paths. Pure.

Loads are moved one unit at a time along a path over → … → under, on which only the two ends change their
load. Paths of one step are the common case and are taken in one go; longer ones only when no shorter one
exists. When no path is left, no better balance exists at all: this is the augmenting-path argument of maximum
flow.
A shortest path never contains two steps that exclude each other, because then a shortcut would exist.

Source: reference/membership.md §4.4, steps 4 and 5.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from math import ceil, floor

Steps = Callable[[int, list[bool]], Iterator[tuple[int, int]]]
"""`steps(u, seen)` yields (v, item): u may give `item` to v, which is not yet `seen`; best items first.

Items may be given while it runs; it then goes on with what u had at its beginning."""

Give = Callable[[int, int, int], None]
"""`give(item, u, v)` carries a step out."""


def balance(loads: list[int], shares: Sequence[Fraction], steps: Steps, give: Give) -> None:
    """Move load until every load is the floor or the ceiling of its share, or no path is left.

    `loads` is changed in place. Nothing moves that needs not: first from over the ceiling to under the
    floor, which serves both ends, then what is left of either.
    """
    floors = [floor(share) for share in shares]
    ceils = [ceil(share) for share in shares]
    for upper, lower in ((ceils, floors), (ceils, ceils), (floors, floors)):
        _give_directly(loads, upper, lower, steps, give)
        while path := _shortest_path(loads, upper, lower, steps):
            for giver, taker, item in path:
                give(item, giver, taker)
            loads[path[0][0]] -= 1
            loads[path[-1][1]] += 1


def _give_directly(
    loads: list[int], upper: list[int], lower: list[int], steps: Steps, give: Give
) -> None:
    """Take every path of one step from a load over `upper` to one under `lower`."""
    full = [load >= limit for load, limit in zip(loads, lower, strict=True)]
    for giver in _over(loads, upper):
        if all(full):
            return
        given = None
        for taker, item in steps(giver, full):
            if item != given:
                give(item, giver, taker)
                given = item
                loads[giver] -= 1
                loads[taker] += 1
                full[taker] = loads[taker] >= lower[taker]
                if loads[giver] <= upper[giver]:
                    break


def _over(loads: list[int], upper: list[int]) -> list[int]:
    """Return whose load is over `upper`, the most loaded first."""
    surpluses = [load - limit for load, limit in zip(loads, upper, strict=True)]
    sources = [member for member, surplus in enumerate(surpluses) if surplus > 0]
    sources.sort(key=lambda member: -surpluses[member])
    return sources


def _shortest_path(
    loads: list[int], upper: list[int], lower: list[int], steps: Steps
) -> list[tuple[int, int, int]]:
    """Return the steps (giver, taker, item) from a load over `upper` to one under `lower`, or []."""
    sources = _over(loads, upper)
    if not sources or all(load >= limit for load, limit in zip(loads, lower, strict=True)):
        return []
    seen = [load > limit for load, limit in zip(loads, upper, strict=True)]
    came_by: dict[int, tuple[int, int, int]] = {}
    queue = sources
    for giver in queue:  # The queue grows while it is walked: breadth first.
        for taker, item in steps(giver, seen):
            seen[taker] = True
            came_by[taker] = (giver, taker, item)
            if loads[taker] < lower[taker]:
                return _trace(came_by, taker)
            queue.append(taker)
    return []


def _trace(came_by: dict[int, tuple[int, int, int]], end: int) -> list[tuple[int, int, int]]:
    path = [came_by[end]]
    while path[-1][0] in came_by:
        path.append(came_by[path[-1][0]])
    return path[::-1]
