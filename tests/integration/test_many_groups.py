"""More than one group: names spread over them, each with its own leader; and two of one name that meet."""

from __future__ import annotations

import pytest

from cache.cluster import ConsistentConfig
from cache.cluster.node import Node
from cache.cluster.raft.host import RaftHost, group_names, group_of
from cache.errors import NoQuorumError
from cache.testing import TestCluster, cluster_test
from tests.integration.counting import consensus_test, uuids

FOUR = ConsistentConfig.local(found_at_start=True, groups=4)
GROUPS = group_names(4)
NAMES = [f"hits-{number}" for number in range(24)]

TOO_SMALL = ConsistentConfig.local(expected_size=2)
"""For four members: two halves of them may each found a group."""


async def add(cluster: TestCluster, index: int, name: str) -> int:
    """Add one to a counter through a member; return what it is then."""

    async def call(node: Node) -> int:
        return await node.consistent.counter(name).add()

    return await cluster.member(index).run(call)


async def add_to_all(cluster: TestCluster) -> list[int]:
    """Add one to each counter, through one member after the other."""
    indexes = [member.index for member in cluster.members]
    return [await add(cluster, indexes[n % len(indexes)], name) for n, name in enumerate(NAMES)]


async def leaders(cluster: TestCluster) -> dict[str, int]:
    """Return who leads each group, once all members agree."""
    return {group: await cluster.wait_for_consensus(group=group) for group in GROUPS}


@cluster_test("simulated", "sockets", size=3, consistent=FOUR)
async def test_names_spread_over_four_groups(cluster: TestCluster) -> None:
    """Each with a leader, a log and a uuid of its own; every name is in one of them, on every member."""
    await leaders(cluster)
    before = {group: (await cluster.member(0).raft(group)).commit for group in GROUPS}
    assert [1] * len(NAMES) == await add_to_all(cluster)
    assert [2] * len(NAMES) == await add_to_all(cluster)

    infos = {group: await cluster.member(0).raft(group) for group in GROUPS}
    assert 4 == len({info.uuid for info in infos.values()})
    used = {group_of(name, GROUPS) for name in NAMES}
    assert set(GROUPS) == used
    for group in GROUPS:
        await cluster.wait_for_equal_states(group=group)
        assert infos[group].commit > before[group]


@cluster_test("simulated", size=5, consistent=FOUR)
async def test_every_group_goes_on_when_members_die(cluster: TestCluster) -> None:
    """Those that lead, one after the other, are two of five: nothing that was counted is lost."""
    for group in GROUPS:
        await cluster.wait_for_voters(5, group=group)
    by_group = await leaders(cluster)
    assert [1] * len(NAMES) == await add_to_all(cluster)
    first = by_group[GROUPS[0]]
    await cluster.kill(first)

    assert [2] * len(NAMES) == await add_to_all(cluster)
    by_group = await leaders(cluster)
    assert first not in by_group.values()
    await cluster.kill(by_group[GROUPS[3]])
    assert [3] * len(NAMES) == await add_to_all(cluster)


@cluster_test("simulated", size=3, consistent=FOUR, operation_timeout=1.0)
async def test_a_group_without_a_majority_stops_alone(cluster: TestCluster) -> None:
    """One whose leader lives and whose followers do not count for it says so; the others go on."""
    by_group = await leaders(cluster)
    stopped = GROUPS[1]
    leader = by_group[stopped]
    host = await cluster.member(leader).run(_host)
    for member in cluster.members:
        if member.index != leader:
            other = await member.run(_host)
            other.groups[stopped].close()
    assert host.groups[stopped].leads

    names = {group: next(n for n in NAMES if group_of(n, GROUPS) == group) for group in GROUPS}
    with pytest.raises(NoQuorumError, match=stopped):
        await add(cluster, leader, names.pop(stopped))
    for name in names.values():
        assert 1 == await add(cluster, leader, name)


async def _host(node: Node) -> RaftHost:
    return node._consensus.host


@consensus_test("simulated", size=4, consistent=TOO_SMALL)
async def test_two_groups_that_meet_stay_apart_and_are_reported(cluster: TestCluster) -> None:
    """Two halves each founded one, as `expected_size` let them; restarts of one half heal it."""
    left, right = [0, 1], [2, 3]
    cluster.partition(left, right)

    async def halves() -> bool:
        return [2] * 4 == [len(await member.members()) for member in cluster.members]

    await cluster.eventually(halves, what="two halves that see themselves only")
    assert (1, 1) == (await add(cluster, 0, "hits"), await add(cluster, 2, "hits"))
    assert 2 == len(await uuids(cluster))
    cluster.heal()
    await cluster.wait_for_convergence()

    async def all_know_both() -> bool:
        return all([(await member.raft()).other_groups for member in cluster.members])

    await cluster.eventually(all_know_both, what="members that report the other group")
    assert (2, 2) == (await add(cluster, 0, "hits"), await add(cluster, 2, "hits"))
    for index in right:
        await cluster.kill(index)
    for index in right:
        await cluster.restart(index)
    await cluster.wait_for_convergence()

    assert 3 == await add(cluster, 2, "hits")
    assert 1 == len(await uuids(cluster))
    for member in cluster.members:
        assert [] == (await member.raft()).other_groups or member.index in left
