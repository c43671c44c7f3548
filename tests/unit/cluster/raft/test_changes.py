"""Majorities and members, by hand and against a dumb twin that replays the whole log."""

from __future__ import annotations

from itertools import combinations, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cache.cluster.raft.changes import (
    Changes,
    Outcome,
    agreed,
    count,
    everyone,
    joint,
    settled,
)
from cache.cluster.raft.messages import Entry, Kind, Members, ReplicaId, Snapshot, encode

NAMES = tuple("abcdefg")
some_names = st.lists(st.sampled_from(NAMES), unique=True, max_size=7).map(tuple)
some_members = st.builds(Members, some_names.filter(bool), some_names, some_names)


def majority_by_counting(voters: tuple[str, ...], reached: set[str]) -> bool:
    """Return whether more than half of these voters are in the set."""
    return 2 * len([voter for voter in voters if voter in reached]) > len(voters)


@given(some_members, st.dictionaries(st.sampled_from(NAMES), st.integers(0, 9)))
def test_agreed_is_the_highest_index_that_majorities_hold(
    members: Members, match: dict[str, int]
) -> None:
    """Paper §5.3, §6: both halves of a joint configuration."""
    value = agreed(members, lambda voter: match.get(voter, 0))

    holders = {
        index: {name for name in NAMES if match.get(name, 0) >= index} for index in range(10)
    }
    expected = max(
        index
        for index, names in holders.items()
        if majority_by_counting(members.voters, names)
        and (not members.outgoing or majority_by_counting(members.outgoing, names))
    )
    assert expected == value


@given(some_members, st.dictionaries(st.sampled_from(NAMES), st.booleans()))
def test_votes_are_counted_in_each_half(members: Members, votes: dict[str, bool]) -> None:
    """Paper §6: elections need separate majorities; learners have no say."""
    outcome = count(members, {ReplicaId(name): vote for name, vote in votes.items()})

    halves = [half for half in (members.voters, members.outgoing) if half]
    granted = {name for name, vote in votes.items() if vote}
    possible = {name for name in NAMES if votes.get(name, True)}
    won = all(majority_by_counting(half, granted) for half in halves)
    can_win = all(majority_by_counting(half, possible) for half in halves)
    expected = Outcome.WON if won else Outcome.OPEN if can_win else Outcome.LOST
    assert outcome is expected


@given(some_names.filter(bool), some_names.filter(bool))
def test_each_step_of_a_change_shares_a_majority_with_the_next(
    old: tuple[str, ...], new: tuple[str, ...]
) -> None:
    """Paper §6: no two leaders of one term, in whatever configurations they count."""
    before = Members(old)
    between = joint(before, new, ())
    steps = (before, between, settled(between))

    for one, other in pairwise(steps):
        assert not have_disjoint_majorities(one, other)


def have_disjoint_majorities(one: Members, other: Members) -> bool:
    """Return whether two separate sets of replicas could both decide."""
    names = everyone(Members(one.voters + other.voters, one.outgoing + other.outgoing))
    for size in range(len(names) + 1):
        for side in combinations(names, size):
            rest = {name: name not in side for name in names}
            if count(one, {name: not rest[name] for name in names}) is Outcome.WON:
                if count(other, rest) is Outcome.WON:
                    return True
    return False


def test_without_voters_nothing_is_decided() -> None:
    """A replica with an empty log must not elect itself."""
    assert count(Members(), {ReplicaId("a"): True}) is Outcome.LOST
    assert agreed(Members(), lambda _: 9) < 0


@pytest.mark.parametrize(("size", "needed"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (7, 4)])
def test_a_majority_is_more_than_half(size: int, needed: int) -> None:
    """Paper §5.2."""
    members = Members(NAMES[:size])

    def outcome(votes: int) -> Outcome:
        return count(members, {ReplicaId(name): True for name in NAMES[:votes]})

    assert outcome(needed) is Outcome.WON
    assert outcome(needed - 1) is Outcome.OPEN


class ChangesMachine(RuleBasedStateMachine):
    """`Changes` against a list of entries that is read from the start each time."""

    def __init__(self) -> None:
        super().__init__()
        self.snapshot = Snapshot()
        self.changes = Changes(self.snapshot)
        self.log: list[Members | None] = []
        self.base = 0

    def twin_at(self, index: int) -> Members:
        known = [self.snapshot.members, *(one for one in self.log[:index] if one is not None)]
        return known[-1]

    @rule(members=st.none() | some_members)
    def append(self, members: Members | None) -> None:
        self.log.append(members)
        kind = Kind.NOOP if members is None else Kind.MEMBERS
        data = b"" if members is None else encode(members)
        self.changes.take(Entry(len(self.log), 1, kind=kind, data=data))

    @precondition(lambda self: len(self.log) > self.base)
    @rule(part=st.floats(0, 1))
    def truncate(self, part: float) -> None:
        last = self.base + int(part * (len(self.log) - self.base))
        del self.log[last:]
        self.changes.truncate(last)

    @precondition(lambda self: len(self.log) > self.base)
    @rule(part=st.floats(0, 1))
    def compact(self, part: float) -> None:
        self.base += int(part * (len(self.log) - self.base))
        self.changes.compact(self.base)

    @invariant()
    def equals_the_twin(self) -> None:
        assert self.twin_at(len(self.log)) == self.changes.current
        for index in range(self.base, len(self.log) + 1):
            assert self.twin_at(index) == self.changes.at(index)
            later = [one for one in self.log[index:] if one is not None]
            assert [self.twin_at(index), *later] == list(self.changes.since(index))


TestChangesAgainstTheirTwin = ChangesMachine.TestCase
TestChangesAgainstTheirTwin.settings = settings(max_examples=60, deadline=None)
