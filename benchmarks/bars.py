"""Bars and what was measured against them; comparing two runs. Pure.

A figure is the values of all rounds, so that its median and its spread are both there. Ratios (unit "×")
can be compared between runs and machines; other units only tell how it was on the machine that they are
of.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

RATIO: Final = "×"
TOLERANCE: Final = 0.25
"""By how much a ratio may be worse than the recorded one. Medians of five rounds on a shared machine
differ by up to a fifth between runs of the same code."""


@dataclass(frozen=True, slots=True)
class Bar:
    """What a path is held to."""

    path: str
    limit: float | None
    """None: there is no bar, the figure is shown beside the others."""
    unit: str = RATIO
    is_least: bool = True
    """Whether the figure has to be `limit` or more; else that or less."""

    def holds(self, figure: float) -> bool:
        """Return whether a figure meets the bar."""
        if self.limit is None:
            return True
        return figure >= self.limit if self.is_least else figure <= self.limit

    def text(self) -> str:
        """Return the bar as it stands in a table."""
        if self.limit is None:
            return ""
        return f"{'≥' if self.is_least else '≤'} {self.limit:g}{space(self.unit)}"


@dataclass(frozen=True, slots=True)
class Figure:
    """A bar and the values of the rounds, in their order."""

    bar: Bar
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The figure that counts."""
        return statistics.median(self.values)

    def row(self) -> list[str]:
        """Return the line of a table: path, bar, median, spread, verdict."""
        unit = space(self.bar.unit)
        least, most = min(self.values), max(self.values)
        spread = f"{number(least)} - {number(most)}" if len(self.values) > 1 else ""
        return [
            self.bar.path,
            self.bar.text(),
            f"{number(self.median)}{unit}",
            spread,
            self.verdict(),
        ]

    def verdict(self) -> str:
        """Return whether the median meets the bar, and whether there are rounds that differ from it."""
        if self.bar.limit is None:
            return ""
        met = [self.bar.holds(value) for value in self.values]
        if self.bar.holds(self.median):
            return "yes" if all(met) else "yes, not in all rounds"
        return "no, but in some rounds" if any(met) else "no"

    def to_json(self) -> dict[str, Any]:  # Any: JSON values
        """Return what `figure_from` reads."""
        bar = self.bar
        return {
            "bar": bar.limit,
            "unit": bar.unit,
            "is_least": bar.is_least,
            "median": self.median,
            "values": list(self.values),
        }


HEADER: Final = ("path", "bar", "measured", "spread", "holds")


def figure_from(path: str, saved: Mapping[str, Any]) -> Figure:  # Any: JSON values
    """Return the figure that `to_json` wrote."""
    bar = Bar(path, saved["bar"], saved["unit"], saved["is_least"])
    return Figure(bar, tuple(saved["values"]))


def figures_from(saved: Mapping[str, Any]) -> dict[str, Figure]:  # Any: JSON values
    """Return figures by their paths."""
    return {path: figure_from(path, values) for path, values in saved.items()}


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Return the ratio of each round: what disturbs a round disturbs both sides."""
    return [mine / other for mine, other in zip(ours, theirs, strict=True)]


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that `share` of all values are at most, 0.99 for p99; nearest rank."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def number(value: float) -> str:
    """Return a figure with as many digits as mean something."""
    if 0 < abs(value) < 0.1:
        return f"{value:.2g}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"


def space(unit: str) -> str:
    """Return a unit as it is put behind a number."""
    return unit if unit in ("", RATIO) else f" {unit}"


@dataclass(frozen=True, slots=True)
class Change:
    """One ratio in two runs."""

    path: str
    recorded: float
    measured: float | None
    """None: not measured any more."""
    is_fall: bool

    def row(self) -> list[str]:
        """Return the line of a table."""
        if self.measured is None:
            return [self.path, f"{number(self.recorded)}×", "not measured", "", "missing"]
        change = f"{100 * (self.measured / self.recorded - 1):+.0f} %"
        verdict = "FALLEN" if self.is_fall else ""
        measured = f"{number(self.measured)}×"
        return [self.path, f"{number(self.recorded)}×", measured, change, verdict]


CHANGE_HEADER: Final = ("path", "recorded", "measured", "change", "")


def compare(
    recorded: Mapping[str, Figure], measured: Mapping[str, Figure], *, tolerance: float
) -> list[Change]:
    """Return how each recorded ratio is now.

    A fall is a median that is worse than the recorded one by more than `tolerance`, and worse than every
    recorded round: where rounds of one run differ more than that, a difference says nothing. What is better
    is known from the bar's sign: less cost, more rate. A ratio that is not measured any more, or that is no
    number, is a fall; one that was not recorded has nothing to fall from.
    """
    changes: list[Change] = []
    for path, before in recorded.items():
        if before.bar.unit != RATIO:
            continue
        if path not in measured:
            changes.append(Change(path, before.median, None, is_fall=True))
            continue
        now = measured[path].median
        if before.bar.is_least:
            is_good = now >= min(before.median * (1 - tolerance), *before.values)
        else:
            is_good = now <= max(before.median * (1 + tolerance), *before.values)
        changes.append(Change(path, before.median, now, is_fall=not is_good))
    return changes
