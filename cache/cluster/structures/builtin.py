"""The library's own entry processors: conditional writes, exchange, sums of fractions. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from cache.cluster.structures.processors import MutableEntry, Processor
from cache.codec import decode_value, untagged
from cache.errors import CodecError, ConfigError, RemoteProtocolError, WrongTypeError

SET: Final = "cache.set"
EXCHANGE: Final = "cache.exchange"
ADD_FLOAT: Final = "cache.add_float"
ADD_INDEX: Final = "cache.add_index"
REMOVE_INDEX: Final = "cache.remove_index"

INDEXES_MAX: Final = 16
"""Indexes of one map."""

IF_ABSENT: Final = "absent"
IF_PRESENT: Final = "present"
IF_VERSION: Final = "version"
IF_EQUAL: Final = "equal"
ALWAYS: Final = "always"


def set_if(
    entry: MutableEntry, raw: bytes, condition: str, expected: Any, keep_ttl: bool
) -> bool:  # Any: what the condition compares with
    """Store an encoded value if a condition holds; return whether it did."""
    if not _holds(entry, condition, expected):
        return False
    ends_at = entry.kept_ends_at if keep_ttl else entry.default_ends_at
    entry.set_raw(raw, ends_at, keep_tags=False)
    return True


def _holds(entry: MutableEntry, condition: str, expected: Any) -> bool:  # Any: as above
    if condition == ALWAYS:
        return True
    if condition == IF_ABSENT:
        return not entry.exists
    if condition == IF_PRESENT:
        return entry.exists
    if condition == IF_VERSION:
        return entry.version is not None and list(entry.version) == expected
    if condition == IF_EQUAL:
        return entry.raw is not None and is_same(entry.raw, expected)
    raise RemoteProtocolError(f"unknown condition {condition!r}")


def exchange(entry: MutableEntry, raw: bytes, keep_ttl: bool) -> bytes | None:
    """Store an encoded value; return the one before, None if the key was absent."""
    before = entry.raw
    set_if(entry, raw, ALWAYS, None, keep_ttl)
    return before


def add_float(entry: MutableEntry, delta: float, initial: float) -> float:
    """Add to a number; return the sum. The time to live stays.

    Raises:
        WrongTypeError: the key holds something else, or the sum is not finite.
    """
    start = entry.value if entry.exists else initial
    if isinstance(start, bool) or not isinstance(start, (int, float)):
        raise WrongTypeError(f"incr needs a number, the key holds {type(start).__name__}")
    total = float(start) + delta
    if not math.isfinite(total):
        raise WrongTypeError("incr would leave the range of finite numbers; nothing was changed")
    entry.set(total)
    return total


def add_index(entry: MutableEntry, name: str, path: str) -> None:
    """Add an index to those of a map, which is the key; one that is there stays.

    Raises:
        ConfigError: one of that name has another path, or there are too many.
    """
    indexes = entry.value or {}
    if indexes.setdefault(name, path) != path:
        raise ConfigError(
            f"index {name!r} of map {entry.key!r} is on {indexes[name]!r}: give another name"
        )
    if len(indexes) > INDEXES_MAX:
        raise ConfigError(f"map {entry.key!r} has {INDEXES_MAX} indexes: remove one first")
    if indexes != entry.value:
        entry.set(indexes)


def remove_index(entry: MutableEntry, name: str) -> bool:
    """Take an index from those of a map, which is the key; return whether it was there."""
    indexes = entry.value or {}
    if name not in indexes:
        return False
    del indexes[name]
    entry.set(indexes)
    return True


def is_same(raw: bytes, expected: bytes) -> bool:
    """Return whether two encoded values are the same, types and all; the order of a dict does not count."""
    if raw == untagged(expected):
        return True
    try:
        return _is_same(decode_value(raw), decode_value(expected))
    except CodecError:
        return False  # Of a serializer that the owner does not know: the bytes decide.


def _is_same(one: object, other: object) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, dict) and isinstance(other, dict):
        return len(one) == len(other) and all(
            key in other and _is_same(value, other[key]) for key, value in one.items()
        )
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_is_same, one, other))
    return one == other


BUILTIN: Final[Mapping[str, Processor]] = MappingProxyType(
    {
        SET: set_if,
        EXCHANGE: exchange,
        ADD_FLOAT: add_float,
        ADD_INDEX: add_index,
        REMOVE_INDEX: remove_index,
    }
)
