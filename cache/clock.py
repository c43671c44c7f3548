"""Time as the library sees it: two readings, injected everywhere.

`monotonic()` orders events and measures durations inside one process; `wall()` is used only for version
stamps (hybrid logical clocks) and durable timers, and may jump.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol


class Clock(Protocol):
    """Seconds of the injected clock."""

    def monotonic(self) -> float:
        """Return seconds that never go back; the origin is arbitrary."""
        ...

    def wall(self) -> float:
        """Return seconds since the Unix epoch; may jump in either direction."""
        ...


class SystemClock:
    """The clock of the machine this process runs on."""

    monotonic = staticmethod(time.monotonic)
    wall = staticmethod(time.time)


class FrozenClock:
    """A clock that stands still until it is moved, for tests of what depends on time.

    `LocalCache(clock=FrozenClock())` sees a move at once.
    """

    def __init__(self, wall: float = 1_700_000_000.0) -> None:
        self._elapsed = 0.0
        self._wall = wall
        self._listeners: list[Callable[[], None]] = []

    def monotonic(self) -> float:
        """Return the seconds that the clock was moved on by."""
        return self._elapsed

    def wall(self) -> float:
        """Return the wall clock's start and the seconds that it was moved on by."""
        return self._wall + self._elapsed

    def advance(self, seconds: float) -> None:
        """Move on.

        Raises:
            ValueError: `seconds` is negative; time does not go back.
        """
        if seconds < 0:
            raise ValueError(f"seconds={seconds}: a monotonic clock does not go back")
        self._elapsed += seconds
        for listener in self._listeners:
            listener()

    def on_advance(self, listener: Callable[[], None]) -> None:
        """Call `listener` after every move."""
        self._listeners.append(listener)
