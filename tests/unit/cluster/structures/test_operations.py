"""What each operation does to one key, stepped by hand."""

from __future__ import annotations

import math
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.cluster.replication.entries import Entry
from cache.cluster.replication.replica import PartitionReplica
from cache.cluster.structures.operations import APPLIED, Outcome, Stamper, modify
from cache.cluster.wire.messages import (
    MODIFY_ADD,
    MODIFY_DELETE,
    MODIFY_INCREMENT,
    MODIFY_PERSIST,
    MODIFY_POP,
    MODIFY_REPLACE,
    MODIFY_TOUCH,
    NEVER,
    Modify,
)
from cache.codec import decode_value, encode_value
from cache.errors import RemoteProtocolError, WrongTypeError
from cache.keys import INT64_MAX, INT64_MIN

NOW, LIFETIME, ORIGIN, STAMP = 100.0, 60.0, 7, 50
NOTHING: Outcome = (None, None)


def run(
    name: int,
    held: Entry | None = None,
    *,
    value: bytes = b"new",
    ttl: float = NEVER,
    number: int = 0,
) -> Outcome:
    replica = PartitionReplica(operation_memory=1, tombstone_lifetime=LIFETIME)
    replica.restore("m", b"k", held)
    message = Modify("m", 0, b"k", b"operation", name, value, ttl, number)
    return modify(message, replica, stamper())


def stamper() -> Stamper:
    stamp = count(STAMP).__next__
    return Stamper(now=NOW, stamp=stamp, origin=ORIGIN, tombstone_lifetime=LIFETIME)


def holding(value: bytes, expires_at: float = math.inf) -> Entry:
    return Entry(value, 1, 1, expires_at)


ABSENT = [None, Entry(None, 1, 1, 500.0), holding(b"expired", NOW)]
TOMBSTONE = Entry(None, STAMP, ORIGIN, NOW + LIFETIME)


@pytest.mark.parametrize("ttl", [NEVER, math.inf])
def test_what_never_ends_shares_its_instant(ttl: float) -> None:
    """An entry keeps it alive: a sum with infinity would be a number of its own for each."""
    assert stamper().expires_at(ttl) is math.inf


@pytest.mark.parametrize("held", ABSENT)
def test_add_makes_a_key_that_is_not_there(held: Entry | None) -> None:
    """Deleted and expired keys are not there."""
    assert (Entry(b"new", STAMP, ORIGIN, 105.0), APPLIED) == run(MODIFY_ADD, held, ttl=5.0)


def test_add_leaves_a_key_alone_that_is_there() -> None:
    """Add is set-if-absent: one of many adders wins. An empty value is a value."""
    assert NOTHING == run(MODIFY_ADD, holding(b"old"))
    assert NOTHING == run(MODIFY_ADD, holding(b""))


def test_replace_changes_a_key_that_is_there() -> None:
    """With the new time to live."""
    assert (Entry(b"new", STAMP, ORIGIN, 105.0), APPLIED) == run(
        MODIFY_REPLACE, holding(b"old"), ttl=5.0
    )


@pytest.mark.parametrize("held", ABSENT)
@pytest.mark.parametrize(
    "name", [MODIFY_REPLACE, MODIFY_DELETE, MODIFY_POP, MODIFY_TOUCH, MODIFY_PERSIST]
)
def test_only_add_and_increment_do_anything_to_an_absent_key(name: int, held: Entry | None) -> None:
    """Nothing is stored and the answer is no."""
    assert NOTHING == run(name, held, ttl=5.0)


def test_delete_leaves_a_tombstone_for_its_lifetime() -> None:
    """The delete is remembered, so that an older copy cannot bring the key back."""
    assert (TOMBSTONE, APPLIED) == run(MODIFY_DELETE, holding(b"old"))


def test_pop_deletes_and_answers_the_value() -> None:
    """Exactly one of many poppers gets it."""
    assert (TOMBSTONE, b"old") == run(MODIFY_POP, holding(b"old"))


