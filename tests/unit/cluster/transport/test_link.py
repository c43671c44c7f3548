"""Links that break, are refused, stay silent or cannot be opened."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from cache.cluster.ids import Address
from cache.cluster.transport.handshake import Role
from cache.cluster.transport.rpc import Peer
from cache.cluster.transport.sockets import SocketTransport
from cache.cluster.wire import frames
from cache.cluster.wire.encoding import encode_message
from cache.cluster.wire.frames import encode_frame
from cache.cluster.wire.messages import Done, Drain, Get, Hello, Value
from cache.errors import (
    ConnectionLostError,
    JoinRefusedError,
    UnavailableError,
)
from tests.unit.cluster.transport.support import (
    GET,
    Endpoint,
    Endpoints,
    RawPeer,
    eventually,
)

NOBODY = Address("127.0.0.1:1")


class RawServer:
    """Accepts streams and does nothing by itself."""

    def __init__(self) -> None:
        self.peers: list[RawPeer] = []
        self.address = Address("")
        self._transport = SocketTransport(Address("127.0.0.1:0"))

    async def start(self) -> None:
        self.address = await self._transport.listen(lambda source, payload: None, self._accept)

    def _accept(self) -> RawPeer:
        self.peers.append(RawPeer())
        return self.peers[-1]

    async def greeted(self) -> RawPeer:
        """Wait for a caller and complete the handshake with it."""
        await eventually(lambda: bool(self.peers) and self.peers[-1].stream is not None)
        await self.peers[-1].greet(Role.ACCEPTOR)
        return self.peers[-1]

    async def close(self) -> None:
        """Also of streams that are just being accepted: nothing is left to the garbage collector."""
        await self._transport.close()


@pytest.fixture
async def raw() -> AsyncIterator[RawServer]:
    server = RawServer()
    await server.start()
    yield server
    await server.close()


def _echo(request: Get, peer: Peer) -> Value:
    return Value(request.key)


# -- opening -----------------------------------------------------------------------------------------


async def test_refused_connection_fails_fast_and_is_reported(endpoints: Endpoints) -> None:
    """Nobody listens: not applied, and evidence for membership; calls of one attempt share it."""
    caller = await endpoints.member()
    refused: list[Address] = []
    caller.rpc.on_refused = refused.append

    calls = [caller.rpc.call(NOBODY, GET, timeout=60) for _ in range(3)]
    results = await asyncio.gather(*calls, return_exceptions=True)

    assert [type(result) for result in results] == [UnavailableError] * 3
    assert refused == [NOBODY]


async def test_next_call_after_a_refusal_tries_anew(endpoints: Endpoints) -> None:
    """There is no back-off that would hide a restarted member."""
    caller = await endpoints.member()
    late = endpoints.client(member=True)
    holder = await endpoints.member()
    address = holder.address
    await holder.close()
    with pytest.raises(UnavailableError):
        await caller.rpc.call(address, GET, timeout=5)

    late.transport._bind = address
    await late.listen()
    late.rpc.register(Get, _echo)

    assert await caller.rpc.call(address, GET, timeout=5) == Value(b"key")


async def test_bad_address_is_unavailable(endpoints: Endpoints) -> None:
    """What cannot be an address cannot be reached."""
    caller = endpoints.client()

    for address in ("nonsense", "no-such-host.invalid:80", "127.0.0.1:99999"):
        with pytest.raises(UnavailableError):
            await caller.rpc.call(Address(address), GET, timeout=5)


async def test_silent_acceptor_is_given_up(endpoints: Endpoints, raw: RawServer) -> None:
    """A stopped process accepts connections (its kernel does) and never greets."""
    caller = await endpoints.member({"handshake_timeout": 0.05})

    with pytest.raises(UnavailableError, match="no connection"):
        await caller.rpc.call(raw.address, GET, timeout=60)

    await eventually(lambda: raw.peers[0].lost)


async def test_call_that_never_left_is_unavailable(endpoints: Endpoints, raw: RawServer) -> None:
    """Timed out while the link was opening: certainly not applied."""
    caller = await endpoints.member()

    with pytest.raises(UnavailableError, match="not connected in time"):
        await caller.rpc.call(raw.address, GET, timeout=0.05)


# -- breaking ----------------------------------------------------------------------------------------


async def test_calls_on_a_broken_link_are_indeterminate(
    endpoints: Endpoints, raw: RawServer
) -> None:
    """They were sent; whether they were applied is not known."""
    caller = await endpoints.member()
    call = caller.rpc.call(raw.address, GET, timeout=60)
    peer = await raw.greeted()
    await eventually(lambda: len(peer.frames()) == 3)

    assert peer.stream is not None
    peer.stream.abort()

    with pytest.raises(ConnectionLostError, match=raw.address):
        await call
    assert caller.count("links_lost") == 1


async def test_next_call_after_a_break_reconnects(endpoints: Endpoints) -> None:
    """At once, with a link of its own."""
    caller, server = await endpoints.member(), await endpoints.member()
    server.rpc.register(Get, _echo)
    await caller.rpc.call(server.address, GET, timeout=5)
    (inbound,) = server.rpc._inbound
    assert inbound.stream is not None
    inbound.stream.abort()
    await eventually(lambda: caller.count("links") == 0)

    assert await caller.rpc.call(server.address, GET, timeout=5) == Value(b"key")
    assert caller.count("links_opened") == 2


async def test_disconnect_fails_the_calls_to_a_dead_peer(
    endpoints: Endpoints, raw: RawServer
) -> None:
    """What was sent is indeterminate; what waited for the connection was not applied."""
    caller = await endpoints.member()
    sent = caller.rpc.call(raw.address, GET, timeout=60)
    await raw.greeted()
    await eventually(lambda: caller.count("links_opened") == 1)
    other = RawServer()
    await other.start()
    unsent = caller.rpc.call(other.address, GET, timeout=60)

    caller.rpc.disconnect(raw.address)
    caller.rpc.disconnect(other.address)
    caller.rpc.disconnect(NOBODY)

    with pytest.raises(ConnectionLostError):
        await sent
    with pytest.raises(UnavailableError):
        await unsent
    await eventually(lambda: raw.peers[0].lost)
    await other.close()


async def test_stopped_peer_is_found_by_its_silence(endpoints: Endpoints, raw: RawServer) -> None:
    """Ping after 0.5 s, given up 3 s later: never the kernel's patience (design.md §9)."""
    caller = await endpoints.member()
    call = caller.rpc.call(raw.address, GET, timeout=60)
    peer = await raw.greeted()
    await eventually(lambda: len(peer.frames()) == 3)

    caller.clock.pushed += 0.6
    await eventually(lambda: [f[0] for f in peer.frames()][3:] == [frames.PING])
    assert not call.done()
    caller.clock.pushed += 3.1

    with pytest.raises(ConnectionLostError, match="silent"):
        await call
    assert caller.count("links_silent") == 1


