"""Who must confirm a write, and what becomes of writes that nobody confirms."""

from __future__ import annotations

import math

import pytest

from cache.cluster.ids import MemberId
from cache.cluster.partitions.table import Row
from cache.cluster.replication.entries import Entry
from cache.cluster.replication.ownership import REPEATS_MAX, Change, Ownership, PendingWrite
from cache.cluster.replication.replica import PartitionReplica
from cache.cluster.wire.messages import OperationRecord
from cache.errors import IndeterminateError

A, B, C, D = (MemberId(f"{name}#1") for name in "abcd")
ERROR = IndeterminateError("deposed")
OPERATION = OperationRecord(b"1", "m", b"k", b"yes")
CHANGE: Change = ("m", b"k", Entry(b"v", 5, 1, math.inf))


def owning(*replicas: MemberId, joining: tuple[MemberId, ...] = (), epoch: int = 1) -> Ownership:
    replica = PartitionReplica(operation_memory=9, tombstone_lifetime=60.0)
    return Ownership(0, Row(epoch, (A, *replicas), joining), replica)


def write(
    ownership: Ownership,
    change: Change = CHANGE,
    needed: int | None = None,
    operations: tuple[OperationRecord, ...] = (),
) -> PendingWrite:
    """What `ReplicationService.commit` does, without sending."""
    before = [ownership.replica.entry(*change[:2])]
    ownership.replica.apply(*change)
    for operation in operations:
        ownership.replica.operations.remember(operation)
    pending = PendingWrite(
        ownership, [change], before, needed, 9.0, lambda pending: None, operations
    )
    ownership.pending[pending] = None
    return pending


# -- one write -------------------------------------------------------------------------------


async def test_a_write_is_acknowledged_when_every_holder_confirmed() -> None:
    """All replicas, unless a quorum is asked for."""
    pending = write(owning(B, C))

    pending.confirm(B)

    assert not pending.is_over

    pending.confirm(C)

    assert pending.is_over


async def test_whoever_watches_a_write_is_told_once_also_if_it_is_over() -> None:
    """With None for a write that stands, with the error for one that may not."""
    told: list[object] = []
    acknowledged, lost = write(owning(B)), write(owning(B))
    acknowledged.watch(told.append)
    lost.watch(told.append)

    acknowledged.confirm(B)
    lost.fail(ERROR)
    acknowledged.fail(ERROR)
    acknowledged.watch(told.append)
    lost.watch(told.append)

    assert [None, ERROR, None, ERROR] == told


async def test_a_write_can_be_awaited_before_and_after_it_is_over() -> None:
    """Who waits gets the error as it is; who left does not disturb the others."""
    pending = write(owning(B))
    early = pending.future
    early.cancel()
    pending.fail(ERROR)
    late = write(owning(B))
    late.fail(ERROR)

    with pytest.raises(IndeterminateError, match="deposed"):
        await late.future
    assert early.cancelled()
    assert ERROR is pending.error


async def test_a_quorum_is_enough_when_asked_for() -> None:
    """`needed` confirmations, whoever gives them."""
    pending = write(owning(B, C, D), needed=2)

    pending.confirm(D)

    assert not pending.is_over

    pending.confirm(B)

    assert [C] == list(pending.waiting)
    assert pending.is_over


async def test_a_confirmation_counts_once() -> None:
    """Writes are sent again, so that answers repeat."""
    pending = write(owning(B, C, D), needed=2)

    pending.confirm(B)
    pending.confirm(B)

    assert not pending.is_over


async def test_a_stranger_cannot_confirm() -> None:
    """Only those the write was sent to hold it."""
    pending = write(owning(B, C), needed=1)

    pending.confirm(D)

    assert not pending.is_over


async def test_a_released_holder_is_no_confirmation() -> None:
    """A quorum wants copies, and a member that left is none."""
    pending = write(owning(B, C), needed=1)

    pending.release(B)

    assert not pending.is_over

    pending.confirm(C)

    assert pending.is_over


async def test_without_a_quorum_the_last_release_acknowledges() -> None:
    """All copies that are left have the write."""
    pending = write(owning(B, C))
    pending.confirm(B)

    pending.release(C)

    assert pending.is_over


