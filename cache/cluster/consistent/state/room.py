"""`Room`: the bytes that the state of a group may use, and what was changed. Pure."""

from __future__ import annotations

from typing import Final

import msgspec

from cache.cluster.consistent.state.commands import COST, STATE_BYTES_MAX, Kind

_ENCODER: Final = msgspec.msgpack.Encoder()


def topic_of(kind: Kind, name: bytes, key: bytes = b"") -> bytes:
    """Return what names an object, or a key of a map, in held queries."""
    return _ENCODER.encode((int(kind), name, key))


class Room:
    """Counts what is used, and remembers what was changed until somebody asks."""

    def __init__(self, limit: int = STATE_BYTES_MAX) -> None:
        self.used = 0
        self.limit = limit
        self._changed: dict[bytes, None] = {}

    def has(self, size: int) -> bool:
        """Return whether something of `size` bytes fits."""
        return self.used + COST + size <= self.limit

    def take(self, size: int) -> None:
        """Something of `size` bytes was added."""
        self.used += COST + size

    def give(self, size: int) -> None:
        """Something of `size` bytes was removed."""
        self.used -= COST + size

    def changed(self, kind: Kind, name: bytes, key: bytes = b"") -> None:
        """Queries about it have to be asked again."""
        self._changed[topic_of(kind, name, key)] = None

    def take_changed(self) -> list[bytes]:
        """Return what was changed since the last call."""
        changed, self._changed = list(self._changed), {}
        return changed
