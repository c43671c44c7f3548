"""The contract of a pure protocol machine: events and time in, outputs out, no I/O.

A machine never reads a clock, a socket or a global random source. The shell (`driver.py` for timers and
packets) calls it and carries out what it returns, in list order.
"""

from __future__ import annotations

from typing import Protocol, TypeVar

EventT = TypeVar("EventT", contravariant=True)
OutputT = TypeVar("OutputT")


class Machine(Protocol[EventT, OutputT]):
    """A deterministic state machine driven by its shell."""

    def handle(self, event: EventT, now: float) -> None:
        """Apply one event that happened at `now` (seconds of the injected monotonic clock)."""
        ...

    def tick(self, now: float) -> None:
        """Fire every timer that is due at `now`."""
        ...

    def next_deadline(self) -> float | None:
        """Return the instant of the next timer, or None when none is armed."""
        ...

    def take_outputs(self) -> list[OutputT]:
        """Return and forget the outputs produced since the last call, oldest first."""
        ...
