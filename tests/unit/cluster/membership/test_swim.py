"""The machine of SWIM with Lifeguard: stepped by hand, and several wired to each other."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from cache.cluster.config import ClusterConfig
from cache.cluster.ids import Address
from cache.cluster.membership.members import Member, MemberState
from cache.cluster.membership.outputs import (
    Exchanged,
    LoopStalled,
    MembersChanged,
    Output,
    Refused,
    SendPacket,
    StartExchange,
    StreamAnswered,
    StreamProbe,
)
from cache.cluster.membership.swim import Swim
from cache.cluster.wire.packets import Ack, Nack, Ping, PingRequest, Rumour
from tests.unit.cluster.membership.support import (
    ALIVE,
    CODEC,
    DEAD,
    LEFT,
    SUSPECT,
    Mesh,
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

A, B, C, D, E = (a_member(name) for name in "abcde")


def life_of(member: Member) -> str:
    """Return what a ping calls a member."""
    return member.id.partition("#")[2]


def begin_probe(swim: Swim, now: float = 1.0) -> tuple[Address, Ping]:
    """Let the machine probe somebody now, and return whom."""
    swim.tick(now)
    [(to, ping)] = sent(swim.take_outputs(), Ping)
    return to, ping


def ask_relays(swim: Swim, now: float = 1.5) -> list[Output]:
    """Let the direct probe be late, and return what was done about it."""
    swim.tick(now)
    return swim.take_outputs()


# -- the probe: direct, indirect, by stream, suspicion, death ------------------------------------


def test_probe_pings_one_member_by_its_life() -> None:
    """Each protocol period one member is pinged (SWIM §3.1)."""
    swim = a_swim(B)

    to, ping = begin_probe(swim)

    assert (B.address, life_of(B)) == (to, ping.target)


def test_member_probes_once_per_interval() -> None:
    """The load of probing is one ping per interval, whatever the size (SWIM §3.1)."""
    swim = a_swim(B, C, D)

    pings = 0
    for tenth in range(10, 60):
        swim.tick(tenth / 10)
        for to, ping in sent(swim.take_outputs(), Ping):
            target = next(member for member in (B, C, D) if member.address == to)
            swim.handle(a_packet(target, Ack(sequence=ping.sequence)), tenth / 10)
            pings += 1

    assert 5 == pings


def test_first_probe_comes_at_a_random_instant_of_the_interval() -> None:
    """Members started together do not probe in step (memberlist: staggered triggers)."""
    swims = [Swim(A, a_config(), CODEC, Random(seed)) for seed in range(20)]

    for swim in swims:
        swim.start(50.0)

    first = {swim._timers.probe_at for swim in swims}
    assert 20 == len(first)
    assert 50.0 <= min(first) <= max(first) <= 51.0


def test_acknowledged_probe_bothers_nobody_else() -> None:
    """A member that answers in time stays alive (memberlist TestProbeNode)."""
    swim = a_swim(B, C)
    _, ping = begin_probe(swim)

    swim.handle(a_packet(B, Ack(sequence=ping.sequence)), 1.1)
    outputs = ask_relays(swim)

    assert ([], []) == (sent(outputs, PingRequest), only(outputs, StreamProbe))
    assert [ALIVE, ALIVE] == [member.state for member in swim.book.members.others()]


def test_numbers_of_probes_recur_and_are_still_answered() -> None:
    """A number takes two bytes; after 65,536 of them the first one comes again."""
    swim = a_swim(B)
    swim._sequence = 2**16 - 1
    _, ping = begin_probe(swim)

    swim.handle(a_packet(B, Ack(sequence=ping.sequence)), 1.1)

    assert 0 == ping.sequence
    assert [] == only(ask_relays(swim), StreamProbe)


def test_late_probe_asks_relays_and_the_stream() -> None:
    """k others are asked to ping it, the stream is tried beside (SWIM §3.1; memberlist)."""
    swim = a_swim(B, C, D, E, a_member("f"), a_member("g"))
    to, ping = begin_probe(swim)

    outputs = ask_relays(swim)

    relays = sent(outputs, PingRequest)
    assert 3 == len({relay for relay, _ in relays} - {to, A.address})
    target = next(member.id for member in swim.book.members.others() if member.address == to)
    assert {PingRequest(ping.sequence, target, to)} == {request for _, request in relays}
    assert [StreamProbe(ping.sequence, target, to, 0.5)] == only(outputs, StreamProbe)


def test_relays_are_asked_once() -> None:
    """One indirect round per probe (SWIM §3.1)."""
    swim = a_swim(B, C)
    begin_probe(swim)
    ask_relays(swim)

    outputs = ask_relays(swim, 1.7)

    assert [] == outputs


def test_relay_pings_the_target_and_passes_its_answer_on() -> None:
    """The relay answers with the requester's sequence number (memberlist HandleIndirectPing)."""
    swim = a_swim(B, C)

    swim.handle(a_packet(B, PingRequest(77, C.id, C.address)), 0.1)
    [(to, ping)] = sent(swim.take_outputs(), Ping)
    swim.handle(a_packet(C, Ack(sequence=ping.sequence)), 0.2)

    assert (C.address, life_of(C)) == (to, ping.target)
    assert [(B.address, Ack(sequence=77))] == sent(swim.take_outputs(), Ack)


