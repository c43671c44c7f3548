"""A client that is no member: the same maps, straight to owners, whatever becomes of the members."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

import cache
from cache.cluster import ClusterClient, ClusterConfig, NearCache, Node
from cache.cluster.transport import rpc
from cache.cluster.transport.handshake import new_hello
from cache.cluster.wire.messages import Hello
from cache.errors import (
    CacheError,
    ClosedError,
    ConfigError,
    IndeterminateError,
    JoinRefusedError,
    UnavailableError,
)
from cache.testing import TestCluster, cluster_test
from cache.testing.members import ClientHandle

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


@cluster_test("simulated", size=3)
async def test_a_client_asks_for_the_table_when_a_write_fails(cluster: TestCluster) -> None:
    """Nobody tells it of a death, and its next regular question is further off than its deadline."""
    client = await cluster.client(operation_timeout=1.0)
    entries = client.map("m")

    await cluster.kill(1)

    for key in KEYS:
        await entries.set(key, "v")


@cluster_test("simulated", "sockets", size=1)
async def test_one_live_seed_is_enough(cluster: TestCluster) -> None:
    """Those that are dead, or do not exist, are passed over."""
    alive = cluster.member(0).address
    client = await cluster.client(seeds=["127.0.0.1:1", "127.0.0.1:2", alive])

    await client.map("m").set("k", "v")

    assert "v" == await cluster.member(0).map("m").get("k")


@cluster_test("simulated", "processes", size=2)
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


async def partition_of(client: ClientHandle, key: str) -> int:
    async def look(inner: ClusterClient) -> int:
        return inner.map("m").partition_of(key)

    return await client.run(look)


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


@cluster_test("sockets", size=2)
async def test_a_client_reads_near_with_the_same_bound(cluster: TestCluster) -> None:
    """A write through a member is seen within the bound; the client's own at once."""
    client = await cluster.client()
    near = NearCache(staleness_bound=60.0)

    async def use(inner: ClusterClient) -> None:
        entries = inner.map("m", near_cache=near)
        await entries.set("k", "old")
        assert ["old"] * 3 == [await entries.get("k") for _ in range(3)]
        assert 2 == entries.stats().near_hits
        await entries.set("k", "own")
        assert "own" == await entries.get("k")
        await cluster.member(0).map("m").set("k", "new")

        async def seen() -> bool:
            return await entries.get("k") == "new"

        await cluster.eventually(seen, within=10.0, what="the owner's journal tells of the change")

    await client.run(use)


@cluster_test("simulated", size=2)
async def test_near_copies_of_several_clients_are_followed_each_by_itself(
    cluster: TestCluster,
) -> None:
    """An owner keeps one poll of each reader: one client's does not end another's."""
    clients = [await cluster.client() for _ in range(3)]
    near = NearCache(staleness_bound=3.0)

    async def read(inner: ClusterClient) -> object:
        return await inner.map("m", near_cache=near).get("k")

    await cluster.member(0).map("m").set("k", "v")
    assert ["v"] * 3 == [await client.run(read) for client in clients]
    before = sum(client.stats().readings["rpc.calls"] for client in clients)

    await cluster.sleep(30.0)

    calls = sum(client.stats().readings["rpc.calls"] for client in clients) - before
    assert calls <= 3 * 55  # One a second each, and the questions for the table.
    assert ["v"] * 3 == [await client.run(read) for client in clients]


@cluster_test("simulated", size=3)
async def test_a_client_that_is_cut_off_for_long_comes_back(cluster: TestCluster) -> None:
    """Members were replaced meanwhile; a seed is still there."""
    client = await cluster.client(operation_timeout=2.0)
    entries = client.map("m")
    await entries.set("k", "v")
    for index in range(3):
        cluster.cut(client.index, index)
    with pytest.raises((UnavailableError, IndeterminateError)):
        await entries.set("k", "lost?")
    await cluster.kill(2)
    await cluster.add_member()
    await cluster.wait_for_convergence(3)
    cluster.heal()

    await cluster.eventually(lambda: works(client), what="the client works again")