async def test_a_write_that_needs_nobody_settles_at_once() -> None:
    """A write quorum of 1 is the owner alone."""
    pending = write(owning(B), needed=0)

    pending.settle()

    assert pending.is_over


async def test_a_failed_write_stays_failed() -> None:
    """A late confirmation finds nobody waiting."""
    pending = write(owning(B))

    pending.fail(ERROR)
    pending.confirm(B)
    pending.settle()

    assert ERROR is pending.error


async def test_an_acknowledged_write_cannot_fail() -> None:
    """The caller was told."""
    pending = write(owning(B))
    pending.confirm(B)

    pending.fail(ERROR)

    assert pending.error is None


async def test_a_slow_write_with_a_life_is_repeated_a_few_times() -> None:
    """Its seconds remaining were old on arrival; after some tries the answer counts."""
    pending = write(owning(B), ("m", b"k", Entry(b"v", 5, 1, 30.0)))

    repeats = [pending.may_repeat() for _ in range(REPEATS_MAX + 1)]

    assert [True] * REPEATS_MAX + [False] == repeats


@pytest.mark.parametrize("entry", [Entry(b"v", 5, 1, math.inf), Entry(None, 5, 1, 30.0)])
async def test_a_write_without_a_life_is_not_repeated(entry: Entry) -> None:
    """Endless values and deletes are the same however late they arrive."""
    assert not write(owning(B), ("m", b"k", entry)).may_repeat()


# -- holders ---------------------------------------------------------------------------------


def test_writes_go_to_the_replicas_and_not_yet_to_the_joining() -> None:
    """A joining member is told once repair starts with it."""
    ownership = owning(B, joining=(C,))

    assert [B] == list(ownership.holders)

    ownership.activate(C)

    assert [B, C] == list(ownership.holders)


async def test_a_joining_member_that_missed_a_write_is_dropped() -> None:
    """Its copy starts again, and nobody waits for it."""
    ownership = owning(joining=(C,))
    ownership.activate(C)
    pending = write(ownership)

    ownership.deactivate(C)

    assert {} == ownership.holders
    assert pending.is_over
    assert {} == ownership.pending


async def test_a_replica_that_missed_a_write_is_not_dropped() -> None:
    """It could be promoted without the write: only a newer table takes it out."""
    ownership = owning(B)
    pending = write(ownership)

    ownership.deactivate(B)

    assert [B] == list(ownership.holders)
    assert not pending.is_over


async def test_a_joining_member_reported_complete_is_not_dropped() -> None:
    """The coordinator may be promoting it this moment."""
    ownership = owning(joining=(C,))
    ownership.activate(C)
    ownership.joined[C] = None
    pending = write(ownership)

    ownership.deactivate(C)

    assert [C] == list(ownership.holders)
    assert not pending.is_over


async def test_a_replica_that_a_newer_table_takes_out_is_not_waited_for() -> None:
    """It can no longer be promoted; the others still have to confirm."""
    ownership = owning(B, C)
    pending = write(ownership)

    ownership.update(Row(1, (A, C), ()))

    assert [C] == list(pending.waiting)
    assert [C] == list(ownership.holders)

    pending.confirm(C)

    assert pending.is_over


async def test_a_struck_replica_keeps_receiving_while_it_joins() -> None:
    """A replica made joining is still a holder: nothing written in between is missed."""
    ownership = owning(B)
    pending = write(ownership)

    ownership.update(Row(1, (A,), (B,)))

    assert [B] == list(ownership.holders)
    assert not pending.is_over


async def test_a_promoted_member_is_still_waited_for() -> None:
    """Becoming a replica is no confirmation of writes under way."""
    ownership = owning(joining=(C,))
    ownership.activate(C)
    ownership.joined[C] = None
    pending = write(ownership)

    ownership.update(Row(1, (A, C), ()))

    assert not pending.is_over
    assert [C] == list(ownership.holders)
    assert {} == ownership.joined


def test_only_active_joining_members_survive_a_newer_table() -> None:
    """One that joins anew was sent nothing so far."""
    ownership = owning(joining=(B, C))
    ownership.activate(B)
    ownership.joined[B] = None

    ownership.update(Row(1, (A,), (B, C, D)))

    assert [B] == list(ownership.holders)
    assert [B] == list(ownership.joined)


