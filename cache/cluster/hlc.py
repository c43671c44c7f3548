"""Hybrid logical clock: version stamps that follow wall time and never go back. Pure.

A stamp is 48 bits of wall-clock milliseconds and 16 bits of a counter. It is later than every stamp given or
observed before, also when the wall clock is set back.

The version of a write is its stamp and the 32 bits of its member. What a store was asked for is no write: it
has the stamp of what it was loaded in place of (0 for nothing), and an origin from `LOADED` on:

    1 | 42 bits of milliseconds: when it was loaded | 20 bits of a hash: by whom

So it comes after what it replaces and after earlier loads, and before every later write, wherever that was
made and however long before the load: one that the loader's side of a split does not know of, included.

Source: Kulkarni, Demirbas et al., Logical Physical Clocks, OPODIS 2014.
"""

from __future__ import annotations

from typing import Final

from xxhash import xxh32_intdigest

COUNTER_BITS: Final = 16
DRIFT_MAX: Final = 86_400.0
"""Seconds a stamp may be ahead of the wall clock before it is not believed."""

LOADED: Final = 1 << 62
"""Origins from here on are those of loads. Below 2^63, because digests double them."""

_LOADER_BITS: Final = 20
_LOADED_AT_MAX: Final = (1 << 42) - 1


def wall_of(stamp: int) -> float:
    """Return the wall clock, in seconds, that a stamp was given at, or a little later."""
    return (stamp >> COUNTER_BITS) / 1000


def made_at(hlc: int, origin: int) -> float:
    """Return the wall clock, in seconds, at which a version was written or loaded, or a little later."""
    return wall_of(hlc) if origin < LOADED else _loaded_at(origin) / 1000


def _loaded_at(origin: int) -> int:
    return (origin >> _LOADER_BITS) & _LOADED_AT_MAX


def loaded_above(held: tuple[int, int] | None, stamp: int, loader: int) -> tuple[int, int]:
    """Return the version of what was loaded in place of a version, None for nothing.

    Args:
        held: what it is to replace.
        stamp: a fresh one, of the member that loaded.
        loader: origin of that member.
    """
    hlc, origin = held or (0, 0)
    loaded_at = stamp >> COUNTER_BITS
    if origin >= LOADED:
        loaded_at = max(loaded_at, _loaded_at(origin) + 1)
    told = xxh32_intdigest(b"%d %d" % (stamp, loader)) & ((1 << _LOADER_BITS) - 1)
    return hlc, LOADED | min(loaded_at, _LOADED_AT_MAX) << _LOADER_BITS | told


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
        # A sum or a shift has room for a carry, kept for as long as the entry is: `|` makes a number without.
        self._last = max(self._last + 1, physical) | 0
        return self._last

    def stamps(self, wall: float, count: int) -> range:
        """Return so many stamps, rising, each later than all before."""
        first = max(self._last + 1, int(wall * 1000) << COUNTER_BITS)
        self._last = first + count - 1
        return range(first, first + count)

    def observe(self, hlc: int, wall: float) -> bool:
        """Take note of a stamp from elsewhere; return False (and ignore it) when it is absurd."""
        limit = int((wall + DRIFT_MAX) * 1000) << COUNTER_BITS
        if not 0 <= hlc <= max(limit, self._last):
            return False
        self._last = max(self._last, hlc)
        return True
