"""Commits per second with 1 and 64 writers, and p50 against a bare write and fsync on the same disk.

`python benchmarks/bench_storage.py [--folder DIR] [--seconds 2]`. Rounds of both alternate.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from pathlib import Path

from cache.storage import Append, Entry, Identity, SqliteStorage

DATA = bytes(128)
ROUNDS = 3


def bare(folder: Path, seconds: float) -> list[float]:
    """Append 4 KiB and fsync, again and again; return what each took."""
    path = folder / "bare"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    taken, end = [], time.perf_counter() + seconds
    while (started := time.perf_counter()) < end:
        os.write(descriptor, bytes(4096))
        os.fsync(descriptor)
        taken.append(time.perf_counter() - started)
    os.close(descriptor)
    path.unlink()
    return taken


async def commits(folder: Path, writers: int, seconds: float) -> tuple[list[float], int]:
    """Let writers append to a log each; return what each commit took, and the transactions."""
    storage = SqliteStorage(folder / "store", Identity("bench", "node"))
    await storage.open()
    end = time.perf_counter() + seconds
    taken: list[float] = []

    async def write(group: str) -> None:
        while (started := time.perf_counter()) < end:
            index = storage.group(group).last_index + 1
            await storage.commit(Append(group, [Entry(index, 1, DATA)]))
            taken.append(time.perf_counter() - started)

    async with asyncio.TaskGroup() as group:
        for number in range(writers):
            group.create_task(write(f"g{number}"))
    await storage.close()
    return taken, storage.transaction_count


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--seconds", type=float, default=2.0)
    options = parser.parse_args()
    rows: dict[str, list[tuple[float, float]]] = {}
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory(dir=options.folder) as made:
            folder = Path(made)
            taken = bare(folder, options.seconds)
            rows.setdefault("bare fsync", []).append(
                (len(taken) / options.seconds, statistics.median(taken))
            )
            for writers in (1, 64):
                taken, _ = asyncio.run(commits(folder, writers, options.seconds))
                rows.setdefault(f"{writers} writers", []).append(
                    (len(taken) / options.seconds, statistics.median(taken))
                )
    base = statistics.median(p50 for _, p50 in rows["bare fsync"])
    for name, found in rows.items():
        rate = statistics.median(rate for rate, _ in found)
        p50 = statistics.median(p50 for _, p50 in found)
        print(
            f"{name:12} {rate:8.0f}/s   p50 {p50 * 1000:7.2f} ms   {p50 / base:5.2f} x bare fsync"
        )


if __name__ == "__main__":
    main()
