"""Commands about the member and the command table."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Final

from cache.cluster.resp.arguments import SYNTAX
from cache.cluster.resp.client import DATABASES, Client
from cache.cluster.resp.command import Command, command
from cache.cluster.resp.commands.connection import REDIS_VERSION
from cache.cluster.resp.patterns import matcher
from cache.cluster.resp.replies import CommandError, Reply, Verbatim
from cache.errors import RejectedError

DEFAULT_SECTIONS: Final = ("server", "clients", "memory", "stats", "replication", "keyspace")

Fields = dict[str, object]


def time(client: Client, words: list[bytes]) -> Reply:
    """TIME."""
    microseconds = int(client.shared.clock.wall() * 1_000_000)
    return [b"%d" % part for part in divmod(microseconds, 1_000_000)]


# -- INFO ----------------------------------------------------------------------------------------


async def info(client: Client, words: list[bytes]) -> Reply:
    """INFO [section…]."""
    asked = [word.decode(errors="replace").lower() for word in words[1:]]
    wanted = dict.fromkeys(asked or DEFAULT_SECTIONS)
    if not {"all", "default", "everything"}.isdisjoint(wanted):
        wanted.update(dict.fromkeys(DEFAULT_SECTIONS))
    sections = []
    for name, read in _SECTIONS.items():
        if name in wanted:
            fields = await read(client)
            lines = [f"{field}:{value}" for field, value in fields.items()]
            sections.append("\r\n".join([f"# {name.capitalize()}", *lines, ""]))
    return Verbatim("\r\n".join(sections).encode())


async def _server(client: Client) -> Fields:
    stats = client.shared.stats()
    return {
        "redis_version": REDIS_VERSION.decode(),
        "redis_mode": "standalone",
        "server_name": "peercache",
        "member": stats.name,
        "member_address": stats.address,
        "members": stats.members,
        "tcp_port": client.shared.address.rpartition(":")[2],
        "uptime_in_seconds": int(stats.uptime),
        "uptime_in_days": int(stats.uptime // 86_400),
    }


async def _clients(client: Client) -> Fields:
    clients = client.shared.clients.values()
    return {
        "connected_clients": len(clients),
        "maxclients": client.shared.config.limits.resp_clients_max,
        "blocked_clients": 0,
        "pubsub_clients": sum(one.is_subscribed for one in clients),
    }


async def _memory(client: Client) -> Fields:
    stats = client.shared.stats()
    return {
        "used_memory": stats.bytes,
        "maxmemory": client.shared.config.limits.memory_bytes_max or 0,
    }


async def _stats(client: Client) -> Fields:
    counts, channels = client.shared.counts, client.shared.channels
    return {
        "total_connections_received": counts.connections.value,
        "total_commands_processed": counts.commands.value,
        "rejected_connections": counts.rejected_clients.value,
        "client_output_buffer_limit_disconnections": counts.slow_clients.value,
        "total_error_replies": counts.errors.value,
        "pubsub_channels": len(channels.names()),
        "pubsub_patterns": channels.pattern_count,
    }


async def _replication(client: Client) -> Fields:
    return {"role": "master", "connected_slaves": 0}


async def _keyspace(client: Client) -> Fields:
    found: Fields = {}
    with suppress(RejectedError):  # The rest is wanted most when the cluster is down.
        for database, one in sorted(client.shared.maps.items()):
            if keys := await one.size():
                found[f"db{database}"] = f"keys={keys},expires=0,avg_ttl=0"
    return found


_SECTIONS: Final[dict[str, Callable[[Client], Awaitable[Fields]]]] = {
    "server": _server,
    "clients": _clients,
    "memory": _memory,
    "stats": _stats,
    "replication": _replication,
    "keyspace": _keyspace,
}


# -- CONFIG --------------------------------------------------------------------------------------


def config_get(client: Client, words: list[bytes]) -> Reply:
    """CONFIG GET pattern…."""
    limits = client.shared.config.limits
    settings: dict[bytes, bytes] = {
        b"appendonly": b"no",
        b"client-query-buffer-limit": b"%d" % limits.resp_query_bytes_max,
        b"databases": b"%d" % DATABASES,
        b"maxclients": b"%d" % limits.resp_clients_max,
        b"maxmemory": b"%d" % (limits.memory_bytes_max or 0),
        b"maxmemory-policy": b"noeviction" if limits.memory_bytes_max is None else b"allkeys-lru",
        b"proto-max-bulk-len": b"%d" % limits.value_bytes_max,
        b"save": b"",
        b"timeout": b"0",
    }
    matchers = [matcher(pattern.lower()) for pattern in words[2:]]
    return {
        name: value
        for name, value in settings.items()
        if any(matches(name) for matches in matchers)
    }


# -- COMMAND -------------------------------------------------------------------------------------


def command_all(client: Client, words: list[bytes]) -> Reply:
    """COMMAND."""
    return [one.row() for one in client.shared.table.values()]


def command_count(client: Client, words: list[bytes]) -> Reply:
    """COMMAND COUNT."""
    return len(client.shared.table)


def _find(client: Client, name: bytes) -> Command | None:
    """Return a command, or by `container|subcommand` a subcommand."""
    first, _, second = name.lower().partition(b"|")
    found = client.shared.table.get(first)
    return found if found is None or not second else found.subcommands.get(second)


def command_info(client: Client, words: list[bytes]) -> Reply:
    """COMMAND INFO [name…]."""
    names = words[2:] or list(client.shared.table)
    return [None if (one := _find(client, name)) is None else one.row() for name in names]


def command_docs(client: Client, words: list[bytes]) -> Reply:
    """COMMAND DOCS [name…]."""
    found = [_find(client, name) for name in words[2:] or list(client.shared.table)]
    return {one.name.encode(): one.documentation() for one in found if one is not None}


def command_list(client: Client, words: list[bytes]) -> Reply:
    """COMMAND LIST [FILTERBY PATTERN pattern]."""
    match [*(word.upper() for word in words[2:4]), *words[4:]]:
        case []:
            pattern = b"*"
        case [b"FILTERBY", b"PATTERN", given]:
            pattern = given.lower()
        case _:
            raise CommandError(SYNTAX)
    matches = matcher(pattern)
    return [name for name in client.shared.table if matches(name)]


_row = partial(command, group="server")

_COMMAND: Final = (
    _row("command|count", 2, command_count, "2.8.13", "Count the commands."),
    _row("command|docs", -2, command_docs, "7.0.0", "Say what commands are for."),
    _row("command|info", -2, command_info, "2.8.13", "Describe commands."),
    _row("command|list", -2, command_list, "7.0.0", "Return the names of commands."),
)
_CONFIG: Final = (_row("config|get", -3, config_get, "2.0.0", "Return settings.", "admin"),)

COMMANDS: Final = (
    _row("command", -1, command_all, "2.8.13", "Describe commands.", subcommands=_COMMAND),
    _row("config", -2, None, "2.0.0", "Commands on settings.", subcommands=_CONFIG),
    _row("info", -1, info, "1.0.0", "Describe this member."),
    _row("time", 1, time, "2.6.0", "Return the member's wall clock.", "fast"),
)
