"""Writes that depend on what is there, and functions that run next to the data."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from cache.cluster import ClusterConfig, MutableEntry, Node
from cache.errors import (
    CacheError,
    ClosedError,
    CodecError,
    ConfigError,
    IndeterminateError,
    ProcessorError,
    UnknownProcessorError,
    WrongTypeError,
)
from cache.testing import TestCluster, cluster_test

KEYS = [f"key-{number}" for number in range(30)]


class ForeignError(Exception):
    """Known everywhere, as all members of these worlds share one process."""


def append(entry: MutableEntry, item: Any) -> int:
    """Add an item to a list; the new length."""
    items = [*(entry.value or ()), item]
    entry.set(items)
    return len(items)


def refuse(entry: MutableEntry, text: str) -> None:
    """Change the entry, then think better of it."""
    entry.set("changed")
    raise ForeignError(text)


def lose(entry: MutableEntry) -> None:
    """Raise what nobody can name."""

    class UnnamedError(Exception):
        pass

    raise UnnamedError("lost")


def take(entry: MutableEntry) -> Any:
    """Remove the key and return what it held."""
    value = entry.value
    entry.delete()
    return value


def describe(entry: MutableEntry) -> list[Any]:
    """Look only."""
    return [entry.key, entry.exists, entry.value, entry.ttl]


def spell(entry: MutableEntry) -> object:
    """Return what no message carries."""
    entry.set("changed")
    return object()


FUNCTIONS = (append, refuse, lose, take, describe, spell)


def setup(node: Node) -> None:
    """Register the functions on a member."""
    for function in FUNCTIONS:
        node.register_processor(f"test.{function.__name__}", function)


SETUP = f"{__name__}:{setup.__name__}"


def _node(cluster: TestCluster, index: int) -> Node:
    return cluster.member(index).node


@cluster_test(size=3, replica_count=2)
async def test_a_set_may_have_a_condition(cluster: TestCluster) -> None:
    """Whoever asks: the key's owner decides."""
    for number, key in enumerate(KEYS):
        users = cluster.member(number % 3).map("users")
        assert not await users.set(key, "no", if_present=True)
        assert await users.set(key, "first", if_absent=True)
        assert not await users.set(key, "no", if_absent=True)
        entry = await users.get_entry(key)
        assert entry is not None
        assert await users.set(key, "second", if_version=entry.version)
        assert not await users.set(key, "no", if_version=entry.version)
        assert await users.set(key, "third", if_present=True)

    assert dict.fromkeys(KEYS, "third") == await cluster.member(0).map("users").get_many(KEYS)


@cluster_test("simulated", size=3)
async def test_a_set_keeps_or_ends_a_time_to_live(cluster: TestCluster) -> None:
    """The clock is virtual: what is kept is exact."""
    wall = _node(cluster, 0)._environment.clock.wall
    for number, key in enumerate(KEYS):
        users = cluster.member(number % 3).map("users")
        await users.set(key, 1, ttl=100)
        await users.set(key, 2, keep_ttl=True)
        assert await users.ttl(key) == pytest.approx(100, abs=0.5)
        await users.set(key, 3, expire_at=wall() + 50)
        assert await users.ttl(key) == pytest.approx(50, abs=0.5)
        await users.set(key, 4, if_present=True)
        assert await users.ttl(key) == float("inf")
        await users.set(key, 5, expire_at=wall() - 1)
        assert not await users.exists(key)


@cluster_test("simulated", size=1)
async def test_options_that_contradict_each_other_are_refused(cluster: TestCluster) -> None:
    """By name, before anything is sent."""
    users = cluster.member(0).map("users")
    with pytest.raises(ConfigError, match="if_absent and if_present: give one of them"):
        await users.set("k", 1, if_absent=True, if_present=True)
    with pytest.raises(ConfigError, match="ttl and keep_ttl: give one of them"):
        await users.set("k", 1, ttl=3, keep_ttl=True)
    with pytest.raises(ConfigError, match="ttl and expire_at: give one of them"):
        await users.set("k", 1, ttl=3, expire_at=5.0)
    with pytest.raises(ConfigError, match="if_version='x'"):
        await users.set("k", 1, if_version="x")

    assert await users.size() == 0


@cluster_test(size=3, replica_count=2)
async def test_compare_and_set_through_three_members_loses_no_step(cluster: TestCluster) -> None:
    """Three climb one counter at a time: every success is one step."""
    await cluster.member(0).map("counters").set("n", 0)
    steps = 40

    async def climb(index: int) -> None:
        counters = cluster.member(index).map("counters")
        done = 0
        while done < steps:
            seen = await counters.get("n")
            done += await counters.compare_and_set("n", seen, seen + 1)

    async with asyncio.TaskGroup() as group:
        for index in range(3):
            group.create_task(climb(index))

    assert await cluster.member(0).map("counters").get("n") == 3 * steps


