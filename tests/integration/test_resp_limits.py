"""What strangers and slow readers may do to the front door: limits, each with its result and its counter."""

from __future__ import annotations

import asyncio

from cache.cluster.config import LimitsConfig
from cache.cluster.ids import parse_address
from cache.cluster.node import Node
from cache.testing import TestCluster, cluster_test
from tests.integration.resp_client import RawClient, encode
from tests.integration.waiting import eventually

MIB = 1024 * 1024


def reading(node: Node, name: str) -> float:
    """Return a counter of the node."""
    return node.stats().readings[name]


async def open_clients(node: Node, count: int) -> list[RawClient]:
    """Open connections that say nothing."""
    assert node.resp_address is not None
    return [await RawClient(node.resp_address).__aenter__() for _ in range(count)]


def close(clients: list[RawClient]) -> None:
    for client in clients:
        client.writer.transport.abort()


@cluster_test("sockets", size=1, resp_bind="127.0.0.1:0")
async def test_a_thousand_idle_connections_do_not_hinder_the_next(cluster: TestCluster) -> None:
    """They cost no task; the one after the limit is told so, and let in when others go."""
    node = cluster.member(0).node
    limit = node.config.limits.resp_clients_max
    tasks = len(asyncio.all_tasks())
    idle = await open_clients(node, limit - 1)
    (last,) = await open_clients(node, 1)
    assert await last.ask(b"PING") == b"+PONG\r\n"
    assert len(asyncio.all_tasks()) == tasks

    (refused,) = await open_clients(node, 1)
    assert await refused.end() == b"-ERR max number of clients reached\r\n"
    assert reading(node, "resp.rejected_clients") == 1

    close([*idle, refused])

    async def has_room() -> bool:
        info = await last.ask(b"INFO", b"clients")
        return b"connected_clients:1\r\n" in info

    await eventually(has_room, within=10, what="the end of the idle connections")
    close([last])


@cluster_test("sockets", size=1, resp_bind="127.0.0.1:0")
async def test_bad_input_ends_its_own_connection_only(cluster: TestCluster) -> None:
    """Garbage, huge lengths, nested arrays, an array of too many words: an error, then the end."""
    node = cluster.member(0).node
    witness, *clients = await open_clients(node, 7)
    bad = [
        b"\x00\xff\x16\x03\x01garbage\r\n*\r\n",
        b"*1\r\n$1000000000\r\n",
        b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$67108865\r\n",
        b"*1\r\n" * 1000,
        b"*1048577\r\n",
        b"*2\r\n$4\r\nECHO\r\n$4\r\nfour!\r\n",
    ]

    for client, data in zip(clients, bad, strict=True):
        await client.send(data)
        assert b"-ERR Protocol error" in await client.end()

    assert reading(node, "resp.protocol_errors") == len(bad)
    assert await witness.ask(b"PING") == b"+PONG\r\n"
    close([witness, *clients])


@cluster_test("sockets", size=1, resp_bind="127.0.0.1:0", resp_password="correct horse")
async def test_strangers_may_send_little_before_the_password(cluster: TestCluster) -> None:
    """Ten words of 16 KiB: nobody who is not let in fills memory."""
    clients = await open_clients(cluster.member(0).node, 3)
    await clients[0].send(b"*11\r\n")
    await clients[1].send(b"*1\r\n$16385\r\n")

    assert b"unauthenticated multibulk length" in await clients[0].end()
    assert b"unauthenticated bulk length" in await clients[1].end()
    assert await clients[2].ask(b"AUTH", b"correct horse") == b"+OK\r\n"
    assert await clients[2].ask(b"ECHO", bytes(20_000)) == b"$20000\r\n" + bytes(20_000) + b"\r\n"
    close(clients)


