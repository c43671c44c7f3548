"""Large values between endpoints: detached, received in place, bounded, never half of one. On both loops."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trustme

from cache.cluster.config import TlsConfig
from cache.cluster.transport.connection import LOOKED_AT, Connection
from cache.cluster.transport.handshake import Role
from cache.cluster.transport.link import Link
from cache.cluster.wire import frames
from cache.cluster.wire.detached import DETACHED_BYTES, DETACHED_BYTES_MIN
from cache.cluster.wire.encoding import encode_message
from cache.cluster.wire.frames import HEADER_BYTES, encode_frame, encode_header
from cache.cluster.wire.messages import Done, Get, GetMany, Many, RaftNotice, Set, SetMany, Value
from cache.errors import CodecError, ConnectionLostError, OverloadedError
from tests.unit.cluster.transport.support import GET, Endpoint, Endpoints, RawPeer, eventually
from tests.unit.cluster.transport.test_link import RawServer

MIB = 1024 * 1024
SMALL_FRAMES: dict[str, Any] = {  # Any: as LimitsConfig takes them
    "frame_bytes_max": 2 * MIB,
    "value_bytes_max": MIB,
    "key_bytes_max": 1024,
}
LARGE = bytes(range(251)) * (MIB // 251)
SET = Set("m", 1, b"k", LARGE, -1.0, b"o")


class Kept:
    """Handlers that keep the values they are given, and give them back."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.values: list[bytes | None] = []
        endpoint.rpc.register(Set, self._set)
        endpoint.rpc.register(SetMany, self._set_many)
        endpoint.rpc.register(Get, lambda request, peer: Value(self.values[-1]))
        endpoint.rpc.register(GetMany, lambda request, peer: self._many())

    def _set(self, request: Set, peer: object) -> Done:
        self.values.append(request.value)
        return Done()

    def _many(self) -> Many:
        return Many(self.values.copy())

    def _set_many(self, request: SetMany, peer: object) -> Done:
        self.values.extend(request.values)
        return Done()


@pytest.fixture
def tls(tmp_path: Path) -> TlsConfig:
    authority = trustme.CA()
    leaf = authority.issue_cert("127.0.0.1")
    leaf.private_key_pem.write_to_path(tmp_path / "key.pem")
    leaf.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return TlsConfig(
        certificate=tmp_path / "cert.pem", key=str(tmp_path / "key.pem"), ca=tmp_path / "ca.pem"
    )


@pytest.fixture
async def raw() -> AsyncIterator[RawServer]:
    server = RawServer()
    await server.start()
    yield server
    await server.close()


async def _greeted(endpoints: Endpoints, server: Endpoint) -> tuple[RawPeer, Connection]:
    """Return a client that speaks raw bytes, and the server's end of its stream."""
    peer = await endpoints.connect_raw(server.address)
    await peer.greet(Role.INITIATOR)
    (connection,) = server.rpc._inbound
    return peer, connection


def _protocol(connection: Connection) -> object:
    assert connection.stream is not None
    return connection.stream.get_protocol()


def _has_received(link: Link, size: int) -> bool:
    """Return whether so much of the body has come, or all of it and its message."""
    body = link._parser.body
    return not link.is_waiting if body is None else body.received >= size


def _is_complete(connection: Connection) -> bool:
    body = connection._parser.body
    return body is not None and body.is_complete


def _set_frames(value: bytes, request_id: int = 1) -> bytes:
    """Return a request to set a value that was detached."""
    rest = encode_message(Set("m", 1, b"k", b"", -1.0, b"o"))
    return encode_frame(frames.DETACHED, 0, value) + encode_frame(frames.REQUEST, request_id, rest)


