"""A graceful leave hands everything over before it goes."""

import asyncio

from cache.errors import CacheError
from cache.testing import TestCluster, cluster_test

KEYS = {f"key-{number}": number for number in range(1000)}


@cluster_test(size=3, replica_count=1)
async def test_a_leave_with_one_copy_loses_nothing(cluster: TestCluster) -> None:
    """Olric loses 29,598 of 100,000 keys here."""
    await cluster.member(0).map("users").set_many(dict(KEYS))
    held = [key for key, at in (await cluster.key_copies("users")).items() if at == [1]]
    assert len(held) > 200, "the leaver must hold something"

    receipt = await cluster.remove_member(1)
    await cluster.wait_for_convergence(2)

    assert receipt["complete"]
    assert receipt["remaining"] == 0
    for member in cluster.members:
        assert await member.map("users").get_many(list(KEYS)) == KEYS


@cluster_test(size=3, replica_count=2)
async def test_peers_know_of_a_leave_at_once(cluster: TestCluster) -> None:
    """No suspicion is involved: nobody counts a suspect or a death."""
    await cluster.remove_member(2)

    await cluster.wait_for_convergence(2)

    for member in cluster.members:
        stats = await member.inspect("stats")
        assert stats.get("member.left") == 1
        assert "member.suspect" not in stats
        assert "member.dead" not in stats


@cluster_test(size=3, replica_count=2)
async def test_the_coordinator_can_leave(cluster: TestCluster) -> None:
    """The oldest member makes the tables; the next one takes over."""
    await cluster.member(1).map("users").set_many(dict(KEYS))

    receipt = await cluster.remove_member(0)
    await cluster.wait_for_convergence(2)

    assert receipt["complete"]
    assert await cluster.member(2).map("users").get_many(list(KEYS)) == KEYS
    assert {2} == {len(at) for at in (await cluster.key_copies("users")).values()}


@cluster_test("simulated", "processes", size=3, replica_count=2)
async def test_a_rolling_restart_under_load_loses_nothing(cluster: TestCluster) -> None:
    """Each member leaves and comes back while writes go on (Olric loses everything)."""
    await cluster.member(0).map("users").set_many(dict(KEYS))
    acknowledged: dict[str, int] = {}
    failures: list[CacheError] = []
    stop = asyncio.Event()

    async def write() -> None:
        number = 0
        while not stop.is_set():
            member = cluster.members[-1]
            try:
                await member.map("users").set(f"live-{number}", number)
                acknowledged[f"live-{number}"] = number
            except CacheError as error:
                failures.append(error)
            number += 1

    async with asyncio.TaskGroup() as group:
        group.create_task(write())
        for index in range(3):
            receipt = await cluster.remove_member(index)
            assert receipt["complete"]
            await cluster.restart(index)
            await cluster.wait_for_convergence(3)
        stop.set()

    assert len(acknowledged) > 10, "there must have been load"
    for member in cluster.members:
        assert await member.map("users").get_many(list(KEYS)) == KEYS
        assert acknowledged == await member.map("users").get_many(list(acknowledged))
