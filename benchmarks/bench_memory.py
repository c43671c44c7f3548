"""Memory per entry, under a limit, and after many overwrites: `python benchmarks/bench_memory.py`.

The limit is tried on three member processes with two copies: 1 GiB of 1-KiB values is written against a
limit of 64 MiB each, and the largest resident size of any member is taken. Overwrites: one million of the
same keys.
"""

from __future__ import annotations

import argparse
import gc
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.bench_local import in_fresh_process
from benchmarks.support import print_table, resident_bytes, write_json
from cache.cluster.config import LimitsConfig
from cache.cluster.hlc import HybridClock
from cache.cluster.replication.entries import ENTRY_BYTES, Entry
from cache.cluster.replication.replica import PartitionReplica
from cache.cluster.replication.usage import Usage
from cache.testing.cluster import TestCluster
from cache.testing.running import run_cluster

MIB: Final = 1024 * 1024
LIMIT: Final = 64 * MIB
ROOM_OVER_TWICE: Final = 64 * MIB
BATCH: Final = 200
ENTRIES: Final = 1_000_000
PARTITIONS: Final = 256
WRITTEN_AT: Final = 1_700_000_000.0
"""The wall clock that versions are made of, as an owner makes them."""
HOUR: Final = 3_600.0


def measure_entry() -> dict[str, float]:
    """Return the bytes of an entry, what it takes on top of key and value, and a plain dict's bytes.

    Each is measured in a process of its own: what one gives back, the other would take again.
    """
    ours = in_fresh_process(_grown, fill_replicas)
    plain = in_fresh_process(_grown, _fill_dict)
    size = len(_key(1)) + 100
    return {
        "entry_overhead": ours / ENTRIES - size,
        "assumed": ENTRY_BYTES,
        "entry": ours / ENTRIES,
        "dict_entry": plain / ENTRIES,
        "ratio_to_dict": ours / plain,
    }


def _key(number: int) -> bytes:
    return b"suser:%08d" % number


def _grown(fill: Callable[[], object]) -> float:
    gc.collect()
    before = resident_bytes("self")
    held = fill()
    gc.collect()
    grown = resident_bytes("self") - before
    del held
    return float(grown)


def fill_replicas(
    count: int = ENTRIES,
    inserted: Callable[[], None] | None = None,
    *,
    partitions: int = PARTITIONS,
    ends: float = math.inf,
) -> list[PartitionReplica]:
    """Return copies of partitions with so many entries of 100 bytes; `inserted` is called after each.

    If `ends` is finite, they end at instants evenly distributed from 0 to it, in seconds.
    """
    usage, clock = Usage(), HybridClock()
    replicas = [
        PartitionReplica(operation_memory=1, tombstone_lifetime=600.0, usage=usage)
        for _ in range(partitions)
    ]
    for number in range(count):
        value = b"v" * 90 + b"%010d" % number
        expires_at = ends if ends == math.inf else ends * number / count
        entry = Entry(value, clock.stamp(WRITTEN_AT), 123_456_789, expires_at)
        replicas[number % partitions].apply("users", _key(number), entry)
        if inserted is not None:
            inserted()
    return replicas


def write_to_each(replicas: list[PartitionReplica], stamp: int) -> None:
    """Overwrite one entry of each partition; a later stamp is a later write."""
    clock = HybridClock()
    for number, replica in enumerate(replicas):
        version = clock.stamp(WRITTEN_AT + HOUR + stamp)
        entry = Entry(b"w" * 100, version, 123_456_789, math.inf)
        replica.apply("users", _key(number), entry)


def _fill_dict() -> dict[bytes, bytes]:
    return {_key(number): b"v" * 90 + b"%010d" % number for number in range(ENTRIES)}


