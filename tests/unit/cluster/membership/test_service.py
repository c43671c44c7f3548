"""The shell of membership: exchanges that compare first, and what an operator gets to see."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from cache.clock import SystemClock
from cache.cluster.config import ClusterConfig
from cache.cluster.ids import Address
from cache.cluster.membership.members import Member
from cache.cluster.membership.outputs import Exchanged, LoopStalled, Noted
from cache.cluster.membership.service import MembershipService
from cache.cluster.scope import Scope
from cache.cluster.wire.messages import CompareMembers, PushPull
from cache.cluster.wire.packets import Ack, Packet, PacketCodec, Ping
from cache.errors import UnavailableError
from cache.metrics import Metrics
from tests.unit.cluster.membership.support import DEAD, LEFT, SUSPECT, a_member

A, B, C, D, E = (a_member(name) for name in "abcde")
CODEC = PacketCodec(cluster_name="test", secret=None)


class End:
    """Transport and RPC endpoint of one service."""

    def __init__(self, net: Net, address: Address) -> None:
        self._net = net
        self._handlers = net.handlers.setdefault(address, {})

    def register(self, kind: type, handler: Callable[..., object]) -> None:
        self._handlers[kind] = handler

    async def call(self, address: Address, message: object, *, timeout: float) -> object:
        assert 0 < timeout
        self._net.asked.append(type(message))
        if address not in self._net.handlers:
            raise UnavailableError("nobody there")
        return self._net.handlers[address][type(message)](message, None)

    def send_packet(self, to: Address, payload: bytes) -> None:
        packet = CODEC.open(payload)
        assert isinstance(packet, Packet)
        self._net.packets.append((to, packet))


class Net:
    """Services of one process; calls are answered at once, packets only recorded."""

    def __init__(self) -> None:
        self.handlers: dict[Address, dict[type, Callable[..., object]]] = {}
        self.asked: list[type] = []
        self.packets: list[tuple[Address, Packet]] = []
        self._services: dict[MembershipService, Scope] = {}

    async def start(self, member: Member, *known: Member) -> tuple[MembershipService, Metrics]:
        """Return a service that knows some members, and its metrics."""
        end: Any = End(self, member.address)  # Any: the parts that are used
        metrics, scope = Metrics(), Scope(member.name)
        service = MembershipService(
            config=ClusterConfig.lan(cluster_name="test"),
            member=member.id,
            address=member.address,
            clock=SystemClock(),
            rng=Random(7),
            transport=end,
            rpc=end,
            metrics=metrics,
            scope=scope,
        )
        self._services[service] = scope
        await service.join()
        service._driver.post(Exchanged([other.to_record() for other in known]))
        service._driver.flush()
        self.packets.clear()
        return service, metrics

    async def close(self) -> None:
        """End all services."""
        for service, scope in self._services.items():
            service.close()
            await scope.close()


@pytest.fixture
async def net() -> AsyncIterator[Net]:
    net = Net()
    yield net
    await net.close()


async def exchange(service: MembershipService, other: Member) -> None:
    """Let a service exchange with another one."""
    service._exchanging[other.address] = None
    await service._exchange(other.address)
    service._driver.flush()


# -- exchanges -----------------------------------------------------------------------------------


async def test_equal_views_are_compared_and_not_sent(net: Net) -> None:
    """T6: at rest an exchange costs a few bytes, however many members there are."""
    a, metrics = await net.start(A, C)
    b, _ = await net.start(B, C)
    for service in (a, b):  # Each has the final record of the other.
        service._driver.post(Exchanged([a.local().to_record(), b.local().to_record()]))
        service._driver.flush()

    await exchange(a, B)

    assert [CompareMembers] == net.asked
    assert 1 == metrics.snapshot()["member.exchanges_spared"]


async def test_views_that_differ_are_exchanged_in_full(net: Net) -> None:
    """C44: afterwards both sides know everybody."""
    a, _ = await net.start(A, C)
    b, _ = await net.start(B, D)

    await exchange(a, B)
    b._driver.flush()

    assert [CompareMembers, PushPull] == net.asked
    for service in (a, b):
        assert ["a", "b", "c", "d"] == sorted(member.name for member in service.members())


@pytest.mark.parametrize(
    "news", [replace(C, state=SUSPECT), replace(C, state=DEAD), replace(C, incarnation=1)]
)
async def test_a_difference_about_one_member_is_enough(net: Net, news: Member) -> None:
    """What is believed of the living is compared: state and incarnation of each."""
    a, _ = await net.start(A, C)
    members = a._swim.book.members
    before = members.digest()

    members.put(news, 1.0)

    assert members.digest() != before


async def test_those_who_are_gone_are_not_compared(net: Net) -> None:
    """Each member forgets them at an instant of its own, so views would differ for minutes."""
    a, _ = await net.start(A, C)
    members = a._swim.book.members
    before = members.digest()

    members.put(replace(D, state=DEAD), 1.0)
    members.put(replace(E, state=LEFT), 1.0)

    assert members.digest() == before


async def test_about_a_suspect_equal_views_are_exchanged_too(net: Net) -> None:
    """That others suspect it, too, brings its death closer."""
    a, _ = await net.start(A, C)
    book = a._swim.book
    before = book.agrees(book.members.digest())

    book.suspect(C, A.id, 1.0)

    assert (True, False) == (before, book.agrees(book.members.digest()))


async def test_an_exchange_that_fails_is_over(net: Net) -> None:
    """The next one begins anew."""
    a, _ = await net.start(A)

    await exchange(a, E)

    assert {} == a._exchanging


# -- what an operator sees -----------------------------------------------------------------------


async def test_members_are_counted_by_state(net: Net) -> None:
    """C44: a gauge for each state, beside the one of all that are live."""
    a, metrics = await net.start(A, B, C)
    for member, state in ((C, SUSPECT), (D, DEAD), (E, LEFT)):
        a._swim.book.members.put(replace(member, state=state), 1.0)

    readings = metrics.snapshot()

    wanted = {"alive": 2, "suspect": 1, "dead": 1, "left": 1}
    assert wanted == {state: readings[f"member.count.{state}"] for state in wanted}
    assert 3 == readings["member.count"]


async def test_events_that_found_the_inbox_full_are_a_metric(net: Net) -> None:
    """S18: a flood is seen from outside."""
    a, metrics = await net.start(A, B)
    payload = CODEC.seal(Packet(sender=B.id, parts=[Ack(1)]))

    for _ in range(a._driver._inbox_max + 7):
        a.receive_packet(B.address, payload)

    assert 7 == metrics.snapshot()["member.events_dropped"]


async def test_lag_is_in_every_packet_and_a_metric(net: Net) -> None:
    """The node tells what it measured, with an answer that it sends anyway."""
    a, metrics = await net.start(A, B)

    a._driver.post(LoopStalled(1.94))
    ping = Packet(sender=B.id, parts=[Ping(sequence=1, target=A.id)], lag_tenths=31)
    a.receive_packet(B.address, CODEC.seal(ping))
    for _ in range(2):
        a._driver.flush()
    a.receive_packet(B.address, CODEC.seal(ping))
    a._driver.flush()

    assert 20 == net.packets[-1][1].lag_tenths
    assert 1.94 == metrics.snapshot()["member.lag"]
    assert {"a": 1.94, "b": 3.1} == {member.name: member.lag for member in a.members()}


@pytest.mark.parametrize(
    ("event", "level"),
    [
        ("member.name_conflict", logging.WARNING),
        ("member.cannot_refute", logging.WARNING),
        ("member.suspect", logging.INFO),
    ],
)
async def test_what_needs_an_operator_is_a_warning(
    net: Net, caplog: pytest.LogCaptureFixture, event: str, level: int
) -> None:
    """C62, S15: everything else is for whoever looks for it."""
    a, metrics = await net.start(A)

    with caplog.at_level(logging.INFO):
        a._perform(Noted(event, B.id))

    assert [level] == [record.levelno for record in caplog.records if event in record.message]
    assert 1 == metrics.snapshot()[event]
