"""Which table a client goes by."""

from __future__ import annotations

from cache.cluster.client.following import follow
from cache.cluster.ids import MemberId
from cache.cluster.partitions.table import Table, TableVersion, empty_table

A, B, C = (MemberId(f"{name}#0") for name in "abc")


def table(version: int, coordinator: MemberId, *ancestors: TableVersion) -> Table:
    return Table(
        id=TableVersion(version, coordinator),
        ancestors=ancestors,
        rows=empty_table(4).rows,
        addresses={},
    )


FIRST = table(1, A)
SECOND = table(2, A, FIRST.id)
THIRD = table(3, B, SECOND.id, FIRST.id)
OTHER = table(3, A, SECOND.id, FIRST.id)
"""THIRD and OTHER are two sides of a split."""
MERGED = table(4, A, OTHER.id, THIRD.id)
ELSEWHERE = table(1, C)
"""Of a cluster that was started anew."""


def test_the_newest_of_its_own_line_is_followed() -> None:
    """Whatever the order of the answers."""
    assert THIRD is follow(FIRST, [SECOND, THIRD])
    assert THIRD is follow(FIRST, [THIRD, FIRST, SECOND])
    assert FIRST is follow(empty_table(4), [FIRST])


def test_a_member_that_is_behind_takes_nobody_back() -> None:
    """It has not been told yet."""
    assert THIRD is follow(THIRD, [FIRST, SECOND])


def test_nothing_sent_changes_nothing() -> None:
    """Nobody could be reached."""
    assert SECOND is follow(SECOND, [])


def test_one_side_of_a_split_is_stayed_with_while_anybody_goes_by_it() -> None:
    """Also when most are on the other one: its writes are merged on heal."""
    assert THIRD is follow(THIRD, [OTHER, OTHER, THIRD])
    assert THIRD is follow(THIRD, [OTHER, OTHER, SECOND])


def test_the_other_side_is_gone_to_when_nobody_else_is_left() -> None:
    """A client that reaches anybody at all can work."""
    assert OTHER is follow(THIRD, [OTHER])


def test_a_merge_is_a_descendant_of_both_sides() -> None:
    """So a client on either side follows it."""
    assert MERGED is follow(THIRD, [MERGED])
    assert MERGED is follow(OTHER, [THIRD, MERGED])


def test_a_cluster_that_began_anew_is_followed() -> None:
    """By the table that most go by, then the latest."""
    assert ELSEWHERE is follow(THIRD, [ELSEWHERE])
    assert ELSEWHERE is follow(THIRD, [OTHER, ELSEWHERE, ELSEWHERE])
