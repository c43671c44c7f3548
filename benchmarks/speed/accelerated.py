"""Reads of owned keys as compiled, in a process of their own on a copy of the package."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from benchmarks.bars import Bar, ratios
from benchmarks.speed.report import Report
from benchmarks.workers import ROOT
from cache.accelerator import FOLDER, PURE_VARIABLE

BARS: Final = (
    ("here", "no await", 5),
    ("awaited", "awaited", 7),
    # A compiled coroutine function is no method to the interpreter, which makes a bound one for each call.
    ("looked up", "awaited as `users.get`", None),
)

READS: Final = """
import json, sys
import cache
assert cache.accelerated
from cache.cluster import ClusterConfig, Node
from benchmarks.bench_local import alternate, await_each, call_each
from benchmarks.bench_map import KEYS, VALUE
from benchmarks.speed.calls import here_each, scattered
from benchmarks.support import pin, run
async def main():
    placement, rounds = sys.argv[1], int(sys.argv[2])
    pin(0, placement, index=0)
    async with Node(ClusterConfig.local(bind="127.0.0.1:0")) as node:
        users = node.map("users")
        items = dict.fromkeys(KEYS[:2000], VALUE)
        await users.set_many(items)
        sides = {"dict": call_each(items.get), "here": here_each(users), "awaited": await_each(users.get)}
        async def look_up_each(keys):
            for key in keys:
                await users.get(key)
        sides["looked up"] = look_up_each
        print(json.dumps(await alternate(sides, scattered(list(items)), rounds)))
run(main())
"""


def measure(report: Report) -> None:
    """Compile a copy and measure there; says so and measures nothing where that cannot be done."""
    with tempfile.TemporaryDirectory(prefix="bench-accelerated-") as name:
        folder = Path(name)
        ignored = shutil.ignore_patterns("__pycache__", FOLDER)
        shutil.copytree(ROOT / "cache", folder / "cache", ignore=ignored)
        made = _run(folder, "-m", "cache.compiling")
        if made.returncode:
            last = ["no message", *made.stderr.strip().splitlines()][-1]
            print(f"owned get, accelerated: SKIPPED, nothing could be compiled: {last}")
            return
        arguments = report.arguments
        done = _run(folder, "-c", READS, arguments.placement, str(3 * arguments.rounds))
        if done.returncode:
            raise RuntimeError(f"the reads failed: {done.stderr}")
    times: Any = json.loads(done.stdout)  # Any: JSON
    for side, way, limit in BARS:
        bar = Bar(f"owned get, accelerated, {way}, cost of dict.get", limit, is_least=False)
        report.note(bar, ratios(times[side], times["dict"]))


def _run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python where the copy is found first, and the benchmarks after it."""
    kept = {name: value for name, value in os.environ.items() if name != PURE_VARIABLE}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=kept | {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])},
        capture_output=True,
        text=True,
        check=False,
    )
