"""A member's or a client's own end: a transport that takes the ways of `Links`.

It maps the real address of a member to the proxy of the link when it dials, and puts the real addresses back
on packets, so that nothing in a node knows of the proxy. A dial while the way is cut hears nothing until it
is healed, as in a network that loses the first segment; only who is known to be gone refuses.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any, Final, Protocol

from cache.cluster.ids import Address, parse_address
from cache.cluster.scope import Scope
from cache.cluster.transport.base import PacketHandler, ProtocolFactory, Transport
from cache.testing.proxy.links import Links, Route
from cache.testing.proxy.switch import unwrap, wrap

ASK_AGAIN_INTERVAL: Final = 0.05
"""Seconds after which a dial that hears nothing looks whether the cut was healed."""

ANSWER_TIMEOUT: Final = 10.0
"""Seconds for the test's process to answer; it may be busy with other members."""

LINE_BYTES_MAX: Final = 4096


class Guide(Protocol):
    """Who knows the ways from one member or client."""

    async def listening(self, address: Address) -> Address:
        """Say where this member listens; return where it sends packets."""
        ...

    async def route(self, to: Address, *, is_first: bool) -> Route:
        """Return how to dial a member."""
        ...


class DetouringTransport:
    """`base.Transport` over another one, by the ways of a guide."""

    def __init__(self, inner: Transport, guide: Guide) -> None:
        self._inner = inner
        self._guide = guide
        self._switch: Address | None = None

    async def listen(self, on_packet: PacketHandler, on_stream: ProtocolFactory) -> Address:
        """Bind packets and streams, and make it known before any peer hears of it."""

        def receive(source: Address, packet: bytes) -> None:
            unwrapped = unwrap(packet) if source == self._switch else (source, packet)
            if unwrapped is not None:
                on_packet(*unwrapped)

        bound = await self._inner.listen(receive, on_stream)
        self._switch = await self._guide.listening(bound)
        return bound

    def send_packet(self, to: Address, payload: bytes) -> None:
        """Send one packet by way of the switch."""
        if self._switch is not None:
            self._inner.send_packet(self._switch, wrap(to, payload))

    async def connect(self, to: Address, protocol_factory: ProtocolFactory) -> asyncio.Transport:
        """Open a stream to `to` through the proxy of the link.

        Raises:
            ConnectionRefusedError: that member is known to be gone.
            OSError: any other failure.
        """
        route = await self._guide.route(to, is_first=True)
        while route.state == "wait":
            await asyncio.sleep(ASK_AGAIN_INTERVAL)
            route = await self._guide.route(to, is_first=False)
        if route.via is None:
            raise ConnectionRefusedError(f"the member at {to} has ended")
        return await self._inner.connect(route.via, protocol_factory)

    async def close(self) -> None:
        """Stop listening and abort every stream; idempotent."""
        await self._inner.close()


class LocalGuide:
    """The links are in this process."""

    def __init__(self, links: Links, switch: Address, index: int) -> None:
        self._links = links
        self._switch = switch
        self._index = index

    async def listening(self, address: Address) -> Address:
        """Say where this member listens; return where it sends packets."""
        await self._links.listening(self._index, address)
        return self._switch

    async def route(self, to: Address, *, is_first: bool) -> Route:
        """Return how to dial a member."""
        return await self._links.route(self._index, to, is_first=is_first)


class RemoteGuide:
    """The links are in the process of the test; one connection to `Counter` for each question."""

    def __init__(self, counter: Address, index: int) -> None:
        self._counter = counter
        self._index = index

    async def listening(self, address: Address) -> Address:
        """Say where this member listens; return where it sends packets."""
        return Address((await self._ask(listening=address))["switch"])

    async def route(self, to: Address, *, is_first: bool) -> Route:
        """Return how to dial a member."""
        return Route(**await self._ask(to=to, is_first=is_first))

    async def _ask(self, **question: object) -> dict[str, Any]:  # Any: JSON
        line = json.dumps({"index": self._index, **question}).encode() + b"\n"
        async with asyncio.timeout(ANSWER_TIMEOUT):
            reader, writer = await asyncio.open_connection(*parse_address(self._counter))
            try:
                writer.write(line)
                answer: dict[str, Any] = json.loads(await reader.readline())  # Any: JSON
            except ValueError as error:
                raise ConnectionAbortedError("the test that started this member is over") from error
            finally:
                writer.close()
        return answer


class Counter:
    """Answers the questions of members in other processes: one JSON line each way."""

    def __init__(self, links: Links, switch: Address) -> None:
        self._links = links
        self._switch = switch
        self._scope = Scope("links")
        self._server: asyncio.Server | None = None
        self._open: dict[asyncio.Transport, None] = {}

    async def open(self) -> Address:
        """Listen on loopback; return where."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Question(self), "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()
        return Address(f"{host}:{port}")

    def opened(self, transport: asyncio.Transport) -> None:
        """Keep a connection, to close it."""
        self._open[transport] = None

    def closed(self, transport: asyncio.Transport) -> None:
        """Forget it."""
        self._open.pop(transport, None)

    def asked(self, line: bytes, transport: asyncio.Transport) -> None:
        """Answer a question in a task."""
        self._scope.spawn(self._answer(json.loads(line), transport), name="answer")

    async def _answer(self, question: dict[str, Any], transport: asyncio.Transport) -> None:
        # Any: JSON
        guide = LocalGuide(self._links, self._switch, question["index"])
        answer: dict[str, Any]  # Any: JSON
        if "listening" in question:
            answer = {"switch": await guide.listening(Address(question["listening"]))}
        else:
            route = await guide.route(Address(question["to"]), is_first=question["is_first"])
            answer = {"state": route.state, "via": route.via}
        transport.write(json.dumps(answer).encode() + b"\n")
        transport.close()

    async def close(self) -> None:
        """Stop answering; idempotent."""
        if self._server is not None:
            self._server.close()
            self._server = None
        await self._scope.close()
        for transport in list(self._open):
            transport.abort()
        await asyncio.sleep(0)  # One turn of the loop, in which the sockets are really closed.


class _Question(asyncio.Protocol):
    """One connection of a member that asks."""

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._line = b""
        self._transport: Any = None  # Any: event loops have their own classes

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._counter.opened(self._transport)

    def data_received(self, data: bytes) -> None:
        self._line += data
        if len(self._line) > LINE_BYTES_MAX:
            self._transport.abort()
        elif self._line.endswith(b"\n"):
            self._counter.asked(self._line, self._transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._counter.closed(self._transport)
