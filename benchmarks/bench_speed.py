"""The speed bars against Redis, a bare echo and a dict: `python benchmarks/bench_speed.py [--rounds 5]`.

Each line is a ratio measured in this run, rounds alternating, beside the bar it is held to. Both sides run
on uvloop; everything is on loopback; values have 100 bytes unless said. `--placement same`, the default, puts
all processes on one core, so that a ratio is one of work done, not of how fast another core wakes up.

Other bars: joins and crashes in `bench_cluster.py`, memory in `bench_memory.py`, rivals of one process in
`bench_local.py`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.bench_map import KEYS, VALUE, Side, batch_of, start_contest
from benchmarks.support import (
    Contender,
    Operation,
    compete,
    contest_parser,
    pin,
    print_table,
    run_contest,
    write_json,
)

LARGE: Final = b"v" * 2**20
LARGE_COUNT: Final = 16
LOOKUPS: Final = 10_000
"""Reads of random keys in one turn of a loop without a network."""

STARTUP: Final = """
import json, time
began = time.perf_counter()
import cache
imported = time.perf_counter()
import asyncio
from benchmarks.support import resident_bytes
import cache.cluster
async def main():
    began = time.perf_counter()
    config = cache.cluster.ClusterConfig.local(bind="127.0.0.1:0")
    async with cache.cluster.Node(config) as node:
        await node.map("m").set("k", 1)
        return time.perf_counter() - began
