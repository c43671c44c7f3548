"""The checks of the ledgers' load find what they are for, and nothing else."""

from __future__ import annotations

from collections import Counter

import pytest

from cache.testing.history import Outcome
from cache.testing.ledgers import CONSTANTS, Scan, check_ladder, check_ledger, check_scan

APPENDED = {
    "sure": Outcome.OK,
    "maybe": Outcome.UNKNOWN,
    "refused": Outcome.FAIL,
}


@pytest.mark.parametrize("items", [["sure"], ["sure", "maybe"], ["maybe", "sure"]])
def test_unknown_items_may_be_there(items: list[str]) -> None:
    """In any order."""
    assert check_ledger("l", APPENDED, items) == []


@pytest.mark.parametrize(
    ("items", "violation"),
    [
        ([], "l lost 'sure', which was acknowledged"),
        (["sure", "sure"], "l holds 'sure' 2 times"),
        (["sure", "maybe", "maybe"], "l holds 'maybe' 2 times"),
        (["sure", "refused"], "l holds 'refused', whose append was Outcome.FAIL"),
        (["sure", "invented"], "l holds 'invented', whose append was None"),
    ],
)
def test_items_that_are_lost_doubled_or_never_promised_are_found(
    items: list[str], violation: str
) -> None:
    """Each by its own sentence."""
    assert check_ledger("l", APPENDED, items) == [violation]


@pytest.mark.parametrize(("final", "is_right"), [(2, True), (3, True), (1, False), (4, False)])
def test_steps_count_once(final: int, *, is_right: bool) -> None:
    """Unknown ones at most."""
    counts = Counter({Outcome.OK: 2, Outcome.UNKNOWN: 1, Outcome.FAIL: 5})

    assert (check_ladder("l", counts, final) == []) is is_right


def test_a_scan_lists_each_constant_once() -> None:
    """Destroyed ones may be missing."""
    whole = Scan(0.0, 1.0, 0, list(CONSTANTS))
    short = Scan(0.0, 1.0, 0, list(CONSTANTS[1:]))
    double = Scan(0.0, 1.0, 0, [*CONSTANTS, CONSTANTS[0]])

    assert check_scan(whole, set()) == []
    assert check_scan(short, {CONSTANTS[0]}) == []
    assert check_scan(short, set()) == [
        "the scan through member 0 from 0.000 to 1.000 misses ['constant0']"
    ]
    assert check_scan(double, set()) == [
        "the scan through member 0 from 0.000 to 1.000 repeats ['constant0']"
    ]