def test_indirect_acknowledgement_saves_the_target() -> None:
    """A relayed answer counts like a direct one (SWIM §3.1)."""
    swim = a_swim(B, C)
    _, ping = begin_probe(swim)
    ask_relays(swim)

    swim.handle(a_packet(C, Ack(sequence=ping.sequence)), 1.8)
    swim.tick(2.0)

    assert [] == [note for note in notes(swim.take_outputs()) if note[0] == "member.suspect"]


def test_answer_by_stream_saves_the_target() -> None:
    """Packets lost one way do not make a member suspect (memberlist FallbackTCP)."""
    swim = a_swim(B)
    _, ping = begin_probe(swim)
    ask_relays(swim)

    swim.handle(StreamAnswered(ping.sequence, alive=True, gone=False), 1.8)
    swim.tick(2.0)

    assert ALIVE == state_of(swim.book, B)
    assert [("member.stream_only", B.id)] == notes(swim.take_outputs())


def test_acknowledgement_of_another_probe_is_ignored() -> None:
    """An ack with an old number is no answer (foca probe_cycle_requires_correct_probe_number)."""
    swim = a_swim(B)
    _, ping = begin_probe(swim)

    swim.handle(a_packet(B, Ack(sequence=ping.sequence - 1)), 1.1)
    swim.tick(2.0)

    assert SUSPECT == state_of(swim.book, B)


def test_member_that_answers_nobody_is_suspected_at_the_end_of_the_interval() -> None:
    """No answer, direct or not, within the period: suspect (SWIM §4.2)."""
    swim = a_swim(B)
    begin_probe(swim)
    ask_relays(swim)

    swim.tick(1.99)
    before = state_of(swim.book, B)
    swim.tick(2.0)

    assert (ALIVE, SUSPECT) == (before, state_of(swim.book, B))
    assert [("member.suspect", B.id)] == notes(swim.take_outputs())


def test_suspected_member_is_told_with_the_next_ping() -> None:
    """The ping to a suspect carries the suspicion first (Lifeguard §3.3, buddy system)."""
    suspect = a_member("b", 0, SUSPECT)
    swim = a_swim(suspect)

    swim.tick(1.0)

    [packet] = only(swim.take_outputs(), SendPacket)
    assert a_rumour(suspect, A) == packet.parts[0]
    assert isinstance(packet.parts[1], Ping)


def test_suspected_member_still_dies_when_nobody_confirms() -> None:
    """The suspicion runs out by itself (SWIM §4.2; memberlist TestProbeNode_Suspect)."""
    swim = a_swim(B)
    begin_probe(swim)
    swim.tick(2.0)

    swim.tick(5.0)

    assert DEAD == state_of(swim.book, B)
    assert ("member.dead", B.id) in notes(swim.take_outputs())


