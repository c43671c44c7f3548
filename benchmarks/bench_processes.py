"""Many real processes on one machine: `python benchmarks/bench_processes.py [--members 50]`.

They become one cluster, lose a tenth at once (SIGKILL), and become one cluster again.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.support import print_table, write_json
from cache.testing.cluster import TestCluster
from cache.testing.running import run_cluster

SETTLE_TIMEOUT: Final = 300.0
KEYS: Final = 2000


def main(arguments: argparse.Namespace) -> int:
    seconds: dict[str, float] = {}

    async def scenario(cluster: TestCluster) -> None:
        started = time.monotonic()
        for _ in range(arguments.members - 1):
            await cluster.add_member()
        seconds["all started"] = time.monotonic() - started
        await cluster.wait_for_convergence(timeout=SETTLE_TIMEOUT)
        seconds["all see each other, one table, complete copies"] = time.monotonic() - started
        users = cluster.member(0).map("users")
        await users.set_many({number: number for number in range(KEYS)})
        lost_at = time.monotonic()
        dying = range(1, 1 + arguments.members // 10)
        await asyncio.gather(*(cluster.kill(index) for index in dying))
        await cluster.wait_for_convergence(timeout=SETTLE_TIMEOUT)
        seconds[f"{len(dying)} killed at once: one cluster again"] = time.monotonic() - lost_at
        found = await cluster.members[-1].map("users").get_many(list(range(KEYS)))
        seconds["keys missing"] = float(KEYS - len(found))

    figures: dict[str, Any] = {"members": arguments.members, "seconds": seconds}  # Any: JSON values
    run_cluster(
        scenario, world="processes", size=1, replica_count=arguments.copies, partition_count=256
    )
    rows = [[what, f"{value:.1f}"] for what, value in seconds.items()]
    title = f"{arguments.members} processes, {arguments.copies} copies"
    print_table(title, ["what", "seconds (or count)"], rows)
    write_json(arguments.json, figures)
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--members", type=int, default=50)
    parser.add_argument("--copies", type=int, default=6, help="one more than die at once")
    parser.add_argument("--json", type=Path, help="write the figures there")
    raise SystemExit(main(parser.parse_args()))
