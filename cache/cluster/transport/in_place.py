"""Receiving large bodies where they stay: straight from the socket, without pieces to put together.

Small frames are received as pieces of bytes, which costs less for them. So a stream has two protocols: its
connection, and this one, which takes over when a large body has begun (`FrameParser.body`) and gives the
stream back when something else comes. Streams that are no plain sockets (TLS, simulated) always bring pieces.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from cache.cluster.wire.frames import DETACHED, FrameParser

BETWEEN_BYTES: Final = 512
"""Read at once between two large bodies: what stands there is a header or two, and small messages. Of the
next large body no more than that is copied."""


class Receiver(Protocol):
    """What a connection is to the protocol that takes its place."""

    heard: bool

    def data_received(self, data: bytes) -> None:
        """Take the next bytes of the stream."""

    def eof_received(self) -> None:
        """As `asyncio.Protocol`."""

    def connection_lost(self, exc: Exception | None) -> None:
        """As `asyncio.Protocol`."""

    def pause_writing(self) -> None:
        """As `asyncio.Protocol`."""

    def resume_writing(self) -> None:
        """As `asyncio.Protocol`."""


class InPlace(asyncio.BufferedProtocol):
    """Stands in for a connection while a large body is received."""

    def __init__(
        self, connection: Receiver, parser: FrameParser, stream: asyncio.Transport
    ) -> None:
        self._connection = connection
        self._parser = parser
        self._stream = stream
        self._between = bytearray(BETWEEN_BYTES)
        self._active = False
        self.eof_received = connection.eof_received  # type: ignore[method-assign]  # no detour
        self.connection_lost = connection.connection_lost  # type: ignore[method-assign]
        self.pause_writing = connection.pause_writing  # type: ignore[method-assign]
        self.resume_writing = connection.resume_writing  # type: ignore[method-assign]

    def begin(self) -> None:
        """Take over, until what comes next is no large body."""
        if not self._active:
            self._active = True
            self._stream.set_protocol(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return the rest of the body, or room for what comes after it."""
        body = self._parser.body
        if body is None or body.is_complete:
            return memoryview(self._between)
        return body.rest()

    def buffer_updated(self, nbytes: int) -> None:
        """Go on with the body, or see what comes after it.

        A detached value is left with the parser until then: the event loop holds its memory while this
        runs, and it would have to be copied. Nothing happens before its message comes anyway.
        """
        body = self._parser.body
        if body is not None and not body.is_complete:
            self._connection.heard = True
            if body.advance(nbytes) and body.kind != DETACHED:
                self._connection.data_received(b"")
            return
        self._connection.data_received(bytes(memoryview(self._between)[:nbytes]))
        if self._parser.body is None:
            self._active = False
            self._stream.set_protocol(self._connection)  # type: ignore[arg-type]  # it is one
