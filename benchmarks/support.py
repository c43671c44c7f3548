"""What the benchmarks share: peers started and stopped by id, alternating rounds, tables of ratios.

Machines are shared and noisy, so two things are only ever compared inside one run: their rounds alternate,
each figure is a median over rounds, and what is reported is the ratio.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import os
import platform
import shutil
import socket
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NoReturn

START_TIMEOUT: Final = 20.0
"""Seconds until a started server must answer."""

Operation = Callable[[int], Awaitable[Any]]
"""Any: results are not looked at; the argument counts the calls of one worker."""


def optional(name: str) -> Any | None:  # Any: a module that may be missing
    """Return a module, or None where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def free_port() -> int:
    """Return a TCP port on loopback that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def pin(pid: int, placement: str, *, index: int) -> None:
    """Place a process: `same` core for all, `cross` the `index`-th core, `free` wherever it likes."""
    if placement == "free" or not hasattr(os, "sched_setaffinity"):
        return
    cores = sorted(os.sched_getaffinity(0) if index == 0 else range(os.cpu_count() or 1))
    chosen = cores[0] if placement == "same" else cores[index % len(cores)]
    os.sched_setaffinity(pid, {chosen})


class MissingServerError(Exception):
    """The server to compare with is not installed."""


@asynccontextmanager
async def redis_server(placement: str) -> AsyncIterator[int]:
    """Run a redis-server without persistence on a free port; yield the port."""
    options = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    async with _server("redis-server", "--port", options, placement) as port:
        yield port


@asynccontextmanager
async def memcached_server(placement: str) -> AsyncIterator[int]:
    """Run memcached, with room for all that is measured, on a free port; yield the port."""
    options = ["-l", "127.0.0.1", "-U", "0", "-m", "256", "-I", "2m", "-t", "1", "-u", "nobody"]
    async with _server("memcached", "-p", options, placement) as port:
        yield port


@asynccontextmanager
async def _server(
    name: str, port_option: str, options: Sequence[str], placement: str
) -> AsyncIterator[int]:
    """Run a server until the block is left.

    Raises:
        MissingServerError: it is not installed.
    """
    binary = shutil.which(name)
    if binary is None:
        raise MissingServerError(f"{name} is not installed: `apt-get install {name}`")
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        binary,
        *[port_option, str(port), *options],
        stdout=asyncio.subprocess.DEVNULL,
        stdin=asyncio.subprocess.DEVNULL,
    )
    try:
        pin(process.pid, placement, index=1)
        await _answering(port)
        yield port
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def _answering(port: int) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.02)
        else:
            writer.close()
            return


@dataclass(slots=True)
class Contender:
    """One of the things compared: `operation` is run by `in_flight` workers at once."""

    name: str
    operation: Operation
    rates: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Median operations per second over the rounds."""
        return statistics.median(self.rates)


async def measure(operation: Operation, *, in_flight: int, seconds: float) -> float:
    """Return operations per second with `in_flight` workers, each waiting for its own answer."""
    done = 0
    started = time.perf_counter()
    until = started + seconds

    async def work(number: int) -> None:
        nonlocal done
        count = number
        while time.perf_counter() < until:
            await operation(count)
            count += in_flight
            done += 1

    async with asyncio.TaskGroup() as group:
        for number in range(in_flight):
            group.create_task(work(number))
    return done / (time.perf_counter() - started)


async def compete(
    contenders: Sequence[Contender], *, in_flight: int, rounds: int, seconds: float
) -> None:
    """Let the contenders take turns, `rounds` times; the first round warms up and is not counted."""
    for turn in range(rounds + 1):
        order = contenders if turn % 2 else list(reversed(contenders))
        for contender in order:
            rate = await measure(contender.operation, in_flight=in_flight, seconds=seconds)
            if turn:
                contender.rates.append(rate)


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a Markdown table, so that it can be pasted into the README."""
    print(f"\n## {title}\n")
    print("| " + " | ".join(header) + " |")
    print("| " + " | ".join("---" for _ in header) + " |")
    for row in rows:
        print("| " + " | ".join(row) + " |")
    sys.stdout.flush()


def write_json(path: Path | None, results: Mapping[str, Any]) -> None:  # Any: JSON values
    """Write the figures with what they were measured on."""
    if path is None:
        return
    path.write_text(json.dumps({"machine": about_machine(), **results}, indent=2) + "\n")
    print(f"\nfigures: {path}")


def about_machine() -> dict[str, Any]:  # Any: JSON values
    """Return what figures depend on besides the code."""
    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
    }


def run(main: Awaitable[int], *, loop: str = "auto") -> int:
    """Run on uvloop when it is installed, as `cache node` does; `asyncio` for the loop of that name."""
    factory = None
    if loop == "auto" and (uvloop := optional("uvloop")):
        factory = uvloop.new_event_loop

    async def body() -> int:
        return await main

    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(body())


def contest_parser(description: str | None, *, seconds: float) -> argparse.ArgumentParser:
    """Return a parser of what contests share: how many rounds, their length, processes placed where."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="rounds that count, each contender")
    parser.add_argument("--seconds", type=float, default=seconds, help="length of a round")
    parser.add_argument("--placement", choices=["same", "cross", "free"], default="free")
    parser.add_argument("--json", type=Path, help="write the figures there")
    return parser


def run_contest(name: str, main: Awaitable[int], *, loop: str = "auto") -> NoReturn:
    """Run and end with its exit code, or with the name of the server that is missing."""
    try:
        raise SystemExit(run(main, loop=loop))
    except MissingServerError as error:
        raise SystemExit(f"{name}: {error}") from error


def resident_bytes(process: int | str) -> int:
    """Return the resident size of a process, "self" or a process id (Linux)."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise ProcessLookupError(f"process {process} has no resident size")


def open_files(process: int | str) -> int:
    """Return how many files and sockets a process has open (Linux)."""
    return len(list(Path(f"/proc/{process}/fd").iterdir()))
