"""Real Redis clients against a cluster of three: redis-py, redis-cli, redis-benchmark, those of Node.js."""

from __future__ import annotations

import asyncio
import json
import math
import os
import shutil
from pathlib import Path
from typing import Any, Final

import pytest
import redis
import redis.asyncio

from cache.cluster.ids import parse_address
from cache.testing import TestCluster, cluster_test

PROTOCOLS: Final = (2, 3)
NODE_SCRIPT: Final = Path(__file__).with_name("resp_clients.mjs")
NODE_MODULES: Final = Path(__file__).resolve().parents[2] / ".node" / "node_modules"
PROGRAM_TIMEOUT: Final = 60.0

needs_cli = pytest.mark.skipif(
    shutil.which("redis-cli") is None, reason="no redis-cli: apt-get install redis-tools"
)
needs_npm = pytest.mark.skipif(
    not NODE_MODULES.is_dir(), reason="no .node/: npm install --prefix .node ioredis redis"
)
needs_node = pytest.mark.skipif(
    shutil.which("node") is None, reason="no node: apt-get install nodejs"
)


def port_of(cluster: TestCluster, number: int) -> int:
    """Return the port of some member for Redis clients."""
    address = cluster.member(number).node.resp_address
    assert address is not None, "asked for by the test's settings"
    return parse_address(address)[1]


async def program(*words: str, stdin: str = "", **environment: str) -> str:
    """Run a program to its end; return what it said."""
    process = await asyncio.create_subprocess_exec(
        *words,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, **environment},
    )
    try:
        said, _ = await asyncio.wait_for(process.communicate(stdin.encode()), PROGRAM_TIMEOUT)
    except BaseException:
        process.kill()
        raise
    assert process.returncode == 0, said.decode()
    return said.decode()


def use(one: Any, other: Any) -> None:  # Any: clients of redis-py, which has no strict types
    """Do what applications do, through one member and through another."""
    assert one.set("user:1", "Ada")
    assert other.get("user:1") == "Ada"
    assert other.set("user:1", "Grace", nx=True) is None
    assert other.set("user:1", "Grace", xx=True, get=True) == "Ada"
    assert one.set("session", "s", ex=100)
    assert 99 <= other.ttl("session") <= 100
    assert other.persist("session")
    assert one.ttl("session") == -1
    assert one.getex("session", px=50_000) == "s"
    assert 49 <= other.ttl("session") <= 50
    assert one.expireat("session", 99_999_999_999)
    assert other.expiretime("session") == 99_999_999_999
    assert one.getdel("session") == "s"
    assert not other.exists("session")
    assert [one.incr("n"), other.incrby("n", 9), one.decr("n")] == [1, 10, 9]
    assert [one.incrbyfloat("f", 3), other.incrbyfloat("f", 0.1)] == [3, 3.1]
    assert one.mset({f"k{number}": number for number in range(100)})
    assert other.mget("k7", "absent", "k99") == ["7", None, "99"]
    assert sorted(one.scan_iter("k*", count=7)) == sorted(f"k{number}" for number in range(100))
    assert sorted(other.keys("k?")) == [f"k{number}" for number in range(10)]
    assert other.append("user:1", "!") == 6
    assert one.strlen("user:1") == 6
    assert one.type("user:1") == "string"
    assert one.delete("k1", "k2", "absent") == 2
    assert other.dbsize() == 101
    with one.pipeline(transaction=False) as pipe:
        for number in range(500):
            pipe.set(f"p{number}", number)
            pipe.get(f"p{number}")
        assert pipe.execute()[1::2] == [f"{number}" for number in range(500)]
    with pytest.raises(redis.ResponseError, match="value is not an integer"):
        one.incr("user:1")
    with pytest.raises(redis.ResponseError, match="unknown command 'LPUSH'"):
        one.lpush("list", 1)


def look_around(one: Any) -> None:  # Any: as above
    """Read what clients read about the server and themselves."""
    info = one.info()
    assert info["redis_version"] == "7.0.15"
    assert info["db0"]["keys"] == one.dbsize()
    assert one.info("clients")["connected_clients"] >= 1
    assert one.client_setname("worker")
    assert one.client_getname() == "worker"
    assert one.client_info()["name"] == "worker"
    assert one.client_id() in [int(client["id"]) for client in one.client_list()]
    assert one.config_get("save") == {"save": ""}
    assert one.command_count() == len(one.command())
    assert one.command()["get"]["arity"] == 2
    assert one.echo("hello") == "hello"
    assert one.ping()
    assert len(one.time()) == 2
    assert one.flushdb()
    assert one.dbsize() == 0


@cluster_test("sockets", size=3, resp_bind="127.0.0.1:0")
async def test_redis_py(cluster: TestCluster) -> None:
    """The client that blocks, in both protocols, through two members at a time."""

    def work(protocol: int) -> None:
        options: dict[str, Any] = {"protocol": protocol, "decode_responses": True}  # Any: options
        one = redis.Redis(port=port_of(cluster, 0), **options)
        other = redis.Redis(port=port_of(cluster, 1 + protocol % 2), **options)
        with one, other:
            use(one, other)
            look_around(one)

    for protocol in PROTOCOLS:
        await asyncio.to_thread(work, protocol)


