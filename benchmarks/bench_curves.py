"""How figures depend on load and size: `python benchmarks/bench_curves.py [--json FILE] [--plots FOLDER]`.

Latency distribution of single calls, throughput against concurrency, cost against the size of values,
one client over 1 to 8 members, and reads of owned keys among 10³ to 10⁶. Beside ours redis.asyncio with
hiredis on a redis-server, or a dict, in rounds that alternate. Plots need matplotlib (extra
`bench-local`).
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.bars import percentile
from benchmarks.bench_local import Round, alternate, await_each, call_each
from benchmarks.bench_map import BATCH, KEYS, VALUE, Side, batch_of, start_contest
from benchmarks.plots import draw_curves
from benchmarks.speed.calls import here_each, scattered
from benchmarks.speed.fairness import reader_of
from benchmarks.speed.mixed import KEY_COUNT, start_members
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
from benchmarks.workers import MAP, key_of
from cache.cluster import ClusterConfig, Node

PERCENTILES: Final = (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999)
CONCURRENCIES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
SIZES: Final = (10, 100, 1_000, 10_000, 100_000, 2**20)
SIZED_KEYS: Final = 16
MEMBER_COUNTS: Final = (1, 2, 4, 8)
KEY_COUNTS: Final = (1_000, 10_000, 100_000, 1_000_000)
FILL_BATCH: Final = 1_000

Curve = dict[str, list[float]]
"""By name of a line: one figure for each point."""


class Curves:
    """Measures curve by curve."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        self.found: dict[str, dict[str, Any]] = {}  # Any: JSON values

    def note(self, title: str, unit: str, points: Sequence[float], lines: Curve) -> None:
        """Keep a curve, and show it."""
        self.found[title] = {"unit": unit, "points": list(points), "lines": lines}
        rows = [
            [f"{point:,g}", *(f"{line[place]:,.1f}" for line in lines.values())]
            for place, point in enumerate(points)
        ]
        print_table(f"{title} ({unit})", ["", *lines], rows)

    async def rates(self, operations: dict[str, Operation], in_flight: int) -> dict[str, float]:
        """Return operations per second by name."""
        found = [Contender(name, operation) for name, operation in operations.items()]
        rounds, seconds = self._arguments.rounds, self._arguments.seconds
        await compete(found, in_flight=in_flight, rounds=rounds, seconds=seconds)
        return {contender.name: contender.rate for contender in found}

    # -- against Redis -----------------------------------------------------------------------

    async def against_redis(self) -> None:
        """Measure what has Redis beside it."""
        async with AsyncExitStack() as stack:
            one, two, redis = await start_contest(stack, self._arguments.placement)
            calls = single_calls(one, two, redis)
            await self._latency(calls)
            await self._concurrency({name: calls[name] for name in ("get", "redis.asyncio get")})
            await self._sizes(one, redis)

    async def _latency(self, calls: dict[str, Operation]) -> None:
        lines: Curve = {}
        for name, call in calls.items():
            await _times(call, self._arguments.seconds)  # Warms up.
            seconds = self._arguments.seconds * self._arguments.rounds
            times = await _times(call, seconds)
            lines[name] = [1e6 * percentile(times, share) for share in PERCENTILES]
        self.note("latency", "µs", [100 * share for share in PERCENTILES], lines)

    async def _concurrency(self, calls: dict[str, Operation]) -> None:
        lines: Curve = {name: [] for name in calls}
        for in_flight in CONCURRENCIES:
            for name, rate in (await self.rates(calls, in_flight)).items():
                lines[name].append(rate)
        self.note("concurrency", "calls/s", CONCURRENCIES, lines)

    async def _sizes(self, side: Side, redis: Any) -> None:  # Any: no types for strict mode
        lines: Curve = {}
        for size in SIZES:
            value, keys = b"v" * size, side.remote[:SIZED_KEYS]
            calls = sized_calls(side, redis, keys, value)
            await asyncio.gather(*(calls["set"](n) for n in range(SIZED_KEYS)))
            await asyncio.gather(*(calls["redis.asyncio set"](n) for n in range(SIZED_KEYS)))
            for name, rate in (await self.rates(calls, 1)).items():
                lines.setdefault(name, []).append(1e6 / rate)
        self.note("value size", "µs per call", SIZES, lines)

    # -- one client, more members --------------------------------------------------------------

    async def members(self) -> None:
        """Measure one client against clusters of several sizes."""
        placement = self._arguments.placement
        pin(0, placement, index=0)
        lines: Curve = {}
        for count in MEMBER_COUNTS:
            async with AsyncExitStack() as stack:
                members = await start_members(stack, count, copies=1, placement=placement)
                await members[0].order("fill", count=KEY_COUNT, size=len(VALUE))
                reader = await stack.enter_async_context(reader_of([members[0].ready["address"]]))
                users, keys = reader.map(MAP), [key_of(number) for number in range(KEY_COUNT)]

                async def get(n: int, users: Any = users, keys: list[str] = keys) -> None:
                    await users.get(keys[n * 7919 % KEY_COUNT])

                async def many(n: int, users: Any = users, keys: list[str] = keys) -> None:
                    await users.get_many(batch_of(keys, n))

                for title, call, in_flight in (
                    ("get, 1 in flight", get, 1),
                    ("get, 64 in flight", get, 64),
                    (f"get_many of {BATCH}, keys", many, 1),
                ):
                    rates = await self.rates({title: call}, in_flight)
                    keys_each = BATCH if call is many else 1
                    lines.setdefault(title, []).append(rates[title] * keys_each)
        self.note("members", "keys/s", MEMBER_COUNTS, lines)

    # -- owned keys ------------------------------------------------------------------------------

    async def owned(self) -> None:
        """Measure reads of owned keys among more and more of them."""
        lines: Curve = {"dict.get": [], "owned get, no await": [], "owned get, awaited": []}
        config = ClusterConfig.local(bind="127.0.0.1:0", leave_timeout=1.0)
        async with Node(config) as node:
            users: Any = node.map(MAP)  # Any: a map of bytes
            plain: dict[str, bytes] = {}
            for count in KEY_COUNTS:
                names = [key_of(number) for number in range(len(plain), count)]
                plain.update(dict.fromkeys(names, VALUE))
                for start in range(0, len(names), FILL_BATCH):
                    batch = names[start : start + FILL_BATCH]
                    await users.set_many(dict.fromkeys(batch, VALUE))
                keys = scattered(list(plain))
                rounds: dict[str, Round] = {
                    "dict.get": call_each(plain.get),
                    "owned get, no await": here_each(users),
                    "owned get, awaited": await_each(users.get),
                }
                times = await alternate(rounds, keys, 3 * self._arguments.rounds)
                for name, values in times.items():
                    lines[name].append(statistics.median(values))
        self.note("keys", "ns per get", KEY_COUNTS, lines)


