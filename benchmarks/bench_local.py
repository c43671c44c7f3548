"""The cache in this process against a dict: `python benchmarks/bench_local.py`.

Speed: rounds alternate, each figure is a median of processor time (on a busy machine, long rounds would be
preempted more often than short ones); what counts is the ratio to `dict.get` of the same run. The loop around
the call is in all of them. Hit ratios are deterministic for a seed. Bytes per entry are growth of a fresh
process's resident size; keys and values exist before, so they are not in it. cachetools and theine take
part where they are installed.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib
import itertools
import math
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.support import print_table, resident_bytes, write_json
from cache.local import LocalCache
from cache.local.cache import PolicyName
from cache.local.eviction import POLICIES
from cache.local.store import Store

SEED: Final = 11
KEY_COUNT: Final = 10_000
TRACE_KEYS: Final = 100_000
CAPACITIES: Final = (1_000, 10_000)
ENTRIES: Final = 200_000
GET_RATIO_BAR: Final = 7.0
ENTRY_BYTES_BAR: Final = 180
POLICY_NAMES: Final[tuple[PolicyName, ...]] = ("s3fifo", "lru", "wtinylfu")


def optional(name: str) -> Any | None:  # Any: a module that may be missing
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


# -- speed ---------------------------------------------------------------------------------------

Round = Callable[[list[str]], Any]  # Any: a coroutine or None


def call_each(call: Callable[[str], object]) -> Round:
    def run(keys: list[str]) -> None:
        for key in keys:
            call(key)

    return run


def await_each(call: Callable[[str], Any]) -> Round:
    async def run(keys: list[str]) -> None:
        for key in keys:
            await call(key)

    return run


async def contenders(keys: list[str]) -> dict[str, Round]:
    plain = dict.fromkeys(keys, b"v" * 100)
    rounds: dict[str, Round] = {"dict.get": call_each(plain.get)}
    rounds["dict.get in a lambda"] = call_each(lambda key: plain.get(key))  # noqa: PLW0108  # its cost is the point
    for policy in POLICY_NAMES:
        cache: LocalCache[bytes] = LocalCache(max_entries=2 * len(keys), policy=policy, ttl="1h")
        await cache.set_many(plain)
        rounds[f"{policy} get_nowait"] = call_each(cache.get_nowait)
        if policy == "s3fifo":
            rounds["s3fifo await get"] = await_each(cache.get)

            async def put(key: str, cache: LocalCache[bytes] = cache) -> None:
                await cache.set(key, b"v" * 100)

            rounds["s3fifo await set"] = await_each(put)
    if cachetools := optional("cachetools"):
        lru = cachetools.LRUCache(2 * len(keys))
        lru.update(plain)
        rounds["cachetools LRUCache.get"] = call_each(lru.get)
    if theine := optional("theine"):
        other = theine.Cache(2 * len(keys))
        for key, value in plain.items():
            other.set(key, value, timedelta(hours=1))
        rounds["theine Cache.get"] = call_each(other.get)
    return rounds


async def measure_speed(round_count: int) -> dict[str, float]:
    """Return nanoseconds per call."""
    keys = [f"key:{number}" for number in range(KEY_COUNT)]
    Random(SEED).shuffle(keys)
    rounds = await contenders(keys)
    taken: dict[str, list[float]] = {name: [] for name in rounds}
    for turn in range(round_count + 1):
        order = list(rounds) if turn % 2 else list(reversed(rounds))
        for name in order:
            await asyncio.sleep(0)  # A turn of its own: the cache reads its clock once in it.
            started = time.thread_time()
            done = rounds[name](keys)
            if done is not None:
                await done
            if turn:
                taken[name].append((time.thread_time() - started) / len(keys) * 1e9)
    return {name: statistics.median(times) for name, times in taken.items()}


def measure_without_loop(round_count: int) -> float:
    """Return nanoseconds per `get_nowait` outside a loop, where each call reads the clock."""
    keys = [f"key:{number}" for number in range(KEY_COUNT)]
    cache: LocalCache[bytes] = LocalCache(max_entries=2 * KEY_COUNT, ttl="1h")
    asyncio.run(cache.set_many(dict.fromkeys(keys, b"v")))
    times = []
    for _ in range(round_count):
        started = time.thread_time()
        call_each(cache.get_nowait)(keys)
        times.append((time.thread_time() - started) / len(keys) * 1e9)
    return statistics.median(times)


# -- hit ratios ----------------------------------------------------------------------------------


def zipf(rng: Random, count: int, *, exponent: float = 0.99) -> list[int]:
    weights = (1 / rank**exponent for rank in range(1, TRACE_KEYS + 1))
    cumulated = list(itertools.accumulate(weights))
    return rng.choices(range(TRACE_KEYS), cum_weights=cumulated, k=count)


def shifting(rng: Random, count: int) -> list[int]:
    """Zipf, whose hot keys become others ten times."""
    every = count // 10
    return [
        (key + place // every * 7_919) % TRACE_KEYS for place, key in enumerate(zipf(rng, count))
    ]


def scans(rng: Random, count: int, *, repeated: bool) -> list[int]:
    """Zipf, and after each 20,000 requests 10,000 keys in a row: others each time, or the same."""
    trace: list[int] = []
    fresh = itertools.count(TRACE_KEYS)
    for place, key in enumerate(zipf(rng, count * 2 // 3)):
        if place % 20_000 == 19_999:
            scanned = range(TRACE_KEYS, TRACE_KEYS + 10_000)
            trace.extend(scanned if repeated else itertools.islice(fresh, 10_000))
        trace.append(key)
    return trace


def hits_of_store(policy: str, capacity: int, trace: Sequence[int]) -> int:
    store: Store[int] = Store(POLICIES[policy](), rng=Random(SEED), max_entries=capacity)
    for key in trace:
        if store.get(key, 0.0) is None:
            store.put(key, 1, expires_at=math.inf, now=0.0, value_bytes=1)
    return store.hits


def hits_of_cachetools(module: Any, capacity: int, trace: Sequence[int]) -> int:  # Any: untyped
    cache = module.LRUCache(capacity)
    hits = 0
    for key in trace:
        if cache.get(key) is None:
            cache[key] = 1
        else:
            hits += 1
    return hits


def hits_of_theine(module: Any, capacity: int, trace: Sequence[int]) -> int:  # Any: untyped
    cache = module.Cache(capacity)
    hits = 0
    for key in trace:
        if cache.get(key)[1]:
            hits += 1
        else:
            cache.set(key, 1)
    return hits


def measure_hits(count: int) -> dict[str, dict[str, list[float]]]:
    """Return hit ratios in percent: trace → policy → one for each capacity."""
    traces = {
        "Zipf 0.99": zipf(Random(SEED), count),
        "Zipf 0.80": zipf(Random(SEED), count, exponent=0.8),
        "shifting": shifting(Random(SEED), count),
        "Zipf + one-shot scans": scans(Random(SEED), count, repeated=False),
        "Zipf + repeated scan": scans(Random(SEED), count, repeated=True),
    }
    players: dict[str, Callable[[int, Sequence[int]], int]] = {
        name: lambda capacity, trace, name=name: hits_of_store(name, capacity, trace)  # type: ignore[misc]  # bound now
        for name in POLICY_NAMES
    }
    if cachetools := optional("cachetools"):
        players["cachetools LRU"] = lambda c, t: hits_of_cachetools(cachetools, c, t)
    if theine := optional("theine"):
        players["theine"] = lambda c, t: hits_of_theine(theine, c, t)
    return {
        title: {
            name: [100 * play(capacity, trace) / len(trace) for capacity in CAPACITIES]
            for name, play in players.items()
        }
        for title, trace in traces.items()
    }


# -- bytes per entry -----------------------------------------------------------------------------


def grow(case: str) -> float:
    """Return the bytes per entry this (fresh) process grows by."""
    kind, _, situation = case.partition(" ")
    total = 3 * ENTRIES if situation == "evicting" else ENTRIES
    keys = [f"key:{number:012}" for number in range(total)]
    values = [b"%0100d" % number for number in range(total)]
    ttl = 3600.0 if situation == "ttl" else None
    gc.collect()
    before = resident_bytes("self")
    held: Any = {}  # Any: a dict, or what is compared with it
    if kind == "dict":
        held.update(zip(keys, values, strict=True))
    else:
        held = Store[bytes](POLICIES[kind](), rng=Random(SEED), max_entries=ENTRIES)
        for number, (key, value) in enumerate(zip(keys, values, strict=True)):
            now = number / 1_000  # Spread over time: no instants shared between entries.
            held.put(key, value, expires_at=held.expires_at(ttl, now), now=now)
    gc.collect()
    return (resident_bytes("self") - before) / ENTRIES


def measure_entries() -> dict[str, float]:
    cases = ["dict", *(f"{name} {how}" for name in POLICY_NAMES for how in ("", "ttl", "evicting"))]
    context = multiprocessing.get_context("spawn")
    with context.Pool(1, maxtasksperchild=1) as pool:
        return {case.strip(): pool.apply(grow, (case,)) for case in cases}


# -- report --------------------------------------------------------------------------------------


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--requests", type=int, default=600_000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()

    speed = asyncio.run(measure_speed(arguments.rounds))
    speed["s3fifo get_nowait, no loop"] = measure_without_loop(arguments.rounds)
    plain = speed["dict.get"]
    rows = [[name, f"{ns:.0f}", f"{ns / plain:.1f}"] for name, ns in speed.items()]
    print_table(f"Hits among {KEY_COUNT:,} keys", ["call", "ns", "× dict.get"], rows)

    entries = measure_entries()
    rows = [[case, f"{size:.0f}"] for case, size in entries.items()]
    print_table(f"Bytes per entry over key and value, {ENTRIES:,} entries", ["case", "B"], rows)

    hits = measure_hits(arguments.requests)
    players = list(next(iter(hits.values())))
    rows = [
        [title, *(" / ".join(f"{share:.1f}" for share in by[name]) for name in players)]
        for title, by in hits.items()
    ]
    title = f"Hit ratio in %, {arguments.requests:,} requests, capacity " + " / ".join(
        f"{capacity:,}" for capacity in CAPACITIES
    )
    print_table(title, ["trace", *players], rows)

    write_json(arguments.json, {"speed_ns": speed, "entry_bytes": entries, "hit_percent": hits})
    ratio = speed["s3fifo get_nowait"] / plain
    print(f"\nget_nowait: {ratio:.1f} × dict.get (bar {GET_RATIO_BAR})")
    print(f"entry: {entries['s3fifo']:.0f} B, with ttl {entries['s3fifo ttl']:.0f} B", end=" ")
    print(f"(bar {ENTRY_BYTES_BAR})")
    return int(ratio > GET_RATIO_BAR or entries["s3fifo"] > ENTRY_BYTES_BAR)


if __name__ == "__main__":
    sys.exit(main())
