"""Writes that are confirmed together, and what becomes of each when something happens to one of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from cache.cluster.ids import MemberId
from cache.cluster.partitions.table import Row
from cache.cluster.replication.entries import Entry
from cache.cluster.replication.ownership import Ownership, Pending, PendingBatch, PendingWrite
from cache.cluster.replication.replica import PartitionReplica
from cache.errors import IndeterminateError

A, B, C = (MemberId(f"{name}#1") for name in "abc")
ERROR = IndeterminateError("deposed")


def owning(partition: int, *replicas: MemberId) -> Ownership:
    replica = PartitionReplica(operation_memory=9, tombstone_lifetime=60.0)
    return Ownership(partition, Row(1, (A, *replicas), ()), replica)


@dataclass
class Asked:
    """What a `ReplicationService` and a request know of a batch."""

    unconfirmed: list[Pending] = field(default_factory=list)
    answers: int = 0

    def split(self, batch: PendingBatch, parts: object) -> None:
        self.unconfirmed.remove(batch)
        assert isinstance(parts, list)
        self.unconfirmed += parts

    def answered(self) -> None:
        self.answers += 1


def write(*places: tuple[Ownership, bytes], stamp: int = 5) -> tuple[PendingBatch, Asked]:
    """What `ReplicationService.put_each` does, without sending."""
    asked = Asked()
    holders = places[0][0].held_by
    batch = PendingBatch("m", holders, math.inf, 9.0, asked.unconfirmed.remove, asked.split)
    for place, (ownership, key) in enumerate(places):
        entry = Entry(b"v%d" % place, stamp + place, 1, math.inf)
        before = ownership.replica.entry("m", key)
        ownership.replica.apply("m", key, entry)
        batch.add(place, ownership, key, entry, before)
    asked.unconfirmed.append(batch)
    batch.watch(asked.answered)
    return batch, asked


def alone(ownership: Ownership, key: bytes, stamp: int) -> PendingWrite:
    entry = Entry(b"alone", stamp, 1, math.inf)
    before = ownership.replica.entry("m", key)
    ownership.replica.apply("m", key, entry)
    pending = PendingWrite(ownership, [("m", key, entry)], [before], None, 9.0, lambda _: None)
    ownership.pending[pending] = None
    return pending


def test_a_batch_is_answered_when_every_holder_confirmed() -> None:
    """Once, and nothing of it stays in any partition."""
    one, two = owning(1, B, C), owning(2, B, C)
    batch, asked = write((one, b"a"), (two, b"b"), (one, b"c"))

    batch.confirm(B)
    batch.confirm(B)

    assert (0, [batch], [batch]) == (asked.answers, list(one.pending), list(two.pending))

    batch.confirm(C)
    batch.confirm(C)

    assert (1, [], {}, {}) == (asked.answers, asked.unconfirmed, one.pending, two.pending)
    assert batch.is_over


def test_who_watches_a_batch_that_is_over_is_told_at_once() -> None:
    """A copy may be given up while the batch is being sent."""
    asked = Asked()
    batch = PendingBatch("m", (B,), math.inf, 9.0, lambda _: None, lambda batch, parts: None)
    batch.confirm(B)

    batch.watch(asked.answered)

    assert 1 == asked.answers


def test_a_stranger_confirms_no_batch() -> None:
    """Only those it was sent to hold it."""
    batch, asked = write((owning(1, B), b"a"))

    batch.confirm(C)

    assert 0 == asked.answers


def test_a_batch_that_is_taken_apart_is_answered_with_the_last_of_its_writes() -> None:
    """Each is confirmed by itself."""
    one = owning(1, B)
    batch, asked = write((one, b"a"), (one, b"b"))

    parts = batch.take_apart()
    parts[1].confirm(B)

    assert (0, [parts[0]], [parts[0]]) == (asked.answers, asked.unconfirmed, list(one.pending))

    parts[0].confirm(B)

    assert (1, [], {}) == (asked.answers, asked.unconfirmed, one.pending)
    assert batch.is_over


def test_a_confirmation_of_the_message_confirms_the_writes_of_a_batch_that_was_taken_apart() -> (
    None
):
    """The answer comes after another partition of it was lost, say."""
    one, two = owning(1, B), owning(2, B)
    batch, asked = write((one, b"a"), (two, b"b"))

    one.abandon(ERROR)
    batch.confirm(B)

    assert batch.parts is not None
    assert [ERROR, None] == [part.error for part in batch.parts]
    assert (1, {}, {}) == (asked.answers, one.pending, two.pending)


def test_parts_wait_only_for_those_who_did_not_confirm_the_batch() -> None:
    """What a holder said counts for each of them."""
    batch, _ = write((owning(1, B, C), b"a"), (owning(2, B, C), b"b"))
    batch.confirm(B)

    parts = batch.take_apart()

    assert [[C], [C]] == [list(part.waiting) for part in parts]


def test_parts_stand_in_the_place_of_their_batch() -> None:
    """Writes are taken back from the last one on."""
    one = owning(1, B)
    first = alone(one, b"k", 1)
    batch, _ = write((one, b"k"), (one, b"k"), stamp=2)
    last = alone(one, b"k", 9)

    parts = batch.take_apart()

    assert [first, *parts, last] == list(one.pending)
    assert parts is batch.take_apart()


def test_unconfirmed_writes_of_a_batch_are_undone_in_the_partition_that_was_lost() -> None:
    """A key that was written twice gets back what it had before; other partitions are not touched."""
    one, two = owning(1, B), owning(2, B)
    old = Entry(b"old", 1, 1, math.inf)
    one.replica.apply("m", b"k", old)
    digest = one.replica.digest()
    _, asked = write((one, b"k"), (two, b"k"), (one, b"k"), (one, b"new"))

    one.abandon(ERROR)

    assert (old, None) == (one.replica.entry("m", b"k"), one.replica.entry("m", b"new"))
    assert digest == one.replica.digest()
    assert Entry(b"v1", 6, 1, math.inf) == two.replica.entry("m", b"k")
    assert (0, {}, 1) == (asked.answers, one.pending, len(two.pending))

    two.abandon(ERROR)

    assert (1, []) == (asked.answers, asked.unconfirmed)


def test_a_replica_that_a_newer_table_takes_out_is_waited_for_in_other_partitions() -> None:
    """Each partition has its own row."""
    one, two = owning(1, B, C), owning(2, B, C)
    batch, asked = write((one, b"a"), (two, b"b"))
    batch.confirm(C)

    one.update(Row(1, (A, C), ()))

    assert batch.parts is not None
    assert [True, False] == [part.is_over for part in batch.parts]
    assert (0, [B]) == (asked.answers, list(batch.parts[1].waiting))


async def test_who_asks_for_unconfirmed_writes_finds_those_of_batches() -> None:
    """The latest of each key."""
    one = owning(1, B)
    batch, _ = write((one, b"a"), (one, b"a"), (one, b"b"))

    found = one.unconfirmed("m")

    assert batch.parts is not None
    assert {b"a": batch.parts[1].future, b"b": batch.parts[2].future} == found


def test_holders_are_compared_as_they_are_now() -> None:
    """Writes go together by `held_by`: it follows every change of the holders."""
    one = owning(1, B)

    one.activate(C)
    with_joining = one.held_by
    one.deactivate(C)
    without = one.held_by
    one.update(Row(1, (A, C), ()))

    assert [(B, C), (B,), (C,)] == [with_joining, without, one.held_by]
    assert one.held_by == tuple(one.holders)