def test_failed_probe_of_a_suspect_confirms_it() -> None:
    """An own failed probe is independent evidence for what others suspect (Lifeguard §3.2)."""
    swim = a_swim(B, C, D, E)
    swim.handle(a_packet(C, a_rumour(a_member("b", 0, SUSPECT), C)), 0.1)
    swim.book.members._probe_order = [B.id]
    begin_probe(swim)

    swim.tick(2.0)

    assert pytest.approx(0.1 + 10.5) == swim.book.next_suspicion()


def test_member_that_left_during_its_probe_is_not_suspected() -> None:
    """A leave ends the probe's meaning (foca: membership changes mid-probe)."""
    swim = a_swim(B, C)
    swim.book.members._probe_order = [B.id]
    begin_probe(swim)

    swim.handle(a_packet(C, a_rumour(a_member("b", 1, LEFT))), 1.2)
    swim.tick(2.0)

    assert LEFT == state_of(swim.book, B)


def test_alone_nobody_is_probed() -> None:
    """Without others there is no probe target (foca next_yields_none)."""
    swim = a_swim()

    swim.tick(1.0)

    assert [] == sent(swim.take_outputs(), Ping)


# -- refused streams -----------------------------------------------------------------------------


def test_refused_stream_probe_buries_at_once() -> None:
    """Nobody listens at the address: no timeout is needed to know that the life is over."""
    swim = a_swim(B)
    _, ping = begin_probe(swim)
    ask_relays(swim)

    swim.handle(StreamAnswered(ping.sequence, alive=False, gone=True), 1.6)

    assert DEAD == state_of(swim.book, B)


def test_unanswered_stream_probe_alone_buries_nobody() -> None:
    """Silence is no proof; the suspicion decides."""
    swim = a_swim(B)
    _, ping = begin_probe(swim)
    ask_relays(swim)

    swim.handle(StreamAnswered(ping.sequence, alive=False, gone=False), 1.6)

    assert ALIVE == state_of(swim.book, B)


def test_answer_to_a_stream_probe_never_made_is_ignored() -> None:
    """Stale tokens change nothing (foca: stale timers are ignored by token)."""
    swim = a_swim(B)

    swim.handle(StreamAnswered(12345, alive=False, gone=True), 1.6)

    assert [] == swim.take_outputs()


def test_refused_stream_is_verified_once_more_before_it_is_believed() -> None:
    """A refusal seen elsewhere makes the machine look itself, once at a time."""
    swim = a_swim(B)

    swim.handle(Refused(B.address), 0.1)
    swim.handle(Refused(B.address), 0.1)

    [probe] = only(swim.take_outputs(), StreamProbe)
    assert (B.id, B.address, ALIVE) == (probe.member, probe.address, state_of(swim.book, B))


def test_refusals_of_a_member_that_refuted_one_are_no_evidence() -> None:
    """Its streams are blocked, not its port empty: packets decide for a while."""
    swim = a_swim(B)
    swim.book.bury_refused(B, 0.1)
    swim.handle(a_packet(B, a_rumour(a_member("b", 1))), 0.2)
    swim.take_outputs()

    swim.handle(Refused(B.address), 1.0)

    assert [] == swim.take_outputs()


# -- answering -----------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [A.id, life_of(A)])
def test_ping_is_answered_with_its_number(target: str) -> None:
    """A ping is acknowledged to where it came from; it names a life, its member too if it likes."""
    swim = a_swim(B)

    swim.handle(a_packet(B, Ping(sequence=9, target=target)), 0.1)

    assert [SendPacket(B.address, [Ack(sequence=9)])] == swim.take_outputs()


