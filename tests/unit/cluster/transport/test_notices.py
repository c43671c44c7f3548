"""Notices: told without an answer, in order, one write per tick; dropped and counted, never waited for."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from cache.cluster.ids import Address
from cache.cluster.transport.handshake import Role
from cache.cluster.transport.link import SILENCE_AFTER_PING, SILENCE_BEFORE_PING
from cache.cluster.transport.rpc import Peer
from cache.cluster.wire import frames
from cache.cluster.wire.encoding import encode_message
from cache.cluster.wire.frames import encode_frame
from cache.cluster.wire.messages import Done, Get, RaftNotice, ReplicaGone, Value
from tests.unit.cluster.transport.support import (
    GET,
    Endpoint,
    Endpoints,
    RawPeer,
    eventually,
)
from tests.unit.cluster.transport.test_link import RawServer

NOBODY = Address("127.0.0.1:1")


def notice(number: int = 0, size: int = 0) -> RaftNotice:
    return RaftNotice(b"u" * 16, f"m/{number}", b"b" * size)


class Heard:
    """Takes notices of one endpoint."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.notices: list[RaftNotice] = []
        self.peers: list[Peer] = []
        endpoint.rpc.register_notice(RaftNotice, self._take)

    def _take(self, told: RaftNotice, peer: Peer) -> None:
        self.notices.append(told)
        self.peers.append(peer)


@pytest.fixture
async def raw() -> AsyncIterator[RawServer]:
    server = RawServer()
    await server.start()
    yield server
    await server.close()


async def _pair(endpoints: Endpoints, **limits: Any) -> tuple[Endpoint, Endpoint]:  # Any: values
    return await endpoints.member(limits), await endpoints.member(limits)


async def _silent_link(endpoints: Endpoints, raw: RawServer) -> tuple[Endpoint, RawPeer]:
    """Return a teller with an open link on which one notice arrived, and who read it."""
    teller = await endpoints.member()
    assert teller.rpc.notify(raw.address, notice())
    peer = await raw.greeted()
    await eventually(lambda: len(peer.frames()) == 3)
    return teller, peer


# -- telling -----------------------------------------------------------------------------------------


async def test_notices_open_a_link_and_arrive_in_order(endpoints: Endpoints) -> None:
    """Those told before it was open wait for it; the handler knows who tells."""
    teller, hearer = await _pair(endpoints)
    heard = Heard(hearer)

    assert all(teller.rpc.notify(hearer.address, notice(n)) for n in range(3))
    await eventually(lambda: len(heard.notices) == 3)
    assert all(teller.rpc.notify(hearer.address, notice(n)) for n in range(3, 6))
    await eventually(lambda: len(heard.notices) == 6)

    assert [notice(n) for n in range(6)] == heard.notices
    assert {teller.address} == {peer.address for peer in heard.peers}
    assert (6, 0, 1) == tuple(teller.count(n) for n in ("notices", "notices_dropped", "links"))
    assert (6, 1) == (hearer.count("notices_served"), hearer.count("inbound_connections"))


async def test_a_tick_of_notices_and_calls_is_one_write(endpoints: Endpoints) -> None:
    """Nothing is written before the tick ends; a notice goes before the call that was made after it."""
    teller, hearer = await _pair(endpoints)
    heard = Heard(hearer)
    hearer.rpc.register(Get, lambda request, peer: Value(b"%d" % len(heard.notices)))
    await teller.rpc.call(hearer.address, GET, timeout=5)
    link = teller.rpc._links[hearer.address]
    writes: list[int] = []
    flush = link._flush

    def counted() -> None:
        writes.append(len(link._batch))
        flush()

    link._flush = counted  # type: ignore[method-assign]  # counts the real one's writes

    assert all(teller.rpc.notify(hearer.address, notice(n)) for n in range(100))
    reply = await teller.rpc.call(hearer.address, GET, timeout=5)

    assert Value(b"100") == reply
    assert 101 == writes[0]


async def test_nothing_is_kept_for_a_notice_that_arrived(endpoints: Endpoints) -> None:
    """No future, no deadline: a PONG that counts them ends the watch of the link."""
    teller, hearer = await _pair(endpoints)
    heard = Heard(hearer)
    assert teller.rpc.notify(hearer.address, notice())
    await eventually(lambda: len(heard.notices) == 1)
    link = teller.rpc._links[hearer.address]
    assert teller.rpc._sweep_timer is not None

    teller.clock.pushed += SILENCE_BEFORE_PING

    await eventually(lambda: teller.rpc._sweep_timer is None)
    assert (1, 1) == (link._arrived_count, link._notice_count)
    assert not link.is_waiting


# -- dropping ----------------------------------------------------------------------------------------


