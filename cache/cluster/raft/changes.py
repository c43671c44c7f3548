"""Who takes part: majorities, joint changes, learners, and which members hold at which index. Pure.

A change of voters goes through a *joint* configuration, in which both the old and the new voters have to
agree (paper §6). Members count from the moment they are in the log, and are taken back when the
log is truncated. Changes follow one another: one begins when the one before is committed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from enum import Enum, auto

from cache.cluster.raft.messages import Entry, Kind, Members, ReplicaId, Snapshot, decode_members


class Outcome(Enum):
    """What a count of votes says."""

    WON = auto()
    LOST = auto()
    OPEN = auto()


def halves(members: Members) -> tuple[tuple[str, ...], ...]:
    """Return the sets of voters that each have to agree: one, or two while a change is joint."""
    return (members.voters, members.outgoing) if members.outgoing else (members.voters,)


def is_voter(members: Members, replica: str) -> bool:
    """Return whether a replica votes, in either half."""
    return replica in members.voters or replica in members.outgoing


def everyone(members: Members) -> tuple[ReplicaId, ...]:
    """Return all replicas, each once, voters first."""
    named = dict.fromkeys((*members.voters, *members.outgoing, *members.learners))
    return tuple(ReplicaId(replica) for replica in named)


def agreed(members: Members, value_of: Callable[[str], float]) -> float:
    """Return the highest value that a majority of each half has reached; minus infinity without voters."""
    return min(_majority(half, value_of) for half in halves(members))


def _majority(voters: tuple[str, ...], value_of: Callable[[str], float]) -> float:
    if not voters:
        return float("-inf")
    values = sorted((value_of(voter) for voter in voters), reverse=True)
    return values[len(voters) // 2]


def count(members: Members, votes: Mapping[ReplicaId, bool]) -> Outcome:
    """Return what these votes decide; only those of voters count."""
    granted = agreed(members, lambda voter: votes.get(ReplicaId(voter)) is True)
    possible = agreed(members, lambda voter: votes.get(ReplicaId(voter)) is not False)
    if granted == 1:
        return Outcome.WON
    return Outcome.OPEN if possible == 1 else Outcome.LOST


def joint(now: Members, voters: tuple[str, ...], learners: tuple[str, ...]) -> Members:
    """Return the first step from the members of now to these: joint when the voters change."""
    if sorted(now.voters) == sorted(voters):
        return Members(voters, (), learners)
    return Members(voters, now.voters, learners)


def settled(members: Members) -> Members:
    """Return the second step: without the outgoing voters."""
    return Members(members.voters, (), members.learners)


class Changes:
    """The members at every index of the log that may still matter."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._history: list[tuple[int, Members]] = [(snapshot.index, snapshot.members)]

    @property
    def current(self) -> Members:
        """The latest members in the log, committed or not: those are in force (§6)."""
        return self._history[-1][1]

    @property
    def index(self) -> int:
        """Index of the entry that made them so."""
        return self._history[-1][0]

    def at(self, index: int) -> Members:
        """Return the members in force at an index."""
        return next(members for since, members in reversed(self._history) if since <= index)

    def since(self, index: int) -> Iterator[Members]:
        """Return the members in force at an index, and all that the log has after it."""
        for place, (_, members) in enumerate(self._history):
            if place + 1 == len(self._history) or self._history[place + 1][0] > index:
                yield members

    def take(self, entry: Entry) -> bool:
        """Note an entry that was appended; return whether it changed the members."""
        if entry.kind is not Kind.MEMBERS:
            return False
        self._history.append((entry.index, decode_members(entry.data)))
        return True

    def truncate(self, last: int) -> bool:
        """Take back changes above `last`; return whether there were any."""
        before = len(self._history)
        while self._history[-1][0] > last and len(self._history) > 1:
            self._history.pop()
        return len(self._history) < before

    def compact(self, through: int) -> None:
        """Forget what held before the members at `through`."""
        while len(self._history) > 1 and self._history[1][0] <= through:
            del self._history[0]

    def restore(self, snapshot: Snapshot) -> None:
        """Begin anew from a leader's snapshot."""
        self._history = [(snapshot.index, snapshot.members)]
