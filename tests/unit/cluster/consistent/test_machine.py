"""The machine as a whole: it answers everything, and equal logs make equal bytes."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from cache.cluster.consistent.machine import ConsistentMachine
from cache.cluster.consistent.state.commands import (
    COST,
    NAME_BYTES_MAX,
    STATE_BYTES_MAX,
    Acquire,
    AnyAnswer,
    AnyCommand,
    Append,
    Code,
    CountDown,
    CounterAdd,
    CounterExchange,
    CounterGet,
    Destroy,
    Failure,
    Kind,
    LatchGet,
    LogRead,
    Look,
    MapDelete,
    MapExchange,
    MapExchangeVersion,
    MapGet,
    MapPage,
    MapPutIfAbsent,
    MapSet,
    Outcome,
    Release,
    Renew,
    Seats,
    TakeIds,
    Touch,
    Withdraw,
    encode,
)
from tests.unit.cluster.consistent.scene import Scene

NAMES = (b"x", b"y")


def any_command(rng: Random) -> AnyCommand:
    """Return a sensible command, of any kind."""
    name = rng.choice(NAMES)
    kind = rng.choice((Kind.LOCK, Kind.SEMAPHORE, Kind.ELECTION))
    owner, small, value = rng.randrange(3), rng.randrange(4), bytes([rng.randrange(3)])
    lease = rng.choice((0.0, 0.0, 1.0))
    choices: tuple[AnyCommand, ...] = (
        MapSet(name, value, value),
        MapDelete(name, value),
        MapPutIfAbsent(name, value, b"p"),
        MapExchange(name, value, value, rng.choice((None, b"z"))),
        MapExchangeVersion(name, value, small, b"v"),
        CounterAdd(name, small),
        CounterExchange(name, small, 1),
        Acquire(name, kind, owner, 1 + (kind is Kind.SEMAPHORE), 1, small > 0, lease, value),
        Acquire(name, kind, owner, 1 + (kind is Kind.SEMAPHORE)),
        Release(name, kind, owner, small),
        Withdraw(name, kind, owner),
        Renew(name, kind, owner, small),
        Touch(b""),
        CountDown(name, 3, small),
        TakeIds(name, 1 + small),
        Append(name, [value] * (1 + small), 5, 100),
        Destroy(name, rng.choice(list(Kind))),
    )
    return rng.choice(choices)


def step(scene: Scene, rng: Random) -> None:
    """Tell a scene one thing, sometimes that a session is over."""
    scene.time += rng.choice((0.0, 0.1, 0.7))
    if rng.random() < 0.05:
        scene.end(rng.randrange(1, 4))
    else:
        scene.tell(any_command(rng), session=rng.randrange(4))


@pytest.mark.parametrize("seed", range(30))
def test_equal_logs_make_equal_bytes(seed: int) -> None:
    """On every replica, also on one that was restored in the middle."""
    rng, scene = Random(seed), Scene()
    for _ in range(150):
        step(scene, rng)
    restored = ConsistentMachine()
    restored.restore(scene.machine.snapshot())
    assert scene.machine.snapshot() == restored.snapshot()
    assert scene.machine.used_bytes == restored.used_bytes
    middle = len(scene.steps)

    for _ in range(150):
        step(scene, rng)
    for data, index, time, session in scene.steps[middle:]:
        if isinstance(data, bytes):
            restored.apply(data, index=index, time=time, session=session)
        else:
            restored.session_ended(data, index=index, time=time)

    assert scene.machine.snapshot() == scene.replay().snapshot() == restored.snapshot()
    assert scene.machine.used_bytes == restored.used_bytes


@pytest.mark.parametrize("seed", range(10))
def test_nothing_is_left_of_what_was_ended_and_destroyed(seed: int) -> None:
    """No byte is counted twice, or for ever."""
    rng, scene = Random(seed), Scene()
    for _ in range(200):
        step(scene, rng)
    for session in range(1, 4):
        scene.end(session)
    for name in NAMES:
        for kind in (Kind.MAP, Kind.COUNTER, Kind.LATCH, Kind.IDS, Kind.LOG):
            scene.tell(Destroy(name, kind))

    empty = Scene()
    empty.time = scene.time
    empty.tell(Touch(b""))
    assert 0 == scene.machine.used_bytes
    assert empty.machine.snapshot() == scene.machine.snapshot()


@given(st.binary(max_size=40))
def test_whatever_bytes_are_answered(data: bytes) -> None:
    """An entry is in the log of every replica: one that raised would end them all."""
    machine = ConsistentMachine()

    assert machine.apply(data, index=1, time=0.0, session=1)
    assert machine.query(data)
    machine.topic(data)


@given(st.randoms(use_true_random=False), st.data())
def test_damaged_commands_are_answered(rng: Random, data: st.DataObject) -> None:
    """Near misses get further into the machine than noise does."""
    scene = Scene()
    damaged = bytearray(encode(any_command(rng)))
    place = data.draw(st.integers(0, len(damaged) - 1))
    damaged[place] = data.draw(st.integers(0, 255))

    scene.tell_bytes(bytes(damaged), session=1)
    scene.tell_bytes(bytes(damaged) + b"\0", session=1)


@pytest.mark.parametrize("data", [b"", b"\x93\x63\x61x\x00", encode(Touch(b"")) + b"\0", b"\xc1"])
def test_what_is_no_command_is_refused_and_changes_nothing(data: bytes) -> None:
    """Also when a newer version knows it."""
    scene = Scene()
    before = scene.machine.snapshot()

    assert Failure(Code.MALFORMED) == scene.tell_bytes(data)
    assert before == scene.machine.snapshot()


@pytest.mark.parametrize("name", [b"", b"n" * (NAME_BYTES_MAX + 1)])
def test_names_have_a_limit(name: bytes) -> None:
    """Empty is no name."""
    scene = Scene()

    assert Failure(Code.NAME, NAME_BYTES_MAX) == scene.tell(CounterAdd(name, 1))
    assert Outcome(True, 1) == scene.tell(CounterAdd(b"n" * NAME_BYTES_MAX, 1))


def test_a_full_state_refuses_and_takes_again_what_was_freed() -> None:
    """Each kind of structure counts what it keeps."""
    scene = Scene()
    scene.tell(MapSet(b"x", b"k", b"v" * 1000))
    scene.machine._room.limit = scene.machine.used_bytes + COST  # room for nothing with a name
    full = Failure(Code.FULL, scene.machine._room.limit)
    commands = (
        MapSet(b"x", b"l", b"v"),
        CounterAdd(b"x", 1),
        Acquire(b"x", Kind.LOCK, 1),
        CountDown(b"x", 3),
        TakeIds(b"x", 1),
        Append(b"x", [b"r"], 9, 9),
    )
    for command in commands:
        assert full == scene.tell(command, session=1)

    scene.tell(MapDelete(b"x", b"k"))
    for command in commands:
        assert not isinstance(scene.tell(command, session=1), Failure)
    assert STATE_BYTES_MAX >= scene.machine.used_bytes > 0


def test_an_object_that_changed_is_named_once() -> None:
    """Held queries about it are asked again."""
    scene = Scene()
    topic = scene.machine.topic
    scene.tell(MapSet(b"x", b"k", b"v"))
    scene.tell(MapSet(b"x", b"k", b"w"))
    scene.tell(CounterAdd(b"x", 1))
    assert [
        topic(encode(MapGet(b"x", b"k"))),
        topic(encode(CounterGet(b"x"))),
    ] == scene.machine.take_changed()

    scene.tell(MapExchangeVersion(b"x", b"k", 99, b"no"))
    scene.tell(MapDelete(b"x", b"absent"))
    assert [] == scene.machine.take_changed()


@pytest.mark.parametrize("seed", range(10))
def test_a_held_query_changes_its_answer_only_when_its_object_was_named(seed: int) -> None:
    """Or who waits would wait for ever."""
    rng, scene = Random(seed), Scene()
    queries = [
        query
        for name in NAMES
        for query in (
            MapGet(name, b"\1"),
            MapGet(name, b"\2", 0),
            CounterGet(name),
            Look(name, Kind.LOCK),
            Look(name, Kind.SEMAPHORE),
            LatchGet(name),
            LogRead(name, 0, 10),
        )
    ]
    answers = [timeless(scene.ask(query)) for query in queries]
    for _ in range(300):
        step(scene, rng)
        changed = scene.machine.take_changed()
        for place, query in enumerate(queries):
            answer = timeless(scene.ask(query))
            named = scene.machine.topic(encode(query)) in changed
            assert named or answer == answers[place]
            answers[place] = answer


def timeless(answer: AnyAnswer | None) -> AnyAnswer | None:
    """Return an answer without what is left of a lease, which goes down with the clock."""
    return structs.replace(answer, lease_left=0.0) if isinstance(answer, Seats) else answer


def test_a_restored_machine_names_what_either_state_had() -> None:
    """What waits for an object that is gone is asked again, too."""
    scene, other = Scene(), Scene()
    scene.tell(CounterAdd(b"x", 1))
    other.tell(Append(b"y", [b"r"], 9, 9))
    other.acquire(1)
    other.machine.take_changed()

    other.machine.restore(scene.machine.snapshot())

    topic = scene.machine.topic
    names = [
        topic(encode(query))
        for query in (Look(b"x", Kind.LOCK), LogRead(b"y", 0, 1), CounterGet(b"x"))
    ]
    assert names == other.machine.take_changed()


def test_pages_are_whole_and_in_order() -> None:
    """Each goes on after the last key of the one before."""
    scene = Scene()
    for number in range(25):
        scene.tell(MapSet(b"x", b"%02d" % (24 - number), b"v"))

    keys: list[bytes] = []
    more = True
    while more:
        page = scene.ask(MapPage(b"x", keys[-1] if keys else b"", 10))
        assert page is not None
        keys += [key for key, _, _ in page.entries]  # type: ignore[union-attr]  # a Page
        more = page.more  # type: ignore[union-attr]  # the same

    assert [b"%02d" % number for number in range(25)] == keys
