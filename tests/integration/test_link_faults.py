"""Network faults of the `sockets` and `processes` worlds, by the fault-injecting proxy."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cache.cluster.config import ClusterConfig
from cache.errors import NoQuorumError
from cache.pytest_plugin import ClusterMaker
from cache.testing import TestCluster, cluster_test
from cache.testing.proxy.toxiproxy import ENVIRONMENT
from cache.testing.worlds.processes import ProcessesWorld
from cache.testing.worlds.sockets import SocketsWorld
from tests.integration.proxy_server import proxy_server

PARTITIONS = 32
WITHIN = 10.0
ONE_COPY: Any = {"partition_count": PARTITIONS, "replica_count": 1}  # Any: fields of ClusterConfig
ONE_WAY = 0.5
"""Far above what a call takes on a busy machine, so that one way of it and two can be told apart."""


async def sees(cluster: TestCluster, sizes: dict[int, int]) -> None:
    """Wait until members see so many, by index."""

    async def seen() -> bool:
        return sizes == {i: len(await cluster.member(i).members()) for i in sizes}

    await cluster.eventually(seen, what=f"views of {sizes}")


async def key_of(cluster: TestCluster, owner: int) -> str:
    """Return a key whose only copy is on a member."""
    for number in range(1000):
        key = f"key-{number}"
        await cluster.member(owner).map("m").set(key, "before")
        if await cluster.copies("m", key) == [owner]:
            return key
    raise AssertionError(f"member {owner} has no copy of its own")


async def seconds_of(call: Any) -> float:  # Any: an awaitable
    began_at = time.monotonic()
    await call
    return time.monotonic() - began_at


# -- cuts ----------------------------------------------------------------------------------------


@cluster_test("sockets", "processes", size=2, faults=True, **ONE_COPY)
async def test_a_cut_stops_a_read_that_is_under_way_and_a_heal_lets_it_go_on(
    cluster: TestCluster,
) -> None:
    """First by reading, then by the counter."""
    key = await key_of(cluster, 1)
    assert "before" == await cluster.member(0).map("m").get(key)

    cluster.partition([0], [1])
    read = asyncio.ensure_future(cluster.member(0).map("m").get(key))
    done, _ = await asyncio.wait([read], timeout=0.3)
    assert not done
    assert cluster.heal() > 0

    assert "before" == await asyncio.wait_for(read, 10)
    await cluster.wait_for_convergence(2)


@cluster_test("sockets", "processes", size=3, faults=True, replica_count=3)
async def test_a_cut_in_one_direction_leaves_the_other_and_buries_nobody(
    cluster: TestCluster,
) -> None:
    """C15: the third member is asked by those who do not hear each other, for longer than a suspicion."""
    expected = {number: number for number in range(50)}
    await cluster.member(0).map("users").set_many(expected)

    cluster.cut(0, 1)
    seen = []
    for _ in range(8):
        await cluster.sleep(0.5)
        seen.append([len(await member.members()) for member in cluster.members])
    assert cluster.heal() > 0
    await cluster.wait_for_convergence(3)

    assert [[3, 3, 3]] * 8 == seen
    for member in cluster.members:
        assert expected == await member.map("users").get_many(expected)


@cluster_test("sockets", "processes", size=3, faults=True, replica_count=2, member_quorum=2)
async def test_the_side_of_two_of_three_serves_and_the_third_refuses(
    cluster: TestCluster,
) -> None:
    """C11, C14: members of the same group still talk; after the heal all hold what the majority wrote."""
    users = [cluster.member(index).map("users") for index in range(3)]
    await users[0].set_many(dict.fromkeys(range(40), "before"))
    cluster.isolate(2)
    await sees(cluster, {0: 2, 1: 2, 2: 1})

    during = dict.fromkeys(range(40), "during")
    await users[1].set_many(during)
    assert during == await users[0].get_many(during)
    with pytest.raises(NoQuorumError):
        await users[2].set(0, "refused")
    assert cluster.heal() > 0
    await cluster.wait_for_convergence(3)

    assert [during] * 3 == [await map_.get_many(during) for map_ in users]


@cluster_test(
    "sockets",
    size=7,
    faults=True,
    replica_count=2,
    member_quorum=4,
    partition_count=PARTITIONS,
)
async def test_four_of_seven_serve_and_three_do_not(cluster: TestCluster) -> None:
    """C14."""
    many, few = range(4), range(4, 7)
    cluster.partition(many, few)
    await sees(cluster, dict.fromkeys(many, 4) | dict.fromkeys(few, 3))

    for index in many:
        await cluster.member(index).map("m").set(index, "yes")
    for index in few:
        with pytest.raises(NoQuorumError):
            await cluster.member(index).map("m").set(index, "no")
    assert cluster.heal() > 0
    await cluster.wait_for_convergence(7)

    expected = dict.fromkeys(many, "yes")
    assert expected == await cluster.member(6).map("m").get_many(range(7))


@cluster_test("sockets", "processes", size=3, faults=True, replica_count=2)
async def test_a_member_that_died_during_a_cut_is_buried_and_comes_back(
    cluster: TestCluster,
) -> None:
    """Its address is the same afterwards, so its links are."""
    await cluster.member(0).map("m").set("a", 1)
    cluster.isolate(2)
    await cluster.kill(2)
    await sees(cluster, {0: 2, 1: 2})
    assert cluster.heal() > 0

    await cluster.restart(2)
    await cluster.wait_for_convergence(3)

    assert 1 == await cluster.member(2).map("m").get("a")


@cluster_test("sockets", "processes", size=2, faults=True, **ONE_COPY)
async def test_a_client_hears_nothing_through_a_cut_and_goes_on_when_it_is_healed(
    cluster: TestCluster,
) -> None:
    """Clients have an index of their own; nobody dials them, so one direction is enough."""
    key = await key_of(cluster, 1)
    client = await cluster.client()
    assert "before" == await client.map("m").get(key)

    cluster.cut(client.index, 1)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(client.map("m").get(key), 0.5)
    assert cluster.heal() > 0

    assert "before" == await client.map("m").get(key)


# -- conditions ----------------------------------------------------------------------------------


@cluster_test("sockets", "processes", size=2, faults=True, **ONE_COPY)
async def test_latency_of_one_direction_adds_to_each_call_once(cluster: TestCluster) -> None:
    """C17. A call goes there and back: at least one way's latency, and less than two of it."""
    key = await key_of(cluster, 1)
    far = cluster.member(0).map("m")
    before = await seconds_of(far.get(key))

    cluster.link(0, 1, latency=ONE_WAY)
    forth = await seconds_of(far.get(key))
    cluster.mend(0, 1)
    cluster.link(1, 0, latency=ONE_WAY)
    back = await seconds_of(far.get(key))
    cluster.mend(1, 0)
    after = await seconds_of(far.get(key))

    assert max(before, after) < ONE_WAY
    assert ONE_WAY <= forth < 2 * ONE_WAY
    assert ONE_WAY <= back < 2 * ONE_WAY


