"""Rows of the conformance list (docs/membership.md) that no other test shows, one machine at a time."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from cache.cluster.config import GossipConfig
from cache.cluster.ids import Address
from cache.cluster.membership.members import (
    INCARNATION_JUMP_MAX,
    INCARNATION_MAX,
    Member,
    MemberList,
    MemberState,
)
from cache.cluster.membership.outputs import (
    Exchanged,
    MembersChanged,
    StartExchange,
    StreamProbe,
)
from cache.cluster.membership.swim import NEWCOMERS_MAX, Swim
from cache.cluster.wire.packets import Ack, Nack, Ping, PingRequest
from tests.unit.cluster.membership.support import (
    ALIVE,
    CODEC,
    DEAD,
    LEFT,
    SUSPECT,
    Mesh,
    a_book,
    a_config,
    a_member,
    a_packet,
    a_rumour,
    a_swim,
    notes,
    only,
    sent,
    state_of,
)

A, B, C, D, E, F = (a_member(name) for name in "abcdef")
DOGPILE = GossipConfig(
    probe_interval=0.1, probe_timeout=0.05, suspicion_multiplier=5, suspicion_max_multiplier=2
)


# -- suspicion -----------------------------------------------------------------------------------


def test_a_suspicion_that_ran_out_buries_once() -> None:
    """C03: the timer never fires twice."""
    book = a_book(B)
    book.suspect(B, A.id, 0.0)
    book.expire_suspicions(3.0)
    book.outputs.clear()

    book.expire_suspicions(30.0)

    assert ([], None) == (book.outputs, book.next_suspicion())


@pytest.mark.parametrize(("members", "seconds"), [(2, 0.5), (4, 0.5), (5, 1.0), (6, 1.0)])
def test_a_lone_accuser_waits_for_others_only_where_there_are_enough(
    members: int, seconds: float
) -> None:
    """C34: with up to four members nobody could confirm; from five on the longest time applies."""
    book = a_book(*(B, C, D, E, F)[: members - 1], gossip=DOGPILE)

    book.suspect(B, A.id, 0.0)

    assert pytest.approx(seconds) == book.next_suspicion()


def test_each_confirmation_brings_the_death_closer_by_less() -> None:
    """C34: 0.75, 0.604 and 0.5 s with one, two and three confirmations; a fourth changes nothing."""
    book = a_book(B, C, D, E, F, a_member("g"), gossip=DOGPILE)
    book.suspect(B, A.id, 0.0)

    deadlines = []
    for accuser in (C, D, E, F):
        book.hear(a_rumour(replace(B, state=SUSPECT), accuser), 0.0)
        deadlines.append(book.next_suspicion())

    assert pytest.approx([0.75, 0.604, 0.5, 0.5], abs=0.001) == deadlines


def test_whoever_doubts_itself_hears_a_suspect_before_a_burst_of_accusers_buries_it() -> None:
    """T8: members whose traffic was held up accuse in one burst, a millisecond before the answers come."""
    deadlines = []
    for failures in (0, 7):
        book = a_book(B, C, D, E, F)
        book.suspect(B, A.id, 0.0)
        book.awareness.add(failures)
        for accuser in (C, D, E):
            book.hear(a_rumour(replace(B, state=SUSPECT), accuser), 8.0)
        deadlines.append(book.next_suspicion())

    assert [8.0, 8.0 + 8 * 0.5] == deadlines


def test_a_refuted_suspicion_is_no_new_member() -> None:
    """C22: the same incarnation keeps the suspicion, a higher one clears it without a join."""
    book = a_book(B, C)
    book.suspect(B, C.id, 0.0)
    book.hear(a_rumour(B), 0.1)
    before = state_of(book, B)
    book.outputs.clear()

    book.hear(a_rumour(replace(B, incarnation=1)), 0.2)

    assert (SUSPECT, ALIVE) == (before, state_of(book, B))
    assert ([("member.refuted", B.id)], []) == (
        notes(book.outputs),
        only(book.outputs, MembersChanged),
    )


def test_the_highest_accusation_possible_wraps_nothing() -> None:
    """C62, S13: one below the limit is refuted at the limit; at the limit the counter stays."""
    book = a_book(B)
    book.members.set_local(incarnation=INCARNATION_MAX - 2)
    book.hear(a_rumour(replace(A, state=SUSPECT, incarnation=INCARNATION_MAX - 1), B), 1.0)
    refuted = book.local.incarnation

    book.hear(a_rumour(replace(A, state=SUSPECT, incarnation=INCARNATION_MAX), B), 2.0)

    assert (INCARNATION_MAX, INCARNATION_MAX) == (refuted, book.local.incarnation)
    assert ALIVE is book.local.state


def test_a_member_that_cannot_refute_any_more_says_so() -> None:
    """C62: at the highest incarnation it will be buried by the others; its operator hears of it."""
    book = a_book(B)
    book.members.set_local(incarnation=INCARNATION_MAX)

    book.hear(a_rumour(replace(A, state=SUSPECT, incarnation=INCARNATION_MAX), B), 1.0)

    assert [("member.cannot_refute", A.id)] == notes(book.outputs)


@pytest.mark.parametrize("state", [ALIVE, SUSPECT, DEAD, LEFT])
@pytest.mark.parametrize("about", [A, B])
def test_a_great_jump_of_an_incarnation_is_implausible(about: Member, state: MemberState) -> None:
    """S13: a member raises its own by one at a time, so few rumours cannot exhaust the counter."""
    book = a_book(B)

    jump = replace(about, state=state, incarnation=INCARNATION_JUMP_MAX + 1)
    book.hear(a_rumour(jump, C), 1.0)

    assert [("member.implausible", about.id)] == notes(book.outputs)
    assert [A, B] == book.members.all()


def test_a_jump_that_a_long_absence_explains_is_believed() -> None:
    """S13: whoever was cut off for long has missed many refutations."""
    book = a_book(B)

    book.hear(a_rumour(replace(B, incarnation=INCARNATION_JUMP_MAX)), 1.0)

    assert [INCARNATION_JUMP_MAX] == [member.incarnation for member in book.members.others()]


# -- names, addresses, records -------------------------------------------------------------------


def test_a_name_that_is_used_elsewhere_takes_nothing_over() -> None:
    """C25, S15: a life is known by its id, so a second one of a name is another member."""
    book = a_book(B)
    namesake = replace(a_member("b", generation=2, seniority=5), address=Address("z:1"))

    book.hear(a_rumour(namesake), 1.0)

    assert (ALIVE, ALIVE) == (state_of(book, B), state_of(book, namesake))
    assert (B, namesake) == (book.members.at(B.address), book.members.at(namesake.address))


@pytest.mark.parametrize("name", ["a", "b"])
def test_a_name_that_two_live_members_use_is_told_to_everybody(name: str) -> None:
    """C85, S15: to the two themselves, too; nobody is hindered."""
    book = a_book(B)
    namesake = replace(a_member(name, generation=2, seniority=5), address=Address("z:1"))

    book.hear(a_rumour(namesake), 1.0)

    assert {("member.joined", namesake.id), ("member.name_conflict", namesake.id)} == set(
        notes(book.outputs)
    )


def test_a_restart_at_the_same_address_is_no_conflict_of_names() -> None:
    """S15: the older life is over, however recently it died."""
    book = a_book(B)

    book.hear(a_rumour(a_member("b", generation=2, seniority=5)), 1.0)

    assert "member.name_conflict" not in dict(notes(book.outputs))


def test_a_name_is_free_at_once_after_a_leave() -> None:
    """C26: whoever left has its name back at another address without waiting."""
    book = a_book(B)
    book.hear(a_rumour(replace(B, state=LEFT, incarnation=1)), 1.0)
    reborn = replace(a_member("b", generation=2, seniority=5), address=Address("z:1"))

    book.hear(a_rumour(reborn), 1.0)

    assert (LEFT, ALIVE) == (state_of(book, B), state_of(book, reborn))


def test_the_address_a_member_tells_counts_not_where_its_packets_come_from() -> None:
    """C45: behind a translated address peers see the advertised one."""
    swim = a_swim(C)
    outside = replace(a_packet(B, a_rumour(B)), source=Address("nat:9"))

    swim.handle(outside, 0.1)

    assert B == swim.book.members.get(B.id)
    assert (B, None) == (swim.book.members.at(B.address), swim.book.members.at(Address("nat:9")))


def test_a_changed_tag_reaches_every_member() -> None:
    """C51: metadata is visible on all sides, and so is its update."""
    mesh = Mesh(*"abcd")
    mesh.run(5.0)

    mesh.swims["b"].book.announce(mesh.now, tags={"rack": "7"})
    mesh.run(0.2)

    tags = [swim.book.members.get(B.id) for swim in mesh.swims.values()]
    assert [{"rack": "7"}] * 4 == [dict(member.tags) for member in tags if member is not None]


def test_both_sides_of_an_exchange_know_everybody() -> None:
    """C44: after one push-pull both have the union of what they knew."""
    one, other = a_swim(B, C), a_swim(D, local="b")
    views = [[m.to_record() for m in swim.book.members.all()] for swim in (one, other)]

    one.handle(Exchanged(views[1]), 1.0)
    other.handle(Exchanged(views[0]), 1.0)

    for swim in (one, other):
        assert {A.id, B.id, C.id, D.id} == {member.id for member in swim.book.members.live()}


# -- probes --------------------------------------------------------------------------------------


def test_a_lone_other_member_is_probed_each_time() -> None:
    """C09: with one active member every round is that member."""
    members = MemberList(A, Random(7), members_max=8)
    members.put(B, 0.0)

    assert [B] * 5 == [members.next_probe() for _ in range(5)]


def test_three_pings_in_a_packet_get_three_answers() -> None:
    """C38: each part is handled; S3: in one packet, lest the answer be larger than the question."""
    swim = a_swim(B)

    swim.handle(a_packet(B, *(Ping(sequence=n, target=A.id) for n in (1, 2, 3))), 0.1)

    [packet] = swim.take_outputs()
    assert (B.address, [Ack(n) for n in (1, 2, 3)]) == (
        getattr(packet, "to", None),
        getattr(packet, "parts", None),
    )


def test_a_stranger_is_answered_with_nothing_but_the_acknowledgement() -> None:
    """S3: news would make the answer larger than the question, for an address of his choice."""
    swim = a_swim(B)
    swim.book.broadcasts.put(B.id, a_rumour(B))

    swim.handle(a_packet(a_member("z"), Ping(sequence=9, target=A.id)), 0.1)

    [packet] = swim.take_outputs()
    assert [Ack(sequence=9)] == getattr(packet, "parts", None)


def test_newcomers_of_one_packet_are_bounded() -> None:
    """S14: a packet of 64 KiB cannot fill the list; what is left out comes with the next one."""
    swim = a_swim(B)
    crowd = [a_member(f"m{number:03}") for number in range(2 * NEWCOMERS_MAX)]

    counts = []
    for at in (0.1, 0.2):
        swim.handle(a_packet(B, *map(a_rumour, crowd), a_rumour(replace(B, incarnation=1))), at)
        counts.append(len(swim.book.members.others()))

    assert [1 + NEWCOMERS_MAX, 1 + 2 * NEWCOMERS_MAX] == counts
    assert [1] == [m.incarnation for m in swim.book.members.others() if m.id == B.id]


def test_a_relay_is_not_asked_about_itself() -> None:
    """C66: whoever gets such a request answers pings, or cannot answer this either."""
    swim = a_swim(B)

    swim.handle(a_packet(B, PingRequest(5, A.id, A.address)), 0.1)
    swim.tick(0.6)

    assert ([], {}) == (sent(swim.take_outputs(), Nack), swim._relays)
    assert [] == sent(swim.take_outputs(), Ping)


def test_packets_in_ones_own_name_change_no_member() -> None:
    """C66: what claims to come from or to ask about this member itself is no state."""
    swim = a_swim(B, C)

    swim.handle(a_packet(A, a_rumour(A), PingRequest(5, A.id, A.address), Ack(5)), 0.1)

    assert [A, B, C] == swim.book.members.live()
    assert (0, [], {}) == (
        swim.book.awareness.score,
        notes(swim.take_outputs()),
        swim.book.suspicions,
    )


def test_probing_goes_on_after_a_target_left_in_the_middle_of_its_probe() -> None:
    """C71: the cycle that came to nothing leaves no timer, and the next one starts on time."""
    swim = a_swim(B, C)
    swim.tick(1.0)
    [(to, _)] = sent(swim.take_outputs(), Ping)
    gone, other = (B, C) if to == B.address else (C, B)
    swim.handle(a_packet(gone, a_rumour(replace(gone, state=LEFT, incarnation=1))), 1.2)

    for at in (1.5, 2.0, 2.0):
        swim.tick(at)

    pings = sent(swim.take_outputs(), Ping)
    assert [other.address] == [to for to, _ in pings]
    assert {} == swim.book.suspicions


@pytest.mark.parametrize("state", [DEAD, LEFT])
def test_nobody_is_asked_about_a_target_that_went_during_its_probe(state: MemberState) -> None:
    """C71: neither relays nor the stream, and the silence is held against nobody."""
    swim = a_swim(B, C, D)
    swim.book.members.probe_next(B.id)
    swim.tick(1.0)
    swim.take_outputs()
    swim.handle(a_packet(C, a_rumour(replace(B, state=state, incarnation=1), C)), 1.2)

    for at in (1.5, 2.0):
        swim.tick(at)

    outputs = swim.take_outputs()
    assert ([], []) == (sent(outputs, PingRequest), only(outputs, StreamProbe))
    assert 0 == swim.book.awareness.score
    assert 1 == len([to for to, _ in sent(outputs, Ping)])


def test_the_dead_are_tried_again_and_again_and_nobody_else_is() -> None:
    """C69: contact with a dead member re-arms itself; the live and the departed are left alone."""
    config = a_config(GossipConfig(rejoin_interval=5.0, push_pull_interval=10_000.0))
    swim = Swim(A, config, CODEC, Random(7))
    for member in (replace(B, state=DEAD), C, replace(D, state=LEFT)):
        swim.book.members.put(member, 0.0)
    swim._timers.rejoin_at = 5.0

    tried = []
    for second in range(1, 31):
        swim.tick(float(second))
        tried += only(swim.take_outputs(), StartExchange)

    assert {StartExchange(B.address)} == set(tried)
    assert 5 <= len(tried) <= 7


# -- machines wired to each other ----------------------------------------------------------------


class OneWayMesh(Mesh):
    """Streams need both directions: where one is cut, nothing is exchanged either."""

    def _exchange(self, name: str, to: str) -> list[str]:
        return [] if (to, name) in self.cut else super()._exchange(name, to)


@pytest.mark.parametrize("seed", range(5))
def test_a_member_that_only_hears_is_removed_and_nobody_healthy_is(seed: int) -> None:
    """C79: what it sends is lost; it cannot accuse others, and cannot refute."""
    mesh = OneWayMesh(*"abcde", seed=seed, streams=False)
    mesh.run(3.0)
    mesh.cut = {("d", other): None for other in "abce"}

    mesh.run(60.0)

    healthy = {name: swim for name, swim in mesh.swims.items() if name != "d"}
    assert {DEAD} == {state_of(swim.book, D) for swim in healthy.values()}
    buried = {member for _, name, member in mesh.noted("member.dead") if name in healthy}
    assert {D.id} == buried


def test_an_address_is_joined_again_as_often_as_one_likes() -> None:
    """C81: every life after a crash is taken in, and only the last one counts."""
    mesh = Mesh(*"abc")

    for generation in range(2, 6):
        mesh.crash("b")
        reborn = a_member("b", generation=generation, seniority=10 + generation)
        swim = Swim(reborn, a_config(), CODEC, Random(generation))
        swim.book.members.put(A, 0.0)
        mesh.add("b", swim)
        swim.book.announce(mesh.now)
        mesh.run(2.0)

    for name in "ac":
        live = [member.id for member in mesh.swims[name].book.members.live()]
        assert sorted([A.id, reborn.id, C.id]) == sorted(live)
