"""What an owner keeps per partition: who must confirm writes, and which writes are not confirmed yet.

Not here: sending (service.py) and catching up (repair.py). Rules:

* `holders` are the members that every write is sent to: the other replicas and the joining members that are
  being brought up. A write is acknowledged when all of them, or `needed` of them, confirmed it.
* A joining member that misses a write is dropped from `holders`, and its copy starts again. A replica is
  never dropped here: only a newer table can take it out, so that it cannot be promoted without the write.
* Plain writes of one message with the same holders are one `PendingBatch` as long as nothing but their
  confirmation happens to them. Before anything else does, it is taken apart: every write has its own fate.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from typing import Final, Union

from cache.cluster.ids import MemberId
from cache.cluster.partitions.table import Row
from cache.cluster.replication.differences import Key
from cache.cluster.replication.entries import Entry
from cache.cluster.replication.replica import PartitionReplica
from cache.cluster.wire.messages import KeyVersion, OperationRecord
from cache.errors import CacheError, IndeterminateError

REPEATS_MAX: Final = 3
"""Slow confirmations of one write that are answered by sending it again; the next one counts."""

BATCH_MAX: Final = 256
"""Writes of one message; more would make others wait, and save nothing."""

BATCH_BYTES_MAX: Final = 64 * 1024
"""Bytes of values from which on a message is full. A larger value goes alone."""

Change = tuple[str, bytes, Entry]
"""(map name, key, entry)."""

Ended = Callable[[CacheError | None], None]
"""Called with why a write could not be confirmed, None if it was."""

Pending = Union["PendingWrite", "PendingBatch"]

ServingHook = Callable[[int, PartitionReplica | None, PartitionReplica | None], None]
"""Called with a partition and the copies that were, and are now, served; None for none."""


class PendingWrite:
    """A write that was applied here and waits for other copies.

    Args:
        ownership: of its partition.
        changes: what was applied.
        before: what the owner held for each change, to be put back if the write may not stand.
        needed: how many of the other holders have to confirm; None for all.
        deadline: instant after which it is given up.
        ended: called once, with this write, when it is known what came of it.
        operations: results to be remembered with it.
        merging: whether the changes are versions made earlier, see `ReplicationService.commit`.
        evicted: entries given up to make room; every holder is to do the same.
    """

    __slots__ = (
        "_ended",
        "_future",
        "_watchers",
        "before",
        "changes",
        "deadline",
        "error",
        "evicted",
        "is_over",
        "merging",
        "needed",
        "operations",
        "ownership",
        "repeats",
        "waiting",
    )

    def __init__(
        self,
        ownership: Ownership,
        changes: Sequence[Change],
        before: Sequence[Entry | None],
        needed: int | None,
        deadline: float,
        ended: Callable[[PendingWrite], None],
        operations: Sequence[OperationRecord] = (),
        merging: bool = False,
        evicted: Sequence[KeyVersion] = (),
    ) -> None:
        self.ownership = ownership
        self.changes = changes
        self.before = before
        self.operations = operations
        self.waiting = ownership.holders.copy()
        self.needed = needed
        """Confirmations still needed, or None for all of `waiting`."""
        self.deadline = deadline
        self.repeats = 0
        self.evicted = evicted
        self.merging = merging
        self.is_over = False
        """Whether it is known what came of it; copies that are not needed may still be waited for."""
        self.error: CacheError | None = None
        self._ended = ended
        self._watchers: list[Ended] | None = None  # Few have any, and a list costs.
        self._future: asyncio.Future[None] | None = None

    def watch(self, ended: Ended) -> None:
        """Call `ended` when it is known what came of the write: at once, if it is."""
        if self.is_over:
            ended(self.error)
        elif self._watchers is None:
            self._watchers = [ended]
        else:
            self._watchers.append(ended)

    @property
    def future(self) -> asyncio.Future[None]:
        """Resolves when enough copies have the write, or raises `IndeterminateError`."""
        if self._future is None:
            self._future = asyncio.get_running_loop().create_future()
            self.watch(self._resolve)
        return self._future

    def _resolve(self, error: CacheError | None) -> None:
        if self._future is None or self._future.done():
            return
        if error is None:
            self._future.set_result(None)
        else:
            self._future.set_exception(error)
            self._future.exception()  # A caller that left already is not worth a warning.

    def _end(self, error: CacheError | None) -> None:
        self.is_over, self.error = True, error
        self._ended(self)
        for ended in self._watchers or ():
            ended(error)

    def may_repeat(self) -> bool:
        """Whether a copy that confirmed slowly is to be sent the remaining times to live once more."""
        self.repeats += 1
        return self.repeats <= REPEATS_MAX and bool(self.mortal())

    def mortal(self) -> list[Key]:
        """Return the keys whose new entries live and will end."""
        return [
            (map_name, key)
            for map_name, key, entry in self.changes
            if entry.value is not None and entry.expires_at != math.inf
        ]

    def confirm(self, holder: MemberId) -> None:
        """`holder` has the write."""
        if holder not in self.waiting:
            return
        del self.waiting[holder]
        if self.needed is not None:
            self.needed -= 1
        self.settle()
        if not self.waiting:
            self.ownership.pending.pop(self, None)

    def release(self, holder: MemberId) -> None:
        """`holder` need not confirm any more: it is no copy now."""
        if self.waiting.pop(holder, self) is self:
            return
        self.settle()
        if not self.waiting and not self.is_over:
            self.fail(IndeterminateError("fewer copies than write_quorum were left to confirm"))

    def settle(self) -> None:
        """End it well when nothing more is needed."""
        enough = self.needed <= 0 if self.needed is not None else not self.waiting
        if enough and not self.is_over:
            self._end(None)

    def fail(self, error: CacheError) -> None:
        """The write cannot be confirmed; whoever waits gets `error`."""
        self.waiting.clear()
        if not self.is_over:
            self._end(error)


class PendingBatch:
    """Plain writes to one map that were applied here, and wait for the same copies.

    It stands for them in `Ownership.pending` of all their partitions. A copy confirms all or, once the batch
    was taken apart, each.

    Args:
        map_name: of all.
        holders: the members that are to confirm, those of every partition in it.
        expires_at: instant at which the entries end.
        deadline: instant after which they are given up.
        ended: called with this batch when all are confirmed, or with a part of it as a `PendingWrite` would.
        split: called with this batch and its parts when it is taken apart.
    """

    __slots__ = (
        "_ended",
        "_left",
        "_split",
        "_watcher",
        "before",
        "deadline",
        "entries",
        "expires_at",
        "is_over",
        "keys",
        "map",
        "ownerships",
        "parts",
        "places",
        "size_bytes",
        "waiting",
    )

    def __init__(
        self,
        map_name: str,
        holders: Sequence[MemberId],
        expires_at: float,
        deadline: float,
        ended: Callable[[Pending], None],
        split: Callable[[PendingBatch, Sequence[PendingWrite]], None],
    ) -> None:
        self.map = map_name
        self.waiting = dict.fromkeys(holders)
        self.expires_at = expires_at
        self.deadline = deadline
        self.places: list[int] = []
        """Of each in what was asked for."""
        self.ownerships: list[Ownership] = []
        self.keys: list[bytes] = []
        self.entries: list[Entry] = []
        self.before: list[Entry | None] = []
        """What the owner held for each key, to be put back if the write may not stand."""
        self.size_bytes = 0
        """Bytes of the values."""
        self.is_over = False
        """Whether it is known what came of all of them."""
        self.parts: Sequence[PendingWrite] | None = None
        """Each write by itself, once this was taken apart."""
        self._left = 0
        self._ended = ended
        self._split = split
        self._watcher: Callable[[], None] | None = None

    @property
    def is_full(self) -> bool:
        """Whether the next write should go with others."""
        return len(self.keys) >= BATCH_MAX or self.size_bytes >= BATCH_BYTES_MAX

    def add(
        self, place: int, ownership: Ownership, key: bytes, entry: Entry, before: Entry | None
    ) -> None:
        """Take in a write that was applied to a partition with these holders."""
        self.places.append(place)
        self.ownerships.append(ownership)
        self.keys.append(key)
        self.entries.append(entry)
        self.before.append(before)
        self.size_bytes += len(entry.value or b"")
        ownership.pending[self] = None

    def watch(self, ended: Callable[[], None]) -> None:
        """Call `ended` when it is known what came of all of them: at once, if it is. Nobody else is told."""
        assert self._watcher is None, "one request waits for it"
        self._watcher = ended
        if self.is_over:
            ended()

    def confirm(self, holder: MemberId) -> None:
        """`holder` has all of them."""
        if self.parts is not None:
            for part in self.parts:
                part.confirm(holder)
        elif self.waiting.pop(holder, self) is None and not self.waiting:
            for ownership in self.ownerships:
                ownership.pending.pop(self, None)
            self._ended(self)
            self._end()

    def take_apart(self) -> Sequence[PendingWrite]:
        """Return each write by itself; from now on they stand where this stood."""
        if self.parts is None:
            assert not self.is_over, "what has ended stands nowhere"
            self._left = len(self.keys)
            self.parts = [self._part(place) for place in range(self._left)]
            of_partition: dict[Ownership, dict[Pending, None]] = {}
            for part in self.parts:
                of_partition.setdefault(part.ownership, {})[part] = None
            for ownership, parts in of_partition.items():
                ownership.replace(self, parts)
            self._split(self, self.parts)
        return self.parts

    def _part(self, place: int) -> PendingWrite:
        change = (self.map, self.keys[place], self.entries[place])
        part = PendingWrite(
            self.ownerships[place],
            (change,),
            (self.before[place],),
            None,
            self.deadline,
            self._ended,
        )
        part.waiting = self.waiting.copy()
        part.watch(self._part_ended)
        return part

    def _part_ended(self, _: CacheError | None) -> None:
        self._left -= 1
        if not self._left:
            self._end()

    def _end(self) -> None:
        self.is_over = True
        if self._watcher is not None:
            self._watcher()


class Ownership:
    """State of one partition on its owner."""

    __slots__ = (
        "epoch",
        "fence",
        "frozen",
        "held_by",
        "holders",
        "joined",
        "partition",
        "pending",
        "replica",
        "row",
        "running",
        "settled",
    )

    def __init__(self, partition: int, row: Row, replica: PartitionReplica) -> None:
        self.partition = partition
        self.replica = replica
        self.row = row
        self.epoch = row.epoch
        self.fence = 0
        """Latest epoch in which somebody else wrote to this copy; above `epoch` this one is deposed."""
        self.frozen = False
        """True while the partition is being handed over: nothing is served."""
        self.settled = True
        """False after a promotion until the surviving copies were compared."""
        self.held_by = row.replicas[1:]
        """The holders, to be compared with those of other partitions."""
        self.holders: dict[MemberId, None] = dict.fromkeys(self.held_by)
        self.joined: dict[MemberId, None] = {}
        """Joining members reported complete: as binding as replicas."""
        self.pending: dict[Pending, None] = {}
        """In the order in which they were applied."""
        self.running: dict[bytes, asyncio.Future[None]] = {}
        """Operation ids in flight, so that a retry waits for the first attempt."""

    @property
    def serving(self) -> bool:
        """Whether operations may run here now."""
        return self.settled and not self.frozen and self.fence <= self.epoch

    def update(self, row: Row) -> None:
        """Follow a newer table in which this member still owns the partition."""
        replicas = dict.fromkeys(row.replicas[1:])
        joining = [m for m in self.holders if m in row.joining and m not in replicas]
        self.row = row
        self.epoch = row.epoch
        self.frozen = False
        gone = [m for m in self.holders if m not in replicas and m not in row.joining]
        self.holders = {**replicas, **dict.fromkeys(joining)}
        self.held_by = tuple(self.holders)
        self.joined = {m: None for m in self.joined if m in joining}
        for holder in gone:
            self.release(holder)

    def activate(self, holder: MemberId) -> None:
        """Send writes to a joining member from now on, and wait for its confirmations."""
        self.holders[holder] = None
        self.held_by = tuple(self.holders)

    def deactivate(self, holder: MemberId) -> None:
        """A joining member missed a write; its copy is not complete."""
        if holder in self.row.replicas or holder in self.joined:
            return
        if self.holders.pop(holder, self) is not self:
            self.held_by = tuple(self.holders)
            self.release(holder)

    def release(self, holder: MemberId) -> None:
        """Stop waiting for `holder` in every pending write."""
        for pending in self.writes():
            pending.release(holder)
            if not pending.waiting:
                del self.pending[pending]

    def writes(self) -> list[PendingWrite]:
        """Return the pending writes, each by itself from now on."""
        for pending in list(self.pending):
            if isinstance(pending, PendingBatch):
                pending.take_apart()
        return [pending for pending in self.pending if isinstance(pending, PendingWrite)]

    def replace(self, batch: PendingBatch, parts: dict[Pending, None]) -> None:
        """Let `parts` stand in the place of a batch."""
        before, self.pending = self.pending, {}
        for pending in before:
            self.pending.update(parts if pending is batch else {pending: None})

    def unconfirmed(self, map_name: str) -> dict[bytes, asyncio.Future[None]]:
        """Return the latest write of each key of a map that may yet be taken back, see `abandon`."""
        return {
            key: pending.future
            for pending in self.writes()
            if not pending.is_over
            for name, key, _ in pending.changes
            if name == map_name
        }

    def abandon(self, error: CacheError) -> None:
        """This member does not own the partition any more: unconfirmed writes fail."""
        for pending in reversed(self.writes()):
            if not pending.is_over:
                self._undo(pending)
            pending.fail(error)
        self.pending.clear()

    def _undo(self, pending: PendingWrite) -> None:
        """Put back what a write replaced here, and forget that it was done.

        The write was never acknowledged, and the new owner may have acknowledged another one since. This
        copy's stamp could be the later of the two, and would then win when the copies are compared.
        """
        for operation in pending.operations:
            self.replica.operations.forget(operation.id)
        pairs = zip(pending.changes, pending.before, strict=False)
        for (map_name, key, entry), before in pairs:
            held = self.replica.entry(map_name, key)
            if held is not None and held.version == entry.version:  # Expired meanwhile or not.
                self.replica.restore(map_name, key, before)
