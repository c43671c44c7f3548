"""`ReliableTopic`: messages that are kept on several members, for readers that come back."""

from __future__ import annotations

import asyncio
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

import msgpack

from cache.cluster.structures.router import Router
from cache.cluster.structures.state import OperationIds
from cache.cluster.topics.owner import SLICE_COUNT
from cache.cluster.topics.ring import Segment
from cache.cluster.topics.stored import pack_place, partition_for
from cache.cluster.topics.topic import check_topic
from cache.cluster.wire.messages import CURSOR_MAX, Append, Appended, Place, ReadTopic, TopicSlice
from cache.codec import check_value, decode_value, encode_value
from cache.errors import ClosedError, ConfigError, IndeterminateError, RejectedError

CAPACITY: Final = 10_000
CAPACITY_BYTES: Final = 64 * 1024 * 1024

WAIT: Final = 10.0
"""Seconds that the owner keeps a question for messages."""

RETRY_INTERVAL: Final = 0.2
"""Seconds before a reader asks again when nobody serves the topic."""

BEGINNING: Final = ""
"""Position before every message that is kept."""


@dataclass(frozen=True, slots=True)
class ReliableMessage:
    """One message of a reliable topic."""

    topic: str
    value: Any  # Any: a MessagePack value
    id: str
    """Names the message; what `publish` returned."""
    position: str
    """For `subscribe(after=…)`: what comes after this message. Keep it wherever you like."""
    missed: int
    """Messages that are gone and stood just before this one: overwritten, or lost with all their copies."""


class ReliableTopic:
    """A topic that keeps its latest messages on several members; get one from `Node.topic`.

    Guarantees:
        Consistency: every subscriber receives every acknowledged message, or is told how many it
            missed. One that was shown is not shown again to the same subscription, and all
            subscribers see one order, in which the messages of a publisher that awaits each
            `publish` stand as it published them; after a split, see below. A message appears once, however
            often its publish was tried within one call; a call that raised `IndeterminateError` may
            have published, and calling again publishes another message.
        An ack means: the message is in memory on every copy that the table lists (or on `write_quorum`).
            Subscribers are shown it only then.
        Under partition: each side with `member_quorum` members takes messages, in segments of its own. After
            the heal both sides' messages are there: a subscriber is given those of the other side after its
            own, so that the order of the two sides differs between subscribers. A message that was being
            published when the split began may be taken by both sides, and comes twice then. A
            publisher whose messages were taken first by one side and then by the other may be read
            out of its order; what one owner took stays in order.
            The older ones make room first, so a topic that was full reports those as missed.
        Under pause: a paused owner that resumes is refused by its backups (epoch).
        Clocks: none for safety; after a split clocks decide which side's messages count as older.
        Loss is reported by: `ReliableMessage.missed`. It counts messages that made room for newer ones, or
            died with all their copies, as far as a copy knows of them; also some whose publish never
            succeeded. Two limits: when every copy of the partition died (counter `partitions.lost`)
            nothing is left to count by, and a subscriber that is 256 changes of owner behind is not told.
        Tested by: tests/integration/test_reliable_topics.py, tests/unit/cluster/topics/test_ring.py.
    """

    def __init__(
        self,
        name: str,
        router: Router,
        operation_ids: OperationIds,
        *,
        capacity: int = CAPACITY,
        capacity_bytes: int = CAPACITY_BYTES,
    ) -> None:
        check_topic(name)
        for option, limit in (("capacity", capacity), ("capacity_bytes", capacity_bytes)):
            if not isinstance(limit, int) or limit < 1:
                raise ConfigError(f"{option}={limit!r}: must be a whole number, 1 or more")
        self._name = name
        self._router = router
        self._operation_ids = operation_ids
        self._capacity = capacity
        self._capacity_bytes = capacity_bytes
        self._partition = partition_for(name, router.config.partition_count)

    @property
    def name(self) -> str:
        """Name of the topic; every member that asks for this name gets the same one."""
        return self._name

    @property
    def partition(self) -> int:
        """The partition that holds the topic."""
        return self._partition

    def __repr__(self) -> str:
        return f"<ReliableTopic {self._name!r}>"

    async def publish(self, value: object) -> str:
        """Add a message; return its id when every copy has it.

        Raises:
            RejectedError: not published.
            IndeterminateError: may have been published, or may yet be.
            CodecError: the value cannot be encoded, or is over `limits.value_bytes_max`.
        """
        encoded = encode_value(value)
        check_value(encoded, self._router.config.limits.value_bytes_max)
        request = Append(
            topic=self._name,
            partition=self._partition,
            operation=self._operation_ids.next(),
            value=encoded,
            capacity=self._capacity,
            capacity_bytes=self._capacity_bytes,
        )
        reply = await self._router.write(self._partition, request)
        assert isinstance(reply, Appended)
        return pack_place(reply.place).hex()

    def subscribe(self, after: str | None = None) -> ReliableSubscription:
        """Return a subscription, to be entered: `async with topic.subscribe() as messages`.

        Args:
            after: a `position` to go on from; `BEGINNING` for all that is kept; None for what is
                published after entering.

        Raises:
            ConfigError: `after` is no position.
        """
        cursor = None if after is None else parse_position(after)
        return ReliableSubscription(self._name, self._partition, self._router, cursor)


