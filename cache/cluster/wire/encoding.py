"""Messages to bytes and back: typed MessagePack, checked field by field while decoding.

A decoder raises `RemoteProtocolError` for whatever bytes a peer may send, and nothing else. Encoders and
decoders hold no state between calls, so one of each serves the whole process.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

import msgspec

from cache.cluster.wire.detached import Detached, detach
from cache.cluster.wire.messages import Greeting, Notice, Reply, Request
from cache.errors import CodecError, RemoteProtocolError

T = TypeVar("T")

_ENCODER: Final = msgspec.msgpack.Encoder()

# msgspec's own errors, bad UTF-8 (a ValueError), numbers out of range, and nesting that exhausts the stack.
_BAD_BYTES: Final = (
    msgspec.MsgspecError,
    ValueError,
    TypeError,
    OverflowError,
    RecursionError,
    MemoryError,
)


def encode_message(message: Request | Reply | Notice | Greeting) -> bytes:
    """Return the bytes of a message.

    Raises:
        CodecError: a field does not fit (an integer over 64 bits, text with lone surrogates).
    """
    try:
        return _ENCODER.encode(message)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise CodecError(f"{type(message).__name__} cannot be encoded: {error}") from error


def encode_apart(message: Request | Reply, whole: bytes | None = None) -> tuple[bytes, Detached]:
    """Return the bytes of a message without its large values, and those, which are not copied.

    `whole` are its bytes with them, if they are known: those of a message that has none.

    Raises:
        CodecError: as `encode_message`.
    """
    rest, detached = detach(message)
    if whole is not None and not detached:
        return whole, detached
    return encode_message(rest), detached


def exact_decoder(decoder: msgspec.msgpack.Decoder[T], what: str) -> Callable[[bytes], T]:
    """Return a function that returns what a decoder makes of bytes, all of them.

    It raises `RemoteProtocolError` for bytes that are not exactly one of `what`.
    """
    decode = decoder.decode

    def decode_exactly(body: bytes) -> T:
        try:
            return decode(body)
        except _BAD_BYTES as error:
            raise RemoteProtocolError(f"not {what}: {error}") from error

    return decode_exactly


decode_request: Final[Callable[[bytes], Request]] = exact_decoder(
    msgspec.msgpack.Decoder(Request), "a request"
)
decode_reply: Final[Callable[[bytes], Reply]] = exact_decoder(
    msgspec.msgpack.Decoder(Reply), "a reply"
)
decode_notice: Final[Callable[[bytes], Notice]] = exact_decoder(
    msgspec.msgpack.Decoder(Notice), "a notice"
)
decode_greeting: Final[Callable[[bytes], Greeting]] = exact_decoder(
    msgspec.msgpack.Decoder(Greeting), "a greeting"
)
"""Return the message in bytes of a peer, or raise `RemoteProtocolError`."""
