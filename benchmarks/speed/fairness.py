"""What a crowd costs a single caller: 512 reads in flight, and somebody else who reads one by one.

The owner has a core to itself, the crowd another one. The bar is about a caller in another process, with
a connection of its own: the owner must not make it wait behind the crowd. A caller in the crowd's own
process waits for that process as well, 512 reads by 512 reads; its figure has no bar.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from typing import Final

from benchmarks.bars import Bar, percentile, ratios
from benchmarks.bench_map import SECRET
from benchmarks.speed.mixed import KEY_COUNT, VALUE_BYTES, start_members
from benchmarks.speed.report import Report
from benchmarks.workers import MAP, key_of
from cache.cluster import ClusterClient

CROWD: Final = 512
SAMPLE_SECONDS: Final = 1.5
LEAD_SECONDS: Final = 0.2
"""The crowd begins so much before the first sample, and goes on so much after the last."""


async def measure(report: Report) -> None:
    """Sample a caller with and without the crowd in turns."""
    async with AsyncExitStack() as stack:
        owner, crowd = await start_members(stack, 2, copies=1, placement="cross")
        await owner.order("fill", count=KEY_COUNT, size=VALUE_BYTES)
        await crowd.order("use", count=KEY_COUNT, size=VALUE_BYTES, remote=True)
        reader = await stack.enter_async_context(reader_of([owner.ready["address"]]))
        users = reader.map(MAP)
        wanted = owner.ready["id"]
        keys = [key for key in map(key_of, range(KEY_COUNT)) if users.owner_of(key) == wanted]
        alone: list[float] = []
        beside: list[float] = []
        for turn in range(report.arguments.rounds + 1):
            quiet = await sample(reader, keys, SAMPLE_SECONDS)
            seconds = SAMPLE_SECONDS + 2 * LEAD_SECONDS
            async with asyncio.TaskGroup() as group:
                load = group.create_task(crowd.order("reads", in_flight=CROWD, seconds=seconds))
                await asyncio.sleep(LEAD_SECONDS)
                crowded = await sample(reader, keys, SAMPLE_SECONDS)
                assert not load.done(), "the crowd was there all the time"
            if turn:
                alone.append(percentile(quiet, 0.99))
                beside.append(percentile(crowded, 0.99))
    report.note(Bar("p99 of a single caller", None, "µs", False), [1e6 * p99 for p99 in alone])
    bar = Bar(
        "p99 of a single caller beside 512 reads in flight, of its p99 alone", 3, is_least=False
    )
    report.note(bar, ratios(beside, alone))


def reader_of(addresses: list[str]) -> ClusterClient:
    """Return a client of the members that `start_members` started."""
    return ClusterClient(addresses, cluster_name="workers", secret=SECRET)


async def sample(reader: ClusterClient, keys: list[str], seconds: float) -> list[float]:
    """Read one key after the other; return how long each took."""
    users = reader.map(MAP)
    times: list[float] = []
    until = time.perf_counter() + seconds
    began = time.perf_counter()
    while began < until:
        await users.get(keys[len(times) % len(keys)])
        ended = time.perf_counter()
        times.append(ended - began)
        began = ended
    return times
