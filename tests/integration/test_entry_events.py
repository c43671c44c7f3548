"""Events of entries: in order per key, with gaps told, while owners come, go and die."""

from __future__ import annotations

import asyncio
import math
from functools import partial
from typing import Any

import msgspec
import pytest

from cache.cluster import EntryEvent, EventsMissed, Node
from cache.cluster.structures.event_log import COUNT_MAX
from cache.cluster.structures.event_owner import IDLE_CHECK, IDLE_SECONDS
from cache.errors import CacheError, ClosedError, ConfigError
from cache.testing import TestCluster, cluster_test
from tests.integration.inside import node_of, run_on
from tests.integration.listening import Listener, listen

KEYS = [f"key-{number}" for number in range(20)]


def events(node: Node, **options: Any) -> Any:
    """Events of the map."""
    return node.map("users").events(**{"include_value": True, **options})


def seen(listener: Listener, key: str) -> list[tuple[str, Any]]:
    """(kind, value) of one key's events, in order."""
    found = [event for event in listener.items if isinstance(event, EntryEvent)]
    return [(event.kind, event.value) for event in found if event.key == key]


def gaps(listener: Listener) -> list[EventsMissed]:
    """Gaps that were reported."""
    return [event for event in listener.items if isinstance(event, EventsMissed)]


@cluster_test("simulated", size=3, replica_count=2)
async def test_every_kind_of_event_is_heard_in_order(cluster: TestCluster) -> None:
    """Whoever owns the key, whoever writes, whoever listens."""
    listener = await listen(cluster, 0, events)
    writer = node_of(cluster, 1).map("users")

    async def write() -> None:
        for key in KEYS:
            await writer.set(key, 1)
            await writer.set(key, 2, tags=["t"])
            await writer.invalidate_tags("t")
            await writer.set(key, 3)
            await writer.delete(key)
            await writer.set(key, 4, ttl=1)

    await run_on(cluster, 1, write)

    await listener.until(lambda items: len(items) == 7 * len(KEYS))
    for key in KEYS:
        assert [
            ("created", 1),
            ("updated", 2),
            ("invalidated", 2),
            ("created", 3),
            ("removed", 3),
            ("created", 4),
            ("expired", 4),
        ] == seen(listener, key)


@cluster_test("simulated", size=3)
async def test_only_what_was_asked_for_is_heard(cluster: TestCluster) -> None:
    """By kind, key and prefix; values only on request."""
    by_kind = await listen(cluster, 0, lambda node: events(node, kinds=["removed"]))
    by_key = await listen(cluster, 1, lambda node: events(node, key="key-3", include_value=False))
    by_prefix = await listen(cluster, 2, lambda node: events(node, prefix="key-1"))
    users = cluster.member(0).map("users")
    for key in KEYS:
        await users.set(key, key)
        await users.delete(key)

    await by_kind.until(lambda items: len(items) == len(KEYS))
    await by_key.until(lambda items: len(items) == 2)
    await by_prefix.until(lambda items: len(items) == 22)
    await cluster.sleep(1.0)
    assert {"removed"} == {event.kind for event in by_kind.items}
    assert [("created", None), ("removed", None)] == seen(by_key, "key-3")
    assert {k for k in KEYS if k.startswith("key-1")} == {e.key for e in by_prefix.items}
    assert [2, 22] == [len(by_key.items), len(by_prefix.items)]


class Writer:
    """Counts every key up through a member until it is told to stop."""

    def __init__(self, cluster: TestCluster, index: int) -> None:
        self.acknowledged: dict[str, int] = {}
        self.going = True
        node = node_of(cluster, index)
        world: Any = cluster._world  # Any: the simulated world
        loop = world._members[index].process.loop
        loop.call_soon(lambda: node._scope.spawn(self._write(node), name="writer"))

    async def _write(self, node: Node) -> None:
        users = node.map("users")
        loop = asyncio.get_running_loop()
        number = 0
        while self.going:
            number += 1
            turn = loop.create_future()
            loop.call_later(0.005, turn.set_result, None)
            await turn
            for key in KEYS:
                try:
                    await users.set(key, number)
                except CacheError:
                    continue
                self.acknowledged[key] = number


async def _check(cluster: TestCluster, listener: Listener, writer: Writer) -> None:
    """Stop; what was heard of each key only rises, and the last write was heard of."""
    writer.going = False
    await cluster.sleep(1.0)
    users = node_of(cluster, 0).map("users")

    async def finish() -> None:
        for key in KEYS:
            await users.set(key, 10**9)

    await run_on(cluster, 0, finish)
    await listener.until(
        lambda items: all(seen(listener, key)[-1:] == [("updated", 10**9)] for key in KEYS)
    )
    for key in KEYS:
        values = [value for _, value in seen(listener, key)]
        assert values == sorted(values), "in order"


@cluster_test("simulated", size=3, replica_count=2)
async def test_nothing_is_missed_when_partitions_move(cluster: TestCluster) -> None:
    """A member joins: its events come after those of the former owners, each once."""
    listener = await listen(cluster, 0, events)
    writer = Writer(cluster, 1)
    await cluster.sleep(0.2)
    await cluster.add_member()
    await cluster.wait_for_convergence()
    await cluster.sleep(0.5)
    owners = {node_of(cluster, 0).map("users").owner_of(key) for key in KEYS}
    assert cluster.member(3).id in owners

    await _check(cluster, listener, writer)

    assert [] == gaps(listener)
    for key in KEYS:
        values = [value for _, value in seen(listener, key)]
        assert list(range(1, writer.acknowledged[key] + 1)) == values[:-1], "each once"


