"""The coordinator's decisions: copies first, roles second; versions and epochs only rise."""

from __future__ import annotations

import pytest

from cache.cluster.ids import Address, MemberId
from cache.cluster.membership.members import Member
from cache.cluster.partitions.coordinator import Coordinator, Plan
from cache.cluster.partitions.table import Row, Table, TableVersion, epoch_of

A, B, C, D = (MemberId(f"{name}#1") for name in "abcd")


def alive(*ids: MemberId, leaving: tuple[MemberId, ...] = (), weight: int = 1) -> list[Member]:
    return [
        Member(id=id_, address=Address("h:1"), leaving=id_ in leaving, weight=weight) for id_ in ids
    ]


def table(
    *rows: Row, version: int = 5, by: MemberId = A, ancestors: tuple[TableVersion, ...] = ()
) -> Table:
    holders = dict.fromkeys(member for row in rows for member in row.holders)
    addresses = {member: Address("h:1") for member in holders}
    return Table(TableVersion(version, by), ancestors, rows, addresses)


def coordinating(
    *rows: Row, me: MemberId = A, copies: int = 2, version: int = 5, by: MemberId = A
) -> Coordinator:
    coordinator = Coordinator(me, partition_count=len(rows), replica_count=copies)
    coordinator.adopt(table(*rows, version=version, by=by))
    return coordinator


def rows_of(plan: Plan) -> list[tuple[tuple[MemberId, ...], tuple[MemberId, ...]]]:
    assert plan.table is not None
    return [(row.replicas, row.joining) for row in plan.table.rows]


def epochs_of(plan: Plan) -> list[int]:
    assert plan.table is not None
    return [row.epoch for row in plan.table.rows]


# -- making tables ---------------------------------------------------------------------------


def test_the_first_member_owns_everything() -> None:
    """There is nothing to copy in an empty cluster."""
    coordinator = Coordinator(A, partition_count=3, replica_count=2)

    plan = coordinator.advance(alive(A))

    assert [((A,), ())] * 3 == rows_of(plan)
    assert (TableVersion(1, A), ()) == (coordinator.table.id, coordinator.table.ancestors)
    assert () == plan.lost
    assert 0 == coordinator.unsettled()


def test_nothing_new_makes_no_table() -> None:
    """A version is a change."""
    coordinator = Coordinator(A, partition_count=3, replica_count=2)
    coordinator.advance(alive(A))

    assert Plan(table=None) == coordinator.advance(alive(A))


def test_a_new_table_descends_from_the_one_before() -> None:
    """One version higher, with the older one of the other coordinator among its ancestors."""
    coordinator = coordinating(Row(1, (A, B), ()), me=B, by=A)

    made = coordinator.advance(alive(B)).table

    assert made is not None
    assert TableVersion(6, B) == made.id
    assert (TableVersion(5, A),) == made.ancestors


def test_one_ancestor_vouches_for_all_of_its_coordinator() -> None:
    """The list does not grow with the number of tables."""
    coordinator = coordinating(Row(1, (A,), ()), version=5)

    coordinator.advance(alive(A, B))
    coordinator.caught_up([(0, B)], coordinator.table.id)
    made = coordinator.advance(alive(A, B)).table

    assert made is not None
    assert (TableVersion(6, A),) == made.ancestors


def test_a_change_of_address_is_a_new_table() -> None:
    """Members without a copy are in it, so that everybody can be reached."""
    coordinator = coordinating(Row(1, (A,), ()), copies=1)

    made = coordinator.advance([*alive(A), *alive(B, weight=0)]).table

    assert made is not None
    assert [A, B] == sorted(made.addresses)
    assert (A,) == made.rows[0].holders


# -- joining ---------------------------------------------------------------------------------


def test_a_joiner_is_no_replica_before_its_copy_is_complete() -> None:
    """Copies first, roles second."""
    coordinator = coordinating(Row(1, (A,), ()))

    assert [((A,), (B,))] == rows_of(coordinator.advance(alive(A, B)))
    assert coordinator.advance(alive(A, B)).table is None
    assert 1 == coordinator.unsettled()


