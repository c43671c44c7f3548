"""An operator gives up a group in memory that lost a majority of its logs."""

from __future__ import annotations

import pytest

from cache.cluster.node import Node
from cache.cluster.structures.lock import LockToken
from cache.errors import NoQuorumError, RejectedError
from cache.testing import TestCluster
from tests.integration.counting import Counter, consensus_test, leader_of, uuids, voters_of


async def give_up(cluster: TestCluster, index: int, uuid: str) -> None:
    """Give the group up, as the operator of a member does."""

    async def call(node: Node) -> None:
        await node.consistent.give_up("main", uuid)

    await cluster.member(index).run(call)


async def lose(cluster: TestCluster) -> tuple[int, str]:
    """Let two of three voters restart without their logs; return who is left, and the group."""
    left = await leader_of(cluster)
    await voters_of(cluster, 3)
    await Counter(cluster, left).add()
    [uuid] = await uuids(cluster)
    others = [member.index for member in cluster.members if member.index != left]
    for index in others:
        await cluster.kill(index)
    for index in others:
        await cluster.restart(index)

    async def is_known() -> bool:
        return len((await cluster.member(left).raft()).gone) >= 2

    await cluster.eventually(is_known, what="the loss of two logs")
    await cluster.wait_for_convergence()
    await cluster.wait_for_no_leader()
    return left, uuid


@consensus_test("simulated", size=3)
async def test_a_lost_group_is_given_up_and_an_empty_one_founded(cluster: TestCluster) -> None:
    """All members use the new one; nobody hears of the old one again; a session of it counts for nothing."""
    left, uuid = await lose(cluster)
    with pytest.raises(NoQuorumError, match="a majority of its logs is lost"):
        await Counter(cluster, left).get(timeout=1.0)

    await give_up(cluster, left, uuid)
    await voters_of(cluster, 3)

    assert uuid not in await uuids(cluster)
    assert [1, 2, 3] == [await Counter(cluster, index).add() for index in range(3)]
    assert 1 == len(await uuids(cluster))
    assert [] == (await cluster.member(left).raft()).other_groups


@consensus_test("simulated", size=3)
async def test_a_group_that_may_live_is_not_given_up(cluster: TestCluster) -> None:
    """Two that are only out of reach, or down without having said that they lost anything, are a majority."""
    leader = await leader_of(cluster)
    await voters_of(cluster, 3)
    [uuid] = await uuids(cluster)
    with pytest.raises(RejectedError, match="does not know that a majority"):
        await give_up(cluster, leader, uuid)
    with pytest.raises(RejectedError, match="has the uuid"):
        await give_up(cluster, leader, "00")

    cluster.isolate(leader)
    await cluster.wait_for_no_leader(among=[leader])
    with pytest.raises(RejectedError, match="does not know that a majority"):
        await give_up(cluster, leader, uuid)
    cluster.heal()
    await cluster.wait_for_consensus()
    assert 1 == await Counter(cluster, leader).add()


@consensus_test("simulated", size=3, data_dir="kept")
async def test_a_group_on_disks_is_not_given_up(cluster: TestCluster) -> None:
    """Its members come back with what they had."""
    leader = await leader_of(cluster)
    [uuid] = await uuids(cluster)

    with pytest.raises(RejectedError, match="start its members with their data_dir"):
        await give_up(cluster, leader, uuid)


@consensus_test("simulated", size=3)
async def test_who_held_a_lock_of_a_group_that_was_given_up_is_told(cluster: TestCluster) -> None:
    """And may take it again: the new group gives numbers to sessions that the old one had given, too."""
    left = await leader_of(cluster)
    tokens: list[LockToken] = []

    async def acquire(node: Node) -> None:
        tokens.append(await node.consistent.lock("x").acquire(wait="5s"))

    await cluster.member(left).run(acquire)
    _, uuid = await lose(cluster)
    await give_up(cluster, left, uuid)
    await voters_of(cluster, 3)
    await cluster.member(left).run(acquire)

    assert [True, False] == [token.lost.is_set() for token in tokens]