@cluster_test("sockets", "processes", size=2, faults=True, **ONE_COPY)
async def test_a_narrow_link_takes_its_time(cluster: TestCluster) -> None:
    """C17. 100 kB at 400 kB a second take a quarter of one."""
    key = await key_of(cluster, 1)
    cluster.link(0, 1, bandwidth=400_000)

    assert 0.25 <= await seconds_of(cluster.member(0).map("m").set(key, bytes(100_000)))
    cluster.mend(0, 1)


@cluster_test("sockets", "processes", size=3, faults=True, replica_count=2)
async def test_a_poor_network_costs_no_write(cluster: TestCluster) -> None:
    """C17. Lost, doubled, late and reordered: every acknowledged write is read from everywhere."""
    for pair in itertools.permutations(range(3), 2):
        cluster.link(
            *pair, loss=0.1, duplicate=0.2, reorder=0.2, latency=0.005, jitter=0.02, bandwidth=1e6
        )
    expected = {number: number for number in range(30)}
    for number in expected:
        await cluster.member(number % 3).map("m").set(number, number)

    for pair in itertools.permutations(range(3), 2):
        cluster.mend(*pair)
    await cluster.wait_for_convergence(3)

    for member in cluster.members:
        assert expected == await member.map("m").get_many(expected)


# -- a Toxiproxy server --------------------------------------------------------------------------


