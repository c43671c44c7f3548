"""Commands on channels. Messages are seen once by those who listen when they are published, or not at all."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from cache.cluster.resp.channels import to_topic
from cache.cluster.resp.client import Client
from cache.cluster.resp.command import WHILE_SUBSCRIBED, command
from cache.cluster.resp.replies import CommandError, Push, Reply, Several

SUBSCRIPTIONS_MAX: Final = 10_000
"""Channels and patterns that one client may listen to."""


async def subscribe(client: Client, words: list[bytes]) -> Reply:
    """SUBSCRIBE channel…."""
    _check_room(client, words)
    return await _each(client, b"subscribe", client.shared.channels.subscribe, words[1:])


async def psubscribe(client: Client, words: list[bytes]) -> Reply:
    """PSUBSCRIBE pattern…."""
    _check_room(client, words)
    return await _each(client, b"psubscribe", client.shared.channels.subscribe_pattern, words[1:])


async def unsubscribe(client: Client, words: list[bytes]) -> Reply:
    """UNSUBSCRIBE [channel…]."""
    names = words[1:] or list(client.channels)
    return await _each(client, b"unsubscribe", client.shared.channels.unsubscribe, names)


async def punsubscribe(client: Client, words: list[bytes]) -> Reply:
    """PUNSUBSCRIBE [pattern…]."""
    names = words[1:] or list(client.patterns)
    return await _each(client, b"punsubscribe", client.shared.channels.unsubscribe_pattern, names)


def _check_room(client: Client, words: list[bytes]) -> None:
    for name in words[1:]:
        to_topic(name)
    if client.subscription_count + len(words) - 1 > SUBSCRIPTIONS_MAX:
        raise CommandError(f"ERR a client listens to {SUBSCRIPTIONS_MAX} channels at most")


async def _each(
    client: Client,
    kind: bytes,
    change: Callable[[Client, bytes], Awaitable[None]],
    names: list[bytes],
) -> Reply:
    """Change the subscriptions one by one; each is answered with how many there are then."""
    answers: list[Reply] = []
    for name in names:
        await change(client, name)
        answers.append(Push((kind, name, client.subscription_count)))
    return Several(tuple(answers) or (Push((kind, None, client.subscription_count)),))


def publish(client: Client, words: list[bytes]) -> Reply:
    """PUBLISH channel message: to everybody in the cluster who listens."""
    return client.shared.channels.publish(words[1], words[2])


def pubsub_channels(client: Client, words: list[bytes]) -> Reply:
    """PUBSUB CHANNELS [pattern]: those that somebody in the cluster listens to."""
    if len(words) > 3:
        raise CommandError("ERR wrong number of arguments for 'pubsub|channels' command")
    return list(client.shared.channels.names(*words[2:]))


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
    _row("pubsub|channels", -2, pubsub_channels, "2.8.0", "Return the channels of the cluster."),
    _row("pubsub|numpat", 2, pubsub_numpat, "2.8.0", "Count the patterns of the cluster."),
    _row("pubsub|numsub", -2, pubsub_numsub, "2.8.0", "Count the listeners of channels."),
)

COMMANDS: Final = (
    _row("psubscribe", -2, psubscribe, "2.0.0", "Listen to channels that match.", *_FLAGS),
    _row("publish", 3, publish, "2.0.0", "Send a message to a channel.", "pubsub", "fast"),
    _row("pubsub", -2, None, "2.8.0", "Commands on channels.", subcommands=_PUBSUB),
    _row("punsubscribe", -1, punsubscribe, "2.0.0", "Stop it.", *_FLAGS),
    _row("subscribe", -2, subscribe, "2.0.0", "Listen to channels.", *_FLAGS),
    _row("unsubscribe", -1, unsubscribe, "2.0.0", "Stop it.", *_FLAGS),
)
