"""Each check accepts what is promised and finds what is not."""

from __future__ import annotations

import math

import pytest

from cache.testing.checkers import (
    check_counters,
    check_digests,
    check_expiry,
    check_history,
    check_ownership,
    check_reads,
)
from cache.testing.history import DELETE, GET, INCR, SET, History, Operation, Outcome, Span, Wipe

OK, FAIL, UNKNOWN = Outcome.OK, Outcome.FAIL, Outcome.UNKNOWN


def write(value: int | None, at: float, outcome: Outcome = OK, **more: float) -> Operation:
    """A write of "k" that takes 0.1 s."""
    name = DELETE if value is None else SET
    return Operation(name, "k", value, at, at + 0.1, outcome, ttl=more.get("ttl"))


def read(value: int | None, at: float) -> Operation:
    """A read of "k" that takes 0.1 s."""
    return Operation(GET, "k", None, at, at + 0.1, OK, value, member=0)


def increment(outcome: Outcome, result: int | None = None) -> Operation:
    """An increment of "c"."""
    return Operation(INCR, "c", 1, outcome=outcome, result=result)


def test_an_empty_history_is_correct() -> None:
    """Nothing asked, nothing promised."""
    assert [] == check_history(History())


@pytest.mark.parametrize("value", [2, 3])
def test_the_latest_acknowledged_write_or_one_under_way_may_be_read(value: int) -> None:
    """A write that began before the read ended may be seen already."""
    history = History([write(1, 0), write(2, 1), write(3, 2.05), read(value, 2)])

    assert [] == check_reads(history)


@pytest.mark.parametrize(
    ("writes", "value"),
    [
        ([write(1, 0), write(2, 1)], 1),
        ([write(1, 0), write(2, 1)], None),
        ([write(1, 0), write(None, 1)], 1),
        ([write(1, 0), write(2, 1, FAIL)], 2),
        ([write(1, 0)], 7),
        ([write(1, 0), write(2, 5)], 2),
    ],
    ids=["older", "lost", "resurrected", "rejected", "never written", "from the future"],
)
def test_a_read_of_anything_else_is_found(writes: list[Operation], value: int | None) -> None:
    """Invariants 1, 3 and 5."""
    assert 1 == len(check_reads(History([*writes, read(value, 3)])))


def test_a_write_that_ended_unknown_may_be_seen_late() -> None:
    """It may take effect after writes that followed it."""
    history = History([write(1, 0, UNKNOWN), write(2, 1), read(1, 3)])

    assert [] == check_reads(history)


def test_while_divided_each_side_shows_its_own_but_never_a_rejected_write() -> None:
    """The relaxation is for stale values only."""
    writes = [write(1, 0), write(2, 1), write(3, 2, FAIL)]
    divided = [Span(0.5, 10)]

    assert [] == check_reads(History([*writes, read(1, 3)], divided=divided))
    assert 1 == len(check_reads(History([*writes, read(3, 3)], divided=divided)))


def test_after_a_division_the_latest_write_counts_again() -> None:
    """Last writer wins, on all members alike."""
    history = History([write(1, 0), write(2, 1), read(1, 12)], divided=[Span(0.5, 10)])

    assert 1 == len(check_reads(history))


def test_destroyed_keys_may_be_absent_until_they_are_written_again() -> None:
    """A loss that was to be expected excuses what was written before it, and nothing after."""
    wipes = [Wipe(2, frozenset({"k"}))]

    assert [] == check_reads(History([write(1, 0), read(None, 3)], wipes=wipes))
    assert 1 == len(check_reads(History([write(1, 0), write(2, 4), read(None, 5)], wipes=wipes)))


def test_a_life_that_is_too_long_or_too_short_is_found() -> None:
    """Invariant 3, within the bound."""
    expiring = [write(1, 0, ttl=2)]

    assert [] == check_expiry(History([*expiring, read(1, 1), read(None, 3)]))
    assert 1 == len(check_expiry(History([*expiring, read(1, 3)])))
    assert 1 == len(check_expiry(History([*expiring, read(None, 1)])))


@pytest.mark.parametrize(("final", "found"), [(2, 0), (3, 0), (1, 1), (4, 1)])
def test_a_counter_ends_between_acknowledged_and_acknowledged_plus_unknown(
    final: int, found: int
) -> None:
    """Two increments were acknowledged, one is unknown."""
    increments = [
        increment(OK, 1),
        increment(OK, 2),
        increment(UNKNOWN),
        increment(FAIL),
    ]

    violations = check_counters(History(increments, final_counters={"c": final}))

    assert found == len(violations)


def test_a_repeated_result_of_an_increment_is_found() -> None:
    """Two callers were given the same number."""
    increments = [increment(OK, 1), increment(OK, 1)]

    assert 1 == len(check_counters(History(increments, final_counters={"c": 2})))


def test_two_owners_in_one_epoch_are_found() -> None:
    """Invariant 2."""
    history = History(ownership={(3, 7): {"a": None, "b": None}, (4, 7): {"a": None}})

    assert 1 == len(check_ownership(history))


def test_copies_that_differ_are_found() -> None:
    """Invariant 4; a member without the partition has nothing to compare."""
    assert [] == check_digests([{1: (2, 99)}, {1: (2, 99)}, {}])
    assert 1 == len(check_digests([{1: (2, 99)}, {1: (2, 98)}]))


def test_an_answer_that_never_came_has_no_end() -> None:
    """A write whose caller still waits counts as under way for every later read."""
    waiting = Operation(SET, "k", 2, 1, math.inf, UNKNOWN)

    assert [] == check_reads(History([write(1, 0), waiting, read(2, 3), read(1, 4)]))
