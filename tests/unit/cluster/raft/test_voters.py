"""Who should vote: by hand, and as properties of what any cluster may look like."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.cluster.raft.messages import ReplicaId
from cache.cluster.raft.voters import (
    VOTERS_KEPT,
    Candidate,
    Fate,
    Plan,
    Voter,
    choose,
    target_size,
)

NAMES = [f"m{number}" for number in range(9)]


def voter(name: str, fate: Fate = Fate.LIVE) -> Voter:
    """Return a voter; its log is named after its member."""
    return Voter(ReplicaId(f"{name}/1"), name, fate)


def members(*names: str) -> list[Candidate]:
    """Return candidates without a zone."""
    return [Candidate(name) for name in names]


def plan(keep: Sequence[str], add: Sequence[str] = ()) -> Plan:
    """Return a plan by the names of members."""
    return Plan(tuple(ReplicaId(f"{name}/1") for name in keep), tuple(add))


@pytest.mark.parametrize(
    ("count", "size"),
    [(0, 0), (1, 1), (2, 1), (3, 3), (4, 3), (5, 5), (29, 5), (30, 7), (1000, 7)],
)
def test_more_members_have_more_voters(count: int, size: int) -> None:
    """Each two more survive one more crash; two members have one, because two stop when either does."""
    assert size == target_size(count, "auto")


@pytest.mark.parametrize(("count", "size"), [(1, 1), (2, 1), (3, 3), (4, 3), (5, 5), (100, 5)])
def test_a_number_that_is_asked_for_is_had_when_there_are_members(count: int, size: int) -> None:
    """And never an even one."""
    assert size == target_size(count, 5)


def test_a_lone_voter_gets_two_more() -> None:
    """When the third member is there."""
    assert plan("a") == choose([voter("a")], members("a", "b"))
    assert Plan((ReplicaId("a/1"),), ("b", "c")) == choose([voter("a")], members("a", "b", "c"))


def test_free_seats_go_to_other_zones_then_other_hosts() -> None:
    """One zone or one host that fails takes as few voters with it as can be."""
    candidates = [
        Candidate("a", "east", "h1"),
        Candidate("b", "east", "h2"),
        Candidate("c", "west", "h3"),
        Candidate("d", "west", "h3"),
        Candidate("e", "west", "h4"),
    ]

    assert plan("a", ["c", "b"]) == choose([voter("a")], candidates, 3)
    assert plan("c", ["a", "e"]) == choose([voter("c")], [*candidates[:1], *candidates[2:]], 3)


def test_one_that_has_the_log_comes_first() -> None:
    """Another one would have to be sent it."""
    candidates = [*members("a", "b", "c"), Candidate("d", learns=True)]

    assert "d" in choose([voter("a")], candidates).add


def test_a_voter_that_is_missing_keeps_its_seat() -> None:
    """A restart is no reason to move a copy."""
    voters = [voter("a"), voter("b"), voter("c", Fate.MISSING)]

    assert plan("abc") == choose(voters, members("a", "b", "d"))


@pytest.mark.parametrize("fate", [Fate.DEAD, Fate.GONE])
def test_a_lost_voter_is_replaced_only_by_somebody(fate: Fate) -> None:
    """Without a candidate it stays."""
    voters = [voter("a"), voter("b"), voter("c", fate)]

    assert plan("abc") == choose(voters, members("a", "b"))
    assert plan("ab", "d") == choose(voters, members("a", "b", "d"))


def test_a_member_that_came_back_without_its_log_takes_its_own_seat() -> None:
    """Its old replica goes, whatever its name."""
    voters = [voter("a"), voter("b"), voter("c", Fate.GONE)]

    assert plan("ab", "c") == choose(voters, members("a", "b", "c"))


def test_a_leaver_goes_even_without_a_successor() -> None:
    """In memory nothing of it would come back; the last one to stay has it all."""
    voters = [voter("a", Fate.LEAVING), voter("b"), voter("c")]

    assert plan("bc") == choose(voters, members("b", "c"))
    assert plan("c") == choose([voter("b", Fate.LEAVING), voter("c")], members("c"))
    assert plan([], "c") == choose([voter("b", Fate.LEAVING)], members("c"))


def test_the_last_one_stays_although_it_leaves() -> None:
    """There is nobody to hand it to."""
    assert plan("a") == choose([voter("a", Fate.LEAVING)], [])


def test_the_dead_do_not_outvote_those_that_stay_behind_a_leaver() -> None:
    """Else the group would stop in the moment in which the leaver goes."""
    voters = [voter("a", Fate.LEAVING), voter("b"), voter("c", Fate.MISSING)]

    assert plan("b") == choose(voters, members("b"))


def test_a_leader_without_a_majority_changes_nothing() -> None:
    """It could not be agreed on, and those that are away may be the majority of others."""
    voters = [voter("a"), voter("b", Fate.DEAD), voter("c", Fate.DEAD)]

    assert plan("abc") == choose(voters, members("a", "d", "e"))


def test_voters_that_are_dead_go_when_there_are_too_many() -> None:
    """Three that live need two to agree; with two dead ones among five it would be all three."""
    voters = [voter(name) for name in "abc"] + [voter(name, Fate.DEAD) for name in "de"]

    assert plan("abc") == choose(voters, members("a", "b", "c"))


@st.composite
def clusters(draw: st.DrawFn) -> tuple[list[Voter], list[Candidate]]:
    """Return voters of any fate, and candidates that fit them."""
    fates = draw(st.dictionaries(st.sampled_from(NAMES), st.sampled_from(Fate), max_size=7))
    others = [name for name in NAMES if name not in fates]
    here = {name for name, fate in fates.items() if fate is Fate.LIVE}
    here |= {n for n, fate in fates.items() if fate is Fate.GONE and draw(st.booleans())}
    here |= set(draw(st.lists(st.sampled_from(others), unique=True))) if others else set()
    zones, hosts = st.sampled_from((None, "z1", "z2")), st.sampled_from((None, "h1", "h2", "h3"))
    candidates = [Candidate(name, draw(zones), draw(hosts)) for name in sorted(here)]
    return [voter(name, fate) for name, fate in fates.items()], candidates


def is_agreeable(voters: Sequence[Voter]) -> bool:
    """Return whether a majority of the voters lives."""
    living = sum(one.fate in (Fate.LIVE, Fate.LEAVING) for one in voters)
    return living * 2 > len(voters)


@given(clusters(), st.sampled_from(("auto", 1, 3, 5, 7)))
def test_nobody_who_stays_loses_its_vote(
    cluster: tuple[list[Voter], list[Candidate]], wanted: object
) -> None:
    """A change of voters is never made for its own sake."""
    voters, candidates = cluster

    chosen = choose(voters, candidates, wanted)  # type: ignore[arg-type]  # one of the settings

    assert {one.replica for one in voters if one.fate is Fate.LIVE} <= set(chosen.keep)


@given(clusters())
def test_those_that_live_are_a_majority_of_the_voters_to_be(
    cluster: tuple[list[Voter], list[Candidate]],
) -> None:
    """The change must not stop the group; unless it has stopped already, or nobody stays."""
    voters, candidates = cluster
    chosen = choose(voters, candidates)
    fates = {one.replica: one.fate for one in voters}
    here = len(chosen.add) + sum(fates[one] is Fate.LIVE for one in chosen.keep)

    unchanged = len(chosen.keep) == len(voters) and not chosen.add
    assert unchanged or here * 2 > len(chosen.keep) + len(chosen.add)


@given(clusters())
def test_there_are_as_many_voters_as_there_should_be(
    cluster: tuple[list[Voter], list[Candidate]],
) -> None:
    """At least, where the members are there; and no seat is given beyond that."""
    voters, candidates = cluster
    target = target_size(len(candidates), "auto")
    chosen = choose(voters, candidates)
    size = len(chosen.keep) + len(chosen.add)

    assert size >= min(target, len(candidates)) or not is_agreeable(voters)
    assert not chosen.add or size <= max(target, VOTERS_KEPT)


def test_the_seat_of_a_missing_voter_that_has_to_go_is_given_away_at_once() -> None:
    """One lives, two are missing, two leave: the second missing one stands in the way."""
    fates = (Fate.LIVE, Fate.MISSING, Fate.MISSING, Fate.LEAVING, Fate.LEAVING)
    voters = [Voter(ReplicaId(f"m{n}/1"), f"m{n}", fate) for n, fate in enumerate(fates)]

    chosen = choose(voters, [Candidate("m0"), Candidate("m5"), Candidate("m6")])

    assert Plan((ReplicaId("m0/1"), ReplicaId("m1/1")), ("m5",)) == chosen


@given(clusters())
def test_a_plan_that_was_carried_out_is_followed_by_none(
    cluster: tuple[list[Voter], list[Candidate]],
) -> None:
    """Else voters would change for ever."""
    voters, candidates = cluster
    chosen = choose(voters, candidates)
    after = [one for one in voters if one.replica in chosen.keep]
    after += [Voter(ReplicaId(f"{name}/2"), name, Fate.LIVE) for name in chosen.add]

    assert Plan(tuple(one.replica for one in after)) == choose(after, candidates)


@given(clusters())
def test_each_new_voter_is_in_the_emptiest_zone(
    cluster: tuple[list[Voter], list[Candidate]],
) -> None:
    """Compared with every candidate that was passed over."""
    _, candidates = cluster
    chosen = choose([], candidates)
    zones = {candidate.name: candidate.zone for candidate in candidates}
    count = Counter(zones[name] for name in chosen.add)
    passed_over = {zones[name] for name in zones if name not in chosen.add}

    assert all(count[zone] >= max(count.values()) - 1 for zone in passed_over)
