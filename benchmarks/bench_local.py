"""The cache in this process against a dict and other caches: `python benchmarks/bench_local.py`.

Speed: rounds alternate, each figure is a median of processor time (on a busy machine, long rounds would be
preempted more often than short ones); what counts is the ratio to `dict.get` of the same run. The loop around
the call is in all of them. Hit ratios are deterministic for a seed. Bytes per entry are growth of a fresh
process's resident size; keys and values exist before, so they are not in it. Stalls of the loop are processor
time of one turn. Others take part where they are installed, see `rivals.py`.
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
from pathlib import Path
from random import Random
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.bars import Bar, Figure, ratios
from benchmarks.rivals import awaited, blocking, hit_counters
from benchmarks.support import optional, print_table, resident_bytes, write_json
from cache.clock import SystemClock
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
THEINE_RATIO_BAR: Final = 0.25
ENTRY_BYTES_BAR: Final = 180
HIT_GAP_BAR: Final = 0.5
STALL_BAR: Final = 0.002
GROWTH_BAR: Final = 0.05
OVERWRITES: Final = 1_000_000
PLOTS: Final = Path(__file__).resolve().parent / "plots"
POLICY_NAMES: Final[tuple[PolicyName, ...]] = ("s3fifo", "lru", "wtinylfu")


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


async def ours(items: dict[str, bytes]) -> dict[str, Round]:
    rounds: dict[str, Round] = {}
    for policy in POLICY_NAMES:
        cache: LocalCache[bytes] = LocalCache(max_entries=2 * len(items), policy=policy, ttl="1h")
        await cache.set_many(items)
        rounds[f"{policy} get_nowait"] = call_each(cache.get_nowait)
        rounds[f"{policy} await get"] = await_each(cache.get)
        if policy == "s3fifo":

            async def put(key: str, cache: LocalCache[bytes] = cache) -> None:
                await cache.set(key, items[key])

            rounds["s3fifo get_entry_nowait"] = call_each(cache.get_entry_nowait)
            rounds["s3fifo await get_entry"] = await_each(cache.get_entry)
            rounds["s3fifo await set"] = await_each(put)
    return rounds


async def measure_speed(round_count: int) -> dict[str, list[float]]:
    """Return nanoseconds per call, of each round."""
    keys = [f"key:{number}" for number in range(KEY_COUNT)]
    Random(SEED).shuffle(keys)
    items = dict.fromkeys(keys, b"v" * 100)
    rounds: dict[str, Round] = {"dict.get": call_each(items.get)}
    rounds["dict.get in a lambda"] = call_each(lambda key: items.get(key))  # noqa: PLW0108  # its cost is the point
    rounds.update(await ours(items))
    with blocking(items) as gets:
        rounds.update({name: call_each(get) for name, get in gets.items()})
        slow = {name: await_each(get) for name, get in (await awaited(items)).items()}
        rounds.update({f"await {name}": each for name, each in slow.items()})
        return await alternate(rounds, keys, round_count)


async def alternate(
    rounds: dict[str, Round], keys: list[str], round_count: int
) -> dict[str, list[float]]:
    taken: dict[str, list[float]] = {name: [] for name in rounds}
    for turn in range(round_count + 4):
        order = list(rounds) if turn % 2 else list(reversed(rounds))
        for name in order:
            await asyncio.sleep(0)  # A turn of its own: the cache reads its clock once in it.
            started = time.thread_time()
            done = rounds[name](keys)
            if done is not None:
                await done
            if turn >= 4:  # S3-FIFO counts the first three uses of an entry.
                taken[name].append((time.thread_time() - started) / len(keys) * 1e9)
    return taken


def measure_without_loop(round_count: int) -> list[float]:
    """Return nanoseconds per `get_nowait` outside a loop, where each call reads the clock."""
    keys = [f"key:{number}" for number in range(KEY_COUNT)]
    cache: LocalCache[bytes] = LocalCache(max_entries=2 * KEY_COUNT, ttl="1h")
    asyncio.run(cache.set_many(dict.fromkeys(keys, b"v")))
    times = []
    for _ in range(round_count):
        started = time.thread_time()
        call_each(cache.get_nowait)(keys)
        times.append((time.thread_time() - started) / len(keys) * 1e9)
    return times


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
    players.update(hit_counters())
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


def in_fresh_process(measure: Callable[..., Any], *arguments: Any) -> Any:  # Any: what it returns
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, arguments)


def measure_entries() -> dict[str, float]:
    cases = ["dict", *(f"{name} {how}" for name in POLICY_NAMES for how in ("", "ttl", "evicting"))]
    return {case.strip(): in_fresh_process(grow, case) for case in cases}


# -- stalls and memory over time -----------------------------------------------------------------


class HandClock(SystemClock):
    """A clock that is moved on by hand."""

    now = 1_000.0

    def monotonic(self) -> float:
        """Return where it was moved to."""
        return self.now


async def longest_turn(policy: PolicyName) -> dict[str, float]:
    """Let all entries end at once; return the longest turn of the loop until they are gone, and all."""
    clock = HandClock()
    cache: LocalCache[bytes] = LocalCache(max_entries=ENTRIES, policy=policy, clock=clock)
    await cache.set_many({f"key:{number}": b"v" for number in range(ENTRIES)}, ttl=5)
    await asyncio.sleep(0)
    await cache.get("a timer is set")
    clock.now += 10
    turns = []
    while cache.stats().entries:
        started = time.thread_time()
        await cache.get("key:1")
        await asyncio.sleep(0)
        turns.append(time.thread_time() - started)
    await cache.close()
    return {"longest": max(turns), "total": sum(turns), "turns": len(turns)}


def overwrite(count: int) -> tuple[int, int]:
    """Return the resident size after a tenth of `count` overwrites of 2,000 keys, and after all."""

    async def scenario() -> tuple[int, int]:
        settled = 0
        async with LocalCache[bytes](ttl=3600) as cache:
            for number in range(count):
                await cache.set(f"key:{number % 2_000}", b"%0100d" % number)
                if number % 1_000 == 0:
                    await asyncio.sleep(0)
                if number == count // 10:
                    settled = resident_bytes("self")
            return settled, resident_bytes("self")

    return asyncio.run(scenario())


def collect(kind: str) -> float:
    """Return the seconds that a full collection takes in a process that holds `ENTRIES` entries."""
    items = {f"key:{number:012}": b"%0100d" % number for number in range(ENTRIES)}
    held: Any = None  # Any: a dict, or what is compared with it
    if kind in POLICY_NAMES:
        held = LocalCache[bytes](max_entries=ENTRIES, policy=kind, ttl="1h")
        asyncio.run(held.set_many(items))
    elif kind == "theine" and (module := optional("theine")):
        held = module.Cache(ENTRIES)
        for key, value in items.items():
            held.set(key, value)
    elif kind == "cachetools" and (module := optional("cachetools")):
        held = module.TTLCache(ENTRIES, 3_600)
        held.update(items)
    gc.collect()  # This one finds out which tuples hold atoms only.
    times = []
    for _ in range(9):
        started = time.thread_time()
        gc.collect()
        times.append(time.thread_time() - started)
    del held
    return statistics.median(times)


def measure_pauses() -> dict[str, Any]:  # Any: figures of several shapes
    kinds = ["dict", *POLICY_NAMES, *(name for name in ("cachetools", "theine") if optional(name))]
    settled, final = in_fresh_process(overwrite, OVERWRITES)
    return {
        "turns": {name: asyncio.run(longest_turn(name)) for name in POLICY_NAMES},
        "growth": final / settled - 1,
        "collection": {kind: in_fresh_process(collect, kind) for kind in kinds},
    }


# -- report --------------------------------------------------------------------------------------


def draw(speed: dict[str, float], hits: dict[str, dict[str, list[float]]], folder: Path) -> None:
    """Draw the plots, when matplotlib is installed."""
    matplotlib = optional("matplotlib")
    if matplotlib is None:
        print("matplotlib is not installed: no plots")
        return
    matplotlib.use("Agg")
    pyplot: Any = importlib.import_module("matplotlib.pyplot")  # Any: an optional library
    folder.mkdir(parents=True, exist_ok=True)
    figure, axes = pyplot.subplots(figsize=(7.2, 6.4))
    order = sorted(speed, key=speed.__getitem__, reverse=True)
    colours = ["#c44e52" if name.startswith(POLICY_NAMES) else "#8c8c8c" for name in order]
    bars = axes.barh(order, [speed[name] / speed["dict.get"] for name in order], color=colours)
    axes.bar_label(bars, fmt="%.1f", padding=2, fontsize=7)
    axes.axvline(GET_RATIO_BAR, color="black", linestyle=":")
    axes.set(xscale="log", xlabel="× dict.get (dotted: the bar of a local hit; red: this library)")
    axes.tick_params(axis="y", labelsize=8)
    figure.tight_layout()
    figure.savefig(folder / "local_cost.png", dpi=110)
    figure, all_axes = pyplot.subplots(len(CAPACITIES), 1, figsize=(7.2, 6.4), sharex=True)
    players = list(next(iter(hits.values())))
    for number, (axes, capacity) in enumerate(zip(all_axes, CAPACITIES, strict=True)):
        for place, name in enumerate(players):
            where = [index + (place - (len(players) - 1) / 2) * 0.13 for index in range(len(hits))]
            axes.bar(where, [by[name][number] for by in hits.values()], width=0.12, label=name)
        axes.set(ylabel=f"hits in %, capacity {capacity:,}", ylim=(0, 90))
        axes.set_xticks(range(len(hits)), list(hits), fontsize=8)
    all_axes[0].legend(fontsize=7, ncols=3)
    figure.tight_layout()
    figure.savefig(folder / "local_hits.png", dpi=110)
    print(f"\nplots: {folder}")


def cost_of(name: str, times: Sequence[float], plain: Sequence[float]) -> Figure:
    """Return what a call costs of a `dict.get` of the same round."""
    return Figure(Bar(name, None, is_least=False), tuple(ratios(times, plain)))


def print_pauses(pauses: dict[str, Any]) -> None:  # Any: see `measure_pauses`
    rows = [
        [name, f"{1e3 * turn['longest']:.2f}", f"{turn['turns']}", f"{1e3 * turn['total']:.0f}"]
        for name, turn in pauses["turns"].items()
    ]
    title = f"{ENTRIES:,} keys end at once"
    print_table(title, ["policy", "longest turn of the loop, ms", "turns", "in all, ms"], rows)
    rows = [[kind, f"{1e3 * seconds:.1f}"] for kind, seconds in pauses["collection"].items()]
    print_table(f"A full collection beside {ENTRIES:,} entries", ["held by", "ms"], rows)


def verdicts(
    speed: dict[str, float],
    entries: dict[str, float],
    hits: dict[str, dict[str, list[float]]],
    pauses: dict[str, Any],
) -> list[tuple[str, bool]]:
    """Return each bar with what was measured, and whether it holds. Any: see `measure_pauses`."""
    ratio = speed["s3fifo get_nowait"] / speed["dict.get"]
    others = [ns for name, ns in speed.items() if name.startswith(("await ", "dogpile"))]
    longest = max(turn["longest"] for turn in pauses["turns"].values())
    size = max(entries["s3fifo"], entries["s3fifo ttl"])
    found = [
        (f"get_nowait: {ratio:.1f} × dict.get (≤ {GET_RATIO_BAR})", ratio <= GET_RATIO_BAR),
        (f"entry: {size:.0f} B at most (≤ {ENTRY_BYTES_BAR})", size <= ENTRY_BYTES_BAR),
        (f"longest turn: {1e3 * longest:.2f} ms (≤ {1e3 * STALL_BAR})", longest <= STALL_BAR),
        (
            f"RSS by {OVERWRITES:,} overwrites: {100 * pauses['growth']:+.1f} % (± 5 %)",
            abs(pauses["growth"]) <= GROWTH_BAR,
        ),
    ]
    for trace in ("Zipf 0.99", "Zipf 0.80", "shifting"):
        gap = max(
            round(max(column), 1) - round(column[0], 1)
            for column in zip(*hits[trace].values(), strict=True)
        )
        text = f"hits, {trace}: {gap:.1f} points below the best (≤ {HIT_GAP_BAR})"
        found.append((text, round(gap, 1) <= HIT_GAP_BAR))
    if theine := speed.get("theine Cache"):
        share = speed["s3fifo get_nowait"] / theine
        found.append((f"get_nowait: {share:.2f} × theine (≤ 0.25)", share <= THEINE_RATIO_BAR))
    if others:
        share = speed["s3fifo await get"] / min(others)
        found.append((f"await get: {share:.2f} × the fastest async cache (< 1)", share < 1))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--requests", type=int, default=600_000)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plots", type=Path, default=PLOTS, help="folder of the plots")
    arguments = parser.parse_args()

    taken = asyncio.run(measure_speed(arguments.rounds))
    taken["s3fifo get_nowait, no loop"] = measure_without_loop(arguments.rounds)
    speed = {name: statistics.median(times) for name, times in taken.items()}
    costs = {name: cost_of(name, times, taken["dict.get"]) for name, times in taken.items()}
    rows = [[name, f"{speed[name]:.0f}", *cost.row()[2:4]] for name, cost in costs.items()]
    header = ["call", "ns", "of dict.get", "spread"]
    print_table(f"Hits among {KEY_COUNT:,} keys", header, rows)

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

    pauses = measure_pauses()
    print_pauses(pauses)
    peers = {name: cost.to_json() for name, cost in costs.items()}
    figures = {
        "speed_ns": speed,
        "peers": peers,
        "entry_bytes": entries,
        "hit_percent": hits,
        "pauses": pauses,
    }
    write_json(arguments.json, figures)
    draw(speed, hits, arguments.plots)
    bars = verdicts(speed, entries, hits, pauses)
    print()
    for text, holds in bars:
        print(f"{'holds' if holds else 'MISSED'}: {text}")
    return int(not all(holds for _, holds in bars))


if __name__ == "__main__":
    sys.exit(main())
