"""Operations as text: one line each, in the order of their invocations, with the time they took as a bar.

Columns are events in their order, not seconds: what overlaps and what came first is what matters.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from cache.testing.history import Operation, Outcome

WIDTH: Final = 48
"""Characters of the bars; longer histories have several events in one column."""

LABEL_WIDTH_MAX: Final = 60


def draw(operations: Sequence[Operation], *, blocked: Operation | None = None) -> list[str]:
    """Return the lines of a timeline; `blocked` is marked as the one that no order explains."""
    if not operations:
        return []
    ordered = sorted(operations, key=lambda o: (o.started_at, o.ended_at))
    labels = [_shortened(f"client {o.client}  {o}") for o in ordered]
    width = max(map(len, labels))
    columns = _columns(ordered)
    lines = []
    for label, operation in zip(labels, ordered, strict=True):
        bar = _bar(operation, columns)
        times = f"{operation.started_at:.6g} .. {_end(operation)}"
        mark = "  <-- no order explains this" if operation is blocked else ""
        lines.append(f"{label:<{width}}  {bar}  {times}{mark}")
    return lines


def _columns(operations: Sequence[Operation]) -> dict[tuple[float, bool], int]:
    events = {(o.started_at, False): None for o in operations}
    events |= {(o.ended_at, True): None for o in operations if o.outcome is Outcome.OK}
    scale = min(4.0, WIDTH / len(events))
    return {event: int(rank * scale) for rank, event in enumerate(sorted(events))}


def _bar(operation: Operation, columns: dict[tuple[float, bool], int]) -> str:
    total = max(columns.values()) + 2
    start = columns[operation.started_at, False]
    if operation.outcome is not Outcome.OK:
        return " " * start + "[" + "~" * (total - start - 1) + ">"
    end = max(columns[operation.ended_at, True], start + 1)
    return (" " * start + "[" + "=" * (end - start - 1) + "]").ljust(total + 1)


def _end(operation: Operation) -> str:
    return f"{operation.ended_at:.6g}" if operation.ended_at < math.inf else "?"


def _shortened(label: str) -> str:
    return label if len(label) <= LABEL_WIDTH_MAX else label[: LABEL_WIDTH_MAX - 1] + "…"
