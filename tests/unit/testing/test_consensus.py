"""Waiting for consensus in a test cluster: what counts as a leader, agreement, voters, equal states."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import pytest

from cache.cluster.raft.status import GroupInfo
from cache.errors import CacheError, UnavailableError
from cache.testing import MemberHandle
from cache.testing.consensus import GroupView

VOTERS = ["m0/a", "m1/b", "m2/c"]

FOLLOWER = GroupInfo(
    group="main",
    uuid="c0ffee",
    replica="m1/b",
    halted=None,
    role="follower",
    leader="m0/a",
    term=2,
    voters=VOTERS,
    learners=[],
    gone=[],
    commit=5,
    applied=5,
    first_index=1,
    last_index=5,
    snapshot_index=0,
    lag={},
    waits_for="",
    other_groups=[],
)
LEADER = replace(FOLLOWER, replica="m0/a", role="leader")
THIRD = replace(FOLLOWER, replica="m2/c")
SURPLUS = replace(FOLLOWER, replica=None, role=None, leader="", term=0, voters=[])
UNKNOWING = replace(SURPLUS, uuid="", waits_for="it waits for 3 members, sees 2")


class Member:
    """Says what it is told to say; None: it does not answer."""

    def __init__(self, index: int, said: GroupInfo | None, state: tuple[int, int]) -> None:
        self.index, self.name = index, f"m{index}"
        self._said = said
        self._state = state

    async def raft(self, group: str) -> GroupInfo:
        assert group == "main"
        if self._said is None:
            raise UnavailableError("nobody there")
        return self._said

    async def inspect(self, what: str) -> dict[str, list[int]]:
        assert what == "consensus:states"
        if self._said is None:
            raise UnavailableError("nobody there")
        return {} if self._said.replica is None else {"main": list(self._state)}


class Cluster:
    """Looks once, and gives up."""

    def __init__(
        self, *said: GroupInfo | None, states: Sequence[tuple[int, int]] = ((5, 1),) * 9
    ) -> None:
        pairs = enumerate(zip(said, states, strict=False))
        self.members = [cast(MemberHandle, Member(i, one, state)) for i, (one, state) in pairs]

    async def eventually(
        self,
        probe: Callable[[], Awaitable[Any]],  # Any: only its truth counts
        *,
        within: float,
        what: str,
        describe: Callable[[], Awaitable[Sequence[str]]] | None = None,
    ) -> None:
        if not await probe():
            assert describe is not None
            raise CacheError("\n".join([what, f"{within}", *await describe()]))


def view(*said: GroupInfo | None, among: Sequence[int] | None = None) -> GroupView:
    """Return the group as members see it that say this."""
    return GroupView(Cluster(*said), "main", among)


async def test_of_two_that_say_they_lead_the_later_one_does() -> None:
    """The other one does not know yet."""
    late = replace(LEADER, replica="m1/b", term=3)

    assert 1 == await view(LEADER, late, THIRD).leader()
    assert 1 == await view(replace(LEADER, term=2), late).wait_for_leader(1.0)
    assert 0 == await view(LEADER, late, among=[0]).leader()


@pytest.mark.parametrize("said", [[FOLLOWER, None], [SURPLUS], [UNKNOWING], []])
async def test_who_does_not_say_that_it_leads_is_no_leader(said: list[GroupInfo | None]) -> None:
    """The end of a wait says what each member said."""
    assert await view(*said).leader() is None
    await view(*said).wait_for_no_leader(1.0)
    with pytest.raises(CacheError, match=r"a leader\n1"):
        await view(*said).wait_for_leader(1.0)


@pytest.mark.parametrize("fourth", [SURPLUS, replace(SURPLUS, leader="m9/old", term=1)])
async def test_members_without_a_replica_have_no_say(fourth: GroupInfo) -> None:
    """They hear of leaders late, or never."""
    assert 0 == await view(LEADER, FOLLOWER, THIRD, fourth).wait_for_consensus(1.0)


@pytest.mark.parametrize(
    ("odd", "line"),
    [
        (None, "member 2 does not answer"),
        (replace(THIRD, leader=""), "member 2: follower in term 2, leader nobody"),
        (replace(THIRD, leader="m1/b"), "member 2: follower in term 2, leader m1/b"),
        (replace(THIRD, term=3), "member 2: follower in term 3, leader m0/a"),
        (replace(THIRD, role="leader", leader="m2/c", term=1), "member 2: leader in term 1"),
    ],
)
async def test_one_that_differs_is_enough_for_no_consensus(
    odd: GroupInfo | None, line: str
) -> None:
    """Nobody that runs is passed over, and empty answers agree on nothing."""
    with pytest.raises(CacheError, match=line):
        await view(LEADER, FOLLOWER, odd).wait_for_consensus(1.0)

    assert 0 == await view(LEADER, FOLLOWER, odd, among=[0, 1]).wait_for_consensus(1.0)


async def test_equal_answers_that_name_nobody_are_no_consensus() -> None:
    """Also those that name somebody who does not say that it leads."""
    for said in (replace(FOLLOWER, leader="", term=0), FOLLOWER):
        with pytest.raises(CacheError, match="one leader and one term"):
            await view(said, replace(said, replica="m2/c")).wait_for_consensus(1.0)


@pytest.mark.parametrize(
    "leader",
    [
        replace(LEADER, learners=["m3/d"]),
        replace(LEADER, voters=[*VOTERS, "m3/d"]),
        replace(LEADER, voters=["m0/a", "m1/b", "m2/former"]),
    ],
)
async def test_voters_are_there_with_their_logs(leader: GroupInfo) -> None:
    """Exactly so many, each with the log that votes, and nobody learns."""
    assert ["m0", "m1", "m2"] == await view(LEADER, FOLLOWER, THIRD).wait_for_voters(3, 1.0)
    with pytest.raises(CacheError, match="3 voters"):
        await view(leader, FOLLOWER, THIRD).wait_for_voters(3, 1.0)


async def test_a_replica_that_stopped_is_no_voter_that_is_there() -> None:
    """Its disk failed."""
    stopped = replace(THIRD, role=None, halted="a write failed")

    with pytest.raises(CacheError, match="member 2: a write failed"):
        await view(LEADER, FOLLOWER, stopped).wait_for_voters(3, 1.0)


async def test_equal_states_are_equally_far_and_equal() -> None:
    """Replicas at one index that differ are a failure at once, not something to wait for."""
    said = (LEADER, FOLLOWER, SURPLUS)

    assert [0, 1] == await GroupView(Cluster(*said), "main").wait_for_equal_states(1.0)
    behind = Cluster(*said, states=((5, 1), (4, 1), (0, 0)))
    differs = Cluster(*said, states=((5, 1), (5, 2), (0, 0)))
    with pytest.raises(CacheError, match="equally many"):
        await GroupView(behind, "main").wait_for_equal_states(1.0)
    with pytest.raises(AssertionError, match="and differ"):
        await GroupView(differs, "main").wait_for_equal_states(1.0)


async def test_a_quorum_is_of_the_voters_that_the_latest_member_knows() -> None:
    """One that fell behind knows others."""
    old = replace(FOLLOWER, voters=["m1/b"], commit=1)

    assert await view(LEADER, old, THIRD, among=[0, 2]).has_quorum()
    assert not await view(LEADER, old, THIRD, among=[0]).has_quorum()
    assert await view(LEADER, old, THIRD, among=[1]).has_quorum()  # It knows no better.
    assert not await view(None, None).has_quorum()


@pytest.mark.parametrize(
    "other",
    [
        None,
        replace(THIRD, role=None, halted="a write failed"),
        replace(THIRD, replica="m2/new"),
    ],
)
async def test_a_voter_that_does_not_take_part_is_in_no_quorum(other: GroupInfo | None) -> None:
    """It does not answer, stopped, or came back without its log."""
    assert await view(LEADER, None, THIRD).has_quorum()
    assert not await view(LEADER, None, other).has_quorum()
