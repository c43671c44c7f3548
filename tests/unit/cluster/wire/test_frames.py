"""Frames: cutting bytes into frames, whatever the pieces, and refusing bad lengths early."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.cluster.wire import frames
from cache.cluster.wire.frames import (
    HEADER_BYTES,
    LARGE_BYTES,
    ROOM_FIRST,
    FrameParser,
    encode_frame,
    encode_header,
)
from cache.errors import RemoteProtocolError

FRAMES = st.lists(
    st.tuples(st.integers(0, 255), st.integers(0, 2**64 - 1), st.binary(max_size=60)), max_size=8
)


def test_layout_is_length_kind_id_body() -> None:
    """Four bytes length of what follows, one byte kind, eight bytes id, body: the wire format."""
    frame = encode_frame(frames.REQUEST, 0x0102, b"ab")

    assert frame == b"\x00\x00\x00\x0b" + b"\x02" + b"\x00\x00\x00\x00\x00\x00\x01\x02" + b"ab"


def test_header_and_body_make_a_frame() -> None:
    """A large body is written beside its header instead of being joined to it."""
    assert encode_header(frames.REPLY, 7, 3) + b"abc" == encode_frame(frames.REPLY, 7, b"abc")


@given(sent=FRAMES, cuts=st.lists(st.integers(1, 40), max_size=40))
def test_frames_survive_any_cutting_of_the_stream(
    sent: list[tuple[int, int, bytes]], cuts: list[int]
) -> None:
    """TCP keeps no boundaries: the same frames come out however the bytes arrive."""
    stream = b"".join(encode_frame(*frame) for frame in sent)
    parser = FrameParser(4096)
    received: list[frames.Frame] = []

    for cut in [*cuts, len(stream) + 1]:
        received += parser.feed(stream[:cut])
        stream = stream[cut:]

    assert received == sent


def test_one_byte_at_a_time() -> None:
    """The slowest sender is parsed like any other."""
    parser = FrameParser(4096)
    received = []

    for byte in encode_frame(3, 9, b"body") + encode_frame(4, 1, b""):
        received += parser.feed(bytes([byte]))

    assert received == [(3, 9, b"body"), (4, 1, b"")]


@pytest.mark.parametrize("length", [0, 8, 101, 2**31, 2**32 - 1])
def test_bad_length_is_refused_from_its_four_bytes(length: int) -> None:
    """Nothing is set aside for a body before its length was judged (design.md, invariant 8)."""
    parser = FrameParser(100)

    with pytest.raises(RemoteProtocolError, match=str(length)):
        parser.feed(struct.pack(">I", length))


@pytest.mark.parametrize("cut", [1, 4, 5, 12])
def test_bad_length_is_refused_however_it_arrives(cut: int) -> None:
    """Cutting the header does not smuggle a length past the check."""
    data = struct.pack(">IBQ", 2**31, 2, 1)
    parser = FrameParser(100)

    def feed_both() -> None:
        parser.feed(data[:cut])
        parser.feed(data[cut:])

    with pytest.raises(RemoteProtocolError):
        feed_both()


def test_length_at_the_limit_is_accepted() -> None:
    """The limit is the largest length that is allowed, envelope included."""
    parser = FrameParser(frames.ENVELOPE_BYTES + 10)

    assert parser.feed(encode_frame(2, 1, b"x" * 10)) == [(2, 1, b"x" * 10)]
    with pytest.raises(RemoteProtocolError):
        parser.feed(encode_frame(2, 1, b"x" * 11))


def test_raised_limit_holds_for_the_next_frame() -> None:
    """After the handshake the limit rises from 4 KiB to the configured one."""
    parser = FrameParser(frames.GREETING_BYTES_MAX)
    big = b"x" * 100_000

    parser.limit = 200_000

    assert parser.feed(encode_frame(2, 1, big)) == [(2, 1, big)]


def test_large_body_in_pieces_is_whole() -> None:
    """A body of many pieces, followed by the start of the next frame in the same piece."""
    body = bytes(range(256)) * 4096
    stream = encode_frame(2, 1, body) + encode_frame(2, 2, b"next")
    parser = FrameParser(4 << 20)
    received = []

    for offset in range(0, len(stream), 65_537):
        received += parser.feed(stream[offset : offset + 65_537])

    assert received == [(2, 1, body), (2, 2, b"next")]


def _receive_in_place(parser: FrameParser, data: bytes, piece: int) -> None:
    """Put bytes where the parser's body wants them, as a socket does."""
    while data:
        assert parser.body is not None
        rest = parser.body.rest()
        count = min(piece, len(rest), len(data))
        rest[:count] = data[:count]
        parser.body.advance(count)
        data = data[count:]