def test_a_member_that_left_is_not_complete_when_it_joins_again() -> None:
    """What it was reported to hold, it held then."""
    ownership = owning(joining=(B,))
    ownership.activate(B)
    ownership.joined[B] = None

    ownership.update(Row(1, (A,), ()))
    ownership.update(Row(1, (A,), (B,)))

    assert {} == ownership.joined
    assert {} == ownership.holders


# -- serving ---------------------------------------------------------------------------------


def test_a_frozen_owner_serves_again_after_a_newer_table() -> None:
    """A handover that came to nothing ends with the next table."""
    ownership = owning(B)
    ownership.frozen = True

    assert not ownership.serving

    ownership.update(Row(1, (A, B), ()))

    assert ownership.serving


def test_a_promoted_owner_does_not_serve_before_copies_were_compared() -> None:
    """A quorum write may be on another copy only."""
    ownership = owning(B)
    ownership.settled = False

    ownership.update(Row(1, (A, B), ()))

    assert not ownership.serving


@pytest.mark.parametrize(("fence", "serving"), [(6, True), (7, True), (8, False)])
def test_an_owner_fenced_by_a_later_epoch_does_not_serve(fence: int, serving: bool) -> None:
    """Somebody else owns the partition; its own epoch is no fence."""
    ownership = owning(B, epoch=7)

    ownership.fence = fence

    assert serving == ownership.serving


def test_a_newer_epoch_lifts_an_older_fence() -> None:
    """It owns the partition again."""
    ownership = owning(B, epoch=7)
    ownership.fence = 8

    ownership.update(Row(9, (A, B), ()))

    assert ownership.serving


# -- losing the partition --------------------------------------------------------------------


async def test_unconfirmed_writes_of_a_deposed_owner_fail() -> None:
    """Whoever waits learns that nobody knows."""
    ownership = owning(B)
    pending = write(ownership)

    ownership.abandon(ERROR)

    assert ERROR is pending.error
    assert {} == ownership.pending


async def test_unconfirmed_writes_of_a_deposed_owner_are_undone() -> None:
    """Their stamps could beat a write that the new owner acknowledged."""
    ownership = owning(B)
    ownership.replica.apply("m", b"k", Entry(b"old", 1, 1, math.inf))
    digest = ownership.replica.digest()
    write(ownership, ("m", b"k", Entry(b"x", 5, 1, math.inf)))
    write(ownership, ("m", b"k", Entry(None, 6, 1, 60.0)))

    ownership.abandon(ERROR)

    assert Entry(b"old", 1, 1, math.inf) == ownership.replica.entry("m", b"k")
    assert digest == ownership.replica.digest()


async def test_a_key_that_was_not_there_is_gone_again() -> None:
    """Not even a tombstone is left of a write that never was."""
    ownership = owning(B)
    write(ownership)

    ownership.abandon(ERROR)

    assert ownership.replica.entry("m", b"k") is None
    assert 0 == ownership.replica.digest()


async def test_the_operation_of_an_undone_write_is_forgotten() -> None:
    """A retry has to take effect on the new owner or here."""
    ownership = owning(B)
    write(ownership, operations=(OPERATION,))

    ownership.abandon(ERROR)

    assert ownership.replica.operations.get(b"1") is None


async def test_an_acknowledged_write_is_not_undone() -> None:
    """A quorum has it: it and its operation stay, though one copy is still outstanding."""
    ownership = owning(B, C)
    pending = write(ownership, needed=1, operations=(OPERATION,))
    pending.confirm(B)

    ownership.abandon(ERROR)

    assert CHANGE[2] == ownership.replica.entry("m", b"k")
    assert OPERATION == ownership.replica.operations.get(b"1")


async def test_what_the_new_owner_wrote_meanwhile_is_not_undone() -> None:
    """Only this owner's own write is put back."""
    ownership = owning(B)
    write(ownership)
    ownership.replica.apply("m", b"k", Entry(b"theirs", 9, 2, math.inf))

    ownership.abandon(ERROR)

    assert Entry(b"theirs", 9, 2, math.inf) == ownership.replica.entry("m", b"k")
