"""What each operation does to one key: pure functions from the entry held to the entry to store.

They run on the owner without an await between reading and writing, which is all the atomicity a
read-modify-write needs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from cache.cluster.hlc import loaded_above
from cache.cluster.replication.entries import Entry
from cache.cluster.replication.replica import PartitionReplica
from cache.cluster.wire.messages import (
    ENDLESS,
    MODIFY_ADD,
    MODIFY_DELETE,
    MODIFY_INCREMENT,
    MODIFY_PERSIST,
    MODIFY_POP,
    MODIFY_REPLACE,
    MODIFY_TOUCH,
    NEVER,
    Modify,
)
from cache.codec import decode_value, encode_value, with_tags_of
from cache.durations import Default, parse_ttl
from cache.errors import RemoteProtocolError
from cache.keys import Ttl, add_whole

APPLIED: Final = b"\x01"
"""Result of an operation that answers yes; None answers no."""

Outcome = tuple[Entry | None, bytes | None]
"""(entry to store or None for no change, result)."""


class Stamper:
    """Makes entries: knows the time, the member and how long deletes are remembered."""

    __slots__ = ("_origin", "_stamp", "_tombstone_lifetime", "default_ttl", "now")

    def __init__(
        self,
        now: float,
        stamp: Callable[[], int],
        origin: int,
        tombstone_lifetime: float,
        default_ttl: float = math.inf,
    ) -> None:
        self.now = now
        self.default_ttl = default_ttl
        """Seconds to live of a write that names none."""
        self._stamp = stamp
        self._origin = origin
        self._tombstone_lifetime = tombstone_lifetime

    def live(self, value: bytes, expires_at: float) -> Entry:
        """Return a new version of a key with this value."""
        return Entry(value, self._stamp(), self._origin, expires_at)

    def loaded(self, value: bytes, ttl: float, held: Entry | None) -> Entry:
        """Return the version of a key with what its store has, in place of `held`: no write yields to it."""
        version = None if held is None else held.version
        hlc, origin = loaded_above(version, self._stamp(), self._origin)
        return Entry(value, hlc, origin, self.expires_at(ttl))

    def tombstone(self) -> Entry:
        """Return a new version of a key that says: deleted."""
        return Entry(None, self._stamp(), self._origin, self.now + self._tombstone_lifetime)

    def expires_at(self, ttl: float) -> float:
        """Return the instant at which a time to live of `ttl` seconds ends."""
        seconds = self.default_ttl if ttl == NEVER else ttl
        # One number for all that never ends: an entry keeps it alive.
        return math.inf if seconds == math.inf else self.now + seconds


def modify(message: Modify, replica: PartitionReplica, stamper: Stamper) -> Outcome:
    """Decide what `message` does to its key.

    Raises:
        WrongTypeError: increment of something that is not a whole number, or beyond 64 bits.
        RemoteProtocolError: unknown operation.
    """
    held = replica.get(message.map, message.key, stamper.now)
    match message.name:
        case n if n == MODIFY_ADD:
            return (None, None) if held is not None else (_new(message, stamper), APPLIED)
        case n if n == MODIFY_REPLACE:
            return (None, None) if held is None else (_new(message, stamper), APPLIED)
        case n if n == MODIFY_DELETE:
            return (None, None) if held is None else (stamper.tombstone(), APPLIED)
        case n if n == MODIFY_POP:
            return (None, None) if held is None else (stamper.tombstone(), held)
        case n if n in (MODIFY_TOUCH, MODIFY_PERSIST):
            ttl = ENDLESS if message.name == MODIFY_PERSIST else message.ttl
            if held is None:
                return None, None
            return stamper.live(held, stamper.expires_at(ttl)), APPLIED
        case n if n == MODIFY_INCREMENT:
            return _increment(message, held, replica, stamper)
        case _:
            raise RemoteProtocolError(f"unknown operation {message.name}")


def _new(message: Modify, stamper: Stamper) -> Entry:
    return stamper.live(message.value, stamper.expires_at(message.ttl))


def _increment(
    message: Modify, held: bytes | None, replica: PartitionReplica, stamper: Stamper
) -> Outcome:
    """Add to a counter; its time to live is set when it is made and then kept."""
    if held is None:
        start, expires_at = decode_value(message.value), stamper.expires_at(message.ttl)
    else:
        entry = replica.entry(message.map, message.key)
        assert entry is not None, "a live value has an entry"
        start, expires_at = decode_value(held), entry.expires_at
    value = encode_value(add_whole(start, message.number))
    stored = value if held is None else with_tags_of(held, value)
    return stamper.live(stored, expires_at), value


def wire_ttl(ttl: Ttl, default: float) -> float:
    """Return a time to live as the wire has it, `default` for that of the handle.

    Raises:
        ValueError: not above zero, not finite, or not understood.
    """
    if isinstance(ttl, Default):
        return default
    seconds = parse_ttl(ttl)
    return ENDLESS if seconds is None else seconds


def pack_result(result: bytes | None) -> bytes:
    """Return the result of an operation as it is remembered."""
    return b"" if result is None else b"\x00" + result


def unpack_result(packed: bytes) -> bytes | None:
    """Return the result of an operation that is remembered."""
    return packed[1:] if packed else None
