"""Every type in both protocols."""

from __future__ import annotations

import pytest

from cache.cluster.resp.replies import (
    RESP2,
    RESP3,
    Failed,
    Members,
    Push,
    Reply,
    Several,
    Status,
    Verbatim,
    encode,
    size_bytes,
)


@pytest.mark.parametrize(
    ("reply", "in_2", "in_3"),
    [
        (b"a\r\n", b"$3\r\na\r\n\r\n", None),
        (None, b"$-1\r\n", b"_\r\n"),
        (-7, b":-7\r\n", None),
        (Status(b"OK"), b"+OK\r\n", None),
        (
            [b"a", None, [1]],
            b"*3\r\n$1\r\na\r\n$-1\r\n*1\r\n:1\r\n",
            b"*3\r\n$1\r\na\r\n_\r\n*1\r\n:1\r\n",
        ),
        ({b"a": 1}, b"*2\r\n$1\r\na\r\n:1\r\n", b"%1\r\n$1\r\na\r\n:1\r\n"),
        (Members((b"a",)), b"*1\r\n$1\r\na\r\n", b"~1\r\n$1\r\na\r\n"),
        (Push((b"a", None)), b"*2\r\n$1\r\na\r\n$-1\r\n", b">2\r\n$1\r\na\r\n_\r\n"),
        (Verbatim(b"a"), b"$1\r\na\r\n", b"=5\r\ntxt:a\r\n"),
        (Several((1, 2)), b":1\r\n:2\r\n", None),
        (Failed("ERR two\r\nlines"), b"-ERR two  lines\r\n", None),
    ],
)
def test_replies_as_bytes(reply: Reply, in_2: bytes, in_3: bytes | None) -> None:
    """None: RESP3 has it as RESP2 does."""
    assert encode(reply, RESP2) == in_2
    assert encode(reply, RESP3) == (in_2 if in_3 is None else in_3)


def test_the_size_of_a_list_is_known_before_it_is_made() -> None:
    """Never less than its bytes, and of the same order."""
    reply: Reply = [bytes(1000), None, 5, [b"x" * 500]]

    assert len(encode(reply, RESP2)) <= size_bytes(reply) <= 2 * len(encode(reply, RESP2))
