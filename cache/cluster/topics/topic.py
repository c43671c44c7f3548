"""`Topic`: publish a value to whoever listens now, on whichever member."""

from __future__ import annotations

import asyncio
from typing import Final

from cache.cluster.feed import BYTES_MAX, COUNT_MAX
from cache.cluster.topics.service import TopicService
from cache.cluster.topics.subscription import Subscription
from cache.codec import check_value, encode_value
from cache.errors import ConfigError

TOPIC_NAME_MAX: Final = 256
"""Characters of a topic or pattern."""


def check_topic(name: str, what: str = "topic") -> None:
    """Raise `ConfigError` unless `name` can be a topic."""
    if not isinstance(name, str) or not 1 <= len(name) <= TOPIC_NAME_MAX:
        raise ConfigError(f"{what} {name!r}: must be 1 to {TOPIC_NAME_MAX} characters")
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(f"{what} {name!r}: not valid text: {error}") from error


class Topic:
    """A topic whose messages are delivered at most once; get one from `Node.topic`.

    Values are those of maps: any MessagePack type, or `bytes`, kept as they are.

    Guarantees:
        Consistency: a subscriber receives the messages of one publishing member on one topic in the order
            they were published, each at most once. Between publishers there is no order.
        An ack means: the message was queued here, for each member that is known to have subscribers.
            Nothing is said about its arrival.
        Under partition: it reaches the subscribers on the publisher's side; nothing is sent later.
        Under pause: messages for a paused member are lost once its outbox (16,384 messages, 16 MiB) is
            full, or after 2 s; nobody else notices.
        Clocks: none.
        Loss is reported by: `TopicMessage.missed` for what a subscriber did not read in time; the counters
            `topics.outbox_full` and `topics.undelivered` at the publisher, `topics.lost` at the receiver.
        Tested by: tests/integration/test_topics.py, tests/unit/cluster/topics.
    """

    def __init__(self, name: str, service: TopicService, *, value_limit: int) -> None:
        check_topic(name)
        self._name = name
        self._service = service
        self._value_limit = value_limit

    @property
    def name(self) -> str:
        """Name of the topic; every member that asks for this name gets the same one."""
        return self._name

    def __repr__(self) -> str:
        return f"<Topic {self._name!r}>"

    async def publish(self, value: object) -> int:
        """Send a value to whoever listens; waits for nobody, so a dead member neither fails nor delays it.

        Returns:
            How many subscribers it was sent to, those of patterns included, as far as this member
            knows them. A member that has not said yet what it has is sent the message and counts 0.

        Raises:
            CodecError: the value cannot be encoded, or is over `limits.value_bytes_max`.
            ClosedError: the node is closed.
        """
        encoded = encode_value(value)
        check_value(encoded, self._value_limit)
        reached = self._service.publish(self._name, encoded)
        await asyncio.sleep(0)  # Whoever publishes in a loop lets the messages leave.
        return reached

    def subscribe(
        self, *, queue_max: int = COUNT_MAX, queue_bytes_max: int = BYTES_MAX
    ) -> Subscription:
        """Return a subscription, to be entered: `async with topic.subscribe() as messages`.

        Entering returns when every member that answers within a second knows of it: what is published
        anywhere after that is delivered. A queue that is full loses its *oldest* messages, and
        the next one that is read says how many (`TopicMessage.missed`).

        Args:
            queue_max: messages that wait to be read.
            queue_bytes_max: bytes of their values.

        Raises:
            ConfigError: a limit below 1.
        """
        return _subscription(
            self._service, (False, self._name), queue_max=queue_max, queue_bytes_max=queue_bytes_max
        )


class TopicPattern:
    """All topics whose names fit a pattern, those of the future included; get one from `Node.topics`.

    The guarantees are those of `Topic`. Reliable topics are not among them.
    """

    def __init__(self, pattern: str, service: TopicService) -> None:
        check_topic(pattern, "pattern")
        self._pattern = pattern
        self._service = service

    @property
    def pattern(self) -> str:
        """The pattern."""
        return self._pattern

    def __repr__(self) -> str:
        return f"<TopicPattern {self._pattern!r}>"

    def subscribe(
        self, *, queue_max: int = COUNT_MAX, queue_bytes_max: int = BYTES_MAX
    ) -> Subscription:
        """Return a subscription, see `Topic.subscribe`."""
        name = (True, self._pattern)
        return _subscription(
            self._service, name, queue_max=queue_max, queue_bytes_max=queue_bytes_max
        )


def _subscription(
    service: TopicService, name: tuple[bool, str], *, queue_max: int, queue_bytes_max: int
) -> Subscription:
    return Subscription(
        name,
        add=service.add,
        remove=service.remove,
        queue_max=queue_max,
        queue_bytes_max=queue_bytes_max,
    )
