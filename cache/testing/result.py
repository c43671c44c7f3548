"""What came of one fault schedule."""

from __future__ import annotations

from dataclasses import dataclass, field

from cache.testing.schedule import Schedule


@dataclass(slots=True)
class Result:
    """What came of one schedule."""

    schedule: Schedule
    violations: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)
    trace: str = ""
