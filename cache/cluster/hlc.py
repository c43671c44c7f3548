"""Hybrid logical clock: version stamps that follow wall time and never go back. Pure.

A stamp is 48 bits of wall-clock milliseconds and 16 bits of a counter. It is later than every stamp given or
observed before, also when the wall clock is set back.

Source: Kulkarni, Demirbas et al., Logical Physical Clocks, OPODIS 2014.
"""

from __future__ import annotations

from typing import Final

from xxhash import xxh32_intdigest

COUNTER_BITS: Final = 16
DRIFT_MAX: Final = 86_400.0
"""Seconds a stamp may be ahead of the wall clock before it is not believed."""


def wall_of(stamp: int) -> float:
    """Return the wall clock, in seconds, that a stamp was given at, or a little later."""
    return (stamp >> COUNTER_BITS) / 1000


def origin_hash(member: str) -> int:
    """Return the 32-bit number that breaks ties between equal stamps."""
    return xxh32_intdigest(member.encode())


class HybridClock:
    """Gives stamps that only rise."""

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last = 0

    def stamp(self, wall: float) -> int:
        """Return a stamp later than all before; `wall` is the wall clock in seconds."""
        physical = int(wall * 1000) << COUNTER_BITS
        self._last = max(self._last + 1, physical)
        return self._last

    def observe(self, hlc: int, wall: float) -> bool:
        """Take note of a stamp from elsewhere; return False (and ignore it) when it is absurd."""
        limit = int((wall + DRIFT_MAX) * 1000) << COUNTER_BITS
        if not 0 <= hlc <= max(limit, self._last):
            return False
        self._last = max(self._last, hlc)
        return True