def test_a_joiner_that_caught_up_becomes_a_replica() -> None:
    """The owner, and with it the epoch, stays."""
    coordinator = coordinating(Row(9, (A,), (B,)))

    coordinator.caught_up([(0, B)], coordinator.table.id)
    plan = coordinator.advance(alive(A, B))

    assert [((A, B), ())] == rows_of(plan)
    assert [9] == epochs_of(plan)
    assert 0 == coordinator.unsettled()


def test_catching_up_counts_for_one_partition_only() -> None:
    """Each copy is complete by itself."""
    coordinator = coordinating(Row(9, (A,), (B,)), Row(9, (A,), (B,)))

    coordinator.caught_up([(1, B)], coordinator.table.id)
    plan = coordinator.advance(alive(A, B))

    assert ((A,), (B,)) == rows_of(plan)[0]
    assert B in rows_of(plan)[1][0]


def test_a_report_about_somebody_who_is_not_joining_makes_no_replica() -> None:
    """Nobody sent it the writes in between."""
    coordinator = coordinating(Row(1, (A,), (B,)))

    coordinator.caught_up([(0, C)], coordinator.table.id)
    plan = coordinator.advance([*alive(A, B), *alive(C, weight=0)])

    assert [((A,), (B,))] == rows_of(plan)


def test_a_joiner_that_died_after_catching_up_is_not_listed() -> None:
    """Only live members hold copies."""
    coordinator = coordinating(Row(1, (A,), (B,)))

    coordinator.caught_up([(0, B)], coordinator.table.id)

    assert [((A,), ())] == rows_of(coordinator.advance(alive(A)))


def test_reports_to_a_coordinator_end_with_another_ones_table() -> None:
    """They were about a table that is no more: the copy may have been struck since."""
    coordinator = coordinating(Row(1, (A,), (B,)))
    coordinator.caught_up([(0, B)], coordinator.table.id)

    coordinator.adopt(table(Row(1, (A,), (B,)), version=6, by=C, ancestors=(TableVersion(5, A),)))

    assert coordinator.advance(alive(A, B)).table is None


# -- dying -----------------------------------------------------------------------------------


def test_a_dead_owner_is_replaced_at_once_by_the_first_complete_copy() -> None:
    """Never by one that is joining, and in a later epoch."""
    coordinator = coordinating(Row(1, (A, B, D), (C,)), me=B, copies=4)

    plan = coordinator.advance(alive(B, C, D))

    assert [((B, D), (C,))] == rows_of(plan)
    assert [epoch_of(TableVersion(6, B))] == epochs_of(plan)
    assert () == plan.lost


def test_a_dead_replica_changes_neither_owner_nor_epoch() -> None:
    """Nothing about serving changed."""
    coordinator = coordinating(Row(7, (A, B), ()))

    plan = coordinator.advance(alive(A))

    assert [((A,), ())] == rows_of(plan)
    assert [7] == epochs_of(plan)


def test_a_partition_without_complete_copies_is_lost() -> None:
    """A live partial copy goes on with what it has; the row says when."""
    coordinator = coordinating(Row(1, (A,), (B,)), Row(1, (C, A), ()), me=B, by=B)

    plan = coordinator.advance(alive(B, C))

    assert (0,) == plan.lost
    assert [B, C] == [replicas[0] for replicas, _ in rows_of(plan)]
    assert [6, 0] == [row.lost for row in coordinator.table.rows]


def test_a_partial_copy_on_a_leaving_member_is_better_than_none() -> None:
    """It hands over what it has to the member that was to hold the partition."""
    coordinator = coordinating(Row(1, (A,), (B,)), me=C)

    plan = coordinator.advance(alive(B, C, leaving=(B,)))

    assert [((B,), (C,))] == rows_of(plan)
    assert (0,) == plan.lost