@pytest.fixture
def toxiproxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a server: that of the environment, or one of ours in its place."""
    if url := os.environ.get(ENVIRONMENT):
        yield url
        return
    with proxy_server() as (_, url):
        monkeypatch.setenv(ENVIRONMENT, url)
        yield url


def listed(url: str) -> dict[str, Any]:  # Any: JSON
    with urllib.request.urlopen(f"{url}/proxies", timeout=WITHIN) as answer:
        found: dict[str, Any] = json.load(answer)  # Any: JSON
    return {name: proxy for name, proxy in found.items() if name.startswith("peercache-")}


@pytest.mark.parametrize("make", [SocketsWorld, ProcessesWorld])
async def test_a_toxiproxy_server_carries_the_streams_where_one_is_named(
    toxiproxy: str, make: type[SocketsWorld | ProcessesWorld]
) -> None:
    """A cut, slow and healed link as without it; at the end the server has no proxy of ours left."""
    config = ClusterConfig.local(**ONE_COPY)
    async with TestCluster(2, world=make(faults=True), config=config) as cluster:
        key = await key_of(cluster, 1)
        far = cluster.member(0).map("m")
        assert 2 == len(listed(toxiproxy))

        cluster.link(0, 1, latency=ONE_WAY)
        assert ONE_WAY <= await seconds_of(far.get(key)) < 2 * ONE_WAY
        cluster.mend(0, 1)
        cluster.partition([0], [1])
        toxics = [toxic["type"] for p in listed(toxiproxy).values() for toxic in p["toxics"]]
        assert ["timeout"] * 4 == toxics
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(far.get(key), 0.3)
        await sees(cluster, {0: 1, 1: 1})
        assert cluster.heal() > 0
        await cluster.wait_for_convergence(2)

        assert "before" == await far.get(key)
    assert {} == listed(toxiproxy)


def test_a_bad_url_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENVIRONMENT, "ftp://127.0.0.1")

    with pytest.raises(ValueError, match="TOXIPROXY_URL is 'ftp:"):
        SocketsWorld(faults=True)


# -- faults that affect nothing ------------------------------------------------------------------


async def test_a_fault_that_affects_nothing_fails() -> None:
    """Between a member and one that is not there nothing is sent."""
    world = SocketsWorld(faults=True)
    async with TestCluster(1, world=world, config=ClusterConfig.local()) as cluster:
        cluster.cut(0, 1)
        with pytest.raises(AssertionError, match="stopped no traffic"):
            cluster.heal()
        cluster.set_cuts([])
        cluster.link(0, 1, latency=0.1)
        with pytest.raises(AssertionError, match="affected no traffic"):
            cluster.mend(0, 1)
        with pytest.raises(ValueError, match="a link has no 'latancy'"):
            cluster.link(0, 1, latancy=0.1)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (lambda cluster: cluster.cut(0, 1), "stopped no traffic"),
        (lambda cluster: cluster.link(0, 1, loss=0.5), "affected no traffic"),
    ],
)
async def test_a_fault_that_a_test_leaves_behind_has_to_affect_something_too(
    fault: Callable[[TestCluster], None], words: str
) -> None:
    cluster = TestCluster(1, world=SocketsWorld(faults=True), config=ClusterConfig.local())
    await cluster.__aenter__()
    fault(cluster)

    with pytest.raises(AssertionError, match=words):
        await cluster.__aexit__(None, None, None)


async def test_the_fixture_of_applications_has_network_faults_when_asked(
    cache_cluster: ClusterMaker,
) -> None:
    async with cache_cluster(2, faults=True, **ONE_COPY) as cluster:
        key = await key_of(cluster, 1)
        cluster.isolate(1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(cluster.member(0).map("m").get(key), 0.3)
        assert cluster.heal() > 0
        assert "before" == await cluster.member(0).map("m").get(key)


@cluster_test("sockets", "processes", size=1)
async def test_without_the_proxy_a_network_fault_skips_the_test(cluster: TestCluster) -> None:
    """And says how to get one."""
    with pytest.raises(pytest.skip.Exception, match="faults=True"):
        cluster.cut(0, 1)


# -- what is left --------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [SocketsWorld, ProcessesWorld])
async def test_a_test_that_fails_half_way_leaves_nothing(
    make: type[SocketsWorld | ProcessesWorld],
) -> None:
    """C23: no task, no open file or socket, no process; with cuts, slow links and calls under way."""
    before, files = asyncio.all_tasks(), set(descriptors())

    async def fail() -> None:
        world = make(faults=True)
        config = ClusterConfig.local(partition_count=PARTITIONS)
        async with TestCluster(3, world=world, config=config) as cluster:
            await cluster.client()
            cluster.isolate(0)
            cluster.link(1, 2, latency=5.0)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    await asyncio.sleep(0)

    assert before == asyncio.all_tasks()
    assert [] == [name for name in set(descriptors()) - files if "socket" in name]
    assert [] == children()


def descriptors() -> list[str]:
    """Return what this process has open."""
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found.append(f"{entry.name} {entry.readlink()}")
        except OSError:
            continue  # the one that lists the folder
    return found


def children() -> list[str]:
    """Return the processes this one has started that still run."""
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
