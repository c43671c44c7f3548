"""The owner's side of entry events: notes changes of maps that somebody listens to, and tells them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import Any, Final

from cache.cluster.replication.entries import Entry
from cache.cluster.replication.replica import PartitionReplica
from cache.cluster.replication.service import ReplicationService
from cache.cluster.structures.answers import Answer
from cache.cluster.structures.changes import Changes
from cache.cluster.structures.event_log import EVENT_BEGINS, EventLog, LoggedChange, changes_of
from cache.cluster.transport.rpc import Peer
from cache.cluster.wire.messages import EntryChanges, Reply, WatchEntries
from cache.errors import CacheError, OverloadedError
from cache.metrics import Metrics

WAIT_MAX: Final = 20.0
IDLE_SECONDS: Final = 60.0
"""A map that nobody asked about for so long is not noted any more."""

IDLE_CHECK: Final = 1024
MAPS_MAX: Final = 256
"""Maps listened to at once."""

WAITING_MAX: Final = 10_000
BATCH_COUNT: Final = 512
BATCH_BYTES: Final = 1024 * 1024
"""Changes looked through, and bytes of values given, by one answer."""


@dataclass(slots=True, eq=False)
class _Waiting:
    poll: WatchEntries
    answer: asyncio.Future[Reply]
    timer: asyncio.TimerHandle | None = None


class _Watched:
    def __init__(self, log: EventLog) -> None:
        self.log = log
        self.used_at = 0.0
        self.waiting: dict[_Waiting, None] = {}
        self.is_waking = False


class EventOwner:
    """Keeps this member's event logs."""

    def __init__(
        self, replication: ReplicationService, changes: Changes, metrics: Metrics, rng: Random
    ) -> None:
        self._replication = replication
        self._changes = changes
        self._clock = replication.clock
        self._rng = rng
        self._maps: dict[str, _Watched] = {}
        self._waiting_count = 0
        self._invalidating = False
        self._is_following = False
        self._noted = metrics.counter("events.noted")
        metrics.gauge("events.listeners", lambda: self._waiting_count)
        self.handlers: dict[type, Callable[[Any, Peer | None], Answer]] = {  # Any: by its key
            WatchEntries: self._on_watch,
        }

    # -- noting ------------------------------------------------------------------------------------

    @contextmanager
    def invalidating(self) -> Iterator[None]:
        """What is deleted within this turn is invalidated."""
        self._invalidating = True
        try:
            yield
        finally:
            self._invalidating = False

    def on_serving(
        self, partition: int, before: PartitionReplica | None, now: PartitionReplica | None
    ) -> None:
        """See `Follower`. Readers order what happened here after what happened at former owners."""
        if now is not None and self._is_following:
            for name in list(self._maps):
                self._note(name, LoggedChange(EVENT_BEGINS, b"", None, self._replication.stamp()))

    def on_change(
        self,
        partition: int,
        map_name: str,
        key: bytes,
        before: Entry | None,
        after: Entry | None,
        cause: int,
    ) -> None:
        """See `Follower`."""
        if map_name in self._maps and self._replication.stalled:
            # Whoever owns the partition since may have noted this already: readers are told of a gap.
            self._forget(map_name)
        elif map_name in self._maps:
            now, invalidating = self._clock.monotonic(), self._invalidating
            for change in changes_of(key, before, after, cause, now=now, invalidating=invalidating):
                self._noted.add()
                self._note(map_name, change)

    def _note(self, map_name: str, change: LoggedChange) -> None:
        watched = self._maps[map_name]
        watched.log.add(change)
        if watched.waiting and not watched.is_waking:
            watched.is_waking = True
            asyncio.get_running_loop().call_soon(self._wake, watched)
        if watched.log.sequence % IDLE_CHECK == 0 and not watched.waiting:
            if self._clock.monotonic() - watched.used_at > IDLE_SECONDS:
                self._forget(map_name)

    def _forget(self, map_name: str) -> None:
        watched = self._maps.pop(map_name)
        for waiting in list(watched.waiting):
            self._answer(watched, waiting)
        if not self._maps:
            self._is_following = False
            self._changes.leave(self)

    def _open(self, map_name: str) -> _Watched:
        watched = self._maps.get(map_name)
        if watched is None:
            now = self._clock.monotonic()
            for name, other in list(self._maps.items()):
                if not other.waiting and now - other.used_at > IDLE_SECONDS:
                    self._forget(name)
            if len(self._maps) >= MAPS_MAX:
                raise OverloadedError(f"{MAPS_MAX} maps are listened to on one member")
            owned = sum(replica is not None for replica in self._replication.serving)
            log = EventLog(1 + self._rng.getrandbits(62), owned)
            watched = self._maps[map_name] = _Watched(log)
            if not self._is_following:
                self._changes.follow(self)
                self._is_following = True
        watched.used_at = self._clock.monotonic()
        return watched

    # -- telling -----------------------------------------------------------------------------------

    def _on_watch(self, message: WatchEntries, peer: Peer | None) -> Answer:
        self._replication.check_current()
        watched = self._open(message.map)
        found = self._found(watched, message)
        says_something = found.kinds or found.missed or found.sequence < found.latest
        if says_something or message.journal != found.journal or message.wait <= 0:
            return found
        if self._waiting_count >= WAITING_MAX:
            raise OverloadedError(f"{WAITING_MAX} listeners wait here")
        loop = asyncio.get_running_loop()
        waiting = _Waiting(message, loop.create_future())
        wait = min(message.wait, WAIT_MAX)
        waiting.timer = loop.call_later(wait, self._answer, watched, waiting)
        waiting.answer.add_done_callback(lambda _: self._leave(watched, waiting))
        watched.waiting[waiting] = None
        self._waiting_count += 1
        return waiting.answer

    def _leave(self, watched: _Watched, waiting: _Waiting) -> None:
        if waiting.timer is not None:
            waiting.timer.cancel()
        if watched.waiting.pop(waiting, self) is not self:
            self._waiting_count -= 1

    def _wake(self, watched: _Watched) -> None:
        watched.is_waking = False
        for waiting in list(watched.waiting):
            found = self._found(watched, waiting.poll)
            # What was looked through in vain is not looked through again by every wake.
            if (
                found.kinds
                or found.missed
                or found.sequence - waiting.poll.sequence > BATCH_COUNT // 2
            ):
                self._answer(watched, waiting)

    def _answer(self, watched: _Watched, waiting: _Waiting) -> None:
        self._leave(watched, waiting)
        if waiting.answer.done():
            return
        try:
            self._replication.check_current()
        except CacheError as error:
            waiting.answer.set_exception(error)
            return
        watched.used_at = self._clock.monotonic()
        waiting.answer.set_result(self._found(watched, waiting.poll))

    def _found(self, watched: _Watched, poll: WatchEntries) -> EntryChanges:
        log = watched.log
        sequence, missed, changes = log.sequence, 0, list[LoggedChange]()
        if poll.journal == log.number:
            missed, changes = log.since(poll.sequence)
            sequence = poll.sequence + missed
        elif poll.journal == -1:
            missed, changes = log.since(0)
            sequence = missed
            missed = -1 if missed or log.owned_at_start else 0
        elif poll.journal != 0:
            missed = -1
        columns: list[tuple[int, LoggedChange]] = []
        size = 0
        for change in changes[:BATCH_COUNT]:
            if size > BATCH_BYTES:
                break
            sequence += 1
            if _wants(poll, change):
                columns.append((sequence, change))
                size += len(change.value or b"") if poll.include_value else 0
        return EntryChanges(
            journal=log.number,
            sequence=sequence,
            latest=log.sequence,
            missed=missed,
            owned=sum(replica is not None for replica in self._replication.serving),
            sequences=[number for number, _ in columns],
            kinds=[change.kind for _, change in columns],
            keys=[change.key for _, change in columns],
            values=[change.value if poll.include_value else None for _, change in columns],
            stamps=[change.stamp for _, change in columns],
        )


def _wants(poll: WatchEntries, change: LoggedChange) -> bool:
    if change.kind == EVENT_BEGINS:
        return True
    if change.kind not in poll.kinds or (poll.key is not None and change.key != poll.key):
        return False
    return not poll.prefix or change.key.startswith((b"s" + poll.prefix, b"b" + poll.prefix))
