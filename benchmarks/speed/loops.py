"""The same two members on uvloop and on asyncio's own loop: reads, and the mixed load, by one of them."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Final

from benchmarks.bars import Bar, ratios
from benchmarks.speed.mixed import KEY_COUNT, VALUE_BYTES, start_members
from benchmarks.speed.report import Report
from benchmarks.workers import Worker

LOADS: Final = (("reads", 1), ("reads", 64), ("reads", 512), ("mixed", 64))
NAMES: Final = {"reads": "remote get", "mixed": "mixed load"}


async def measure(report: Report) -> None:
    """Let both pairs take turns."""
    async with AsyncExitStack() as stack:
        fast = await _pair(stack, report.arguments.placement, "auto")
        plain = await _pair(stack, report.arguments.placement, "asyncio")
        for what, in_flight in LOADS:
            rates: list[list[float]] = [[], []]
            for turn in range(report.arguments.rounds + 1):
                for side, worker in enumerate((fast, plain)):
                    seconds = report.arguments.seconds
                    rate = await worker.order(what, in_flight=in_flight, seconds=seconds)
                    if turn:  # The first round warms up.
                        rates[side].append(rate)
            title = f"uvloop: {NAMES[what]}, {in_flight} in flight, of asyncio's loop"
            report.note(Bar(title, None), ratios(*rates))


async def _pair(stack: AsyncExitStack, placement: str, loop: str) -> Worker:
    """Start two members; return the one that works with the other's keys."""
    owner, caller = await start_members(stack, 2, copies=1, placement=placement, loop=loop)
    await owner.order("fill", count=KEY_COUNT, size=VALUE_BYTES)
    await caller.order("use", count=KEY_COUNT, size=VALUE_BYTES, remote=True)
    return caller
