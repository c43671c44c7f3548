"""A client that is no member: the same maps, straight to owners, whatever becomes of the members."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from cache.cluster import ClusterClient
from cache.errors import JoinRefusedError, UnavailableError
from cache.testing import TestCluster, cluster_test

KEYS = [f"key{number}" for number in range(60)]


@cluster_test(size=3)
async def test_what_members_write_a_client_reads_and_the_other_way_round(
    cluster: TestCluster,
) -> None:
    """Every kind of operation, through every owner."""
    client = await cluster.client()
    theirs, mine = cluster.member(0).map("m"), client.map("m")
    await theirs.set_many({key: index for index, key in enumerate(KEYS)})

    assert {key: index for index, key in enumerate(KEYS)} == await mine.get_many(KEYS)
    assert 61 == await mine.incr(KEYS[59], 2)
    assert await mine.add("new", "n", ttl=60)
    assert not await mine.add("new", "m")
    assert 61 == await mine.size()
    assert 61 == await theirs.get(KEYS[59])
    assert "n" == await mine.pop("new")
    assert len(KEYS) == await mine.clear()
    assert 0 == await theirs.size()


@cluster_test("simulated", "sockets", size=3)
async def test_calls_go_straight_to_owners(cluster: TestCluster) -> None:
    """Nobody passes anything on, and nothing had to be tried twice."""
    client = await cluster.client(seeds=[cluster.member(0).address])
    before = await served(cluster)

    for key in KEYS:
        await client.map("m").set(key, 1)

    assert 0 == client.stats().readings["router.retries"]
    assert before + len(KEYS) == await served(cluster)


async def served(cluster: TestCluster) -> float:
    """Return how many writes all owners carried out."""
    stats = [await member.inspect("stats") for member in cluster.members]
    return float(sum(readings["replication.writes"] for readings in stats))


@cluster_test(size=3)
async def test_no_member_knows_of_a_client(cluster: TestCluster) -> None:
    """It comes and goes without a word of gossip, and the table stays."""
    before = [await member.inspect("status") for member in cluster.members]
    for _ in range(5):
        client = await cluster.client()
        await client.map("m").set("k", "v")
        await client.close()

    after = [await member.inspect("status") for member in cluster.members]

    assert [(3, status["table_id"]) for status in before] == [
        (status["members"], status["table_id"]) for status in after
    ]


@cluster_test(size=3)
async def test_a_client_outlives_an_owner(cluster: TestCluster) -> None:
    """What was acknowledged is read, and writes go on with the members that are left."""
    client = await cluster.client(operation_timeout=20.0)
    entries = client.map("m")
    await entries.set_many(dict.fromkeys(KEYS, "old"))

    await cluster.kill(1)

    for key in KEYS:
        assert "old" == await entries.get(key)
        await entries.set(key, "new")
    assert dict.fromkeys(KEYS, "new") == await cluster.member(0).map("m").get_many(KEYS)


@cluster_test("simulated", "sockets", size=1)
async def test_one_live_seed_is_enough(cluster: TestCluster) -> None:
    """Those that are dead, or do not exist, are passed over."""
    alive = cluster.member(0).address
    client = await cluster.client(seeds=["127.0.0.1:1", "127.0.0.1:2", alive])

    await client.map("m").set("k", "v")

    assert "v" == await cluster.member(0).map("m").get("k")


@cluster_test(size=2)
async def test_members_may_all_be_replaced(cluster: TestCluster) -> None:
    """Addresses are learnt from tables; those it began with are all gone in the end."""
    client = await cluster.client()
    await client.map("m").set("k", "v")
    for old, new in ((0, 3), (1, 4)):
        assert new == (await cluster.add_member()).index
        await cluster.wait_for_convergence(3)
        await cluster.remove_member(old)
        await cluster.wait_for_convergence(2)

        async def learnt() -> bool:
            version = (await cluster.member(new).inspect("status"))["table_version"]  # noqa: B023
            return bool(client.stats().table_version == version)

        await cluster.eventually(learnt, what="the client's table is the members'")

    assert "v" == await client.map("m").get("k")
    await client.map("m").set("k", "w")
    assert "w" == await cluster.member(4).map("m").get("k")


@cluster_test("simulated", "sockets", size=2)
async def test_a_cluster_that_began_anew_is_followed(cluster: TestCluster) -> None:
    """Its tables do not descend from the old ones; nobody is left who goes by those."""
    client = await cluster.client(operation_timeout=20.0)
    await client.map("m").set("k", "v")
    for index in (0, 1):
        await cluster.kill(index)
    await cluster.restart(0)
    await cluster.restart(1)
    await cluster.wait_for_convergence(2)

    assert await client.map("m").get("k") is None
    await client.map("m").set("k", "w")
    assert "w" == await cluster.member(0).map("m").get("k")


@cluster_test("simulated", "sockets", size=1, secret="the right secret")
async def test_a_stranger_is_refused(cluster: TestCluster) -> None:
    """As a member would be: by the secret, and by the name of the cluster."""
    with pytest.raises(JoinRefusedError, match="secret differs"):
        await cluster.client(secret="another secret")
    with pytest.raises(JoinRefusedError, match="cluster name differs"):
        await cluster.client(cluster_name="other")


@cluster_test("simulated", "sockets", size=0)
async def test_a_client_of_nobody_says_so(cluster: TestCluster) -> None:
    """It has tried for as long as it may."""
    with pytest.raises(UnavailableError, match=r"no member answered within 0\.5 s"):
        await cluster.client(seeds=["127.0.0.1:1"], join_timeout=0.5)


@cluster_test("simulated", "sockets", size=3)
async def test_increments_through_clients_and_members_are_all_counted(cluster: TestCluster) -> None:
    """Atomic on the owner, no matter through whom."""
    clients = [await cluster.client() for _ in range(2)]
    callers = [*(client.map("m") for client in clients), cluster.member(0).map("m")]

    await asyncio.gather(*(caller.incr("n") for caller in callers for _ in range(100)))

    assert 300 == await cluster.member(1).map("m").get("n")


@cluster_test("simulated", size=3)
async def test_an_increment_counts_once_though_its_answer_is_lost(cluster: TestCluster) -> None:
    """The client repeats it with the same operation id, at the next owner if need be."""
    client = await cluster.client(operation_timeout=30.0)
    entries = client.map("m")
    await entries.set("n", 0)
    owner = await cluster.owner_of(await partition_of(client, "n"))
    cluster.cut(owner, client.index)

    counting = asyncio.gather(entries.incr("n"))
    await cluster.eventually(lambda: is_value(cluster, owner, "n", 1), what="the increment")
    cluster.heal()
    await counting

    assert 1 == await cluster.member(owner).map("m").get("n")


async def partition_of(client: Any, key: str) -> int:  # Any: a ClientHandle
    async def look(inner: ClusterClient) -> int:
        return inner.map("m").partition_of(key)

    found: int = await client.run(look)
    return found


async def is_value(cluster: TestCluster, index: int, key: str, value: object) -> bool:
    return bool(await cluster.member(index).map("m").get(key) == value)


@cluster_test("simulated", "sockets", size=3)
async def test_of_clients_and_members_one_loads(cluster: TestCluster) -> None:
    """Single flight in the cluster."""
    clients = [await cluster.client() for _ in range(3)]
    loads = []

    async def load(client: ClusterClient) -> object:
        async def factory() -> str:
            loads.append(1)
            await asyncio.sleep(0)
            return "made"

        return await client.map("m").get_or_set("k", factory)

    found = await asyncio.gather(*(client.run(load) for client in clients for _ in range(3)))

    assert ["made"] * 9 == found
    assert [1] == loads


@cluster_test("simulated", size=3)
async def test_a_paused_owner_does_not_stop_reads(cluster: TestCluster) -> None:
    """A backup answers, once another member has made sure that its table is the current one."""
    client = await cluster.client()
    entries = client.map("m")
    for key in KEYS:
        await entries.set(key, "v")
    owners = {key: await cluster.owner_of(await partition_of(client, key)) for key in KEYS}
    key = next(key for key, owner in owners.items() if owner == 1)  # Member 0 coordinates.

    await cluster.pause(1)

    assert "v" == await entries.get(key)
    assert 1 <= client.stats().readings["router.backup_reads"]
    await cluster.resume(1)
