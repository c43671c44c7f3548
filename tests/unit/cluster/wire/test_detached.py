"""Values beside their message: what is detached comes back in its place, and nothing else is taken."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.cluster.wire.detached import DETACHED_BYTES, Detached, attach, bytes_of, detach
from cache.cluster.wire.encoding import decode_reply, decode_request, encode_apart
from cache.cluster.wire.messages import (
    CopyEntries,
    Done,
    EndLoad,
    Entries,
    EntriesPage,
    EntryRecord,
    Found,
    Get,
    LoadTurn,
    Many,
    Modify,
    NearValue,
    Offer,
    Pipelined,
    PipelineReplies,
    Replicate,
    Replicated,
    ReplicateEach,
    Reply,
    Request,
    Set,
    SetMany,
    Value,
)
from cache.errors import RemoteProtocolError

LARGE = b"\x00" + bytes(range(256)) * (DETACHED_BYTES // 256)
OTHER = LARGE[::-1]
SMALL = b"\x00small"
VALUES = st.lists(st.sampled_from([None, b"", SMALL, LARGE, OTHER, LARGE[1:]]), max_size=6)


def _entry(value: bytes | None) -> EntryRecord:
    return EntryRecord("m", b"k", value, 7, 8, -1.0)


ENTRIES = [_entry(SMALL), _entry(LARGE), _entry(None), _entry(OTHER)]

REQUESTS: list[Request] = [
    Set("m", 1, b"k", LARGE, -1.0, b"o"),
    Modify("m", 1, b"k", b"o", 2, LARGE, -1.0, 0),
    EndLoad("m", 1, b"k", b"t", 0, LARGE, -1.0),
    SetMany("m", [1, 2, 3], [b"a", b"b", b"c"], [SMALL, LARGE, OTHER], -1.0, b"o"),
    Pipelined([SMALL, LARGE]),
    Replicate(1, 2, ENTRIES, [], []),
    ReplicateEach("m", 8, [1, 2], [3, 3], [b"a", b"b"], [None, LARGE], [7, 7], [-1.0, -1.0]),
    CopyEntries(
        1, 2, ["m", "n"], [1, 2], [b"a", b"b", b"c"], [LARGE, None, OTHER], [7] * 3, [8], [-1.0]
    ),
    Offer(1, ENTRIES, []),
]
REPLIES: list[Reply] = [
    Value(LARGE),
    Found(LARGE, -1.0, 1, 2),
    NearValue(LARGE, -1.0, 1, 2),
    LoadTurn(0, LARGE),
    Many([None, LARGE, SMALL, OTHER]),
    EntriesPage([b"a", b"b"], [LARGE, SMALL], [], -1, b"", []),
    PipelineReplies([SMALL, LARGE]),
    Replicated(ENTRIES, []),
    Entries(ENTRIES, []),
]


def _name(message: msgspec.Struct) -> str:
    return type(message).__name__


@pytest.mark.parametrize("message", [*REQUESTS, *REPLIES], ids=_name)
def test_large_values_are_detached_uncopied_and_come_back(message: Request | Reply) -> None:
    """What is encoded has room for them; they are the very objects that the message had."""
    decode = decode_request if message in REQUESTS else decode_reply

    body, detached = encode_apart(message)

    assert len(body) < 1000
    assert all(value is LARGE or value is OTHER for _, value in detached)
    assert attach(decode(body), detached) == message


@given(values=VALUES)
def test_a_column_is_what_it_was(values: list[bytes | None]) -> None:
    """Whichever of its values are large; those that are empty or None are not mixed up with them."""
    body, detached = encode_apart(Many(values))

    assert list(detached) == [
        (n, v) for n, v in enumerate(values) if v in (LARGE, OTHER, LARGE[1:])
    ]
    assert attach(decode_reply(body), detached) == Many(values)


def test_small_values_stay_where_they_are() -> None:
    """The message itself is returned, not a copy of it."""
    messages: Sequence[Request | Reply] = (
        Value(LARGE[: DETACHED_BYTES - 1]),
        Value(None),
        Many([]),
        Many([None, SMALL]),
        Entries([_entry(None), _entry(SMALL)], []),
        Get("m", 1, LARGE, False),
    )

    for message in messages:
        assert detach(message) == (message, ())
        assert detach(message)[0] is message


@pytest.mark.parametrize(
    ("message", "detached"),
    [
        (Done(), [(0, LARGE)]),
        (Value(None), [(0, LARGE)]),
        (Value(SMALL), [(0, LARGE)]),
        (Value(b""), [(1, LARGE)]),
        (Value(b""), [(0, LARGE), (0, OTHER)]),
        (Many([b"", SMALL]), [(1, LARGE)]),
        (Many([b"", None]), [(1, LARGE)]),
        (Many([b""]), [(2**64 - 1, LARGE)]),
        (Many([b"", b""]), [(1, LARGE), (1, OTHER)]),
        (Replicate(1, 2, [_entry(None)], [], []), [(0, LARGE)]),
    ],
    ids=repr,
)
def test_a_value_without_a_place_is_refused(message: Reply, detached: Detached) -> None:
    """A peer cannot overwrite what a message has, nor add to it."""
    with pytest.raises(RemoteProtocolError, match=type(message).__name__):
        attach(message, detached)


def test_their_bytes_are_those_on_the_wire() -> None:
    """Limits count headers, too."""
    assert bytes_of([(0, LARGE), (3, SMALL)]) == 13 + len(LARGE) + 13 + len(SMALL)
