"""Counters, gauges and histograms in a registry that is passed in; nothing is global.

A counter is a plain attribute holder, so that counting costs one addition. `snapshot()` gives every reading
by name for `stats()` and for exporters.
"""

from __future__ import annotations

from collections.abc import Callable


class Counter:
    """A number that only rises."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0

    def add(self, amount: int = 1) -> None:
        """Raise the counter."""
        self.value += amount


class Metrics:
    """A registry of named readings."""

    def __init__(self) -> None:
        self._counters: dict[str, Counter] = {}
        self._gauges: dict[str, Callable[[], float]] = {}

    def counter(self, name: str) -> Counter:
        """Return the counter of that name, made on first use."""
        counter = self._counters.get(name)
        if counter is None:
            counter = self._counters[name] = Counter()
        return counter

    def gauge(self, name: str, read: Callable[[], float]) -> None:
        """Register a reading taken whenever a snapshot is."""
        self._gauges[name] = read

    def snapshot(self) -> dict[str, float]:
        """Return every reading by name, sorted."""
        readings: dict[str, float] = {name: c.value for name, c in self._counters.items()}
        readings.update((name, read()) for name, read in self._gauges.items())
        return dict(sorted(readings.items()))