@cluster_test("sockets", size=2, resp_bind="127.0.0.1:0")
async def test_half_a_command_is_waited_for_and_large_ones_arrive(cluster: TestCluster) -> None:
    """A value as large as may be, in pieces; and commands cut anywhere."""
    (client,) = await open_clients(cluster.member(0).node, 1)
    value = bytes(range(256)) * (40 * MIB // 256)
    await client.send(encode(b"SET", b"large", value))
    assert await client.reply() == b"+OK\r\n"
    assert await client.ask(b"GET", b"large") == b"$%d\r\n%b\r\n" % (len(value), value)

    data = encode(b"SET", b"k", b"v") + b"GET k\r\n"
    for at in range(len(data)):
        await client.send(data[:at])
        await asyncio.sleep(0)
        await client.send(data[at:])
        assert [await client.reply(), await client.reply()] == [b"+OK\r\n", b"$1\r\nv\r\n"]
    close([client])


@cluster_test("sockets", size=1, resp_bind="127.0.0.1:0")
async def test_who_does_not_read_replies_is_not_read_from(cluster: TestCluster) -> None:
    """Commands wait in the client's own socket; once it reads, all are answered, in order."""
    node = cluster.member(0).node
    assert node.resp_address is not None
    host, port = parse_address(node.resp_address)
    reader, writer = await asyncio.open_connection(host, port, limit=1024)
    writer.write(encode(b"SET", b"k", bytes(MIB)))
    assert await reader.readexactly(5) == b"+OK\r\n"
    commands = 2000
    writer.write((encode(b"GET", b"k") + encode(b"ECHO", b"x" * 5000)) * commands)

    executed = -1.0

    async def stands_still() -> bool:
        nonlocal executed
        before, executed = executed, reading(node, "resp.commands")
        return before == executed

    await eventually(stands_still, within=20, what="a stop of the commands", interval=0.5)
    assert executed < 100
    for _ in range(commands):
        assert await reader.readexactly(10 + MIB + 2) == b"$1048576\r\n" + bytes(MIB) + b"\r\n"
        assert await reader.readexactly(7 + 5000 + 2) == b"$5000\r\n" + b"x" * 5000 + b"\r\n"
    assert reading(node, "resp.commands") == 1 + 2 * commands
    writer.transport.abort()


@cluster_test(
    "sockets",
    size=1,
    resp_bind="127.0.0.1:0",
    limits=LimitsConfig(value_bytes_max=MIB, resp_query_bytes_max=4 * MIB),
)
async def test_a_million_words_are_more_than_one_command_may_be(cluster: TestCluster) -> None:
    """Words count for more than their bytes; the connection ends at the limit, and what came is let go."""
    node = cluster.member(0).node
    witness, client, gone = await open_clients(node, 3)
    await gone.send(b"*1000000\r\n" + b"$1\r\nx\r\n" * 1000)
    close([gone])  # In the middle of its command.
    room = 4 * MIB // (1 + 64)

    await client.send(b"*1000000\r\n" + b"$1\r\nx\r\n" * room + b"$1\r\n")

    assert await client.end() == b"-ERR Protocol error: command is over 4194304 bytes\r\n"
    assert reading(node, "resp.protocol_errors") == 1

    async def are_gone() -> bool:
        return b"connected_clients:1\r\n" in await witness.ask(b"INFO", b"clients")

    await eventually(are_gone, within=10, what="the end of both connections")
    close([witness, client])


@cluster_test("sockets", size=1, resp_bind="127.0.0.1:0")
async def test_a_list_over_the_limit_is_an_error_and_not_made(cluster: TestCluster) -> None:
    """`MGET` of one large value a thousand times would be a gigabyte."""
    (client,) = await open_clients(cluster.member(0).node, 1)
    assert await client.ask(b"SET", b"k", bytes(MIB)) == b"+OK\r\n"

    answer = await client.ask(b"MGET", *[b"k"] * 1000)

    assert answer.startswith(b"-ERR reply of 10485")
    assert b"limits.resp_output_bytes_max=33554432; ask for less" in answer
    assert await client.ask(b"PING") == b"+PONG\r\n"
    close([client])


@cluster_test("sockets", size=2, resp_bind="127.0.0.1:0")
async def test_a_closed_node_lets_go_of_its_clients_and_its_port(cluster: TestCluster) -> None:
    """Clients see the end of their streams; the port is free at once."""
    node = cluster.member(0).node
    idle, listening = await open_clients(node, 2)
    assert node.resp_address is not None
    await listening.ask(b"SUBSCRIBE", b"news")

    await cluster.remove_member(0)

    assert [await idle.end(), await listening.end()] == [b"", b""]
    host, port = parse_address(node.resp_address)
    server = await asyncio.start_server(lambda reader, writer: None, host, port)
    server.close()
    close([idle, listening])