async def test_notices_to_nobody_are_dropped_and_counted(endpoints: Endpoints) -> None:
    """Those that wait for a link that does not open; the refusal is reported as for calls."""
    teller = await endpoints.member()
    refused: list[Address] = []
    teller.rpc.on_refused = refused.append

    assert all(teller.rpc.notify(NOBODY, notice(n)) for n in range(3))
    await eventually(lambda: teller.count("links") == 0)

    assert (3, 3) == (teller.count("notices"), teller.count("notices_dropped"))
    assert [NOBODY] == refused


async def test_notices_that_wait_for_a_link_are_bounded(
    endpoints: Endpoints, raw: RawServer
) -> None:
    """As many as `limits.in_flight_max`; the first ones are sent, calls beside them are not held up."""
    teller = await endpoints.member({"in_flight_max": 3})

    told = [teller.rpc.notify(raw.address, notice(n)) for n in range(5)]
    call = teller.rpc.call(raw.address, GET, timeout=5)
    peer = await raw.greeted()
    await eventually(lambda: len(peer.frames()) == 6)
    peer.write(encode_frame(frames.REPLY, 1, encode_message(Done())))

    assert told == [True, True, True, False, False]
    assert (2, 2) == (teller.count("notices_dropped"), teller.count("overloads"))
    assert [encode_message(notice(n)) for n in range(3)] == [
        body for kind, _, body in peer.frames() if kind == frames.NOTICE
    ]
    assert Done() == await call


async def test_bytes_that_wait_for_a_link_are_bounded(endpoints: Endpoints, raw: RawServer) -> None:
    """Together with those of calls."""
    teller = await endpoints.member({"send_buffer_bytes_max": 1000})
    assert teller.rpc.notify(raw.address, notice(size=900))

    assert not teller.rpc.notify(raw.address, notice(size=100))

    assert 1 == teller.count("notices_dropped")
    link = teller.rpc._links[raw.address]
    assert 900 < link._unsent_bytes <= 1000


async def test_an_open_link_that_does_not_drain_drops(endpoints: Endpoints, raw: RawServer) -> None:
    """Bytes that the peer does not read count; nothing grows above the limit."""
    limit = 4 * 1024 * 1024
    teller = await endpoints.member({"send_buffer_bytes_max": limit})
    assert teller.rpc.notify(raw.address, notice())
    peer = await raw.greeted()
    await eventually(lambda: len(peer.frames()) == 3)
    assert peer.stream is not None
    peer.stream.pause_reading()
    link = teller.rpc._links[raw.address]

    told = [teller.rpc.notify(raw.address, notice(size=1024 * 1024)) for _ in range(200)]

    assert 0 < told.count(True) < 200
    assert told.count(False) == teller.count("notices_dropped")
    assert link.buffered_bytes() <= limit


async def test_a_notice_over_the_frame_limit_is_dropped_and_said(
    endpoints: Endpoints, caplog: pytest.LogCaptureFixture
) -> None:
    """It would never arrive: the log names the limit, the caller goes on."""
    teller, hearer = await _pair(
        endpoints, value_bytes_max=1024, key_bytes_max=1024, frame_bytes_max=70_000
    )

    with caplog.at_level(logging.WARNING):
        assert not teller.rpc.notify(hearer.address, notice(size=70_000))

    assert "limits.frame_bytes_max" in caplog.text
    assert 1 == teller.count("notices_dropped")


async def test_a_closed_endpoint_drops(endpoints: Endpoints) -> None:
    """What is told while everything stops is no error."""
    teller, hearer = await _pair(endpoints)
    await teller.rpc.close()

    assert not teller.rpc.notify(hearer.address, notice())

    assert 1 == teller.count("notices_dropped")


# -- a peer that is gone -----------------------------------------------------------------------------


async def test_a_link_with_notices_only_is_watched(endpoints: Endpoints, raw: RawServer) -> None:
    """Nothing answers them, and the kernel buffers them for minutes: silence after a PING ends the link."""
    teller, peer = await _silent_link(endpoints, raw)
    lost: list[Address] = []
    teller.rpc.on_lost = lost.append

    teller.clock.pushed += SILENCE_BEFORE_PING
    await eventually(lambda: frames.PING in [kind for kind, _, _ in peer.frames()])
    teller.clock.pushed += SILENCE_AFTER_PING
    await eventually(lambda: teller.count("links") == 0)

    assert 1 == teller.count("links_silent")
    assert [raw.address] == lost
    assert teller.rpc.notify(raw.address, notice())
    await eventually(lambda: len(raw.peers) == 2)


async def test_a_pong_confirms_only_what_was_told_before_its_ping(
    endpoints: Endpoints, raw: RawServer
) -> None:
    """1. A PING goes. 2. Another notice goes. 3. The PONG comes: the second one is not known to be there."""
    teller, peer = await _silent_link(endpoints, raw)
    link = teller.rpc._links[raw.address]
    teller.clock.pushed += SILENCE_BEFORE_PING
    await eventually(lambda: (frames.PING, 1, b"") in peer.frames())

    assert teller.rpc.notify(raw.address, notice(2))
    peer.write(encode_frame(frames.PONG, 1, b""))
    await eventually(lambda: link._arrived_count == 1)
    teller.clock.pushed += SILENCE_BEFORE_PING

    await eventually(lambda: (frames.PING, 2, b"") in peer.frames())


