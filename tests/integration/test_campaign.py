"""Fault schedules that once failed, a few random ones, and the same trace for the same seed."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from cache.testing.campaign import run_schedule
from cache.testing.features import NAMES
from cache.testing.schedule import draw, parse

USED: Final = {
    "locks": ["locks ok", "locks fail"],
    "topics": ["published ok", "messages read"],
    "events": ["events ok", "events created", "events updated", "events removed"],
    "behind": ["behind set ok", "behind get ok", "writes brought to the store"],
}
"""What each feature's load counts."""

SCHEDULES: Final = sorted((Path(__file__).parent / "schedules").glob("*.faults"))


@pytest.mark.sim
@pytest.mark.parametrize("path", SCHEDULES, ids=lambda path: path.stem)
def test_a_schedule_that_once_failed_holds(path: Path) -> None:
    """Each file says what went wrong; `python -m cache.testing.campaign --replay FILE` runs it alone."""
    result = run_schedule(parse(path.read_text()))

    assert [] == result.violations
    assert any(count for name, count in result.counts.items() if name.endswith("ok"))
    assert sum(result.faults.values()) > 0


@pytest.mark.sim
@pytest.mark.parametrize("load", ["entries", *NAMES])
def test_the_same_seed_gives_the_same_trace_in_any_process(load: str) -> None:
    """Invariant 9: nothing depends on `PYTHONHASHSEED`, which differs between these processes."""
    traces = [_traces_with_hash_seed(seed, load) for seed in ("1", "2")]

    assert traces[0] == traces[1]
    assert 3 == len(traces[0].splitlines())


def _traces_with_hash_seed(seed: str, load: str) -> str:
    command = "import logging; logging.disable(50)\n"
    command += "from dataclasses import replace\n"
    command += "from cache.testing.campaign import run_schedule\n"
    command += "from cache.testing.schedule import draw\n"
    command += f"drawn = [replace(draw(seed), load={load!r}) for seed in range(40, 43)]\n"
    command += "for schedule in drawn: print(schedule.seed, run_schedule(schedule).trace)"
    return subprocess.run(
        [sys.executable, "-c", command],
        env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        check=True,
        text=True,
    ).stdout


@pytest.mark.sim
@pytest.mark.parametrize("name", NAMES)
def test_the_load_of_a_feature_uses_it_while_faults_happen(name: str) -> None:
    """A check that looks at nothing finds nothing."""
    results = [run_schedule(replace(draw(seed), load=name)) for seed in range(3)]

    assert [] == [violation for result in results for violation in result.violations]
    counts = sum((Counter(result.counts) for result in results), Counter[str]())
    assert min(counts[used] for used in USED[name]) > 20
    assert sum(sum(result.faults.values()) for result in results) > 3


@pytest.mark.sim
def test_another_seed_gives_another_trace() -> None:
    """The hash does depend on what happens."""
    assert run_schedule(draw(1)).trace != run_schedule(draw(2)).trace
