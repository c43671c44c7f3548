"""Checks of a history against the promises. They know what was asked and answered, nothing of how it is done.

Each returns the violations it found as sentences; an empty list is what a correct cluster gives.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from cache.testing.history import DELETE, History, Operation, Outcome, Span

STAMP_RESOLUTION: Final = 0.002
"""Seconds within which two writes on two sides of a split are not ordered by their stamps."""

TTL_BOUND: Final = 0.5
"""Seconds by which an expiry may be off: the way of a copy to another member and the way of the answer."""

Violations = list[str]


def check_history(history: History) -> Violations:
    """Run every check."""
    return [
        *check_reads(history),
        *check_expiry(history),
        *check_counters(history),
        *check_ownership(history),
    ]


def check_reads(history: History) -> Violations:
    """Every read gives the latest acknowledged write or a later one, and never a rejected value.

    With w1, w2, … the writes of a key in order and `base` the last one acknowledged before the read began:
    the read may give `base`, a write after it that began before the read ended, or a write that ended
    unknown (which may take effect late). While members were divided each side has its own latest write.
    """
    by_key = _writes_by_key(history, with_ttl=False)
    by_key = {key: _effective(history, written) for key, written in by_key.items()}
    violations: Violations = []
    for read in history.reads:
        writes = by_key.get(read.key)
        if writes is not None:
            violations += _check_read(history, read, writes)
    return violations


def _effective(history: History, writes: Sequence[Operation]) -> list[Operation]:
    """Leave out deletes that found nothing.

    While members are divided, or just come together, a first attempt may have deleted on one side and the
    retry found nothing on the other: then it may have had an effect.
    """
    effective = []
    for write in writes:
        if not (write.name == DELETE and write.result is False):
            effective.append(write)
        elif any(span.overlaps(write.started_at, write.ended_at) for span in history.divided):
            effective.append(replace(write, outcome=Outcome.UNKNOWN))
    return effective


def _check_read(history: History, read: Operation, writes: Sequence[Operation]) -> Violations:
    rejected = [w for w in writes if w.argument == read.result and w.outcome is Outcome.FAIL]
    if read.result is not None and rejected:
        return [f"{_name(read)}: that write was rejected at {rejected[0].ended_at:.3f}"]
    if read.result is not None and not any(w.argument == read.result for w in writes):
        return [f"{_name(read)}: nobody wrote that"]
    acknowledged = [
        index
        for index, write in enumerate(writes)
        if write.outcome is Outcome.OK and write.ended_at < read.started_at
    ]
    base = acknowledged[-1] if acknowledged else -1
    allowed = _later(writes, base, read)
    allowed += [w.argument for w in writes[: base + 1] if w.outcome is Outcome.UNKNOWN]
    if base < 0 or _wiped(history, read, writes[base]):
        allowed.append(None)
        if base >= 0:
            allowed += [write.argument for write in writes[: base + 1]]
    else:
        allowed.append(writes[base].argument)
    allowed += _other_sides(history, read, writes, base)
    if read.result in allowed:
        return []
    latest = f"{writes[base].argument} acknowledged at {writes[base].ended_at:.3f}"
    return [f"{_name(read)}: instead of {latest} or later ({sorted(map(str, allowed))})"]


def _later(writes: Sequence[Operation], base: int, read: Operation) -> list[int | None]:
    return [
        write.argument
        for write in writes[base + 1 :]
        if write.outcome is not Outcome.FAIL and write.started_at <= read.ended_at
    ]


def _wiped(history: History, read: Operation, base: Operation) -> bool:
    return any(
        read.key in wipe.keys and base.started_at <= wipe.at <= read.ended_at
        for wipe in history.wipes
    )


def _other_sides(
    history: History, read: Operation, writes: Sequence[Operation], base: int
) -> list[int | None]:
    """Values that the other side of a split may show, or leave behind if wall clocks disagree."""
    values: list[int | None] = []
    for span in history.divided:
        if span.overlaps(read.started_at, read.ended_at):
            values += [w.argument for w in writes if w.outcome is not Outcome.FAIL]
            values.append(None)
        elif base >= 0 and _within(span, writes[base]):
            # Both sides took a write in one tick of the stamps' clock: either may be the later one.
            latest = writes[base].started_at - STAMP_RESOLUTION
            values += [
                w.argument for w in writes[:base] if _within(span, w) and w.ended_at >= latest
            ]
        if history.clocks_disagree and base >= 0 and _within(span, writes[base]):
            values += [w.argument for w in writes[:base] if _within(span, w)]
            values += _before(span, writes)
    return values


def _within(span: Span, write: Operation) -> bool:
    return write.outcome is not Outcome.FAIL and span.overlaps(write.started_at, write.ended_at)


def _before(span: Span, writes: Sequence[Operation]) -> list[int | None]:
    earlier = [w.argument for w in writes if w.ended_at < span.start]
    return earlier[-1:]


def check_expiry(history: History) -> Violations:
    """A key with a time to live is there until then, and not longer, each within `TTL_BOUND`."""
    by_key = _writes_by_key(history, with_ttl=True)
    violations: Violations = []
    for read in history.reads:
        for write in by_key.get(read.key, ()):
            violations += _check_expiry(history, read, write)
    return violations


def _check_expiry(history: History, read: Operation, write: Operation) -> Violations:
    assert write.ttl is not None, "only writes with a time to live"
    if read.result is not None:
        latest = write.ended_at + write.ttl + TTL_BOUND
        if write.outcome is Outcome.OK and read.started_at > latest:
            return [f"{_name(read)}: it should have expired by {latest:.3f}"]
        return []
    earliest = write.started_at + write.ttl - TTL_BOUND
    known = write.outcome is Outcome.OK and write.ended_at < read.started_at
    excused = _wiped(history, read, write) or any(
        span.overlaps(write.started_at, read.ended_at) for span in history.divided
    )
    if known and read.ended_at < earliest and not excused:
        return [f"{_name(read)}: it should live until {earliest:.3f}"]
    return []


def check_counters(history: History) -> Violations:
    """A counter ends at its acknowledged increments plus some of the unknown ones; results never repeat.

    Not checked after a split or a loss: a counter on each side cannot be merged by "last writer wins".
    """
    if history.divided or history.wipes:
        return []
    violations: Violations = []
    for key, final in sorted(history.final_counters.items()):
        mine = [increment for increment in history.increments if increment.key == key]
        certain = sum(increment.outcome is Outcome.OK for increment in mine)
        unknown = sum(increment.outcome is Outcome.UNKNOWN for increment in mine)
        if not certain <= final <= certain + unknown:
            violations.append(
                f"{key} ends at {final}: {certain} were acknowledged, {unknown} unknown"
            )
        results = [increment.result for increment in mine if increment.result is not None]
        repeated = sorted({result for result in results if results.count(result) > 1})
        if repeated:
            violations.append(f"{key} gave the results {repeated} more than once")
    return violations


def check_ownership(history: History) -> Violations:
    """No epoch of a partition has two owners."""
    return [
        f"partition {partition} has the owners {sorted(owners)} in epoch {epoch}"
        for (partition, epoch), owners in sorted(history.ownership.items())
        if len(owners) > 1
    ]


def check_digests(digests: Iterable[dict[int, tuple[int, int]]]) -> Violations:
    """All copies of a partition have the same number of entries and the same digest."""
    seen: dict[int, dict[tuple[int, int], None]] = {}
    for copies in digests:
        for partition, digest in copies.items():
            seen.setdefault(partition, {})[digest] = None
    return [
        f"copies of partition {partition} differ: {sorted(variants)}"
        for partition, variants in sorted(seen.items())
        if len(variants) > 1
    ]


def _writes_by_key(history: History, *, with_ttl: bool) -> dict[str, list[Operation]]:
    by_key: dict[str, list[Operation]] = {}
    for write in history.writes:
        if (write.ttl is not None) == with_ttl:
            by_key.setdefault(write.key, []).append(write)
    return by_key


def _name(read: Operation) -> str:
    return f"{read.key} reads {read.result} through member {read.member} at {read.started_at:.3f}"