@pytest.mark.parametrize(
    "target", [a_member("a", generation=2).id, life_of(a_member("a", generation=2)), B.id, ""]
)
def test_ping_for_another_life_is_not_answered(target: str) -> None:
    """A restarted process does not keep its old life alive (memberlist HandlePing_WrongNode)."""
    swim = a_swim(B)

    swim.handle(a_packet(B, Ping(sequence=9, target=target)), 0.1)

    assert [] == swim.take_outputs()


def test_acknowledgement_carries_news() -> None:
    """Rumours ride on acks (SWIM §4.1; memberlist TestSendMsg_Piggyback)."""
    swim = a_swim(B)
    swim.book.broadcasts.put(C.id, a_rumour(C))

    swim.handle(a_packet(B, Ping(sequence=9, target=A.id)), 0.1)

    assert [SendPacket(B.address, [Ack(sequence=9), a_rumour(C)])] == swim.take_outputs()


def test_buried_member_that_talks_is_told_so() -> None:
    """It learns of its death and refutes (foca message_from_down_member_is_replied)."""
    dead = a_member("b", 0, DEAD)
    swim = a_swim(dead)

    swim.handle(a_packet(B, Ack(sequence=0)), 0.1)

    assert [(B.address, a_rumour(dead, A))] == sent(swim.take_outputs(), Rumour)


# -- Lifeguard: nack and local health ------------------------------------------------------------


def test_relay_without_an_answer_says_so_in_time() -> None:
    """The nack comes at 80 % of the probe timeout, once (Lifeguard §3.1)."""
    swim = a_swim(B, C)
    swim.handle(a_packet(B, PingRequest(77, C.id, C.address)), 0.0)
    swim.take_outputs()

    nacks = []
    for instant in (0.39, 0.4, 0.45):
        swim.tick(instant)
        nacks.append(sent(swim.take_outputs(), Nack))

    assert [[], [(B.address, Nack(sequence=77))], []] == nacks


def test_late_answer_is_relayed_after_a_nack() -> None:
    """A nack does not consume the relay, a later ack still passes (memberlist C39)."""
    swim = a_swim(B, C)
    swim.handle(a_packet(B, PingRequest(77, C.id, C.address)), 0.0)
    [(_, ping)] = sent(swim.take_outputs(), Ping)
    swim.tick(0.4)

    swim.handle(a_packet(C, Ack(sequence=ping.sequence)), 0.9)

    assert [(B.address, Ack(sequence=77))] == sent(swim.take_outputs(), Ack)


def test_relay_forgets_a_request_in_the_end() -> None:
    """A far too late answer is not relayed; nothing is kept for ever (memberlist C39)."""
    swim = a_swim(B, C)
    swim.handle(a_packet(B, PingRequest(77, C.id, C.address)), 0.0)
    [(_, ping)] = sent(swim.take_outputs(), Ping)
    swim.tick(2.0)

    swim.handle(a_packet(C, Ack(sequence=ping.sequence)), 2.1)

    assert [] == [ack for _, ack in sent(swim.take_outputs(), Ack) if ack.sequence == 77]


def test_relay_ignores_a_target_it_does_not_know() -> None:
    """Nobody makes this member send packets to an address of his choice."""
    swim = a_swim(B)

    swim.handle(a_packet(B, PingRequest(77, "x#1", "victim:1")), 0.1)

    assert [] == swim.take_outputs()


@pytest.mark.parametrize(("nacks", "score"), [(2, 0), (1, 1), (0, 2)])
def test_each_missing_nack_lowers_the_trust_in_oneself(nacks: int, score: int) -> None:
    """Silent relays hint that the fault is here (Lifeguard §3.1; memberlist MissedNack)."""
    swim = a_swim(B, C, D)
    swim.book.members._probe_order = [B.id]
    _, ping = begin_probe(swim)
    ask_relays(swim)

    for relay in (C, D)[:nacks]:
        swim.handle(a_packet(relay, Nack(sequence=ping.sequence)), 1.9)
    swim.tick(2.0)

    assert (score, SUSPECT) == (swim.book.awareness.score, state_of(swim.book, B))


