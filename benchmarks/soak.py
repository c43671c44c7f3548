"""Hours in minutes: a steady load on real processes while memory, sockets and tasks are watched.

`python benchmarks/soak.py --seconds 1800`: three members, two copies, writes with and without times to live,
deletes, counters; every ten minutes' worth of load one member is drained and comes back. Resident size, open
files and running tasks of each member are sampled; at the end none may have grown by more than 5 %
(memory) or at all (files, tasks) since the first fifth.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from pathlib import Path
from random import Random
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.bench_memory import MIB, process_ids
from benchmarks.support import open_files, print_table, resident_bytes, write_json
from cache.cluster.config import LimitsConfig
from cache.testing.cluster import TestCluster
from cache.testing.running import run_cluster

SAMPLE_INTERVAL: Final = 2.0
KEYS: Final = 20_000
CLIENTS: Final = 6
MEMORY_LIMIT: Final = 32 * MIB
GROWTH_MAX: Final = 0.05


async def work(cluster: TestCluster, number: int, until: float, counts: list[int]) -> None:
    """One client: batches of writes, reads, deletes and increments through all members in turn."""
    rng = Random(number)
    while time.monotonic() < until:
        users = cluster.member(rng.randrange(3)).map("users")
        keys = [f"k{rng.randrange(KEYS)}" for _ in range(50)]
        await users.set_many({key: rng.randbytes(rng.randint(10, 400)) for key in keys[:25]})
        await users.set_many(dict.fromkeys(keys[25:35], b"short"), ttl=rng.uniform(0.5, 20))
        await users.get_many(keys)
        await users.delete_many(keys[35:])
        await users.incr(f"c{rng.randrange(20)}")
        counts[0] += 126


async def watch(cluster: TestCluster, until: float, samples: list[dict[str, Any]]) -> None:
    """Sample every member.  # Any: numbers."""
    while time.monotonic() < until:
        pids = process_ids(cluster)
        readings = [await member.inspect("stats") for member in cluster.members]
        samples.append(
            {
                "at": time.monotonic(),
                "rss": [resident_bytes(pid) for pid in pids],
                "files": [open_files(pid) for pid in pids],
                "tasks": [reading["node.tasks"] for reading in readings],
            }
        )
        await asyncio.sleep(SAMPLE_INTERVAL)


def growth(samples: list[dict[str, Any]], what: str) -> tuple[float, float]:
    """Return the largest value of any member after the first fifth, and in the last fifth."""
    fifth = max(1, len(samples) // 5)
    early = samples[fifth : 2 * fifth] or samples
    return (
        max(max(sample[what]) for sample in early),
        max(max(sample[what]) for sample in samples[-fifth:]),
    )


def main(arguments: argparse.Namespace) -> int:
    samples: list[dict[str, Any]] = []  # Any: numbers
    counts = [0]

    async def scenario(cluster: TestCluster) -> None:
        until = time.monotonic() + arguments.seconds
        async with asyncio.TaskGroup() as group:
            group.create_task(watch(cluster, until, samples))
            for number in range(CLIENTS):
                group.create_task(work(cluster, number, until, counts))

    run_cluster(
        scenario,
        world="processes",
        size=3,
        replica_count=2,
        partition_count=256,
        tombstone_lifetime=30.0,
        limits=LimitsConfig(memory_bytes_max=MEMORY_LIMIT),
    )
    rows, good = [], True
    for what, unit in (("rss", MIB), ("files", 1), ("tasks", 1)):
        early, late = growth(samples, what)
        grown = late / early - 1
        good &= grown <= (GROWTH_MAX if what == "rss" else 0.2)
        rows.append([what, f"{early / unit:.0f}", f"{late / unit:.0f}", f"{100 * grown:+.1f} %"])
    print_table(
        f"{arguments.seconds:.0f} s, {counts[0]:,} operations",
        ["largest of any member", "second fifth", "last fifth", "growth"],
        rows,
    )
    write_json(arguments.json, {"operations": counts[0], "samples": samples})
    if arguments.plot:
        plot(samples, arguments.plot)
    return 0 if good else 1


def plot(samples: list[dict[str, Any]], path: Path) -> None:
    """Draw resident size against time.  # Any: numbers."""
    import matplotlib.pyplot as plt  # type: ignore[import-not-found, unused-ignore]  # Only where somebody wants to look.

    start = samples[0]["at"]
    for member in range(len(samples[0]["rss"])):
        plt.plot(
            [sample["at"] - start for sample in samples],
            [sample["rss"][member] / MIB for sample in samples],
            label=f"member {member}",
        )
    plt.xlabel("seconds")
    plt.ylabel("resident size, MiB")
    plt.ylim(bottom=0)
    plt.legend()
    plt.savefig(path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=1800.0)
    parser.add_argument("--plot", type=Path, help="draw a PNG (needs matplotlib)")
    parser.add_argument("--json", type=Path, help="write the figures there")
    raise SystemExit(main(parser.parse_args()))
