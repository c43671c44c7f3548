"""Map operations against Redis: `python benchmarks/bench_map.py [--seconds 0.5] [--rounds 5]`.

One process is an embedded member and the load at once, as in an application. Remote keys are owned by a
second member, a `cache node` process on uvloop. Redis is a redis-server without persistence, its client
`redis.asyncio` with hiredis. Everything on loopback, 100-byte values, rounds alternating.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.support import (
    Contender,
    compete,
    contest_parser,
    pin,
    print_table,
    redis_server,
    run_contest,
    write_json,
)
from cache.cluster import ClusterConfig, Node
from cache.cluster.structures.map import DistributedMap
from cache.demo.processes import ProcessGroup

KEYS: Final = [f"user:{number}" for number in range(4000)]
BATCH: Final = 100
VALUE: Final = b"v" * 100
SECRET: Final = "benchmark"
SETTLE_TIMEOUT: Final = 60.0


@dataclass(frozen=True, slots=True)
class Side:
    """A cluster of this process and others: its map, keys owned here, keys owned elsewhere."""

    users: DistributedMap[bytes]
    owned: list[str]
    remote: list[str]
    node: Node
    group: ProcessGroup
    """Where the other processes were started, as `other0` and so on."""


async def start_side(
    stack: AsyncExitStack, *, others: int, copies: int, placement: str, loop: str = "auto"
) -> Side:
    """Start `others` member processes and join them from here."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    options = [
        "--replicas",
        str(copies),
        "--cluster-name",
        f"bench{copies}",
        "--log-level",
        "error",
        "--loop",
        loop,
    ]
    group = ProcessGroup(folder, secret=SECRET, options=[*options, "--preset", "local"])
    stack.push_async_callback(group.stop)
    peers: list[str] = []
    for index in range(others):
        process = await group.start(f"other{index}", peers[:1])
        pin(process.pid, placement, index=1 + index)
        peers.append(process.address)
    config = ClusterConfig.local(
        bind="127.0.0.1:0",
        peers=peers,
        replica_count=copies,
        cluster_name=f"bench{copies}",
        secret=SECRET,
        leave_timeout=1.0,
    )
    node = await stack.enter_async_context(Node(config))
    await settled(node, others + 1, copies)
    users: DistributedMap[bytes] = node.map("users")
    await users.set_many(dict.fromkeys(KEYS, VALUE))
    owned = [key for key in KEYS if users.owner_of(key) == node.id]
    remote = [key for key in KEYS if users.owner_of(key) != node.id]
    return Side(users, owned, remote, node, group)


async def settled(node: Node, members: int, copies: int) -> None:
    """Wait until every member owns its share and every partition has its copies."""
    async with asyncio.timeout(SETTLE_TIMEOUT):
        while True:
            rows = node.partition_table().rows
            owners = {row.owner for row in rows}
            whole = all(len(row.replicas) == copies and not row.joining for row in rows)
            if len(owners) == members and whole:
                return
            await asyncio.sleep(0.05)


async def start_contest(
    stack: AsyncExitStack, placement: str, *, loop: str = "auto"
) -> tuple[Side, Side, Any]:
    """Start Redis, a cluster of two members with one copy, and one of three with two; all with the keys.

    Returns:
        (the first cluster, the second, a client of Redis).
    """
    # Any: redis.asyncio has no types that strict mode accepts
    from redis.asyncio import Redis

    port = await stack.enter_async_context(redis_server(placement))
    pin(0, placement, index=0)
    client: Any = Redis(port=port, max_connections=1024)
    stack.push_async_callback(client.aclose)
    await client.mset(dict.fromkeys(KEYS, VALUE))
    one = await start_side(stack, others=1, copies=1, placement=placement, loop=loop)
    two = await start_side(stack, others=2, copies=2, placement=placement, loop=loop)
    return one, two, client


def batch_of(keys: list[str], number: int) -> list[str]:
    """Return the `number`-th hundred of keys, beginning anew after the last."""
    start = number * BATCH % (len(keys) - BATCH)
    return keys[start : start + BATCH]


class Bench:
    """Runs each comparison and keeps the figures."""

    def __init__(self, one: Side, two: Side, redis: Any, arguments: argparse.Namespace) -> None:
        # Any: redis.asyncio has no types that strict mode accepts
        self.one = one
        self.two = two
        self.redis = redis
        self.arguments = arguments
        self.rows: list[list[str]] = []
        self.results: dict[str, dict[str, float]] = {}

    async def compare(self, title: str, in_flight: int, ours: Any, theirs: Any) -> None:
        """Measure two operations in turns.  # Any: coroutine functions of a running number."""
        pair = [Contender("cache", ours), Contender("redis", theirs)]
        await compete(
            pair,
            in_flight=in_flight,
            rounds=self.arguments.rounds,
            seconds=self.arguments.seconds,
        )
        mine, other = pair[0].rate, pair[1].rate
        ratio = mine / other
        self.results[title] = {"cache": mine, "redis": other, "ratio": ratio}
        self.rows.append([title, f"{mine:,.0f}", f"{other:,.0f}", f"{ratio:.1f}×"])

    async def all(self) -> None:
        """Measure everything."""
        one, two, redis = self.one, self.two, self.redis

        async def redis_get(n: int) -> None:
            await redis.get(KEYS[n % len(KEYS)])

        async def redis_set(n: int) -> None:
            await redis.set(KEYS[n % len(KEYS)], VALUE)

        async def owned_get(n: int) -> None:
            await one.users.get(one.owned[n % len(one.owned)])

        async def remote_get(n: int) -> None:
            await one.users.get(one.remote[n % len(one.remote)])

        async def remote_set(n: int) -> None:
            await one.users.set(one.remote[n % len(one.remote)], VALUE)

        async def copied_set(n: int) -> None:
            await two.users.set(two.remote[n % len(two.remote)], VALUE)

        await self.compare("get of a key owned here", 1, owned_get, redis_get)
        for count in (1, 64, 512):
            await self.compare(f"remote get, {count} in flight", count, remote_get, redis_get)
        for count in (1, 64, 512):
            await self.compare(f"remote set, {count} in flight", count, remote_set, redis_set)
        for count in (1, 64, 512):
            title = f"remote set with a second copy, {count} in flight (redis: one copy)"
            await self.compare(title, count, copied_set, redis_set)
        await self.batches()

    async def batches(self) -> None:
        """Measure `get_many` of 100 keys, of one owner and of all members."""
        one, two, redis = self.one, self.two, self.redis

        async def redis_many(n: int) -> None:
            await redis.mget(batch_of(KEYS, n))

        async def one_owner(n: int) -> None:
            await one.users.get_many(batch_of(one.remote, n))

        async def three_members(n: int) -> None:
            await two.users.get_many(batch_of(KEYS, n))

        await self.compare("get_many(100), one remote owner", 1, one_owner, redis_many)
        await self.compare("get_many(100), spread over 3 members", 1, three_members, redis_many)


async def main(arguments: argparse.Namespace) -> int:
    async with AsyncExitStack() as stack:
        one, two, client = await start_contest(stack, arguments.placement)
        bench = Bench(one, two, client, arguments)
        await bench.all()
    header = ["operation", "cache, per second", "redis.asyncio, per second", "ratio"]
    print_table("Map operations, 100-byte values", header, bench.rows)
    write_json(arguments.json, {"placement": arguments.placement, "map": bench.results})
    return 0


if __name__ == "__main__":
    parser = contest_parser(__doc__, seconds=0.5)
    run_contest("bench_map", main(parser.parse_args()))
