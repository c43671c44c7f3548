"""Single calls and batches of one member, against Redis, a bare echo and a dict."""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack
from typing import Any, Final

import cache
from benchmarks.bars import Bar, ratios
from benchmarks.bench_local import Round, alternate, await_each, call_each
from benchmarks.bench_map import KEYS, VALUE, Side, batch_of, start_contest
from benchmarks.rivals import awaited, blocking
from benchmarks.speed.report import Report
from benchmarks.support import Operation, pin
from benchmarks.workers import ROOT
from cache.cluster.structures.map import DistributedMap

LARGE: Final = b"v" * 2**20
LARGE_COUNT: Final = 16
LOOKUPS: Final = 10_000
"""Reads of random keys in one turn of a loop without a network."""

WAYS: Final = {"here": "no await", "awaited": "awaited"}
BLOCKING_RIVALS: Final = ("cachetools TTLCache", "theine Cache", "dogpile.cache memory")
"""Caches in pure Python, or with times to live; compiled ones without are in `bench_local.py`."""


async def measure(report: Report) -> None:
    """Measure all of them; on asyncio's own loop single calls only, which show it most."""
    placement, loop = report.arguments.placement, report.arguments.loop
    async with AsyncExitStack() as stack:
        one, two, redis = await start_contest(stack, placement, loop=loop)
        echo = await start_echo(stack, placement, loop)
        await remote_reads(report, one, redis, echo)
        await writes(report, two, redis)
        if loop == "asyncio":
            return
        await batches(report, one, two, redis)
        await owned_reads(report, one, two)
        await large_values(report, one, redis)


async def remote_reads(report: Report, one: Side, redis: Any, echo: Operation) -> None:
    """Single reads of what another member owns.  # Any: no types that strict mode accepts."""
    ours, theirs = _get(one), _redis_get(redis)
    for in_flight, limit in ((1, 3.0), (64, 15.0), (512, 15.0)):
        bar = Bar(f"remote get, {in_flight} in flight, against redis.asyncio", limit)
        await report.contest(bar, ours, theirs, in_flight=in_flight)
    bar = Bar("remote get, 1 in flight, round trips of a bare echo", 1.8, is_least=False)
    await report.contest(bar, echo, ours)


def _get(side: Side) -> Operation:
    async def get(n: int) -> None:
        await side.users.get(side.remote[n % len(side.remote)])

    return get


def _redis_get(redis: Any) -> Operation:  # Any: no types that strict mode accepts
    async def get(n: int) -> None:
        await redis.get(KEYS[n % len(KEYS)])

    return get


async def batches(report: Report, one: Side, two: Side, redis: Any) -> None:
    """A hundred keys at a time.  # Any: no types that strict mode accepts."""

    async def one_owner(n: int) -> None:
        await one.users.get_many(batch_of(one.remote, n))

    async def three_members(n: int) -> None:
        await two.users.get_many(batch_of(KEYS, n))

    async def theirs(n: int) -> None:
        await redis.mget(batch_of(KEYS, n))

    await report.contest(Bar("get_many of 100, one owner, against MGET", 2.5), one_owner, theirs)
    bar = Bar("get_many of 100, three members, against MGET", 1.2)
    await report.contest(bar, three_members, theirs)


async def writes(report: Report, two: Side, redis: Any) -> None:
    """With one synchronous copy; Redis has none.  # Any: no types that strict mode accepts."""

    async def ours(n: int) -> None:
        await two.users.set(two.remote[n % len(two.remote)], VALUE)

    async def theirs(n: int) -> None:
        await redis.set(KEYS[n % len(KEYS)], VALUE)

    bar = Bar("set with a copy, 64 in flight, against SET without", 5.0)
    await report.contest(bar, ours, theirs, in_flight=64)


