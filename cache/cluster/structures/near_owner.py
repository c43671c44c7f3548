"""The owner's side of near copies: reads that may be kept elsewhere, and what changed since.

Nothing is noted until another member reads near, and nothing any more when nobody has for `IDLE_SECONDS`.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any, Final

from cache.cluster.replication.entries import EXPIRED, Entry
from cache.cluster.replication.replica import PartitionReplica
from cache.cluster.replication.service import ReplicationService
from cache.cluster.structures.answers import Answer
from cache.cluster.structures.changes import Changes
from cache.cluster.structures.journal import LENGTH, Journal
from cache.cluster.transport.rpc import Peer
from cache.cluster.wire.messages import NEVER, GetNear, NearChanges, NearPoll, NearValue, Reply
from cache.errors import CacheError, NotOwnerError
from cache.metrics import Metrics

WAKE_DELAY: Final = 0.01
"""Seconds between a change and the answers that name it: a hundred answers a second are enough."""

WAIT_MAX: Final = 20.0
"""Seconds a poll is kept, at most: a third of the largest staleness bound."""

IDLE_SECONDS: Final = 60.0
"""Three times the longest wait of a reader."""

IDLE_CHECK: Final = 1024
"""Changes between two looks at whether somebody still reads."""


@dataclass(slots=True, eq=False)
class _Waiting:
    """A poll that is kept until there is something to say."""

    poll: NearPoll
    arrived_at: float
    answer: asyncio.Future[Reply]
    timer: asyncio.TimerHandle | None = None


class NearOwner:
    """Keeps this member's journal and tells it to readers, one poll of each at a time."""

    def __init__(
        self, replication: ReplicationService, changes: Changes, metrics: Metrics, rng: Random
    ) -> None:
        self.journal_length = LENGTH
        self._replication = replication
        self._changes = changes
        self._clock = replication.clock
        self._rng = rng
        self._journal: Journal | None = None
        self._used_at = 0.0
        self._waiting: dict[str, _Waiting] = {}
        self._waking = False
        self._noted = metrics.counter("near.noted")
        metrics.gauge("near.readers", lambda: len(self._waiting))
        self.handlers: dict[type, Callable[[Any, Peer | None], Answer]] = {  # Any: by its key
            GetNear: self._on_get,
            NearPoll: self._on_poll,
        }

    # -- requests ----------------------------------------------------------------------------

    def _on_get(self, message: GetNear, peer: Peer | None) -> Answer:
        replica = self._replication.serve(message.partition).replica
        journal = self._open()
        journal.follow(message.map)
        if self._replication.serving[message.partition] is not replica:
            raise NotOwnerError(f"partition {message.partition} is about to be served")
        now = self._clock.monotonic()
        remaining = replica.remaining(message.map, message.key, now)
        # A copy that is read elsewhere has to be fetched again now and then, which is a use.
        ends_in = min(
            math.inf if remaining is None else remaining, replica.readable_for(message.map)
        )
        return NearValue(
            value=replica.get(message.map, message.key, now),
            ttl=NEVER if ends_in == math.inf else ends_in,
            journal=journal.number,
            sequence=journal.sequence,
        )

    def _on_poll(self, message: NearPoll, peer: Peer | None) -> Answer:
        self._replication.check_current()
        journal = self._open()
        reader = "" if peer is None else peer.key
        previous = self._waiting.get(reader)
        if previous is not None:
            self._answer(reader, previous)
        now = self._clock.monotonic()
        if message.wait <= 0 or journal.since(message.journal, message.sequence) is None:
            return self._news(journal, message, 0.0)
        loop = asyncio.get_running_loop()
        waiting = _Waiting(
            poll=message,
            arrived_at=now,
            answer=loop.create_future(),
        )
        waiting.timer = loop.call_later(min(message.wait, WAIT_MAX), self._answer, reader, waiting)
        waiting.answer.add_done_callback(partial(self._leave, reader, waiting))
        self._waiting[reader] = waiting
        if message.sequence != journal.sequence:
            self._wake_soon()
        return waiting.answer

    # -- answers -----------------------------------------------------------------------------

    def _leave(self, reader: str, waiting: _Waiting, _: object = None) -> None:
        if waiting.timer is not None:
            waiting.timer.cancel()
        if self._waiting.get(reader) is waiting:
            del self._waiting[reader]

    def _wake_soon(self) -> None:
        if self._waiting and not self._waking:
            self._waking = True
            asyncio.get_running_loop().call_later(WAKE_DELAY, self._wake)

    def _wake(self) -> None:
        self._waking = False
        for reader, waiting in list(self._waiting.items()):
            if self._journal is None or waiting.poll.sequence != self._journal.sequence:
                self._answer(reader, waiting)

    def _answer(self, reader: str, waiting: _Waiting) -> None:
        self._leave(reader, waiting)
        if waiting.answer.done():
            return
        try:
            self._replication.check_current()
        except CacheError as error:
            waiting.answer.set_exception(error)
            return
        kept = self._clock.monotonic() - waiting.arrived_at
        waiting.answer.set_result(self._news(self._open(), waiting.poll, kept))

    def _news(self, journal: Journal, poll: NearPoll, kept: float) -> NearChanges:
        changes = journal.since(poll.journal, poll.sequence)
        return NearChanges(
            journal=journal.number,
            sequence=journal.sequence,
            is_complete=changes is not None,
            kept=kept,
            partitions=[partition for partition, _ in changes or ()],
            digests=[digest for _, digest in changes or ()],
        )

    # -- noting ------------------------------------------------------------------------------

    def _open(self) -> Journal:
        self._used_at = self._clock.monotonic()
        if self._journal is None:
            self._journal = Journal(self._rng.getrandbits(63), self.journal_length)
            self._changes.follow(self)
        return self._journal

    def _close(self) -> None:
        """Stop noting; whoever comes later finds another journal."""
        self._journal = None
        self._changes.leave(self)

    def on_serving(
        self, partition: int, before: PartitionReplica | None, now: PartitionReplica | None
    ) -> None:
        """See `Follower`."""
        if before is not None:
            assert self._journal is not None, "changes are only listened to for the journal"
            self._journal.note_all(partition)
            self._noted.add()
            self._wake_soon()

    def on_change(
        self,
        partition: int,
        map_name: str,
        key: bytes,
        before: Entry | None,
        after: Entry | None,
        cause: int,
    ) -> None:
        """See `Follower`. What expires is known from its time to live."""
        if cause == EXPIRED:
            return
        assert self._journal is not None, "changes are only listened to for the journal"
        if self._journal.note(partition, map_name, key):
            self._noted.add()
            self._wake_soon()
            is_due = self._journal.sequence % IDLE_CHECK == 0 and not self._waiting
            if is_due and self._clock.monotonic() - self._used_at > IDLE_SECONDS:
                self._close()
