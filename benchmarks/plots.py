"""Plots of curves, where matplotlib is installed; SVG, the same bytes for the same figures."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.support import optional


@dataclass(frozen=True, slots=True)
class Look:
    """How a curve is drawn."""

    horizontal: str
    file: str
    is_log: bool = True
    """Whether the horizontal axis is logarithmic."""
    is_log_upwards: bool = True


LOOKS: Final = {
    "latency": Look("percentile of calls, 1 in flight", "latency", is_log=False),
    "concurrency": Look("calls in flight", "concurrency"),
    "value size": Look("bytes of a value", "value_size"),
    "members": Look("members of the cluster", "members"),
    "keys": Look("keys", "keys"),
}
COLOURS: Final = ("#c44e52", "#8c8c8c", "#4c72b0", "#c9b458")


def draw_curves(curves: Mapping[str, Any], folder: Path) -> None:  # Any: JSON values
    """Draw each curve into a file of its own."""
    matplotlib = optional("matplotlib")
    if matplotlib is None:
        print("matplotlib is not installed: no plots")
        return
    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "benchmarks"
    matplotlib.rcParams["svg.fonttype"] = "none"
    pyplot: Any = importlib.import_module("matplotlib.pyplot")  # Any: an optional library
    folder.mkdir(parents=True, exist_ok=True)
    for title, curve in curves.items():
        look = LOOKS[title]
        figure, axes = pyplot.subplots(figsize=(5.6, 3.4))
        for place, (name, line) in enumerate(curve["lines"].items()):
            style = {"marker": "o", "markersize": 3, "color": COLOURS[place % len(COLOURS)]}
            axes.plot(_places(title, curve["points"]), line, label=name, **style)
        if title == "latency":
            axes.set_xticks(range(len(curve["points"])), [f"{p:g}" for p in curve["points"]])
        axes.set(xlabel=look.horizontal, ylabel=curve["unit"])
        if look.is_log:
            axes.set_xscale("log")
        if look.is_log_upwards:
            axes.set_yscale("log")
        axes.grid(visible=True, alpha=0.3)
        axes.legend(fontsize=7)
        figure.tight_layout()
        figure.savefig(folder / f"{look.file}.svg", metadata={"Date": None})
        pyplot.close(figure)
    print(f"\nplots: {folder}")


def _places(title: str, points: list[float]) -> list[float]:
    """Return where points are drawn: percentiles side by side, as each next one is rarer."""
    return list(range(len(points))) if title == "latency" else points
