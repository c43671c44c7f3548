"""How late the event loop of a member was of late: measured by itself, told with each of its packets. Pure.

A process that stalls now and then (a long garbage collection, a blocking call, a busy host) does so again.
Its awareness score forgets a stall within seconds, and the others learn of one only by suspecting it. So each
member remembers its longest stall for some minutes, and says so; whoever probes it waits that much longer.
See docs/decisions/0005-lag-is-gossiped.md.
"""

from __future__ import annotations

import math
from typing import Final

from cache.cluster.wire.packets import LAG_TENTHS_MAX

LAG_WINDOW: Final = 150.0
"""Seconds for which a stall is remembered at least; twice that at most. More than a stall a minute needs."""

LAG_INTERVALS_MAX: Final = 5
"""A probe waits at most this many probe intervals longer, whatever lag its target claims."""


class Lag:
    """The longest stall of this member's event loop in the current window and the one before."""

    __slots__ = ("_before", "_current", "_window")

    def __init__(self) -> None:
        self._window = 0
        self._current = self._before = 0.0

    def note(self, seconds: float, now: float) -> None:
        """Take in that the loop was late by so much."""
        self._turn(now)
        self._current = max(self._current, seconds)

    def worst(self, now: float) -> float:
        """Return the seconds of the longest stall that is still remembered, 0 for none."""
        self._turn(now)
        return max(self._current, self._before)

    def _turn(self, now: float) -> None:
        window = int(now // LAG_WINDOW)
        if window != self._window:
            self._before = self._current if window == self._window + 1 else 0.0
            self._current, self._window = 0.0, window


def to_tenths(seconds: float) -> int:
    """Return a lag as packets carry it: tenths of a second, rounded up, cut to what fits one byte."""
    return min(math.ceil(seconds * 10), LAG_TENTHS_MAX)


def from_tenths(tenths: int) -> float:
    """Return the seconds of a lag that a packet carried."""
    return tenths / 10


def patience(lag: float, probe_interval: float) -> float:
    """Return how many seconds longer a member of that lag has for its answer."""
    return min(lag, LAG_INTERVALS_MAX * probe_interval)
