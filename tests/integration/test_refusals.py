"""Who may not join, and what garbage does."""

import asyncio
import socket
import struct

import pytest

from cache.cluster import ClusterConfig, Node
from cache.errors import JoinRefusedError
from cache.testing import TestCluster, cluster_test

SECRET = "correct horse battery"


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        ({"secret": "another secret"}, "secret"),
        ({"secret": None}, "secret"),
        ({"cluster_name": "other"}, "other"),
        ({"partition_count": 271}, "271"),
    ],
    ids=["wrong secret", "no secret", "wrong cluster name", "wrong partition count"],
)
async def test_a_stranger_is_refused_with_a_reason(
    overrides: dict[str, object], reason: str
) -> None:
    """Both sides know why, and the member's view does not change."""
    async with Node(ClusterConfig.local(secret=SECRET)) as member:
        config = ClusterConfig.local(**{"secret": SECRET, "peers": (member.address,), **overrides})

        with pytest.raises(JoinRefusedError, match=reason):
            await Node(config).start()

        assert [m.id for m in member.members()] == [member.id]
        assert member.stats().readings["rpc.refused_handshakes"] >= 1


@cluster_test("sockets", "processes", size=2, secret=SECRET)
async def test_members_with_the_secret_form_a_cluster(cluster: TestCluster) -> None:
    """Packets and streams are authenticated."""
    await cluster.member(0).map("users").set("ada", 1)

    assert await cluster.member(1).map("users").get("ada") == 1


GARBAGE = [
    b"",
    b"\x00",
    b"GET / HTTP/1.1\r\n\r\n",
    struct.pack(">I", 2**31) + b"x" * 100,
    struct.pack(">I", 0xFFFFFFFF),
    struct.pack(">IBQ", 9, 1, 1),
    struct.pack(">IBQ", 109, 1, 1) + b"\x91" * 100,
    b"PC\x01" + b"\x91" * 500,
    b"PC\xff" + b"\x00" * 50,
    bytes(range(256)) * 5,
]


@pytest.mark.parametrize("payload", GARBAGE, ids=range(len(GARBAGE)))
async def test_garbage_on_both_ports_changes_nothing(payload: bytes) -> None:
    """It is counted, the connection is closed, and the member goes on (invariant 8)."""
    async with Node(ClusterConfig.local()) as node:
        host, port = node.address.split(":")
        await node.map("users").set("ada", 1)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.sendto(payload, (host, int(port)))
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(payload)
        writer.write_eof()
        async with asyncio.timeout(30):
            while await reader.read(65_536):
                pass
        writer.close()

        assert await node.map("users").get("ada") == 1
        assert [member.id for member in node.members()] == [node.id]
