"""The RESP port of a cluster that changes: counts stay exact, scans whole, errors say what was applied."""

from __future__ import annotations

import asyncio
import json
import sys

import pytest

from cache.cluster.ids import Address
from cache.cluster.resp.dispatch import failure
from cache.cluster.resp.replies import CommandError, Failed
from cache.errors import (
    BatchError,
    CacheError,
    ClosedError,
    CodecError,
    ConnectionLostError,
    NoQuorumError,
    NotOwnerError,
    OperationTimeoutError,
    OverloadedError,
    UnavailableError,
    WrongTypeError,
)
from cache.testing import TestCluster, cluster_test
from tests.integration.resp_client import RawClient, encode
from tests.integration.waiting import eventually


def address_of(cluster: TestCluster, number: int) -> Address:
    address = cluster.member(number).node.resp_address
    assert address is not None, "asked for by the test's settings"
    return address


async def increments(address: Address, count: int) -> list[bytes]:
    """Count in pipelines of ten; return the replies."""
    replies = []
    async with RawClient(address) as client:
        for _ in range(count // 10):
            await client.send(encode(b"INCR", b"n") * 10)
            replies += [await client.reply() for _ in range(10)]
    return replies


@cluster_test("sockets", size=3, resp_bind="127.0.0.1:0")
async def test_increments_through_all_members_are_each_counted_once(cluster: TestCluster) -> None:
    """Also while members join and partitions move."""
    async with asyncio.TaskGroup() as group:
        counting = [group.create_task(increments(address_of(cluster, i), 1000)) for i in range(3)]
        joined = [await cluster.add_member() for _ in range(2)]

    seen = [int(reply[1:]) for task in counting for reply in task.result()]
    assert sorted(seen) == list(range(1, 3001))
    assert await joined[0].map("resp:0").get("n") == 3000


@cluster_test("sockets", size=2, resp_bind="127.0.0.1:0")
async def test_a_scan_goes_on_through_another_member_while_one_joins(cluster: TestCluster) -> None:
    """Every key that is present all the while comes exactly once; the cursor needs no memory."""
    names = [b"k%d" % number for number in range(3000)]
    found: list[bytes] = []
    async with (
        RawClient(address_of(cluster, 0)) as one,
        RawClient(address_of(cluster, 1)) as other,
    ):
        await one.ask(b"MSET", *[word for name in names for word in (name, b"v")])
        cursor, turn = b"0", 0
        while turn == 0 or cursor != b"0":
            client = (one, other)[turn % 2]
            _, _, cursor, _, *lines = (await client.ask(b"SCAN", cursor, b"COUNT", b"20")).split(
                b"\r\n"
            )
            found += lines[1::2]
            turn += 1
            await client.ask(b"SET", b"passing%d" % turn, b"v")
            if turn == 20:
                await cluster.add_member()

    assert turn > 20
    assert sorted(name for name in found if name[:1] == b"k") == sorted(names)


@cluster_test("sockets", size=2, resp_bind="127.0.0.1:0", member_quorum=2)
async def test_without_the_member_quorum_nothing_is_done_and_clients_are_told(
    cluster: TestCluster,
) -> None:
    """`CLUSTERDOWN`, as clients know it from Redis Cluster."""
    async with RawClient(address_of(cluster, 0)) as client:
        assert await client.ask(b"SET", b"k", b"v") == b"+OK\r\n"
        await cluster.kill(1)

        async def is_down() -> bool:
            return (await client.ask(b"SET", b"k", b"w")).startswith(b"-CLUSTERDOWN not applied: ")

        await eventually(is_down, within=20, what="the loss of the member quorum")
        for command in ((b"GET", b"k"), (b"INCR", b"n"), (b"DEL", b"k"), (b"DBSIZE",)):
            assert (await client.ask(*command)).startswith(b"-CLUSTERDOWN not applied: ")
        assert await client.ask(b"PING") == b"+PONG\r\n"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (CommandError("ERR syntax error"), "ERR syntax error"),
        (NoQuorumError("x"), "CLUSTERDOWN not applied: x"),
        (ClosedError("x"), "CLUSTERDOWN not applied: x"),
        (NotOwnerError("x"), "TRYAGAIN not applied: x"),
        (OverloadedError("x"), "TRYAGAIN not applied: x"),
        (UnavailableError("x"), "TRYAGAIN not applied: x"),
        (OperationTimeoutError("x"), "TIMEOUT may have been applied: x"),
        (ConnectionLostError("x"), "TIMEOUT may have been applied: x"),
        (BatchError("x"), "TIMEOUT may have been applied: x"),
        (CodecError("x"), "ERR not applied: x"),
        (CacheError("x"), "ERR x"),
        (
            WrongTypeError("x"),
            "WRONGTYPE Operation against a key holding the wrong kind of value",
        ),
        (KeyError("x"), "ERR internal error, may have been applied; see the member's log"),
    ],
)
def test_errors_say_what_was_applied(error: Exception, text: str) -> None:
    """The table of docs/resp.md."""
    assert failure(error) == Failed(text)


@pytest.mark.processes
async def test_the_command_line_serves_redis_clients() -> None:
    """`cache node --resp-bind`: its ready line says where."""
    process = await asyncio.create_subprocess_exec(
        *(
            sys.executable,
            "-m",
            "cache",
            "node",
            "--bind",
            "127.0.0.1:0",
            "--json",
            "--stop-at-eof",
        ),
        *("--resp-bind", "127.0.0.1:0", "--resp-password", "correct horse", "--log-level", "error"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        async with asyncio.timeout(30):
            ready = json.loads(await process.stdout.readline())
        async with RawClient(ready["resp_address"]) as client:
            assert await client.ask(b"PING") == b"-NOAUTH Authentication required.\r\n"
            assert await client.ask(b"AUTH", b"correct horse") == b"+OK\r\n"
            assert await client.ask(b"DBSIZE") == b":0\r\n"
        process.stdin.close()
        assert await asyncio.wait_for(process.wait(), 30) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
