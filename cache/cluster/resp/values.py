"""Keys and values of Redis clients, and of Python programs that use the same map.

A client's key is text where it is valid UTF-8, and bytes where it is not: `GET user:1` is
`map.get("user:1")`. What clients store are bytes. What Python stored is shown as its text: `str`, `int` and
`float`; for anything else there is no Redis type that is served here.
"""

from __future__ import annotations

from typing import Final

from cache.cluster.resp.replies import CommandError

WRONG_TYPE: Final = "WRONGTYPE Operation against a key holding the wrong kind of value"
STRING: Final = b"string"
OBJECT: Final = b"object"
NO_TYPE: Final = b"none"


def to_key(raw: bytes) -> str | bytes:
    """Return the map's key of a client's key."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


def from_key(key: str | bytes | int) -> bytes | None:
    """Return the client's key of a map's key; None if no client can name it."""
    if isinstance(key, str):
        return key.encode()
    if isinstance(key, bytes) and to_key(key) is key:
        return key
    return None


def as_text(value: object) -> bytes | None:
    """Return a value as clients see it; None if it is of no type they know."""
    match value:
        case bytes():
            return value
        case str():
            return value.encode()
        case bool() | None:
            return None
        case int() | float():
            return str(value).encode()
        case _:
            return None


def text_of(value: object) -> bytes:
    """Return a value as clients see it.

    Raises:
        CommandError: it is of no type they know.
    """
    text = as_text(value)
    if text is None:
        raise CommandError(WRONG_TYPE)
    return text


def type_of(value: object) -> bytes:
    """Return the answer of `TYPE` for a value that is there."""
    return OBJECT if as_text(value) is None else STRING
