"""Commands about the connection itself."""

from __future__ import annotations

from functools import partial
from typing import Final

from cache.cluster.resp.arguments import SYNTAX, integer
from cache.cluster.resp.client import DATABASES, Client
from cache.cluster.resp.command import WHILE_SUBSCRIBED, command
from cache.cluster.resp.numbers import whole_number
from cache.cluster.resp.replies import OK, RESP2, RESP3, CommandError, Reply, Status, Verbatim

SERVER_NAME: Final = b"peercache"

REDIS_VERSION: Final = b"7.0.15"
"""The version of Redis whose replies are given; clients choose by it what they send."""

WRONG_PASSWORD: Final = "WRONGPASS invalid username-password pair or user is disabled."  # noqa: S105  (a text)
NO_PASSWORD: Final = (
    "ERR AUTH <password> called without any password configured for the default user. "  # noqa: S105
    "Are you sure your configuration is correct?"
)
LOGIN_FIRST: Final = (
    "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO AUTH <user> "
    "<pass> option can be used to authenticate the client and select the RESP protocol version at the same "
    "time"
)


def ping(client: Client, words: list[bytes]) -> Reply:
    """PING [message]."""
    if len(words) > 2:
        raise CommandError("ERR wrong number of arguments for 'ping' command")
    if client.protocol == RESP2 and client.is_subscribed:
        return [b"pong", words[1] if len(words) == 2 else b""]
    return words[1] if len(words) == 2 else Status(b"PONG")


def echo(client: Client, words: list[bytes]) -> Reply:
    """ECHO message."""
    return words[1]


def quit_(client: Client, words: list[bytes]) -> Reply:
    """QUIT."""
    client.closing = True
    return OK


def reset(client: Client, words: list[bytes]) -> Reply:
    """RESET."""
    client.reset()
    return Status(b"RESET")


def select(client: Client, words: list[bytes]) -> Reply:
    """SELECT index."""
    index = integer(words[1])
    if not 0 <= index < DATABASES:
        raise CommandError("ERR DB index is out of range")
    client.select(index)
    return OK


def auth(client: Client, words: list[bytes]) -> Reply:
    """AUTH [username] password."""
    if len(words) > 3:
        raise CommandError(SYNTAX)
    if len(words) == 2 and client.shared.config.resp_password is None:
        raise CommandError(NO_PASSWORD)
    user = words[1] if len(words) == 3 else b"default"
    if not client.login(user, words[-1]):
        raise CommandError(WRONG_PASSWORD)
    return OK


def hello(client: Client, words: list[bytes]) -> Reply:
    """HELLO [version [AUTH username password] [SETNAME name]]."""
    protocol = client.protocol
    if len(words) > 1:
        version = whole_number(words[1])
        if version is None:
            raise CommandError("ERR Protocol version is not an integer or out of range")
        if version not in (RESP2, RESP3):
            raise CommandError("NOPROTO unsupported protocol version")
        protocol = version
    name = _hello_options(client, words[2:])
    if not client.authenticated:
        raise CommandError(LOGIN_FIRST)
    client.protocol = protocol
    if name is not None:
        client.name = name
    return {
        b"server": SERVER_NAME,
        b"version": REDIS_VERSION,
        b"proto": protocol,
        b"id": client.number,
        b"mode": b"standalone",
        b"role": b"master",
        b"modules": [],
    }


def _hello_options(client: Client, words: list[bytes]) -> bytes | None:
    """Log in if asked to; return the name to be set."""
    name = None
    at = 0
    while at < len(words):
        option, rest = words[at].upper(), len(words) - at - 1
        if option == b"AUTH" and rest >= 2:
            if not client.login(words[at + 1], words[at + 2]):
                raise CommandError(WRONG_PASSWORD)
            at += 3
        elif option == b"SETNAME" and rest >= 1:
            name = _checked_name(words[at + 1])
            at += 2
        else:
            shown = words[at].decode(errors="replace")
            raise CommandError(f"ERR Syntax error in HELLO option '{shown}'")
    return name


def _is_plain(text: bytes) -> bool:
    return all(33 <= byte <= 126 for byte in text)


def _checked_name(name: bytes) -> bytes:
    if not _is_plain(name):
        raise CommandError(
            "ERR Client names cannot contain spaces, newlines or special characters."
        )
    return name


# -- CLIENT --------------------------------------------------------------------------------------


def client_id(client: Client, words: list[bytes]) -> Reply:
    """CLIENT ID."""
    return client.number


def client_getname(client: Client, words: list[bytes]) -> Reply:
    """CLIENT GETNAME."""
    return client.name or None


def client_setname(client: Client, words: list[bytes]) -> Reply:
    """CLIENT SETNAME name."""
    client.name = _checked_name(words[2])
    return OK


