"""Writes that are confirmed as one fare as they would each by itself, whatever happens in between.

Both sides go through the same events: an owner whose writes of one message are a `PendingBatch`, and one
that has a `PendingWrite` for each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from cache.cluster.ids import MemberId
from cache.cluster.partitions.table import Row
from cache.cluster.replication.entries import Entry
from cache.cluster.replication.ownership import Ownership, Pending, PendingBatch, PendingWrite
from cache.cluster.replication.replica import PartitionReplica
from cache.errors import CacheError, IndeterminateError

A, B, C, D = (MemberId(f"{name}#1") for name in "abcd")
PARTITIONS = 3
ROWS = [((A, B, C), ()), ((A, B), (C,)), ((A, C), (B,)), ((A, B), ()), ((A, D), (B, C))]

Write = tuple[int, int]
"""(partition, key)."""

WRITES = st.lists(st.tuples(st.integers(0, PARTITIONS - 1), st.integers(0, 2)), min_size=1)
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), WRITES),
        st.tuples(st.just("confirm"), st.integers(0, 9), st.sampled_from([B, C, D])),
        st.tuples(st.just("each"), st.integers(0, 9), st.sampled_from([B, C, D])),
        st.tuples(st.just("fail"), st.integers(0, 9), st.integers(0, 9)),
        st.tuples(st.just("abandon"), st.integers(0, PARTITIONS - 1)),
        st.tuples(st.just("update"), st.integers(0, PARTITIONS - 1), st.sampled_from(ROWS)),
        st.tuples(st.just("activate"), st.integers(0, PARTITIONS - 1), st.sampled_from([B, C])),
        st.tuples(st.just("deactivate"), st.integers(0, PARTITIONS - 1), st.sampled_from([B, C])),
    ),
    max_size=12,
)


class Owner:
    """One side."""

    def __init__(self, *, together: bool) -> None:
        self.together = together
        self.stamp = 0
        self.unconfirmed: dict[Pending, None] = {}
        self.owned = [
            Ownership(
                partition,
                Row(1, (A, B, C), ()),
                PartitionReplica(operation_memory=9, tombstone_lifetime=60.0),
            )
            for partition in range(PARTITIONS)
        ]
        self.messages: list[list[Pending]] = []
        """What each message has: one batch for those with the same holders, or every write."""

    def split(self, batch: PendingBatch, parts: Sequence[PendingWrite]) -> None:
        del self.unconfirmed[batch]
        self.unconfirmed.update(dict.fromkeys(parts))

    def ended(self, pending: Pending) -> None:
        del self.unconfirmed[pending]

    def write(self, writes: Sequence[Write]) -> None:
        """Write, as `ReplicationService.put_each` does."""
        groups: dict[tuple[MemberId, ...], list[Pending]] = {}
        for place, (partition, number) in enumerate(writes):
            self.stamp += 1
            ownership, key = self.owned[partition], b"k%d" % number
            entry = Entry(b"v%d" % self.stamp, self.stamp, 1, math.inf)
            before = ownership.replica.entry("m", key)
            ownership.replica.apply("m", key, entry)
            if not ownership.holders:
                continue
            group = groups.setdefault(ownership.held_by, [])
            if self.together:
                if not group:
                    group.append(self._batch(ownership))
                batch = group[0]
                assert isinstance(batch, PendingBatch)
                batch.add(place, ownership, key, entry, before)
                continue
            change = ("m", key, entry)
            one = PendingWrite(ownership, [change], [before], None, 9.0, self.ended)
            self.unconfirmed[one] = ownership.pending[one] = None
            group.append(one)
        self.messages += groups.values()

    def _batch(self, ownership: Ownership) -> PendingBatch:
        batch = PendingBatch("m", ownership.held_by, math.inf, 9.0, self.ended, self.split)
        self.unconfirmed[batch] = None
        return batch

    def writes_of(self, number: int) -> list[PendingWrite]:
        """Take the writes of a message apart, if anything is known of them only together."""
        writes: list[PendingWrite] = []
        for pending in self.messages[number % len(self.messages)]:
            if isinstance(pending, PendingWrite):
                writes.append(pending)
            elif pending.parts is not None or not pending.is_over:
                writes += pending.take_apart()
        return writes

    def happen(self, event: tuple[object, ...]) -> None:
        """Let something happen."""
        match event:
            case ("write", list(writes)):
                self.write(writes)
            case ("confirm", int(number), str(holder)) if self.messages:
                for pending in self.messages[number % len(self.messages)]:
                    pending.confirm(MemberId(holder))
            case ("each", int(number), str(holder)) if self.messages:
                for write in self.writes_of(number)[::2]:
                    write.confirm(MemberId(holder))
            case ("fail", int(number), int(place)) if self.messages:
                for write in self.writes_of(number)[place : place + 1]:
                    write.ownership.pending.pop(write, None)
                    write.fail(IndeterminateError("late"))
            case ("abandon", int(partition)):
                self.owned[partition].abandon(IndeterminateError("moved"))
            case ("update", int(partition), (tuple(replicas), tuple(joining))):
                self.owned[partition].update(Row(1, replicas, joining))
            case ("activate", int(partition), str(member)):
                if member in self.owned[partition].row.joining:
                    self.owned[partition].activate(MemberId(member))
            case ("deactivate", int(partition), str(member)):
                self.owned[partition].deactivate(MemberId(member))
            case _:
                pass  # Nothing was sent so far.

    def outcomes(self) -> list[list[tuple[bool, str]]]:
        """Return of each write of each message whether its end is known, and which that is."""
        return [[end for pending in message for end in _ends(pending)] for message in self.messages]

    def held(self) -> list[tuple[int, dict[bytes, Entry]]]:
        """Return what the copies have."""
        return [(o.replica.digest(), dict(o.replica.entries("m"))) for o in self.owned]

    def waiting(self) -> list[bool]:
        """Return whether each partition waits for copies."""
        return [bool(ownership.pending) for ownership in self.owned]

    def unconfirmed_count(self) -> int:
        """Return how many writes wait."""
        return sum(
            len(pending.keys) if isinstance(pending, PendingBatch) else 1
            for pending in self.unconfirmed
        )


def _ends(pending: Pending) -> list[tuple[bool, str]]:
    if isinstance(pending, PendingWrite):
        return [(pending.is_over, _text(pending.error))]
    if pending.parts is None:
        return [(pending.is_over, "")] * len(pending.keys)
    assert pending.is_over == all(part.is_over for part in pending.parts)
    return [(part.is_over, _text(part.error)) for part in pending.parts]


def _text(error: CacheError | None) -> str:
    return "" if error is None else str(error)


@given(WRITES, EVENTS)
def test_writes_that_are_confirmed_as_one_fare_as_each_by_itself(
    first: list[Write], events: list[tuple[object, ...]]
) -> None:
    """After every event: what is known of each, what the copies hold, who waits."""
    together, alone = Owner(together=True), Owner(together=False)

    for event in [("write", first), *events]:
        together.happen(event)
        alone.happen(event)

        assert alone.outcomes() == together.outcomes()
        assert alone.held() == together.held()
        assert alone.waiting() == together.waiting()
        assert alone.unconfirmed_count() == together.unconfirmed_count()