@cluster_test("sockets", size=3, resp_bind="127.0.0.1:0", resp_password="correct horse")
async def test_redis_py_on_asyncio(cluster: TestCluster) -> None:
    """The client for asyncio, with a password, a database and a pool of connections."""
    for protocol in PROTOCOLS:
        clients: list[Any] = [  # Any: as above
            redis.asyncio.Redis(
                port=port_of(cluster, number), password="correct horse", protocol=protocol, db=3
            )
            for number in range(3)
        ]
        await asyncio.gather(*(client.incr("hits") for client in clients for _ in range(100)))
        assert await clients[0].get("hits") == b"300"
        await asyncio.gather(*(c.set(f"k{n}", n, ex=50) for n, c in enumerate(clients * 20)))
        assert len([key async for key in clients[1].scan_iter("k*", count=5)]) == 60
        assert await clients[2].flushdb()
        for client in clients:
            await client.aclose()

    wrong: Any = redis.asyncio.Redis(port=port_of(cluster, 0), password="wrong")  # Any: as above
    with pytest.raises(redis.AuthenticationError, match="invalid username-password pair"):
        await wrong.get("k")
    await wrong.aclose()


@cluster_test("sockets", size=3, resp_bind="127.0.0.1:0")
async def test_python_and_redis_share_a_map(cluster: TestCluster) -> None:
    """Database 0 is the map `resp:0`: keys are text, values bytes; numbers and text of Python are read."""
    client: Any = redis.asyncio.Redis(port=port_of(cluster, 1))  # Any: as above
    shared = cluster.member(2).node.map("resp:0")
    await client.set("from redis", "bytes", ex=100)
    await client.set(b"\xff", "no text")
    await client.incr("counter")
    await shared.set_many({"text": "é", "int": 7, "float": 1.5, "list": [1], "none": None})
    await shared.set(5, "an int is no key of Redis")

    assert await shared.get("from redis") == b"bytes"
    assert 99 < (await shared.ttl("from redis") or math.nan) <= 100
    assert await shared.get(b"\xff") == b"no text"
    assert await shared.incr("counter") == 2
    assert await client.mget("text", "int", "float", "list") == ["é".encode(), b"7", b"1.5", None]
    assert [await client.type(name) for name in ("int", "list")] == [b"string", b"object"]
    assert b"5" not in await client.keys("*")
    for name in ("list", "none"):
        with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
            await client.get(name)
        with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
            await client.append(name, "x")
    await client.aclose()


@needs_cli
@cluster_test("sockets", size=3, resp_bind="127.0.0.1:0")
async def test_redis_cli(cluster: TestCluster) -> None:
    """Arguments, RESP3, a session on standard input, a scan, and bulk loading."""
    cli = ["redis-cli", "-p", f"{port_of(cluster, 0)}"]

    assert await program(*cli, "set", "k", "v", "EX", "100") == "OK\n"
    assert await program(*cli, "-3", "get", "k") == "v\n"
    said = await program(*cli, stdin="incr n\nincr n\nbogus\nselect 2\ndbsize\n")
    assert said.splitlines()[:2] == ["1", "2"]
    assert "ERR unknown command 'bogus'" in said
    assert said.splitlines()[-2:] == ["OK", "0"]
    assert sorted((await program(*cli, "--scan")).split()) == ["k", "n"]
    lines = "".join(f"SET p{number} {number}\r\n" for number in range(1000))
    assert "replies: 1000" in await program(*cli, "--pipe", stdin=lines)
    assert "redis_version:7.0.15" in await program(*cli, "info")


@needs_cli
@cluster_test("sockets", size=3, resp_bind="127.0.0.1:0")
async def test_redis_benchmark(cluster: TestCluster) -> None:
    """Fifty connections, one command at a time and sixteen; nothing fails."""
    for pipeline in ("1", "16"):
        said = await program(
            *("redis-benchmark", "-p", f"{port_of(cluster, 1)}", "-n", "500", "-c", "50"),
            *("-P", pipeline, "-t", "ping,set,get,incr,mset", "-r", "100", "-q", "--csv"),
        )
        rows = [line.split(",")[0] for line in said.splitlines() if line[:1] == '"']
        assert rows == [
            '"test"',
            *('"PING_INLINE"', '"PING_MBULK"', '"SET"', '"GET"', '"INCR"', '"MSET (10 keys)"'),
        ]


@needs_node
@cluster_test("sockets", size=3, resp_bind="127.0.0.1:0")
async def test_plain_sockets_of_node(cluster: TestCluster) -> None:
    """RESP over `net`, written out; needs nothing but Node.js."""
    assert await run_in_node(cluster, "net") == "net ok\n"


@needs_npm
@cluster_test("sockets", size=3, resp_bind="127.0.0.1:0")
async def test_clients_from_npm(cluster: TestCluster) -> None:
    """`ioredis`, and `redis` (node-redis) in both protocols: their ready checks, pipelines, scans, errors."""
    assert await run_in_node(cluster, "ioredis") == "ioredis ok\n"
    assert await run_in_node(cluster, "redis", "2") == "redis ok\n"
    assert await run_in_node(cluster, "redis", "3") == "redis ok\n"


async def run_in_node(cluster: TestCluster, *words: str) -> str:
    ports = json.dumps([port_of(cluster, number) for number in range(3)])
    return await program("node", str(NODE_SCRIPT), *words, PORTS=ports, MODULES=str(NODE_MODULES))
