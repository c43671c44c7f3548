"""Locks against Redis: `python benchmarks/bench_lock.py [--seconds 1.0] [--rounds 5]`.

A lock here is held by its key's owner, a `cache node` process, with one copy and with two; Redis's is the
`Lock` of `redis.asyncio` (SET NX PX, a script to release), which asks again every `sleep` seconds while
another holds it: 0.1 by default, 0.001 beside it. Hand-overs: 16 tasks want one lock and give it back.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.bench_map import start_side
from benchmarks.support import (
    Contender,
    Operation,
    compete,
    contest_parser,
    pin,
    print_table,
    redis_server,
    run_contest,
    write_json,
)

CALLERS: Final = 16
PATIENCE: Final = 60.0


class Timed:
    """An operation whose calls are timed."""

    def __init__(self, operation: Operation) -> None:
        self._operation = operation
        self.seconds: list[float] = []

    async def __call__(self, number: int) -> None:
        """Run it once."""
        started = time.perf_counter()
        await self._operation(number)
        self.seconds.append(time.perf_counter() - started)

    @property
    def middle(self) -> float:
        """Median, in microseconds."""
        return 1e6 * median(self.seconds)


async def compare(
    arguments: argparse.Namespace, in_flight: int, operations: dict[str, Operation]
) -> dict[str, dict[str, float]]:
    """Let operations take turns; return rate and median of each."""
    timed = {name: Timed(operation) for name, operation in operations.items()}
    contenders = [Contender(name, operation) for name, operation in timed.items()]
    await compete(
        contenders, in_flight=in_flight, rounds=arguments.rounds, seconds=arguments.seconds
    )
    return {
        c.name: {
            "rate": c.rate,
            "p50_us": timed[c.name].middle,
            "longest_ms": 1000 * max(timed[c.name].seconds),
        }
        for c in contenders
    }


def rows_of(title: str, figures: dict[str, dict[str, float]], against: str) -> Sequence[list[str]]:
    """Return a table's rows, with ratios of rates."""
    base = figures[against]["rate"]
    return [
        [
            title,
            name,
            f"{f['rate']:,.0f}",
            f"{f['rate'] / base:.2f}×",
            f"{f['p50_us']:,.0f} µs",
            f"{f['longest_ms']:,.0f} ms",
        ]
        for name, f in figures.items()
    ]


async def main(arguments: argparse.Namespace) -> int:
    from redis.asyncio import Redis

    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(redis_server(arguments.placement))
        pin(0, arguments.placement, index=0)
        client: Any = Redis(port=port, max_connections=256)  # Any: redis.asyncio's types
        stack.push_async_callback(client.aclose)
        one = await start_side(stack, others=1, copies=1, placement=arguments.placement)
        two = await start_side(stack, others=2, copies=2, placement=arguments.placement)
        hot = {"one copy": (one.users, one.remote[0]), "two copies": (two.users, two.remote[0])}

        def ours(copies: str) -> Operation:
            users, key = hot[copies]

            async def operation(_: int) -> None:
                async with users.lock(key, wait=PATIENCE, renew=arguments.renew):
                    pass

            return operation

        def theirs(sleep: float) -> Operation:
            async def operation(_: int) -> None:
                async with client.lock("hot", timeout=10, sleep=sleep, blocking_timeout=PATIENCE):
                    pass

            return operation

        alone = {f"cache, {copies}": ours(copies) for copies in hot}
        uncontended = await compare(arguments, 1, {**alone, "redis-py Lock": theirs(0.1)})
        contended = await compare(
            arguments,
            CALLERS,
            {**alone, "redis-py Lock, sleep=0.1": theirs(0.1), "sleep=0.001": theirs(0.001)},
        )
    rows = [
        *rows_of("lock and unlock, alone", uncontended, "redis-py Lock"),
        *rows_of(f"hand-overs among {CALLERS}", contended, "redis-py Lock, sleep=0.1"),
    ]
    print_table("Locks", ["what", "", "per second", "ratio", "p50", "longest"], rows)
    write_json(arguments.json, {"uncontended": uncontended, "contended": contended})
    return 0


if __name__ == "__main__":
    parser = contest_parser(__doc__, seconds=1.0)
    parser.add_argument(
        "--renew", action="store_true", help="renew in the background, as by default"
    )
    run_contest("bench_lock", main(parser.parse_args()))
