"""Commands on channels. Messages are seen once by those who listen when they are published, or not at all."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from cache.cluster.resp.client import Client
from cache.cluster.resp.command import WHILE_SUBSCRIBED, command
from cache.cluster.resp.patterns import PATTERN_BYTES_MAX, matcher
from cache.cluster.resp.replies import CommandError, Push, Reply, Several

CHANNEL_BYTES_MAX: Final = PATTERN_BYTES_MAX
SUBSCRIPTIONS_MAX: Final = 10_000
"""Channels and patterns that one client may listen to."""


def subscribe(client: Client, words: list[bytes]) -> Reply:
    """SUBSCRIBE channel…."""
    _check_room(client, words)
    return _each(client, b"subscribe", client.shared.channels.subscribe, words[1:])


def psubscribe(client: Client, words: list[bytes]) -> Reply:
    """PSUBSCRIBE pattern…."""
    _check_room(client, words)
    return _each(client, b"psubscribe", client.shared.channels.subscribe_pattern, words[1:])


def unsubscribe(client: Client, words: list[bytes]) -> Reply:
    """UNSUBSCRIBE [channel…]."""
    names = words[1:] or list(client.channels)
    return _each(client, b"unsubscribe", client.shared.channels.unsubscribe, names)


def punsubscribe(client: Client, words: list[bytes]) -> Reply:
    """PUNSUBSCRIBE [pattern…]."""
    names = words[1:] or list(client.patterns)
    return _each(client, b"punsubscribe", client.shared.channels.unsubscribe_pattern, names)


def _check_room(client: Client, words: list[bytes]) -> None:
    if max(map(len, words)) > CHANNEL_BYTES_MAX:
        raise CommandError(f"ERR a name of a channel is over {CHANNEL_BYTES_MAX} bytes")
    if client.subscription_count + len(words) - 1 > SUBSCRIPTIONS_MAX:
        raise CommandError(f"ERR a client listens to {SUBSCRIPTIONS_MAX} channels at most")


def _each(
    client: Client, kind: bytes, change: Callable[[Client, bytes], None], names: list[bytes]
) -> Reply:
    """Change the subscriptions one by one; each is answered with how many there are then."""
    answers: list[Reply] = []
    for name in names:
        change(client, name)
        answers.append(Push((kind, name, client.subscription_count)))
    return Several(tuple(answers) or (Push((kind, None, client.subscription_count)),))


def pubsub_channels(client: Client, words: list[bytes]) -> Reply:
    """PUBSUB CHANNELS [pattern]: those that clients of this member listen to."""
    if len(words) > 3:
        raise CommandError("ERR wrong number of arguments for 'pubsub|channels' command")
    matches = matcher(words[2] if len(words) == 3 else b"*")
    return [name for name in client.shared.channels.names() if matches(name)]


def pubsub_numsub(client: Client, words: list[bytes]) -> Reply:
    """PUBSUB NUMSUB [channel…]: as pairs."""
    counted: list[Reply] = []
    for name in words[2:]:
        counted += [name, client.shared.channels.count(name)]
    return counted


def pubsub_numpat(client: Client, words: list[bytes]) -> Reply:
    """PUBSUB NUMPAT."""
    return client.shared.channels.pattern_count


_row = partial(command, group="pubsub")
_FLAGS: Final = ("pubsub", WHILE_SUBSCRIBED)

_PUBSUB: Final = (
    _row("pubsub|channels", -2, pubsub_channels, "2.8.0", "Return this member's channels."),
    _row("pubsub|numpat", 2, pubsub_numpat, "2.8.0", "Count this member's patterns."),
    _row("pubsub|numsub", -2, pubsub_numsub, "2.8.0", "Count this member's listeners."),
)

COMMANDS: Final = (
    _row("psubscribe", -2, psubscribe, "2.0.0", "Listen to channels that match.", *_FLAGS),
    _row("pubsub", -2, None, "2.8.0", "Commands on channels.", subcommands=_PUBSUB),
    _row("punsubscribe", -1, punsubscribe, "2.0.0", "Stop it.", *_FLAGS),
    _row("subscribe", -2, subscribe, "2.0.0", "Listen to channels.", *_FLAGS),
    _row("unsubscribe", -1, unsubscribe, "2.0.0", "Stop it.", *_FLAGS),
)