async def works(client: ClientHandle) -> bool:
    try:
        await client.map("m").set("k", "again")
    except (UnavailableError, IndeterminateError):
        return False
    return bool(await client.map("m").get("k") == "again")


@cluster_test("simulated", size=5, member_quorum=3)
async def test_a_split_of_the_members_is_survived(cluster: TestCluster) -> None:
    """The client reaches both sides; the one with the quorum serves it, and it follows the merge."""
    client = await cluster.client(operation_timeout=60.0)
    entries = client.map("m")
    await entries.set_many(dict.fromkeys(KEYS, "before"))
    cluster.partition([0, 1], [2, 3, 4])

    await cluster.eventually(lambda: writes_all(client), what="every key can be written")
    cluster.heal()
    await cluster.wait_for_convergence(5)

    assert dict.fromkeys(KEYS, "during") == await entries.get_many(KEYS)


async def writes_all(client: ClientHandle) -> bool:
    try:
        await client.map("m").set_many(dict.fromkeys(KEYS, "during"))
    except CacheError:
        return False
    return True


@pytest.mark.sockets
async def test_another_version_of_the_protocol_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, and both sides know why."""

    def newer(**fields: Any) -> Hello:  # Any: as of `new_hello`
        hello = new_hello(**fields)
        version = hello.protocol_version + (not hello.member)
        return msgspec.structs.replace(hello, protocol_version=version)

    monkeypatch.setattr(rpc, "new_hello", newer)
    async with Node(ClusterConfig.local()) as node:
        with pytest.raises(JoinRefusedError, match="protocol version differs"):
            await ClusterClient([node.address]).start()


@pytest.mark.sockets
async def test_by_url_and_from_threads() -> None:
    """`client://` opens with the first call; `SyncCache` has it as it has a member."""
    async with Node(ClusterConfig.local()) as node:
        url = f"client://127.0.0.1:1,{node.address}/users"
        async with cache.open(url) as users:
            await users.set("k", "v")

            def blocking() -> object:
                shared: cache.SyncCache[Any] = cache.SyncCache.open(url)  # Any: test values
                with shared:
                    shared.set("from a thread", 1)
                    return shared.get("k")

            assert "v" == await asyncio.to_thread(blocking)
            assert 1 == await users.get("from a thread")
            assert 0 == users.stats().entries
        assert 1 == len(node.members())


@pytest.mark.sockets
async def test_a_near_cache_that_cannot_be_had_is_an_error_of_the_first_call() -> None:
    """Not a wait for ever."""
    config = ClusterConfig.local(read_quorum=2)
    async with Node(config) as node:
        opened = cache.open(f"client://{node.address}/users", near_cache=NearCache())
        with pytest.raises(ConfigError, match="read_quorum=1"):
            await opened.get("k")
        member = cache.open(config, map="users", near_cache=NearCache())
        with pytest.raises(ConfigError, match="read_quorum=1"):
            await member.get("k")
        await member.close()
        await opened.close()


@pytest.mark.sockets
async def test_a_closed_client_says_so() -> None:
    """And one that was not started."""
    async with Node(ClusterConfig.local()) as node:
        client = ClusterClient([node.address])
        with pytest.raises(ClosedError, match="start it"):
            client.map("m")
        await client.start()
        entries = client.map("m")
        await client.close()
        await client.close()
        with pytest.raises(ClosedError):
            await entries.get("k")
        with pytest.raises(ClosedError):
            client.stats()
        with pytest.raises(ClosedError):
            await client.start()


@pytest.mark.parametrize(
    ("seeds", "settings", "complaint"),
    [
        ((), {}, "needs seeds"),
        ("127.0.0.1:1", {}, "must be a list"),
        (("nowhere",), {}, "peers='nowhere'"),
        (("a:1",), {"bind": "127.0.0.1:0"}, "bind: no setting of a client"),
        (("a:1",), {"operation_timeout": 0}, "operation_timeout=0"),
        (("a:1",), {"secret": "short"}, "secret='…'"),
    ],
)
def test_a_bad_setting_is_named(seeds: Any, settings: dict[str, Any], complaint: str) -> None:
    """At construction; Any: what is wrong."""
    with pytest.raises(ConfigError, match=complaint):
        ClusterClient(seeds, **settings)
