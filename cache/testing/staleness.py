"""What a near cache promises, checked from the outside: who wrote what when, and who read what when.

Versions of a key are 1, 2, 3 …, written one after the other by one client; a version is the value itself, or
a delete. A write of unknown fate is the last one of its key, so that the order of effects is known.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Write:
    """One version of a key."""

    key: str
    version: int
    is_delete: bool
    node: int
    started_at: float
    acknowledged_at: float = math.inf
    """`math.inf` while it is not, and for ever if nobody knows."""
    is_rejected: bool = False
    ttl: float = math.inf


@dataclass(frozen=True, slots=True)
class Read:
    """One answer."""

    key: str
    value: int | None
    node: int
    started_at: float
    ended_at: float
    bound: float
    """Seconds by which it may be behind the owner."""


@dataclass(slots=True)
class Record:
    """Everything of one run."""

    writes: dict[str, list[Write]] = field(default_factory=dict)
    """By key, in the order of versions."""
    reads: list[Read] = field(default_factory=list)
    failed: int = 0
    """Reads without an answer."""


def check(record: Record, *, expiry_slack: float) -> list[str]:
    """Return every read that breaks a promise.

    Args:
        record: of one run.
        expiry_slack: seconds by which an owner itself may let a key live too long (a time to live is
            counted anew on its way to a copy that is promoted later).
    """
    violations: list[str] = []
    for read in record.reads:
        writes = record.writes.get(read.key, [])
        latest = _latest_possible(read, writes)
        if latest is None:
            violations.append(f"{_name(read)}: nobody wrote that")
            continue
        violations += _check_bound(read, writes, latest)
        violations += _check_own_writes(read, writes, latest)
        violations += _check_expiry(read, writes, expiry_slack)
    return violations + _check_order(record)


def _latest_possible(read: Read, writes: Iterable[Write]) -> int | None:
    """Return the latest version that the read may have seen: 0 is "never written"."""
    begun = [w for w in writes if w.started_at <= read.ended_at and not w.is_rejected]
    if read.value is None:
        expiring = [w.version for w in begun if w.ttl < math.inf]
        return max([0, *expiring, *(w.version for w in begun if w.is_delete)])
    seen = [w.version for w in begun if w.version == read.value and not w.is_delete]
    return seen[0] if seen else None


def _check_bound(read: Read, writes: Iterable[Write], latest: int) -> list[str]:
    known = [w for w in writes if w.acknowledged_at < read.started_at - read.bound]
    newer = [w for w in known if w.version > latest]
    if not newer:
        return []
    age = read.started_at - newer[0].acknowledged_at
    return [f"{_name(read)}: older than {read.bound} s, overwritten {age:.4f} s before"]


def _check_own_writes(read: Read, writes: Iterable[Write], latest: int) -> list[str]:
    own = [w for w in writes if w.node == read.node and w.acknowledged_at <= read.started_at]
    newer = [w.version for w in own if w.version > latest]
    return [f"{_name(read)}: this node itself wrote {newer[-1]} before"] if newer else []


def _check_expiry(read: Read, writes: Iterable[Write], slack: float) -> list[str]:
    for write in writes:
        if write.version == read.value and write.ttl < math.inf:
            end = write.acknowledged_at + write.ttl + slack + read.bound
            if read.started_at > end:
                return [f"{_name(read)}: it should have expired by {end:.3f}"]
    return []


def _check_order(record: Record) -> list[str]:
    """Reads of one key through one node, one after the other, never go back.

    A value may be read before its write is acknowledged, and die with its owner: such a value counts from its
    acknowledgement on.
    """
    violations: list[str] = []
    seen: dict[tuple[int, str], list[Read]] = {}
    for read in sorted(record.reads, key=lambda read: read.ended_at):
        earlier = seen.setdefault((read.node, read.key), [])
        writes = record.writes.get(read.key, [])
        latest = _latest_possible(read, writes)
        sure = {write.version: None for write in writes if write.acknowledged_at <= read.started_at}
        before = [r.value for r in earlier if r.value in sure and r.ended_at < read.started_at]
        if latest is not None and before and max(before) > latest:
            violations.append(f"{_name(read)}: {max(before)} was read through this node before")
        earlier.append(read)
    return violations


def _name(read: Read) -> str:
    return f"{read.key} reads {read.value} on member {read.node} at {read.started_at:.4f}"
