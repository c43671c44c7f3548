"""Lag: what a member says about stalls of its event loop, and how much longer the others wait for it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cache.cluster.ids import MemberId
from cache.cluster.membership.lag import LAG_WINDOW, Lag, from_tenths, patience, to_tenths
from cache.cluster.membership.outputs import LoopStalled, MembersChanged, StreamProbe
from cache.cluster.wire.packets import Ack, Ping, PingRequest
from tests.unit.cluster.membership.simulation import Host, World
from tests.unit.cluster.membership.support import (
    SUSPECT,
    a_member,
    a_packet,
    a_rumour,
    a_swim,
    notes,
    only,
    sent,
    state_of,
)

B, C, D = (a_member(name) for name in "bcd")
SLOW = replace(B, lag=2.0)


# -- measuring -----------------------------------------------------------------------------------


def test_the_longest_stall_is_remembered_and_forgotten() -> None:
    """For one window at least, for two at most; a shorter one later changes nothing."""
    lag = Lag()
    lag.note(2.0, 10.0)
    lag.note(0.7, 11.0)

    remembered = [lag.worst(at) for at in (11.0, LAG_WINDOW + 10.0, 2 * LAG_WINDOW + 1)]

    assert [2.0, 2.0, 0.0] == remembered


def test_a_stall_long_ago_does_not_come_back() -> None:
    """Windows in which nobody looked count, too."""
    lag = Lag()
    lag.note(2.0, 10.0)

    assert 0.0 == lag.worst(5 * LAG_WINDOW)


@pytest.mark.parametrize(
    ("seconds", "told"), [(0.0, 0.0), (0.51, 0.6), (2.0, 2.0), (12.61, 12.7), (3600.0, 12.7)]
)
def test_a_packet_carries_tenths_rounded_up_and_at_most_a_byte(seconds: float, told: float) -> None:
    """Too much patience costs little, too little costs a suspicion."""
    assert told == from_tenths(to_tenths(seconds))


def test_a_stall_stands_in_the_own_record_and_is_no_change_of_the_members() -> None:
    """Peers are told by packets that are sent anyway: no rumour for each stall."""
    swim = a_swim(B)

    swim.handle(LoopStalled(2.0), 0.1)
    swim.tick(0.1)

    assert (2.0, 0) == (swim.book.local.lag, len(swim.book.broadcasts))
    assert [] == only(swim.take_outputs(), MembersChanged)


# -- hearing -------------------------------------------------------------------------------------


def test_what_a_member_says_of_its_lag_outlasts_rumours_about_it() -> None:
    """No rumour carries a lag, so none overwrites it."""
    swim = a_swim(B)
    swim.handle(a_packet(SLOW, Ack(1)), 0.1)

    for state, incarnation in ((SUSPECT, 0), (B.state, 1)):
        news = replace(B, state=state, incarnation=incarnation)
        swim.handle(a_packet(C, a_rumour(news, C)), 0.2)

    known = swim.book.members.get(B.id)
    assert known is not None
    assert (1, 2.0) == (known.incarnation, known.lag)


def test_the_lag_is_the_last_one_told() -> None:
    """A member that has recovered says so."""
    swim = a_swim(B)

    for lag in (2.0, 0.0):
        swim.handle(a_packet(replace(B, lag=lag), Ack(1)), 0.1)

    assert [0.0] == [member.lag for member in swim.book.members.others()]


def test_nobody_speaks_for_this_member_or_for_strangers() -> None:
    """A lag is heard from the member itself, and only of somebody known."""
    swim = a_swim(B)

    for name in "az":
        swim.handle(a_packet(replace(a_member(name), lag=9.0), Ack(1)), 0.1)

    assert [0.0, 0.0] == [member.lag for member in swim.book.members.all()]


# -- waiting -------------------------------------------------------------------------------------


def test_a_slow_member_has_that_much_longer_to_answer() -> None:
    """Relays are asked 0.5 s + lag after the ping, suspicion begins 1 s + lag after it."""
    swim = a_swim(SLOW)
    swim.tick(1.0)

    seen = []
    for at in (1.5, 3.49, 3.5, 3.99, 4.0):
        swim.tick(at)
        asked = len(only(swim.take_outputs(), StreamProbe))
        seen.append((at, asked, state_of(swim.book, B) is SUSPECT))

    assert [(1.5, 0, False), (3.49, 0, False), (3.5, 1, False)] == seen[:3]
    assert [(3.99, 0, False), (4.0, 0, True)] == seen[3:]


def test_a_probe_that_lasts_longer_keeps_its_timers() -> None:
    """While it waits the next one does not begin, and no deadline lies in the past."""
    swim = a_swim(SLOW)
    swim.tick(1.0)
    swim.take_outputs()

    swim.tick(2.5)

    deadline = swim.next_deadline()
    assert [] == sent(swim.take_outputs(), Ping)
    assert deadline is not None
    assert 2.5 < deadline <= 3.5


def test_an_answer_of_a_slow_member_ends_the_wait() -> None:
    """The next probe begins an interval after the last one, as always."""
    swim = a_swim(SLOW)
    swim.tick(1.0)
    [(_, ping)] = sent(swim.take_outputs(), Ping)

    swim.handle(a_packet(SLOW, Ack(ping.sequence)), 1.2)
    swim.tick(2.0)

    assert 1 == len(sent(swim.take_outputs(), Ping))


@pytest.mark.parametrize("interval", [0.5, 1.0, 5.0])
def test_whatever_a_member_claims_it_has_five_intervals_longer_at_most(interval: float) -> None:
    """A hostile claim delays the discovery of a death by a bounded time."""
    waits = [patience(lag, interval) for lag in (0.0, 2.0, 3600.0)]

    assert [0.0, 2.0, 5 * interval] == waits


def test_a_claim_does_not_hide_a_crash() -> None:
    """B says that it stalls for 12.7 s, and dies: it is suspected 1 + 5 s after its ping."""
    swim = a_swim(replace(B, lag=12.7), C, D)
    swim.book.members.probe_next(B.id)
    swim.tick(1.0)

    for at in (6.5, 7.0):
        swim.tick(at)

    outputs = swim.take_outputs()
    assert 2 == len(sent(outputs, PingRequest))
    assert [("member.suspect", B.id)] == notes(outputs)


# -- many machines -------------------------------------------------------------------------------


def stalling(size: int, blocked: float, seconds: float, seed: int) -> tuple[World, Host]:
    """Return a cluster in which one member stalled once a minute."""
    world = World(seed)
    world.form(size)
    world.run(3.0)
    host = world.rng.choice(list(world.hosts.values()))
    world.freeze_cyclically(host, blocked=blocked, open_for=60 - blocked)
    world.run(seconds)
    return world, host


def times(world: World, event: str, member: MemberId) -> int:
    """Return how many different stalls an event about a member came from."""
    return len({round(at / 60) for at, _ in world.noted.get((event, member), [])})


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_two_seconds_a_minute_for_an_hour_bury_nobody_and_are_suspected_once(seed: int) -> None:
    """The first stall comes as a surprise; before this was told, two of three led to a suspicion."""
    world, host = stalling(16, 2.0, 3600.0, seed)

    assert [] == world.deaths()
    assert times(world, "member.suspect", host.member.id) <= 1
    assert 1.0 <= host.member.lag <= 2.0


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_five_seconds_a_minute_for_an_hour_are_a_death_once_at_most(seed: int) -> None:
    """Four members, so that suspicion is short; before this was told, two of three stalls were a death."""
    world, host = stalling(4, 5.0, 3600.0, seed)

    assert times(world, "member.dead", host.member.id) <= 1
    assert {host.member.id} >= {about for about, _ in world.deaths()}
