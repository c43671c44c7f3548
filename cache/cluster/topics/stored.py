"""How a reliable topic is stored: as a map of its own, all of it in one partition. Pure.

The entries are replicated, moved and merged like those of any map. A message has a key of its own for ever,
so that copies never contradict each other. Beside the messages each owner keeps one entry that says what
made room under it and before.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

import msgpack

from cache.cluster.config.maps import HIDDEN
from cache.cluster.partitions.table import map_seed, partition_of
from cache.cluster.wire.messages import Place

TOPIC_PREFIX: Final = HIDDEN + "topic:"
"""What the names of maps that topics are stored in begin with."""

_MESSAGE: Final = b"m"
_FLOORS: Final = b"f"
_PLACE: Final = struct.Struct(">QIQ")


def map_of(topic: str) -> str:
    """Return the name of the map that a topic is stored in."""
    return TOPIC_PREFIX + topic


def partition_for(topic: str, partition_count: int) -> int:
    """Return the partition of a topic."""
    return partition_of(topic.encode(), map_seed(map_of(topic)), partition_count)


def message_key(place: Place) -> bytes:
    """Return the key of a message."""
    return _MESSAGE + pack_place(place)


def place_of(key: bytes) -> Place | None:
    """Return the place of a message's key, None for other keys."""
    is_message = key[:1] == _MESSAGE and len(key) == 1 + _PLACE.size
    return unpack_place(key[1:]) if is_message else None


def pack_place(place: Place) -> bytes:
    """Return a place as bytes of the same order."""
    return _PLACE.pack(*place)


def unpack_place(packed: bytes) -> Place:
    """Return the place of its bytes."""
    stamp, origin, number = _PLACE.unpack(packed)
    return (stamp, origin, number)


def floors_key(origin: int) -> bytes:
    """Return the key of what made room under one owner."""
    return _FLOORS + origin.to_bytes(4, "big")


def is_floors_key(key: bytes) -> bool:
    """Return whether the key is one of `floors_key`."""
    return key[:1] == _FLOORS


def pack_floors(floors: Sequence[Place]) -> bytes:
    """Return floors as an entry has them."""
    packed: bytes = msgpack.packb(list(floors))
    return packed


def unpack_floors(packed: bytes) -> list[Place]:
    """Return the floors of an entry."""
    return [(stamp, origin, number) for stamp, origin, number in msgpack.unpackb(packed)]