async def test_slow_answer_of_a_live_peer_is_waited_for(endpoints: Endpoints) -> None:
    """A peer that answers pings is alive, however long its handler takes."""
    caller, server = await endpoints.member(), await endpoints.member()
    answer: asyncio.Future[Done] = asyncio.get_running_loop().create_future()
    server.rpc.register(Drain, lambda request, peer: answer)
    call = caller.rpc.call(server.address, Drain(), timeout=600)
    await eventually(lambda: caller.count("links_opened") == 1)
    (link,) = caller.rpc._links.values()

    for _ in range(6):
        caller.clock.pushed += 0.6
        await eventually(lambda: link._pinged_at is not None)
        await eventually(lambda: link._pinged_at is None)
    answer.set_result(Done())

    assert await call == Done()
    assert caller.count("links_lost") == 0


@pytest.mark.parametrize(
    "data",
    [
        b"\x7f\xff\xff\xff\x03",
        encode_frame(frames.REPLY, 1, b"\xc1"),
        encode_frame(frames.REPLY, 1, encode_message(Get("m", 1, b"", False))),
        encode_frame(frames.REQUEST, 1, encode_message(Get("m", 1, b"", False))),
        encode_frame(99, 1, b""),
    ],
    ids=["length", "garbage", "request as reply", "request", "kind"],
)
async def test_malformed_reply_ends_the_link(
    endpoints: Endpoints, raw: RawServer, data: bytes
) -> None:
    """The peer broke the protocol: its link ends, its calls are indeterminate, nothing else changes."""
    caller = await endpoints.member()
    call = caller.rpc.call(raw.address, GET, timeout=60)
    peer = await raw.greeted()
    await eventually(lambda: len(peer.frames()) == 3)

    peer.write(data)

    with pytest.raises(ConnectionLostError, match="broke the protocol"):
        await call
    assert caller.count("malformed") == 1


