"""What `DistributedMap.find` compares a field with: a value, or one of these. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cache.cluster.structures.index import rank_of
from cache.cluster.wire.messages import ConditionRecord
from cache.codec import encode_value
from cache.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Between:
    """From `low` to `high`, both included."""

    low: Any  # Any: a value of an indexed type, here and below
    high: Any


@dataclass(frozen=True, slots=True)
class AtLeast:
    """`low` or more."""

    low: Any


@dataclass(frozen=True, slots=True)
class MoreThan:
    """More than `low`."""

    low: Any


@dataclass(frozen=True, slots=True)
class AtMost:
    """`high` or less."""

    high: Any


@dataclass(frozen=True, slots=True)
class LessThan:
    """Less than `high`."""

    high: Any


def conditions_of(
    wanted: Mapping[str, Any], indexes: Mapping[str, str], map_name: str
) -> list[ConditionRecord]:
    """Return the conditions of a query on fields that have an index.

    Args:
        wanted: by the name of the index, a value or an interval.
        indexes: the path of each index there is, by name.
        map_name: for errors.

    Raises:
        ConfigError: none is given, there is no such index, or a value is of a type that is not indexed.
    """
    # Any: values and intervals.
    if not wanted:
        raise ConfigError("find: give a condition, as in find(city='Oslo')")
    records = []
    for name, value in wanted.items():
        if name not in indexes:
            there = ", ".join(sorted(indexes)) or "none"
            raise ConfigError(
                f"find({name}=…): map {map_name!r} has no index {name!r}; it has: {there}. "
                f"Make one with add_index({name!r})"
            )
        records.append(_record(name, indexes[name], value))
    return records


def _record(name: str, path: str, value: Any) -> ConditionRecord:  # Any: as above
    match value:
        case Between(low, high):
            kinds = {kind_of(name, low): None, kind_of(name, high): None}
            if len(kinds) != 1:
                raise ConfigError(f"{name}={value!r}: both ends must be of one type")
            return ConditionRecord(path, encode_value(low), encode_value(high), (False, False))
        case AtLeast(low) | MoreThan(low):
            kind_of(name, low)
            return ConditionRecord(
                path, encode_value(low), b"", (isinstance(value, MoreThan), False)
            )
        case AtMost(high) | LessThan(high):
            kind_of(name, high)
            return ConditionRecord(
                path, b"", encode_value(high), (False, isinstance(value, LessThan))
            )
        case _:
            kind_of(name, value)
            return ConditionRecord(path, encode_value(value), encode_value(value), (False, False))


def kind_of(name: str, value: Any) -> int:  # Any: as above
    """Return the number of a value's type.

    Raises:
        ConfigError: it is not indexed.
    """
    rank = rank_of(value)
    if rank is None:
        raise ConfigError(
            f"{name}={value!r:.80}: compare with None, a bool, a number but NaN, text or bytes, or "
            "an interval of them"
        )
    return rank[0]
