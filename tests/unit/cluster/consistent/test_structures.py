"""Maps, counters, latches, identifiers and logs, step by step."""

from __future__ import annotations

import pytest

from cache.cluster.consistent.state import commands
from cache.cluster.consistent.state.commands import (
    BATCH_BYTES_MAX,
    BATCH_MAX,
    COUNT_MAX,
    INT64_MAX,
    INT64_MIN,
    KEY_BYTES_MAX,
    LOG_BYTES_MAX,
    LOG_ENTRIES_MAX,
    VALUE_BYTES_MAX,
    Append,
    Code,
    Command,
    CountDown,
    CounterAdd,
    CounterExchange,
    CounterGet,
    Destroy,
    Entry,
    Failure,
    Kind,
    LatchGet,
    LogRead,
    MapDelete,
    MapExchange,
    MapExchangeVersion,
    MapGet,
    MapPutIfAbsent,
    MapSet,
    Outcome,
    Records,
    TakeIds,
)
from tests.unit.cluster.consistent.scene import Scene

# -- maps ----------------------------------------------------------------------------------------


def test_a_version_is_that_of_the_latest_change_and_rises_over_a_delete() -> None:
    """Who knew an older life of the key is not taken for one that knows this one."""
    scene = Scene()
    assert Outcome(True, 1) == scene.tell(MapSet(b"x", b"k", b"a"))
    assert Outcome(True, 1) == scene.tell(MapDelete(b"x", b"k"))
    assert Outcome(False, 0) == scene.tell(MapDelete(b"x", b"k"))
    assert Entry(None, 0) == scene.ask(MapGet(b"x", b"k"))
    assert Outcome(True, 4) == scene.tell(MapSet(b"x", b"k", b"a"))

    assert Outcome(False, 4) == scene.tell(MapExchangeVersion(b"x", b"k", 1, b"b"))
    assert Outcome(True, 6) == scene.tell(MapExchangeVersion(b"x", b"k", 4, b"b"))
    assert Entry(b"b", 6) == scene.ask(MapGet(b"x", b"k"))


def test_exchanges_compare_with_what_is_there() -> None:
    """None is absent, on both sides."""
    scene = Scene()
    assert Outcome(False, 0) == scene.tell(MapExchange(b"x", b"k", b"a", b"b"))
    assert Outcome(True, 2) == scene.tell(MapExchange(b"x", b"k", None, b"a"))
    assert Outcome(False, 2) == scene.tell(MapExchange(b"x", b"k", None, b"b"))
    assert Outcome(False, 2) == scene.tell(MapPutIfAbsent(b"x", b"k", b"b"))
    assert Outcome(True, 0) == scene.tell(MapExchange(b"x", b"k", b"a", None))
    assert Outcome(True, 6) == scene.tell(MapPutIfAbsent(b"x", b"k", b"b"))
    assert Outcome(True, 0) == scene.tell(MapExchangeVersion(b"x", b"k", 6, None))
    assert Outcome(True, 8) == scene.tell(MapExchangeVersion(b"x", b"k", 0, b"c"))


def test_a_watch_is_held_until_the_version_is_another() -> None:
    """Also over a delete, and over a life in between."""
    scene = Scene()
    assert scene.ask(MapGet(b"x", b"k", 0)) is None
    scene.tell(MapSet(b"x", b"k", b"a"))
    assert Entry(b"a", 1) == scene.ask(MapGet(b"x", b"k", 0))
    assert scene.ask(MapGet(b"x", b"k", 1)) is None
    scene.tell(MapDelete(b"x", b"k"))
    assert Entry(None, 0) == scene.ask(MapGet(b"x", b"k", 1))


# -- counters, latches, identifiers --------------------------------------------------------------


