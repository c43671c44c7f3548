"""Fault schedules that once failed, a few random ones, and the same trace for the same seed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from cache.testing.campaign import run_schedule
from cache.testing.schedule import draw, parse

SCHEDULES: Final = sorted((Path(__file__).parent / "schedules").glob("*.faults"))


@pytest.mark.sim
@pytest.mark.parametrize("path", SCHEDULES, ids=lambda path: path.stem)
def test_a_schedule_that_once_failed_holds(path: Path) -> None:
    """Each file says what went wrong; `python -m cache.testing.campaign --replay FILE` runs it alone."""
    result = run_schedule(parse(path.read_text()))

    assert [] == result.violations
    assert result.counts["ok"] > 0
    assert sum(result.faults.values()) > 0


@pytest.mark.sim
def test_the_same_seed_gives_the_same_trace_in_any_process() -> None:
    """Invariant 9: nothing depends on `PYTHONHASHSEED`, which differs between these processes."""
    traces = [_traces_with_hash_seed(seed) for seed in ("1", "2")]

    assert traces[0] == traces[1]
    assert 4 == len(traces[0].splitlines())


def _traces_with_hash_seed(seed: str) -> str:
    command = "import logging; logging.disable(50)\n"
    command += "from cache.testing.campaign import run_schedule\n"
    command += "from cache.testing.schedule import draw\n"
    command += "for seed in range(40, 44): print(seed, run_schedule(draw(seed)).trace)"
    return subprocess.run(
        [sys.executable, "-c", command],
        env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        check=True,
        text=True,
    ).stdout


@pytest.mark.sim
def test_another_seed_gives_another_trace() -> None:
    """The hash does depend on what happens."""
    assert run_schedule(draw(1)).trace != run_schedule(draw(2)).trace
