"""Who on this member listens to which channels and patterns."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from cache.cluster.resp.patterns import matcher
from cache.cluster.resp.replies import Push

if TYPE_CHECKING:
    from cache.cluster.resp.client import Client

Listeners = dict[bytes, dict["Client", None]]


class Channels:
    """Subscriptions of the clients of one member, and the delivery of messages to them."""

    def __init__(self) -> None:
        self._channels: Listeners = {}
        self._patterns: Listeners = {}
        self._matchers: dict[bytes, Callable[[bytes], bool]] = {}

    def subscribe(self, client: Client, channel: bytes) -> None:
        """Let a client listen to a channel."""
        client.channels[channel] = None
        self._channels.setdefault(channel, {})[client] = None

    def unsubscribe(self, client: Client, channel: bytes) -> None:
        """End it."""
        client.channels.pop(channel, None)
        _leave(self._channels, client, channel)

    def subscribe_pattern(self, client: Client, pattern: bytes) -> None:
        """Let a client listen to every channel that matches."""
        client.patterns[pattern] = None
        self._patterns.setdefault(pattern, {})[client] = None
        self._matchers.setdefault(pattern, matcher(pattern))

    def unsubscribe_pattern(self, client: Client, pattern: bytes) -> None:
        """End it."""
        client.patterns.pop(pattern, None)
        _leave(self._patterns, client, pattern)
        if pattern not in self._patterns:
            self._matchers.pop(pattern, None)

    def forget(self, client: Client) -> None:
        """End everything that a client listens to."""
        for channel in list(client.channels):
            self.unsubscribe(client, channel)
        for pattern in list(client.patterns):
            self.unsubscribe_pattern(client, pattern)

    def deliver(self, channel: bytes, payload: bytes) -> int:
        """Push a message to those who listen here; return to how many, a client once per match."""
        count = 0
        for client in list(self._channels.get(channel, ())):
            client.push(Push((b"message", channel, payload)))
            count += 1
        for pattern, matches in list(self._matchers.items()):
            if matches(channel):
                for client in list(self._patterns[pattern]):
                    client.push(Push((b"pmessage", pattern, channel, payload)))
                    count += 1
        return count

    def names(self) -> list[bytes]:
        """Return the channels that somebody listens to, patterns aside."""
        return list(self._channels)

    def count(self, channel: bytes) -> int:
        """Return how many listen to a channel, patterns aside."""
        return len(self._channels.get(channel, ()))

    @property
    def pattern_count(self) -> int:
        """Patterns that somebody listens to."""
        return len(self._patterns)


def _leave(listeners: Listeners, client: Client, name: bytes) -> None:
    clients = listeners.get(name, {})
    clients.pop(client, None)
    if not clients:
        listeners.pop(name, None)
