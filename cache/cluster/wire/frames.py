"""Frames of the stream protocol: cutting bytes into frames and back; knows nothing of what a body means.

    length  4 bytes, big endian: bytes that follow it (9 + body)
    kind    1 byte: one of the constants below
    id      8 bytes, big endian: chosen by the caller, repeated in the reply; 0 for greetings and notices
    body    MessagePack, see `messages.py`; empty for PING and PONG; for DETACHED a value as it is

A length is judged as soon as its four bytes are there, before anything is set aside for the body. For a large
body no more memory is set aside than `ROOM_FIRST`, or twice of what has come.
"""

from __future__ import annotations

import struct
from io import BytesIO
from typing import Final

from cache.errors import RemoteProtocolError

GREETING: Final = 1
REQUEST: Final = 2
REPLY: Final = 3
PING: Final = 4
PONG: Final = 5
NOTICE: Final = 6
"""From the calling side; nothing answers it."""
DETACHED: Final = 7
"""A value of the message that comes next on this stream, see `detached.py`; the id is the value's index."""

HEADER: Final = struct.Struct(">IBQ")
HEADER_BYTES: Final = HEADER.size
LENGTH_BYTES: Final = 4
ENVELOPE_BYTES: Final = HEADER_BYTES - LENGTH_BYTES
"""What the length counts besides the body."""

GREETING_BYTES_MAX: Final = 4096
"""Largest length accepted before the handshake is complete."""

LARGE_BYTES: Final = 64 * 1024
"""A body of so many bytes that comes in pieces is put together where it stays."""

ROOM_FIRST: Final = 2 * 1024 * 1024
"""Bytes set aside for a large body before any of it has come."""

Frame = tuple[int, int, bytes]
"""(kind, id, body); a plain tuple because a frame is made for every request."""


def encode_header(kind: int, request_id: int, body_bytes: int) -> bytes:
    """Return the header of a frame whose body has `body_bytes` bytes."""
    return HEADER.pack(ENVELOPE_BYTES + body_bytes, kind, request_id)


def encode_frame(kind: int, request_id: int, body: bytes) -> bytes:
    """Return a whole frame."""
    return HEADER.pack(ENVELOPE_BYTES + len(body), kind, request_id) + body


class Body:
    """A large body that is being received, in memory that becomes the `bytes` of its frame."""

    __slots__ = ("_size", "_store", "id", "kind", "received", "room")

    def __init__(self, kind: int, request_id: int, size: int) -> None:
        self.kind = kind
        self.id = request_id
        self.received = 0
        self.room = min(size, ROOM_FIRST)
        """Bytes set aside."""
        self._size = size
        self._store = BytesIO(bytes(self.room))

    @property
    def is_complete(self) -> bool:
        """Whether all of it was received."""
        return self.received == self._size

    def advance(self, count: int) -> bool:
        """Note that so many bytes were put where `rest` said; return whether the body is complete now."""
        self.received += count
        return self.received == self._size

    def rest(self) -> memoryview:
        """Return where the next bytes belong; `advance` is then told how many were put there.

        It is empty only of a complete body, and of no use once `rest` is called again.
        """
        if self.received == self.room < self._size:
            self.room = min(2 * self.room, self._size)
            larger = BytesIO(bytes(self.room))
            larger.getbuffer()[: self.received] = self._store.getbuffer()
            self._store = larger
        return self._store.getbuffer()[self.received :]

    def fill(self, data: bytes | memoryview) -> int:
        """Copy bytes of the stream into the body; return how many of them belong to it."""
        begun_at = self.received
        view = memoryview(data)
        while view and not self.is_complete:
            rest = self.rest()
            count = min(len(rest), len(view))
            rest[:count] = view[:count]
            self.received += count
            view = view[count:]
        return self.received - begun_at

    def frame(self) -> Frame:
        """Return the frame of a complete body. It is not copied, unless somebody holds what `rest` gave."""
        return self.kind, self.id, self._store.getvalue()


class FrameParser:
    """Cuts a stream of bytes into frames; holds at most one incomplete frame.

    Args:
        limit: largest length accepted; assign to `limit` to change it for the frames that follow.

    `body` is the large one that is being received, None for none. Its next bytes are fed like all others, or
    put where `body.rest()` says. Once complete, its frame comes with what is fed next, were it nothing.
    """

    __slots__ = ("_needed", "_partial", "body", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.body: Body | None = None
        self._partial = bytearray()
        self._needed = 0

    @property
    def held_bytes(self) -> int:
        """Bytes set aside for the incomplete frame."""
        return len(self._partial) + (0 if self.body is None else self.body.room)

    def feed(self, data: bytes) -> list[Frame]:
        """Take the next bytes of the stream and return the frames that are complete now.

        Linear in the bytes fed, however they are cut: an incomplete frame grows in place.

        Raises:
            RemoteProtocolError: a length is over the limit or under the envelope; the parser is
                of no use afterwards.
        """
        frames: list[Frame] = []
        if self.body is not None:
            taken = self.body.fill(data)
            if not self.body.is_complete:
                return frames
            frames.append(self.body.frame())
            self.body = None
            data = data[taken:]
        elif self._partial:
            self._partial += data
            if len(self._partial) < self._needed:
                return frames
            data = self._finish_partial(frames)
        offset = 0
        size = len(data)
        needed = HEADER_BYTES
        while size - offset >= HEADER_BYTES:
            length, kind, request_id = HEADER.unpack_from(data, offset)
            if not ENVELOPE_BYTES <= length <= self.limit:
                raise self._bad_length(length)
            end = offset + LENGTH_BYTES + length
            if end > size:
                if length >= LARGE_BYTES:
                    self.body = Body(kind, request_id, length - ENVELOPE_BYTES)
                    self.body.fill(memoryview(data)[offset + HEADER_BYTES :])
                    return frames
                needed = end - offset
                break
            frames.append((kind, request_id, data[offset + HEADER_BYTES : end]))
            offset = end
        if offset < size:
            self._hold(data[offset:], needed)
        return frames

    def _hold(self, rest: bytes, needed: int) -> None:
        if LENGTH_BYTES <= len(rest) < HEADER_BYTES:
            length = int.from_bytes(rest[:LENGTH_BYTES], "big")
            if not ENVELOPE_BYTES <= length <= self.limit:
                raise self._bad_length(length)
        elif len(rest) < LENGTH_BYTES:
            needed = LENGTH_BYTES
        self._partial += rest
        self._needed = needed

    def _finish_partial(self, frames: list[Frame]) -> bytes:
        """Take a held frame's body straight from the buffer; return the bytes still to be cut."""
        partial, needed = self._partial, self._needed
        self._partial = bytearray()
        if needed <= HEADER_BYTES:
            return bytes(partial)
        _, kind, request_id = HEADER.unpack_from(partial)
        view = memoryview(partial)
        frames.append((kind, request_id, bytes(view[HEADER_BYTES:needed])))
        return bytes(view[needed:])

    def _bad_length(self, length: int) -> RemoteProtocolError:
        return RemoteProtocolError(
            f"frame length {length} is outside {ENVELOPE_BYTES}..{self.limit}"
        )
