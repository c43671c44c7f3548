"""Members that register in a real etcd: found, forgotten when they die, and not held up when it is away."""

from __future__ import annotations

import asyncio
import base64
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import trustme

import cache
from cache.cluster import ClusterConfig, EtcdPeers, Node
from cache.cluster.opened import ClusterCache
from cache.errors import ConfigError
from tests.integration.etcd_server import Etcd, etcd_server, issue
from tests.integration.waiting import eventually

pytestmark = [pytest.mark.etcd, pytest.mark.sockets]

PROGRAM = """
import asyncio, sys
from cache.cluster import ClusterConfig, EtcdPeers, Node

async def main():
    async with Node(ClusterConfig.local(discovery=EtcdPeers(endpoints=(sys.argv[1],), lease=5))):
        print("serving", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture
async def etcd(tmp_path: Path) -> AsyncIterator[Etcd]:
    async with etcd_server(tmp_path) as server:
        yield server


def node(etcd: Etcd, **options: Any) -> Node:  # Any: fields of EtcdPeers
    return Node(ClusterConfig.local(discovery=EtcdPeers(endpoints=(etcd.url,), **options)))


async def are_together(nodes: list[Node]) -> bool:
    return all(len(one.members()) == len(nodes) for one in nodes)


@pytest.mark.parametrize("count", [2, 3, 5])
async def test_nodes_that_start_at_the_same_instant_are_one_cluster(etcd: Etcd, count: int) -> None:
    """All are in the register before they look; when they leave, nothing is left there."""
    async with AsyncExitStack() as stack:
        nodes = [node(etcd) for _ in range(count)]
        await asyncio.gather(*(stack.enter_async_context(one) for one in nodes))
        await eventually(lambda: are_together(nodes), within=30, what="one cluster")
        assert await etcd.key_count() == count

    assert 0 == await etcd.key_count()


async def test_a_dead_process_is_forgotten(etcd: Etcd) -> None:
    """SIGKILL: nobody withdraws it, its lease ends."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, etcd.url, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert b"serving\n" == await process.stdout.readline()
    assert 1 == await etcd.key_count()

    process.send_signal(signal.SIGKILL)
    await process.wait()

    async def forgotten() -> bool:
        return await etcd.key_count() == 0

    await eventually(forgotten, within=30, what="the end of the lease")


async def test_without_etcd_nodes_start_and_find_each_other_later(etcd: Etcd) -> None:
    """Each begins alone; once etcd is there, they are one cluster."""
    await etcd.kill()
    async with AsyncExitStack() as stack:
        nodes = [node(etcd), node(etcd)]
        await asyncio.gather(*(stack.enter_async_context(one) for one in nodes))
        assert [1, 1] == [len(one.members()) for one in nodes]
        await nodes[0].map("m").set("k", "v")

        await etcd.start()

        await eventually(lambda: are_together(nodes), within=30, what="one cluster")

        async def merged() -> bool:
            return await nodes[1].map("m").get("k") == "v"

        await eventually(merged, within=30, what="the merge of what they held")


async def test_members_outlive_etcd_and_register_again(etcd: Etcd, tmp_path: Path) -> None:
    """An etcd that comes back without its data is told again; what runs is not touched."""
    async with node(etcd, lease=5) as first, node(etcd, lease=5) as second:
        await eventually(lambda: are_together([first, second]), within=30, what="one cluster")
        await etcd.kill()

        async def notices() -> bool:
            return first.stats().readings["discovery.failures"] >= 1

        await eventually(notices, within=30, what="a failed round")
        await first.map("m").set("k", "v")
        assert "v" == await second.map("m").get("k")
        (tmp_path / "data").rename(tmp_path / "lost")
        await etcd.start()

        async def registered() -> bool:
            return await etcd.key_count() == 2

        await eventually(registered, within=30, what="both in the register again")


async def test_a_key_that_somebody_removed_comes_back(etcd: Etcd) -> None:
    """A member looks for itself, too."""
    async with node(etcd):
        everything = {"key": "AA==", "range_end": "AA=="}
        await etcd.ask("/v3/kv/deleterange", everything)

        async def registered() -> bool:
            return await etcd.key_count() == 1

        await eventually(registered, within=30, what="the key")


async def test_a_dead_endpoint_is_passed_over(etcd: Etcd) -> None:
    """The next one is asked."""
    endpoints = ("http://127.0.0.1:1", etcd.url)

    async with Node(ClusterConfig.local(discovery=EtcdPeers(endpoints=endpoints))) as one:
        assert 1 == await etcd.key_count()
        assert 0 == one.stats().readings["discovery.failures"]


