"""The checks of the features' loads find what they are for, and nothing else."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from cache.testing.features import NAMES, draw_features
from cache.testing.features.behind import check_brought, check_receipts, check_rows
from cache.testing.features.events import GAP, RESUMED, Heard, Listener, Written, check_key
from cache.testing.features.locks import Hold, check_numbers, check_one_holder, check_waits
from cache.testing.features.topics import (
    ROOMY,
    SMALL,
    Message,
    Publication,
    Reader,
    check_one_order,
    check_reader,
)
from cache.testing.history import SET, History, Operation, Outcome, Span

OK, FAIL, UNKNOWN = Outcome.OK, Outcome.FAIL, Outcome.UNKNOWN


def never(key: str, start: float, end: float) -> bool:
    """Nothing was destroyed."""
    return False


def always(key: str, start: float, end: float) -> bool:
    """Everything was destroyed all the time."""
    return True


def test_each_feature_is_drawn_alone_and_with_others() -> None:
    """A run of one finds what others would hide."""
    drawn = [draw_features(seed) for seed in range(200)]

    assert {(name,) for name in NAMES} <= set(drawn)
    assert NAMES in drawn


# -- locks ---------------------------------------------------------------------------------------


def hold(token: int, start: float, until: float, **settings: Any) -> Hold:
    given = Hold("lock-0", 0, 1.0, 0.0, start, start + 0.1, OK, token, start, until)
    return replace(given, **settings)


FIRST, SECOND = hold(1, 0.0, 1.0), hold(2, 0.5, 2.0)


def test_two_holders_at_once_are_found() -> None:
    """The later one began while the earlier one still held it."""
    assert len(check_one_holder([FIRST, SECOND], History(), never)) == 1
    assert check_one_holder([FIRST, hold(2, 0.95, 2.0)], History(), never) == []
    assert check_one_holder([FIRST, replace(SECOND, key="lock-1")], History(), never) == []


def test_two_holders_are_excused_by_a_split_a_pause_or_a_loss() -> None:
    """As the card says; but once a split has healed, one of the two is told."""
    split = History(divided=[Span(0.4, 0.7)])
    paused = History(stalls=[(0, Span(0.3, 0.65))])
    other_paused = History(stalls=[(1, Span(0.3, 0.65))])
    for_ever = [replace(FIRST, until=90.0), replace(SECOND, until=90.0)]

    assert check_one_holder([FIRST, SECOND], split, never) == []
    assert check_one_holder([FIRST, SECOND], paused, never) == []
    assert check_one_holder([FIRST, SECOND], History(), always) == []
    assert len(check_one_holder([FIRST, SECOND], other_paused, never)) == 1
    assert len(check_one_holder(for_ever, split, never)) == 1


@pytest.mark.parametrize("token", [1, 0])
def test_numbers_that_do_not_rise_are_found(token: int) -> None:
    """Also equal ones, and those after a split that has healed."""
    later = hold(token, 5.0, 6.0)

    assert len(check_numbers([FIRST, later], History(), never)) == 1
    assert len(check_numbers([FIRST, later], History(divided=[Span(0.0, 4.0)]), never)) == 1
    assert check_numbers([FIRST, later], History(divided=[Span(4.0, 5.5)]), never) == []
    assert check_numbers([FIRST, later], History(), always) == []
    assert check_numbers([FIRST, SECOND], History(), never) == []


def test_an_answer_that_comes_too_late_is_found() -> None:
    """Later than the caller would wait and an operation may take, unless its member stood still."""
    late = hold(1, 0.0, 9.0, ended_at=8.0, wait=2.0)

    assert len(check_waits([late], History())) == 1
    assert check_waits([replace(late, wait=3.0)], History()) == []
    assert check_waits([replace(late, ended_at=math.inf)], History()) == []
    assert check_waits([late], History(stalls=[(0, Span(1.0, 2.0))])) == []


# -- topics --------------------------------------------------------------------------------------

PUBLISHED = [
    Publication(ROOMY, "p", number, number, number + 0.5, OK, f"{0:024}{number}")
    for number in range(3)
]


def messages(*numbers: int, missed: int = 0) -> list[Message]:
    return [Message(("p", number), f"{0:024}{number}", missed) for number in numbers]


def complaints(given: list[Message], topic: str = ROOMY, history: History | None = None) -> int:
    published = [replace(publication, topic=topic) for publication in PUBLISHED]
    reader = Reader("r", topic, given)
    return len(check_reader(reader, published, history or History(), never))


@pytest.mark.parametrize(
    ("given", "count"),
    [
        (messages(0, 1, 2), 0),
        (messages(0, 2), 1),  # one is missing
        (messages(0, 1, 1, 2), 1),
        (messages(0, 2, 1), 1),
        ([*messages(0, 1, 2), Message(("p", 9), "x", 0)], 1),  # nobody published it
        ([*messages(0, 1), Message(("p", 2), "x", 0)], 1),  # not the id that its publisher was told
    ],
)
def test_messages_that_are_lost_doubled_disordered_or_made_up_are_found(
    given: list[Message], count: int
) -> None:
    """Each is one complaint."""
    assert complaints(given) == count


def test_what_was_overwritten_must_be_told() -> None:
    """As many as are missing; of a topic with room for all none is."""
    assert complaints(messages(2, missed=2), SMALL) == 0
    assert complaints(messages(2, missed=1), SMALL) == 1
    assert complaints(messages(2, missed=2), ROOMY) == 1


def test_a_refused_message_must_not_come() -> None:
    """One of unknown end may, at any place."""
    refused = [*PUBLISHED[:2], replace(PUBLISHED[2], outcome=FAIL)]
    unknown = [replace(PUBLISHED[0], outcome=UNKNOWN, id=None), *PUBLISHED[1:]]
    reader = Reader("r", ROOMY, messages(1, 2, 0))

    assert len(check_reader(reader, refused, History(), never)) == 2
    assert check_reader(reader, unknown, History(), never) == []


def test_a_split_excuses_the_order_of_two_owners_only() -> None:
    """What one owner took stays in order."""
    split = History(divided=[Span(0.0, 9.0)])
    two_owners = [*messages(1, 2), Message(("p", 0), f"{1:024}0", 0)]

    assert complaints(messages(1, 2, 0), history=split) == 1
    assert complaints(two_owners, history=split) == 0


def test_two_readers_have_one_order() -> None:
    """Of what both were given."""
    one, other = Reader("a", ROOMY, messages(0, 1, 2)), Reader("b", ROOMY, messages(2, 0))

    assert len(check_one_order([one, other])) == 1
    assert check_one_order([one, Reader("c", ROOMY, messages(0, 2))]) == []


# -- events --------------------------------------------------------------------------------------

WRITTEN = [Written("k", value, value, value + 0.5, OK) for value in (1, 2, 3)]


def heard(*events: str | int, history: History | None = None) -> list[str]:
    """What is wrong with such events: kinds without a key, or kind and value in turn."""
    told: list[Heard] = []
    pending = ""
    for number, event in enumerate(events):
        at = 5.0 + number
        if isinstance(event, int):
            told.append(Heard(at, pending, "k", event))
        elif event in (GAP, RESUMED):
            told.append(Heard(at, event))
        else:
            pending = event
    return check_key(Listener("l", told), "k", WRITTEN, history or History())


@pytest.mark.parametrize(
    "events",
    [
        ("created", 1, "updated", 2, "updated", 3),
        ("created", 1, "removed", 1, "created", 2, "updated", 3),
        ("created", 1, GAP, "updated", 3),
        ("created", 1, "updated", 2, RESUMED, "updated", 2, "updated", 3),
        ("created", 1, "updated", 2, RESUMED, "created", 1, "updated", 2, "updated", 3),
        ("updated", 3),
    ],
)
def test_events_in_order_are_right(events: tuple[str | int, ...]) -> None:
    """A few may come again after a listener went on from its token; a gap may be anything."""
    assert heard(*events) == []


@pytest.mark.parametrize(
    ("events", "complaint"),
    [
        (("created", 1, "updated", 3), "[2] were not told"),
        (("created", 1, RESUMED, "updated", 3), "[2] were not told"),
        (("created", 2, "updated", 1), "2 was told before"),
        (("created", 1, "updated", 1), "it was told before"),
        (("created", 1, "created", 2), "it was created with 1 just before"),
        (("created", 1, "removed", 1, "updated", 2), "it was removed with 1 just before"),
        (("created", 2, "removed", 1), "its value was 2"),
        (("created", 9), "nobody wrote that"),
    ],
)
def test_events_that_are_left_out_doubled_or_do_not_fit_are_found(
    events: tuple[str | int, ...], complaint: str
) -> None:
    """Each by its own sentence."""
    (found,) = heard(*events)

    assert complaint in found


def test_a_split_excuses_events() -> None:
    """Each side hears its own owners."""
    assert heard("created", 1, "updated", 3, history=History(divided=[Span(0.0, 9.0)])) == []


# -- write-behind --------------------------------------------------------------------------------


def test_a_store_that_ends_with_something_else_is_found() -> None:
    """Also with a row that the map deleted."""
    assert check_rows({"a": 1, "b": None}, {"a": 1}) == []
    assert len(check_rows({"a": 1, "b": None}, {"b": 2})) == 2


def test_a_refused_write_must_not_reach_the_store_and_versions_rise() -> None:
    """Each is one complaint; a split excuses versions."""
    writes = [
        Operation(SET, "k", value, value, value + 0.5, outcome)
        for value, outcome in ((1, OK), (2, FAIL), (3, OK))
    ]
    split = History(writes, divided=[Span(0.0, 9.0)])

    assert check_brought({"k": {1: 10, 3: 30}}, History(writes)) == []
    assert len(check_brought({"k": {1: 10, 2: 20, 3: 30}}, History(writes))) == 1
    assert len(check_brought({"k": {1: 30, 3: 30}}, History(writes))) == 1
    assert check_brought({"k": {1: 30, 3: 10}}, split) == []


def test_a_complete_leave_leaves_no_write_behind() -> None:
    """One that says that it was not complete may."""
    complete, cut_short = {"complete": True, "queued": 2}, {"complete": False, "queued": 2}

    assert len(check_receipts(History(receipts=[complete]))) == 1
    assert check_receipts(History(receipts=[cut_short])) == []
