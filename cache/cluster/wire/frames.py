"""Frames of the stream protocol: cutting bytes into frames and back; knows nothing of what a body means.

    length  4 bytes, big endian: bytes that follow it (9 + body)
    kind    1 byte: one of the constants below
    id      8 bytes, big endian: chosen by the caller, repeated in the reply; 0 for greetings and notices
    body    MessagePack, see `messages.py`; empty for PING and PONG

A length is judged as soon as its four bytes are there, before anything is set aside for the body.
"""

from __future__ import annotations

import struct
from typing import Final

from cache.errors import RemoteProtocolError

GREETING: Final = 1
REQUEST: Final = 2
REPLY: Final = 3
PING: Final = 4
PONG: Final = 5
NOTICE: Final = 6
"""From the calling side; nothing answers it."""

HEADER: Final = struct.Struct(">IBQ")
HEADER_BYTES: Final = HEADER.size
LENGTH_BYTES: Final = 4
ENVELOPE_BYTES: Final = HEADER_BYTES - LENGTH_BYTES
"""What the length counts besides the body."""

GREETING_BYTES_MAX: Final = 4096
"""Largest length accepted before the handshake is complete."""

Frame = tuple[int, int, bytes]
"""(kind, id, body); a plain tuple because a frame is made for every request."""


def encode_header(kind: int, request_id: int, body_bytes: int) -> bytes:
    """Return the header of a frame whose body has `body_bytes` bytes."""
    return HEADER.pack(ENVELOPE_BYTES + body_bytes, kind, request_id)


def encode_frame(kind: int, request_id: int, body: bytes) -> bytes:
    """Return a whole frame."""
    return HEADER.pack(ENVELOPE_BYTES + len(body), kind, request_id) + body


class FrameParser:
    """Cuts a stream of bytes into frames; holds at most one incomplete frame.

    Args:
        limit: largest length accepted; assign to `limit` to change it for the frames that follow.
    """

    __slots__ = ("_needed", "_partial", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._partial = bytearray()
        self._needed = 0

    def feed(self, data: bytes) -> list[Frame]:
        """Take the next bytes of the stream and return the frames that are complete now.

        Linear in the bytes fed, however they are cut: an incomplete frame grows in place.

        Raises:
            RemoteProtocolError: a length is over the limit or under the envelope; the parser is
                of no use afterwards.
        """
        frames: list[Frame] = []
        if self._partial:
            self._partial += data
            if len(self._partial) < self._needed:
                return frames
            data = self._finish_partial(frames)
        self._cut(data, frames)
        return frames

    def _cut(self, data: bytes, frames: list[Frame]) -> None:
        offset = 0
        size = len(data)
        needed = HEADER_BYTES
        while size - offset >= HEADER_BYTES:
            length, kind, request_id = HEADER.unpack_from(data, offset)
            if not ENVELOPE_BYTES <= length <= self.limit:
                raise self._bad_length(length)
            end = offset + LENGTH_BYTES + length
            if end > size:
                needed = end - offset
                break
            frames.append((kind, request_id, data[offset + HEADER_BYTES : end]))
            offset = end
        if offset < size:
            self._hold(data[offset:], needed)

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
