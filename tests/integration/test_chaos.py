"""A short run of what `./task chaos` does for ten minutes."""

import pytest

from cache.testing.chaos import DEADLINE, GRACE, draw_chaos, run_chaos
from cache.testing.schedule import parse


@pytest.mark.processes
def test_real_processes_that_die_and_stand_still_lose_nothing() -> None:
    """SIGKILL, SIGSTOP, joins and drains under load, with the campaign's checkers."""
    findings = run_chaos(seed=1, seconds=12.0)

    assert [] == findings.violations
    assert findings.faults["restart"] >= 2
    assert findings.faults["pause"] >= 1
    assert findings.counts["acknowledged"] > 100
    assert findings.slowest <= DEADLINE + GRACE


def test_the_same_seed_draws_the_same_chaos() -> None:
    """The schedule is repeatable, though real processes are not."""
    schedule = draw_chaos(7, 60.0)

    assert schedule == draw_chaos(7, 60.0)
    assert schedule == parse(str(schedule))
