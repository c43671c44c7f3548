"""Several lives at one address, hostile counters, and what is left after a member has gone."""

from __future__ import annotations

from dataclasses import replace

from cache.cluster.ids import Address, MemberId
from cache.cluster.membership.members import INCARNATION_MAX, member_from_record
from cache.cluster.membership.outputs import MembersChanged, PacketReceived, SendPacket
from cache.cluster.wire.packets import Ack, Packet, Ping, Rumour
from tests.unit.cluster.membership.support import (
    ALIVE,
    DEAD,
    SUSPECT,
    a_book,
    a_member,
    a_packet,
    a_rumour,
    a_swim,
    notes,
    sent,
    state_of,
)

OLD = a_member("b", generation=1, seniority=2)
NEW = a_member("b", generation=2, seniority=5)


def test_late_news_of_an_older_life_does_not_bury_the_newer_one() -> None:
    """Only one process listens at an address; who joined later is the later life."""
    book = a_book(NEW)

    book.hear(a_rumour(OLD), 1.0)

    assert (ALIVE, None) == (state_of(book, NEW), state_of(book, OLD))


def test_a_newcomer_does_not_count_the_long_dead() -> None:
    """A full exchange tells of them; they are nobody's members any more (memberlist mergeState)."""
    book = a_book()

    book.merge([NEW.to_record(), replace(OLD, state=DEAD).to_record()], 1.0)

    assert (ALIVE, None) == (state_of(book, NEW), state_of(book, OLD))


def test_the_incarnation_counter_cannot_be_exhausted_by_a_rumour() -> None:
    """The record of a member must stay plausible to everybody else."""
    book = a_book()

    book.hear(a_rumour(replace(book.local, state=SUSPECT, incarnation=INCARNATION_MAX)), 1.0)

    assert member_from_record(book.local.to_record()) is not None


def test_after_leaving_nothing_is_answered_and_nobody_is_buried() -> None:
    """The farewell was the last word."""
    b = a_member("b")
    swim = a_swim(b)
    swim.book.suspect(b, swim.book.local.id, 1.0)
    swim.leave(2.0)
    swim.take_outputs()

    swim.handle(a_packet(b, Ping(sequence=1, target=swim.book.local.id)), 3.0)
    swim.tick(1000.0)

    assert [] == swim.take_outputs()
    assert swim.next_deadline() is None


def test_a_record_that_fits_into_no_packet_is_noted_and_not_queued() -> None:
    """It could never be told, and would keep the gossip timer going for ever."""
    book = a_book()
    large = replace(a_member("b"), tags={"k": "v" * 5000})

    book.tell(large, large.id, 1.0)

    assert 0 == len(book.broadcasts)
    assert ("member.record_too_large", large.id) in notes(book.outputs)


def test_what_was_noted_about_a_member_goes_with_it() -> None:
    """Nothing is unbounded: hundreds of short lives leave nothing behind."""
    book = a_book()
    for generation in range(100):
        member = a_member("b", generation=generation, seniority=generation + 1)
        book.members.put(member, 1.0)
        book.bury_refused(member, 1.0)

    book.reap(1000.0, 10.0)

    assert {} == book._refusal_deaths
    assert 1 == len(book.members.all())


def test_an_acknowledgement_of_somebody_who_was_not_asked_does_not_count() -> None:
    """Only the target, or a relay that was asked, can say that the target lives (C65)."""
    b, c = a_member("b"), a_member("c")
    swim = a_swim(b)
    swim.tick(1.0)
    ping = sent(swim.take_outputs(), Ping)[0][1]

    swim.handle(a_packet(c, Ack(sequence=ping.sequence)), 1.1)
    swim.tick(1.6)

    assert swim._probe is not None
    assert not swim._probe.acked


def test_a_foreign_record_of_the_same_incarnation_is_overtaken() -> None:
    """Whoever heard the foreign one first would keep it otherwise (C24)."""
    book = a_book()

    book.hear(a_rumour(replace(book.local, weight=7)), 1.0)

    assert (1, 1) == (book.local.incarnation, book.local.weight)


def test_a_name_that_writes_lines_of_its_own_into_the_log_is_implausible() -> None:
    """Ids and addresses are logged (S19)."""
    assert (
        member_from_record(replace(a_member("b"), id=MemberId("b#1\nforged")).to_record()) is None
    )


def test_a_suspect_that_talks_is_told_at_once() -> None:
    """It need not wait for gossip, which may not reach it: to it, this member may be dead."""
    b = a_member("b")
    swim = a_swim(b)
    swim.book.suspect(b, swim.book.local.id, 1.0)
    swim.take_outputs()

    swim.handle(a_packet(b, Ack(sequence=99)), 1.1)

    told = [out for out in swim.take_outputs() if isinstance(out, SendPacket)]
    assert [b.address] == [packet.to for packet in told]
    assert [(b.id, SUSPECT)] == [
        (part.record.id, part.record.state)
        for packet in told
        for part in packet.parts
        if isinstance(part, Rumour)
    ]


def test_whoever_doubts_this_member_hears_from_it_directly() -> None:
    """Gossip goes to members that live; this one believes that the doubter does not."""
    b = a_member("b")
    swim = a_swim(b)
    swim.book.members.put(replace(b, state=DEAD), 0.0)
    doubt = a_rumour(replace(swim.book.local, state=SUSPECT), b)

    swim.handle(a_packet(b, doubt), 1.0)

    told = [out for out in swim.take_outputs() if isinstance(out, SendPacket)]
    refutations = [
        part.record.incarnation
        for packet in told
        if packet.to == b.address
        for part in packet.parts
        if isinstance(part, Rumour) and part.record.id == swim.book.local.id
    ]
    assert {1} == set(refutations)


def test_a_doubt_from_a_strange_address_is_not_answered_there() -> None:
    """Nobody can be flooded by naming a member and a victim's address."""
    b = a_member("b")
    swim = a_swim(b)
    swim.book.suspect(b, swim.book.local.id, 1.0)
    swim.take_outputs()
    doubt = a_rumour(replace(swim.book.local, state=SUSPECT), b)

    swim.handle(PacketReceived(Address("victim:1"), Packet(sender=b.id, parts=[doubt])), 1.1)

    packets = [out for out in swim.take_outputs() if isinstance(out, SendPacket)]
    assert [] == [packet for packet in packets if packet.to == "victim:1"]


def test_a_buried_member_that_is_suspected_in_a_later_life_counts_again() -> None:
    """The news that it had refuted its death was lost; that it is suspected again says the same."""
    b = a_member("b")
    book = a_book(replace(b, state=DEAD))

    book.hear(a_rumour(replace(b, state=SUSPECT, incarnation=2), a_member("c")), 1.0)

    assert SUSPECT == state_of(book, b)
    assert 1 == sum(isinstance(output, MembersChanged) for output in book.outputs)


def test_a_doubt_that_was_refuted_before_is_answered_again() -> None:
    """The refutation was told a limited number of times, while nothing got through."""
    b = a_member("b")
    swim = a_swim(b)
    swim.book.members.set_local(incarnation=3)
    doubt = a_rumour(replace(swim.book.local, state=SUSPECT, incarnation=1), b)

    swim.handle(a_packet(b, doubt), 1.0)

    told = [out for out in swim.take_outputs() if isinstance(out, SendPacket)]
    assert [(b.address, 3, ALIVE)] == [
        (packet.to, part.record.incarnation, part.record.state)
        for packet in told
        for part in packet.parts
        if isinstance(part, Rumour)
    ]
