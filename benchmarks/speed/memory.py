"""What entries cost: bytes beside a dict, stalls of single inserts, and the garbage collector's pauses.

Each figure is of a fresh process. Pauses are of a process that holds the copies of one member in 1,024
partitions; times are of the processor, so that others on the machine do not count.
"""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable
from typing import Final

from benchmarks.bars import Bar
from benchmarks.bench_local import in_fresh_process
from benchmarks.bench_memory import fill_replicas, measure_entry, measure_overwrites, write_to_each
from benchmarks.speed.report import Report

PARTITIONS: Final = 1024
STALL_ENTRIES: Final = 2_000_000
PAUSE_ENTRIES: Final = ((100_000, None), (1_000_000, 20.0))
"""Entries, and the bar in milliseconds."""
OVERWRITES: Final = 1_000_000
PREPARATIONS: Final = {
    "at rest": "at rest",
    "written": "a write to each partition between",
    "ending": "times to live of up to an hour, a write to each partition between",
    "frozen": "the same after gc.freeze()",
    "collected and frozen": "the same after gc.collect() and gc.freeze()",
}
COLLECTIONS: Final = 5
ALLOCATED_BYTES: Final = 280
"""What an entry with its key takes, about."""
ROUNDS_MAX: Final = 3
"""Fresh processes for each figure: filling two million entries takes long."""


def measure(report: Report) -> None:
    """Measure all of them."""
    rounds = min(ROUNDS_MAX, report.arguments.rounds)
    entries = [measure_entry() for _ in range(rounds)]
    bar = Bar("memory of an entry of 100 bytes, of a dict's", 1.35, is_least=False)
    report.note(bar, [entry["ratio_to_dict"] for entry in entries])
    report.note(Bar("bytes of that entry", None, "B", False), [entry["entry"] for entry in entries])
    grown = in_fresh_process(measure_overwrites, OVERWRITES)
    bar = Bar("resident memory after 1,000,000 overwrites, of before", 1.05, is_least=False)
    report.note(bar, [grown["final_rss"] / grown["settled_rss"]])
    still = [in_fresh_process(longest_insert, False) for _ in range(rounds)]
    bar = Bar("longest of 2,000,000 inserts, collector off", 2, "ms", is_least=False)
    report.note(bar, [1e3 * seconds for seconds in still])
    floor = [in_fresh_process(longest_allocation) for _ in range(rounds)]
    report.note(
        Bar("longest of 2,000,000 allocations of as much memory", None, "ms", False),
        [1e3 * seconds for seconds in floor],
    )
    swept = [in_fresh_process(longest_insert, True)]
    report.note(
        Bar("longest of 2,000,000 inserts, collector on", None, "ms", False),
        [1e3 * seconds for seconds in swept],
    )
    for count, limit in PAUSE_ENTRIES:
        for before, title in PREPARATIONS.items():
            pauses = in_fresh_process(collector_pauses, count, before)
            is_bar = before in ("written", "ending")
            path = f"full collection beside {count:,} entries, {title}"
            bar = Bar(path, limit if is_bar else None, "ms", is_least=False)
            report.note(bar, [1e3 * seconds for seconds in pauses])


def longest_insert(is_collected: bool) -> float:  # goes through a pool, by position
    """Return the processor seconds of the slowest of `STALL_ENTRIES` inserts."""
    if not is_collected:
        gc.disable()
    return _longest(lambda step: fill_replicas(STALL_ENTRIES, step, partitions=PARTITIONS))


def longest_allocation() -> float:
    """Return the processor seconds of the slowest of `STALL_ENTRIES` allocations: what the system takes."""
    gc.disable()
    held: list[bytes | None] = [None] * STALL_ENTRIES

    def allocate(step: Callable[[], None]) -> None:
        for number in range(STALL_ENTRIES):
            held[number] = bytes(ALLOCATED_BYTES)
            step()

    return _longest(allocate)


def _longest(work: Callable[[Callable[[], None]], object]) -> float:
    """Return the most processor seconds between two calls of what `work` is given to call."""
    clock = time.thread_time
    longest, began = 0.0, math.inf  # What is before the first call is preparation.

    def step() -> None:
        nonlocal began, longest
        ended = clock()
        longest = max(longest, ended - began)
        began = ended

    work(step)
    return longest


def collector_pauses(count: int, before: str) -> list[float]:
    """Return what full collections take longer beside `count` entries than in this process without.

    The first one untracks tuples of atoms, and with them dictionaries that hold nothing else, which it need
    not look into again; a write of an entry has its dictionary tracked again. What is frozen while it is
    tracked is never looked at.
    """
    gc.collect()
    empty = statistics.median(_collection() for _ in range(COLLECTIONS))
    ends = 3600.0 if before == "ending" else math.inf
    held = fill_replicas(count, partitions=PARTITIONS, ends=ends)
    if before == "frozen":
        gc.freeze()
    gc.collect()
    if before == "collected and frozen":
        gc.freeze()
    pauses: list[float] = []
    for stamp in range(COLLECTIONS):
        if before != "at rest":
            write_to_each(held, stamp)
        pauses.append(max(0.0, _collection() - (empty if "frozen" not in before else 0.0)))
    del held
    return pauses


def _collection() -> float:
    began = time.thread_time()
    gc.collect()
    return time.thread_time() - began
