"""Room: each copy's share of a member's limit, as tables come and go."""

from __future__ import annotations

import math
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from cache.cluster.ids import MemberId
from cache.cluster.partitions.table import Row, Table, TableVersion, empty_table
from cache.cluster.replication.room import Room

MEMBERS = [MemberId(f"n{number}#1") for number in range(3)]
PARTITIONS = 4
LIMIT = 1000

ROWS = st.builds(
    Row,
    st.integers(0, 2),
    st.lists(st.sampled_from(MEMBERS[:2]), unique=True).map(tuple),
    st.sampled_from([(), (MEMBERS[2],)]),
)


@given(st.lists(st.dictionaries(st.integers(0, PARTITIONS - 1), ROWS), max_size=6))
def test_the_share_is_that_of_the_member_with_the_most_copies(
    changes: list[dict[int, Row]],
) -> None:
    """Only rows that changed are counted again; that gives what counting all of them would."""
    room, table = Room(LIMIT), empty_table(PARTITIONS)

    for version, changed in enumerate(changes, 1):
        rows = tuple(changed.get(partition, row) for partition, row in enumerate(table.rows))
        before, table = table, Table(TableVersion(version, MEMBERS[0]), (), rows, {})
        room.follow(before, table)

        held = Counter(holder for row in table.rows for holder in row.holders)
        most = max(held.values(), default=1)
        assert (most, LIMIT / most) == (room.copies, room.share)


def test_without_a_limit_a_share_has_no_end() -> None:
    """Nothing is given up."""
    room = Room(None)
    table = Table(TableVersion(1, MEMBERS[0]), (), (Row(1, (MEMBERS[0],), ()),), {})

    room.follow(empty_table(1), table)

    assert math.inf == room.share
