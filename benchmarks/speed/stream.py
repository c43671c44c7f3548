"""Copying partitions to a new member: how fast flat out, and what readers feel of it by default.

One member holds all keys; a second one joins and gets a copy of each. Flat out: chunks of 256 KiB, two of
them under way, 64 of 128 partitions at once. Default: what `ClusterConfig` says, with a client that reads one
key after the other from the member that sends. Rates count keys and values. Beside them: bare chunks of
16 KiB through a socket of the same kind, four of them unconfirmed, between two processes.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from typing import Any, Final

from benchmarks.bars import Bar, percentile, ratios
from benchmarks.bench_map import SECRET
from benchmarks.speed.fairness import reader_of
from benchmarks.speed.report import Report
from benchmarks.workers import (
    MAP,
    STREAM_CHUNK,
    Source,
    Worker,
    key_of,
    start_worker,
)
from cache.clock import SystemClock
from cache.cluster import ClusterClient

MEGA: Final = 1e6
SIZES: Final = ((100, 200_000, 100.0), (1024, 60_000, 400.0))
"""Bytes of a value, keys, and the bar in MB/s."""
FLAT_OUT: Final = {
    "chunk_bytes": 256 * 1024,
    "chunk_window": 2,
    "migration_parallelism": 64,
    "partition_count": 128,  # So that a partition is as large as 1.6 million keys make each of 1,024.
}
READ_KEYS: Final = 2_000
IDLE_SECONDS: Final = 2.0
RAW_BYTES: Final = 400_000_000
ROUNDS_MAX: Final = 3
"""Pairs of members made anew for each figure: filling one takes long."""


async def measure(report: Report) -> None:
    """Measure the streams."""
    rounds = min(ROUNDS_MAX, report.arguments.rounds)
    raw = [await _raw_rate() for _ in range(rounds)]
    report.note(Bar("bare chunks through a socket", None, "MB/s"), raw)
    for size, count, limit in SIZES:
        rates = await _flat_out(rounds, size, count)
        report.note(Bar(f"rebalance, {size}-byte values, flat out", limit, "MB/s"), rates)
        bar = Bar(f"rebalance, {size}-byte values, flat out, of bare chunks", None)
        report.note(bar, ratios(rates, raw))
    await _felt(report, rounds)


async def _raw_rate() -> float:
    async with AsyncExitStack() as stack:
        sink = await start_worker(stack, "sink", placement="free", index=1)
        loop = asyncio.get_running_loop()
        began = time.perf_counter()
        chunks = RAW_BYTES // STREAM_CHUNK
        _, source = await loop.create_connection(
            lambda: Source(chunks), "127.0.0.1", sink.ready["port"]
        )
        await source.done
        return chunks * STREAM_CHUNK / (time.perf_counter() - began) / MEGA


async def _holder(stack: AsyncExitStack, **settings: Any) -> Worker:
    """Start a member, alone so far.  # Any: fields of ClusterConfig."""
    common: dict[str, Any] = {"cluster_name": "workers", "secret": SECRET, "replica_count": 2}
    return await start_worker(stack, "member", placement="free", index=1, **common, **settings)


async def _joined(
    stack: AsyncExitStack,
    holder: Worker,
    **settings: Any,  # Any: fields of ClusterConfig
) -> tuple[float, float]:
    """Let a member join; return from when to when copies were made."""
    watching = asyncio.ensure_future(holder.order("stream", copies=2))
    try:
        await _holder(stack, peers=[holder.ready["address"]], **settings)
        began, ended = await watching
    finally:
        watching.cancel()
    return float(began), float(ended)


async def _flat_out(rounds: int, size: int, count: int) -> list[float]:
    rates: list[float] = []
    for _ in range(rounds):
        async with AsyncExitStack() as stack:
            holder = await _holder(stack, **FLAT_OUT)
            sent = await holder.order("fill", count=count, size=size)
            began, ended = await _joined(stack, holder, **FLAT_OUT)
            rates.append(sent / (ended - began) / MEGA)
    return rates


async def _felt(report: Report, rounds: int) -> None:
    size, count, _ = SIZES[0]
    quiet: list[float] = []
    busy: list[float] = []
    rates: list[float] = []
    for _ in range(rounds):
        async with AsyncExitStack() as stack:
            holder = await _holder(stack)
            sent = await holder.order("fill", count=count, size=size)
            reader = await stack.enter_async_context(reader_of([holder.ready["address"]]))
            idle = await _read(reader, IDLE_SECONDS)
            reads = Reads(reader)
            reading = asyncio.ensure_future(reads.run())
            try:
                began, ended = await _joined(stack, holder)
                if reading.done():  # It goes on until cancelled, unless a read failed.
                    reading.result()
            finally:
                reading.cancel()
            quiet.append(percentile(idle, 0.99))
            busy.append(percentile(reads.between(began, ended), 0.99))
            rates.append(sent / (ended - began) / MEGA)
    report.note(Bar("rebalance, 100-byte values, default settings", None, "MB/s"), rates)
    report.note(Bar("p99 of a get at rest", None, "µs"), [1e6 * value for value in quiet])
    bar = Bar("p99 of a get while partitions are copied, of its p99 at rest", 2.0, is_least=False)
    report.note(bar, ratios(busy, quiet))


class Reads:
    """Reads one key after the other, and remembers when."""

    def __init__(self, reader: ClusterClient) -> None:
        self._users = reader.map(MAP)
        self._clock = SystemClock()
        self._times: list[tuple[float, float]] = []

    async def run(self) -> None:
        """Go on until cancelled."""
        now = self._clock.monotonic
        while True:
            began = now()
            await self._users.get(key_of(len(self._times) % READ_KEYS))
            self._times.append((began, now()))

    def between(self, first: float, last: float) -> list[float]:
        """Return how long those took that were under way between two instants."""
        found = [end - began for began, end in self._times if end >= first and began <= last]
        assert found, "nothing was read while partitions were copied"
        return found


async def _read(reader: ClusterClient, seconds: float) -> list[float]:
    users = reader.map(MAP)
    times: list[float] = []
    until = time.monotonic() + seconds
    while (began := time.monotonic()) < until:
        await users.get(key_of(len(times) % READ_KEYS))
        times.append(time.monotonic() - began)
    return times
