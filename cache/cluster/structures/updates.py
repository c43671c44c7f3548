"""Writes whose effect depends on what is there: decided on the key's owner, in one turn."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, cast

from cache.cluster.structures.access import MapAccess
from cache.cluster.structures.builtin import (
    ADD_FLOAT,
    ALWAYS,
    EXCHANGE,
    IF_ABSENT,
    IF_EQUAL,
    IF_PRESENT,
    IF_VERSION,
    SET,
)
from cache.cluster.structures.raised import unpack_error
from cache.cluster.wire.messages import Execute, Raised, Value
from cache.codec import decode_value, encode_value
from cache.durations import Default
from cache.errors import ConfigError, ProcessorError
from cache.keys import Key, Ttl

Condition = tuple[str, Any]
"""(one of the `IF_…` constants, what it compares with)."""
# Any: a version or encoded value

UNCONDITIONAL: Final[Condition] = (ALWAYS, None)


class Updates:
    """Runs functions on the owners of keys of one map."""

    def __init__(self, access: MapAccess) -> None:
        self._access = access

    async def execute(
        self, key: Key, function: str, arguments: Sequence[Any], ttl: float
    ) -> Any:  # Any: MessagePack values
        """Run a function on a key; return its result."""
        access = self._access
        encoded, partition = access.locate(key)
        request = Execute(
            access.name,
            partition,
            encoded,
            access.operation_ids.next(),
            function,
            encode_value(list(arguments)),
            ttl,
        )
        reply = await access.router.write(partition, request)
        if isinstance(reply, Raised):
            raise unpack_error(reply.error, ProcessorError, f"processor {function!r}")
        assert isinstance(reply, Value)
        assert reply.value is not None, "a function always has a result"
        return decode_value(reply.value)

    async def set(
        self, key: Key, raw: bytes, condition: Condition, seconds: float, *, keep_ttl: bool
    ) -> bool:
        """Store an encoded value if a condition holds; return whether it did."""
        arguments = (raw, *condition, keep_ttl)
        return cast(bool, await self.execute(key, SET, arguments, seconds))

    async def exchange(
        self, key: Key, raw: bytes, seconds: float, *, keep_ttl: bool
    ) -> bytes | None:
        """Store an encoded value; return the one before."""
        return cast("bytes | None", await self.execute(key, EXCHANGE, (raw, keep_ttl), seconds))

    async def add_float(self, key: Key, delta: float, initial: float, seconds: float) -> float:
        """Add to a number; return the sum."""
        return cast(float, await self.execute(key, ADD_FLOAT, (delta, initial), seconds))

    def lifetime(self, ttl: Ttl, expire_at: float | datetime | None, *, keep_ttl: bool) -> float:
        """Return the seconds to live that these options of a write mean.

        Raises:
            ConfigError: more than one of them is given, or `expire_at` is no instant.
        """
        _at_most_one(
            ttl=not isinstance(ttl, Default), expire_at=expire_at is not None, keep_ttl=keep_ttl
        )
        if expire_at is None:
            return self._access.seconds(ttl)
        if isinstance(expire_at, datetime):
            if expire_at.tzinfo is None:
                raise ConfigError(f"expire_at={expire_at!r}: needs a time zone")
            expire_at = expire_at.timestamp()
        return max(0.0, expire_at - self._access.router.clock.wall())


def condition_of(*, if_absent: bool, if_present: bool, if_version: str | None) -> Condition:
    """Return the condition that these options of a write mean.

    Raises:
        ConfigError: more than one of them is given, or `if_version` is no version.
    """
    _at_most_one(if_absent=if_absent, if_present=if_present, if_version=if_version is not None)
    if if_version is not None:
        return (IF_VERSION, list(parse_version(if_version)))
    if if_absent:
        return (IF_ABSENT, None)
    return (IF_PRESENT, None) if if_present else UNCONDITIONAL


def _at_most_one(**options: bool) -> None:
    """Raise `ConfigError` if more than one of these options is given."""
    given = [name for name, is_given in options.items() if is_given]
    if len(given) > 1:
        raise ConfigError(f"{' and '.join(given)}: give one of them")


def if_equal(expected: bytes) -> Condition:
    """Return the condition that the key holds this encoded value."""
    return (IF_EQUAL, expected)


def format_version(hlc: int, origin: int) -> str:
    """Return a version as `CacheEntry.version` has it."""
    return f"{hlc:x}-{origin:x}"


def parse_version(text: str) -> tuple[int, int]:
    """Return the version of its text.

    Raises:
        ConfigError: it is none.
    """
    try:
        hlc, origin = text.split("-")
        return int(hlc, 16), int(origin, 16)
    except (ValueError, AttributeError) as error:
        raise ConfigError(
            f"if_version={text!r}: give the `version` of what get_entry returned"
        ) from error
