"""The packets of one proxy: a UDP socket, and for each client one to the upstream.

So an answer finds back to who asked. `Later` is for all that is delayed.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final, cast

from cache.testing.proxy.toxics import PacketPath

PENDING_MAX: Final = 10_000
"""Packets that wait for their time; further ones are dropped."""

SESSIONS_MAX: Final = 256
"""Clients of one proxy; a further one takes the place of the oldest."""

PACKET_BYTES_MAX: Final = 65_507
READS_MAX: Final = 64
"""Packets read from one socket in a turn of the loop."""

SocketAddress = tuple[Any, ...]
"""Any: as of the socket module."""


class Later:
    """Actions that wait for their time."""

    def __init__(self) -> None:
        self._timers: dict[int, asyncio.TimerHandle] = {}
        self._next = 0
        self.dropped_count = 0

    def at(self, when: float, action: Callable[[], None]) -> None:
        """Call `action` at `when` of the loop's clock, now if that has passed."""
        loop = asyncio.get_running_loop()
        if when <= loop.time():
            action()
        elif len(self._timers) >= PENDING_MAX:
            self.dropped_count += 1
        else:
            number = self._next = self._next + 1
            self._timers[number] = loop.call_at(when, self._act, number, action)

    def _act(self, number: int, action: Callable[[], None]) -> None:
        del self._timers[number]
        action()

    def close(self) -> None:
        """Forget what waits; idempotent."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()


class PacketRelay(asyncio.DatagramProtocol):
    """Passes packets on in both directions, each under its own toxics."""

    def __init__(self, up: PacketPath, down: PacketPath) -> None:
        self._up = up
        self._down = down
        self._later = Later()
        self._transport: asyncio.DatagramTransport | None = None
        self._sessions: dict[SocketAddress, socket.socket] = {}
        self._family = socket.AF_INET
        self._upstream: SocketAddress = ()

    async def open(self, host: str, port: int, upstream: tuple[str, int]) -> None:
        """Listen, and find out where the upstream is.

        Raises:
            OSError: the address cannot be bound, or there is no such upstream.
        """
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(*upstream, type=socket.SOCK_DGRAM)
        self._family, _, _, _, self._upstream = found[0]
        await loop.create_datagram_endpoint(lambda: self, local_addr=(host, port))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the socket."""
        self._transport = cast("asyncio.DatagramTransport", transport)  # event loops have their own

    def datagram_received(self, data: bytes, addr: SocketAddress) -> None:
        """Pass a client's packet on to the upstream."""
        for at in self._up.arrivals(len(data), asyncio.get_running_loop().time()):
            self._later.at(at, partial(self._send_up, data, addr))

    def _send_up(self, data: bytes, client: SocketAddress) -> None:
        session = self._sessions.get(client)
        if session is None:
            session = self._open_session(client)
        with suppress(OSError):  # lost, as packets may be
            session.send(data)

    def _open_session(self, client: SocketAddress) -> socket.socket:
        if len(self._sessions) >= SESSIONS_MAX:
            self._close_session(next(iter(self._sessions)))
        session = self._sessions[client] = socket.socket(self._family, socket.SOCK_DGRAM)
        session.setblocking(False)
        with suppress(OSError):  # no way there: what is sent is lost
            session.connect(self._upstream)
        asyncio.get_running_loop().add_reader(session.fileno(), self._read, session, client)
        return session

    def _read(self, session: socket.socket, client: SocketAddress) -> None:
        """Pass the upstream's packets on to a client."""
        for _ in range(READS_MAX):
            try:
                data = session.recv(PACKET_BYTES_MAX)
            except OSError:  # no more, or nobody listens there
                return
            now = asyncio.get_running_loop().time()
            for at in self._down.arrivals(len(data), now):
                self._later.at(at, partial(self._send_down, data, client))

    def _send_down(self, data: bytes, client: SocketAddress) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(data, client)

    def _close_session(self, client: SocketAddress) -> None:
        session = self._sessions.pop(client)
        asyncio.get_running_loop().remove_reader(session.fileno())
        session.close()

    def close(self) -> None:
        """Stop; what waits is lost. Idempotent."""
        self._later.close()
        for client in list(self._sessions):
            self._close_session(client)
        if self._transport is not None:
            self._transport.abort()
            self._transport = None
