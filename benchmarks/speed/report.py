"""Where the parts put their figures."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from benchmarks.bars import Bar, Figure, ratios
from benchmarks.support import Contender, Operation, compete


class Report:
    """The figures of one run, in the order in which they were measured."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.figures: dict[str, Figure] = {}

    def note(self, bar: Bar, values: Sequence[float]) -> None:
        """Keep the values of all rounds, and show the line."""
        assert bar.path not in self.figures, f"{bar.path} is measured twice"
        figure = Figure(bar, tuple(values))
        self.figures[bar.path] = figure
        print(" · ".join(cell for cell in figure.row() if cell), flush=True)

    async def contest(
        self, bar: Bar, ours: Operation, theirs: Operation, *, in_flight: int = 1
    ) -> None:
        """Let both take turns; note how many times the rate of `theirs` ours is."""
        pair = [Contender("ours", ours), Contender("theirs", theirs)]
        rounds, seconds = self.arguments.rounds, self.arguments.seconds
        await compete(pair, in_flight=in_flight, rounds=rounds, seconds=seconds)
        self.note(bar, ratios(pair[0].rates, pair[1].rates))

    def rows(self) -> list[list[str]]:
        """Return the lines of the table."""
        return [figure.row() for figure in self.figures.values()]

    def to_json(self) -> dict[str, Any]:  # Any: JSON values
        """Return all figures by path."""
        return {path: figure.to_json() for path, figure in self.figures.items()}
