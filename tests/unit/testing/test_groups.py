"""What the campaign of groups holds against members, on observations made by hand."""

from __future__ import annotations

import math

import pytest

from cache.testing.groups.locks import Hold, LockCallers
from cache.testing.groups.logs import Replica, can_go_on, is_lost
from cache.testing.groups.schedule import draw_groups
from cache.testing.history import History, Outcome, Span
from cache.testing.schedule import parse

ABC = ("a/1", "b/1", "c/1")


def replicas(
    *logs: str, voters: tuple[str, ...] = ABC, outgoing: tuple[str, ...] = ()
) -> list[Replica]:
    """Return these logs, all of one mind about who votes."""
    return [Replica(log, voters, outgoing) for log in logs]


def test_two_of_three_logs_can_go_on_and_one_is_lost() -> None:
    """A majority is more than half."""
    assert can_go_on(replicas("a/1", "b/1"))
    assert not is_lost(replicas("a/1", "b/1"))
    assert not can_go_on(replicas("a/1"))
    assert is_lost(replicas("a/1"))


def test_a_log_of_another_life_is_no_log_of_the_group() -> None:
    """A member in memory that restarted forgot its vote."""
    assert is_lost(replicas("a/1", "b/2"))


def test_a_joint_change_needs_both_majorities() -> None:
    """So the majority of all that are named is not enough."""
    joint = {"voters": ("a/1", "d/1", "e/1"), "outgoing": ABC}

    assert not can_go_on(replicas("a/1", "d/1", "e/1", **joint))
    assert can_go_on(replicas("a/1", "b/1", "d/1", **joint))


def test_nothing_can_go_on_without_logs() -> None:
    """Nor with logs that are not of one mind, which is not lost for certain either."""
    split = [*replicas("a/1", "b/1"), *replicas("c/1", voters=("c/1", "d/1", "e/1"))]

    assert not can_go_on([])
    assert (False, False) == (can_go_on(split), is_lost(split))


def hold(token: int, start: float, until: float, member: int = 0) -> Hold:
    """Return a lock that was held."""
    return Hold("x", member, start, start, Outcome.OK, token, until)


def told(*holds: Hold, history: History | None = None) -> list[str]:
    """Return what the check says of these, the first two words of each."""
    callers = LockCallers(cluster=None, history=history or History())  # type: ignore[arg-type]  # not asked
    callers.holds += holds
    return [" ".join(text.split()[:2]) for text in callers.check()]


@pytest.mark.parametrize(
    ("later", "expected"),
    [
        (hold(9, 2.0, 3.0), []),
        (hold(9, 1.5, 3.0), ["two holders"]),
        (hold(5, 2.0, 3.0), ["one token"]),
        (hold(4, 2.0, 3.0), ["tokens go"]),
    ],
)
def test_one_holder_at_a_time_and_rising_tokens(later: Hold, expected: list[str]) -> None:
    """The first one held token 5 from 1 to 2."""
    assert expected == told(hold(5, 1.0, 2.0), later)


def test_only_who_stood_still_may_believe_to_hold_what_is_anothers() -> None:
    """Its token protects then."""
    history = History()
    history.stalls.append((0, Span(1.5, 9.0)))

    assert [] == told(hold(5, 1.0, 9.02), hold(9, 7.0, 8.0, member=1), history=history)
    assert ["two holders"] == told(
        hold(5, 1.0, math.inf), hold(9, 9.5, 9.6, member=1), history=history
    )


def test_a_schedule_of_groups_is_read_as_it_is_written() -> None:
    """With -1 for who leads."""
    drawn = [draw_groups(seed) for seed in range(50)]

    assert drawn == [parse(str(schedule)) for schedule in drawn]
    assert any(-1 in fault.members for schedule in drawn for fault in schedule.faults)
