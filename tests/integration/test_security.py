"""Clusters with TLS, secrets that change while the cluster serves, and packets that are played again."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import trustme
from click.testing import CliRunner

from cache.cli.commands import cli
from cache.cluster import ClusterConfig, Node
from cache.cluster.config import TlsConfig
from cache.cluster.ids import MemberId, parse_address
from cache.cluster.wire.messages import MemberRecord
from cache.cluster.wire.packets import Packet, PacketCodec, Rumour
from cache.errors import CacheError, ConfigError, JoinRefusedError, UnavailableError
from cache.member_client import MemberClient
from cache.testing import TestCluster, cluster_test
from cache.testing.worlds.sockets import SocketsWorld

OLD, NEW = "the old secret", "the new secret"
KEYS = {f"key-{number}": number for number in range(300)}
Issue = Callable[..., TlsConfig]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def issue(tmp_path: Path, authority: trustme.CA) -> Issue:
    """Return what writes a certificate, of `by`, and the trusted authority to files."""

    def write(by: trustme.CA = authority) -> TlsConfig:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        leaf = by.issue_cert("127.0.0.1")
        leaf.private_key_pem.write_to_path(folder / "key.pem")
        leaf.cert_chain_pems[0].write_to_path(folder / "cert.pem")
        authority.cert_pem.write_to_path(folder / "ca.pem")
        return TlsConfig(
            certificate=folder / "cert.pem", key=folder / "key.pem", ca=folder / "ca.pem"
        )

    return write


async def _until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds; raise when it does not in time."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + 20
    while not condition():
        assert loop.time() < deadline, "the condition did not come true in time"
        turn = loop.create_future()
        loop.call_later(0.005, turn.set_result, None)
        await turn


def _ids(node: Node) -> list[MemberId]:
    return [member.id for member in node.members()]


# -- TLS -----------------------------------------------------------------------------------------


async def test_members_with_certificates_form_a_cluster_and_serve(issue: Issue) -> None:
    """Three nodes on real sockets, each with a certificate of its own; a client with one, too."""
    config = ClusterConfig.local(tls=issue(), replica_count=2, partition_count=64)
    async with TestCluster(0, world=SocketsWorld(), config=config) as cluster:
        for _ in range(3):
            await cluster.add_member(tls=issue())
        await cluster.wait_for_convergence(3)

        await cluster.member(0).map("users").set_many(dict(KEYS))

        for member in cluster.members:
            assert await member.map("users").get_many(list(KEYS)) == KEYS
            assert (await member.inspect("stats")).get("tls.refused", 0) == 0
        async with MemberClient(cluster.member(2).address, tls=issue()) as client:
            assert await client.call("users", "get", key="key-7") == 7


async def test_strangers_to_the_authority_are_refused_and_counted(issue: Issue) -> None:
    """A plain client, one of another authority: each is told nothing, and counted."""
    async with Node(ClusterConfig.local(tls=issue())) as node:
        for number, tls in enumerate((None, issue(trustme.CA())), start=1):
            async with MemberClient(node.address, tls=tls) as client:
                with pytest.raises(UnavailableError):
                    await client.connect()

            assert node.stats().readings["tls.refused"] == number
        assert node.stats().readings["rpc.inbound_connections"] == 0


async def test_plain_node_and_tls_node_stay_apart(issue: Issue) -> None:
    """Whichever of the two comes second, neither sees the other."""
    settings = {"join_timeout": 0.5, "secret": OLD}
    async with Node(ClusterConfig.local(tls=issue(), **settings)) as secured:
        peers = (secured.address,)
        async with Node(ClusterConfig.local(peers=peers, **settings)) as plain:
            joining = ClusterConfig.local(tls=issue(), peers=(plain.address,), **settings)
            async with Node(joining) as late:
                assert [[n.id] for n in (secured, plain, late)] == [
                    _ids(n) for n in (secured, plain, late)
                ]
        assert secured.stats().readings["tls.refused"] >= 1


async def test_secret_is_needed_inside_tls_too(issue: Issue) -> None:
    """A certificate alone does not let a member in when there is a secret."""
    async with Node(ClusterConfig.local(tls=issue(), secret=OLD)) as node:
        config = ClusterConfig.local(tls=issue(), secret=NEW, peers=(node.address,))

        with pytest.raises(JoinRefusedError, match="secret differs"):
            await Node(config).start()


async def test_bad_file_ends_the_start_naming_the_field(issue: Issue) -> None:
    """`ConfigError` at start, and nothing stays open; a client says so when it is made."""
    bad = replace(issue(), ca="/nowhere/ca.pem")

    with pytest.raises(ConfigError, match=r"^tls\.ca='/nowhere/ca\.pem': cannot be read"):
        await Node(ClusterConfig.local(tls=bad)).start()
    with pytest.raises(ConfigError, match=r"^tls\.ca="):
        MemberClient("127.0.0.1:1", tls=bad)


def test_command_line_speaks_tls(issue: Issue) -> None:
    """`cache node` and the client commands take the three files."""
    tls = issue()
    files = [
        *("--tls-cert", str(tls.certificate)),
        *("--tls-key", str(tls.key)),
        *("--tls-ca", str(tls.ca)),
    ]
    node = [sys.executable, "-m", "cache", "node", "--bind", "127.0.0.1:0", "--preset", "local"]
    secrets = ["--secret", NEW, "--accept-secret", OLD]
    with subprocess.Popen(
        [*node, "--json", "--stop-at-eof", "--log-level", "error", *secrets, *files],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        at = ["--at", json.loads(process.stdout.readline())["address"], "--secret", OLD]
        written = CliRunner().invoke(cli, ["set", "ada", "1", *at, *files])
        found = CliRunner().invoke(cli, ["get", "ada", *at, *files])
        plain = CliRunner().invoke(cli, ["get", "ada", *at])
        process.communicate(timeout=60)

    assert [0, 0, 3] == [written.exit_code, found.exit_code, plain.exit_code]
    assert found.output.strip() == "1"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["node", "--tls-cert", "a.pem"], "all three"),
        (["get", "k", "--tls-ca", "a.pem", "--tls-key", "b.pem"], "all three"),
        (["node", "--accept-secret", NEW], "--secret"),
        (["node", "--tls-cert", "/no", "--tls-key", "/no", "--tls-ca", "/no"], "tls.ca"),
        (["get", "k", "--tls-cert", "/no", "--tls-key", "/no", "--tls-ca", "/no"], "tls.ca"),
    ],
)
def test_command_line_names_what_is_wrong(arguments: list[str], said: str) -> None:
    """Wrong usage and bad files exit with 2."""
    result = CliRunner().invoke(cli, arguments)

    assert result.exit_code == 2
    assert said in result.stderr


# -- rotation ------------------------------------------------------------------------------------


@pytest.mark.parametrize("secured", [False, True], ids=["plain", "tls"])
async def test_secrets_rotate_under_load_without_a_failed_operation(
    issue: Issue, secured: bool
) -> None:
    """Three rolling restarts: accept the new one, use the new one, forget the old one."""
    config = ClusterConfig.local(
        secret=OLD, tls=issue() if secured else None, replica_count=2, partition_count=64
    )
    acknowledged: dict[str, int] = {}
    failures: list[CacheError] = []
    restarting: list[int] = []
    done = asyncio.Event()

    async def write(cluster: TestCluster, writer: int) -> None:
        number = 0
        while not done.is_set():
            serving = [m for m in cluster.members if m.index not in restarting]
            key, number = f"live-{writer}-{number}", number + 1
            member = serving[number % len(serving)]
            try:
                await member.map("users").set(key, number)
                acknowledged[key] = number
                assert await member.map("users").get(key) == number
            except CacheError as error:
                failures.append(error)

    async with TestCluster(3, world=SocketsWorld(), config=config) as cluster:
        await cluster.member(0).map("users").set_many(dict(KEYS))
        async with asyncio.TaskGroup() as group:
            for writer in range(2):
                group.create_task(write(cluster, writer))
            for ring in ((OLD, NEW), (NEW, OLD), NEW):
                for index in range(3):
                    restarting[:] = [index]
                    assert (await cluster.remove_member(index))["complete"]
                    cluster._configs[index] = cluster._configs[index].with_changes(secret=ring)
                    await cluster.restart(index)
                    restarting.clear()
                    await cluster.wait_for_convergence(3)
            done.set()

        assert failures == []
        assert len(acknowledged) > 100, "there must have been load"
        for member in cluster.members:
            assert await member.map("users").get_many(list(KEYS)) == KEYS
            assert acknowledged == await member.map("users").get_many(list(acknowledged))
            readings = await member.inspect("stats")
            assert readings.get("packets.dropped.bad_mac", 0) == 0
            assert readings["rpc.refused_handshakes"] == 0
        async with MemberClient(cluster.member(0).address, secret=OLD, tls=config.tls) as outdated:
            with pytest.raises(JoinRefusedError, match="secret differs"):
                await outdated.connect()


@cluster_test("simulated", "sockets", "processes", size=3, secret=(NEW, OLD), partition_count=64)
async def test_members_with_a_ring_form_a_cluster(cluster: TestCluster) -> None:
    """A ring travels through every world, and a member that has only one of it joins."""
    await cluster.add_member(secret=OLD)
    await cluster.wait_for_convergence(4)
    await cluster.member(3).map("users").set("ada", 1)

    assert await cluster.member(0).map("users").get("ada") == 1


# -- packets played again ------------------------------------------------------------------------


def _send(to: Node, payload: bytes) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.sendto(payload, parse_address(to.address))


def _record(member: str, address: str) -> MemberRecord:
    return MemberRecord(
        id=member,
        address=address,
        incarnation=3,
        state=0,
        seniority=9,
        leaving=False,
        weight=1,
        host="",
        zone="",
        tags={},
    )


def _reading(node: Node, name: str) -> float:
    return node.stats().readings.get(name, 0)


async def test_packet_of_a_life_that_is_over_brings_nobody_back() -> None:
    """Recorded weeks ago, sealed with the present secret: nobody believes it before a stream confirms it."""
    async with Node(ClusterConfig.local(secret=OLD)) as node:
        ghost = _record("ghost#0123456789abcdef", "127.0.0.1:9")
        codec = PacketCodec(cluster_name="cache", secret=OLD)
        payload = codec.seal(Packet(ghost.id, [Rumour(record=ghost, accuser=ghost.id)]))

        _send(node, payload)
        await _until(lambda: _reading(node, "packets.unknown_sender") == 1)
        _send(node, payload)
        await _until(lambda: _reading(node, "packets.dropped.replayed") == 1)

        assert _ids(node) == [node.id]


async def test_packet_of_a_member_is_taken_in_once() -> None:
    """A recorded packet of a live member does nothing when it comes again."""
    async with Node(ClusterConfig.local(secret=OLD)) as first:
        config = ClusterConfig.local(secret=OLD, peers=(first.address,))
        async with Node(config) as second:
            await _until(lambda: len(first.members()) == 2)
            ghost = _record("ghost#0123456789abcdef", "127.0.0.1:9")
            packet = Packet(second.id, [Rumour(record=ghost, accuser=second.id)])
            payload = second._membership._codec.seal(packet)

            _send(first, payload)
            await _until(lambda: _reading(first, "member.joined") == 2)
            await _until(lambda: len(first.members()) == 2)  # Nobody answers there: it is buried.
            _send(first, payload)
            await _until(lambda: _reading(first, "packets.dropped.replayed") == 1)

            assert _reading(first, "member.joined") == 2
