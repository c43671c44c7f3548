"""Replies to bytes: RESP2 for old clients, RESP3 for those that said `HELLO 3`.

A handler returns plain Python: `bytes` are a bulk string, None a null, `int` a number, `list` an array, and
`dict` a map (RESP2: an array of pairs). What Python has no type for is here.

Source: https://redis.io/docs/latest/develop/reference/protocol-spec/.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Status:
    """A simple string; one line of ASCII."""

    text: bytes


@dataclass(frozen=True, slots=True)
class Members:
    """A set in RESP3, an array in RESP2."""

    items: tuple[Reply, ...]


@dataclass(frozen=True, slots=True)
class Verbatim:
    """Text for people; a bulk string in RESP2."""

    text: bytes


@dataclass(frozen=True, slots=True)
class Push:
    """Out of band in RESP3, an array in RESP2."""

    items: tuple[Reply, ...]


@dataclass(frozen=True, slots=True)
class Several:
    """Several replies to one command, as `SUBSCRIBE a b` has them."""

    replies: tuple[Reply, ...]


@dataclass(frozen=True, slots=True)
class Failed:
    """An error: a code in capitals, a blank, and the text."""

    text: str


Reply = (
    bytes
    | int
    | None
    | list["Reply"]
    | dict[bytes, "Reply"]
    | Status
    | Members
    | Verbatim
    | Push
    | Several
    | Failed
)

OK: Final = Status(b"OK")

RESP2: Final = 2
RESP3: Final = 3

_NULL: Final = {RESP2: b"$-1\r\n", RESP3: b"_\r\n"}


class CommandError(Exception):
    """What a command is answered with when nothing was changed; the text has its code first."""


def encode(reply: Reply, protocol: int) -> bytes:
    """Return the bytes of a reply."""
    if type(reply) is bytes:
        return b"$%d\r\n%b\r\n" % (len(reply), reply)
    if reply is None:
        return _NULL[protocol]
    parts: list[bytes] = []
    _append(parts, reply, protocol)
    return b"".join(parts)


def size_bytes(reply: Reply) -> int:
    """Return about how many bytes a reply takes, without making them; None and numbers count as 16."""
    match reply:
        case bytes() | Status(text=bytes()) | Verbatim(text=bytes()):
            return 16 + len(reply if isinstance(reply, bytes) else reply.text)
        case list():
            return 16 + sum(size_bytes(item) for item in reply)
        case _:
            return 16


def _append(parts: list[bytes], reply: Reply, protocol: int) -> None:  # noqa: PLR0912  (one case a type)
    match reply:
        case bytes():
            parts.append(b"$%d\r\n%b\r\n" % (len(reply), reply))
        case None:
            parts.append(_NULL[protocol])
        case int():
            parts.append(b":%d\r\n" % reply)
        case list():
            parts.append(b"*%d\r\n" % len(reply))
            for item in reply:
                _append(parts, item, protocol)
        case dict():
            parts.append(
                b"%%%d\r\n" % len(reply) if protocol == RESP3 else b"*%d\r\n" % (2 * len(reply))
            )
            for key, item in reply.items():
                _append(parts, key, protocol)
                _append(parts, item, protocol)
        case Status(text):
            parts.append(b"+%b\r\n" % text)
        case Members(items) | Push(items):
            mark = b"*" if protocol == RESP2 else b"~" if isinstance(reply, Members) else b">"
            parts.append(b"%b%d\r\n" % (mark, len(items)))
            for item in items:
                _append(parts, item, protocol)
        case Verbatim(text):
            if protocol == RESP3:
                parts.append(b"=%d\r\ntxt:%b\r\n" % (len(text) + 4, text))
            else:
                _append(parts, text, protocol)
        case Several(replies):
            for item in replies:
                _append(parts, item, protocol)
        case Failed(text):
            line = text.replace("\r", " ").replace("\n", " ")
            parts.append(b"-%b\r\n" % line.encode(errors="replace"))
