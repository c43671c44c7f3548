"""The RESP port against redis-server: `python benchmarks/bench_resp.py [--requests 20000] [--rounds 3]`.

`redis-benchmark` with 50 connections and 100-byte values sends GET and SET, one command at a time and 16 in a
pipeline, to a redis-server, to a member that is alone, and to one of three members with two copies of each
key. Each is a process of its own on loopback, members on uvloop; rounds alternate. What to read is the ratio.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import statistics
import sys
import tempfile
from contextlib import AsyncExitStack
from itertools import product
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.support import (
    MissingServerError,
    free_port,
    print_table,
    redis_server,
    run,
    write_json,
)
from cache.demo.processes import ProcessGroup

SECRET: Final = "benchmark"
CLIENTS: Final = 50
PIPELINES: Final = (1, 16)
COMMANDS: Final = ("SET", "GET")
RUN_TIMEOUT: Final = 120.0


async def rates(port: int, pipeline: int, requests: int) -> dict[str, float]:
    """Return requests per second by command."""
    process = await asyncio.create_subprocess_exec(
        *("redis-benchmark", "-p", f"{port}", "-n", f"{requests}", "-c", f"{CLIENTS}"),
        *("-P", f"{pipeline}", "-t", "set,get", "-r", "10000", "-d", "100", "--csv"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        said, _ = await asyncio.wait_for(process.communicate(), RUN_TIMEOUT)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    rows = [line.replace('"', "").split(",") for line in said.decode().splitlines()]
    return {row[0]: float(row[1]) for row in rows if row[0] in COMMANDS}


async def start_members(stack: AsyncExitStack, folder: Path, count: int) -> int:
    """Start a cluster; return the RESP port of its first member."""
    port = free_port()
    options = ["--preset", "local", "--cluster-name", f"bench{count}", "--log-level", "error"]
    door = ["--resp-bind", f"127.0.0.1:{port}"]
    addresses: list[str] = []
    for number in range(count):
        mine = [*options, *(door if number == 0 else [])]
        group = ProcessGroup(folder, secret=SECRET, options=mine)
        stack.push_async_callback(group.stop)
        process = await group.start(f"resp{count}-{number}", addresses[:1])
        addresses.append(process.address)
    return port


async def main(arguments: argparse.Namespace) -> int:
    if shutil.which("redis-benchmark") is None:
        raise MissingServerError("redis-benchmark is missing: `apt-get install redis-tools`")
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        ports = {
            "redis": await stack.enter_async_context(redis_server("free")),
            "one member": await start_members(stack, folder, 1),
            "one of three members": await start_members(stack, folder, 3),
        }
        measured: dict[tuple[str, int, str], list[float]] = {}
        for _ in range(arguments.rounds):
            for pipeline, (who, port) in product(PIPELINES, ports.items()):
                found = await rates(port, pipeline, arguments.requests)
                for command, rate in found.items():
                    measured.setdefault((command, pipeline, who), []).append(rate)
    medians = {what: statistics.median(values) for what, values in measured.items()}
    rows, figures = [], {}
    for command, pipeline in product(COMMANDS, PIPELINES):
        redis, *ours = (medians[command, pipeline, who] for who in ports)
        ratios = [rate / redis for rate in ours]
        cells = [f"{rate:,.0f} ({ratio:.2f}×)" for rate, ratio in zip(ours, ratios, strict=True)]
        rows.append([f"{command}, pipeline {pipeline}", f"{redis:,.0f}", *cells])
        figures[f"{command} {pipeline}"] = dict(zip(ports, [redis, *ours], strict=True))
    header = ["50 clients", "redis-server, per second", "one member", "one of three, two copies"]
    print_table("RESP port, 100-byte values", header, rows)
    write_json(arguments.json, {"resp": figures})
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=20_000, help="in one round, each command")
    parser.add_argument("--rounds", type=int, default=3, help="rounds, each contender")
    parser.add_argument("--json", type=Path, help="write the figures there")
    try:
        raise SystemExit(run(main(parser.parse_args())))
    except MissingServerError as error:
        raise SystemExit(f"bench_resp: {error}") from error