def measure_limit(total_bytes: int) -> dict[str, float]:
    """Write far more than fits; return the largest resident size, and what was held and evicted."""
    figures: dict[str, float] = {"written_bytes": float(total_bytes), "limit_bytes": float(LIMIT)}

    async def scenario(cluster: TestCluster) -> None:
        pids = process_ids(cluster)
        empty = max(map(resident_bytes, pids))
        started = time.monotonic()
        largest = 0
        for batch in range(total_bytes // (BATCH * 1024)):
            items = {f"k{batch * BATCH + n}": b"v" * 1024 for n in range(BATCH)}
            await cluster.member(batch % 3).map("users").set_many(items)
            if batch % 50 == 0:
                largest = max(largest, *map(resident_bytes, pids))
        readings = [await member.inspect("stats") for member in cluster.members]
        figures.update(
            seconds=time.monotonic() - started,
            empty_rss=float(empty),
            largest_rss=float(max(largest, *map(resident_bytes, pids))),
            held_bytes=max(r["replication.bytes"] for r in readings),
            evicted=sum(r["replication.evicted"] for r in readings),
        )

    run_cluster(
        scenario,
        world="processes",
        size=3,
        replica_count=2,
        partition_count=PARTITIONS,
        limits=LimitsConfig(memory_bytes_max=LIMIT),
    )
    return figures


def measure_overwrites(count: int) -> dict[str, float]:
    """Overwrite the same 2,000 keys, with a time to live; return the growth after the first tenth."""
    figures: dict[str, float] = {"overwrites": float(count)}

    async def scenario(cluster: TestCluster) -> None:
        pids = process_ids(cluster)
        keys = [f"k{n}" for n in range(2000)]
        settled = 0
        for batch in range(count // BATCH):
            start = batch * BATCH % len(keys)
            items = dict.fromkeys(keys[start : start + BATCH], b"%0100d" % batch)
            await cluster.member(batch % 2).map("users").set_many(items, ttl=3600)
            if batch == count // BATCH // 10:
                settled = max(map(resident_bytes, pids))
        figures.update(settled_rss=float(settled), final_rss=float(max(map(resident_bytes, pids))))

    run_cluster(scenario, world="processes", size=2, replica_count=2, partition_count=PARTITIONS)
    return figures


def process_ids(cluster: TestCluster) -> list[int]:
    """Return the process ids of the members."""
    world: Any = cluster._world  # Any: the processes world
    return [backend.process.pid for backend in world._members.values()]


def main(arguments: argparse.Namespace) -> int:
    entry = measure_entry()
    limit = measure_limit(arguments.mebibytes * MIB)
    overwrites = measure_overwrites(arguments.overwrites)
    allowed = 2 * LIMIT + ROOM_OVER_TWICE
    growth = overwrites["final_rss"] / overwrites["settled_rss"] - 1
    rows = [
        ["entry of a 14-byte key and 100 bytes", f"{entry['entry']:.0f} B", "", ""],
        ["the same in a dict of bytes", f"{entry['dict_entry']:.0f} B", "", ""],
        ["ratio", f"{entry['ratio_to_dict']:.2f}×", "", ""],
        ["overhead of an entry", f"{entry['entry_overhead']:.0f} B", f"≤ {ENTRY_BYTES} B", ""],
        [
            f"largest RSS after {arguments.mebibytes} MiB written, limit 64 MiB",
            f"{limit['largest_rss'] / MIB:.0f} MiB",
            f"≤ {allowed / MIB:.0f} MiB",
            f"empty: {limit['empty_rss'] / MIB:.0f} MiB; {limit['evicted']:,.0f} evicted",
        ],
        [
            f"growth of RSS by {arguments.overwrites:,} overwrites of 2,000 keys",
            f"{100 * growth:+.1f} %",
            "± 5 %",
            f"{overwrites['final_rss'] / MIB:.0f} MiB",
        ],
    ]
    print_table("Memory", ["what", "measured", "bar", ""], rows)
    write_json(arguments.json, {"entry": entry, "limit": limit, "overwrites": overwrites})
    good = limit["largest_rss"] <= allowed and abs(growth) <= 0.05
    return 0 if good and entry["entry_overhead"] <= ENTRY_BYTES else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--mebibytes", type=int, default=1024)
    parser.add_argument("--overwrites", type=int, default=1_000_000)
    parser.add_argument("--json", type=Path, help="write the figures there")
    raise SystemExit(main(parser.parse_args()))