async def test_reply_to_nobody_is_ignored(endpoints: Endpoints, raw: RawServer) -> None:
    """Replies to unknown ids are late replies."""
    caller = await endpoints.member()
    call = caller.rpc.call(raw.address, GET, timeout=60)
    peer = await raw.greeted()

    peer.write(encode_frame(frames.REPLY, 77, encode_message(Done())))
    peer.write(encode_frame(frames.REPLY, 1, encode_message(Value(b"v"))))

    assert await call == Value(b"v")
    assert caller.count("late_replies") == 1


# -- refused handshakes ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"cluster_name": "other"}, "cluster name differs: 'other' there, 'cache' at"),
        ({"partition_count": 271}, "partition count differs: 271 there, 1024 at"),
        ({"secret": "another secret"}, "secret differs"),
        ({"secret": None}, "secret differs"),
    ],
    ids=str,
)
async def test_refused_handshake_is_known_on_both_sides(
    endpoints: Endpoints, caplog: pytest.LogCaptureFixture, changes: dict[str, Any], reason: str
) -> None:
    """The caller gets the reason; both sides count it and log it."""
    settings: dict[str, Any] = {"secret": "a common secret", **changes}  # Any: field values
    server = await endpoints.member(secret="a common secret")
    server.rpc.register(Get, _echo)
    caller = await endpoints.member(**settings)

    with caplog.at_level(logging.WARNING), pytest.raises(JoinRefusedError, match=reason):
        await caller.rpc.call(server.address, GET, timeout=5)

    await eventually(lambda: server.count("inbound_connections") == 0)
    assert caller.count("refused_handshakes") == server.count("refused_handshakes") == 1
    assert server.count("requests") == 0
    assert [record.message.split()[0] for record in caplog.records] == ["rpc.refused"] * 2
    assert "by=us" in caplog.text
    assert "by=peer" in caplog.text


async def test_same_secret_is_accepted(endpoints: Endpoints) -> None:
    """The positive control of the test above."""
    server = await endpoints.member(secret="a common secret")
    server.rpc.register(Get, _echo)
    caller = endpoints.client(secret="a common secret", partition_count=5)

    assert await caller.rpc.call(server.address, GET, timeout=5) == Value(b"key")


async def test_other_protocol_version_is_refused_on_both_sides(endpoints: Endpoints) -> None:
    """A later version is told which one is spoken here."""
    server = await endpoints.member()
    peer = await endpoints.connect_raw(server.address)
    hello = Hello(2, "cache", 1024, "x#0", "127.0.0.1:9", b"n" * 16)

    peer.write(encode_frame(frames.GREETING, 0, encode_message(hello)))
    await eventually(lambda: peer.lost)

    ((kind, _, body),) = peer.frames()
    assert kind == frames.GREETING
    assert b"protocol version differs: 2 there, 1 at" in body
    assert server.count("refused_handshakes") == 1


# -- strangers ---------------------------------------------------------------------------------------


