"""Large values beside their message: neither encoded with it nor copied, they travel in frames before it.

A message of which values were detached holds empty bytes in their places. A value is known by its index: in
the column of values that the message has, or 0 for the one value it has. Which field that is, per type of
message, stands here; what is not listed carries no large values, and is encoded whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, TypeVar

import msgspec

from cache.cluster.wire import messages
from cache.cluster.wire.frames import HEADER_BYTES
from cache.cluster.wire.messages import EntryRecord
from cache.errors import RemoteProtocolError

DETACHED_BYTES: Final = 64 * 1024
"""A value of so many bytes is detached. Smaller ones cost less to copy than to send by themselves."""

DETACHED_BYTES_MIN: Final = 1024
"""A smaller one is refused from a peer, so that their number is bounded by their bytes."""

Detached = Sequence[tuple[int, bytes]]
"""(index, value) of each value that was detached."""

M = TypeVar("M", bound=msgspec.Struct)

_FIELDS: Final[Mapping[type, str]] = MappingProxyType(
    {
        messages.Value: "value",
        messages.Found: "value",
        messages.NearValue: "value",
        messages.LoadTurn: "value",
        messages.Set: "value",
        messages.Modify: "value",
        messages.EndLoad: "value",
        messages.Many: "values",
        messages.SetMany: "values",
        messages.EntriesPage: "values",
        messages.Pipelined: "requests",
        messages.PipelineReplies: "replies",
        messages.Replicate: "entries",
        messages.ReplicateEach: "values",
        messages.CopyEntries: "values",
        messages.Replicated: "newer",
        messages.Entries: "entries",
        messages.Offer: "entries",
    }
)
"""The field of each type of message that may carry large values: one value, or a column."""


def detach(message: M) -> tuple[M, Detached]:
    """Return a message without its large values, and those; the message itself when it has none."""
    field = _FIELDS.get(type(message))
    if field is None:
        return message, ()
    held = getattr(message, field)
    column: list[Any] = held if type(held) is list else [held]  # Any: bytes, None or records
    values = [one.value for one in column] if _is_records(column) else column
    if max(map(len, filter(None, values)), default=0) < DETACHED_BYTES:
        return message, ()
    rest, detached = list(column), []
    for index, value in enumerate(values):
        if is_large(value):
            rest[index] = _put(column[index], b"")
            detached.append((index, value))
    return _with(message, field, rest), detached


def is_large(value: bytes | None) -> bool:
    """Return whether a value is to be detached."""
    return value is not None and len(value) >= DETACHED_BYTES


def attach(message: M, detached: Detached) -> M:
    """Return a message with its values in their places.

    Raises:
        RemoteProtocolError: it has no such place, or something is there already.
    """
    field = _FIELDS.get(type(message))
    if field is None:
        raise RemoteProtocolError(f"{type(message).__name__} with a detached value")
    held = getattr(message, field)
    column: list[Any] = list(held) if type(held) is list else [held]  # Any: as above
    for index, value in detached:
        if index >= len(column) or _value(column[index]) != b"":
            raise RemoteProtocolError(f"{type(message).__name__} has no room for value {index}")
        column[index] = _put(column[index], value)
    return _with(message, field, column)


def bytes_of(detached: Detached) -> int:
    """Return the bytes that detached values take on the wire."""
    return sum(HEADER_BYTES + len(value) for _, value in detached)


def _is_records(column: list[Any]) -> bool:  # Any: as above
    return bool(column) and type(column[0]) is EntryRecord


def _value(one: bytes | EntryRecord | None) -> bytes | None:
    return one.value if isinstance(one, EntryRecord) else one


def _put(one: bytes | EntryRecord | None, value: bytes) -> bytes | EntryRecord:
    return msgspec.structs.replace(one, value=value) if isinstance(one, EntryRecord) else value


def _with(message: M, field: str, column: list[Any]) -> M:  # Any: as above
    held = column if type(getattr(message, field)) is list else column[0]
    return msgspec.structs.replace(message, **{field: held})
