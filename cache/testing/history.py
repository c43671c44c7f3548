"""What a load did to a cluster and what it was told: the only thing the checkers look at.

Writes to one key come from one client, one after the other, and every value is used once per key, so that
a value read names the write it came from. Reads come from anybody. None is "deleted" and "absent".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto


class Outcome(Enum):
    """What the caller was told."""

    ACKNOWLEDGED = auto()
    REJECTED = auto()
    """`RejectedError`: the library promised that it was not applied."""
    WITHOUT_EFFECT = auto()
    """A delete that found nothing to delete."""
    UNKNOWN = auto()
    """Anything else, also when the member died under the call."""


@dataclass(slots=True)
class Write:
    """One write of a key: `value` None deletes it."""

    key: str
    value: int | None
    started_at: float
    ended_at: float
    outcome: Outcome
    ttl: float | None = None
    """Seconds to live; None is for ever."""
    member: int = -1
    """Through which member."""


@dataclass(slots=True)
class Read:
    """One read that was answered."""

    key: str
    value: int | None
    started_at: float
    ended_at: float
    member: int


@dataclass(slots=True)
class Increment:
    """One `incr` by 1 of a counter; `result` when acknowledged."""

    key: str
    outcome: Outcome
    result: int | None


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time."""

    start: float
    end: float

    def overlaps(self, start: float, end: float) -> bool:
        """Return whether it has an instant in common with start..end."""
        return self.start <= end and start <= self.end


@dataclass(frozen=True, slots=True)
class Wipe:
    """At `at` every copy of these keys was destroyed, and that is no violation."""

    at: float
    keys: frozenset[str]


@dataclass(slots=True)
class History:
    """Everything of one run."""

    writes: list[Write] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    unanswered: list[Read] = field(default_factory=list)
    """Reads that ended with an error; only their times mean anything."""
    increments: list[Increment] = field(default_factory=list)
    final_counters: dict[str, int] = field(default_factory=dict)
    divided: list[Span] = field(default_factory=list)
    """When members could not all reach each other, up to the convergence after it: each side serves."""
    wipes: list[Wipe] = field(default_factory=list)
    ownership: dict[tuple[int, int], dict[str, None]] = field(default_factory=dict)
    """Owners seen in any member's table, by (partition, epoch)."""
    clocks_disagree: bool = False
    """Wall clocks were set apart: which side of a split wins is then theirs to say."""

    def counts(self) -> dict[str, int]:
        """Return how many operations ended how."""
        by_outcome = {outcome.name.lower(): 0 for outcome in Outcome}
        outcomes = [w.outcome for w in self.writes] + [i.outcome for i in self.increments]
        for outcome in outcomes:
            by_outcome[outcome.name.lower()] += 1
        return {**by_outcome, "reads": len(self.reads)}
