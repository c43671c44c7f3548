"""A member joins a cluster that is in use."""

import asyncio

from cache.testing import TestCluster, cluster_test

KEYS = {f"key-{number}": number for number in range(1000)}


@cluster_test(size=2, replica_count=2)
async def test_a_join_under_load_fails_no_read(cluster: TestCluster) -> None:
    """Reads and writes go on throughout; afterwards the newcomer owns a third and reads it all."""
    await cluster.member(0).map("users").set_many(KEYS)
    stop = asyncio.Event()
    reads = 0
    written: dict[str, int] = {}

    async def read(index: int) -> None:
        nonlocal reads
        while not stop.is_set():
            key = f"key-{reads % 1000}"
            assert KEYS[key] == await cluster.member(index).map("users").get(key)
            reads += 1

    async def write() -> None:
        number = 0
        while not stop.is_set():
            await cluster.member(1).map("users").set(f"live-{number}", number)
            written[f"live-{number}"] = number
            number += 1

    async with asyncio.TaskGroup() as group:
        for task in (read(0), read(1), write()):
            group.create_task(task)
        newcomer = await cluster.add_member()
        await cluster.wait_for_convergence(3)
        stop.set()

    rows = (await newcomer.inspect("table"))["rows"]
    owned = sum(row[1][0] == newcomer.id for row in rows)
    assert reads > 0
    assert written
    assert abs(owned - len(rows) / 3) <= 1
    assert KEYS == await newcomer.map("users").get_many(KEYS)
    assert written == await newcomer.map("users").get_many(written)


@cluster_test("simulated", size=3, replica_count=2)
async def test_a_join_moves_no_more_than_its_share(cluster: TestCluster) -> None:
    """About a quarter of the copies move to a fourth member; nothing moves between the others."""
    before = (await cluster.member(0).inspect("table"))["rows"]

    newcomer = await cluster.add_member()
    await cluster.wait_for_convergence(4)

    after = (await cluster.member(0).inspect("table"))["rows"]
    arrived = [set(new[1]) - set(old[1]) for old, new in zip(before, after, strict=True)]
    copies = sum(len(row[1]) for row in after)
    assert {newcomer.id} == set().union(*arrived)
    assert abs(sum(map(len, arrived)) - copies / 4) <= 1


@cluster_test(size=3, replica_count=2)
async def test_a_time_to_live_does_not_start_anew_when_data_moves(cluster: TestCluster) -> None:
    """Copies carry what is left, not what was given."""
    users = cluster.member(0).map("users")
    for key in list(KEYS)[:50]:
        await users.set(key, 1, ttl=100)
    before = {key: await users.ttl(key) for key in list(KEYS)[:50]}

    await cluster.add_member()
    await cluster.wait_for_convergence(4)
    await cluster.remove_member(0)
    await cluster.wait_for_convergence(3)

    for key, remaining in before.items():
        left = await cluster.member(3).map("users").ttl(key)
        assert left is not None
        assert remaining is not None
        assert left < remaining + 0.25
