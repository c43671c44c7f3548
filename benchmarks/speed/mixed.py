"""Three members with two copies, each under the load of its own application, against one Redis.

Each member is a process with 64 tasks in it; nine of ten operations are reads. The other side is one
redis-server, which holds one copy, and three processes with 64 tasks each through `redis.asyncio`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Final

from benchmarks.bars import Bar, ratios
from benchmarks.bench_map import SECRET
from benchmarks.speed.report import Report
from benchmarks.support import redis_server
from benchmarks.workers import WRITE_EVERY, Worker, start_worker

MEMBERS: Final = 3
COPIES: Final = 2
IN_FLIGHT: Final = 64
KEY_COUNT: Final = 20_000
VALUE_BYTES: Final = 100

OLRIC_READS: Final = 0.16
OLRIC_WRITES: Final = 0.21
"""Rate of Olric, three nodes with two copies, 100-byte values, as a share of redis-server's in the same run:
its published measurement, GET and PUT by 50 connections."""


def olric_share() -> float:
    """Return the rate of Olric with the mixed load, as a share of redis-server's: a mean by time."""
    writes = 1 / WRITE_EVERY
    return 1 / ((1 - writes) / OLRIC_READS + writes / OLRIC_WRITES)


async def measure(report: Report) -> None:
    """Let both sides take turns."""
    placement = report.arguments.placement
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(redis_server(placement))
        clients = [
            await start_worker(stack, "redis", placement=placement, index=index, port=port)
            for index in range(MEMBERS)
        ]
        members = await start_members(stack, MEMBERS, copies=COPIES, placement=placement)
        await clients[0].order("fill", count=KEY_COUNT, size=VALUE_BYTES)
        for client in clients[1:]:
            await client.order("fill", count=KEY_COUNT, size=VALUE_BYTES)
        await members[0].order("fill", count=KEY_COUNT, size=VALUE_BYTES)
        for member in members[1:]:
            await member.order("use", count=KEY_COUNT, size=VALUE_BYTES)
        rates: list[list[float]] = [[], []]
        for turn in range(report.arguments.rounds + 1):
            for side, workers in enumerate((members, clients)):
                rate = await _rate(workers, 2 * report.arguments.seconds)
                if turn:  # The first round warms up.
                    rates[side].append(rate)
    found = ratios(*rates)
    report.note(Bar("3 members, 2 copies, mixed load, against one redis-server", 3.0), found)
    over_olric = [ratio / olric_share() for ratio in found]
    report.note(Bar("that mixed load, against Olric's share of Redis", 10.0), over_olric)


async def start_members(
    stack: AsyncExitStack, count: int, *, copies: int, placement: str, loop: str = "auto"
) -> list[Worker]:
    """Start members that form one cluster, and wait until each holds its share."""
    members: list[Worker] = []
    for index in range(count):
        members.append(
            await start_worker(
                stack,
                "member",
                placement=placement,
                index=index,
                loop=loop,
                peers=[member.ready["address"] for member in members[:1]],
                cluster_name="workers",
                secret=SECRET,
                replica_count=copies,
            )
        )
    for member in members:
        await member.order("settled", members=count, copies=min(copies, count))
    return members


async def _rate(workers: Sequence[Worker], seconds: float) -> float:
    orders = [worker.order("mixed", in_flight=IN_FLIGHT, seconds=seconds) for worker in workers]
    return float(sum(await asyncio.gather(*orders)))