ready = asyncio.run(main())
print(json.dumps([(imported - began) * 1e3, ready * 1e3, resident_bytes("self") / 2**20]))
"""
BARE: Final = """
import json
from benchmarks.support import resident_bytes
print(json.dumps(resident_bytes("self") / 2**20))
"""
ROOT: Final = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Bar:
    """What a path is held to."""

    path: str
    unit: str
    limit: float
    is_least: bool
    """Whether the figure has to be `limit` or more; else that or less."""

    def row(self, figure: float) -> list[str]:
        """Return the line of the table for a measured figure."""
        sign = "≥" if self.is_least else "≤"
        holds = figure >= self.limit if self.is_least else figure <= self.limit
        return [
            self.path,
            f"{sign} {self.limit:g}{self.unit}",
            f"{figure:.2f}{self.unit}",
            "yes" if holds else "no",
        ]


class Speed:
    """Measures path by path."""

    def __init__(self, one: Side, two: Side, redis: Any, arguments: argparse.Namespace) -> None:
        # Any: redis.asyncio has no types that strict mode accepts
        self._one = one
        self._two = two
        self._redis = redis
        self._arguments = arguments
        self.rows: list[list[str]] = []
        self.figures: dict[str, float] = {}

    def note(self, bar: Bar, figure: float) -> None:
        """Add a line."""
        self.figures[bar.path] = figure
        self.rows.append(bar.row(figure))
        print(" · ".join(self.rows[-1]), flush=True)

    async def _ratio(self, ours: Operation, theirs: Operation, in_flight: int) -> float:
        pair = [Contender("ours", ours), Contender("theirs", theirs)]
        arguments = self._arguments
        await compete(pair, in_flight=in_flight, rounds=arguments.rounds, seconds=arguments.seconds)
        return pair[0].rate / pair[1].rate

    async def remote_reads(self, echo: Operation) -> None:
        """Single reads of what another member owns."""
        one, redis = self._one, self._redis

        async def ours(n: int) -> None:
            await one.users.get(one.remote[n % len(one.remote)])

        async def theirs(n: int) -> None:
            await redis.get(KEYS[n % len(KEYS)])

        for in_flight, limit in ((1, 3.0), (64, 15.0), (512, 15.0)):
            bar = Bar(f"remote get, {in_flight} in flight, against redis.asyncio", "×", limit, True)
            self.note(bar, await self._ratio(ours, theirs, in_flight))
        bar = Bar("remote get, 1 in flight, round trips of a bare echo", "×", 1.8, False)
        self.note(bar, await self._ratio(echo, ours, 1))

    async def batches(self) -> None:
        """A hundred keys at a time."""
        one, two, redis = self._one, self._two, self._redis

        async def one_owner(n: int) -> None:
            await one.users.get_many(batch_of(one.remote, n))

        async def three_members(n: int) -> None:
            await two.users.get_many(batch_of(KEYS, n))

        async def theirs(n: int) -> None:
            await redis.mget(batch_of(KEYS, n))

        self.note(
            Bar("get_many of 100, one owner, against MGET", "×", 2.5, True),
            await self._ratio(one_owner, theirs, 1),
        )
        self.note(
            Bar("get_many of 100, three members, against MGET", "×", 1.2, True),
            await self._ratio(three_members, theirs, 1),
        )

    async def writes(self) -> None:
        """With one synchronous copy; Redis has none."""
        two, redis = self._two, self._redis

        async def ours(n: int) -> None:
            await two.users.set(two.remote[n % len(two.remote)], VALUE)

        async def theirs(n: int) -> None:
            await redis.set(KEYS[n % len(KEYS)], VALUE)

        self.note(
            Bar("set with a copy, 64 in flight, against SET without", "×", 5.0, True),
            await self._ratio(ours, theirs, 64),
        )

    async def large_values(self) -> None:
        """A mebibyte each."""
        one, redis = self._one, self._redis
        names = one.remote[:LARGE_COUNT]
        for name in names:
            await one.users.set(name, LARGE)
            await redis.set(f"large:{name}", LARGE)

        async def ours(n: int) -> None:
            await one.users.get(names[n % LARGE_COUNT])

        async def theirs(n: int) -> None:
            await redis.get(f"large:{names[n % LARGE_COUNT]}")

        self.note(
            Bar("get of 1 MiB, 8 in flight, against redis.asyncio", "×", 1.3, True),
            await self._ratio(ours, theirs, 8),
        )

    async def owned_reads(self) -> None:
        """What this member owns, against a dictionary with the same keys."""
        owned = self._one.owned
        keys = [owned[(number * 7919) % len(owned)] for number in range(LOOKUPS)]
        plain = dict.fromkeys(keys, VALUE)
        users, doubled = self._one.users, self._two.users
        twice = [self._two.owned[(n * 7919) % len(self._two.owned)] for n in range(LOOKUPS)]

        def look() -> None:
            get = plain.get
            for key in keys:
                get(key)

        def here() -> None:
            get = users.read_here
            for key in keys:
                get(key, b"")

        async def awaited(entries: Any, names: list[str]) -> float:
            began = time.process_time()
            for key in names:
                await entries.get(key)
            return time.process_time() - began

        times: dict[str, list[float]] = {"dict": [], "here": [], "awaited": [], "twice": []}
        for _ in range(3 * self._arguments.rounds):
            times["dict"].append(_timed(look))
            times["here"].append(_timed(here))
            times["awaited"].append(await awaited(users, keys))
            times["twice"].append(await awaited(doubled, twice))
        median = {name: statistics.median(values) for name, values in times.items()}
        self.note(
            Bar("owned get without an await, cost of dict.get", "×", 9.0, False),
            median["here"] / median["dict"],
        )
        self.note(
            Bar("owned get, awaited, cost of dict.get", "×", 12.0, False),
            median["awaited"] / median["dict"],
        )
        self.note(
            Bar("owned get with two copies, cost of one", "×", 1.05, False),
            median["twice"] / median["awaited"],
        )

    def startup(self) -> None:
        """A fresh interpreter each."""
        runs = [_output(STARTUP) for _ in range(self._arguments.rounds)]
        bare = _output(BARE)
        imported, ready, resident = (
            statistics.median(column) for column in zip(*runs, strict=True)
        )
        self.note(Bar("import cache", " ms", 100.0, False), imported)
        self.note(Bar("a single node, ready and written to", " ms", 30.0, False), ready)
        self.note(
            Bar("resident memory above a bare interpreter", " MB", 20.0, False), resident - bare
        )


def _timed(work: Callable[[], None]) -> float:
    """Return the processor seconds it takes: others on this core do not count."""
    began = time.process_time()
    work()
    return time.process_time() - began


def _output(program: str) -> Any:  # Any: JSON
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, cwd=ROOT
    )
    return json.loads(done.stdout)


class _Echo(asyncio.Protocol):
    """One end of an echo: it sends back, or settles who waits."""

    def __init__(self) -> None:
        self.waiting: asyncio.Future[bytes] | None = None
        self.stream: Any = None  # Any: the event loop's own class

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.stream = transport

    def data_received(self, data: bytes) -> None:
        if self.waiting is None:
            self.stream.write(data)
        else:
            self.waiting.set_result(data)


ECHO_SERVER: Final = """
import asyncio
from benchmarks.bench_speed import _Echo
from benchmarks.support import run
async def main():
    server = await asyncio.get_running_loop().create_server(_Echo, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
run(main())
"""


async def start_echo(stack: AsyncExitStack, placement: str) -> Operation:
    """Start a process that sends back whatever comes; return what makes one round trip of 112 bytes."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", ECHO_SERVER, stdout=asyncio.subprocess.PIPE, cwd=ROOT
    )

    async def stop() -> None:
        process.kill()
        await process.wait()

    stack.push_async_callback(stop)
    pin(process.pid, placement, index=1)
    assert process.stdout is not None
    port = int(await process.stdout.readline())
    loop = asyncio.get_running_loop()
    stream, end = await loop.create_connection(_Echo, "127.0.0.1", port)
    stack.callback(stream.close)
    message = b"e" * 112

    async def echo(_: int) -> None:
        end.waiting = loop.create_future()
        stream.write(message)
        await end.waiting

    return echo


async def main(arguments: argparse.Namespace) -> int:
    async with AsyncExitStack() as stack:
        one, two, client = await start_contest(stack, arguments.placement)
        speed = Speed(one, two, client, arguments)
        await speed.remote_reads(await start_echo(stack, arguments.placement))
        await speed.batches()
        await speed.writes()
        await speed.owned_reads()
        await speed.large_values()
    speed.startup()
    print_table("Speed bars", ["path", "bar", "measured", "holds"], speed.rows)
    write_json(arguments.json, {"placement": arguments.placement, "speed": speed.figures})
    return 0


if __name__ == "__main__":
    parser = contest_parser(__doc__, seconds=0.5)
    parser.set_defaults(placement="same")
    run_contest("bench_speed", main(parser.parse_args()))
