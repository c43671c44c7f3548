"""Which replicas of a group should vote, given who is there. Pure.

Only the leader asks, and what it is told becomes a change of members that a majority has to agree to: a
wrong belief about who lives can cost a copy of the log, never two leaders. The rules, in this order:

1. Nobody who is there, and stays, loses its vote.
2. Free seats go to members in zones without a voter first, then on hosts without one; learners before others,
   because they have the log already.
3. Whoever leaves goes at once, as long as somebody stays. Whoever is gone or dead for too long goes when
   another member takes the seat, or when there are more voters than there should be.
4. Those that live are a majority of the result: a dead voter that stood in the way of that loses its vote.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal

from cache.cluster.raft.messages import ReplicaId

SIZES: Final = ((30, 7), (5, 5), (3, 3), (1, 1))
"""Members that are there, at least, and the voters that "auto" makes of them. Two members have one voter: two
voters would stop when either of them does."""

VOTERS_KEPT: Final = 3
"""A group does not become smaller than this because of members that are away."""


class Fate(Enum):
    """What became of the member of a voter."""

    LIVE = "live"
    MISSING = "missing"
    """Dead, but not for long."""
    DEAD = "dead"
    GONE = "gone"
    """Its log does not exist any more: its member came back without it."""
    LEAVING = "leaving"
    """Alive, and on its way out."""


@dataclass(frozen=True, slots=True)
class Voter:
    """One that votes now."""

    replica: ReplicaId
    name: str
    """Of its member."""
    fate: Fate


@dataclass(frozen=True, slots=True)
class Candidate:
    """A member that is there, stays, and holds data: it may vote."""

    name: str
    zone: str | None = None
    host: str | None = None
    learns: bool = False
    """Whether it has the log already."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Who should vote."""

    keep: tuple[ReplicaId, ...]
    """Of those that do."""
    add: tuple[str, ...] = ()
    """Members that should, too; each needs the log first."""


def target_size(member_count: int, wanted: Literal["auto"] | int) -> int:
    """Return how many voters so many members should have: an odd number, or 0 for no members."""
    auto = next((size for least, size in SIZES if member_count >= least), 0)
    if wanted == "auto":
        return auto
    return wanted if member_count >= wanted else min(auto, wanted)


def choose(
    voters: Sequence[Voter],
    candidates: Sequence[Candidate],
    wanted: Literal["auto"] | int = "auto",
) -> Plan:
    """Return who should vote.

    Args:
        voters: who votes now; none for a group that is to be founded.
        candidates: every member that may, those that do included, in any order.
        wanted: `ConsistentConfig.voters`.
    """
    living = [voter for voter in voters if voter.fate in (Fate.LIVE, Fate.LEAVING)]
    if voters and len(living) * 2 <= len(voters):
        return Plan(tuple(voter.replica for voter in voters))  # Nothing can be agreed on.
    live = [voter for voter in voters if voter.fate is Fate.LIVE]
    missing = [voter for voter in voters if voter.fate is Fate.MISSING]
    lost = [voter for voter in voters if voter.fate in (Fate.DEAD, Fate.GONE)]
    target = target_size(len(candidates), wanted)
    spared, add = _fill(candidates, live, missing, target)
    if not live and not add:
        return Plan(tuple(voter.replica for voter in voters))
    here = len(live) + len(add)
    size = max(target, min(len(voters), VOTERS_KEPT))
    away = [*spared, *lost[: max(0, size - here - len(spared))]]
    kept = [*live, *away[: here - 1]]
    return Plan(tuple(v.replica for v in voters if v in kept), add)


def _fill(
    candidates: Sequence[Candidate], live: list[Voter], missing: list[Voter], target: int
) -> tuple[list[Voter], tuple[str, ...]]:
    """Return as many missing voters as may keep their seats (rule 4), and who takes the free ones."""
    for count in range(len(missing), 0, -1):
        spared = missing[:count]
        add = _seat(candidates, [*live, *spared], max(0, target - len(live) - count))
        if count < len(live) + len(add):
            return spared, add
    return [], _seat(candidates, live, max(0, target - len(live)))


def _seat(
    candidates: Iterable[Candidate], seated: Sequence[Voter], seat_count: int
) -> tuple[str, ...]:
    """Return who takes the free seats, each where the fewest sit already."""
    by_name = {candidate.name: candidate for candidate in candidates}
    sitting = [by_name.get(voter.name, Candidate(voter.name)) for voter in seated]
    free = [by_name[name] for name in sorted(by_name) if all(name != one.name for one in sitting)]
    chosen: list[Candidate] = []
    while free and len(chosen) < seat_count:
        taken = [*sitting, *chosen]
        best = min(free, key=lambda one: (*_crowding(one, taken), not one.learns, one.name))
        free.remove(best)
        chosen.append(best)
    return tuple(candidate.name for candidate in chosen)


def _crowding(candidate: Candidate, taken: Sequence[Candidate]) -> tuple[int, int]:
    """Return how many voters there are in its zone and on its host; members without a zone share one."""
    zone = sum(one.zone == candidate.zone for one in taken)
    host = sum(one.host == candidate.host for one in taken if candidate.host is not None)
    return zone, host
