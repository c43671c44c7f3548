"""Helpers of the transport tests: endpoints on loopback, a clock to push, a peer that speaks raw bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

from cache.clock import SystemClock
from cache.cluster.config import ClusterConfig, LimitsConfig
from cache.cluster.ids import Address, MemberId, parse_address
from cache.cluster.scope import Scope
from cache.cluster.transport.handshake import Handshake, HandshakeState, Role, new_hello
from cache.cluster.transport.rpc import RpcEndpoint
from cache.cluster.transport.sockets import SocketTransport
from cache.cluster.wire import frames
from cache.cluster.wire.frames import FrameParser, encode_frame
from cache.cluster.wire.messages import Get
from cache.metrics import Metrics

LOOPBACK = Address("127.0.0.1:0")
GET = Get("m", 1, b"key", False)


class PushedClock(SystemClock):
    """The real clock, which a test can push forward."""

    def __init__(self) -> None:
        self.pushed = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.pushed


class Endpoint:
    """One RPC endpoint with everything it needs."""

    def __init__(self, number: int, *, client: bool, limits: LimitsConfig, config: Any) -> None:
        member = None if client else MemberId(f"m{number}#{number:016x}")
        self.clock = PushedClock()
        self.metrics = Metrics()
        self.scope = Scope(f"m{number}")
        self.transport = SocketTransport(LOOPBACK, tls=config.get("tls"))
        self.address = Address("")
        self.rpc = RpcEndpoint(
            transport=self.transport,
            config=ClusterConfig(limits=limits, **config),
            member=member,
            clock=self.clock,
            rng=Random(number),
            metrics=self.metrics,
            scope=self.scope,
        )

    async def listen(self) -> None:
        self.address = await self.transport.listen(lambda source, payload: None, self.rpc.accept)
        self.rpc.address = self.address

    def count(self, name: str) -> float:
        return self.metrics.snapshot()[f"rpc.{name}"]

    async def close(self) -> None:
        await self.rpc.close()
        await self.scope.close()
        await self.transport.close()


class Endpoints:
    """Makes endpoints and closes them."""

    def __init__(self) -> None:
        self._made: list[Endpoint] = []
        self._raw: list[RawPeer] = []

    async def member(self, limits: dict[str, Any] | None = None, **config: Any) -> Endpoint:
        endpoint = self.client(limits, member=True, **config)
        await endpoint.listen()
        return endpoint

    def client(
        self, limits: dict[str, Any] | None = None, *, member: bool = False, **config: Any
    ) -> Endpoint:
        endpoint = Endpoint(
            len(self._made) + 1,
            client=not member,
            limits=LimitsConfig(**(limits or {})),
            config=config,
        )
        self._made.append(endpoint)
        return endpoint

    async def connect_raw(self, to: Address) -> RawPeer:
        """Open a raw stream to an endpoint; it is closed with the endpoints."""
        self._raw.append(await connect_raw(to))
        return self._raw[-1]

    async def close(self) -> None:
        for peer in self._raw:
            assert peer.stream is not None
            peer.stream.abort()
        for endpoint in self._made:
            await endpoint.close()


class RawPeer(asyncio.Protocol):
    """A peer that sends exactly the bytes a test wants and keeps what it receives."""

    def __init__(self) -> None:
        self.stream: asyncio.Transport | None = None
        self.received = bytearray()
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.stream = transport  # type: ignore[assignment]  # uvloop's own class

    def data_received(self, data: bytes) -> None:
        self.received += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True

    def frames(self) -> list[frames.Frame]:
        return FrameParser(1 << 30).feed(bytes(self.received))

    def _has_frames(self, count: int) -> bool:
        return len(self.frames()) >= count

    def write(self, data: bytes) -> None:
        assert self.stream is not None
        self.stream.write(data)

    async def greet(self, role: Role, *, cluster_name: str = "cache") -> None:
        """Complete a handshake as a client."""
        hello = new_hello(
            cluster_name=cluster_name, partition_count=0, member="", address="", nonce=b"n" * 16
        )
        handshake = Handshake(role, hello, None)
        for body in handshake.start():
            self.write(encode_frame(frames.GREETING, 0, body))
        for index in range(2):
            await eventually(partial(self._has_frames, index + 1))
            for body in handshake.receive(self.frames()[index][2]):
                self.write(encode_frame(frames.GREETING, 0, body))
        assert handshake.state is HandshakeState.DONE


async def connect_raw(to: Address) -> RawPeer:
    """Open a raw stream to an endpoint."""
    host, port = parse_address(to)
    _, peer = await asyncio.get_running_loop().create_connection(RawPeer, host, port)
    return peer


async def eventually(condition: Callable[[], bool], within: float = 5.0) -> None:
    """Wait until a condition holds, turning the loop; raise when it does not in time."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within
    while not condition():
        assert loop.time() < deadline, "the condition did not come true in time"
        turn = loop.create_future()
        loop.call_later(0.002, turn.set_result, None)
        await turn
