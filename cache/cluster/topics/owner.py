"""Reliable topics on the member that owns them: appends, and answers readers.

The rules of places and cursors stand in `ring.py`. A ring is built from the copy when the partition begins to
be served here, and forgotten when it is not any more; readers that wait then ask the next owner.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from cache.cluster.replication.entries import Entry
from cache.cluster.replication.ownership import Ownership, PendingWrite
from cache.cluster.replication.replica import PartitionReplica
from cache.cluster.replication.service import ReplicationService
from cache.cluster.structures.answers import Answer, after
from cache.cluster.structures.changes import Changes
from cache.cluster.structures.writes import Writes
from cache.cluster.topics.ring import HOLE_PATIENCE, Ring, Slice
from cache.cluster.topics.stored import (
    TOPIC_PREFIX,
    floors_key,
    is_floors_key,
    map_of,
    message_key,
    pack_floors,
    pack_place,
    partition_for,
    place_of,
    unpack_floors,
    unpack_place,
)
from cache.cluster.transport.rpc import Peer
from cache.cluster.wire.messages import (
    Append,
    Appended,
    KeyVersion,
    OperationRecord,
    Place,
    ReadTopic,
    Reply,
    TopicSlice,
)
from cache.errors import CacheError, NotOwnerError, OverloadedError, RemoteProtocolError
from cache.metrics import Metrics

WAIT_MAX: Final = 20.0
"""Seconds that a reader is kept waiting, at most."""

READERS_MAX: Final = 10_000
"""Readers that wait here at once, of all topics."""

SLICE_COUNT: Final = 512
SLICE_BYTES: Final = 1024 * 1024
"""Messages of one answer; a larger message goes alone."""

CONFIRM_INTERVAL: Final = 0.2
"""Seconds before a message that some copy did not confirm is sent again."""


@dataclass(slots=True, eq=False)
class _Reader:
    request: ReadTopic
    answer: asyncio.Future[Reply]
    timer: asyncio.TimerHandle | None = None
    is_at_hole: bool = False


@dataclass(slots=True, eq=False)
class _Open:
    """A topic whose partition is served here."""

    topic: str
    ownership: Ownership
    ring: Ring = field(default_factory=Ring)
    readers: dict[_Reader, None] = field(default_factory=dict)
    is_waking: bool = False


class TopicOwner:
    """Serves the reliable topics of partitions that this member owns."""

    def __init__(self, replication: ReplicationService, changes: Changes, metrics: Metrics) -> None:
        self._replication = replication
        self._changes = changes
        self._writes = Writes(replication)
        self._clock = replication.clock
        self._open: dict[int, dict[str, _Open]] = {}
        self._reader_count = 0
        self._appended = metrics.counter("topics.appended")
        self._overwritten = metrics.counter("topics.overwritten")
        metrics.gauge("topics.readers", lambda: self._reader_count)
        self.handlers: dict[type, Callable[[Any, Peer | None], Answer]] = {  # Any: by its key
            Append: self._on_append,
            ReadTopic: self._on_read,
        }

    # -- rings -------------------------------------------------------------------------------------

    def _opened(self, topic: str, partition: int, ownership: Ownership) -> _Open:
        if partition != partition_for(topic, self._replication.config.partition_count):
            raise RemoteProtocolError(f"topic {topic[:64]!r} is not in partition {partition}")
        opened = self._open.get(partition, {}).get(topic)
        if opened is not None and opened.ownership is ownership:
            return opened
        if opened is not None:
            self._close(opened)
        if not self._open:
            self._changes.follow(self)
        opened = _Open(topic, ownership)
        now = self._clock.monotonic()
        for key, entry in ownership.replica.items(map_of(topic), now):
            self._take_in(opened.ring, key, entry)
        for pending in ownership.writes():
            for map_name, key, _ in pending.changes:
                place = place_of(key) if map_name == map_of(topic) else None
                if place is not None and not pending.is_over:
                    opened.ring.doubt(place)
                    pending.watch(partial(self._confirmed, opened, place))
        self._open.setdefault(partition, {})[topic] = opened
        return opened

    def _take_in(self, ring: Ring, key: bytes, entry: Entry | None) -> bool:
        """Follow an entry of a ring's map; return whether readers may want to know."""
        value = None if entry is None else entry.value
        if (place := place_of(key)) is not None:
            if value is None:
                ring.remove(place)
            else:
                ring.put(place, len(value))
            return True
        if value is not None and is_floors_key(key):
            ring.raise_floors(unpack_floors(value))
        return False

    def on_serving(
        self, partition: int, before: PartitionReplica | None, now: PartitionReplica | None
    ) -> None:
        """See `Follower`: with the partition its topics go."""
        if now is None:
            for opened in list(self._open.get(partition, {}).values()):
                self._close(opened)

    def on_change(
        self,
        partition: int,
        map_name: str,
        key: bytes,
        before: Entry | None,
        after: Entry | None,
        cause: int,
    ) -> None:
        """See `Follower`: copies bring messages, too, and memory may run out."""
        if map_name.startswith(TOPIC_PREFIX):
            opened = self._open.get(partition, {}).get(map_name[len(TOPIC_PREFIX) :])
            if opened is not None and self._take_in(opened.ring, key, after):
                self._wake_soon(opened)

    def _close(self, opened: _Open) -> None:
        partition = opened.ownership.partition
        topics = self._open[partition]
        del topics[opened.topic]
        if not topics:
            del self._open[partition]
        for reader in list(opened.readers):
            self._leave(opened, reader)
            if not reader.answer.done():
                error = NotOwnerError(f"topic {opened.topic!r} is not served here any more")
                reader.answer.set_exception(error)
        if not self._open:
            self._changes.leave(self)

    # -- appending ---------------------------------------------------------------------------------

    def _on_append(self, message: Append, peer: Peer | None) -> Answer:
        self._writes.check_size(message.topic.encode(), message.value)
        ownership = self._writes.admit(message.partition)
        opened = self._opened(message.topic, message.partition, ownership)
        remembered = ownership.replica.operations.get(message.operation)
        if remembered is not None:
            return self._repeat(ownership, remembered)
        stamper = self._writes.stamper(map_of(message.topic))
        stamped = stamper.live(message.value, stamper.expires_at(-1))
        place = opened.ring.append(stamped.hlc, stamped.origin, len(message.value))
        map_name, key = map_of(message.topic), message_key(place)
        changes = [(map_name, key, stamped)]
        dropping: list[KeyVersion] = []
        if removed := opened.ring.make_room(message.capacity, message.capacity_bytes):
            self._overwritten.add(len(removed))
            floors = pack_floors(opened.ring.floors())
            entry = stamper.live(floors, stamped.expires_at)
            changes.append((map_name, floors_key(stamped.origin), entry))
            dropping = _versions(ownership.replica, map_name, removed)
        record = OperationRecord(message.operation, map_name, key, pack_place(place))
        self._appended.add()
        pending = self._replication.commit(ownership, changes, [record], dropping=dropping)
        return self._after(opened, place, pending)

    def _after(self, opened: _Open, place: Place, pending: PendingWrite | None) -> Answer:
        reply = Appended(place)
        if pending is None:
            self._show(opened, place)
            return reply
        pending.watch(partial(self._confirmed, opened, place))
        return after(pending, reply)

    def _repeat(self, ownership: Ownership, remembered: OperationRecord) -> Answer:
        """Answer a retry: the message stands, but the copies must have it before it is confirmed."""
        reply = Appended(unpack_place(remembered.result))
        held = ownership.replica.entry(remembered.map, remembered.key)
        changes = [] if held is None else [(remembered.map, remembered.key, held)]
        pending = self._replication.commit(ownership, changes, [remembered], merging=True)
        return reply if pending is None else after(pending, reply)

    def _confirmed(self, opened: _Open, place: Place, error: CacheError | None) -> None:
        if error is None:
            self._show(opened, place)
        else:
            asyncio.get_running_loop().call_later(
                CONFIRM_INTERVAL, self._confirm_again, opened, place
            )

    def _confirm_again(self, opened: _Open, place: Place) -> None:
        """A copy may lack the message, and as long as that is so nobody is shown it."""
        ownership = opened.ownership
        if self._replication.owned.get(ownership.partition) is not ownership:
            return
        map_name, key = map_of(opened.topic), message_key(place)
        held = ownership.replica.entry(map_name, key)
        if held is None or held.value is None:
            opened.ring.remove(place)
            return
        pending = self._replication.commit(ownership, [(map_name, key, held)], merging=True)
        if pending is None:
            self._show(opened, place)
        else:
            pending.watch(partial(self._confirmed, opened, place))

    def _show(self, opened: _Open, place: Place) -> None:
        opened.ring.confirm(place)
        self._wake_soon(opened)

    # -- reading -----------------------------------------------------------------------------------

    def _on_read(self, message: ReadTopic, peer: Peer | None) -> Answer:
        ownership = self._replication.serve(message.partition)
        opened = self._opened(message.topic, message.partition, ownership)
        found = self._read(opened, message)
        if found or message.cursor is None or message.wait <= 0:
            return self._slice(opened, found)
        if self._reader_count >= READERS_MAX:
            raise OverloadedError(f"{READERS_MAX} readers of reliable topics wait here")
        loop = asyncio.get_running_loop()
        reader = _Reader(message, loop.create_future())
        wait = min(message.wait, WAIT_MAX)
        reader.timer = loop.call_later(wait, self._answer, opened, reader)
        reader.answer.add_done_callback(lambda _: self._leave(opened, reader))
        if found.waits:
            self._wait_at_hole(opened, reader)
        opened.readers[reader] = None
        self._reader_count += 1
        return reader.answer

    def _read(self, opened: _Open, message: ReadTopic) -> Slice:
        if message.cursor is None:
            return Slice(cursor=opened.ring.present())
        return opened.ring.read(
            {(stamp, origin): number for stamp, origin, number in message.cursor},
            limit=min(max(1, message.limit), SLICE_COUNT),
            limit_bytes=SLICE_BYTES,
            now=self._clock.monotonic(),
        )

    def _slice(self, opened: _Open, found: Slice) -> Reply:
        replica, map_name = opened.ownership.replica, map_of(opened.topic)
        entries = [replica.entry(map_name, message_key(place)) for place in found.places]
        return TopicSlice(
            places=found.places,
            values=[b"" if entry is None else entry.value or b"" for entry in entries],
            missed=found.missed,
            cursor=[(*name, number) for name, number in found.cursor.items()],
            missed_after=found.missed_after,
        )

    def _leave(self, opened: _Open, reader: _Reader) -> None:
        if reader.timer is not None:
            reader.timer.cancel()
        if opened.readers.pop(reader, self) is not self:
            self._reader_count -= 1

    def _wake_soon(self, opened: _Open) -> None:
        if opened.readers and not opened.is_waking:
            opened.is_waking = True
            asyncio.get_running_loop().call_soon(self._wake, opened)

    def _wake(self, opened: _Open) -> None:
        opened.is_waking = False
        for reader in list(opened.readers):
            found = self._read(opened, reader.request)
            if found:
                self._answer(opened, reader)
            elif found.waits and not reader.is_at_hole:
                self._wait_at_hole(opened, reader)

    def _wait_at_hole(self, opened: _Open, reader: _Reader) -> None:
        """A message is missing: answer when it was waited for long enough, if not before."""
        assert reader.timer is not None, "every reader has one"
        reader.is_at_hole = True
        loop = asyncio.get_running_loop()
        if reader.timer.when() - loop.time() > HOLE_PATIENCE:
            reader.timer.cancel()
            reader.timer = loop.call_later(HOLE_PATIENCE, self._answer, opened, reader)

    def _answer(self, opened: _Open, reader: _Reader) -> None:
        self._leave(opened, reader)
        if reader.answer.done():
            return
        try:
            self._replication.serve(opened.ownership.partition)
        except CacheError as error:
            reader.answer.set_exception(error)
            return
        reader.answer.set_result(self._slice(opened, self._read(opened, reader.request)))


def _versions(
    replica: PartitionReplica, map_name: str, places: Sequence[Place]
) -> list[KeyVersion]:
    """Return the entries of messages, to be dropped."""
    keys = map(message_key, places)
    return [KeyVersion(map_name, key, *replica.version(map_name, key)) for key in keys]
