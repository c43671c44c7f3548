"""Columns of entries: those that do not belong together are malformed."""

from __future__ import annotations

import msgspec
import pytest

from cache.cluster.wire.encoding import decode_request, encode_message
from cache.cluster.wire.messages import NEVER, CopyEntries
from cache.errors import RemoteProtocolError

TWO = CopyEntries(
    1, 2, ["m", "n"], [1, 1], [b"j", b"k"], [b"v", None], [3, 4], [5, 6], [NEVER, 7.0]
)
ONE_FOR_ALL = msgspec.structs.replace(TWO, origins=[5], ttls=[NEVER])
FIELDS = CopyEntries.__struct_fields__


def test_its_tag_is_fixed() -> None:
    """Members of different versions have to agree on it."""
    assert 194 == msgspec.msgpack.decode(encode_message(TWO))[0]


@pytest.mark.parametrize("message", [TWO, ONE_FOR_ALL], ids=["each", "for all"])
def test_columns_arrive_as_they_were_sent(message: CopyEntries) -> None:
    """Origins and times to live are one for each entry or one for all."""
    assert message == decode_request(encode_message(message))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("maps", ["m"]),
        ("counts", [1]),
        ("counts", [1, 2]),
        ("counts", [2, 0]),
        ("counts", [3, -1]),
        ("keys", [b"j"]),
        ("values", [b"v"]),
        ("values", [b"v", None, None]),
        ("hlcs", [3]),
        ("hlcs", [3, -4]),
        ("origins", []),
        ("origins", [5, 6, 7]),
        ("origins", [5, 2**63]),
        ("ttls", []),
        ("ttls", [NEVER] * 3),
        ("ttls", [NEVER, -2.0]),
        ("ttls", [float("nan")]),
    ],
)
def test_columns_that_do_not_fit_are_the_peers_fault(field: str, value: list[object]) -> None:
    """They are refused while decoding, before any of them is applied."""
    columns = [value if name == field else getattr(TWO, name) for name in FIELDS]

    with pytest.raises(RemoteProtocolError):
        decode_request(msgspec.msgpack.encode([194, *columns]))


def test_a_message_without_entries_is_malformed() -> None:
    """There is no latest version in it."""
    with pytest.raises(RemoteProtocolError, match="maps of 0 entries"):
        decode_request(msgspec.msgpack.encode([194, 1, 2, [], [], [], [], [], [5], [NEVER]]))
