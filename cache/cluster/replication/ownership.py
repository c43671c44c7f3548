"""What an owner keeps per partition: who must confirm writes, and which writes are not confirmed yet.

Not here: sending (service.py) and catching up (repair.py). Rules:

* `holders` are the members that every write is sent to: the other replicas and the joining members that are
  being brought up. A write is acknowledged when all of them, or `needed` of them, confirmed it.
* A joining member that misses a write is dropped from `holders`, and its copy starts again. A replica is
  never dropped here: only a newer table can take it out, so that it cannot be promoted without the write.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from typing import Final

from cache.cluster.ids import MemberId
from cache.cluster.partitions.table import Row
from cache.cluster.replication.differences import Key
from cache.cluster.replication.entries import Entry
from cache.cluster.replication.replica import PartitionReplica
from cache.cluster.wire.messages import KeyVersion, OperationRecord
from cache.errors import CacheError, IndeterminateError

REPEATS_MAX: Final = 3
"""Slow confirmations of one write that are answered by sending it again; the next one counts."""

Change = tuple[str, bytes, Entry]
"""(map name, key, entry)."""

Ended = Callable[[CacheError | None], None]
"""Called with why a write could not be confirmed, None if it was."""

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


class Ownership:
    """State of one partition on its owner."""

    __slots__ = (
        "epoch",
        "fence",
        "frozen",
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
        self.holders: dict[MemberId, None] = {}
        self.joined: dict[MemberId, None] = {}
        """Joining members reported complete: as binding as replicas."""
        self.pending: dict[PendingWrite, None] = {}
        self.running: dict[bytes, asyncio.Future[None]] = {}
        """Operation ids in flight, so that a retry waits for the first attempt."""
        self.update(row)

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
        self.joined = {m: None for m in self.joined if m in joining}
        for holder in gone:
            self.release(holder)

    def activate(self, holder: MemberId) -> None:
        """Send writes to a joining member from now on, and wait for its confirmations."""
        self.holders[holder] = None

    def deactivate(self, holder: MemberId) -> None:
        """A joining member missed a write; its copy is not complete."""
        if holder in self.row.replicas or holder in self.joined:
            return
        if self.holders.pop(holder, self) is not self:
            self.release(holder)

    def release(self, holder: MemberId) -> None:
        """Stop waiting for `holder` in every pending write."""
        for pending in list(self.pending):
            pending.release(holder)
            if not pending.waiting:
                del self.pending[pending]

    def unconfirmed(self, map_name: str) -> dict[bytes, asyncio.Future[None]]:
        """Return the latest write of each key of a map that may yet be taken back, see `abandon`."""
        return {
            key: pending.future
            for pending in self.pending
            if not pending.is_over
            for name, key, _ in pending.changes
            if name == map_name
        }

    def abandon(self, error: CacheError) -> None:
        """This member does not own the partition any more: unconfirmed writes fail."""
        for pending in reversed(list(self.pending)):
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
