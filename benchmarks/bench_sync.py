"""What a blocking hit costs: `python benchmarks/bench_sync.py`.

Rounds alternate, each figure is a median of processor time; what counts is the ratio to a dict under a lock
of the same run. The loop around the call is in all of them. cachetools takes part where it is installed.
The calls that cross to a loop are measured by the wall clock.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.support import optional, print_table, write_json
from cache import SyncCache

SEED: Final = 11
KEY_COUNT: Final = 10_000
HIT_RATIO_BAR: Final = 2.0
CROSSING_KEYS: Final = 500

Get = Callable[[str], object]


class LockedDict:
    """The least that threads need."""

    def __init__(self, items: dict[str, bytes]) -> None:
        self._lock = threading.Lock()
        self._items = items

    def get(self, key: str, default: bytes | None = None) -> bytes | None:
        """Look up one key."""
        with self._lock:
            return self._items.get(key, default)


def contenders(plain: dict[str, bytes], cluster: SyncCache[bytes]) -> dict[str, Get]:
    gets: dict[str, Get] = {"dict.get": plain.get, "locked dict": LockedDict(plain).get}
    for policy in ("s3fifo", "lru", "wtinylfu"):
        cache = SyncCache[bytes].open("local://?ttl=1h", policy=policy, max_entries=2 * len(plain))
        cache.set_many(plain)
        gets[f"SyncCache, local {policy}"] = cache.get
    if cachetools := optional("cachetools"):
        lock = threading.Lock()
        held: Any = cachetools.TTLCache(2 * len(plain), ttl=3600)  # Any: untyped
        held.update(plain)

        def get(key: str) -> object:
            with lock:
                return held.get(key)

        gets["locked cachetools TTLCache"] = get
    gets["SyncCache, key owned here"] = cluster.get
    return gets


def measure_hits(gets: dict[str, Get], keys: list[str], round_count: int) -> dict[str, float]:
    """Return nanoseconds per hit."""
    taken: dict[str, list[float]] = {name: [] for name in gets}
    for turn in range(round_count + 1):
        for name in list(gets) if turn % 2 else list(reversed(gets)):
            get = gets[name]
            started = time.thread_time()
            for key in keys:
                get(key)
            if turn:
                taken[name].append((time.thread_time() - started) / len(keys) * 1e9)
    return {name: statistics.median(times) for name, times in taken.items()}


def measure_crossings(cluster: SyncCache[bytes], keys: list[str]) -> dict[str, float]:
    """Return microseconds per call that crosses to the loop."""
    calls: dict[str, Get] = {
        "set of a key owned here": lambda key: cluster.set(key, b"v"),
        "get of an absent key": lambda key: cluster.get(key + "?"),
    }
    taken: dict[str, float] = {}
    for name, call in calls.items():
        times = []
        for key in keys:
            started = time.perf_counter()
            call(key)
            times.append((time.perf_counter() - started) * 1e6)
        taken[name] = statistics.median(times)
    return taken


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    keys = [f"key:{number}" for number in range(KEY_COUNT)]
    Random(SEED).shuffle(keys)
    plain = dict.fromkeys(keys, b"v" * 100)
    with SyncCache[bytes].open("cluster://127.0.0.1:0/bench?preset=local") as cluster:
        cluster.set_many(plain)
        hits = measure_hits(contenders(plain, cluster), keys, arguments.rounds)
        crossings = measure_crossings(cluster, keys[:CROSSING_KEYS])

    base = hits["locked dict"]
    rows = [[name, f"{ns:.0f}", f"{ns / base:.2f}"] for name, ns in hits.items()]
    print_table(f"Hits among {KEY_COUNT:,} keys", ["call", "ns", "× locked dict"], rows)
    rows = [[name, f"{us:.0f}"] for name, us in crossings.items()]
    print_table("Calls that cross to the background's loop", ["call", "µs"], rows)
    write_json(arguments.json, {"hit_ns": hits, "crossing_us": crossings})
    ratio = hits["SyncCache, local s3fifo"] / base
    print(f"\nSyncCache hit: {ratio:.2f} × locked dict (bar {HIT_RATIO_BAR})")
    return int(ratio > HIT_RATIO_BAR)


if __name__ == "__main__":
    sys.exit(main())
