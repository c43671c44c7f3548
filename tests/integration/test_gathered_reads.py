"""Reads of one tick travel together: each is answered as if it had been alone, whatever befalls the owner."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack

import pytest

from cache.cluster import ClusterConfig, Node
from cache.errors import ClosedError, NoQuorumError, WrongLoopError
from cache.testing import TestCluster, cluster_test
from tests.integration.inside import node_of, run_on
from tests.integration.waiting import eventually

KEYS = [f"key-{number}" for number in range(200)]
VALUES = {key: number for number, key in enumerate(KEYS)}


async def filled(cluster: TestCluster) -> None:
    await cluster.member(0).map("users").set_many(VALUES)


async def get_together(
    cluster: TestCluster, index: int, keys: Sequence[str] = KEYS
) -> dict[str, object]:
    """Begin reads of all keys in one tick of a member's loop; return what came of each."""
    users = node_of(cluster, index).map("users")

    async def read() -> dict[str, object]:
        calls = [users.get(key) for key in keys]
        return dict(zip(keys, await asyncio.gather(*calls, return_exceptions=True), strict=True))

    outcomes: dict[str, object] = await run_on(cluster, index, read)
    return outcomes


def reading_of(cluster: TestCluster, index: int, name: str) -> float:
    return node_of(cluster, index).stats().readings[name]


@cluster_test("simulated", size=3, replica_count=2)
async def test_many_reads_of_one_tick_need_few_requests(cluster: TestCluster) -> None:
    """One that was begun before the crowd was noticed, and one for each of the two owners."""
    await filled(cluster)
    before = [reading_of(cluster, index, "rpc.requests") for index in (0, 1)]

    found = await get_together(cluster, 2)

    asked = sum(reading_of(cluster, index, "rpc.requests") - before[index] for index in (0, 1))
    assert VALUES == found
    assert asked <= 6


@cluster_test("simulated", size=3, replica_count=2)
async def test_a_crowd_that_asked_a_silent_owner_is_answered_by_copies(
    cluster: TestCluster,
) -> None:
    """Every read goes on alone, within the operation timeout of when it began."""
    await filled(cluster)
    users, silent = node_of(cluster, 0).map("users"), cluster.member(1).id
    asked = [key for key in KEYS if users.owner_of(key) == silent]
    before = reading_of(cluster, 0, "router.backup_reads")
    started_at = cluster.now()

    await cluster.pause(1)
    found = await get_together(cluster, 0, asked)
    seconds = cluster.now() - started_at
    await cluster.resume(1)

    assert {key: VALUES[key] for key in asked} == found
    assert len(asked) <= reading_of(cluster, 0, "router.backup_reads") - before
    assert seconds < users._access.router.config.operation_timeout


@cluster_test("simulated", size=3, replica_count=2)
async def test_a_crowd_that_asked_an_owner_that_died_is_answered(cluster: TestCluster) -> None:
    """By who took over, or by the copy."""
    await filled(cluster)
    reading = asyncio.ensure_future(get_together(cluster, 0))
    await asyncio.sleep(0)

    await cluster.kill(1)

    assert await reading == VALUES


@cluster_test("simulated", size=2, replica_count=1, member_quorum=2)
async def test_a_crowd_without_a_quorum_is_refused(cluster: TestCluster) -> None:
    """From the moment on in which it is missed, while the table still names a live owner."""
    await filled(cluster)
    node = node_of(cluster, 0)
    users = node.map("users")
    elsewhere = [key for key in KEYS if users.owner_of(key) == cluster.member(1).id]
    await get_together(cluster, 0)

    node._replication.set_quorum(reached=False)
    refused = await get_together(cluster, 0, elsewhere)
    node._replication.set_quorum(reached=True)

    assert {NoQuorumError} == set(map(type, refused.values()))


@cluster_test("simulated", size=2, replica_count=1)
async def test_a_crowd_on_a_closed_node_is_refused(cluster: TestCluster) -> None:
    """Nothing waits for an answer that cannot come."""
    await filled(cluster)
    node = node_of(cluster, 0)
    users = node.map("users")
    elsewhere = [key for key in KEYS if users.owner_of(key) != cluster.member(0).id]
    await get_together(cluster, 0)

    await run_on(cluster, 0, node.close)
    refused = await asyncio.gather(*map(users.get, elsewhere), return_exceptions=True)

    assert {ClosedError} == set(map(type, refused))


async def test_a_read_from_another_thread_is_refused_beside_a_crowd() -> None:
    """Also while reads are gathered here, which its own would be added to."""
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(Node(ClusterConfig.local(replica_count=1)))
        config = ClusterConfig.local(replica_count=1, peers=[one.address])
        await stack.enter_async_context(Node(config))

        async def is_shared() -> bool:
            rows = one.partition_table().rows
            return len({row.owner for row in rows}) == 2 and not any(row.joining for row in rows)

        await eventually(is_shared, within=30.0, what="a table of two owners")
        users = one.map("users")
        await users.set_many(VALUES)
        elsewhere = [key for key in KEYS if users.owner_of(key) != one.id]

        async def from_a_thread() -> None:
            with pytest.raises(WrongLoopError):
                await users.get(elsewhere[0])

        reading = [asyncio.ensure_future(users.get(key)) for key in elsewhere]
        await asyncio.sleep(0)
        assert users._access.router._reads._gathering
        await asyncio.to_thread(asyncio.run, from_a_thread())

        assert [VALUES[key] for key in elsewhere] == await asyncio.gather(*reading)