def client_setinfo(client: Client, words: list[bytes]) -> Reply:
    """CLIENT SETINFO LIB-NAME | LIB-VER value."""
    option = words[2].lower()
    if option not in (b"lib-name", b"lib-ver"):
        raise CommandError(f"ERR Unrecognized option '{words[2].decode(errors='replace')}'")
    if not _is_plain(words[3]):
        raise CommandError(
            f"ERR {option.decode()} cannot contain spaces, newlines or special characters."
        )
    if option == b"lib-name":
        client.library = words[3]
    else:
        client.library_version = words[3]
    return OK


def client_info(client: Client, words: list[bytes]) -> Reply:
    """CLIENT INFO."""
    return Verbatim(_described(client))


def client_list(client: Client, words: list[bytes]) -> Reply:
    """CLIENT LIST [TYPE type] [ID id…]: the clients of this member."""
    chosen = list(client.shared.clients.values())
    match [words[2].upper(), *words[3:]] if len(words) > 2 else []:
        case []:
            pass
        case [b"TYPE", kind] if kind.lower() in (b"normal", b"pubsub", b"master", b"replica"):
            chosen = [other for other in chosen if _kind(other) == kind.lower()]
        case [b"TYPE", kind]:
            raise CommandError(f"ERR Unknown client type '{kind.decode(errors='replace')}'")
        case [b"ID", *numbers] if numbers:
            if None in map(whole_number, numbers):
                raise CommandError("ERR Invalid client ID")
            wanted = dict.fromkeys(map(whole_number, numbers))
            chosen = [other for other in chosen if other.number in wanted]
        case _:
            raise CommandError(SYNTAX)
    return Verbatim(b"".join(map(_described, chosen)))


def client_switch(client: Client, words: list[bytes]) -> Reply:
    """CLIENT NO-EVICT | NO-TOUCH ON | OFF: clients are never evicted, and reads touch nothing."""
    if words[2].lower() not in (b"on", b"off"):
        raise CommandError(SYNTAX)
    return OK


def _kind(client: Client) -> bytes:
    return b"pubsub" if client.is_subscribed else b"normal"


def _described(client: Client) -> bytes:
    now = client.shared.clock.monotonic()
    received, unsent = client.waiting_bytes()
    fields: dict[str, object] = {
        "id": client.number,
        "addr": client.address,
        "laddr": client.shared.address,
        "name": client.name.decode(),
        "age": int(now - client.connected_at),
        "idle": int(now - client.active_at),
        "flags": "P" if client.is_subscribed else "N",
        "db": client.database,
        "sub": len(client.channels),
        "psub": len(client.patterns),
        "multi": -1,
        "qbuf": received,
        "obl": unsent,
        "cmd": client.command,
        "user": "default",
        "resp": client.protocol,
        "lib-name": client.library.decode(),
        "lib-ver": client.library_version.decode(),
    }
    return " ".join(f"{name}={value}" for name, value in fields.items()).encode() + b"\n"


_row = partial(command, group="connection")

_CLIENT: Final = (
    _row("client|getname", 2, client_getname, "2.6.9", "Return the connection's name."),
    _row("client|id", 2, client_id, "5.0.0", "Return the connection's id."),
    _row("client|info", 2, client_info, "6.2.0", "Describe the connection."),
    _row("client|list", -2, client_list, "2.4.0", "Describe this member's connections."),
    _row("client|no-evict", 3, client_switch, "7.0.0", "Accepted; none is ever evicted."),
    _row("client|no-touch", 3, client_switch, "7.2.0", "Accepted; reads touch nothing."),
    _row("client|setinfo", 4, client_setinfo, "7.2.0", "Say which library this is."),
    _row("client|setname", 3, client_setname, "2.6.9", "Name the connection."),
)

COMMANDS: Final = (
    _row("auth", -2, auth, "1.0.0", "Say the password.", "fast", "no_auth"),
    _row("client", -2, None, "2.4.0", "Commands on clients.", subcommands=_CLIENT),
    _row("echo", 2, echo, "1.0.0", "Return a message.", "fast"),
    _row("hello", -1, hello, "6.0.0", "Choose the protocol.", "fast", "no_auth"),
    _row("ping", -1, ping, "1.0.0", "Say that it lives.", "fast", WHILE_SUBSCRIBED),
    _row("quit", -1, quit_, "1.0.0", "End it.", "fast", "no_auth", WHILE_SUBSCRIBED),
    _row("reset", 1, reset, "6.2.0", "Begin anew.", "fast", "no_auth", WHILE_SUBSCRIBED),
    _row("select", 2, select, "1.0.0", "Change the database.", "fast"),
)
