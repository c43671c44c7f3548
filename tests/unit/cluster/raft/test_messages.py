"""The wire format of Raft messages."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.cluster.raft.messages import (
    AnyMessage,
    Append,
    Entry,
    GroupId,
    Kind,
    Members,
    ReplicaId,
    decode_members,
    decode_message,
    encode,
)
from cache.errors import RemoteProtocolError


def test_tags_are_unique_and_in_their_range() -> None:
    """Tags are fixed for ever; 160 to 189 are Raft's."""
    tags = [message.__struct_config__.tag for message in get_args(AnyMessage)]

    assert list(range(160, 175)) == sorted(tags)


@given(
    st.lists(
        st.builds(
            Entry,
            st.integers(1, 2**63),
            st.integers(0, 2**63),
            st.floats(allow_nan=False),
            st.sampled_from(Kind),
            st.binary(max_size=20),
            st.integers(0, 2**63),
        ),
        max_size=3,
    )
)
def test_entries_survive_the_wire(entries: list[Entry]) -> None:
    """All fields."""
    message = Append(GroupId("g"), ReplicaId("a"), 1, 0, 0, 0, tuple(entries))

    assert message == decode_message(encode(message))


@given(st.binary(max_size=60))
def test_bad_bytes_are_a_protocol_error_and_nothing_else(body: bytes) -> None:
    """Bytes from the network never crash a member."""
    with pytest.raises(RemoteProtocolError):
        decode_message(b"\x93" + body)


def test_bad_members_are_a_protocol_error() -> None:
    """An entry's data is checked when it is read."""
    assert Members(("a",)) == decode_members(encode(Members(("a",))))
    with pytest.raises(RemoteProtocolError, match="members"):
        decode_members(b"?")
