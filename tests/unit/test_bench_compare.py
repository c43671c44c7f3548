"""Bars of benchmarks, and what counts as a fall between two runs."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import pytest

from benchmarks.bars import (
    TOLERANCE,
    Bar,
    Change,
    Figure,
    compare,
    figures_from,
    number,
    percentile,
    ratios,
)
from benchmarks.bench_compare import fraction, main, parser

RATE = Bar("rate", 3.0)
COST = Bar("cost", 9.0, is_least=False)
MILLISECONDS = Bar("time", 50.0, "ms", is_least=False)


def figures(bar: Bar, *values: float) -> dict[str, Figure]:
    return {bar.path: Figure(bar, values)}


@pytest.mark.parametrize(
    ("bar", "measured", "is_fall"),
    [
        (RATE, 8.0, False),
        (RATE, 7.99, True),
        (RATE, 40.0, False),
        (COST, 12.0, False),
        (COST, 12.01, True),
        (COST, 1.0, False),
        (RATE, math.nan, True),
        (COST, math.nan, True),
        (COST, math.inf, True),
    ],
)
def test_ratio_falls_when_it_is_worse_by_more_than_the_tolerance(
    bar: Bar, measured: float, is_fall: bool
) -> None:
    """Worse is less of a rate and more of a cost; the edge itself is no fall; no number is one."""
    changes = compare(figures(bar, 10.0), figures(bar, measured), tolerance=0.2)

    assert [is_fall] == [change.is_fall for change in changes]


def test_median_of_the_rounds_is_compared() -> None:
    """One disturbed round is not a fall."""
    changes = compare(figures(RATE, 10.0, 10.0, 10.0), figures(RATE, 0.1, 9.5, 9.9), tolerance=0.2)

    assert [Change("rate", 10.0, 9.5, is_fall=False)] == changes


@pytest.mark.parametrize(
    ("bar", "measured", "is_fall"),
    [(RATE, 4.0, False), (RATE, 3.99, True), (COST, 30.0, False), (COST, 30.01, True)],
)
def test_fall_is_worse_than_every_recorded_round(bar: Bar, measured: float, is_fall: bool) -> None:
    """Where rounds of one run differ more than the tolerance, a difference within them says nothing."""
    before = figures(bar, 4.0, 10.0, 30.0)

    changes = compare(before, figures(bar, measured), tolerance=0.2)

    assert [is_fall] == [change.is_fall for change in changes]


def test_ratio_that_is_not_measured_any_more_is_a_fall() -> None:
    """A row that was lost must not pass as good."""
    changes = compare(figures(RATE, 10.0), {}, tolerance=TOLERANCE)

    assert [Change("rate", 10.0, None, is_fall=True)] == changes


def test_only_ratios_are_compared() -> None:
    """Milliseconds of two machines, or of two hours of one, say nothing about the code."""
    changes = compare(figures(MILLISECONDS, 1.0), figures(MILLISECONDS, 99.0), tolerance=TOLERANCE)

    assert [] == changes


def test_new_ratio_has_nothing_to_fall_from() -> None:
    """It is compared from the next recording on."""
    changes = compare({}, figures(RATE, 0.1), tolerance=TOLERANCE)

    assert [] == changes


def test_sign_and_unit_of_a_bar_are_those_of_the_recording() -> None:
    """Figures survive the file that they are kept in."""
    kept = {bar.path: Figure(bar, (1.0, 2.0, 4.0)) for bar in (RATE, COST, MILLISECONDS)}

    text = json.dumps({path: figure.to_json() for path, figure in kept.items()})

    assert kept == figures_from(json.loads(text))


@pytest.mark.parametrize(
    ("bar", "figure", "row"),
    [
        (RATE, (3.0, 3.1, 3.5), ["rate", "≥ 3×", "3.10×", "3.00 - 3.50", "yes"]),
        (RATE, (2.0, 3.0, 3.5), ["rate", "≥ 3×", "3.00×", "2.00 - 3.50", "yes, not in all rounds"]),
        (COST, (8.0, 9.1, 9.5), ["cost", "≤ 9×", "9.10×", "8.00 - 9.50", "no, but in some rounds"]),
        (RATE, (2.9,), ["rate", "≥ 3×", "2.90×", "", "no"]),
        (COST, (9.1,), ["cost", "≤ 9×", "9.10×", "", "no"]),
        (MILLISECONDS, (50.0,), ["time", "≤ 50 ms", "50.00 ms", "", "yes"]),
        (Bar("shown", None, "MB/s"), (1234.5,), ["shown", "", "1,234 MB/s", "", ""]),
    ],
)
def test_row_shows_median_spread_and_whether_the_bar_holds(
    bar: Bar, figure: tuple[float, ...], row: list[str]
) -> None:
    """A bar without a limit has no verdict, one round has no spread, rounds that differ are told of."""
    assert row == Figure(bar, figure).row()


@pytest.mark.parametrize(
    ("value", "text"),
    [(1234.5, "1,234"), (99.994, "99.99"), (0.1, "0.10"), (0.0172, "0.017"), (0.0, "0.00")],
)
def test_number_has_the_digits_that_mean_something(value: float, text: str) -> None:
    """A small ratio is not rounded away."""
    assert text == number(value)


def test_ratios_are_of_the_same_round() -> None:
    """What slows a round slows both sides of it."""
    assert [2.0, 3.0] == ratios([2.0, 30.0], [1.0, 10.0])


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50), (0.99, 99), (1.0, 100), (0.0, 1)])
def test_percentile_is_the_nearest_rank(share: float, expected: int) -> None:
    """The least value that at least that share of all values does not exceed."""
    assert expected == percentile(list(range(100, 0, -1)), share)


def test_change_row_names_what_fell() -> None:
    """A fall can be seen in the table, not in the exit code alone."""
    missing = Change("rate", 10.0, None, is_fall=True)
    fallen = Change("rate", 10.0, 5.0, is_fall=True)

    assert ["rate", "10.00×", "not measured", "", "missing"] == missing.row()
    assert ["rate", "10.00×", "5.00×", "-50 %", "FALLEN"] == fallen.row()


@pytest.mark.parametrize(("measured", "code"), [(10.0, 0), (1.0, 1)])
def test_exit_code_tells_a_fall(tmp_path: Path, measured: float, code: int) -> None:
    """The figures of one script are compared with a recording of all of them."""
    speed = {"bars": {"rate": Figure(RATE, (10.0,)).to_json()}}
    (tmp_path / "recorded.json").write_text(json.dumps({"scripts": {"bench_speed": speed}}))
    now = {"bars": {"rate": Figure(RATE, (measured,)).to_json()}}
    (tmp_path / "now.json").write_text(json.dumps(now))

    arguments = parser().parse_args(
        [f"--recorded={tmp_path}/recorded.json", f"--figures={tmp_path}/now.json"]
    )

    assert code == main(arguments)


def test_absent_recording_is_told_with_its_remedy(tmp_path: Path) -> None:
    """There is none before the first one."""
    arguments = parser().parse_args([f"--recorded={tmp_path}/recorded.json"])

    with pytest.raises(SystemExit, match="bench-record"):
        main(arguments)


@pytest.mark.parametrize("text", ["1", "-0.1", "25"])
def test_tolerance_is_a_share(text: str) -> None:
    """25 would never find a fall."""
    with pytest.raises(argparse.ArgumentTypeError, match="from 0 to below 1"):
        fraction(text)
