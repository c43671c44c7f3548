"""What becomes of a rumour: believed, refuted, suspected, buried, and passed on."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.cluster.config import GossipConfig
from cache.cluster.ids import Address
from cache.cluster.membership.members import INCARNATION_MAX, Member, MemberState
from cache.cluster.membership.outputs import MembersChanged, SendPacket
from cache.cluster.membership.rumours import FAREWELL_DIRECT_MAX, REFUSAL_DISTRUST, Book
from cache.cluster.wire.packets import Packet, Ping, Rumour
from tests.unit.cluster.membership.support import (
    ALIVE,
    CODEC,
    DEAD,
    LEFT,
    SUSPECT,
    a_book,
    a_member,
    a_rumour,
    notes,
    only,
    sent,
    state_of,
)

A, B, C, D, E = (a_member(name) for name in "abcde")


def suspected(incarnation: int = 0) -> Member:
    return a_member("b", incarnation, SUSPECT)


def forget_outputs(book: Book) -> None:
    book.outputs = []
    book.broadcasts.take(budget_bytes=1_000_000, limit=1)


# -- news of others ------------------------------------------------------------------------------


def test_unknown_member_is_welcomed() -> None:
    """Alive of an unknown member adds it, says so, and passes it on (memberlist C21)."""
    book = a_book(C)

    book.hear(a_rumour(B), 1.0)

    assert ALIVE == state_of(book, B)
    assert [("member.joined", B.id)] == notes(book.outputs)
    assert 1 == len(only(book.outputs, MembersChanged))
    assert (C.address, a_rumour(B)) in sent(book.outputs, Rumour)


@pytest.mark.parametrize("state", [DEAD, LEFT])
def test_unknown_member_that_is_gone_is_not_added(state: MemberState) -> None:
    """A death or leave of a member never heard of is ignored (memberlist TestDeadNode_NoNode)."""
    book = a_book()

    book.hear(a_rumour(a_member("b", 0, state)), 1.0)

    assert state_of(book, B) is None
    assert [] == book.outputs


def test_unknown_suspect_is_added_and_suspected() -> None:
    """A suspect counts as a member until it is buried (SWIM §4.2)."""
    book = a_book(C)

    book.hear(a_rumour(suspected(), C), 1.0)

    assert SUSPECT == state_of(book, B)
    assert [("member.joined", B.id), ("member.suspect", B.id)] == notes(book.outputs)


def test_implausible_rumour_is_noted_and_ignored() -> None:
    """A record that makes no sense changes nothing (memberlist Wrong_VSN: ignored, no crash)."""
    book = a_book(B)
    record = msgspec.structs.replace(B.to_record(), incarnation=INCARNATION_MAX + 1, state=DEAD)

    book.hear(Rumour(record=record, accuser=C.id), 1.0)

    assert ALIVE == state_of(book, B)
    assert [("member.implausible", B.id)] == notes(book.outputs)


def test_member_beyond_the_limit_is_noted_and_ignored() -> None:
    """The number of members remembered is bounded."""
    book = a_book(B)
    book.members._members_max = 2

    book.hear(a_rumour(C), 1.0)

    assert state_of(book, C) is None
    assert [("member.no_room", C.id)] == notes(book.outputs)


@pytest.mark.parametrize("state", [ALIVE, SUSPECT, DEAD])
def test_older_incarnation_never_overrides(state: MemberState) -> None:
    """A rumour of an incarnation already refuted is ignored (SWIM §4.2)."""
    book = a_book(a_member("b", 5))

    book.hear(a_rumour(a_member("b", 4, state), C), 1.0)

    assert a_member("b", 5) == book.members.get(B.id)
    assert [] == book.outputs


def test_replayed_alive_does_not_raise_the_dead() -> None:
    """Only a higher incarnation comes back from death (memberlist TestDeadNode_AliveReplay)."""
    book = a_book(a_member("b", 5, DEAD))

    book.hear(a_rumour(a_member("b", 5)), 1.0)

    assert DEAD == state_of(book, B)


@pytest.mark.parametrize("state", [SUSPECT, DEAD])
def test_higher_incarnation_brings_a_member_back(state: MemberState) -> None:
    """A refutation, which only the member itself can make, ends suspicion and death (SWIM §4.2)."""
    book = a_book(B)
    book.hear(a_rumour(a_member("b", 0, state), C), 1.0)
    forget_outputs(book)

    book.hear(a_rumour(a_member("b", 1)), 2.0)

    assert ALIVE == state_of(book, B)
    assert ("member.refuted", B.id) in notes(book.outputs)
    assert book.next_suspicion() is None


def test_mere_update_is_no_change_of_the_members() -> None:
    """A higher incarnation with the same record is passed on silently (memberlist C22)."""
    book = a_book(B)

    book.hear(a_rumour(a_member("b", 1)), 1.0)

    assert [] == only(book.outputs, MembersChanged)
    assert [(B.address, a_rumour(a_member("b", 1)))] == sent(book.outputs, Rumour)


def test_changed_record_of_a_member_is_a_change() -> None:
    """Changed metadata causes exactly one event (memberlist TestAliveNode_ChangeMeta)."""
    book = a_book(B)

    book.hear(a_rumour(replace(B, incarnation=1, leaving=True)), 1.0)

    assert 1 == len(only(book.outputs, MembersChanged))


def test_new_generation_at_an_address_buries_the_old_life() -> None:
    """Only one process can listen at an address: a restarted member replaces its old life."""
    book = a_book(B, C)
    reborn = a_member("b", generation=2)

    book.hear(a_rumour(reborn), 1.0)

    assert (DEAD, ALIVE) == (state_of(book, B), state_of(book, reborn))
    assert [("member.dead", B.id), ("member.joined", reborn.id)] == notes(book.outputs)


def test_rumours_about_the_old_life_do_not_touch_the_new_one() -> None:
    """Suspicion and death name a life, not an address (foca discards_known_old_identities_data)."""
    book = a_book(B, C)
    reborn = a_member("b", generation=2)
    book.hear(a_rumour(reborn), 1.0)

    for state in (SUSPECT, DEAD, LEFT):
        book.hear(a_rumour(a_member("b", 9, state), C), 2.0)

    assert ALIVE == state_of(book, reborn)


# -- suspicion -----------------------------------------------------------------------------------


def test_suspicion_that_runs_out_is_death() -> None:
    """Suspected for the whole timeout, a member is declared dead (SWIM §4.2)."""
    book = a_book(B)
    book.hear(a_rumour(suspected(), A), 1.0)

    book.expire_suspicions(3.9)
    before = state_of(book, B)
    book.expire_suspicions(4.0)

    assert (SUSPECT, DEAD) == (before, state_of(book, B))
    assert ("member.dead", B.id) in notes(book.outputs)


@pytest.mark.parametrize(("others", "deadline"), [(3, 4.0), (4, 19.0)])
def test_suspicion_waits_for_confirmations_only_where_there_are_enough(
    others: int, deadline: float
) -> None:
    """K = 0 when fewer than K others could confirm (memberlist TestMemberList_SuspectNode)."""
    book = a_book(*(a_member(name) for name in "bcde"[:others]))

    book.hear(a_rumour(suspected(), C), 1.0)

    assert deadline == book.next_suspicion()


def test_distinct_accusers_shorten_the_suspicion() -> None:
    """Each independent accuser brings the deadline closer, down to the minimum (Lifeguard §3.2)."""
    book = a_book(B, C, D, E)

    deadlines = []
    for accuser in (A, C, D, E):
        book.hear(a_rumour(suspected(), accuser), 1.0)
        deadlines.append(book.next_suspicion())

    assert pytest.approx([19.0, 11.5, 7.113, 4.0], abs=0.001) == deadlines


def test_confirmation_is_passed_on_with_its_accuser() -> None:
    """A confirmation is news for the others, too, so they can count it (Lifeguard §3.2)."""
    book = a_book(B, C, D, E)
    book.hear(a_rumour(suspected(), C), 1.0)
    forget_outputs(book)

    book.hear(a_rumour(suspected(), D), 1.0)

    assert a_rumour(suspected(), D) in [rumour for _, rumour in sent(book.outputs, Rumour)]


def test_some_who_hear_of_a_suspicion_probe_the_suspect_next() -> None:
    """Twice as many as are needed: waiting for their turn, accusers would come too late."""
    others = [a_member(f"m{number}") for number in range(30)]
    accuser, suspect = others[:2]
    hurried = 0
    for seed in range(300):
        book = a_book(*others)
        book.rng.seed(seed)

        book.hear(a_rumour(replace(suspect, state=SUSPECT), accuser), 0.0)

        probed = book.members.next_probe()
        hurried += probed is not None and probed.id == suspect.id
    by_chance = 300 / len(others)

    assert 6 / 29 * 300 * 0.7 < hurried - by_chance < 6 / 29 * 300 * 1.3


def test_same_accuser_neither_shortens_nor_is_passed_on() -> None:
    """A repeated accusation is not evidence (Lifeguard §3.2; memberlist TestSuspectNode_Double)."""
    book = a_book(B, C, D, E)
    book.hear(a_rumour(suspected(), C), 1.0)
    forget_outputs(book)

    book.hear(a_rumour(suspected(), C), 1.5)

    assert 19.0 == book.next_suspicion()
    assert [] == book.outputs


def test_outdated_accusation_does_not_confirm() -> None:
    """A suspicion of an incarnation already refuted is no evidence (SWIM §4.2)."""
    book = a_book(a_member("b", 1), C, D, E)
    book.hear(a_rumour(suspected(1), C), 1.0)

    book.hear(a_rumour(suspected(0), D), 1.0)

    assert 19.0 == book.next_suspicion()


def test_suspicion_of_a_later_incarnation_starts_a_fresh_timer() -> None:
    """The old timer must not bury a member that refuted since (kinship; SWIM §4.2)."""
    book = a_book(B, C, D, E)
    for accuser in (C, D, E):
        book.hear(a_rumour(suspected(0), accuser), 1.0)

    book.hear(a_rumour(suspected(1), C), 3.0)

    assert 21.0 == book.next_suspicion()


# -- news of this member -------------------------------------------------------------------------


@pytest.mark.parametrize("state", [SUSPECT, DEAD, LEFT])
def test_refuted_accusation_raises_incarnation(state: MemberState) -> None:
    """Incarnation = accusation + 1, told at once; health is doubted (SWIM §4.2, Lifeguard §3.1)."""
    book = a_book(B)

    book.hear(a_rumour(a_member("a", 4, state), B), 1.0)

    assert a_member("a", 5) == book.local
    assert 1 == book.awareness.score
    assert [(B.address, a_rumour(a_member("a", 5)))] == sent(book.outputs, Rumour)


def test_outdated_accusation_is_not_refuted_again() -> None:
    """A stale suspicion does not raise the incarnation (foca incarnation_does_not_increase)."""
    book = a_book(B)
    book.hear(a_rumour(a_member("a", 4, SUSPECT), B), 1.0)
    forget_outputs(book)

    book.hear(a_rumour(a_member("a", 4, SUSPECT), C), 2.0)

    assert (5, 1) == (book.local.incarnation, book.awareness.score)
    assert [] == book.outputs


def test_own_rumour_that_comes_back_is_ignored() -> None:
    """An echo of what this member said itself is no accusation."""
    book = a_book(B)

    book.hear(a_rumour(A, B), 1.0)

    assert [] == book.outputs


def test_later_claim_to_be_alive_is_overtaken_without_doubt() -> None:
    """Own record wins over a foreign one of itself (memberlist TestAliveNode_Refute)."""
    book = a_book(B)

    book.hear(a_rumour(replace(A, incarnation=7, weight=9), B), 1.0)

    assert (8, 1) == (book.local.incarnation, book.local.weight)
    assert 0 == book.awareness.score


def test_member_that_left_does_not_refute() -> None:
    """Leaving is final: no refutation follows the farewell."""
    book = a_book(B)
    book.say_farewell(1.0)
    forget_outputs(book)

    book.hear(a_rumour(a_member("a", 9, DEAD), B), 2.0)

    assert (LEFT, 1) == (book.local.state, book.local.incarnation)
    assert [] == book.outputs


def test_announced_change_raises_the_incarnation() -> None:
    """Others take in a changed record only with a later incarnation (memberlist UpdateNode)."""
    book = a_book(B)

    book.announce(1.0, leaving=True)

    announced = replace(A, incarnation=1, leaving=True)
    assert announced == book.local
    assert [(B.address, a_rumour(announced))] == sent(book.outputs, Rumour)


# -- leaving and dying ---------------------------------------------------------------------------


def test_leave_of_a_member_is_not_its_death() -> None:
    """A graceful leave is told apart from a crash (memberlist TestDeadNodeLeft)."""
    book = a_book(B, C)

    book.hear(a_rumour(a_member("b", 1, LEFT)), 1.0)

    assert LEFT == state_of(book, B)
    assert [("member.left", B.id)] == notes(book.outputs)


def test_left_member_is_not_suspected() -> None:
    """An accusation that comes after the leave is void: leaving is final."""
    book = a_book(B, C)
    book.hear(a_rumour(a_member("b", 1, LEFT)), 1.0)
    forget_outputs(book)

    for state in (SUSPECT, DEAD, ALIVE):
        book.hear(a_rumour(a_member("b", 9, state), C), 2.0)

    assert LEFT == state_of(book, B)
    assert (None, []) == (book.next_suspicion(), book.outputs)


def test_leave_ends_a_suspicion() -> None:
    """Who says goodbye is not buried when an older suspicion runs out."""
    book = a_book(B, C)
    book.hear(a_rumour(suspected(), C), 1.0)

    book.hear(a_rumour(a_member("b", 1, LEFT)), 2.0)
    book.expire_suspicions(100.0)

    assert LEFT == state_of(book, B)


@pytest.mark.parametrize(
    ("others", "told"), [(1, 1), (FAREWELL_DIRECT_MAX - 1, FAREWELL_DIRECT_MAX - 1), (40, 8)]
)
def test_farewell_is_told_directly(others: int, told: int) -> None:
    """Everybody of a small cluster hears the leave first hand, else a few distinct ones."""
    book = a_book(*(a_member(f"m{i}") for i in range(others)))

    book.say_farewell(1.0)

    farewells = sent(book.outputs, Rumour)
    assert [a_rumour(a_member("a", 1, LEFT))] * told == [rumour for _, rumour in farewells]
    assert told == len({to for to, _ in farewells})


def test_each_buried_member_is_told_itself() -> None:
    """It may live and hear this: then it refutes (foca message_from_down_member_is_replied)."""
    doomed = [a_member(f"m{i}") for i in range(8)]
    book = a_book(*doomed)

    for member in doomed:
        book.bury(member, A.id, 1.0)

    told = sent(book.outputs, Rumour)
    assert all((m.address, a_rumour(replace(m, state=DEAD), A)) in told for m in doomed)


def test_recently_dead_member_is_gossiped_to() -> None:
    """Gossip reaches the dead for a while, so the wrongly buried refute (memberlist C44)."""
    book = a_book(C)
    book.members.put(a_member("b", 0, DEAD), 1.0)
    book.broadcasts.put(D.id, a_rumour(D))

    book.gossip_round(31.0)

    assert {B.address, C.address} == {packet.to for packet in only(book.outputs, SendPacket)}


def test_long_dead_member_is_not_gossiped_to() -> None:
    """After gossip_to_dead_time nothing goes there any more (memberlist TestGossipToDead)."""
    book = a_book(C)
    book.members.put(a_member("b", 0, DEAD), 1.0)
    book.broadcasts.put(D.id, a_rumour(D))

    book.gossip_round(31.1)

    assert {C.address} == {packet.to for packet in only(book.outputs, SendPacket)}


def test_refutation_of_a_refused_death_discredits_refusals_for_a_while() -> None:
    """Who lives although its streams are refused has a firewall, not an empty port."""
    book = a_book(B)
    book.bury_refused(B, 1.0)

    book.hear(a_rumour(a_member("b", 1)), 2.0)

    instants = (2.0, 1.9 + REFUSAL_DISTRUST, 2.0 + REFUSAL_DISTRUST)
    assert [False, False, True] == [book.believes_refusals(B.id, now) for now in instants]


# -- full state ----------------------------------------------------------------------------------


def test_remote_death_counts_as_suspicion_only() -> None:
    """A death learnt by push-pull must be confirmed (memberlist mergeState, TestMergeState)."""
    book = a_book(B, C)

    book.merge([a_member("b", 0, DEAD).to_record()], 1.0)

    assert (SUSPECT, 4.0) == (state_of(book, B), book.next_suspicion())


def test_merge_takes_in_what_is_later() -> None:
    """Alive by incarnation, unknown ones join, implausible ones are skipped (memberlist C31)."""
    book = a_book(a_member("b", 3), a_member("c", 3))
    bad = msgspec.structs.replace(D.to_record(), seniority=0)

    book.merge([a_member("b", 2).to_record(), bad, a_member("c", 4).to_record()], 1.0)
    book.merge([E.to_record()], 1.0)

    assert [0, 3, 4, 0] == [member.incarnation for member in book.members.all()]
    assert (None, ALIVE) == (state_of(book, D), state_of(book, E))


STATES = st.sampled_from(MemberState)
INCARNATIONS = st.integers(0, 2)


@given(
    about=st.sampled_from([A, B]),
    known=st.tuples(INCARNATIONS, STATES),
    told=st.tuples(INCARNATIONS, STATES),
)
def test_what_is_skipped_as_old_would_have_changed_nothing(
    about: Member, known: tuple[int, MemberState], told: tuple[int, MemberState]
) -> None:
    """Most of what is heard is old, and is not even taken apart; the twin takes it apart."""
    book = a_book(C, D, E)
    if about is A:
        book.members.set_local(incarnation=known[0])
    else:
        book.members.put(replace(about, incarnation=known[0], state=known[1]), 0.0)
    news = replace(about, incarnation=told[0], state=told[1])
    before = book.members.all()

    if book._is_old(news.to_record()):
        book.learn(news, C.id, 1.0)

        assert [] == book.outputs
        assert before == book.members.all()


def test_exchanges_bring_one_accuser_whoever_they_are_with() -> None:
    """Who hears of a suspicion by push-pull saw nothing; it does not accuse in its own name."""
    book = a_book(B, C, D, E)

    for _ in range(3):
        book.merge([suspected().to_record()], 1.0)

    assert {B.id} == {r.accuser for _, r in sent(book.outputs, Rumour) if r.record.state == SUSPECT}
    assert not book.suspicions[B.id].confirm(B.id, 2.0)
    assert book.suspicions[B.id].confirm(C.id, 2.0)


def test_own_death_in_a_merge_is_refuted() -> None:
    """The full state of another member is a rumour like any other."""
    book = a_book(B)

    book.merge([a_member("a", 0, DEAD).to_record()], 1.0)

    assert a_member("a", 1) == book.local


# -- telling -------------------------------------------------------------------------------------


def test_small_cluster_is_told_at_once() -> None:
    """In a cluster of up to 8, news goes to everybody without waiting for the gossip timer."""
    others = [a_member(f"m{i}") for i in range(6)]
    book = a_book(*others)

    book.hear(a_rumour(B), 1.0)

    everybody = {B.address, *(member.address for member in others)}
    assert everybody == {to for to, _ in sent(book.outputs, Rumour)}


def test_large_cluster_is_told_through_a_few() -> None:
    """A gossip round goes to `gossip_fanout` distinct members (memberlist GossipNodes)."""
    book = a_book(*(a_member(f"m{i:02}") for i in range(20)))

    book.hear(a_rumour(B), 1.0)

    assert 3 == len({packet.to for packet in only(book.outputs, SendPacket)})


def test_packets_stay_below_the_limit_with_every_part() -> None:
    """Rumours fill a packet up to its limit, the envelope included (memberlist UDPBufferSize)."""
    gossip = GossipConfig(packet_bytes_max=512)
    book = a_book(B, gossip=gossip)
    for i in range(50):
        member = a_member(f"n{i}" + "x" * (i % 20))
        book.broadcasts.put(member.id, a_rumour(member))

    for _ in range(60):
        book.send(B, Ping(sequence=2**31, target=B.id))

    sizes = [
        len(CODEC.seal(Packet(sender=A.id, parts=packet.parts)))
        for packet in only(book.outputs, SendPacket)
    ]
    assert 400 < max(sizes) <= 512


def test_round_without_news_sends_nothing() -> None:
    """Gossip costs nothing while nothing happens."""
    book = a_book(B, C)

    book.gossip_round(1.0)

    assert [] == book.outputs


def test_news_about_an_unreachable_address_is_told_to_the_others() -> None:
    """Who is told does not depend on whom the news is about."""
    book = a_book(C, D)
    moved = replace(B, address=Address("elsewhere:9"))

    book.hear(a_rumour(moved), 1.0)

    assert {C.address, D.address} <= {to for to, _ in sent(book.outputs, Rumour)}


def test_what_a_newcomer_is_told_it_tells_nobody() -> None:
    """All but the newcomer know it already; it tells of itself only."""
    book = a_book()

    book.adopt([B.to_record(), C.to_record()], 1.0)
    before = list(book.outputs)
    book.announce(1.0)

    assert [] == only(before, SendPacket)
    assert {A.id} == {rumour.record.id for _, rumour in sent(book.outputs, Rumour)}
    assert [ALIVE, ALIVE] == [state_of(book, B), state_of(book, C)]
