"""Every way to find peers: nodes that start at the same instant are one cluster, and changes are followed."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from cache.cluster import (
    ClusterConfig,
    Discovery,
    DnsPeers,
    Node,
    PeersFile,
    PeersFunction,
    StaticPeers,
)
from cache.cluster.discovery.dns import Lookup
from cache.cluster.ids import Address, format_address
from cache.testing import TestCluster, cluster_test, run_cluster
from cache.testing.running import WorldName
from tests.integration.dns_server import name_server
from tests.integration.test_discovery import Board
from tests.integration.waiting import eventually

NAME = "cache.test."
SRV = "_cache._tcp.test."
JOIN_TIMEOUT = 60.0
WORLDS = [
    pytest.param("simulated", marks=pytest.mark.sim),
    pytest.param("sockets", marks=pytest.mark.sockets),
]
HOSTS = tuple(f"127.0.0.{11 + index}" for index in range(5))


class Hosts(Lookup):
    """A hosts file in memory, where the system's resolver would be asked."""

    def __init__(self, *hosts: str) -> None:
        self.hosts: Sequence[str] = hosts

    async def addresses(self, name: str) -> Sequence[str]:
        if not self.hosts:
            raise OSError(f"{name}: name or service not known")
        return self.hosts

    async def services(self, name: str) -> Sequence[tuple[str, int]]:
        raise AssertionError("a port was given")


def free_port() -> int:
    """Return a port that is free at all of `HOSTS`."""
    with socket.socket(type=socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.11", 0))
        port: int = probe.getsockname()[1]
        return port


async def start_together(cluster: TestCluster, count: int, discovery: Discovery, port: int) -> None:
    """Start nodes at the same instant."""
    binds = [format_address(host, port) for host in HOSTS[:count]]
    await asyncio.gather(
        *(cluster.add_member(peers=(), bind=bind, discovery=discovery) for bind in binds)
    )


def every_kind(count: int, port: int, folder: Path) -> dict[str, Discovery]:
    """Return each kind that can be had without a server, all telling of the same nodes."""
    addresses = tuple(format_address(host, port) for host in HOSTS[:count])
    path = folder / "peers"
    path.write_text("# members\n" + "\n".join(addresses))

    async def function() -> Sequence[Address]:
        return addresses

    return {
        "static": StaticPeers(addresses),
        "file": PeersFile(path),
        "dns": DnsPeers(NAME, port, lookup=Hosts(*HOSTS[:count])),
        "function": PeersFunction(function),
    }


@pytest.mark.parametrize("kind", ["static", "file", "dns", "function"])
@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("world", WORLDS)
def test_nodes_that_start_at_the_same_instant_are_one_cluster(
    world: WorldName, count: int, kind: str, tmp_path: Path
) -> None:
    """One begins it, long before `join_timeout`, and the others join: nothing is to be merged."""
    port = free_port()
    discovery = every_kind(count, port, tmp_path)[kind]

    async def scenario(cluster: TestCluster) -> None:
        began = cluster.now()
        await start_together(cluster, count, discovery, port)
        await cluster.wait_for_convergence(count)
        assert cluster.now() - began < JOIN_TIMEOUT / 2
        stats = [await member.inspect("stats") for member in cluster.members]
        assert [0] * count == [readings["partitions.forks_merged"] for readings in stats]

    run_cluster(scenario, world=world, size=0, join_timeout=JOIN_TIMEOUT)


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("world", WORLDS)
def test_nodes_that_learn_of_each_other_by_registering_are_one_cluster(
    world: WorldName, count: int
) -> None:
    """A register that tells of those in the cluster only: each begins one, and they merge."""
    board = Board()

    async def scenario(cluster: TestCluster) -> None:
        await asyncio.gather(*(cluster.add_member(peers=(), discovery=board) for _ in range(count)))
        await cluster.wait_for_convergence(count)

    run_cluster(scenario, world=world, size=0, join_timeout=JOIN_TIMEOUT)


@cluster_test("simulated", "sockets", size=0)
async def test_a_name_that_does_not_exist_yet_holds_nobody_up(cluster: TestCluster) -> None:
    """Each serves alone, the name appears, and they become one cluster; then it is gone again."""
    port, hosts = free_port(), Hosts()
    for host in HOSTS[:3]:
        bind = format_address(host, port)
        await cluster.add_member(peers=(), bind=bind, discovery=DnsPeers(NAME, port, lookup=hosts))
    assert [1, 1, 1] == [len(await member.members()) for member in cluster.members]
    await cluster.member(0).map("m").set("k", "v")

    hosts.hosts = HOSTS[:3]
    await cluster.wait_for_convergence(3)
    hosts.hosts = ()

    assert "v" == await cluster.member(2).map("m").get("k")
    await cluster.wait_for_convergence(3)


@cluster_test("simulated", "sockets", size=0)
async def test_a_file_that_changes_is_followed(cluster: TestCluster) -> None:
    """A file that is missing, broken or changed is a matter of the next round."""
    port = free_port()
    binds = [format_address(host, port) for host in HOSTS[:2]]
    with TemporaryDirectory() as folder:
        path = Path(folder, "peers")
        for bind in binds:
            await cluster.add_member(peers=(), bind=bind, discovery=PeersFile(path))
        _write(path, "not an address")
        await cluster.eventually(lambda: failed_rounds(cluster, 2), what="broken files were read")

        _write(path, "\n".join(binds))

        await cluster.wait_for_convergence(2)


def _write(path: Path, text: str) -> None:
    path.write_text(text)


async def failed_rounds(cluster: TestCluster, count: int) -> bool:
    stats = [await member.inspect("stats") for member in cluster.members]
    return all(readings["discovery.failures"] >= count for readings in stats)


@pytest.mark.sockets
@pytest.mark.parametrize("count", [2, 3, 5])
async def test_nodes_with_one_srv_name_are_one_cluster(count: int) -> None:
    """Each listens on a port of its own, which the records tell; a real name server on loopback."""
    async with name_server() as server, AsyncExitStack() as stack:
        ports = [free_port() for _ in range(count)]
        hosts = HOSTS[:count]
        server.records[SRV] = {
            "SRV": [f"0 0 {port} m{index}.test." for index, port in enumerate(ports)]
        }
        server.records |= {f"m{index}.test.": {"A": [host]} for index, host in enumerate(hosts)}
        discovery = DnsPeers(SRV, nameservers=(server.address,))
        nodes = [
            Node(ClusterConfig.local(bind=format_address(*place), discovery=discovery))
            for place in zip(hosts, ports, strict=True)
        ]
        await asyncio.gather(*(stack.enter_async_context(node) for node in nodes))

        assert [count] * count == [len(node.members()) for node in nodes]
        assert {(SRV, "SRV"), ("m0.test.", "A")} <= set(server.questions)


@pytest.mark.sockets
async def test_a_name_server_that_is_silent_stops_no_node() -> None:
    """It starts alone, serves, and finds the others once there are answers."""
    async with name_server() as server, AsyncExitStack() as stack:
        port = free_port()
        server.is_silent = True
        discovery = DnsPeers(NAME, port, nameservers=(server.address,))
        nodes = [
            Node(ClusterConfig.local(bind=format_address(host, port), discovery=discovery))
            for host in HOSTS[:2]
        ]
        await asyncio.gather(*(stack.enter_async_context(node) for node in nodes))
        assert [1, 1] == [len(node.members()) for node in nodes]

        server.records[NAME] = {"A": list(HOSTS[:2])}
        server.is_silent = False

        async def found() -> bool:
            return [2, 2] == [len(node.members()) for node in nodes]

        await eventually(found, within=30, what="one cluster")
