"""Encoding: messages survive the trip, and any other bytes are the peer's fault."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.cluster.wire.encoding import (
    decode_greeting,
    decode_reply,
    decode_request,
    encode_message,
)
from cache.cluster.wire.messages import Done, Get, Hello, KeyVersion, Set, Value, Versions
from cache.errors import CodecError, RemoteProtocolError

DECODERS: list[Callable[[bytes], object]] = [decode_request, decode_reply, decode_greeting]


def test_request_survives() -> None:
    """A decoded request equals the one sent."""
    request = Set("users", 7, b"key", b"\x00\xff", 1.5, b"op")

    assert decode_request(encode_message(request)) == request


def test_reply_with_nested_records_survives() -> None:
    """Records inside messages are typed too."""
    reply = Versions([KeyVersion("m", b"k", 2**60, 2**32 - 1)])

    assert decode_reply(encode_message(reply)) == reply


def test_greeting_survives() -> None:
    """The handshake's messages have a decoder of their own."""
    hello = Hello(1, "cache", 1024, "a#0", "127.0.0.1:1", b"n" * 16)

    assert decode_greeting(encode_message(hello)) == hello


def test_reply_is_not_a_request() -> None:
    """Each decoder knows only what may pass in its direction."""
    with pytest.raises(RemoteProtocolError):
        decode_request(encode_message(Value(b"x")))
    with pytest.raises(RemoteProtocolError):
        decode_greeting(encode_message(Done()))


@pytest.mark.parametrize("decode", DECODERS)
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        b"\x91\x3c",
        b"\x91" * 100_000 + b"\xc0",
        b"\x92\x3c" + b"\x91" * 100_000 + b"\xc0",
        b"\x81\xa1a" * 100_000 + b"\xc0",
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xffabc",
        b"\x95\x3c\xa2\xff\xfe\x01\xc4\x00\xc2",
        msgspec.msgpack.encode([60, "m", 1.5, b"k", False]),
        msgspec.msgpack.encode([60, "m", 1, b"k", False, "more"]),
        msgspec.msgpack.encode([60, "m", "1", b"k", False]),
        msgspec.msgpack.encode([9999]),
        msgspec.msgpack.encode(Done()) + b"\x00",
    ],
    ids=lambda value: value[:12].hex() if isinstance(value, bytes) else value.__name__,
)
def test_bad_bytes_are_the_peers_fault(decode: Callable[[bytes], object], body: bytes) -> None:
    """Whatever a peer sends raises RemoteProtocolError and nothing else (design.md, invariant 8)."""
    with pytest.raises(RemoteProtocolError):
        decode(body)


@given(body=st.binary(max_size=200))
def test_random_bytes_raise_nothing_else(body: bytes) -> None:
    """The same for bytes nobody thought of."""
    for decode in DECODERS:
        try:
            decode(body)
        except RemoteProtocolError:
            continue


@given(position=st.integers(0, 40), byte=st.integers(0, 255))
def test_one_changed_byte_raises_nothing_else(position: int, byte: int) -> None:
    """The same for a valid message with one byte changed."""
    body = bytearray(encode_message(Get("users", 7, b"key" * 5, False)))
    body[position % len(body)] = byte

    try:
        decode_request(bytes(body))
    except RemoteProtocolError:
        return


def test_number_that_does_not_fit_is_the_callers_mistake() -> None:
    """MessagePack integers have 64 bits."""
    with pytest.raises(CodecError, match="Get"):
        encode_message(Get("m", 2**65, b"k", False))


def test_text_that_is_no_unicode_is_the_callers_mistake() -> None:
    """Lone surrogates have no UTF-8 form."""
    with pytest.raises(CodecError, match="Get"):
        encode_message(Get("\ud800", 1, b"k", False))