def test_a_counter_keeps_to_64_bits() -> None:
    """What would leave them is refused, and changes nothing."""
    scene = Scene()
    refused = Failure(Code.RANGE, INT64_MAX)
    assert Outcome(True, INT64_MAX) == scene.tell(CounterAdd(b"x", INT64_MAX))
    assert refused == scene.tell(CounterAdd(b"x", 1))
    assert refused == scene.tell(CounterExchange(b"x", INT64_MAX, INT64_MAX + 1))
    assert Outcome(True, INT64_MAX) == scene.ask(CounterGet(b"x"))
    assert Outcome(True, INT64_MIN) == scene.tell(CounterExchange(b"x", INT64_MAX, INT64_MIN))
    assert refused == scene.tell(CounterAdd(b"x", -1))


def test_a_counter_is_exchanged_only_if_it_is_as_expected() -> None:
    """Absent is 0."""
    scene = Scene()
    assert Outcome(False, 0) == scene.ask(CounterGet(b"x"))
    assert Outcome(False, 0) == scene.tell(CounterExchange(b"x", 1, 5))
    assert Outcome(True, 5) == scene.tell(CounterExchange(b"x", 0, 5))
    assert Outcome(True, 3) == scene.tell(CounterAdd(b"x", -2))
    assert Outcome(True) == scene.tell(Destroy(b"x", Kind.COUNTER))
    assert Outcome(False, 0) == scene.ask(CounterGet(b"x"))


def test_a_latch_opens_once_and_stays_open() -> None:
    """It is not counted below 0, and cannot be made with another count."""
    scene = Scene()
    assert Outcome(False, -1) == scene.ask(LatchGet(b"x"))
    assert scene.ask(LatchGet(b"x", True)) is None
    assert Outcome(False, 1) == scene.tell(CountDown(b"x", 3, 2))
    assert scene.ask(LatchGet(b"x", True)) is None
    assert Failure(Code.MISMATCH, 3) == scene.tell(CountDown(b"x", 4, 1))
    assert Outcome(True, 0) == scene.tell(CountDown(b"x", 3, 2))
    assert Outcome(True, 0) == scene.ask(LatchGet(b"x", True))
    assert Outcome(True, 0) == scene.tell(CountDown(b"x", 3, 1))

    assert Outcome(True) == scene.tell(Destroy(b"x", Kind.LATCH))
    assert Outcome(False, 3) == scene.tell(CountDown(b"x", 4))


def test_identifiers_are_taken_once() -> None:
    """Blocks do not overlap."""
    scene = Scene()
    assert Outcome(True, 1) == scene.tell(TakeIds(b"x", 10))
    assert Outcome(True, 11) == scene.tell(TakeIds(b"x", 1))
    assert Outcome(True, 12) == scene.tell(TakeIds(b"x", 5))


# -- logs ----------------------------------------------------------------------------------------


def test_a_log_drops_its_oldest_records() -> None:
    """By number and by bytes, and says from where on it has them."""
    scene = Scene()
    for value in (b"a", b"b", b"c", b"d"):
        scene.tell(Append(b"x", [value], 3, 100))
    assert Records(1, 4, 1, [b"b", b"c", b"d"]) == scene.ask(LogRead(b"x", 0, 10))
    assert Records(1, 4, 2, [b"c"]) == scene.ask(LogRead(b"x", 2, 1))

    assert Outcome(True, 4) == scene.tell(Append(b"x", [b"12345"], 3, 6))
    assert Records(3, 5, 3, [b"d", b"12345"]) == scene.ask(LogRead(b"x", 0, 10))


def test_a_batch_is_kept_whole_even_over_the_limits() -> None:
    """It was acknowledged: the next append may drop it, its own never does."""
    scene = Scene()
    scene.tell(Append(b"x", [b"a"], 1, 1))

    assert Outcome(True, 1) == scene.tell(Append(b"x", [b"b", b"c"], 1, 1))
    assert Records(1, 3, 1, [b"b", b"c"]) == scene.ask(LogRead(b"x", 0, 10))


def test_a_reader_at_the_end_is_held() -> None:
    """Until there is a record; without being held it is told the end."""
    scene = Scene()
    assert scene.ask(LogRead(b"x", 0, 10, True)) is None
    assert Records(0, 0, 0, []) == scene.ask(LogRead(b"x", 7, 10))
    scene.tell(Append(b"x", [b"a"], 9, 9))
    assert Records(0, 1, 0, [b"a"]) == scene.ask(LogRead(b"x", 0, 10, True))
    assert scene.ask(LogRead(b"x", 1, 10, True)) is None


