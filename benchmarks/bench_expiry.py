"""Expiry at scale: `python benchmarks/bench_expiry.py [--keys 100000]`.

One member; all keys end within the same second. Measured: when the memory of the last value was given back
after its end, and how much processor time the longest turn of the event loop took meanwhile (wall time would
be that of the machine's other work, too). The same for entries that end because nobody used them.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.support import print_table, run, write_json
from cache.cluster import ClusterConfig, MapPolicy, Node

VALUE: Final = b"v" * 1000
LIFE: Final = 8.0
BATCH: Final = 2000


async def fill(node: Node, name: str, count: int, ttl: float | None) -> float:
    """Write the keys so that all end at the same time; return when the first does."""
    users = node.map(name)
    started = time.monotonic()
    for start in range(0, count, BATCH):
        left = None if ttl is None else ttl - (time.monotonic() - started)
        await users.set_many({f"{name}{n}": VALUE for n in range(start, start + BATCH)}, ttl=left)
    return started + LIFE if ttl is not None else time.monotonic() + LIFE


async def held_up(longest: list[float], done: asyncio.Event) -> None:
    """Note the processor time of the longest turn."""
    while not done.is_set():
        began_at = time.thread_time()
        await asyncio.sleep(0)
        longest[0] = max(longest[0], time.thread_time() - began_at)


async def measure(node: Node, name: str, count: int, ttl: float | None) -> list[str]:
    """Return a row: seconds until all values were given back, longest turn, bytes given back."""
    usage = node._replication.room.usage
    before = usage.bytes
    ends_at = await fill(node, name, count, ttl)
    full = usage.bytes
    await asyncio.sleep(max(0.0, ends_at - time.monotonic() - 0.5))
    longest, done = [0.0], asyncio.Event()
    watching = asyncio.ensure_future(held_up(longest, done))
    while full - usage.bytes < count * len(VALUE):  # noqa: ASYNC110  Nothing says when.
        await asyncio.sleep(0.01)
    late = time.monotonic() - ends_at
    done.set()
    await watching
    kept = usage.bytes - before
    return [name, f"{late:.2f} s", f"{longest[0] * 1000:.1f} ms", f"{full - before:,}", f"{kept:,}"]


async def main(arguments: argparse.Namespace) -> int:
    config = ClusterConfig.local(
        maps={"idle": MapPolicy(max_idle=LIFE)}, leave_timeout=0.5, replica_count=1
    )
    async with Node(config) as node:
        rows = [
            await measure(node, "ttl", arguments.keys, LIFE),
            await measure(node, "idle", arguments.keys, None),
        ]
    header = ["ends by", "all values freed after", "longest turn", "bytes before", "bytes kept"]
    print_table(f"{arguments.keys:,} entries of 1000 bytes that end at once", header, rows)
    write_json(arguments.json, {"expiry": [dict(zip(header, row, strict=True)) for row in rows]})
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--json", type=Path, help="write the figures there")
    raise SystemExit(run(main(parser.parse_args())))