# -- values pass ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [DETACHED_BYTES - 1, DETACHED_BYTES, MIB, 5 * MIB + 1])
async def test_values_of_any_size_pass_both_ways(endpoints: Endpoints, size: int) -> None:
    """Encoded whole, detached, and larger than what is set aside for a body at first."""
    caller, server = await endpoints.member(), await endpoints.member()
    kept = Kept(server)
    value = b"\x01" + LARGE * (size // len(LARGE)) + LARGE[: size % len(LARGE)]

    for _ in range(3):
        await caller.rpc.call(server.address, Set("m", 1, b"k", value, -1.0, b"o"), timeout=10)
        assert await caller.rpc.call(server.address, GET, timeout=10) == Value(value)

    assert kept.values == [value] * 3


async def test_columns_pass_both_ways(endpoints: Endpoints) -> None:
    """Large values among small ones, each in its place."""
    caller, server = await endpoints.member(), await endpoints.member()
    kept = Kept(server)
    values = [b"small", LARGE, b"", LARGE[::-1], b"last"]
    request = SetMany("m", [1] * 5, [b"k"] * 5, values, -1.0, b"o")

    for _ in range(2):
        await caller.rpc.call(server.address, request, timeout=10)
        reply = await caller.rpc.call(server.address, GetMany("m", [1], [b"k"], False), timeout=10)
        assert reply == Many(kept.values)

    assert kept.values == values * 2


async def test_many_large_calls_at_once_are_each_answered(endpoints: Endpoints) -> None:
    """Small ones between them keep their order, whatever protocol the stream has meanwhile."""
    caller, server = await endpoints.member(), await endpoints.member()
    kept = Kept(server)
    sizes = [100, MIB, 200, DETACHED_BYTES, 50_000, 3 * MIB, 300, 400]

    requests = [Set("m", 1, b"k", bytes([n]) * size, -1.0, b"") for n, size in enumerate(sizes)]
    await asyncio.gather(*(caller.rpc.call(server.address, r, timeout=10) for r in requests))

    assert [request.value for request in requests] == kept.values


async def test_a_call_made_while_connecting_keeps_its_value(endpoints: Endpoints) -> None:
    """It waits for the handshake with its detached value, and its bytes are given back."""
    caller, server = await endpoints.member(), await endpoints.member()
    kept = Kept(server)

    calls = [caller.rpc.call(server.address, SET, timeout=10) for _ in range(2)]
    link = caller.rpc._links[server.address]
    waiting = link._unsent_bytes
    await asyncio.gather(*calls)

    assert 2 * len(LARGE) < waiting < 2 * len(LARGE) + 200
    assert link._unsent_bytes == 0
    assert kept.values == [LARGE, LARGE]


async def test_a_call_that_times_out_while_connecting_gives_its_bytes_back(
    endpoints: Endpoints,
) -> None:
    """Those of the detached value, too."""
    caller, server = await endpoints.member(), await endpoints.member()
    call = caller.rpc.call(server.address, SET, timeout=1)
    link = caller.rpc._links[server.address]

    link.sweep(caller.clock.monotonic() + 2)

    assert call.exception() is not None
    assert link._unsent_bytes == 0


async def test_small_messages_are_looked_at_only_for_a_while(endpoints: Endpoints) -> None:
    """After a large value the next messages are looked at before they are encoded, 64 of them."""
    caller, server = await endpoints.member(), await endpoints.member()
    Kept(server)
    await caller.rpc.call(server.address, SET, timeout=10)
    link = caller.rpc._links[server.address]
    begun_with = link.looks_at

    for _ in range(LOOKED_AT + 1):
        await caller.rpc.call(server.address, GetMany("m", [], [], False), timeout=10)

    assert begun_with == LOOKED_AT
    assert link.looks_at == 0


# -- in place ------------------------------------------------------------------------------------


async def test_a_large_body_takes_the_stream_and_gives_it_back(endpoints: Endpoints) -> None:
    """Received in place from its header on; small frames that follow are received as pieces again."""
    server = await endpoints.member()
    kept = Kept(server)
    peer, connection = await _greeted(endpoints, server)
    whole = _set_frames(LARGE)

    peer.write(whole[: len(LARGE) // 2])
    await eventually(lambda: _protocol(connection) is not connection)
    peer.write(whole[len(LARGE) // 2 :])
    await eventually(lambda: kept.values == [LARGE])
    peer.write(encode_frame(frames.PING, 7, b""))
    await eventually(lambda: _protocol(connection) is connection)

    await eventually(lambda: (frames.PONG, 7, b"") in peer.frames())


async def test_a_large_message_without_values_is_answered_at_once(endpoints: Endpoints) -> None:
    """Many small values are one large body; it does not wait for what comes next."""
    server = await endpoints.member()
    kept = Kept(server)
    peer, _ = await _greeted(endpoints, server)
    values = [b"v" * 1000] * 3000
    request = SetMany("m", [1] * 3000, [b"k"] * 3000, values, -1.0, b"o")

    peer.write(encode_frame(frames.REQUEST, 1, encode_message(request)))

    await eventually(lambda: (frames.REPLY, 1, encode_message(Done())) in peer.frames())
    assert kept.values == values


async def test_large_values_back_to_back_stay_in_place(endpoints: Endpoints) -> None:
    """However the stream is cut: each header is found, and the next body received in place again."""
    server = await endpoints.member()
    kept = Kept(server)
    peer, connection = await _greeted(endpoints, server)
    values = [bytes([n]) * (MIB + n) for n in range(8)]

    peer.write(b"".join(_set_frames(value, 1 + n) for n, value in enumerate(values)))
    await eventually(lambda: len(kept.values) == len(values))

    assert kept.values == values
    assert not connection.ended


# -- failures ------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [13, 100_000, len(LARGE) + 12, len(LARGE) + 13])
async def test_a_stream_cut_inside_a_large_body_sets_nothing(
    endpoints: Endpoints, sent: int
) -> None:
    """Nor does one cut between a value and its message: only a whole message is carried out."""
    server = await endpoints.member()
    kept = Kept(server)
    peer, connection = await _greeted(endpoints, server)
    assert peer.stream is not None

    peer.write(_set_frames(LARGE)[:sent])
    await eventually(lambda: connection._parser.body is not None)
    peer.stream.close()
    await eventually(lambda: connection.ended)

    assert kept.values == []
    assert connection._parser.held_bytes == 0
    assert not server.rpc._inbound


async def test_a_call_whose_large_reply_is_cut_is_lost(
    endpoints: Endpoints, raw: RawServer
) -> None:
    """Sent, outcome unknown, as for any reply."""
    caller = await endpoints.member()
    call = caller.rpc.call(raw.address, GET, timeout=60)
    peer = await raw.greeted()
    await eventually(lambda: len(peer.frames()) == 3)
    assert peer.stream is not None
    link = caller.rpc._links[raw.address]

    peer.write(encode_header(frames.DETACHED, 0, MIB) + bytes(1000))
    await eventually(lambda: link._parser.body is not None)
    peer.stream.abort()

    with pytest.raises(ConnectionLostError):
        await call


async def test_a_large_reply_on_its_way_is_a_sign_of_life(
    endpoints: Endpoints, raw: RawServer
) -> None:
    """A slow line takes longer for it than the silence after which a link is given up."""
    caller = await endpoints.member()
    call = caller.rpc.call(raw.address, GET, timeout=600)
    peer = await raw.greeted()
    await eventually(lambda: len(peer.frames()) == 3)
    link = caller.rpc._links[raw.address]
    reply = encode_frame(frames.REPLY, 1, encode_message(Value(b"")))
    sent = encode_frame(frames.DETACHED, 0, LARGE) + reply

    for start in range(0, len(sent), 200_000):
        piece = sent[start : start + 200_000]
        peer.write(piece)
        arrived = min(start + len(piece), len(LARGE) + HEADER_BYTES) - HEADER_BYTES
        await eventually(partial(_has_received, link, arrived))
        caller.clock.pushed += 4.0
        link.sweep(caller.clock.monotonic())

    assert await call == Value(LARGE)
    assert caller.count("links_silent") == 0


@pytest.mark.parametrize(
    "lie",
    [
        encode_frame(frames.DETACHED, 0, b"v" * (DETACHED_BYTES_MIN - 1)),
        encode_frame(frames.DETACHED, 0, LARGE) + encode_frame(frames.REQUEST, 1, b"\xc1"),
        encode_frame(frames.DETACHED, 1, LARGE)
        + encode_frame(frames.REQUEST, 1, encode_message(Set("m", 1, b"k", b"", -1.0, b""))),
        encode_frame(frames.DETACHED, 0, LARGE)
        + encode_frame(frames.REQUEST, 1, encode_message(Set("m", 1, b"k", b"v", -1.0, b""))),
        encode_frame(frames.DETACHED, 0, LARGE)
        + encode_frame(frames.REQUEST, 1, encode_message(GET)),
        encode_frame(frames.DETACHED, 0, LARGE)
        + encode_frame(frames.NOTICE, 0, encode_message(RaftNotice(b"u", "m/1", b""))),
        struct.pack(">IBQ", 2**31, frames.DETACHED, 0),
    ],
    ids=["small", "garbage", "no such place", "taken place", "no value", "notice", "2 GiB"],
)
async def test_a_lie_about_a_value_ends_only_its_connection(
    endpoints: Endpoints, lie: bytes
) -> None:
    """Counted, closed, and nothing was carried out; others are served."""
    server, other = await endpoints.member(), await endpoints.member()
    kept = Kept(server)
    peer, connection = await _greeted(endpoints, server)

    peer.write(lie)
    await eventually(lambda: peer.lost)

    assert connection.ended
    assert server.count("malformed") == 1
    assert kept.values == []
    await other.rpc.call(server.address, SET, timeout=10)


async def test_values_without_a_message_are_bounded(endpoints: Endpoints) -> None:
    """A peer that only sends values may leave as many bytes as one frame may have, and one more frame."""
    server = await endpoints.member(SMALL_FRAMES)
    peer, connection = await _greeted(endpoints, server)
    value = encode_frame(frames.DETACHED, 0, b"v" * (MIB - 13))

    peer.write(2 * value)
    await eventually(lambda: len(connection._detached) == 1 and _is_complete(connection))
    peer.write(value + value[:HEADER_BYTES])
    await eventually(lambda: peer.lost)

    assert server.count("malformed") == 1
    assert connection._detached == []


async def test_a_header_that_is_followed_by_nothing_costs_little(endpoints: Endpoints) -> None:
    """It says 79 MiB; 2 are set aside, and given back with the stream."""
    server = await endpoints.member()
    peer, connection = await _greeted(endpoints, server)
    assert peer.stream is not None

    peer.write(encode_header(frames.DETACHED, 0, 79 * MIB))
    await eventually(lambda: connection._parser.body is not None)
    held = connection._parser.held_bytes
    peer.stream.abort()
    await eventually(lambda: connection.ended)

    assert held == frames.ROOM_FIRST
    assert connection._parser.held_bytes == 0


async def test_a_stranger_has_no_large_body(endpoints: Endpoints) -> None:
    """Before the handshake any length above 4 KiB ends the stream, and nothing is set aside."""
    server = await endpoints.member()
    stranger = await endpoints.connect_raw(server.address)

    stranger.write(encode_header(frames.DETACHED, 0, MIB))
    await eventually(lambda: stranger.lost)

    assert server.count("malformed") == 1


# -- TLS -----------------------------------------------------------------------------------------


async def test_values_pass_encrypted(endpoints: Endpoints, tls: TlsConfig) -> None:
    """TLS brings pieces: they are put together in one place, and the stream keeps its protocol."""
    caller, server = await endpoints.member(tls=tls), await endpoints.member(tls=tls)
    kept = Kept(server)

    for _ in range(2):
        await caller.rpc.call(server.address, SET, timeout=10)
        assert await caller.rpc.call(server.address, GET, timeout=10) == Value(LARGE)

    assert kept.values == [LARGE, LARGE]
    assert caller.rpc._links[server.address]._in_place is None
    assert server.count("malformed") == 0


# -- limits --------------------------------------------------------------------------------------


@pytest.mark.parametrize("turn", range(2))
async def test_a_request_over_the_frame_limit_is_refused(endpoints: Endpoints, turn: int) -> None:
    """Values and message together count as one frame; also of a message looked at before."""
    caller, server = await endpoints.member(SMALL_FRAMES), await endpoints.member()
    kept = Kept(server)
    request = SetMany("m", [1] * 3, [b"k"] * 3, [LARGE] * 3, -1.0, b"")
    for _ in range(turn):
        await caller.rpc.call(server.address, SET, timeout=10)

    with pytest.raises(CodecError, match="frame_bytes_max"):
        await caller.rpc.call(server.address, request, timeout=10)

    assert kept.values == [LARGE] * turn


async def test_a_reply_over_the_frame_limit_fails_its_call_alone(endpoints: Endpoints) -> None:
    """The caller hears of it; the next one is answered."""
    caller, server = await endpoints.member(), await endpoints.member(SMALL_FRAMES)
    kept = Kept(server)
    kept.values = [LARGE, LARGE, LARGE]

    with pytest.raises(Exception, match="frame_bytes_max"):
        await caller.rpc.call(server.address, GetMany("m", [], [], False), timeout=10)

    assert await caller.rpc.call(server.address, GET, timeout=10) == Value(LARGE)


async def test_detached_values_count_for_the_send_buffer(endpoints: Endpoints) -> None:
    """What is not written yet is bounded, whether it was encoded or not."""
    caller = await endpoints.member({"send_buffer_bytes_max": 3 * MIB})
    server = await endpoints.member()
    kept = Kept(server)
    await caller.rpc.call(server.address, SET, timeout=10)

    calls = [caller.rpc.call(server.address, SET, timeout=10) for _ in range(4)]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)

    assert [type(one) for one in outcomes] == [Done, Done, Done, OverloadedError]
    assert len(kept.values) == 4