def test_a_page_of_a_log_ends_after_the_record_that_exceeds_it() -> None:
    """No answer is much larger than `BATCH_BYTES_MAX`."""
    scene = Scene()
    for _ in range(6):
        scene.tell(Append(b"x", [b"r" * VALUE_BYTES_MAX], 9, LOG_BYTES_MAX))

    page = scene.ask(LogRead(b"x", 0, 100))

    assert isinstance(page, Records)
    assert BATCH_BYTES_MAX // VALUE_BYTES_MAX == len(page.values)


# -- limits --------------------------------------------------------------------------------------

LARGE = b"v" * (VALUE_BYTES_MAX + 1)
LONG = b"k" * (KEY_BYTES_MAX + 1)


@pytest.mark.parametrize(
    ("command", "code", "limit"),
    [
        (MapSet(b"x", b"k", LARGE), Code.TOO_LARGE, VALUE_BYTES_MAX),
        (MapPutIfAbsent(b"x", b"k", LARGE), Code.TOO_LARGE, VALUE_BYTES_MAX),
        (MapExchange(b"x", b"k", None, LARGE), Code.TOO_LARGE, VALUE_BYTES_MAX),
        (MapSet(b"x", LONG, b"v"), Code.TOO_LARGE, KEY_BYTES_MAX),
        (CountDown(b"x", 0, 1), Code.RANGE, COUNT_MAX),
        (CountDown(b"x", COUNT_MAX + 1, 1), Code.RANGE, COUNT_MAX),
        (CountDown(b"x", 3, -1), Code.RANGE, COUNT_MAX),
        (TakeIds(b"x", 0), Code.RANGE, COUNT_MAX),
        (TakeIds(b"x", COUNT_MAX + 1), Code.RANGE, COUNT_MAX),
        (Append(b"x", [], 9, 9), Code.TOO_LARGE, BATCH_MAX),
        (Append(b"x", [b""] * (BATCH_MAX + 1), 9, 9), Code.TOO_LARGE, BATCH_MAX),
        (Append(b"x", [LARGE], 9, 9), Code.TOO_LARGE, VALUE_BYTES_MAX),
        (Append(b"x", [LARGE[1:]] * 5, 9, 9), Code.TOO_LARGE, BATCH_BYTES_MAX),
        (Append(b"x", [b"r"], 0, 9), Code.RANGE, LOG_ENTRIES_MAX),
        (Append(b"x", [b"r"], LOG_ENTRIES_MAX + 1, 9), Code.RANGE, LOG_ENTRIES_MAX),
        (Append(b"x", [b"r"], 9, LOG_BYTES_MAX + 1), Code.RANGE, LOG_BYTES_MAX),
        (Destroy(b"x", Kind.LOCK), Code.MALFORMED, 0),
    ],
)
def test_what_is_over_a_limit_is_refused(command: Command, code: Code, limit: int) -> None:
    """With the limit, and without an effect."""
    scene = Scene()
    before = scene.machine.snapshot()

    assert Failure(code, limit) == scene.tell(command)
    assert before == scene.machine.snapshot()


def test_numbers_of_commands_queries_answers_and_codes_do_not_change() -> None:
    """Commands are on disk, the others on the wire between versions."""
    tags = {
        base: [one.__struct_config__.tag for one in vars(commands).values() if is_of(one, base)]
        for base in (commands.Command, commands.Query, commands.Answer)
    }

    assert list(range(1, 17)) == tags[commands.Command]
    assert list(range(1, 8)) == tags[commands.Query]
    assert list(range(1, 10)) == tags[commands.Answer]
    assert list(range(1, 12)) == [code.value for code in Code]
    assert b"\x94\x01\xc4\x01x\xc4\x01k\xc4\x01v" == commands.encode(MapSet(b"x", b"k", b"v"))


def is_of(one: object, base: type) -> bool:
    return isinstance(one, type) and issubclass(one, base) and one is not base
