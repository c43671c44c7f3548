"""One load per key for all processes: `python benchmarks/bench_flight.py [--processes 8 --callers 1000]`.

Each process starts so many concurrent `get_or_set` of the same absent key at the same moment. The exit code
is 1 if any key was loaded more than once, or a caller got another value.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.support import print_table, write_json
from cache.cluster import ClusterConfig, Node

LOAD_SECONDS: Final = 0.2


async def work(peers: list[str], callers: int, members: int) -> None:
    """Be one of the processes: take orders on standard input, one key per line."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    config = ClusterConfig.local(peers=peers, replica_count=2, partition_count=64)
    async with Node(config) as node:
        values = node.map("values")
        print(node.address, flush=True)
        while len(node.members()) < members or not node.stats().settled:  # noqa: ASYNC110  No event.
            await asyncio.sleep(0.05)
        print("ready", flush=True)
        while key := (await reader.readline()).decode().strip():
            loads = 0

            async def load() -> str:
                nonlocal loads
                loads += 1
                await asyncio.sleep(LOAD_SECONDS)
                return f"value from {node.name}"

            started = time.perf_counter()
            got = await asyncio.gather(*(values.get_or_set(key, load) for _ in range(callers)))
            seconds = time.perf_counter() - started
            print(json.dumps([loads, sorted(set(got)), seconds]), flush=True)


async def main(arguments: argparse.Namespace) -> int:
    workers: list[asyncio.subprocess.Process] = []
    try:
        return await _measure(arguments, workers)
    finally:
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.close()
        await asyncio.gather(*(worker.wait() for worker in workers))


async def _measure(arguments: argparse.Namespace, workers: list[asyncio.subprocess.Process]) -> int:
    peers: list[str] = []
    for _ in range(arguments.processes):
        worker = await asyncio.create_subprocess_exec(
            *[sys.executable, __file__, "--worker", "--callers", str(arguments.callers)],
            *["--processes", str(arguments.processes), "--peers", ",".join(peers)],
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        workers.append(worker)
        peers.append(await _line(worker))
    for worker in workers:
        await _line(worker)
    rows, most = [], 0
    for number in range(arguments.keys):
        key = f"key-{number}"
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write(f"{key}\n".encode())
        answers: list[Any] = [json.loads(await _line(worker)) for worker in workers]  # Any: JSON
        loads = sum(answer[0] for answer in answers)
        values = {value for answer in answers for value in answer[1]}
        most = max(most, loads, len(values))
        slowest = max(answer[2] for answer in answers)
        rows.append([key, str(loads), str(len(values)), f"{slowest:.2f}"])
    title = f"{arguments.processes} processes x {arguments.callers} callers, load {LOAD_SECONDS} s"
    print_table(title, ["key", "loads", "different values", "slowest process, s"], rows)
    write_json(arguments.json, {"loads": [int(row[1]) for row in rows]})
    return 0 if most == 1 else 1


async def _line(worker: asyncio.subprocess.Process) -> str:
    assert worker.stdout is not None
    async with asyncio.timeout(60):
        line = (await worker.stdout.readline()).decode().strip()
    assert line, "a worker ended early"
    return line


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--callers", type=int, default=1000, help="in each process")
    parser.add_argument("--keys", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--peers", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        peers = [peer for peer in options.peers.split(",") if peer]
        asyncio.run(work(peers, options.callers, options.processes))
        sys.exit(0)
    sys.exit(asyncio.run(main(options)))
