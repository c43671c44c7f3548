"""Real sockets: one port for packets and streams, on both event loops."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest

from cache.cluster.ids import Address, parse_address
from cache.cluster.transport.sockets import SocketTransport
from tests.unit.cluster.transport.support import RawPeer, eventually


class _Side:
    """A listening transport and what arrived at it."""

    def __init__(self, bind: str) -> None:
        self.transport = SocketTransport(Address(bind))
        self.packets: list[tuple[Address, bytes]] = []
        self.streams: list[RawPeer] = []
        self.address = Address("")

    async def listen(self) -> None:
        self.address = await self.transport.listen(
            lambda source, payload: self.packets.append((source, payload)), self._accept
        )

    def _accept(self) -> RawPeer:
        self.streams.append(RawPeer())
        return self.streams[-1]


@pytest.fixture
async def sides() -> AsyncIterator[tuple[_Side, _Side]]:
    pair = (_Side("127.0.0.1:0"), _Side("127.0.0.1:0"))
    for side in pair:
        await side.listen()
    yield pair
    for side in pair:
        await side.transport.close()


async def test_packets_arrive_with_their_source(sides: tuple[_Side, _Side]) -> None:
    """The source address is the sender's listening address, so that it can be answered."""
    first, second = sides

    first.transport.send_packet(second.address, b"hello")
    await eventually(lambda: bool(second.packets))

    assert second.packets == [(first.address, b"hello")]


async def test_streams_share_the_port_number_of_packets(sides: tuple[_Side, _Side]) -> None:
    """One address names a member, whatever the means."""
    first, second = sides
    peer = RawPeer()

    stream = await first.transport.connect(second.address, lambda: peer)
    stream.write(b"bytes")
    await eventually(lambda: bool(second.streams) and second.streams[0].received == b"bytes")

    second.streams[0].write(b"back")
    await eventually(lambda: peer.received == b"back")


async def test_streams_do_not_wait_to_fill_segments(sides: tuple[_Side, _Side]) -> None:
    """TCP_NODELAY is set at both ends."""
    first, second = sides

    stream = await first.transport.connect(second.address, RawPeer)
    await eventually(lambda: bool(second.streams))

    for end in (stream, second.streams[0].stream):
        assert end is not None
        assert end.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_host_name_is_resolved_for_both(sides: tuple[_Side, _Side]) -> None:
    """Addresses may name a host; the loop resolves it without blocking."""
    first, second = sides
    _, port = parse_address(second.address)
    named = Address(f"localhost:{port}")

    first.transport.send_packet(named, b"one")
    first.transport.send_packet(named, b"two")
    await first.transport.connect(named, RawPeer)

    await eventually(lambda: len(second.packets) == 2 and len(second.streams) == 1)


async def test_nobody_listening_is_a_refusal(sides: tuple[_Side, _Side]) -> None:
    """A refused connection is evidence that a process is gone, so it has its own error."""
    first, second = sides
    await second.transport.close()

    with pytest.raises(ConnectionRefusedError):
        await first.transport.connect(second.address, RawPeer)


async def test_packet_to_nobody_is_lost_silently(sides: tuple[_Side, _Side]) -> None:
    """Packets are best effort: no error, and the socket goes on working."""
    first, second = sides

    for nowhere in ("127.0.0.1:1", "[::1]:9", "no-such-host.invalid:5", "127.0.0.1:0"):
        first.transport.send_packet(Address(nowhere), b"x")
    first.transport.send_packet(second.address, b"x" * 100_000)
    first.transport.send_packet(second.address, b"after")

    await eventually(lambda: second.packets == [(first.address, b"after")])


async def test_close_aborts_streams_and_frees_the_port() -> None:
    """After close nothing is open: the same port can be bound again at once."""
    side = _Side("127.0.0.1:0")
    await side.listen()
    peer = RawPeer()
    caller = SocketTransport(Address("127.0.0.1:0"))
    await caller.connect(side.address, lambda: peer)
    await eventually(lambda: bool(side.streams))

    await side.transport.close()
    await side.transport.close()
    await eventually(lambda: peer.lost)

    again = _Side(side.address)
    await again.listen()
    assert again.address == side.address
    await again.transport.close()
    await caller.close()


@pytest.mark.parametrize("turns", range(6))
async def test_a_stream_that_is_just_being_accepted_is_closed_too(turns: int) -> None:
    """However far the event loop has come with it: when `close` returns its socket is closed."""
    side = _Side("127.0.0.1:0")
    await side.listen()
    with socket.socket() as caller:
        caller.connect(parse_address(side.address))
        caller.setblocking(False)
        for _ in range(turns):
            await asyncio.sleep(0)

        await side.transport.close()

        with contextlib.suppress(ConnectionResetError):
            assert b"" == caller.recv(1)


async def test_taken_port_is_an_error(sides: tuple[_Side, _Side]) -> None:
    """A port that was asked for is not silently exchanged for another."""
    taken = SocketTransport(sides[0].address)

    with pytest.raises(OSError, match=r"."):
        await taken.listen(lambda source, payload: None, asyncio.Protocol)


async def test_closed_transport_opens_nothing(sides: tuple[_Side, _Side]) -> None:
    """Close is final."""
    first, second = sides
    await first.transport.close()

    first.transport.send_packet(second.address, b"x")
    with pytest.raises(OSError, match="closed"):
        await first.transport.connect(second.address, RawPeer)


async def test_ipv6() -> None:
    """An IPv6 address is written in brackets and works for both."""
    side = _Side("[::1]:0")
    try:
        await side.listen()
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")

    side.transport.send_packet(side.address, b"six")
    await side.transport.connect(side.address, RawPeer)
    await eventually(lambda: bool(side.packets) and bool(side.streams))

    assert side.packets == [(side.address, b"six")]
    await side.transport.close()