def test_failed_probe_without_relays_lowers_the_trust_in_oneself() -> None:
    """With nobody to ask, either side may be at fault (Lifeguard §3.1; memberlist OldProtocol)."""
    swim = a_swim(B)
    begin_probe(swim)

    swim.tick(2.0)

    assert 1 == swim.book.awareness.score


def test_answered_probe_restores_the_trust_in_oneself() -> None:
    """Each success takes one point off, and a repeated ack none (memberlist Awareness_Improved)."""
    swim = a_swim(B)
    swim.book.awareness.add(3)
    _, ping = begin_probe(swim)

    swim.handle(a_packet(B, Ack(sequence=ping.sequence), Ack(sequence=ping.sequence)), 1.1)

    assert 2 == swim.book.awareness.score


@pytest.mark.parametrize("score", [0, 1, 7])
def test_doubtful_member_probes_more_slowly_and_waits_longer(score: int) -> None:
    """Interval and timeout times score + 1 (Lifeguard §3.1; memberlist Awareness_Degraded)."""
    swim = a_swim(B, C)
    swim.book.awareness.add(score)

    begin_probe(swim)

    probe = swim._probe
    assert probe is not None
    assert (1.0 + 0.5 * (score + 1), 1.0 + (score + 1)) == (probe.late_at, probe.ends_at)
    assert probe.ends_at == swim._timers.probe_at


def test_stalled_loop_lowers_the_trust_in_oneself() -> None:
    """A member whose loop did not run is the slow one (Lifeguard §3.1)."""
    swim = a_swim(B)

    swim.handle(LoopStalled(3.0), 1.0)

    assert 1 == swim.book.awareness.score


# -- timers --------------------------------------------------------------------------------------


def test_next_deadline_is_never_late_for_a_timer() -> None:
    """Before the deadline a tick does nothing, at it something happens: no polling, no miss."""
    swim = a_swim(B, C)

    for _ in range(60):
        deadline = swim.next_deadline()
        assert deadline is not None
        swim.tick(deadline - 1e-6)
        assert [] == swim.take_outputs()
        swim.tick(deadline)
        assert deadline != swim.next_deadline()
        swim.take_outputs()


def test_gossip_timer_runs_only_while_there_is_news() -> None:
    """An idle member is not woken for nothing to say."""
    swim = a_swim()
    swim.tick(2.0)
    idle = swim.next_deadline()

    swim.book.broadcasts.put(B.id, a_rumour(B))
    busy = swim.next_deadline()

    assert idle is not None
    assert busy is not None
    assert 2.0 < busy <= 2.2 < idle


def test_machine_that_was_not_started_has_no_deadline() -> None:
    """Nothing is sent before the record of this member is final."""
    swim = Swim(A, a_config(), CODEC, Random(7))

    assert swim.next_deadline() is None


def test_second_exchange_follows_soon_after_the_start() -> None:
    """A second push-pull 1 to 2 s after joining closes the gap one lost rumour leaves."""
    swim = a_swim(B)

    swim.tick(0.99)
    before = only(swim.take_outputs(), StartExchange)
    swim.tick(2.0)

    after = only(swim.take_outputs(), StartExchange)
    assert ([], [StartExchange(B.address)]) == (before, after)


@pytest.mark.parametrize(("members", "stretch"), [(32, 1), (33, 2), (64, 2), (65, 3), (128, 3)])
def test_exchanges_are_stretched_in_large_clusters(members: int, stretch: int) -> None:
    """1 up to 32 members, one more with each doubling (memberlist TestPushPullScale)."""
    swim = a_swim(*(a_member(f"m{i}") for i in range(members - 1)))

    interval = swim._exchange_interval()

    assert 30.0 * stretch == pytest.approx(interval, rel=0.1)


