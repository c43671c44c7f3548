"""A member dies without a goodbye."""

import asyncio

from cache.testing import TestCluster, cluster_test
from tests.integration.inside import node_of, run_on

KEYS = {f"key-{number}": number for number in range(1000)}


async def _lose_one_of_two(cluster: TestCluster, victim: int) -> None:
    await cluster.member(0).map("users").set_many(dict(KEYS))
    survivor = cluster.member(1 - victim)

    await cluster.kill(victim)

    assert await survivor.map("users").get_many(list(KEYS)) == KEYS
    await cluster.wait_for_convergence(1)
    assert await survivor.map("users").size() == 1000


@cluster_test(size=2, replica_count=2)
async def test_the_first_of_two_members_dies(cluster: TestCluster) -> None:
    """0 of 1,000 keys are lost, the coordinator's death included."""
    await _lose_one_of_two(cluster, 0)


@cluster_test(size=2, replica_count=2)
async def test_the_second_of_two_members_dies(cluster: TestCluster) -> None:
    """0 of 1,000 keys are lost."""
    await _lose_one_of_two(cluster, 1)


@cluster_test(size=3, replica_count=2)
async def test_a_second_crash_after_copies_are_restored_loses_nothing(
    cluster: TestCluster,
) -> None:
    """Copies are made again without anybody reading (Olric loses half here)."""
    await cluster.member(0).map("users").set_many(dict(KEYS))

    await cluster.kill(0)
    await cluster.wait_for_convergence(2)
    assert {2} == {len(at) for at in (await cluster.key_copies("users")).values()}
    await cluster.kill(1)
    await cluster.wait_for_convergence(1)

    assert await cluster.member(2).map("users").get_many(list(KEYS)) == KEYS


@cluster_test(size=3, replica_count=2)
async def test_a_restarted_member_comes_back_empty_and_is_filled(cluster: TestCluster) -> None:
    """A quick restart on the same address is another life, not a copy."""
    await cluster.member(0).map("users").set_many(dict(KEYS))
    await cluster.kill(2)

    await cluster.restart(2)
    await cluster.wait_for_convergence(3)

    assert {2} == {len(at) for at in (await cluster.key_copies("users")).values()}
    assert await cluster.member(2).map("users").get_many(list(KEYS)) == KEYS


@cluster_test(size=3, replica_count=2)
async def test_a_deleted_key_stays_deleted_when_its_owner_dies(cluster: TestCluster) -> None:
    """Deletes have versions and are on every copy (Olric: 5,949 of 20,000 came back)."""
    users = cluster.member(0).map("users")
    await users.set_many(dict(KEYS))
    await cluster.kill(2)
    assert await users.delete_many(list(KEYS)) == 1000

    await cluster.kill(1)
    await cluster.wait_for_convergence(1)

    assert await users.get_many(list(KEYS)) == {}


@cluster_test("simulated", "processes", size=3, replica_count=2)
async def test_a_frozen_member_is_replaced_and_comes_back(cluster: TestCluster) -> None:
    """A stopped process accepts connections but answers nothing; SWIM notices, then it refutes."""
    await cluster.member(0).map("users").set_many(dict(KEYS))

    await cluster.pause(2)
    survivors = [cluster.member(0), cluster.member(1)]

    async def buried() -> bool:
        return all([len(await m.members()) == 2 for m in survivors])

    await cluster.eventually(buried, what="the frozen member's death")
    assert await cluster.member(1).map("users").get_many(list(KEYS)) == KEYS
    await cluster.resume(2)
    await cluster.wait_for_convergence(3)

    assert await cluster.member(2).map("users").get_many(list(KEYS)) == KEYS


@cluster_test("simulated", size=3, replica_count=2)
async def test_writes_that_wait_for_an_owner_go_on_with_the_next_table(
    cluster: TestCluster,
) -> None:
    """A table that comes late is not slept through: its news is what they wait for."""
    members = [node_of(cluster, index) for index in range(3)]
    coordinator = members[0]._partitions.coordinator_id()
    waiting, victim = (i for i, node in enumerate(members) if node.id != coordinator)
    first = 3 - waiting - victim
    users = members[waiting].map("users")
    keys = [key for key in map(str, range(300)) if users.owner_of(key) == members[victim].id]
    taken: list[float] = []
    written: list[float] = []

    def take(*_: object) -> None:
        taken.append(cluster.now())
        if len(taken) == 1:  # From now on nothing else is late.
            cluster.mend(first, waiting)

    async def write(key: str) -> None:
        await users.set(key, 1)
        written.append(cluster.now())

    async def write_all() -> None:
        await asyncio.gather(*map(write, keys))

    members[waiting]._replication.on_table(take)
    cluster.link(first, waiting, latency=0.075)
    await cluster.kill(victim)
    killed_at = cluster.now()
    await run_on(cluster, waiting, write_all)

    assert taken[0] - killed_at > 0.07
    assert len(keys) == len(written)
    assert written[0] - taken[0] < 0.005
