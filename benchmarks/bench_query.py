"""Scans and queries of many keys on one member: `python benchmarks/bench_query.py [--keys 1000000]`.

Measured: a whole scan, and the longest time that it kept the event loop; the memory of the order and of an
index for each key; writes without a view, with an order, and with an index; finding by an index against
looking at everything. The garbage collector is off, but for the row that counts its full collections. Few
partitions are the hard case: each is large. Rounds of what is compared alternate.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from statistics import median
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.support import print_table, resident_bytes, run, write_json
from cache.cluster import Between, ClusterConfig, DistributedMap, Node
from cache.cluster.replication.entries import Entry, View
from cache.cluster.replication.replica import PartitionReplica
from cache.cluster.structures.index import POSTING_BYTES, MapIndex
from cache.cluster.structures.key_order import KEY_BYTES, KeyOrder
from cache.codec import encode_value

BATCH: Final = 4000
WRITES: Final = 20_000
ROUNDS: Final = 7


class Stalls:
    """The longest turn of the event loop."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._last = time.perf_counter()
        self._handle = asyncio.get_running_loop().call_soon(self._tick)

    def _tick(self) -> None:
        now = time.perf_counter()
        self.longest = max(self.longest, now - self._last)
        self._last = now
        self._handle = asyncio.get_running_loop().call_soon(self._tick)

    def stop(self) -> None:
        """Stop looking."""
        self._handle.cancel()


def full_collections() -> int:
    """Return how often the garbage collector went through everything so far."""
    return int(gc.get_stats()[2]["collections"])


async def drained(
    entries: AsyncIterator[Any], *, collecting: bool = False
) -> tuple[int, float, float]:
    """Return how many there were, the seconds it took, and the longest turn meanwhile."""
    gc.collect()
    if not collecting:
        gc.disable()  # How long a full collection of all entries takes is no matter of scans.
    stalls, started, count = Stalls(), time.perf_counter(), 0
    async for _ in entries:
        count += 1
    seconds = time.perf_counter() - started
    stalls.stop()
    gc.enable()
    return count, seconds, stalls.longest


async def measure_node(keys: int, partitions: int) -> dict[str, float]:
    """Scan and query one member with `partitions` partitions."""
    figures: dict[str, float] = {"keys": keys, "partitions": partitions}
    config = ClusterConfig.local(
        bind="127.0.0.1:0", replica_count=1, partition_count=partitions, leave_timeout=0.1
    )
    async with Node(config) as node:
        users: DistributedMap[Any] = node.map("users")
        for start in range(0, keys, BATCH):
            numbers = range(start, min(keys, start + BATCH))
            await users.set_many({f"user:{n:08}": {"n": n, "city": n % 1000} for n in numbers})
        for name in ("first_scan", "second_scan"):
            found = await drained(users.scan())
            figures |= {f"{name}_s": found[1], f"{name}_turn_ms": 1000 * found[2]}
            assert found[0] == keys
        found = await drained(users.scan(match="*999"))
        figures |= {"match_s": found[1], "match_turn_ms": 1000 * found[2]}
        await users.add_index("city")
        await users.add_index("n")
        found = await drained(users.find(city=7))
        figures |= {"first_find_s": found[1], "first_find_turn_ms": 1000 * found[2]}
        found = await drained(users.find(city=7))
        figures |= {"find_s": found[1], "found": found[0], "find_turn_ms": 1000 * found[2]}
        before = full_collections()
        found = await drained(users.find(n=0), collecting=True)
        figures |= {"other_find_s": found[1], "other_find_turn_ms": 1000 * found[2]}
        figures["full_collections"] = full_collections() - before - 1
        started = time.perf_counter()
        gc.collect()
        figures["full_collection_ms"] = 1000 * (time.perf_counter() - started)
        found = await drained(users.find(n=Between(1000, 2000)))
        figures |= {"range_s": found[1], "range_turn_ms": 1000 * found[2]}
    return figures