@cluster_test("simulated", size=3)
async def test_values_are_compared_with_their_types(cluster: TestCluster) -> None:
    """1 is not True; the order of a dict does not count; an absent key equals nothing."""
    users = cluster.member(0).map("users")
    for number, (held, same, other) in enumerate(
        [
            (1, 1, True),
            (1, 1, 1.0),
            ("1", "1", b"1"),
            (None, None, 0),
            ({"a": 1, "b": [2]}, {"b": [2], "a": 1}, {"a": 1, "b": [2.0]}),
            ([1, 2], [1, 2], [2, 1]),
        ]
    ):
        await users.set(number, held)
        assert not await users.compare_and_set(number, other, "changed")
        assert await users.compare_and_set(number, same, "changed")
    assert not await users.compare_and_set("absent", None, 1)


@cluster_test(size=3, replica_count=2)
async def test_get_and_set_returns_what_was_there(cluster: TestCluster) -> None:
    """Of many exchanges each value comes back once."""
    handles = [cluster.member(number % 3).map("users") for number in range(30)]
    seen = [await users.get_and_set("k", number) for number, users in enumerate(handles)]

    assert [None, *range(29)] == seen


@cluster_test(size=3, replica_count=2)
async def test_fractions_are_summed_and_the_time_to_live_stays(cluster: TestCluster) -> None:
    """Olric drops the time to live; of something that is no number it makes 0."""
    counters = cluster.member(0).map("counters")
    for number, key in enumerate(KEYS):
        counters = cluster.member(number % 3).map("counters")
        await counters.set(key, 1, ttl=1000)
        assert await counters.incr(key, 0.5) == 1.5
        assert await counters.decr(key, 0.25) == 1.25
        assert 900 < (await counters.ttl(key) or 0) <= 1000
        assert await counters.incr(f"new-{key}", 2.5) == 2.5

    await counters.set("text", "one")
    with pytest.raises(WrongTypeError, match="the key holds str"):
        await counters.incr("text", 0.5)
    with pytest.raises(WrongTypeError, match="the key holds float"):
        await counters.incr(KEYS[0], 1)
    assert await counters.get("text") == "one"


@cluster_test("simulated", size=3)
async def test_an_entry_tells_its_version_age_and_size(cluster: TestCluster) -> None:
    """The age grows with the clock; each write has another version."""
    users = cluster.member(1).map("users")
    await users.set("k", "value", ttl=100)
    first = await users.get_entry("k")
    await cluster.sleep(10)
    second = await users.get_entry("k")
    await users.set("k", "value", ttl=100)
    third = await users.get_entry("k")

    assert first is not None
    assert second is not None
    assert third is not None
    assert (first.value, first.size) == ("value", 7)
    assert first.version == second.version != third.version
    assert first.age == pytest.approx(0, abs=0.5)
    assert second.age == pytest.approx(10, abs=0.5)
    assert second.ttl == pytest.approx(90, abs=0.5)
    assert await users.get_entry("absent") is None


@cluster_test(size=3, replica_count=2, setup=SETUP)
async def test_a_function_runs_where_the_key_is(cluster: TestCluster) -> None:
    """With its arguments, one after the other, through whichever member."""
    for number in range(9):
        for key in KEYS:
            lists = cluster.member(number % 3).map("lists")
            assert await lists.execute(key, "test.append", number) == number + 1

    lists = cluster.member(0).map("lists")
    assert [list(range(9))] * len(KEYS) == list((await lists.get_many(KEYS)).values())
    assert await lists.execute("absent", "test.describe") == ["absent", False, None, None]
    for key in KEYS:
        assert await lists.execute(key, "test.take") == list(range(9))
    assert await lists.size() == 0


@cluster_test("simulated", "sockets", size=3, setup=SETUP)
async def test_a_function_that_raises_changes_nothing(cluster: TestCluster) -> None:
    """The caller gets its exception, or one that says what it was."""
    for number, key in enumerate(KEYS):
        users = cluster.member(number % 3).map("users")
        await users.set(key, "kept")
        with pytest.raises(ForeignError, match="no thanks"):
            await users.execute(key, "test.refuse", "no thanks")
        with pytest.raises(ProcessorError, match="UnnamedError: lost"):
            await users.execute(key, "test.lose")
        with pytest.raises(CodecError):
            await users.execute(key, "test.spell")
        with pytest.raises(TypeError):
            await users.execute(key, "test.append")
        with pytest.raises(UnknownProcessorError, match=r"'test\.absent'"):
            await users.execute(key, "test.absent")

    assert dict.fromkeys(KEYS, "kept") == await cluster.member(0).map("users").get_many(KEYS)