async def large_values(report: Report, one: Side, redis: Any) -> None:
    """A mebibyte each.  # Any: no types that strict mode accepts."""
    names = one.remote[:LARGE_COUNT]
    for name in names:
        await one.users.set(name, LARGE)
        await redis.set(f"large:{name}", LARGE)

    async def ours(n: int) -> None:
        await one.users.get(names[n % LARGE_COUNT])

    async def theirs(n: int) -> None:
        await redis.get(f"large:{names[n % LARGE_COUNT]}")

    bar = Bar("get of 1 MiB, 8 in flight, against redis.asyncio", 1.3)
    await report.contest(bar, ours, theirs, in_flight=8)


async def owned_reads(report: Report, one: Side, two: Side) -> None:
    """What this member owns, against a dictionary with the same keys and caches of one process."""
    keys, twice = scattered(one.owned), scattered(two.owned)
    items = dict.fromkeys(keys, VALUE)

    once, doubled = await_each(one.users.get), await_each(two.users.get)
    rounds: dict[str, Round] = {
        "dict": call_each(items.get),
        "here": here_each(one.users),
        "awaited": once,
    }
    with blocking(items) as found:
        plain = {name: call_each(get) for name, get in found.items() if name in BLOCKING_RIVALS}
        slow = {name: await_each(get) for name, get in (await awaited(items)).items()}
        times = await alternate({**rounds, **plain, **slow}, keys, 3 * report.arguments.rounds)
    is_compiled = bool(getattr(cache, "accelerated", False))
    cost = "cost of dict.get"
    for what, limits in (("here", (9, 5)), ("awaited", (12, 7))):
        bar = Bar(f"owned get, {WAYS[what]}, {cost}", limits[is_compiled], is_least=False)
        report.note(bar, ratios(times[what], times["dict"]))
    for what, rivals in (("here", plain), ("awaited", slow)):
        for name in rivals:
            bar = Bar(f"owned get, {WAYS[what]}, cost of {name}", 1.0, is_least=False)
            report.note(bar, ratios(times[what], times[name]))
    # By themselves, so that each finds the processor's caches as the other leaves them.
    pair: dict[str, Round] = {"one": once, "two": lambda _: doubled(twice)}
    times = await alternate(pair, keys, 3 * report.arguments.rounds)
    bar = Bar("owned get with two copies, cost of one", 1.05, is_least=False)
    report.note(bar, ratios(times["two"], times["one"]))


def here_each(users: DistributedMap[bytes]) -> Round:
    """Return what reads each of its keys without a coroutine; all are owned here."""

    def run(keys: list[str]) -> None:
        get = users.read_here
        for key in keys:
            get(key, b"")

    return run


def scattered(keys: list[str]) -> list[str]:
    """Return `LOOKUPS` of the keys, in an order that is not that of their writing."""
    return [keys[(number * 7919) % len(keys)] for number in range(LOOKUPS)]


class Echo(asyncio.Protocol):
    """One end of an echo: it sends back, or settles who waits."""

    def __init__(self) -> None:
        self.waiting: asyncio.Future[bytes] | None = None
        self.stream: Any = None  # Any: the event loop's own class

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the stream."""
        self.stream = transport

    def data_received(self, data: bytes) -> None:
        """Send it back, or settle who waits."""
        if self.waiting is None:
            self.stream.write(data)
        else:
            self.waiting.set_result(data)


ECHO_SERVER: Final = """
import asyncio, sys
from benchmarks.speed.calls import Echo
from benchmarks.support import run
async def main():
    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
run(main(), loop=sys.argv[1])
"""


async def start_echo(stack: AsyncExitStack, placement: str, loop_name: str) -> Operation:
    """Start a process that sends back what comes; return what makes one round trip of 112 bytes."""
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, "-c", ECHO_SERVER, loop_name], stdout=asyncio.subprocess.PIPE, cwd=ROOT
    )

    async def stop() -> None:
        process.kill()
        await process.wait()

    stack.push_async_callback(stop)
    pin(process.pid, placement, index=1)
    assert process.stdout is not None
    port = int(await process.stdout.readline())
    loop = asyncio.get_running_loop()
    stream, end = await loop.create_connection(Echo, "127.0.0.1", port)
    stack.callback(stream.close)
    message = b"e" * 112

    async def echo(_: int) -> None:
        end.waiting = loop.create_future()
        stream.write(message)
        await end.waiting

    return echo
