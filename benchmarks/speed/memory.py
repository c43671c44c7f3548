"""What entries cost: bytes beside a dict, stalls of single inserts, and the garbage collector's pauses.

Each figure is of a fresh process. Pauses are of a process that holds the copies of one member in 1,024
partitions; times are of the processor, so that others on the machine do not count.
"""

from __future__ import annotations

import gc
import math
import time
from typing import Final

from benchmarks.bars import Bar
from benchmarks.bench_local import in_fresh_process
from benchmarks.bench_memory import fill_replicas, measure_entry, measure_overwrites
from benchmarks.speed.report import Report

PARTITIONS: Final = 1024
STALL_ENTRIES: Final = 2_000_000
PAUSE_ENTRIES: Final = ((100_000, None), (1_000_000, 20.0))
"""Entries, and the bar in milliseconds."""
OVERWRITES: Final = 1_000_000
COLLECTIONS: Final = 5
ROUNDS_MAX: Final = 3
"""Fresh processes for each figure: filling two million entries takes long."""


def measure(report: Report) -> None:
    """Measure all of them."""
    rounds = min(ROUNDS_MAX, report.arguments.rounds)
    entries = [in_fresh_process(measure_entry) for _ in range(rounds)]
    bar = Bar("memory of an entry of 100 bytes, of a dict's", 1.35, is_least=False)
    report.note(bar, [entry["ratio_to_dict"] for entry in entries])
    report.note(Bar("bytes of that entry", None, "B", False), [entry["entry"] for entry in entries])
    grown = in_fresh_process(measure_overwrites, OVERWRITES)
    bar = Bar("resident memory after 1,000,000 overwrites, of before", 1.05, is_least=False)
    report.note(bar, [grown["final_rss"] / grown["settled_rss"]])
    still = [in_fresh_process(longest_insert, False) for _ in range(rounds)]
    bar = Bar("longest of 2,000,000 inserts, collector off", 2, "ms", is_least=False)
    report.note(bar, [1e3 * seconds for seconds in still])
    swept = [in_fresh_process(longest_insert, True)]
    report.note(
        Bar("longest of 2,000,000 inserts, collector on", None, "ms", False),
        [1e3 * seconds for seconds in swept],
    )
    for count, limit in PAUSE_ENTRIES:
        seen, frozen = in_fresh_process(collector_pauses, count)
        bar = Bar(f"full collection beside {count:,} entries", limit, "ms", is_least=False)
        report.note(bar, [1e3 * seconds for seconds in seen])
        bar = Bar(f"full collection beside {count:,} entries, after gc.freeze()", None, "ms", False)
        report.note(bar, [1e3 * seconds for seconds in frozen])


def longest_insert(is_collected: bool) -> float:  # goes through a pool, by position
    """Return the processor seconds of the slowest of `STALL_ENTRIES` inserts."""
    if not is_collected:
        gc.disable()
    clock = time.thread_time
    longest, began = 0.0, math.inf  # The first interval is that of making the partitions.

    def inserted() -> None:
        nonlocal began, longest
        ended = clock()
        longest = max(longest, ended - began)
        began = ended

    fill_replicas(STALL_ENTRIES, inserted, partitions=PARTITIONS)
    return longest


def collector_pauses(count: int) -> tuple[list[float], list[float]]:
    """Return the seconds of full collections beside `count` entries, and after `gc.freeze()`."""
    held = fill_replicas(count, partitions=PARTITIONS)
    gc.collect()  # This one finds out which tuples hold atoms only.
    seen = [_collection() for _ in range(COLLECTIONS)]
    gc.freeze()
    frozen = [_collection() for _ in range(COLLECTIONS)]
    del held
    return seen, frozen


def _collection() -> float:
    began = time.thread_time()
    gc.collect()
    return time.thread_time() - began