def test_peers_that_are_no_members_are_tried_again_and_again() -> None:
    """Configured peers are reached for ever: this is what heals a split."""
    config = ClusterConfig.lan(peers=("b:1", "z:1"))
    swim = Swim(A, config, CODEC, Random(7))
    swim.book.members.put(B, 0.0)
    swim.start(0.0)

    tried = []
    for second in range(3, 22):
        swim.book.members.put(B, 0.0)
        swim._rejoin(float(second))
        tried.append(only(swim.take_outputs(), StartExchange))

    assert [[StartExchange(Address("z:1"))]] * 19 == tried


def test_dead_member_is_tried_again() -> None:
    """Both sides of a split buried each other: contact with the dead heals it (foca C69)."""
    swim = a_swim(a_member("b", 0, DEAD), a_member("c", 0, LEFT))

    swim._rejoin(10.0)

    assert [StartExchange(B.address)] == swim.take_outputs()


def test_full_state_of_another_member_is_merged() -> None:
    """A push-pull brings members never heard of (memberlist TestMergeState)."""
    swim = a_swim(B)

    swim.handle(Exchanged([C.to_record(), A.to_record()]), 1.0)

    assert [A, B, C] == swim.book.members.live()


# -- leaving -------------------------------------------------------------------------------------


def test_intent_to_leave_is_announced_by_a_live_member() -> None:
    """A leaving member still counts, but gets no new copies."""
    swim = a_swim(B)

    swim.announce_leaving(1.0)

    outputs = swim.take_outputs()
    announced = replace(A, incarnation=1, leaving=True)
    assert [(B.address, a_rumour(announced))] == sent(outputs, Rumour)
    assert (ALIVE, [MembersChanged()]) == (swim.book.local.state, only(outputs, MembersChanged))


def test_farewell_stops_probing() -> None:
    """After the goodbye no timer of this member's own is left."""
    swim = a_swim(B, C)
    begin_probe(swim)

    swim.leave(1.1)

    left = a_rumour(a_member("a", 1, LEFT))
    assert [(B.address, left), (C.address, left)] == sent(swim.take_outputs(), Rumour)
    assert swim.next_deadline() is None


# -- machines wired to each other ----------------------------------------------------------------


def everybody(mesh: Mesh, state: MemberState) -> dict[str, MemberState]:
    return dict.fromkeys(mesh.swims, state)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_healthy_members_never_suspect_each_other(count: int) -> None:
    """Strong accuracy without loss: two minutes without a single accusation (SWIM §3.2)."""
    mesh = Mesh(*"abcde"[:count])

    mesh.run(120.0)

    assert [] == mesh.noted("member.suspect")
    assert [0] * count == [swim.book.awareness.score for swim in mesh.swims.values()]


def test_every_member_probes_every_other_within_two_rounds() -> None:
    """Each is probed within 2n - 1 intervals by each (SWIM §4.3, time-bounded completeness)."""
    mesh = Mesh(*"abcde")

    mesh.run(10.0)

    pings = {
        (name, output.to[0])
        for _, name, output in mesh.outputs
        if isinstance(output, SendPacket)
        for part in output.parts
        if isinstance(part, Ping)
    }
    assert {(x, y) for x in "abcde" for y in "abcde" if x != y} == pings


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("seed", range(5))
def test_crashed_member_is_suspected_then_buried_by_all(count: int, seed: int) -> None:
    """Strong completeness: each crash is noticed by every live member (SWIM §3.2)."""
    mesh = Mesh(*"abcde"[:count], seed=seed)
    mesh.run(5.0)

    crashed = mesh.crash("b")
    mesh.run(20.0)

    assert everybody(mesh, DEAD) == mesh.states(crashed)
    assert mesh.noted("member.suspect")[0][0] < mesh.noted("member.dead")[0][0]


@pytest.mark.parametrize("seed", range(5))
def test_death_is_known_to_all_at_almost_the_same_instant(seed: int) -> None:
    """News goes out on a change, not on the next tick only: within one gossip interval."""
    mesh = Mesh(*"abcde", seed=seed)

    mesh.crash("c")
    mesh.run(25.0)

    instants = [at for at, _, _ in mesh.noted("member.dead")]
    assert 4 == len(instants)
    assert max(instants) - min(instants) <= 0.2


