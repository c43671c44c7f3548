"""After a fork: whose rows stay, and which copies count."""

from __future__ import annotations

from cache.cluster.ids import Address, MemberId
from cache.cluster.membership.members import Member
from cache.cluster.partitions.coordinator import Coordinator
from cache.cluster.partitions.table import Row, Table, TableVersion

A, B, C = (MemberId(f"{name}#1") for name in "abc")
MEMBERS = [
    Member(id=member, address=Address(f"h:{port}"), seniority=port)
    for port, member in enumerate((A, B, C), start=1)
]


def _table(version: int, coordinator: MemberId, *rows: Row) -> Table:
    addresses = {member.id: member.address for member in MEMBERS}
    return Table(TableVersion(version, coordinator), (TableVersion(1, A),), rows, addresses)


def test_a_copy_of_the_other_side_catches_up_anew() -> None:
    """It may have taken writes there that the owner here has not seen, and the reverse."""
    coordinator = Coordinator(A, partition_count=2, replica_count=2)
    coordinator.adopt(_table(5, A, Row(4, (A, B), ()), Row(4, (B, A), ())))
    assert coordinator.absorb(_table(6, C, Row(6, (C,), ()), Row(6, (C,), ())), [A, B, C])

    plan = coordinator.advance(MEMBERS)

    assert plan.table is not None
    assert [1, 1] == [len(row.replicas) for row in plan.table.rows]
    assert all(row.joining for row in plan.table.rows)


def test_epochs_after_a_fork_are_above_those_of_both_sides() -> None:
    """An owner of either side is refused from then on."""
    coordinator = Coordinator(A, partition_count=1, replica_count=1)
    coordinator.adopt(_table(5, A, Row(4 << 20, (A,), ())))
    coordinator.absorb(_table(9, C, Row(9 << 20, (C,), ())), [A, B, C])

    plan = coordinator.advance(MEMBERS)

    assert plan.table is not None
    assert plan.table.rows[0].epoch > 9 << 20
    assert plan.table.descends_from(TableVersion(9, C))


def _one_row(version: int, coordinator: MemberId, row: Row) -> Table:
    addresses = {member.id: member.address for member in MEMBERS}
    return Table(TableVersion(version, coordinator), (TableVersion(1, A),), (row,), addresses)


def _replicas(coordinator: Coordinator) -> tuple[MemberId, ...]:
    coordinator.advance(MEMBERS[:2])
    return coordinator.table.rows[0].replicas


def test_a_report_from_before_a_strike_does_not_complete_the_copy() -> None:
    """The owner repeats its reports: one may arrive after the copy missed a write."""
    coordinator = Coordinator(A, partition_count=1, replica_count=2)
    coordinator.adopt(_one_row(5, A, Row(5 << 20, (A,), (B,))))
    before = coordinator.table.id
    coordinator.caught_up([(0, B)], before)
    assert (A, B) == _replicas(coordinator)
    coordinator.strike([0], B)
    assert (A,) == _replicas(coordinator)

    coordinator.caught_up([(0, B)], before)

    assert (A,) == _replicas(coordinator)
    coordinator.caught_up([(0, B)], coordinator.table.id)
    assert (A, B) == _replicas(coordinator)


def test_a_strike_takes_back_a_report_that_came_before_it() -> None:
    """Both wait for the next table; the strike is the later word."""
    coordinator = Coordinator(A, partition_count=1, replica_count=2)
    coordinator.adopt(_one_row(5, A, Row(5 << 20, (A, B), ())))
    coordinator.caught_up([(0, B)], coordinator.table.id)

    coordinator.strike([0], B)

    assert (A,) == _replicas(coordinator)
    assert (A,) == _replicas(coordinator)


def test_reports_do_not_outlive_a_merge_or_another_coordinators_table() -> None:
    """What was complete with the owner of one branch lacks what the other branch wrote."""
    for other in (
        _one_row(4, B, Row(4 << 20, (B,), ())),
        Table(
            TableVersion(9, B),
            (TableVersion(5, A),),
            (Row(5 << 20, (A,), (B,)),),
            {member.id: member.address for member in MEMBERS},
        ),
    ):
        coordinator = Coordinator(A, partition_count=1, replica_count=2)
        coordinator.adopt(_one_row(5, A, Row(5 << 20, (A,), (B,))))
        coordinator.caught_up([(0, B)], coordinator.table.id)

        assert coordinator.absorb(other, [A, B])

        assert 1 == len(_replicas(coordinator))
        assert 1 == len(_replicas(coordinator))
