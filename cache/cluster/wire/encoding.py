"""Messages to bytes and back: typed MessagePack, checked field by field while decoding.

A decoder raises `RemoteProtocolError` for whatever bytes a peer may send, and nothing else. Encoders and
decoders hold no state between calls, so one of each serves the whole process.
"""

from __future__ import annotations

from typing import Final, TypeVar

import msgspec

from cache.cluster.wire.detached import Detached, detach
from cache.cluster.wire.messages import Greeting, Notice, Reply, Request
from cache.errors import CodecError, RemoteProtocolError

T = TypeVar("T")

_ENCODER: Final = msgspec.msgpack.Encoder()
_REQUESTS: Final[msgspec.msgpack.Decoder[Request]] = msgspec.msgpack.Decoder(Request)
_REPLIES: Final[msgspec.msgpack.Decoder[Reply]] = msgspec.msgpack.Decoder(Reply)
_NOTICES: Final[msgspec.msgpack.Decoder[Notice]] = msgspec.msgpack.Decoder(Notice)
_GREETINGS: Final[msgspec.msgpack.Decoder[Greeting]] = msgspec.msgpack.Decoder(Greeting)

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


def decode_request(body: bytes) -> Request:
    """Return the request in `body`.

    Raises:
        RemoteProtocolError: these bytes are not exactly one request.
    """
    return decode_exactly(_REQUESTS, body, "a request")


def decode_reply(body: bytes) -> Reply:
    """Return the reply in `body`.

    Raises:
        RemoteProtocolError: these bytes are not exactly one reply.
    """
    return decode_exactly(_REPLIES, body, "a reply")


def decode_notice(body: bytes) -> Notice:
    """Return the notice in `body`.

    Raises:
        RemoteProtocolError: these bytes are not exactly one notice.
    """
    return decode_exactly(_NOTICES, body, "a notice")


def decode_greeting(body: bytes) -> Greeting:
    """Return the greeting in `body`.

    Raises:
        RemoteProtocolError: these bytes are not exactly one greeting.
    """
    return decode_exactly(_GREETINGS, body, "a greeting")


def decode_exactly(decoder: msgspec.msgpack.Decoder[T], body: bytes, what: str) -> T:
    """Return what a decoder makes of `body`.

    Raises:
        RemoteProtocolError: these bytes are not exactly one of `what`.
    """
    try:
        return decoder.decode(body)
    except _BAD_BYTES as error:
        raise RemoteProtocolError(f"not {what}: {error}") from error
