"""Commands out of bytes: whole, in pieces, inline, and what is refused before anything is made for it."""

from __future__ import annotations

import pytest

from cache.cluster.resp.parser import (
    LARGE_BYTES,
    ProtocolError,
    RequestLimits,
    RequestParser,
    split_line,
)

LIMITS = RequestLimits(arguments_max=10, bulk_bytes_max=100_000, request_bytes_max=150_000)


def commands(data: bytes, limits: RequestLimits = LIMITS, *, step: int = 0) -> list[list[bytes]]:
    """Return the commands of a stream that is fed whole, or `step` bytes at a time."""
    parser = RequestParser(limits)
    found = []
    for at in range(0, len(data), step or max(1, len(data))):
        parser.feed(data[at : at + (step or len(data))])
        while (command := parser.next()) is not None:
            found.append(command)
    return found


@pytest.mark.parametrize("step", [0, 1, 2, 7])
def test_commands_are_found_whatever_the_pieces(step: int) -> None:
    """A read may end anywhere."""
    data = b"*2\r\n$3\r\nGET\r\n$4\r\na\r\nb\r\n*1\r\n$0\r\n\r\nPING x\r\n*1\r\n$4\r\nQUIT\r\n"

    found = commands(data, step=step)

    assert found == [[b"GET", b"a\r\nb"], [b""], [b"PING", b"x"], [b"QUIT"]]


def test_only_what_is_asked_for_is_parsed() -> None:
    """What is not executed yet stays bytes, and is counted."""
    parser = RequestParser(LIMITS)
    parser.feed(b"PING\r\n" * 3)

    assert parser.next() == [b"PING"]
    assert parser.waiting_bytes == 12


def test_nothing_and_null_are_skipped() -> None:
    """Empty lines, empty arrays and null arrays are no commands, and are not answered."""
    assert commands(b"\r\n\n*0\r\n*-1\r\n  \r\nPING\n") == [[b"PING"]]


@pytest.mark.parametrize("step", [0, 1000, LARGE_BYTES])
def test_large_strings_are_gathered_in_place(step: int) -> None:
    """Of pieces of any size, with what follows them."""
    value = bytes(range(256)) * 256
    data = b"*2\r\n$3\r\nSET\r\n$%d\r\n%b\r\nPING\r\n" % (len(value), value)

    assert commands(data, step=step) == [[b"SET", value], [b"PING"]]


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"*11\r\n", "invalid multibulk length"),
        (b"*x\r\n", "invalid multibulk length"),
        (b"*+1\r\n", "invalid multibulk length"),
        (b"*1\r\n$100001\r\n", "invalid bulk length"),
        (b"*1\r\n$-1\r\n", "invalid bulk length"),
        (b"*1\r\n$ 1\r\n", "invalid bulk length"),
        (b"*1\r\n:1\r\n", r"expected '\$', got ':'"),
        (b"*1\r\n*1\r\n", r"expected '\$', got '\*'"),
        (b"*1\r\n\x00", r"expected '\$', got '\?'"),
        (b"*1\r\n$1\r\nab\r\n", "expected CRLF"),
        (b"*2\r\n$100000\r\n" + bytes(100_000) + b"\r\n$90000\r\n", "over 150000 bytes"),
        (b"*" + b"1" * 70_000, "too big mbulk count string"),
        (b"*1\r\n$" + b"1" * 70_000, "too big bulk count string"),
        (b"x" * 70_000, "too big inline request"),
        (b'"open\r\n', "unbalanced quotes"),
    ],
)
def test_what_is_no_command_is_refused(data: bytes, complaint: str) -> None:
    """By a length, before its bytes have come; the connection cannot go on."""
    with pytest.raises(ProtocolError, match=complaint):
        commands(data)


def test_many_words_count_for_more_than_their_bytes() -> None:
    """An empty word takes memory too: the limit of a command counts it."""
    limits = RequestLimits(arguments_max=1000, bulk_bytes_max=10, request_bytes_max=640)
    ten = b"$0\r\n\r\n" * 10

    assert commands(b"*10\r\n" + ten, limits) == [[b""] * 10]
    with pytest.raises(ProtocolError, match="over 640 bytes"):
        commands(b"*11\r\n" + ten + b"$0\r\n", limits)


def test_limits_before_the_password_have_a_name() -> None:
    """As Redis calls them."""
    limits = RequestLimits(
        arguments_max=1, bulk_bytes_max=1, request_bytes_max=100, prefix="unauthenticated"
    )

    with pytest.raises(ProtocolError, match="unauthenticated multibulk length"):
        commands(b"*2\r\n", limits)
    with pytest.raises(ProtocolError, match="unauthenticated bulk length"):
        commands(b"*1\r\n$2\r\n", limits)
    with pytest.raises(ProtocolError, match="invalid multibulk length"):
        commands(b"*x\r\n", limits)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"", []),
        (b"  SET  k\tv ", [b"SET", b"k", b"v"]),
        (rb'"a b" "\x41\n\"\q"', [b"a b", b'A\n"q']),
        (rb"'a \' \n' b", [rb"a ' \n", b"b"]),
        (rb'"" x', [b"", b"x"]),
        (rb'"\xzz"', [b"xzz"]),
    ],
)
def test_words_of_a_line(line: bytes, words: list[bytes]) -> None:
    """As people type them into telnet."""
    assert split_line(line) == words
