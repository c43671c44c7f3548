"""Fault schedules as text, and what a seed draws."""

from __future__ import annotations

import pytest

from cache.testing.schedule import KINDS, Fault, Schedule, draw, parse


@pytest.mark.parametrize("seed", range(50))
def test_a_drawn_schedule_survives_being_written_and_read(seed: int) -> None:
    """A replayed file is the very run that failed."""
    schedule = draw(seed)

    assert schedule == parse(str(schedule))


def test_the_same_seed_draws_the_same_schedule() -> None:
    """Invariant 9."""
    assert draw(7) == draw(7)
    assert draw(7) != draw(8)


def test_every_kind_of_fault_is_drawn() -> None:
    """No kind is out of reach."""
    drawn = {fault.kind for seed in range(300) for fault in draw(seed).faults}

    assert set(KINDS) == drawn


def test_a_schedule_without_some_faults_keeps_the_rest() -> None:
    """What shrinking needs."""
    faults = tuple(Fault(float(at), "join") for at in range(4))
    schedule = Schedule(1, 3, {}, faults)

    assert (faults[0], faults[3]) == schedule.without(1, 2).faults


@pytest.mark.parametrize("line", ["soon kill 1", "1.0 explode 1", "1.0 cut 0 1 for", "seed x"])
def test_a_line_that_is_not_understood_is_named(line: str) -> None:
    """A typo is not passed over."""
    with pytest.raises(ValueError, match="not a line of a fault schedule"):
        parse(line)


def test_the_end_is_when_the_last_fault_is_over() -> None:
    """Also of one that began earlier and lasts longer."""
    schedule = parse("1.0 cut 0 1 for 5.0\n2.0 kill 1\n")

    assert 6.0 == schedule.end
