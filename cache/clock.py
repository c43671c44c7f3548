"""Time as the library sees it: two readings, injected everywhere.

`monotonic()` orders events and measures durations inside one process; `wall()` is used only for version
stamps (hybrid logical clocks) and durable timers, and may jump.
"""

from __future__ import annotations

import time
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

    def monotonic(self) -> float:
        """Return `time.monotonic()`."""
        return time.monotonic()

    def wall(self) -> float:
        """Return `time.time()`."""
        return time.time()