async def test_with_authentication(etcd: Etcd) -> None:
    """A user and a password; a wrong one is a failed round, and stops no node."""
    root = {"name": "root", "password": "horse"}
    await etcd.ask("/v3/auth/user/add", root)
    await etcd.ask("/v3/auth/role/add", {"name": "root"})
    await etcd.ask("/v3/auth/user/grant", {"user": "root", "role": "root"})
    await etcd.ask("/v3/auth/enable", {})

    async with (
        node(etcd, username="root", password="horse") as right,
        node(etcd, username="root", password="wrong") as wrong,
    ):
        assert 0 == right.stats().readings["discovery.failures"]
        assert 1 <= wrong.stats().readings["discovery.failures"]
        token = (await etcd.ask("/v3/auth/authenticate", root))["token"]
        everything = {"key": "AA==", "range_end": "AA=="}
        found = await etcd.ask("/v3/kv/range", everything, token)
        assert [right.address] == [base64.b64decode(kv["value"]).decode() for kv in found["kvs"]]


async def test_two_clusters_share_one_etcd(etcd: Etcd) -> None:
    """A cluster's name is part of its keys; other keys beside them are nobody's address."""
    strange = base64.b64encode(b"/peercache/cache/x").decode()
    await etcd.ask("/v3/kv/put", {"key": strange, "value": base64.b64encode(b"x y").decode()})
    discovery = EtcdPeers(endpoints=(etcd.url,))
    async with (
        node(etcd) as first,
        Node(ClusterConfig.local(discovery=discovery, cluster_name="cache2")) as other,
    ):
        assert [1, 1] == [len(first.members()), len(other.members())]
        assert 3 == await etcd.key_count()


async def test_by_url(etcd: Etcd) -> None:
    """`cache.open` says all of it in one line."""
    url = f"cluster://127.0.0.1:0/users?preset=local&discovery=etcd&etcd.endpoints={etcd.url}"
    async with cache.open(url) as first, cache.open(url) as second:
        assert isinstance(first, ClusterCache)
        await first.set("k", "v")
        assert "v" == await second.get("k")
        assert 2 == await etcd.key_count()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
async def locked(tmp_path: Path, authority: trustme.CA) -> AsyncIterator[Etcd]:
    """An etcd that speaks TLS, and only with those who have a certificate."""
    async with etcd_server(tmp_path, authority) as server:
        yield server


async def test_over_tls_with_certificates(
    locked: Etcd, tmp_path: Path, authority: trustme.CA
) -> None:
    """By settings, and by URL."""
    files = issue(authority, authority, tmp_path / "client")
    settings = "&".join(f"etcd.{name}={path}" for name, path in files.items())
    url = f"cluster://127.0.0.1:0/users?preset=local&discovery=etcd&etcd.endpoints={locked.url}"
    async with node(locked, **files) as first, cache.open(f"{url}&{settings}") as users:
        await users.set("k", "v")
        assert "v" == await first.map("users").get("k")
        assert 2 == await locked.key_count()
        assert 0 == first.stats().readings["discovery.failures"]

    assert 0 == await locked.key_count()


@pytest.mark.parametrize("case", ["no certificate", "a stranger's", "a server of strangers"])
async def test_over_tls_without_trust_nothing_is_registered(
    case: str, locked: Etcd, tmp_path: Path, authority: trustme.CA
) -> None:
    """A failed round, whichever side refuses; the node begins alone and serves."""
    stranger = trustme.CA()
    by = stranger if case == "a stranger's" else authority
    trusted = stranger if case == "a server of strangers" else authority
    files = issue(by, trusted, tmp_path / "client")
    given = {"ca": files["ca"]} if case == "no certificate" else files

    async with node(locked, **given) as one:
        await one.map("m").set("k", "v")
        assert 1 <= one.stats().readings["discovery.failures"]
        assert 0 == await locked.key_count()


async def test_a_key_of_another_certificate_is_an_error_at_the_start(tmp_path: Path) -> None:
    """Before anything is asked."""
    ours, other = (issue(trustme.CA(), trustme.CA(), tmp_path / name) for name in ("a", "b"))
    nowhere = EtcdPeers(
        endpoints=("https://127.0.0.1:1",), certificate=ours["certificate"], key=other["key"]
    )

    with pytest.raises(ConfigError, match="EtcdPeers: a file of ca, certificate, key"):
        async with Node(ClusterConfig.local(discovery=nowhere)):
            pass