def test_a_lost_partition_is_reported_once_and_remembered() -> None:
    """Later tables keep the version that found it."""
    coordinator = coordinating(Row(1, (A,), ()), me=B)
    assert (0,) == coordinator.advance(alive(B)).lost

    plan = coordinator.advance(alive(B, C))

    assert () == plan.lost
    assert 6 == coordinator.table.rows[0].lost


# -- handing over ----------------------------------------------------------------------------


def test_a_living_owner_is_asked_to_stop_before_it_is_replaced() -> None:
    """Two members must never serve one partition."""
    coordinator = coordinating(Row(1, (A, B), ()), me=B, copies=1)

    plan = coordinator.advance(alive(A, B, leaving=(A,)))

    assert Plan(table=None, releases={A: [0]}) == plan


def test_an_owner_that_stopped_serving_is_replaced() -> None:
    """In a later epoch."""
    coordinator = coordinating(Row(1, (A, B), ()), me=B, copies=1)
    coordinator.advance(alive(A, B, leaving=(A,)))

    coordinator.released(A, [0])
    plan = coordinator.advance(alive(A, B, leaving=(A,)))

    assert [((B,), ())] == rows_of(plan)
    assert [epoch_of(TableVersion(6, B))] == epochs_of(plan)
    assert {} == plan.releases


def test_nobody_else_can_stop_serving_for_an_owner() -> None:
    """A late answer of an earlier owner does not count."""
    coordinator = coordinating(Row(1, (A, B), ()), me=B, copies=1)

    coordinator.released(C, [0])
    plan = coordinator.advance(alive(A, B, leaving=(A,)))

    assert [((A, B), ())] == rows_of(plan)
    assert {A: [0]} == plan.releases


def test_an_owner_is_not_asked_to_stop_before_its_successor_caught_up() -> None:
    """The partition would have nobody."""
    coordinator = coordinating(Row(1, (A,), (B,)), me=B, copies=1)

    plan = coordinator.advance(alive(A, B, leaving=(A,)))

    assert Plan(table=None) == plan


def test_a_release_that_came_to_nothing_is_answered_by_a_newer_table() -> None:
    """The owner stopped serving and waits for it; the release itself is used up."""
    coordinator = coordinating(Row(1, (A,), (B,)), me=B, copies=1)
    members = alive(A, B, leaving=(A,))

    coordinator.released(A, [0])

    assert [((A,), (B,))] == rows_of(coordinator.advance(members))

    coordinator.caught_up([(0, B)], coordinator.table.id)

    assert {A: [0]} == coordinator.advance(members).releases
    assert A == coordinator.table.owner(0)


def test_data_stays_where_it_is_when_everybody_leaves() -> None:
    """A cluster that shuts down copies nothing around."""
    coordinator = coordinating(Row(1, (A, B), ()))

    assert Plan(table=None) == coordinator.advance(alive(A, B, leaving=(A, B)))


# -- striking --------------------------------------------------------------------------------


def test_a_struck_replica_has_to_catch_up_again() -> None:
    """It missed a write: it may not be promoted before."""
    coordinator = coordinating(Row(1, (A, B), ()))

    coordinator.strike([0], B)

    assert [((A,), (B,))] == rows_of(coordinator.advance(alive(A, B)))
    assert coordinator.advance(alive(A, B)).table is None

    coordinator.caught_up([(0, B)], coordinator.table.id)

    assert [((A, B), ())] == rows_of(coordinator.advance(alive(A, B)))
    assert coordinator.advance(alive(A, B)).table is None


def test_a_strike_counts_for_its_partitions_only() -> None:
    """Writes to the others arrived."""
    coordinator = coordinating(Row(1, (A, B), ()), Row(1, (A, B), ()))

    coordinator.strike([1], B)
    plan = coordinator.advance(alive(A, B))

    assert [(), (B,)] == [joining for _, joining in rows_of(plan)]


def test_a_strike_never_counts_for_an_owner() -> None:
    """A deposed owner's report cannot take the partition from its successor."""
    coordinator = coordinating(Row(1, (A, B), ()))

    coordinator.strike([0], A)

    assert coordinator.advance(alive(A, B)).table is None


