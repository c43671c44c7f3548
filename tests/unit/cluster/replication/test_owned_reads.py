"""Reads of one key, step by step, as Python runs them and as they are chosen: compiled, if that was built."""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Generator
from types import ModuleType
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.cluster.replication import owned, owned_reads
from cache.cluster.replication.entries import Entry
from cache.codec import decode_value, encode_value
from cache.errors import CacheError, CodecError, NotOwnerError

TWINS: Final = [pytest.param(owned_reads, id="python"), pytest.param(owned, id="chosen")]

each_twin = pytest.mark.parametrize("twin", TWINS)

LIMIT: Final = 64
"""Bytes of the largest value that is remembered."""


class Name(str):
    """A text that is not the one it is compared with."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return False

    __hash__ = str.__hash__


class Scene:
    """What reads go by, with a journal of what they asked for."""

    def __init__(self, twin: Any) -> None:  # Any: one of the twins
        self.recent: dict[str, Any] = {}  # Any: values
        self.recent_bytes_max = LIMIT
        self.validity = twin.Validity(10.0)
        self.time = 0.0
        self.held: dict[object, object] = {}
        """What reads below find: an entry, bytes, None, something to await, or an exception."""
        self.journal: list[tuple[object, ...]] = []
        self.counts = twin.Counts()
        self.reads = twin.OwnedReads(self, self.counts)

    def now(self) -> float:
        return self.time

    def decode(self, raw: bytes) -> object:
        return decode_value(raw)

    def _find(self, *call: object) -> Any:  # Any: see `held`
        self.journal.append(call)
        found = self.held.get(call[1])
        if isinstance(found, Exception):
            raise found
        return found

    def begin_read(self, key: object, max_staleness: object, *, is_attempt: bool) -> Any:
        # Any: see `held`
        return self._find("begin_read", key, max_staleness, is_attempt)

    async def read_again(self, key: object, began_at: float, error: CacheError) -> Any:
        # Any: see `held`
        return self._find("read_again", key, began_at, error)

    def read_here(self, key: object) -> Any:  # Any: see `held`
        return self._find("read_here", key)

    def remember(self, key: str, entry: Entry, value: object) -> None:
        self.journal.append(("remember", key, entry, value))

    def counted(self) -> tuple[int, int]:
        return self.counts.hits, self.counts.misses


def entry_of(value: object) -> Entry:
    return Entry(encode_value(value), 1, 0, math.inf)


@each_twin
def test_what_is_remembered_is_read_without_asking(twin: ModuleType) -> None:
    """One look, one clock, one count."""
    scene = Scene(twin)
    scene.recent.update(ada=1, bob=(2, 5.0))

    assert [1, 2] == [scene.reads.read_here("ada", None), scene.reads.read_here("bob", None)]
    assert [1, 2] == [asyncio.run(scene.reads.get("ada")), asyncio.run(scene.reads.get("bob"))]
    assert ([], (4, 0)) == (scene.journal, scene.counted())


@each_twin
@pytest.mark.parametrize(("time", "key"), [(5.0, "bob"), (10.5, "ada"), (10.5, "bob")])
def test_what_has_ended_or_may_have_been_replaced_is_asked_for(
    twin: ModuleType, time: float, key: str
) -> None:
    """The instant itself is past the end of a value, and within the validity."""
    scene = Scene(twin)
    scene.recent.update(ada=1, bob=(2, 5.0))
    scene.time = time

    assert "absent" == scene.reads.read_here(key, "absent")
    assert "absent" == asyncio.run(scene.reads.get(key, "absent", max_staleness=3))
    assert [("read_here", key), ("begin_read", key, 3, True)] == scene.journal
    assert (0, 1) == scene.counted()


@each_twin
def test_at_the_last_instant_of_its_validity_it_is_read(twin: ModuleType) -> None:
    """The other side of that border."""
    scene = Scene(twin)
    scene.recent.update(ada=1)
    scene.time = 10.0

    assert 1 == scene.reads.read_here("ada", None)


@each_twin
@pytest.mark.parametrize("key", [None, 1.5, ("ada",), b"ada", 7, Name("ada")])
def test_what_is_no_text_is_never_found_among_texts(twin: ModuleType, key: object) -> None:
    """Nor refused before those were asked who say what is wrong with it."""
    scene = Scene(twin)
    scene.recent.update(ada=1)
    scene.held[key] = CodecError("no key")

    with pytest.raises(CodecError, match="no key"):
        scene.reads.read_here(key, None)
    with pytest.raises(CodecError, match="no key"):
        asyncio.run(scene.reads.get(key))
    assert (0, 0) == scene.counted()


@each_twin
def test_what_waits_is_cancelled_with_its_caller(twin: ModuleType) -> None:
    """A read is a coroutine function's coroutine: a task of its own, if one wants."""

    async def body() -> bool:
        scene = Scene(twin)
        waiting = scene.held["ada"] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(scene.reads.get("ada"))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        return waiting.cancelled() and task.cancelled()

    assert inspect.iscoroutinefunction(twin.OwnedReads.get)
    assert asyncio.run(body())