@cluster_test("simulated", size=4, replica_count=2)
async def test_an_owner_that_dies_leaves_a_reported_gap(cluster: TestCluster) -> None:
    """Nobody knows what it had noted last; what follows is in order."""
    listener = await listen(cluster, 0, events)
    writer = Writer(cluster, 1)
    await cluster.sleep(0.2)

    await cluster.kill(3)
    await cluster.wait_for_convergence()

    await _check(cluster, listener, writer)
    assert EventsMissed(None) in gaps(listener)


@cluster_test("simulated", size=4, replica_count=2)
async def test_a_member_that_comes_back_is_not_heard_from_its_beginning(
    cluster: TestCluster,
) -> None:
    """It stood still and was taken for dead: what it had noted before is older than what was heard since."""
    listener = await listen(cluster, 0, events)
    writer = Writer(cluster, 1)
    await cluster.sleep(0.2)

    await cluster.pause(3)
    for index in (0, 1, 2):
        await cluster.eventually(partial(_sees_three, cluster, index), what="a death")
    await cluster.sleep(0.2)
    await cluster.resume(3)
    await cluster.wait_for_convergence()

    await _check(cluster, listener, writer)
    assert EventsMissed(None) in gaps(listener)


@cluster_test("simulated", size=1)
async def test_what_a_stalled_owner_hears_of_others_is_a_gap(cluster: TestCluster) -> None:
    """Whoever owns the partition since may have told it already, and in another order."""
    listener = await listen(cluster, 0, events)
    node = node_of(cluster, 0)
    users = node.map("users")
    await run_on(cluster, 0, lambda: users.set("key", 1))
    await listener.until(lambda items: len(items) == 1)
    encoded, partition = users._access.locate("key")

    def hear_of_another_write() -> bool:
        replica = node._replication.copy_of(partition)
        held = replica.entry("users", encoded)
        assert held is not None
        node._replication.validity.until = -math.inf
        return replica.apply("users", encoded, msgspec.structs.replace(held, hlc=held.hlc + 1))

    assert await run_on(cluster, 0, hear_of_another_write)

    await listener.until(lambda items: len(items) == 2)
    assert [("created", 1)] == seen(listener, "key")
    assert [EventsMissed(None)] == gaps(listener)


async def _sees_three(cluster: TestCluster, index: int) -> bool:
    return len(await cluster.member(index).members()) == 3


@cluster_test("simulated", size=2, replica_count=1)
async def test_a_reader_that_is_slow_is_told_how_many_it_missed(cluster: TestCluster) -> None:
    """An owner remembers so many changes, whoever reads."""
    node = node_of(cluster, 0)

    async def scenario() -> tuple[int, int]:
        users = node.map("users")
        async with users.events() as reader:
            for number in range(4 * COUNT_MAX):
                await users.set("key", number)
            heard = missed = 0
            while heard < COUNT_MAX:
                event = await anext(reader)
                if isinstance(event, EventsMissed):
                    assert event.count is not None
                    missed += event.count
                else:
                    heard += 1
            return heard, missed

    assert (COUNT_MAX, 3 * COUNT_MAX) == await run_on(cluster, 0, scenario)


@cluster_test("simulated", size=3, replica_count=2)
async def test_a_reader_goes_on_where_another_stopped(cluster: TestCluster) -> None:
    """By its token, on another member."""
    users = cluster.member(0).map("users")

    async def first() -> str:
        async with events(node_of(cluster, 0)) as reader:
            for number in range(6):
                await node_of(cluster, 0).map("users").set("key", number)
            assert [0, 1] == [(await anext(reader)).value for _ in range(2)]
            return str(reader.token)

    token = await run_on(cluster, 0, first)
    await users.set("key", 6)
    listener = await listen(cluster, 1, lambda node: events(node, after=token))

    await listener.until(lambda items: len(items) == 5)
    assert [2, 3, 4, 5, 6] == [value for _, value in seen(listener, "key")]


@cluster_test("simulated", size=2)
async def test_nothing_is_noted_when_nobody_listens(cluster: TestCluster) -> None:
    """Writes without listeners cost nothing; those who left are forgotten after a minute."""
    node = node_of(cluster, 0)
    replicas = [replica for replica in node._replication.serving if replica is not None]
    assert all(replica.listener is None for replica in replicas)

    async def scenario() -> None:
        async with events(node):
            assert all(replica.listener is not None for replica in replicas)

    await run_on(cluster, 0, scenario)
    await cluster.sleep(IDLE_SECONDS + 1)
    for number in range(IDLE_CHECK * 4):
        await cluster.member(0).map("users").set(f"k{number}", 1)
    assert all(replica.listener is None for replica in replicas)


@cluster_test("simulated", size=1)
async def test_bad_options_are_refused_by_name(cluster: TestCluster) -> None:
    """Before anything is sent."""
    users = node_of(cluster, 0).map("users")
    with pytest.raises(ConfigError, match="kinds="):
        users.events(kinds=["changed"])  # type: ignore[list-item]  # that is the point
    with pytest.raises(ConfigError, match="key and prefix"):
        users.events(key="a", prefix="b")
    with pytest.raises(ConfigError, match="after='x'"):
        users.events(after="x")
    with pytest.raises(ClosedError, match="enter the events first"):
        await anext(users.events())