async def test_a_pong_for_what_was_not_told_breaks_the_protocol(
    endpoints: Endpoints, raw: RawServer
) -> None:
    """A peer cannot confirm the future, and so end the watch of it."""
    teller, peer = await _silent_link(endpoints, raw)

    peer.write(encode_frame(frames.PONG, 2, b""))

    await eventually(lambda: teller.count("malformed") == 1)
    assert 0 == teller.count("links")


# -- hearing -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_id", "body"),
    [
        (0, encode_message(GET)),
        (0, encode_message(Done())),
        (0, b"\x93\xcc\xfa\xa0\xa0"),
        (0, b"\xc1"),
        (0, b""),
        (0, encode_message(notice()) + b"\0"),
        (7, encode_message(notice())),
    ],
    ids=["request", "reply", "unknown tag", "garbage", "empty", "more", "id"],
)
async def test_a_malformed_notice_ends_the_stream(
    endpoints: Endpoints, request_id: int, body: bytes
) -> None:
    """As any malformed frame: nothing is handled, and nothing after it is."""
    hearer = await endpoints.member()
    heard = Heard(hearer)
    peer = await endpoints.connect_raw(hearer.address)
    await peer.greet(Role.INITIATOR)

    good = encode_frame(frames.NOTICE, 0, encode_message(notice()))
    peer.write(encode_frame(frames.NOTICE, request_id, body) + good)
    await eventually(lambda: peer.lost)

    assert [] == heard.notices
    assert 1 == hearer.count("malformed")


async def test_a_notice_before_the_handshake_ends_the_stream(endpoints: Endpoints) -> None:
    """A stranger tells nothing."""
    hearer = await endpoints.member()
    heard = Heard(hearer)
    peer = await endpoints.connect_raw(hearer.address)

    peer.write(encode_frame(frames.NOTICE, 0, encode_message(notice())))
    await eventually(lambda: peer.lost)

    assert [] == heard.notices
    assert 1 == hearer.count("malformed")


async def test_the_serving_side_tells_nothing(endpoints: Endpoints, raw: RawServer) -> None:
    """Notices go from the calling side; each member opens its own link."""
    teller, peer = await _silent_link(endpoints, raw)

    peer.write(encode_frame(frames.NOTICE, 0, encode_message(notice())))

    await eventually(lambda: teller.count("malformed") == 1)
    assert 0 == teller.count("links")


async def test_a_notice_that_nobody_takes_is_counted(endpoints: Endpoints) -> None:
    """A member that does not offer the service yet, or any more; the stream goes on."""
    teller, hearer = await _pair(endpoints)
    heard = Heard(hearer)

    assert teller.rpc.notify(hearer.address, ReplicaGone(b"u", "main", "m/1"))
    assert teller.rpc.notify(hearer.address, notice())
    await eventually(lambda: len(heard.notices) == 1)

    assert (1, 1) == (hearer.count("notices_unserved"), hearer.count("notices_served"))


async def test_what_a_handler_raises_is_its_own_affair(
    endpoints: Endpoints, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged; the sender is told nothing, and further notices come."""
    teller, hearer = await _pair(endpoints)
    heard = Heard(hearer)

    def fail(told: ReplicaGone, peer: Peer) -> None:
        raise ZeroDivisionError

    hearer.rpc.register_notice(ReplicaGone, fail)

    assert teller.rpc.notify(hearer.address, ReplicaGone(b"u", "main", "m/1"))
    assert teller.rpc.notify(hearer.address, notice())
    await eventually(lambda: len(heard.notices) == 1)

    assert "rpc.notice_failed notice=ReplicaGone" in caplog.text
    assert 0 == hearer.count("malformed")


async def test_notices_are_not_read_while_answers_are_not(endpoints: Endpoints) -> None:
    """A peer that does not read its replies is not served further, notices included: nothing piles up."""
    hearer = await endpoints.member({"send_buffer_bytes_max": 1024})
    heard = Heard(hearer)
    hearer.rpc.register(Get, lambda request, peer: Value(b"v" * 8_000_000))
    peer = await endpoints.connect_raw(hearer.address)
    await peer.greet(Role.INITIATOR)
    assert peer.stream is not None
    peer.stream.pause_reading()

    peer.write(encode_frame(frames.REQUEST, 1, encode_message(GET)))
    peer.write(encode_frame(frames.NOTICE, 0, encode_message(notice())))
    await eventually(lambda: any(c.congested for c in hearer.rpc._inbound))
    assert [] == heard.notices
    peer.stream.resume_reading()

    await eventually(lambda: len(heard.notices) == 1)