@pytest.mark.parametrize("size", [LARGE_BYTES, ROOM_FIRST, ROOM_FIRST + 1, 5 * ROOM_FIRST])
@pytest.mark.parametrize("begun", [0, 1, LARGE_BYTES - 100])
def test_large_body_received_in_place_is_whole(size: int, begun: int) -> None:
    """However large, and however much of it came with its header; what follows is cut as ever."""
    body = bytes(range(251)) * (size // 251) + b"x" * (size % 251)
    frame = encode_frame(2, 1, body)
    parser = FrameParser(10 * ROOM_FIRST)

    assert parser.feed(frame[: HEADER_BYTES + begun]) == []
    _receive_in_place(parser, body[begun:], piece=300_001)

    assert parser.feed(encode_frame(3, 2, b"next")) == [(2, 1, body), (3, 2, b"next")]
    assert parser.body is None


@given(
    sizes=st.lists(
        st.sampled_from([0, 10, LARGE_BYTES - 9, LARGE_BYTES, LARGE_BYTES + 5000]), max_size=6
    ),
    cuts=st.lists(st.tuples(st.booleans(), st.integers(1, 90_000)), max_size=12),
)
def test_frames_survive_any_mixture_of_pieces_and_places(
    sizes: list[int], cuts: list[tuple[bool, int]]
) -> None:
    """Whether a piece is fed, or put where a large body wants it: the same frames come out."""
    sent = [(frames.DETACHED, n, bytes([n]) * size) for n, size in enumerate(sizes)]
    stream = b"".join(encode_frame(*frame) for frame in sent)
    parser = FrameParser(1 << 20)
    received: list[frames.Frame] = []

    for in_place, cut in cuts:
        if in_place and parser.body is not None and not parser.body.is_complete:
            count = min(cut, len(parser.body.rest()), len(stream))
            _receive_in_place(parser, stream[:count], piece=30_000)
        else:
            count = cut
            received += parser.feed(stream[:count])
        stream = stream[count:]
    received += parser.feed(stream)

    assert received == sent
    assert parser.held_bytes == 0


def test_large_body_received_in_place_is_not_copied() -> None:
    """The memory that was received into is what is handed out."""
    parser = FrameParser(1 << 20)
    parser.feed(encode_header(frames.DETACHED, 0, LARGE_BYTES))
    _receive_in_place(parser, b"v" * LARGE_BYTES, piece=10_000)
    body = parser.body
    assert body is not None

    ((_, _, received),) = parser.feed(b"")

    assert received is body.frame()[2]


def test_announced_length_sets_little_aside() -> None:
    """A header is believed for 2 MiB; the rest follows what has come, by no more than as much again."""
    parser = FrameParser(1 << 30)

    parser.feed(encode_header(frames.DETACHED, 0, 1 << 29))
    announced = parser.held_bytes
    _receive_in_place(parser, bytes(ROOM_FIRST), piece=ROOM_FIRST)
    _receive_in_place(parser, b"x", piece=1)

    assert announced == ROOM_FIRST
    assert parser.held_bytes == 2 * ROOM_FIRST


def test_body_is_large_only_within_the_limit() -> None:
    """Before the handshake the limit is 4 KiB: a stranger's body is never received in place."""
    parser = FrameParser(frames.GREETING_BYTES_MAX)

    with pytest.raises(RemoteProtocolError, match="outside"):
        parser.feed(encode_header(frames.DETACHED, 0, LARGE_BYTES))

    assert parser.held_bytes == 0