class ReliableSubscription:
    """Messages of a reliable topic: `async with` it, then `async for` over it.

    Nothing is queued here but the latest answer of the owner, so a reader may take its time; what the topic
    overwrites meanwhile is reported. While nobody serves the topic, reading waits.
    """

    def __init__(
        self, topic: str, partition: int, router: Router, cursor: dict[Segment, int] | None
    ) -> None:
        self._topic = topic
        self._partition = partition
        self._router = router
        self._cursor = cursor
        self._read: dict[Segment, int] = dict(cursor or {})
        """How far the application has read."""
        self._queue: deque[tuple[Place, bytes, int]] = deque()
        self._missed = 0
        self._state = "new"

    def __repr__(self) -> str:
        return f"<ReliableSubscription {self._topic!r}>"

    @property
    def position(self) -> str:
        """Where the subscription stands: after the message that was read last."""
        return format_position(self._read)

    async def __aenter__(self) -> Self:
        if self._state != "new":
            raise ClosedError(f"{self!r} was entered before; make a new one")
        self._state = "open"
        if self._cursor is None:
            found = await self._ask(None, wait=0.0)
            self._cursor = {(stamp, origin): number for stamp, origin, number in found.cursor}
            self._read = dict(self._cursor)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._state = "closed"

    def __aiter__(self) -> AsyncIterator[ReliableMessage]:
        return self

    async def __anext__(self) -> ReliableMessage:
        while True:
            if self._state == "closed":
                raise StopAsyncIteration
            if self._state == "new":
                raise ClosedError(f"{self!r}: enter it first, `async with topic.subscribe() as …`")
            if self._queue:
                return self._next()
            await self._fill()

    def _next(self) -> ReliableMessage:
        place, value, missed = self._queue.popleft()
        self._read[place[:2]] = place[2]
        return ReliableMessage(
            topic=self._topic,
            value=decode_value(value),
            id=pack_place(place).hex(),
            position=self.position,
            missed=missed,
        )

    async def _fill(self) -> None:
        assert self._cursor is not None, "entered"
        found = await self._ask(self._cursor, wait=WAIT)
        for place, value, missed in zip(found.places, found.values, found.missed, strict=True):
            self._queue.append((place, value, missed + self._missed))
            self._missed = 0
        self._missed += found.missed_after
        self._cursor = {(stamp, origin): number for stamp, origin, number in found.cursor}

    async def _ask(self, cursor: dict[Segment, int] | None, wait: float) -> TopicSlice:
        places = None if cursor is None else [(*name, n) for name, n in cursor.items()]
        request = ReadTopic(self._topic, self._partition, places, SLICE_COUNT, wait)
        while True:
            try:
                reply = await self._router.poll(self._partition, request, wait)
            except (RejectedError, IndeterminateError):
                if cursor is None:
                    raise
                await asyncio.sleep(RETRY_INTERVAL)
            else:
                assert isinstance(reply, TopicSlice)
                return reply


def format_position(cursor: dict[Segment, int]) -> str:
    """Return a cursor as text."""
    latest = sorted(cursor.items())[-CURSOR_MAX:]
    packed: bytes = msgpack.packb([[*name, number] for name, number in latest])
    return urlsafe_b64encode(packed).decode().rstrip("=") if cursor else BEGINNING


def parse_position(text: str) -> dict[Segment, int]:
    """Return the cursor of its text.

    Raises:
        ConfigError: it is no position.
    """
    if text == BEGINNING:
        return {}
    try:
        packed = urlsafe_b64decode(text + "=" * (-len(text) % 4))
        places = [(int(a), int(b), int(c)) for a, b, c in msgpack.unpackb(packed)]
    except (ValueError, TypeError, AttributeError, msgpack.exceptions.UnpackException) as error:
        raise ConfigError(f"after={text!r}: give the `position` of a message") from error
    if len(places) > CURSOR_MAX or not all(0 <= part < 2**63 for p in places for part in p):
        raise ConfigError(f"after={text!r}: give the `position` of a message")
    return {(stamp, origin): number for stamp, origin, number in places}
