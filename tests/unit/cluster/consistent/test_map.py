"""Registers, maps, counters, latches and identifiers through their handles, over a group of three."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from cache.cluster.consistent.access import WAIT_MAX, Wait, error_of, seconds_of
from cache.cluster.consistent.map import Versioned
from cache.cluster.consistent.state.commands import Code, Failure
from cache.errors import CacheError, CodecError, ConfigError, NoQuorumError, WrongTypeError
from cache.serializers import SignedPickle
from tests.unit.cluster.consistent.groups import Client, Replicas, consistent, play


def test_a_register_holds_what_was_set_last() -> None:
    """Seen by every client; None is no value."""

    async def scene(replicas: Replicas) -> None:
        one = consistent(replicas, Client(replicas)).register("mode")
        two = consistent(replicas, Client(replicas)).register("mode")
        assert await one.get() is None
        version = await one.set({"level": 3})
        assert {"level": 3} == await two.get() == await two.get(lease=True)
        assert Versioned({"level": 3}, version) == await two.get_entry()
        assert not await two.put_if_absent("x")
        assert await two.compare_and_set({"level": 3}, "b")
        assert not await one.compare_and_set({"level": 3}, "c")
        assert await one.set_if_version(version, "c") is None
        assert await one.delete()
        assert not await one.delete()
        assert await one.compare_and_set(None, "d")
        assert "d" == await two.get()

    play(scene)


def test_a_map_and_a_register_of_one_name_are_two_things() -> None:
    """And so are keys of different types."""

    async def scene(replicas: Replicas) -> None:
        grid = consistent(replicas, Client(replicas))
        table = grid.map("x")
        await grid.register("x").set("register")
        await table.set("k", 1)
        await table.set(b"k", 2)
        assert await table.set_if_version("new", 0, 3)
        assert await table.put_if_absent("other", 4)
        assert await table.compare_and_set("k", 1, 5)
        assert not await table.compare_and_set("k", True, 6)
        assert await table.delete("other")
        assert [(b"k", 2), ("k", 5), ("new", 3)] == [item async for item in table.entries()]
        assert 5 == await table.get("k")
        assert (await table.get_entry("absent")) == Versioned(None, 0)
        assert await table.destroy()
        assert [] == [item async for item in table.entries()]
        assert "register" == await grid.register("x").get()

    play(scene)


def test_a_watch_sees_each_state_that_lasts() -> None:
    """Without polling, from another client."""

    async def scene(replicas: Replicas) -> None:
        writer = consistent(replicas, Client(replicas)).map("x")
        watch = consistent(replicas, Client(replicas)).map("x").watch("k")
        assert Versioned(None, 0) == await anext(watch)
        seen = []
        for value in ("a", "b", None):
            change = writer.delete("k") if value is None else writer.set("k", value)
            pending, _ = await asyncio.gather(anext(watch), change)
            seen.append(pending.value)
        assert ["a", "b", None] == seen

    play(scene)


def test_values_go_through_the_serializer() -> None:
    """As those of other maps."""

    async def scene(replicas: Replicas) -> None:
        register = consistent(replicas, Client(replicas)).register(
            "x", serializer=SignedPickle(b"k" * 32)
        )
        await register.set({1, 2})
        assert {1, 2} == await register.get()
        with pytest.raises(CodecError):
            await consistent(replicas, Client(replicas)).register("x").set({1, 2})

    play(scene, names=("a",))


def test_numbers_are_counted_exchanged_and_taken() -> None:
    """By all clients together."""

    async def scene(replicas: Replicas) -> None:
        one, two = (consistent(replicas, Client(replicas)) for _ in range(2))
        assert 1 == await one.counter("n").add()
        assert 6 == await two.counter("n").add(5)
        assert await one.counter("n").compare_and_set(6, 2**63 - 1)
        with pytest.raises(WrongTypeError, match="counter 'n'"):
            await two.counter("n").add()
        assert 2**63 - 1 == await two.counter("n").get(lease=True)
        assert await two.counter("n").destroy()
        assert 0 == await one.counter("n").get()

        ids, others = one.ids("i", block=3), two.ids("i", block=3)
        assert [1, 2, 3] == [await ids.next() for _ in range(3)]
        assert [4, 7] == [await others.next(), await ids.next()]
        assert range(10, 15) == await others.take(5)
        assert await ids.destroy()

    play(scene)


def test_tasks_that_share_a_handle_get_different_numbers() -> None:
    """Also when they ask for a block at the same time."""

    async def scene(replicas: Replicas) -> None:
        ids = consistent(replicas, Client(replicas)).ids("i", block=4)
        taken = await asyncio.gather(*(ids.next() for _ in range(10)))
        assert 10 == len(set(taken))

    play(scene)


def test_a_latch_lets_all_go_at_once() -> None:
    """Those who wait are answered by the last count."""

    async def scene(replicas: Replicas) -> None:
        one, two = (consistent(replicas, Client(replicas)) for _ in range(2))
        latch = one.latch("start", 2)
        assert 2 == await latch.left()
        assert not await latch.wait("100ms")
        waits = asyncio.gather(latch.wait("5s"), two.latch("start", 2).wait(5))
        assert 1 == await two.latch("start", 2).count_down()
        with pytest.raises(ConfigError, match="in use with 2"):
            await one.latch("start", 3).count_down()
        assert 0 == await latch.count_down()
        assert (True, True) == tuple(await waits)
        assert 0 == await latch.left(lease=True)
        assert await latch.destroy()

    play(scene)


def test_without_a_majority_nothing_is_answered() -> None:
    """Within the deadline, and by name."""

    async def scene(replicas: Replicas) -> None:
        grid = consistent(replicas, Client(replicas, timeout=1.0))
        await grid.counter("n").add()
        replicas.kill("a")
        replicas.kill("b")
        with pytest.raises(NoQuorumError):
            await grid.counter("n").get()
        with pytest.raises(NoQuorumError):
            await grid.latch("x", 1).wait("500ms")
        with pytest.raises(CacheError):
            await grid.counter("n").add()

    play(scene)


@pytest.mark.parametrize("name", ["", "n" * 513, "\0registers", 7, "\ud800"])
def test_bad_names_are_refused_at_once(name: str) -> None:
    """Where they are written."""

    async def scene(replicas: Replicas) -> None:
        with pytest.raises(ConfigError, match="counter name"):
            consistent(replicas, Client(replicas)).counter(name)

    play(scene, names=("a",))


@pytest.mark.parametrize("code", list(Code))
def test_every_refusal_names_the_object(code: Code) -> None:
    """And is an error of this library."""
    assert "lock 'x'" in str(error_of("lock 'x'", Failure(code, 7)))


def test_times_to_wait_are_read_as_elsewhere() -> None:
    """Zero is allowed; for ever is not."""
    given: list[Wait] = [0, 0.0, timedelta(0), 2, "30s", timedelta(minutes=1)]
    assert [0, 0, 0, 2, 30, 60] == [seconds_of(wait) for wait in given]
    refused: list[Any] = [-1, WAIT_MAX + 1, float("inf"), float("nan"), "soon", None]
    for bad in refused:  # Any: what users may try
        with pytest.raises(ConfigError, match="wait="):
            seconds_of(bad)


@pytest.mark.parametrize("bad", [0, -1, True, 1.5, 10**7])
def test_bad_counts_are_refused_at_once(bad: int) -> None:
    """Before anything is sent."""

    async def scene(replicas: Replicas) -> None:
        grid = consistent(replicas, Client(replicas))
        for make in (
            lambda: grid.latch("x", bad),
            lambda: grid.semaphore("x", bad),
            lambda: grid.ids("x", block=bad),
            lambda: grid.log("x", entries_max=bad),
        ):
            with pytest.raises(ConfigError, match="must be 1 to"):
                make()

    play(scene, names=("a",))
