"""The speed bars: `python benchmarks/bench_speed.py [--rounds 5] [--parts calls,mixed]`.

Each line is measured in this run, rounds alternating between the sides, beside the bar it is held to:
median, and spread over the rounds. Both sides run on uvloop; `plain` measures single calls on asyncio's
own loop, on both sides again, `loops` one loop against the other. Everything is on loopback; values have
100 bytes unless said. `--placement same`, the default, puts all processes of `calls`, `plain`, `loops`
and `mixed` on one core, so that a ratio is one of work done, not of how fast another core wakes up; the
other parts are about several processes at once and use all cores.

Rivals in one process are in `bench_local.py`, other clients of servers in `bench_peers.py`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import json

from benchmarks.bars import HEADER, RATIO, Bar, figures_from
from benchmarks.speed import (
    accelerated,
    calls,
    elastic,
    fairness,
    loops,
    memory,
    mixed,
    startup,
    stream,
)
from benchmarks.speed.report import Report
from benchmarks.support import contest_parser, print_table, run_contest, write_json

ON_ASYNCIO: Final = ("remote get, ", "set with a copy")
"""How the rows begin that are told of asyncio's loop as well."""


def plain(report: Report) -> None:
    """Measure single calls on asyncio's own loop, in a process of their own."""
    arguments = report.arguments
    with tempfile.TemporaryDirectory(prefix="bench-speed-") as folder:
        path = Path(folder) / "figures.json"
        command = [sys.executable, str(Path(__file__).resolve()), "--parts", "calls"]
        command += ["--loop", "asyncio", "--rounds", str(arguments.rounds), "--json", str(path)]
        command += ["--seconds", str(arguments.seconds), "--placement", arguments.placement]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        figures = figures_from(json.loads(path.read_text())["bars"])
    for path_of, figure in figures.items():
        if path_of.startswith(ON_ASYNCIO):
            bar = Bar(f"asyncio's loop: {path_of}", None, RATIO, figure.bar.is_least)
            report.note(bar, figure.values)


PARTS: Final[dict[str, Callable[[Report], Awaitable[None] | None]]] = {
    "calls": calls.measure,
    "plain": plain,
    "accelerated": accelerated.measure,
    "loops": loops.measure,
    "mixed": mixed.measure,
    "fairness": fairness.measure,
    "stream": stream.measure,
    "elastic": elastic.measure,
    "memory": memory.measure,
    "startup": startup.measure,
}


async def main(arguments: argparse.Namespace) -> int:
    report = Report(arguments)
    failed: dict[str, str] = {}
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    for name in arguments.parts:
        began = time.monotonic()
        try:
            measured = PARTS[name](report)
            if measured is not None:
                await measured
        except Exception as error:  # noqa: BLE001  # The figures of the other parts count all the same.
            failed[name] = f"{type(error).__name__}: {error}"
            print(f"part {name} FAILED: {failed[name]}", flush=True)
        print(f"part {name} took {time.monotonic() - began:.0f} s", flush=True)
        if cores is not None:
            os.sched_setaffinity(0, cores)  # A part may have put this process on one core.
    print_table("Speed bars", HEADER, report.rows())
    for name, reason in failed.items():
        print(f"part {name} FAILED: {reason}")
    results = {"placement": arguments.placement, "bars": report.to_json(), "failed": failed}
    write_json(arguments.json, results)
    return 1 if failed else 0


def parts_of(text: str) -> list[str]:
    """Return the names in a list with commas."""
    names = text.split(",")
    if unknown := [name for name in names if name not in PARTS]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(PARTS)}")
    return names


if __name__ == "__main__":
    parser = contest_parser(__doc__, seconds=0.5)
    parser.set_defaults(placement="same")
    parser.add_argument(
        "--loop",
        choices=["auto", "asyncio"],
        default="auto",
        help="auto: uvloop, if installed; asyncio: of `calls` single ones only",
    )
    parser.add_argument("--parts", type=parts_of, default=list(PARTS), help=", ".join(PARTS))
    options = parser.parse_args()
    run_contest("bench_speed", main(options), loop=options.loop)
