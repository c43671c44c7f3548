"""Members come and go: a fourth one joins and takes its share; one is killed, and its keys are written to."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import AsyncExitStack
from typing import Final

from benchmarks.bars import Bar
from benchmarks.bench_cluster import BALANCED, cluster_bench
from benchmarks.bench_map import VALUE, Side, settled, start_side
from benchmarks.speed.report import Report
from cache.demo.processes import NodeProcess
from cache.errors import CacheError

KEYS: Final = 100_000
JOINS_MAX: Final = 3
"""Clusters that are made anew for a join, whatever the rounds: each writes all keys."""
RECOVERY_TIMEOUT: Final = 30.0
MEMBERS: Final = 3
COPIES: Final = 2


async def measure(report: Report) -> None:
    """Measure joins and crashes."""
    joins = []
    for _ in range(min(JOINS_MAX, report.arguments.rounds)):
        async with cluster_bench(KEYS) as bench:
            await bench.form()
            await bench.join()
            if bench.failures:
                raise RuntimeError(f"calls failed during a join: {bench.failures[:3]}")
            joins.append(bench.seconds[BALANCED])
    bar = Bar(
        "join of a 4th member, 100,000 keys: process started … all moved", 3, "s", is_least=False
    )
    report.note(bar, joins)
    await _crashes(report)


async def _crashes(report: Report) -> None:
    times = []
    async with AsyncExitStack() as stack:
        side = await start_side(stack, others=MEMBERS - 1, copies=COPIES, placement="free")
        victim = await side.group.start("victim0", [side.node.address])
        for number in range(report.arguments.rounds):
            await settled(side.node, MEMBERS + 1, COPIES)
            times.append(1e3 * await _first_write(side, victim))
            victim = await side.group.start(f"victim{number + 1}", [side.node.address])
    bar = Bar("SIGKILL → first write of a key it owned", 50, "ms", is_least=False)
    report.note(bar, times)


async def _first_write(side: Side, victim: NodeProcess) -> float:
    """Kill a member; return the seconds until a write of one of its keys is acknowledged by another owner."""
    users = side.users
    keys = [key for key in side.remote if users.owner_of(key) == victim.id]
    assert keys, "the victim owns nothing"
    began = time.perf_counter()
    os.kill(victim.pid, signal.SIGKILL)
    async with asyncio.timeout(RECOVERY_TIMEOUT):
        for number in range(10**9):
            key = keys[number % len(keys)]
            try:
                await users.set(key, VALUE)
            except CacheError:
                continue
            # Before its sockets are closed the victim may have answered; that is not what is waited for.
            if users.owner_of(key) != victim.id:
                break
    took = time.perf_counter() - began
    assert await victim.wait_exit() == -signal.SIGKILL
    return took