def test_a_struck_copy_does_not_follow_a_dead_owner() -> None:
    """The partition is lost rather than served without an acknowledged write."""
    coordinator = coordinating(Row(1, (A, B, C), ()), me=B, copies=3)

    coordinator.strike([0], B)

    assert [((C,), (B,))] == rows_of(coordinator.advance(alive(B, C)))


def test_an_adopted_table_is_where_a_coordinator_goes_on_from() -> None:
    """Aims of before are forgotten: copies stay where the other coordinator put them."""
    coordinator = coordinating(Row(1, (A,), ()), copies=1)
    coordinator.advance(alive(A, B))

    coordinator.adopt(table(Row(2, (B,), ()), version=7, by=C, ancestors=(TableVersion(6, A),)))

    assert [((B,), ())] == rows_of(coordinator.advance(alive(A, B)))


# -- splits ----------------------------------------------------------------------------------


def test_only_a_descendant_may_be_adopted() -> None:
    """The other side of a split is absorbed, not adopted."""
    coordinator = coordinating(Row(1, (A,), ()), version=5)

    with pytest.raises(AssertionError, match="descendant"):
        coordinator.adopt(table(Row(1, (B,), ()), version=9, by=B))


def test_an_older_table_of_the_same_line_changes_nothing() -> None:
    """This one was made with knowledge of it."""
    coordinator = coordinating(Row(1, (A,), ()), version=5)

    assert not coordinator.absorb(table(Row(1, (A,), ()), version=4), [A])
    assert 5 == coordinator.table.id.version


def test_a_descendant_is_simply_taken() -> None:
    """Nothing forked."""
    coordinator = coordinating(Row(1, (A,), ()), version=5)
    newer = table(Row(1, (B,), ()), version=6, by=B, ancestors=(TableVersion(5, A),))

    assert coordinator.absorb(newer, [A, B])
    assert newer is coordinator.table


def test_the_side_with_more_live_owners_is_kept() -> None:
    """Owners that died do not count, nor does the higher version."""
    coordinator = coordinating(Row(1, (C,), ()), Row(1, (D,), ()), version=9)
    other = table(Row(1, (A,), ()), Row(1, (B,), ()), version=7, by=B)

    assert coordinator.absorb(other, [A, B, C])
    assert other is coordinator.table


def test_the_side_with_fewer_live_owners_becomes_an_ancestor() -> None:
    """Its version is passed, so that its members adopt what comes; once is enough."""
    coordinator = coordinating(Row(1, (A,), ()), Row(1, (B,), ()), version=5)
    other = table(Row(1, (C,), ()), Row(1, (C,), ()), version=40, by=C)

    assert coordinator.absorb(other, [A, B, C])
    assert not coordinator.absorb(other, [A, B, C])

    made = coordinator.advance(alive(A, B, C)).table

    assert made is not None
    assert TableVersion(41, A) == made.id
    assert made.descends_from(TableVersion(40, C))
    assert made.descends_from(TableVersion(5, A))


def test_of_equal_sides_the_later_table_is_kept_by_both() -> None:
    """Whoever decides, decides alike."""
    ours, theirs = Row(1, (A,), ()), Row(1, (B,), ())
    here, there = coordinating(ours, version=5), coordinating(theirs, me=B, version=8, by=B)

    here.absorb(table(theirs, version=8, by=B), [A, B])
    there.absorb(table(ours, version=5), [A, B])

    assert TableVersion(8, B) == here.table.id == there.table.id


def test_after_a_split_copies_catch_up_anew_in_a_new_epoch() -> None:
    """They may have gone the other way, and both sides used the same epoch numbers."""
    coordinator = coordinating(Row(1, (A, B), ()), version=6)
    coordinator.absorb(table(Row(1, (B,), ()), version=5, by=B), [A, B])

    plan = coordinator.advance(alive(A, B))

    assert [((A,), (B,))] == rows_of(plan)
    assert [epoch_of(TableVersion(7, A))] == epochs_of(plan)
    assert coordinator.advance(alive(A, B)).table is None