@each_twin
def test_a_first_attempt_that_failed_is_followed_by_another(twin: ModuleType) -> None:
    """With the instant at which it began, and how it failed."""

    async def body() -> tuple[object, list[tuple[object, ...]], NotOwnerError]:
        scene, error = Scene(twin), NotOwnerError("moved")
        attempt = asyncio.get_running_loop().create_future()
        scene.time, scene.held["ada"] = 3.0, attempt
        task = asyncio.create_task(scene.reads.get("ada"))
        await asyncio.sleep(0)
        scene.time, scene.held["ada"] = 4.0, encode_value(1)
        attempt.set_exception(error)
        return await task, scene.journal, error

    value, journal, error = asyncio.run(body())

    assert 1 == value
    assert [("begin_read", "ada", None, True), ("read_again", "ada", 3.0, error)] == journal


@each_twin
def test_a_read_that_is_not_awaited_can_be_closed(twin: ModuleType) -> None:
    """Before it began, and while it waits; after its end compiled coroutines do not allow it."""
    scene = Scene(twin)
    loop = asyncio.new_event_loop()
    scene.held["ada"] = loop.create_future()

    begun, unbegun = scene.reads.get("ada"), scene.reads.get("ada")
    assert scene.held["ada"] is begun.send(None)
    begun.close()
    unbegun.close()
    loop.close()

    assert [("begin_read", "ada", None, True)] == scene.journal


VALUES: Final = st.one_of(
    st.none(), st.booleans(), st.integers(-9, 9), st.text(max_size=2 * LIMIT), st.just([1])
)
KEYS: Final = st.sampled_from(["ada", "bob", b"ada", 7])
STEPS: Final = st.lists(
    st.one_of(
        st.tuples(st.just("remember"), st.sampled_from(["ada", "bob"]), VALUES.filter(bool)),
        st.tuples(st.just("remember until"), st.sampled_from(["ada", "bob"]), VALUES),
        st.tuples(st.just("store"), KEYS, VALUES),
        st.tuples(st.just("far"), KEYS, VALUES),
        st.tuples(st.just("fail"), KEYS, st.none()),
        st.tuples(st.just("valid until"), st.just(""), st.floats(0.0, 20.0)),
        st.tuples(st.just("go on"), st.just(""), st.floats(0.0, 5.0)),
        st.tuples(st.just("get"), KEYS, st.none()),
        st.tuples(st.just("read here"), KEYS, st.none()),
    ),
    max_size=20,
)


class Arrived:
    """What was asked of another member and is there at once."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw

    def __await__(self) -> Generator[None, None, bytes]:
        yield from ()
        return self.raw


def play(scene: Scene, steps: list[tuple[str, Any, Any]]) -> list[object]:  # Any: see STEPS
    """Do all steps; return what became of each read."""
    outcomes: list[object] = []
    for step, key, value in steps:
        match step:
            case "remember":
                scene.recent[key] = value
            case "remember until":
                scene.recent[key] = (value, scene.time + 3.0)
            case "store":
                scene.held[key] = entry_of(value)
            case "far":
                scene.held[key] = Arrived(encode_value(value))
            case "fail":
                scene.held[key] = CodecError("no key")
            case "valid until":
                scene.validity.until = value
            case "go on":
                scene.time += value
            case "get":
                outcomes.append(outcome(lambda key=key: drive(scene.reads.get(key, "absent"))))
            case _:
                is_far = isinstance(scene.held.get(key), Arrived)
                held = scene.held.pop(key) if is_far else None
                outcomes.append(outcome(lambda key=key: scene.reads.read_here(key, "absent")))
                scene.held |= {key: held} if is_far else {}
    return outcomes


def drive(coroutine: Any) -> object:  # Any: a coroutine that waits for nothing
    with pytest.raises(StopIteration) as ended:
        coroutine.send(None)
    return ended.value.value


def outcome(call: Any) -> object:  # Any: what to call
    try:
        return call()
    except CodecError as error:
        return type(error)


@given(STEPS)
def test_both_twins_do_the_same(steps: list[tuple[str, Any, Any]]) -> None:
    """The same answers, the same questions to those below, the same counts."""
    python, chosen = Scene(owned_reads), Scene(owned)

    assert play(python, steps) == play(chosen, steps)
    assert python.journal == chosen.journal
    assert python.counted() == chosen.counted()
