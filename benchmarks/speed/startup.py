"""What starting costs, each time in a fresh interpreter."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any, Final

from benchmarks.bars import Bar
from benchmarks.speed.report import Report
from benchmarks.workers import ROOT

STARTUP: Final = """
import json, time
began = time.perf_counter()
import cache
imported = time.perf_counter()
import asyncio
from benchmarks.support import resident_bytes
import cache.cluster
async def main():
    began = time.perf_counter()
    config = cache.cluster.ClusterConfig.local(bind="127.0.0.1:0")
    async with cache.cluster.Node(config) as node:
        await node.map("m").set("k", 1)
        return time.perf_counter() - began
ready = asyncio.run(main())
print(json.dumps([(imported - began) * 1e3, ready * 1e3, resident_bytes("self") / 2**20]))
"""
BARE: Final = """
import json
from benchmarks.support import resident_bytes
print(json.dumps(resident_bytes("self") / 2**20))
"""


def measure(report: Report) -> None:
    """Measure import, a single node, and what it takes of memory."""
    runs = [_output(STARTUP) for _ in range(report.arguments.rounds)]
    bare = _output(BARE)
    imported, ready, resident = zip(*runs, strict=True)
    report.note(Bar("import cache", 100, "ms", is_least=False), imported)
    report.note(Bar("a single node, ready and written to", 30, "ms", is_least=False), ready)
    bar = Bar("resident memory above a bare interpreter", 20, "MB", is_least=False)
    report.note(bar, [size - bare for size in resident])


def _output(program: str) -> Any:  # Any: JSON
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, cwd=ROOT
    )
    return json.loads(done.stdout)