async def _times(call: Operation, seconds: float) -> list[float]:
    times: list[float] = []
    until = time.perf_counter() + seconds
    began = time.perf_counter()
    while began < until:
        await call(len(times))
        ended = time.perf_counter()
        times.append(ended - began)
        began = ended
    return times


def single_calls(one: Side, two: Side, redis: Any) -> dict[str, Operation]:
    """Return calls of 100-byte values by their names.  # Any: no types for strict mode."""

    async def get(n: int) -> None:
        await one.users.get(one.remote[n % len(one.remote)])

    async def copied_set(n: int) -> None:
        await two.users.set(two.remote[n % len(two.remote)], VALUE)

    async def redis_get(n: int) -> None:
        await redis.get(KEYS[n % len(KEYS)])

    async def redis_set(n: int) -> None:
        await redis.set(KEYS[n % len(KEYS)], VALUE)

    return {
        "get": get,
        "redis.asyncio get": redis_get,
        "set, two copies": copied_set,
        "redis.asyncio set, one copy": redis_set,
    }


def sized_calls(side: Side, redis: Any, keys: list[str], value: bytes) -> dict[str, Operation]:
    """Return calls with this value by their names.  # Any: no types for strict mode."""

    def by_key(call: Callable[[str], Awaitable[Any]]) -> Operation:  # Any: not looked at
        return lambda n: call(keys[n % len(keys)])

    return {
        "get": by_key(side.users.get),
        "redis.asyncio get": by_key(lambda key: redis.get(f"sized:{key}")),
        "set": by_key(lambda key: side.users.set(key, value)),
        "redis.asyncio set": by_key(lambda key: redis.set(f"sized:{key}", value)),
    }


async def main(arguments: argparse.Namespace) -> int:
    curves = Curves(arguments)
    await curves.owned()
    await curves.members()
    await curves.against_redis()
    write_json(arguments.json, {"placement": arguments.placement, "curves": curves.found})
    draw_curves(curves.found, arguments.plots)
    return 0


if __name__ == "__main__":
    parser = contest_parser(__doc__, seconds=0.2)
    parser.set_defaults(placement="same", rounds=3)
    folder = Path(__file__).resolve().parent / "plots"
    parser.add_argument("--plots", type=Path, default=folder, help="folder of the plots")
    run_contest("bench_curves", main(parser.parse_args()))
