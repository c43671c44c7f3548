"""What is believed of members: which claim wins, who is probed next, who is forgotten."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce
from itertools import permutations
from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.cluster.ids import Address
from cache.cluster.membership.members import (
    INCARNATION_MAX,
    Member,
    MemberList,
    MemberState,
    member_from_record,
    supersedes,
)
from tests.unit.cluster.membership.support import ALIVE, DEAD, LEFT, SUSPECT, a_member


def a_list(*others: Member, members_max: int = 100) -> MemberList:
    members = MemberList(a_member("a"), Random(7), members_max=members_max)
    for other in others:
        members.put(other, 0.0)
    return members


def believe(known: Member, news: Member) -> Member:
    return news if supersedes(news, known) else known


def rank(member: Member) -> tuple[bool, int, int]:
    """The dumb twin: left beats all, then the later incarnation, then the worse state."""
    if member.state is LEFT:
        return (True, 0, 0)
    return (False, member.incarnation, member.state)


# -- which claim wins ----------------------------------------------------------------------------

TRANSITIONS = [
    # known, news, wins when news has an incarnation that is: older, equal, newer
    (ALIVE, ALIVE, (False, False, True)),
    (ALIVE, SUSPECT, (False, True, True)),
    (ALIVE, DEAD, (False, True, True)),
    (SUSPECT, ALIVE, (False, False, True)),
    (SUSPECT, SUSPECT, (False, False, True)),
    (SUSPECT, DEAD, (False, True, True)),
    (DEAD, ALIVE, (False, False, True)),
    (DEAD, SUSPECT, (False, False, True)),  # It has spoken since, or nobody could know of it.
    (ALIVE, LEFT, (True, True, True)),
    (SUSPECT, LEFT, (True, True, True)),
    (DEAD, LEFT, (True, True, True)),
    (LEFT, ALIVE, (False, False, False)),
    (LEFT, SUSPECT, (False, False, False)),
    (LEFT, DEAD, (False, False, False)),
    (LEFT, LEFT, (False, False, False)),
]


@pytest.mark.parametrize(("known", "news", "expected"), TRANSITIONS)
def test_claims_win_by_incarnation_then_by_state(
    known: MemberState, news: MemberState, expected: tuple[bool, bool, bool]
) -> None:
    """The precedence of alive, suspect and confirm (SWIM §4.2); leaving is final."""
    believed = a_member("b", 5, known)

    actual = tuple(supersedes(a_member("b", i, news), believed) for i in (4, 5, 6))

    assert expected == actual


def test_repeated_death_is_no_news() -> None:
    """A second confirm at the same incarnation changes nothing (memberlist TestDeadNode_Double)."""
    dead = a_member("b", 5, DEAD)

    assert not supersedes(dead, dead)


CLAIMS = st.builds(
    a_member, st.just("b"), st.integers(0, 4), st.sampled_from([ALIVE, SUSPECT, DEAD, LEFT])
)


@given(st.lists(CLAIMS, min_size=1, max_size=4))
def test_merge_is_commutative_and_associative(claims: list[Member]) -> None:
    """In whatever order rumours arrive, the highest one is believed in the end (SWIM §4.2)."""
    highest = max(rank(claim) for claim in claims)

    believed = {rank(reduce(believe, order)) for order in permutations(claims)}

    assert {highest} == believed


@given(CLAIMS, CLAIMS, CLAIMS)
def test_merge_may_be_grouped_in_any_way(first: Member, second: Member, third: Member) -> None:
    """What others merged before telling it makes no difference: associativity (SWIM §4.2)."""
    left = believe(believe(first, second), third)
    right = believe(first, believe(second, third))

    assert rank(left) == rank(right)


@given(st.lists(CLAIMS, min_size=1, max_size=6))
def test_merge_is_idempotent(claims: list[Member]) -> None:
    """Packets may be repeated: a rumour heard before changes nothing."""
    believed = reduce(believe, claims)

    again = reduce(believe, claims, believed)

    assert believed is again


@given(st.integers(0, 4), st.lists(st.integers(0, 4), max_size=4))
def test_death_and_refutations_merge_in_any_order(death: int, refutations: list[int]) -> None:
    """Alive beats a death of an earlier incarnation only, in whatever order (SWIM §4.2)."""
    claims = [a_member("b", death, DEAD), *(a_member("b", i) for i in refutations)]

    believed = {rank(reduce(believe, order)) for order in permutations(claims)}

    assert {max(rank(claim) for claim in claims)} == believed


@given(
    st.builds(a_member, st.just("b"), st.integers(0, 4), st.sampled_from(MemberState)),
    st.builds(a_member, st.just("b"), st.integers(0, 4), st.sampled_from(MemberState)),
)
def test_no_claim_lowers_what_is_believed(known: Member, news: Member) -> None:
    """An older incarnation never overrides a later one (SWIM §4.2)."""
    believed = believe(known, news)

    assert rank(believed) >= rank(known)


# -- records -------------------------------------------------------------------------------------


def test_record_brings_back_the_member() -> None:
    """What is told of a member is what is known of it."""
    member = replace(
        a_member("b", 3, SUSPECT), leaving=True, weight=0, host="h", zone="z", tags={"rack": "4"}
    )

    assert member == member_from_record(member.to_record())


@pytest.mark.parametrize(
    "changes",
    [
        {"id": ""},
        {"id": "x" * 257},
        {"address": ""},
        {"address": "x" * 257},
        {"incarnation": -1},
        {"incarnation": INCARNATION_MAX + 1},
        {"state": -1},
        {"state": 4},
        {"seniority": 0},
        {"weight": -1},
        {"weight": 1001},
        {"host": "x" * 769},
        {"tags": {"k": "v" * 1024}},
    ],
    ids=str,
)
def test_implausible_record_is_no_member(changes: dict[str, object]) -> None:
    """What comes from outside is checked before it is believed, and bounded."""
    record = msgspec.structs.replace(a_member("b").to_record(), **changes)

    assert member_from_record(record) is None


# -- the list ------------------------------------------------------------------------------------


def test_live_members_come_oldest_first() -> None:
    """The coordinator is the first: smallest seniority, then smallest id."""
    young, old = a_member("b", seniority=3), a_member("c", seniority=2)
    suspect = a_member("d", 0, SUSPECT, seniority=3)
    members = a_list(young, old, suspect, a_member("e", 0, DEAD), a_member("f", 0, LEFT))

    actual = members.live()

    assert [members.local, old, young, suspect] == actual
    assert 4 == members.count_live()


def test_member_list_is_bounded() -> None:
    """A flood of made-up members is refused; those known are still updated."""
    members = a_list(a_member("b"), members_max=2)

    refused, updated = members.put(a_member("c"), 1.0), members.put(a_member("b", 1), 1.0)

    assert (False, True) == (refused, updated)
    assert 1 == next(m.incarnation for m in members.others())


def test_state_change_is_dated_and_a_mere_update_is_not() -> None:
    """A higher incarnation keeps the time of the state (memberlist TestAliveNode_Idempotent)."""
    members = a_list(a_member("b"))

    members.put(a_member("b", 0, SUSPECT), 5.0)
    members.put(a_member("b", 1, SUSPECT), 9.0)

    assert 5.0 == members.changed_at(a_member("b").id)


def test_only_the_recently_dead_are_still_told() -> None:
    """The dead are gossiped to for a while, the departed never (memberlist GossipToTheDeadTime)."""
    members = a_list(a_member("b"), a_member("c"), a_member("d"))
    members.put(a_member("b", 0, DEAD), 1.0)
    members.put(a_member("c", 0, DEAD), 20.0)
    members.put(a_member("d", 0, LEFT), 20.0)

    assert [a_member("c", 0, DEAD)] == members.recently_dead(32.0, within=30.0)


def test_gone_members_are_forgotten_after_a_while() -> None:
    """Dead and departed ones leave the list in the end, live ones never (memberlist resetNodes)."""
    members = a_list(a_member("b"), a_member("c", 0, DEAD), a_member("d", 0, LEFT))
    members.put(a_member("e", 0, DEAD), 50.0)

    members.reap(101.0, after=100.0)

    assert ["a", "b", "e"] == [member.name for member in members.all()]


def test_address_finds_the_live_member_only() -> None:
    """A dead life does not stand for the address it had."""
    members = a_list(a_member("b", 0, DEAD), a_member("c"))

    found = [members.at(Address(f"{name}:1")) for name in ("a", "b", "c")]

    assert [None, None, a_member("c")] == found


# -- whom to probe -------------------------------------------------------------------------------


@given(st.integers(1, 12), st.integers(0, 2**32))
def test_each_member_is_probed_once_per_round(others: int, seed: int) -> None:
    """A shuffled round-robin: detection within 2n - 1 intervals (SWIM §4.3)."""
    members = MemberList(a_member("a"), Random(seed), members_max=100)
    expected = [a_member(f"m{i:02}") for i in range(others)]
    for member in expected:
        members.put(member, 0.0)

    rounds = [[members.next_probe() for _ in range(others)] for _ in range(3)]

    assert [expected] * 3 == [sorted((m for m in r if m), key=lambda m: m.id) for r in rounds]


def test_each_round_is_shuffled_anew() -> None:
    """The order differs from round to round, so that probes do not synchronise (SWIM §4.3)."""
    members = a_list(*(a_member(f"m{i}") for i in range(8)))

    rounds = [tuple(members.next_probe() for _ in range(8)) for _ in range(6)]

    assert len(set(map(str, rounds))) > 1


@given(others=st.integers(2, 12), hurried=st.integers(0, 11), done=st.integers(1, 12))
def test_hurried_member_is_probed_next_and_nobody_is_forgotten(
    others: int, hurried: int, done: int
) -> None:
    """A suspect may be put before the others; they are still probed in this round, once."""
    listed = [a_member(f"m{number}") for number in range(others)]
    members = a_list(*listed)
    before = [members.next_probe() for _ in range(min(done, others - 1))]
    urgent = listed[hurried % others]

    members.probe_next(urgent.id)
    waiting = others - len(before) + (urgent in before)
    after = [members.next_probe() for _ in range(waiting)]

    assert after[0] == urgent
    assert {m.id for m in listed} == {m.id for m in [*before, *after] if m is not None}


def test_gone_members_are_not_probed() -> None:
    """Only live members are probed; alone there is nobody (foca next_yields_none)."""
    members = a_list(a_member("b"), a_member("c", 0, SUSPECT))
    members.next_probe()

    members.put(a_member("b", 0, DEAD), 1.0)
    members.put(a_member("c", 0, LEFT), 1.0)

    assert members.next_probe() is None


def test_probe_goes_to_the_member_as_it_is_known_now() -> None:
    """A member that changed during the round is probed as it is, not as it was."""
    members = a_list(a_member("b"), a_member("c"))
    members.next_probe()

    members.put(a_member("b", 4), 1.0)
    members.put(a_member("c", 4), 1.0)

    probed = members.next_probe()
    assert probed is not None
    assert 4 == probed.incarnation


@given(st.integers(0, 6), st.integers(0, 8), st.integers(0, 2**32))
def test_sample_is_distinct_live_and_not_excluded(others: int, count: int, seed: int) -> None:
    """Neither itself, nor gone, excluded or repeated ones (memberlist kRandomNodes)."""
    members = MemberList(a_member("a"), Random(seed), members_max=100)
    eligible = {a_member(f"m{i}").id for i in range(others)}
    for name, state in [*((f"m{i}", ALIVE) for i in range(others)), ("x", ALIVE), ("y", DEAD)]:
        members.put(a_member(name, 0, state), 0.0)

    sample = [member.id for member in members.sample(count, a_member("x").id)]

    assert min(count, others) == len(set(sample)) == len(sample)
    assert eligible.issuperset(sample)


@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.integers(0, 3), st.sampled_from(MemberState)), max_size=20
    )
)
def test_what_is_remembered_of_the_members_is_never_outdated(
    changes: list[tuple[int, int, MemberState]],
) -> None:
    """Counting and sampling remember the live and the dead; the dumb twin looks at everybody."""
    members = a_list()
    for number, incarnation, state in changes:
        members.put(a_member(f"m{number}", incarnation, state), float(number))
        members.reap(5.0, after=3.0)

        everybody = members.all()
        assert [m for m in everybody if m.live and m != members.local] == members.others()
        assert sum(m.live for m in everybody) == members.count_live()
        assert [m for m in everybody if m.state is DEAD] == members.recently_dead(5.0, 9.0)
