"""The parser of the RESP port under any bytes in any pieces."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cache.cluster.resp.parser import (
    ARGUMENT_OVERHEAD,
    LINE_BYTES_MAX,
    ProtocolError,
    RequestLimits,
    RequestParser,
)

LIMITS = RequestLimits(arguments_max=50, bulk_bytes_max=60_000, request_bytes_max=100_000)
COMMANDS = st.lists(st.lists(st.binary(max_size=40), min_size=1, max_size=6), max_size=8)
SNIPPETS = st.sampled_from(
    [
        b"*",
        b"$",
        b"\r\n",
        b"\n",
        b"1",
        b"3",
        b"-1",
        b"0",
        b'"',
        b"'",
        b"\\x4",
        b"GET",
        b" ",
        b":",
        b"60000",
    ]
)
HOSTILE = st.lists(st.one_of(SNIPPETS, st.binary(max_size=12)), max_size=40).map(b"".join)
CUTS = st.lists(st.integers(1, 30), min_size=1, max_size=12)


def encode(words: list[bytes]) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(w), w) for w in words)


def outcome(data: bytes, cuts: list[int]) -> tuple[list[list[bytes]], str]:
    """Return the commands of a stream that comes in pieces of these lengths, and how it ended."""
    parser = RequestParser(LIMITS)
    found: list[list[bytes]] = []
    at = turn = 0
    while at < len(data):
        piece = data[at : at + cuts[turn % len(cuts)]]
        at, turn = at + len(piece), turn + 1
        parser.feed(piece)
        try:
            while (command := parser.next()) is not None:
                assert command
                found.append(command)
        except ProtocolError as error:
            return found, str(error)
        held_max = LINE_BYTES_MAX + LIMITS.request_bytes_max + len(piece)
        assert parser.waiting_bytes <= held_max + ARGUMENT_OVERHEAD * LIMITS.arguments_max
    return found, ""


@given(COMMANDS, CUTS)
def test_every_command_is_read_as_it_was_sent(commands: list[list[bytes]], cuts: list[int]) -> None:
    assert outcome(b"".join(map(encode, commands)), cuts) == (commands, "")


@given(HOSTILE, CUTS)
def test_pieces_make_no_difference_and_nothing_else_is_raised(data: bytes, cuts: list[int]) -> None:
    """The commands, and the error after them, depend on the bytes alone."""
    assert outcome(data, cuts) == outcome(data, [max(1, len(data))])
