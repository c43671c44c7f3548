"""The streams of one proxy: a listener, and for each stream accepted one to the upstream.

Each direction is a `Pipe`; this module reads, writes and waits. What the two ends say about the end of the
stream (more to come or not, closed or reset) goes through the pipe like the bytes before it, so that a link
that is slow or cut is so for the end, too. Reading stops while a pipe is full, as on a slow network.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from contextlib import suppress
from random import Random
from typing import Final, Protocol, cast

from cache.testing.proxy.shaping import End, Item, Pipe
from cache.testing.proxy.toxics import STREAMS, Stream, Toxic

logger = logging.getLogger(__name__)

PIPE_BYTES_MAX: Final = 4 * 1024 * 1024
"""Bytes on their way in one direction of one stream; reading goes on below half of it."""

CONNECT_TIMEOUT: Final = 10.0
"""Seconds for the stream to the upstream."""

NO_LINGER: Final = struct.pack("ii", 1, 0)


class Owner(Protocol):
    """The proxy a connection belongs to."""

    def toxics(self) -> list[Toxic]:
        """Return the toxics of the proxy."""
        ...

    def ended(self, connection: Connection) -> None:
        """Hear that a connection is over."""
        ...


class Flow:
    """One direction: from the socket that is read, through the pipe, to the socket that is written."""

    def __init__(self, connection: Connection, stream: Stream) -> None:
        self.stream = stream
        self.pipe = Pipe()
        self.source: asyncio.Transport | None = None
        self.sink: asyncio.Transport | None = None
        self.is_over = False
        """Whether nothing will be written any more."""
        self._connection = connection
        self._writable = True
        self._reading = True
        self._fed_end = False
        self._timer: asyncio.TimerHandle | None = None

    def feed(self, item: Item) -> None:
        """Let bytes, or the end, begin their way; only one end counts."""
        if self._fed_end or self.is_over:
            return
        self._fed_end = isinstance(item, End)
        self.pipe.feed(item, _now())
        self.run()

    def run(self) -> None:
        """Write what has arrived, and wake up for what has not."""
        self._disarm()
        if not self.is_over and self.sink is not None and self._writable:
            for item in self.pipe.take(_now()):
                self._write(item)
            if not self.is_over and (deadline := self.pipe.deadline()) is not None:
                loop = asyncio.get_running_loop()
                self._timer = loop.call_at(deadline, self.run)
        self._regulate()

    def _write(self, item: Item) -> None:
        sink = self.sink
        assert sink is not None, "run writes to a sink only"
        if self.is_over:
            return
        match item:
            case bytes():
                if not sink.is_closing():
                    sink.write(item)
            case End.EOF:
                self.stop()
                if not sink.is_closing() and sink.can_write_eof():
                    with suppress(OSError):
                        sink.write_eof()
                self._connection.flow_over()
            case _:
                self._connection.close(reset=item is End.RESET)

    def _regulate(self) -> None:
        """Read while there is room."""
        if self.source is None or self.source.is_closing():
            return
        size = self.pipe.size_bytes
        if self._reading and size > PIPE_BYTES_MAX:
            self._reading = False
            self.source.pause_reading()
        elif not self._reading and size < PIPE_BYTES_MAX // 2:
            self._reading = True
            self.source.resume_reading()

    def set_writable(self, *, writable: bool) -> None:
        """Hear from the sink whether it takes more."""
        self._writable = writable
        self.run()

    def stop(self) -> None:
        """Write no more; what is read from now on is lost."""
        self.is_over = True
        self._disarm()
        self.pipe = Pipe()
        if not self._reading and self.source is not None and not self.source.is_closing():
            self._reading = True
            self.source.resume_reading()

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _Side(asyncio.Protocol):
    """One socket of a connection: what it says goes into `inward`, what `outward` brings is written to it."""

    def __init__(self, connection: Connection, inward: Flow, outward: Flow) -> None:
        self._connection = connection
        self._inward = inward
        self._outward = outward

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        stream = cast("asyncio.Transport", transport)  # event loops have their own classes
        stream.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._inward.source = self._outward.sink = stream
        self._connection.opened(stream)
        self._outward.run()

    def data_received(self, data: bytes) -> None:
        self._inward.feed(data)

    def eof_received(self) -> bool:
        self._inward.feed(End.EOF)
        return True  # The other direction may go on.

    def connection_lost(self, exc: Exception | None) -> None:
        self._outward.stop()
        self._inward.feed(End.EOF if exc is None else End.RESET)
        self._connection.flow_over()

    def pause_writing(self) -> None:
        self._outward.set_writable(writable=False)

    def resume_writing(self) -> None:
        self._outward.set_writable(writable=True)


class Connection:
    """A stream accepted by a proxy, and the one to its upstream."""

    def __init__(self, owner: Owner, rng: Random) -> None:
        self._owner = owner
        self._rng = rng
        self._transports: list[asyncio.Transport] = []
        self._closed = False
        self.up, self.down = Flow(self, "upstream"), Flow(self, "downstream")
        for toxic in owner.toxics():
            self.add(toxic)

    def client(self) -> asyncio.Protocol:
        """Return the protocol of the accepted side."""
        return _Side(self, self.up, self.down)

    async def connect(self, host: str, port: int) -> None:
        """Open the stream to the upstream, or close the accepted one."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await loop.create_connection(lambda: _Side(self, self.down, self.up), host, port)
        except OSError as error:  # TimeoutError among them
            logger.debug("proxy.no_upstream address=%s:%s error=%s", host, port, error)
            self.close(reset=True)

    def opened(self, transport: asyncio.Transport) -> None:
        """Keep a socket, to close it."""
        if self._closed:
            transport.abort()
            return
        self._transports.append(transport)

    def add(self, toxic: Toxic) -> None:
        """Let a toxic work on this connection, if it draws it."""
        flow = self._flow(toxic.stream)
        shaper = toxic.shaper(self._rng)
        if shaper is not None:
            flow.pipe.add(toxic.name, shaper, _now())
            flow.run()
        else:
            self.remove(toxic)

    def remove(self, toxic: Toxic) -> None:
        """Let a toxic work no longer."""
        flow = self._flow(toxic.stream)
        if toxic.name in flow.pipe:
            flow.pipe.remove(toxic.name, _now())
            flow.run()

    def _flow(self, stream: Stream) -> Flow:
        return self.up if stream == STREAMS[0] else self.down

    def flow_over(self) -> None:
        """Close both sides once nothing is written in either direction any more."""
        if self.up.is_over and self.down.is_over:
            self.close(reset=False)

    def close(self, *, reset: bool) -> None:
        """End both sides; idempotent."""
        if self._closed:
            return
        self._closed = True
        self.up.stop()
        self.down.stop()
        for transport in self._transports:
            if reset:
                abort(transport)
            else:
                transport.close()
        self._owner.ended(self)


def abort(transport: asyncio.Transport) -> None:
    """End a stream by a TCP reset."""
    if not transport.is_closing():
        with suppress(OSError):
            transport.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER
            )
    transport.abort()


def _now() -> float:
    return asyncio.get_running_loop().time()