def test_touch_sets_a_new_time_to_live_and_keeps_the_value() -> None:
    """As a new version: copies must not keep the earlier instant of the old one."""
    assert (Entry(b"old", STAMP, ORIGIN, 105.0), APPLIED) == run(
        MODIFY_TOUCH, holding(b"old", 101.0), ttl=5.0
    )


def test_persist_takes_the_time_to_live_away() -> None:
    """Whatever the message says."""
    assert (Entry(b"old", STAMP, ORIGIN, math.inf), APPLIED) == run(
        MODIFY_PERSIST, holding(b"old", 101.0), ttl=5.0
    )


@pytest.mark.parametrize("held", ABSENT)
def test_increment_makes_a_counter_from_its_start(held: Entry | None) -> None:
    """With the time to live it was given."""
    total = encode_value(13)

    outcome = run(MODIFY_INCREMENT, held, value=encode_value(10), ttl=5.0, number=3)

    assert (Entry(total, STAMP, ORIGIN, 105.0), total) == outcome


def test_increment_keeps_the_time_to_live_of_a_counter() -> None:
    """A counter per minute ends with its minute, however often it is counted up."""
    total = encode_value(6)

    outcome = run(
        MODIFY_INCREMENT, holding(encode_value(4), 130.0), value=encode_value(0), ttl=90.0, number=2
    )

    assert (Entry(total, STAMP, ORIGIN, 130.0), total) == outcome


@given(st.integers(INT64_MIN, INT64_MAX), st.integers(INT64_MIN, INT64_MAX))
def test_increments_within_64_bits_are_exact(start: int, number: int) -> None:
    """Whole numbers are not rounded."""
    number = max(INT64_MIN - min(start, 0), min(number, INT64_MAX - max(start, 0)))

    _, result = run(MODIFY_INCREMENT, holding(encode_value(start)), number=number)

    assert result is not None
    assert start + number == decode_value(result)


@pytest.mark.parametrize(
    ("start", "number", "total"),
    [(INT64_MIN, 0, INT64_MIN), (INT64_MAX - 1, 1, INT64_MAX), (2**64 - 1, -(2**63), INT64_MAX)],
)
def test_increment_reaches_both_ends_of_64_bits(start: int, number: int, total: int) -> None:
    """The limits themselves are whole numbers of 64 bits."""
    _, result = run(MODIFY_INCREMENT, holding(encode_value(start)), number=number)

    assert encode_value(total) == result


@pytest.mark.parametrize(("start", "number"), [(INT64_MAX, 1), (INT64_MIN, -1), (2**64 - 1, 0)])
def test_increment_does_not_leave_64_bits(start: int, number: int) -> None:
    """It fails instead of wrapping around."""
    with pytest.raises(WrongTypeError, match="64-bit"):
        run(MODIFY_INCREMENT, holding(encode_value(start)), number=number)


@pytest.mark.parametrize("value", ["4", 4.0, True, None, b"4", [4]])
def test_increment_of_something_else_is_refused(value: object) -> None:
    """Only whole numbers count; True is none. The same holds for the start."""
    with pytest.raises(WrongTypeError, match=type(value).__name__):
        run(MODIFY_INCREMENT, holding(encode_value(value)), number=1)
    with pytest.raises(WrongTypeError, match=type(value).__name__):
        run(MODIFY_INCREMENT, value=encode_value(value), number=1)


@pytest.mark.parametrize("name", [0, 8, -1])
def test_an_unknown_operation_is_refused(name: int) -> None:
    """A peer of a later release may know more."""
    with pytest.raises(RemoteProtocolError, match=str(name)):
        run(name)


def test_every_entry_gets_a_stamp_of_its_own() -> None:
    """Two versions of one key are never equal."""
    made = stamper()

    stamps = [made.live(b"v", 1.0).hlc, made.tombstone().hlc, made.live(b"v", 1.0).hlc]

    assert [STAMP, STAMP + 1, STAMP + 2] == stamps