@pytest.mark.parametrize(
    ("where", "complaint"),
    [
        ("no.such.module:setup", "No module named"),
        (f"{__name__}:absent", "no attribute 'absent'"),
        (f"{__name__}:KEYS", "cannot be called"),
        (f"{__name__}:describe", "object has no attribute"),
    ],
)
async def test_a_setup_that_cannot_be_used_stops_the_start(where: str, complaint: str) -> None:
    """With the reason; nothing is left running."""
    node = Node(ClusterConfig.local(setup=where))

    with pytest.raises((ConfigError, AttributeError), match=complaint):
        await node.start()
    with pytest.raises(ClosedError):
        node.members()


@pytest.mark.parametrize("where", ["module", ":function", "module:", "a b:c", 3])
def test_a_setup_is_a_module_and_a_function(where: Any) -> None:
    """Checked when the settings are made."""
    with pytest.raises(ConfigError, match="must be module:function"):
        ClusterConfig.local(setup=where)


@cluster_test("simulated", size=1)
async def test_names_of_functions_are_checked(cluster: TestCluster) -> None:
    """At registration, not when they are called."""
    node = _node(cluster, 0)

    async def later(entry: MutableEntry) -> None:
        """Come too late."""

    with pytest.raises(ConfigError, match="the library's"):
        node.register_processor("cache.set", append)
    with pytest.raises(ConfigError, match="1 to 128 characters"):
        node.register_processor("", append)
    with pytest.raises(ConfigError, match="cannot be atomic"):
        node.register_processor("later", later)
    node.register_processor("append", append)
    node.register_processor("append", append)
    with pytest.raises(ConfigError, match="another function"):
        node.register_processor("append", take)


@cluster_test("simulated", size=4, replica_count=3, setup=SETUP)
async def test_a_function_takes_effect_once_while_owners_die(cluster: TestCluster) -> None:
    """Acknowledged items are there once; unknown ones once or not at all; others not."""
    acknowledged: dict[str, list[str]] = {key: [] for key in KEYS}
    unknown: dict[str, list[str]] = {key: [] for key in KEYS}

    async def write(index: int) -> None:
        lists = cluster.member(index).map("lists")
        for number in range(12):
            for key in KEYS:
                item = f"{index}-{number}"
                try:
                    await lists.execute(key, "test.append", item)
                    acknowledged[key].append(item)
                except IndeterminateError:
                    unknown[key].append(item)
                except CacheError:
                    pass  # Refused: it must not be there.

    async def strike() -> None:
        await cluster.sleep(0.05)
        await cluster.kill(3)
        await cluster.sleep(3)
        await cluster.add_member()

    async with asyncio.TaskGroup() as group:
        for index in range(3):
            group.create_task(write(index))
        group.create_task(strike())
    await cluster.wait_for_convergence()

    lists = await cluster.member(0).map("lists").get_many(KEYS)
    assert sum(map(len, acknowledged.values())) > 900
    for key in KEYS:
        assert len(lists[key]) == len(set(lists[key]))
        assert set(acknowledged[key]) <= set(lists[key])
        assert set(lists[key]) <= set(acknowledged[key]) | set(unknown[key])


@cluster_test("simulated", size=3, replica_count=2, setup=SETUP)
async def test_a_retry_gets_the_first_answer(cluster: TestCluster) -> None:
    """The owner applies it, the answer is lost, the owner dies: the backup knows that it was done."""
    ids = [member.id for member in cluster.members]
    table = cluster.member(0).node.partition_table()
    entries = cluster.member(0).node.map("lists")
    key = next(k for k in KEYS if table.rows[entries.partition_of(k)].replicas == (ids[2], ids[1]))
    lists = cluster.member(0).map("lists")
    cluster.cut(2, 0)

    async with asyncio.TaskGroup() as group:
        asked = group.create_task(lists.execute(key, "test.append", "once"))
        await cluster.sleep(0.2)
        held = [await member.holds("lists", key) for member in cluster.members]
        await cluster.kill(2)

    assert [False, True, True] == held
    assert asked.result() == 1
    assert await lists.get(key) == ["once"]


@cluster_test("simulated", size=2)
async def test_a_destroyed_map_is_empty_everywhere(cluster: TestCluster) -> None:
    """And its handle is closed; another one works."""
    await cluster.member(0).map("users").set_many(dict.fromkeys(KEYS, 1))
    node = _node(cluster, 0)

    async def destroy() -> None:
        await node.map("users").destroy()

    world: Any = cluster._world  # Any: the simulated world
    await world._members[0].process.run(destroy())

    assert [await member.map("users").size() for member in cluster.members] == [0, 0]
    assert await cluster.key_copies("users") == {}
