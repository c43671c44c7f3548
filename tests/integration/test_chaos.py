"""A short run of what `./task chaos` does for ten minutes."""

import pytest

from cache.testing.chaos import (
    CUT_PERIOD,
    CUT_WINDOW,
    DEADLINE,
    GRACE,
    ChaosWorld,
    draw_chaos,
    run_chaos,
)
from cache.testing.schedule import DIVIDING, parse
from cache.testing.worlds.lan import why_unavailable


@pytest.mark.processes
def test_real_processes_that_die_and_stand_still_lose_nothing() -> None:
    """SIGKILL, SIGSTOP, joins and drains under load, with the campaign's checkers."""
    findings = run_chaos(seed=1, seconds=9.0)

    assert [] == findings.violations
    assert findings.faults["restart"] >= 2
    assert findings.faults["pause"] >= 1
    assert findings.counts["ok"] > 100
    assert findings.slowest <= DEADLINE + GRACE


@pytest.mark.processes
@pytest.mark.parametrize("world", ["proxied", "namespaces"])
def test_a_network_that_is_really_cut_loses_nothing(world: ChaosWorld) -> None:
    """One direction, one member, two sides, while members die and stand still; the same checkers."""
    if world == "namespaces" and (reason := why_unavailable()):
        pytest.skip(reason)

    findings = run_chaos(seed=7, seconds=9.0, world=world)

    assert [] == findings.violations
    assert sum(findings.faults.get(kind, 0) for kind in ("cut", "isolate", "split")) >= 3
    assert findings.stopped > 0
    assert findings.counts["ok"] > 100
    assert findings.slowest <= DEADLINE + GRACE


@pytest.mark.parametrize("cuts", [False, True])
def test_the_same_seed_draws_the_same_chaos(*, cuts: bool) -> None:
    """The schedule is repeatable, though real processes are not."""
    schedule = draw_chaos(7, 60.0, cuts=cuts)

    assert schedule == draw_chaos(7, 60.0, cuts=cuts)
    assert schedule == parse(str(schedule))


def test_the_network_fails_in_a_part_of_the_time_only() -> None:
    """Between those parts the cluster can become one again; without cuts it never fails."""
    faults = draw_chaos(7, 600.0, cuts=True).faults
    network = [fault for fault in faults if fault.kind in DIVIDING]

    assert {"cut", "isolate", "split", "loss"} == {fault.kind for fault in network}
    assert all(fault.at % CUT_PERIOD < CUT_WINDOW for fault in network)
    assert not [f for f in draw_chaos(7, 600.0).faults if f.kind in DIVIDING]