def test_survivors_do_not_suspect_each_other_over_a_crash() -> None:
    """One silent member discredits nobody else (Lifeguard §5)."""
    mesh = Mesh(*"abcde")

    crashed = mesh.crash("c")
    mesh.run(60.0)

    assert {crashed.id} == {member for _, _, member in mesh.noted("member.suspect")}


def test_broken_path_is_bridged_by_relays() -> None:
    """Indirect probes route around a bad path between two members (SWIM §3.1)."""
    mesh = Mesh(*"abc", streams=False)
    mesh.cut = {("a", "b"): None, ("b", "a"): None}

    mesh.run(60.0)

    assert [] == mesh.noted("member.suspect")


def test_lost_packets_are_bridged_by_streams() -> None:
    """A member reachable by stream only stays alive (memberlist TestProbeNode_FallbackTCP)."""
    mesh = Mesh("a", "b")
    mesh.isolate("b")

    mesh.run(60.0)

    assert [] == mesh.noted("member.suspect")
    assert mesh.noted("member.stream_only")


def test_suspected_member_that_lives_refutes_in_time() -> None:
    """A false suspicion is heard, refuted with a higher incarnation, and dropped (SWIM §4.2)."""
    mesh = Mesh(*"abc")
    suspected = mesh.swims["b"].book.local

    mesh.swims["a"].book.suspect(suspected, A.id, mesh.now)
    mesh.run(0.1)

    assert everybody(mesh, ALIVE) == mesh.states(suspected)
    assert 1 == mesh.swims["b"].book.local.incarnation


def test_member_cut_off_for_a_while_comes_back_with_the_same_life() -> None:
    """Buried by all and burying all, it heals by itself (memberlist never does: #222)."""
    mesh = Mesh(*"abcd", streams=False)
    mesh.isolate("d")
    mesh.run(40.0)
    split = mesh.states(mesh.swims["d"].book.local)

    mesh.cut.clear()
    mesh.run(40.0)

    assert {"a": DEAD, "b": DEAD, "c": DEAD, "d": ALIVE} == split
    for swim in mesh.swims.values():
        assert everybody(mesh, ALIVE) == mesh.states(swim.book.local)


def test_leave_is_known_to_all_at_once_and_never_suspected() -> None:
    """A graceful leave costs no detection time (memberlist TestMemberlist_Leave)."""
    mesh = Mesh(*"abcd")
    mesh.run(5.0)

    mesh.swims["b"].leave(mesh.now)
    mesh.run(0.0)
    left = mesh.crash("b")
    mesh.run(30.0)

    assert everybody(mesh, LEFT) == mesh.states(left)
    assert ([], []) == (mesh.noted("member.suspect"), mesh.noted("member.dead"))


def test_restarted_member_replaces_its_old_life_everywhere() -> None:
    """A new generation at the same address ends the old one without a timeout."""
    mesh = Mesh(*"abc")
    old = mesh.crash("b")

    reborn: Member = a_member("b", generation=2, seniority=9)
    swim = Swim(reborn, a_config(), CODEC, Random(3))
    swim.book.members.put(a_member("a"), 0.0)
    mesh.add("b", swim)
    swim.book.announce(mesh.now)
    mesh.run(5.0)

    assert everybody(mesh, ALIVE) == mesh.states(reborn)
    assert (DEAD, DEAD) == (mesh.states(old)["a"], mesh.states(old)["c"])


def test_same_seed_gives_the_same_history() -> None:
    """A machine is a function of its seed and its events: any failure can be replayed."""
    histories = []
    for _ in range(2):
        mesh = Mesh(*"abcde", seed=11)
        mesh.crash("e")
        mesh.run(20.0)
        histories.append(mesh.outputs)

    assert histories[0] == histories[1]
