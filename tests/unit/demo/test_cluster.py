"""How the demo judges what nodes say: settled, detected, promoted, restored."""

from __future__ import annotations

import io

from cache.clock import SystemClock
from cache.demo.cluster import Sight, is_settled
from cache.demo.steps import CrashTimes
from cache.demo.view import NodeRow, PlainView


def sight(
    name: str,
    at: float,
    members: str,
    rows: list[list[str]],
    *,
    version: int = 5,
    under_replicated: int = 0,
) -> Sight:
    status = {
        "table_id": f"{version}@m",
        "under_replicated": under_replicated,
        "migrating": 0,
        "orphans": 0,
    }
    return Sight(name, at, status, [{"id": m} for m in members], [(1, row, []) for row in rows])


def test_settled_when_all_agree_and_nothing_is_left_to_do() -> None:
    """The same members, not just the same count; the same table; every copy there."""
    rows = [["a", "b"], ["b", "a"]]
    good = [sight("a", 1.0, "ab", rows), sight("b", 1.0, "ab", rows)]

    assert is_settled(good, ["b", "a"])
    assert not is_settled(good, ["a", "c"])
    assert not is_settled([good[0], sight("b", 1.0, "ab", rows, version=6)], ["a", "b"])
    assert not is_settled([good[0], sight("b", 1.0, "ab", rows, under_replicated=1)], ["a", "b"])
    assert not is_settled([good[0], sight("b", 1.0, "a", rows)], ["a", "b"])


def test_crash_times_are_those_of_the_first_look_at_which_it_was_so() -> None:
    """Detection per survivor, promotion once no table has the dead as an owner, then restoration."""
    times = CrashTimes("c", ["a", "b"])
    before, promoted, restored = [["c", "a"]], [["a"]], [["a", "b"]]

    looks = [
        [sight("a", 1.0, "ab", before), sight("b", 1.1, "abc", before)],
        [sight("a", 2.0, "ab", promoted, under_replicated=1), sight("b", 2.1, "ab", before)],
        [
            sight("a", 3.0, "ab", promoted, under_replicated=1),
            sight("b", 3.1, "ab", promoted, under_replicated=1),
        ],
        [sight("a", 4.0, "ab", restored), sight("b", 4.1, "ab", restored)],
    ]

    assert [times.take(look) for look in looks] == [False, False, False, True]
    assert times.detected == {"a": 1.0, "b": 2.1}
    assert times.promoted == 3.1
    assert times.restored == 4.1


def test_without_a_terminal_there_are_lines_with_times() -> None:
    """Readable in a log: a line per quarter of the work, a line per node."""
    stream = io.StringIO()
    view = PlainView(SystemClock(), stream)

    view.step("1. Form")
    with view.progress("write", 10) as advance:
        for _ in range(5):
            advance(2)
    view.show([NodeRow("n1", "127.0.0.1:1", 7, "serving", 3, 10, 11, 12_345, coordinator=True)])
    view.rest()

    lines = [line.partition("s] ")[2] for line in stream.getvalue().splitlines()]
    assert lines[0] == "== 1. Form"
    assert [line.strip() for line in lines[1:5]] == [
        "write: 4 of 10 (40 %)",
        "write: 6 of 10 (60 %)",
        "write: 8 of 10 (80 %)",
        "write: 10 of 10 (100 %)",
    ]
    assert "n1: serving, sees 3 members" in lines[5]
    assert "holds 12,345 entries, coordinator" in lines[5]
