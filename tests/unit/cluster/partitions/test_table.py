"""The partition table as a value, and what is refused on arrival."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.cluster.ids import Address, MemberId
from cache.cluster.partitions.table import (
    ANCESTORS_MAX,
    EPOCH_MAX,
    VERSION_MAX,
    Row,
    Table,
    TableVersion,
    empty_table,
    epoch_of,
    map_seed,
    partition_of,
)
from cache.cluster.wire.encoding import decode_request, encode_message
from cache.cluster.wire.messages import RowRecord, TableChanges, TableId, TableRecord
from cache.errors import RemoteProtocolError

A, B, C = MemberId("a#1"), MemberId("b#1"), MemberId("c#1")
ADDRESSES = {A: Address("h:1"), B: Address("h:2"), C: Address("h:3")}


def table(*rows: Row, version: int = 5, ancestors: tuple[TableVersion, ...] = ()) -> Table:
    return Table(TableVersion(version, A), ancestors, rows, ADDRESSES)


TABLE = table(
    Row(1, (A, B), ()), Row(2, (B,), (C,)), Row(0, (), ()), ancestors=(TableVersion(4, B),)
)


def test_owner_is_the_first_complete_copy() -> None:
    """A joining member never owns."""
    assert TABLE.owner(0) == A
    assert TABLE.owner(1) == B
    assert TABLE.owner(2) is None


def test_partitions_are_listed_and_counted_per_member() -> None:
    """Held includes joining; copies counted are complete ones."""
    assert TABLE.owned_by(B) == [1]
    assert TABLE.held_by(B) == [0, 1]
    assert TABLE.held_by(C) == [1]
    assert TABLE.owner_counts() == {A: 1, B: 1, C: 0}
    assert TABLE.copy_counts() == {A: 1, B: 2, C: 0}


def test_the_empty_table_has_no_holders() -> None:
    """Version 0 is where every line of tables starts."""
    start = empty_table(4)

    assert start.id.version == 0
    assert [row.holders for row in start.rows] == [()] * 4


def test_versions_order_by_number_then_coordinator() -> None:
    """Ties between the sides of a split break by id."""
    assert TableVersion(1, B) < TableVersion(2, A) < TableVersion(2, B)


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        pytest.param(TableVersion(5, A), True, id="itself"),
        pytest.param(TableVersion(3, A), True, id="earlier one of the same coordinator"),
        pytest.param(TableVersion(6, A), False, id="later one of the same coordinator"),
        pytest.param(TableVersion(4, B), True, id="listed"),
        pytest.param(TableVersion(2, B), True, id="earlier than one listed"),
        pytest.param(TableVersion(5, B), False, id="later than one listed"),
        pytest.param(TableVersion(1, C), False, id="of a stranger"),
        pytest.param(TableVersion(0, C), True, id="the empty table"),
    ],
)
def test_descent_is_told_from_the_ancestors(other: TableVersion, expected: bool) -> None:
    """A coordinator never forks from itself, so one of its tables vouches for all earlier ones."""
    assert TABLE.descends_from(other) is expected


def test_a_table_survives_the_wire() -> None:
    """Also the empty one: a member that knows nothing says so."""
    for sent in (TABLE, empty_table(3)):
        packet = msgspec.msgpack.encode(sent.to_record())

        received = msgspec.msgpack.decode(packet, type=TableRecord)

        assert Table.from_record(received, 3) == sent


@given(st.data())
@settings(max_examples=50, deadline=None)
def test_any_table_survives_the_wire(data: st.DataObject) -> None:
    """Rows are indexes into the member list, so their order must be kept."""
    members = [MemberId(f"m{number}#0") for number in range(5)]
    rows = []
    for _ in range(data.draw(st.integers(1, 6))):
        holders = tuple(data.draw(st.permutations(members)))[: data.draw(st.integers(0, 5))]
        complete = data.draw(st.integers(0, len(holders)))
        rows.append(Row(data.draw(st.integers(0, 9)), holders[:complete], holders[complete:]))
    addresses = {member: Address(f"[::1]:{port}") for port, member in enumerate(members)}
    sent = Table(TableVersion(9, members[0]), (), tuple(rows), addresses)

    assert Table.from_record(sent.to_record(), len(rows)) == sent


RECORD = TableRecord(
    id=TableId(version=5, coordinator=A),
    ancestors=[],
    members=[A, B],
    addresses=["h:1", "h:2"],
    rows=[RowRecord(epoch=1, replicas=[0], joining=[1], lost=0)],
)


def rows(replicas: list[int], joining: list[int], epoch: int = 1) -> dict[str, object]:
    return {"rows": [RowRecord(epoch=epoch, replicas=replicas, joining=joining, lost=0)]}


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        pytest.param({"rows": []}, "has 0 rows", id="row count"),
        pytest.param(rows([2], []), "no member", id="index too high"),
        pytest.param(rows([-1], []), "no member", id="index negative"),
        pytest.param(rows([0, 0], []), "twice in a row", id="two copies on one member"),
        pytest.param(rows([0], [0]), "twice in a row", id="complete and joining"),
        pytest.param(rows([0], [], -1), "epoch -1", id="epoch negative"),
        pytest.param(rows([0], [], EPOCH_MAX + 1), "epoch", id="epoch too high"),
        pytest.param({"members": [A, A]}, "member twice", id="duplicate member"),
        pytest.param({"members": [A, ""]}, "without an id", id="nameless member"),
        pytest.param({"addresses": ["h:1"]}, "one address per member", id="address count"),
        pytest.param({"addresses": ["h:1", "h"]}, "bad address", id="malformed address"),
        pytest.param({"id": TableId(-1, A)}, "version -1", id="version negative"),
        pytest.param({"id": TableId(VERSION_MAX + 1, A)}, "version", id="version too high"),
        pytest.param({"id": TableId(0, "")}, "version 0", id="empty table with holders"),
        pytest.param({"ancestors": [TableId(-1, A)]}, "version -1", id="ancestor version"),
        pytest.param(
            {"ancestors": [TableId(1, A)] * (ANCESTORS_MAX + 1)}, "ancestors", id="ancestor count"
        ),
    ],
)
def test_a_malformed_record_is_refused(changes: dict[str, object], complaint: str) -> None:
    """Bytes from the network never crash a member (design §6, 8): one kind of error, saying why."""
    assert Table.from_record(RECORD, 1).owner(0) == A

    malformed = msgspec.structs.replace(RECORD, **changes)

    with pytest.raises(RemoteProtocolError, match=complaint):
        Table.from_record(malformed, 1)


ROWS = st.builds(
    Row,
    st.integers(0, EPOCH_MAX),
    st.sampled_from([(), (A,), (B, A)]),
    st.sampled_from([(), (C,)]),
    st.integers(0, VERSION_MAX),
)


@given(st.lists(st.tuples(ROWS, st.none() | ROWS), max_size=6))
def test_changes_to_a_table_make_the_next_one(pairs: list[tuple[Row, Row | None]]) -> None:
    """Only rows that changed travel; the others are the same objects afterwards."""
    base = table(*(before for before, _ in pairs))
    following = table(*(after or before for before, after in pairs), version=6)

    record = following.changes_record(base)
    made = base.with_changes(decoded(record))

    changed = [place for place, (_, after) in enumerate(pairs) if after is not None]
    assert changed == record.places == made.changed_since(base)
    assert following == made
    assert len(changed) == len(record.table.rows)


def decoded(record: TableChanges) -> TableChanges:
    message = decode_request(encode_message(record))
    assert isinstance(message, TableChanges)
    return message


def test_members_come_and_go_with_changes() -> None:
    """Who holds nothing any more may be missing; whoever joins is there."""
    joined = MemberId("d#1")
    addresses = {A: ADDRESSES[A], B: ADDRESSES[B], joined: Address("h:4")}
    replaced = (TABLE.rows[0], Row(2, (B,), (joined,)), TABLE.rows[2])
    following = Table(TableVersion(6, A), (TABLE.id,), replaced, addresses)

    assert following == TABLE.with_changes(decoded(following.changes_record(TABLE)))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"base": TableId(4, "a#1")}, "changes another table"),
        ({"places": [0]}, "changes 1 rows"),
        ({"places": [0, 3]}, "a row that is not there"),
        ({"places": [-1, 0]}, "a row that is not there"),
    ],
)
def test_malformed_changes_are_refused(changes: dict[str, object], complaint: str) -> None:
    """Invariant 8: nothing a peer sends is believed unchecked."""
    rows = (Row(3, (A,), ()), Row(4, (C,), ()), TABLE.rows[2])
    record = table(*rows, version=6).changes_record(TABLE)

    with pytest.raises(RemoteProtocolError, match=complaint):
        TABLE.with_changes(msgspec.structs.replace(record, **changes))


def test_changes_that_leave_out_a_holder_are_refused() -> None:
    """Every holder has an address, that of a row which did not change, too."""
    addresses = {A: ADDRESSES[A], C: ADDRESSES[C]}
    following = Table(TableVersion(6, A), (), TABLE.rows, addresses)

    with pytest.raises(RemoteProtocolError, match="a holder it lacks"):
        TABLE.with_changes(following.changes_record(TABLE))


def test_the_partition_of_a_key_never_changes() -> None:
    """Golden values: members of different releases must agree, and data files outlive a process."""
    assert map_seed("sessions") == 5653906608618022145
    assert [partition_of(key, map_seed("sessions"), 1024) for key in (b"", b"a", b"key")] == [
        504,
        465,
        278,
    ]


def test_maps_spread_equal_keys_differently() -> None:
    """The map's name is the seed: one hot key name does not hit one owner in every map."""
    keys = [str(number).encode() for number in range(1000)]

    placed = [[partition_of(key, map_seed(name), 271) for key in keys] for name in ("x", "y")]

    assert sum(x == y for x, y in zip(*placed, strict=True)) < 20
    assert all(len(dict.fromkeys(column)) > 250 for column in placed)


def test_two_coordinators_never_begin_the_same_epoch() -> None:
    """Both sides of a split make a table of the same version."""
    assert epoch_of(TableVersion(7, A)) != epoch_of(TableVersion(7, B))


def test_epochs_rise_with_the_version_whoever_makes_it() -> None:
    """A fencing token only rises."""
    makers = [A, B, C, A, C, B]
    epochs = [epoch_of(TableVersion(version, maker)) for version, maker in enumerate(makers)]

    assert sorted(set(epochs)) == epochs