async def _still_serves(endpoints: Endpoints, server: Endpoint) -> bool:
    caller = endpoints.client()
    return await caller.rpc.call(server.address, GET, timeout=5) == Value(b"key")


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: example\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
        b"\x80\x00\x00\x00",
        b"\x00\x00\x00\x00",
        encode_frame(frames.GREETING, 0, b"x" * 4096),
        encode_frame(frames.GREETING, 0, b"\x91" * 4000),
        encode_frame(frames.GREETING, 0, b""),
        encode_frame(frames.REQUEST, 1, encode_message(GET)),
        encode_frame(frames.PING, 0, b""),
    ],
    ids=[
        "http",
        "tls",
        "2^31",
        "length 0",
        "over 4 KiB",
        "nested",
        "empty",
        "request before greeting",
        "ping before greeting",
    ],
)
async def test_garbage_before_the_handshake_closes_only_that_stream(
    endpoints: Endpoints, data: bytes
) -> None:
    """Nothing but a handshake is parsed before the handshake (design.md, invariant 8)."""
    server = await endpoints.member()
    server.rpc.register(Get, _echo)
    stranger = await endpoints.connect_raw(server.address)

    stranger.write(data)
    await eventually(lambda: stranger.lost)

    assert stranger.frames() == []
    assert server.count("malformed") == 1
    assert server.count("requests") == 0
    assert await _still_serves(endpoints, server)


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x00\x00\x00",
        (80 * 2**20 + 1).to_bytes(4, "big"),
        encode_frame(frames.REQUEST, 1, b"\x91" * 200_000),
        encode_frame(frames.REQUEST, 1, encode_message(Done())),
        encode_frame(frames.REPLY, 1, encode_message(Done())),
        encode_frame(frames.GREETING, 0, b""),
    ],
    ids=["2^31", "over the limit", "nested", "reply as request", "reply", "greeting"],
)
async def test_garbage_after_the_handshake_closes_only_that_stream(
    endpoints: Endpoints, data: bytes
) -> None:
    """A peer that breaks the protocol loses its connection; others notice nothing."""
    server = await endpoints.member()
    server.rpc.register(Get, _echo)
    peer = await endpoints.connect_raw(server.address)
    await peer.greet(Role.INITIATOR)

    peer.write(data)
    await eventually(lambda: peer.lost)

    assert server.count("malformed") == 1
    assert await _still_serves(endpoints, server)


async def test_truncated_frame_is_not_an_error(endpoints: Endpoints) -> None:
    """A stream that ends within a frame just ends."""
    server = await endpoints.member()
    server.rpc.register(Get, _echo)
    peer = await endpoints.connect_raw(server.address)
    await peer.greet(Role.INITIATOR)

    peer.write(encode_frame(frames.REQUEST, 1, encode_message(GET))[:-3])
    assert peer.stream is not None
    peer.stream.close()
    await eventually(lambda: server.count("inbound_connections") == 0)

    assert server.count("malformed") == 0
    assert server.count("requests") == 0
    assert await _still_serves(endpoints, server)


@pytest.mark.parametrize("data", [b"", b"\x00\x00\x00"], ids=["silent", "begun"])
async def test_stream_that_does_not_greet_is_closed(endpoints: Endpoints, data: bytes) -> None:
    """handshake_timeout bounds how long a stranger holds a connection."""
    server = await endpoints.member({"handshake_timeout": 0.05})
    stranger = await endpoints.connect_raw(server.address)

    stranger.write(data)
    await eventually(lambda: stranger.lost)

    assert server.count("handshake_timeouts") == 1
    assert server.count("inbound_connections") == 0


async def test_greeted_stream_may_stay_idle(endpoints: Endpoints) -> None:
    """The time limit of the handshake ends with it."""
    server = await endpoints.member({"handshake_timeout": 0.5})
    server.rpc.register(Get, _echo)
    peer = await endpoints.connect_raw(server.address)
    await peer.greet(Role.INITIATOR)
    stranger = await endpoints.connect_raw(server.address)
    await eventually(lambda: stranger.lost)

    peer.write(encode_frame(frames.REQUEST, 1, encode_message(GET)))

    await eventually(lambda: len(peer.frames()) == 3)


async def test_warnings_about_strangers_are_rare(
    endpoints: Endpoints, caplog: pytest.LogCaptureFixture
) -> None:
    """A stranger cannot fill the log: at most one warning a second, the rest is counted."""
    server = await endpoints.member()
    for _ in range(20):
        stranger = await endpoints.connect_raw(server.address)
        stranger.write(b"\xff" * 20)
    await eventually(lambda: server.count("malformed") == 20)

    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]

    assert 1 <= len(warnings) < 10
