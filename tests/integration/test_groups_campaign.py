"""Groups of consensus on whole nodes under random faults: a few seeds of `python -m cache.testing.groups`."""

from __future__ import annotations

from collections import Counter
from typing import Final

import pytest

from cache.testing.campaign import run_schedule
from cache.testing.groups.schedule import draw_groups
from cache.testing.result import Result

BLOCK: Final = 4

USED: Final = ("register ok", "map ok", "counter ok", "log ok", "lock ok")


def total(results: list[Result]) -> Counter[str]:
    """Add up what clients counted."""
    return sum((Counter(result.counts) for result in results), Counter[str]())


@pytest.mark.sim
@pytest.mark.parametrize("first", range(0, 24, BLOCK))
def test_groups_keep_their_word_under_random_faults(first: int) -> None:
    """Histories are linearizable, states equal, tokens rise; a majority of logs goes on, else it is said."""
    results = [run_schedule(draw_groups(seed)) for seed in range(first, first + BLOCK)]

    assert [] == [violation for result in results for violation in result.violations]
    counts = total(results)
    assert 0 == counts["histories undecided"] == counts["groups of unclear fate"]
    assert BLOCK == counts["groups that went on"] + counts["groups that were lost"]
    assert min(counts[used] for used in USED) > 40
    assert sum(sum(result.faults.values()) for result in results) > 10


@pytest.mark.sim
def test_a_group_that_really_lost_its_majority_says_so() -> None:
    """No member says that anything is done, and those with a replica say why."""
    drawn = (draw_groups(seed) for seed in range(1000))
    losing = [schedule for schedule in drawn if schedule.config["may_lose"]]
    counts = total([run_schedule(schedule) for schedule in losing[:4]])

    assert counts["groups that were lost"] > 0
