"""From the words of a client to the handler of its command; the errors on the way are Redis's own."""

from __future__ import annotations

import logging
from collections.abc import Coroutine, Mapping
from typing import Any, Final

from cache.cluster.resp.client import Client
from cache.cluster.resp.command import Command
from cache.cluster.resp.commands import connection, keys, pubsub, server, strings
from cache.cluster.resp.replies import RESP2, CommandError, Failed, Reply, Status
from cache.cluster.resp.values import WRONG_TYPE
from cache.errors import (
    CacheError,
    ClosedError,
    CodecError,
    IndeterminateError,
    NoQuorumError,
    RejectedError,
    WrongTypeError,
)

logger = logging.getLogger(__name__)

TABLE: Final[Mapping[bytes, Command]] = {
    command.name.encode(): command
    for command in sorted(
        (
            *connection.COMMANDS,
            *keys.COMMANDS,
            *pubsub.COMMANDS,
            *server.COMMANDS,
            *strings.COMMANDS,
        ),
        key=lambda command: command.name,
    )
}
"""Every command by name."""

SHOWN_BYTES_MAX: Final = 128
"""Bytes of an unknown command that its error repeats, as in Redis."""


def execute(client: Client, words: list[bytes]) -> Reply | Coroutine[Any, Any, Reply]:
    """Carry out one command of a client; a reply that has to wait is a coroutine.

    Raises:
        CommandError: it cannot be carried out.
    """
    command = TABLE.get(words[0].lower())
    if command is None:
        raise CommandError(_unknown(words))
    if command.subcommands and len(words) > 1:
        found = command.subcommands.get(words[1].lower())
        if found is None:
            return _help(command, words)
        command = found
    if not command.admits(len(words)):
        raise CommandError(f"ERR wrong number of arguments for '{command.name}' command")
    if not client.authenticated and not command.before_login:
        raise CommandError("NOAUTH Authentication required.")
    if client.protocol == RESP2 and client.is_subscribed and not command.while_subscribed:
        raise CommandError(
            f"ERR Can't execute '{command.name}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / "
            "RESET are allowed in this context"
        )
    client.command = command.name
    assert command.handler is not None, "containers need a subcommand by their arity"
    return command.handler(client, words)


def _unknown(words: list[bytes]) -> str:
    name = _shown(words[0], SHOWN_BYTES_MAX)
    arguments, room = "", SHOWN_BYTES_MAX
    for word in words[1:]:
        if len(arguments) >= SHOWN_BYTES_MAX:
            break
        arguments += f"'{_shown(word, room - len(arguments))}' "
    return f"ERR unknown command '{name}', with args beginning with: {arguments}"


def _shown(word: bytes, limit: int) -> str:
    return word[:limit].decode(errors="replace")


def _help(command: Command, words: list[bytes]) -> Reply:
    """Answer `HELP`, and what is no subcommand."""
    container = command.name.upper()
    if words[1].lower() != b"help" or len(words) > 2:
        unknown = _shown(words[1], SHOWN_BYTES_MAX)
        raise CommandError(f"ERR unknown subcommand '{unknown}'. Try {container} HELP.")
    lines = [f"{container} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"]
    for name, one in command.subcommands.items():
        lines += [name.decode().upper(), f"    {one.summary}"]
    lines += ["HELP", "    Print this help."]
    return [Status(line.encode()) for line in lines]


def failure(error: Exception) -> Failed:
    """Return what a client is told of an error.

    `CLUSTERDOWN` and `TRYAGAIN` mean that nothing was changed, `TIMEOUT` that it is not known.
    """
    match error:
        case CommandError():
            return Failed(str(error))
        case WrongTypeError():
            return Failed(WRONG_TYPE)
        case NoQuorumError() | ClosedError():
            return Failed(f"CLUSTERDOWN not applied: {error}")
        case RejectedError():
            return Failed(f"TRYAGAIN not applied: {error}")
        case IndeterminateError():
            return Failed(f"TIMEOUT may have been applied: {error}")
        case CodecError():
            return Failed(f"ERR not applied: {error}")
        case CacheError():
            return Failed(f"ERR {error}")
        case _:
            logger.error("resp.command_failed", exc_info=error)
            return Failed("ERR internal error, may have been applied; see the member's log")