def measure_memory(count: int) -> dict[str, float]:
    """Return the bytes that a key takes in an order and in an index."""
    replica = filled(count)
    figures = {}
    for name, view in (
        ("order", KeyOrder(replica.entries("users"), 0.0)),
        ("index", MapIndex(replica.entries("users"), 0.0)),
    ):
        gc.collect()
        before = resident_bytes("self")
        complete(view)
        gc.collect()
        figures[f"{name}_bytes"] = (resident_bytes("self") - before) / count
    return figures


def complete(view: KeyOrder | MapIndex) -> None:
    """Make a view as far as it goes."""
    if isinstance(view, KeyOrder):
        while not view.is_complete:
            view.grow()
    else:
        while not view.grow(["city"]):
            pass


def filled(count: int) -> PartitionReplica:
    """Return a partition of so many entries."""
    replica = PartitionReplica(operation_memory=1, tombstone_lifetime=600.0)
    for number in range(count):
        replica.apply("users", b"suser:%08d" % number, entry(number, 1))
    return replica


def entry(number: int, version: int) -> Entry:
    return Entry(encode_value({"city": f"city-{number}"}), version, 1, float("inf"))


def measure_writes() -> dict[str, float]:
    """Return nanoseconds of one overwrite without a view, with an order, and with an index."""
    views: dict[str, list[type[KeyOrder | MapIndex]]] = {
        "plain": [],
        "order": [KeyOrder],
        "index": [MapIndex],
    }
    replicas = {}
    for name, kinds in views.items():
        replica = replicas[name] = filled(WRITES)
        for kind in kinds:
            view = kind(replica.entries("users"), 0.0)
            complete(view)
            attached: View = view
            replica.attach("users", attached)
    seconds: dict[str, list[float]] = {name: [] for name in views}
    for turn in range(ROUNDS):
        writes = [(b"suser:%08d" % n, entry(n + turn, turn + 2)) for n in range(WRITES)]
        for name, replica in replicas.items():
            started = time.perf_counter()
            for key, value in writes:
                replica.apply("users", key, value)
            seconds[name].append(time.perf_counter() - started)
    return {f"write_{name}_ns": 1e9 * median(found) / WRITES for name, found in seconds.items()}


async def main(arguments: argparse.Namespace) -> int:
    memory, writes = measure_memory(arguments.keys // 4), measure_writes()
    sides = [await measure_node(arguments.keys, count) for count in arguments.partitions]
    rows = []
    for f in sides:
        place = f"{f['keys']:,.0f} keys in {f['partitions']:.0f} partitions"
        for name, what in (
            ("first_scan", "scan"),
            ("second_scan", "scan again"),
            ("match", "scan with a pattern"),
            ("first_find", "first find: the index is made"),
            (
                "other_find",
                f"first find by another field, {f['full_collections']:.0f} full collections",
            ),
            ("find", f"find {f['found']:,.0f}"),
            ("range", "find 1,001 by an interval"),
        ):
            took = f"{1000 * f[f'{name}_s']:,.0f} ms"
            rows.append([place, what, took, f"{f[f'{name}_turn_ms']:.1f} ms"])
        rows.append([place, "a full collection", f"{f['full_collection_ms']:,.0f} ms", ""])
    print_table("Scans and queries", ["", "what", "took", "longest turn of the loop"], rows)
    plain = writes["write_plain_ns"]
    rows = [
        ["bytes of a key in an order", f"{memory['order_bytes']:.0f}", f"counted as {KEY_BYTES}"],
        ["bytes of a key in an index", f"{memory['index_bytes']:.0f}", f"counted: {POSTING_BYTES}"],
        ["overwrite without a view", f"{plain:.0f} ns", ""],
        [
            "with an order",
            f"{writes['write_order_ns']:.0f} ns",
            f"{writes['write_order_ns'] / plain:.2f}×",
        ],
        [
            "with an index",
            f"{writes['write_index_ns']:.0f} ns",
            f"{writes['write_index_ns'] / plain:.2f}×",
        ],
    ]
    print_table("Views", ["what", "measured", ""], rows)
    write_json(arguments.json, {"nodes": sides, "memory": memory, "writes": writes})
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--partitions", type=int, nargs="+", default=[1024, 16])
    parser.add_argument("--json", type=Path, help="write the figures there")
    raise SystemExit(run(main(parser.parse_args())))
