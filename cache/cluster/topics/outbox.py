"""Messages on their way to one member: as many to a request as there are, a few requests at once. Pure.

An outbox is short. When its member does not answer it fills up, and what comes then is refused: publishing
never waits for anybody.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from cache.cluster.wire.messages import TOPIC_COLUMNS_MAX, Deliver

COUNT_MAX: Final = 16_384
BYTES_MAX: Final = 16 * 1024 * 1024
"""What one outbox holds."""

BATCH_BYTES: Final = 256 * 1024
"""Bytes of values above which a request takes no further message."""

REQUESTS_MAX: Final = 4
"""Requests unanswered at once."""


class Outbox:
    """What one member is still to be sent.

    Args:
        stream: tells this outbox from earlier ones of the same member; rises.
    """

    def __init__(self, stream: int) -> None:
        self.unanswered = 0
        self.is_due = False
        """Whether somebody is about to call `take`."""
        self._stream = stream
        self._sequence = 0
        self._messages: deque[tuple[str, bytes]] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def may_send(self) -> bool:
        """Whether there is a request to be made now."""
        return bool(self._messages) and self.unanswered < REQUESTS_MAX

    def add(self, topic: str, value: bytes) -> bool:
        """Add a message; return whether there was room."""
        is_full = self._bytes + len(value) > BYTES_MAX or len(self._messages) >= COUNT_MAX
        if is_full and self._messages:
            return False
        self._messages.append((topic, value))
        self._bytes += len(value)
        return True

    def take(self) -> Deliver:
        """Return the next request; `answered` is to be called once for it."""
        topics: list[str] = []
        values: list[bytes] = []
        size = 0
        while self._messages and size < BATCH_BYTES and len(topics) < TOPIC_COLUMNS_MAX:
            topic, value = self._messages[0]
            if values and size + len(value) > BATCH_BYTES:
                break
            self._messages.popleft()
            topics.append(topic)
            values.append(value)
            size += len(value)
        self._bytes -= size
        first = self._sequence
        self._sequence += len(topics)
        self.unanswered += 1
        return Deliver(self._stream, first, topics, values)

    def answered(self) -> None:
        """A request has ended, however."""
        self.unanswered -= 1


class Inbox:
    """How far one member's messages were received: which of a request are new."""

    def __init__(self) -> None:
        self._stream = -1
        self._next = 0

    def receive(self, message: Deliver) -> tuple[int, int]:
        """Return how many of the first messages are old, and how many were lost before them.

        A request overtakes another when a connection breaks and the next one is read first: what comes
        late then is old, and is not delivered, for the sake of the order.
        """
        if message.stream < self._stream:
            return len(message.topics), 0
        if message.stream > self._stream:
            self._stream, self._next = message.stream, message.sequence
        lost = max(0, message.sequence - self._next)
        old = min(max(0, self._next - message.sequence), len(message.topics))
        self._next = max(self._next, message.sequence + len(message.topics))
        return old, lost
