"""Channels of Redis clients are the cluster's topics: what either side publishes, both hear.

Text is a channel's name as it is; there are no channels whose names are not valid text.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import TYPE_CHECKING, Protocol

from cache.cluster.ids import MemberId
from cache.cluster.resp.patterns import matcher
from cache.cluster.resp.replies import CommandError, Push
from cache.cluster.resp.values import as_text
from cache.cluster.topics.subscription import Subscription
from cache.cluster.topics.topic import TOPIC_NAME_MAX
from cache.codec import decode_value, encode_value

if TYPE_CHECKING:
    from cache.cluster.resp.client import Client


class Counts(Protocol):
    """Subscribers in the whole cluster."""

    @property
    def topics(self) -> Mapping[str, int]:
        """By topic, those of patterns aside."""
        ...

    @property
    def patterns(self) -> Mapping[str, int]:
        """By pattern."""
        ...


class Topics(Protocol):
    """What carries the messages: the node's `TopicService`."""

    def add(self, subscription: Subscription) -> Awaitable[None]:
        """Begin to deliver; return when the members that answer know of it."""
        ...

    def remove(self, subscription: Subscription) -> None:
        """Deliver nothing more."""
        ...

    def publish(self, topic: str, value: bytes) -> int:
        """Send a value to whoever listens; return to how many."""
        ...

    def counts(self) -> Counts:
        """Return who listens to what."""
        ...


class Listening(Subscription):
    """A channel or pattern that one client listens to: what is delivered is pushed to it at once."""

    def __init__(self, topics: Topics, client: Client, name: bytes, *, is_pattern: bool) -> None:
        super().__init__((is_pattern, to_topic(name)), add=topics.add, remove=topics.remove)
        self._client = client
        self._is_pattern = is_pattern
        self._channel = name
        self.is_confirmed = False
        """Whether the client was told that it listens; nothing is pushed before."""

    def deliver(self, topic: str, value: bytes, publisher: MemberId) -> None:
        """Push a message, unless its value is of no type that Redis knows."""
        payload = as_text(decode_value(value))
        if not self.is_confirmed or payload is None:
            return
        if self._is_pattern:
            self._client.push(Push((b"pmessage", self._channel, topic.encode(), payload)))
        else:
            self._client.push(Push((b"message", self._channel, payload)))


class Channels:
    """What the clients of one member listen to, and what they publish."""

    def __init__(self, topics: Topics) -> None:
        self._topics = topics

    async def subscribe(self, client: Client, channel: bytes) -> None:
        """Let a client listen to a channel, from now on wherever it is published."""
        await self._begin(client, client.channels, channel, is_pattern=False)

    async def subscribe_pattern(self, client: Client, pattern: bytes) -> None:
        """Let a client listen to every channel that matches."""
        await self._begin(client, client.patterns, pattern, is_pattern=True)

    async def _begin(
        self, client: Client, held: dict[bytes, Listening], name: bytes, *, is_pattern: bool
    ) -> None:
        if name in held:
            return
        listening = held[name] = Listening(self._topics, client, name, is_pattern=is_pattern)
        try:
            await self._topics.add(listening)
        except BaseException:
            self._end(held, name)
            raise
        if held.get(name) is not listening:  # The client left meanwhile.
            self._topics.remove(listening)
        listening.is_confirmed = True

    async def unsubscribe(self, client: Client, channel: bytes) -> None:
        """End it."""
        self._end(client.channels, channel)

    async def unsubscribe_pattern(self, client: Client, pattern: bytes) -> None:
        """End it."""
        self._end(client.patterns, pattern)

    def _end(self, held: dict[bytes, Listening], name: bytes) -> None:
        if (listening := held.pop(name, None)) is not None:
            self._topics.remove(listening)

    def forget(self, client: Client) -> None:
        """End everything that a client listens to."""
        for held in (client.channels, client.patterns):
            for name in list(held):
                self._end(held, name)

    def publish(self, channel: bytes, payload: bytes) -> int:
        """Send a message to whoever listens in the cluster; return to how many, once per match."""
        return self._topics.publish(to_topic(channel), encode_value(payload))

    def names(self, pattern: bytes = b"*") -> list[bytes]:
        """Return the channels that somebody in the cluster listens to, patterns aside."""
        matches = matcher(pattern)
        names = (topic.encode() for topic in self._topics.counts().topics)
        return [name for name in names if matches(name)]

    def count(self, channel: bytes) -> int:
        """Return how many listen to a channel, patterns aside."""
        return self._topics.counts().topics.get(to_topic(channel), 0)

    @property
    def pattern_count(self) -> int:
        """Patterns that somebody in the cluster listens to."""
        return len(self._topics.counts().patterns)


def to_topic(name: bytes) -> str:
    """Return the topic of a channel or pattern.

    Raises:
        CommandError: no text, none at all, or too long.
    """
    try:
        topic = name.decode()
    except UnicodeDecodeError as error:
        raise CommandError("ERR names of channels must be valid UTF-8") from error
    if not 1 <= len(topic) <= TOPIC_NAME_MAX:
        raise CommandError(f"ERR names of channels must have 1 to {TOPIC_NAME_MAX} characters")
    return topic
