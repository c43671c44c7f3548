"""A cluster of processes while members come and go: `python benchmarks/bench_cluster.py [--keys 100000]`.

Three `cache node` processes hold two copies of every key. Measured, each with a reader and a writer running
against the members that stay: a fourth one joins; one is killed (SIGKILL); one is stopped (SIGSTOP), which
no refused connection gives away; the coordinator drains. Every key is read at the end.

Olric's figures beside ours are those of its own measurement (100,000 keys, another run): seconds apart
from ours by orders of magnitude can be compared, anything closer cannot.
"""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.support import print_table, run, write_json
from cache.clock import SystemClock
from cache.cluster.scope import Scope
from cache.demo.cluster import DemoCluster, DemoNode, Sight, is_settled
from cache.demo.processes import ProcessGroup
from cache.demo.steps import CrashTimes
from cache.demo.view import PlainView
from cache.errors import CacheError

MAP: Final = "users"
VALUE: Final = b"v" * 100
BATCH: Final = 500
COPIES: Final = 2
SECRET: Final = "benchmark"
BALANCED: Final = "join: balanced, everything moved and cleaned"
OLRIC: Final = {
    BALANCED: "56-63 s",
    "SIGKILL: known to every survivor": "4.7-6.0 s",
    "SIGKILL: every key writable again": "4.7-6.0 s",
    "SIGKILL: all copies restored": "never",
    "drain: handed over": "not done",
}


@dataclass(slots=True)
class Load:
    """One writer and one reader that go on while something happens to the cluster."""

    nodes: Sequence[DemoNode]
    key_count: int
    reads: int = 0
    writes: int = 0
    failures: list[str] = field(default_factory=list)
    slowest: float = 0.0

    async def run(self) -> None:
        """Read and write in turns, through the members in turns."""
        clock = SystemClock()
        for number in range(sys.maxsize):
            client = self.nodes[number % len(self.nodes)].client
            key = f"user:{number * 7919 % self.key_count}"
            started_at = clock.monotonic()
            try:
                if number % 2:
                    await client.call(MAP, "set", key=key, value=VALUE)
                    self.writes += 1
                else:
                    value = await client.call(MAP, "get", key=key)
                    self.reads += 1
                    if value != VALUE:
                        self.failures.append(f"{key} reads {value!r}")
            except CacheError as error:
                self.failures.append(f"{type(error).__name__}: {error}")
            self.slowest = max(self.slowest, clock.monotonic() - started_at)


class Bench:
    """The cluster and what was measured of it."""

    def __init__(self, cluster: DemoCluster, key_count: int) -> None:
        self.cluster = cluster
        self.key_count = key_count
        self.clock = SystemClock()
        self.seconds: dict[str, float] = {}
        self.failures: list[str] = []
        self.operations = 0

    def note(self, what: str, seconds: float) -> None:
        """Keep one figure."""
        self.seconds[what] = seconds
        print(f"{what}: {seconds:.2f} s", flush=True)

    @asynccontextmanager
    async def load(self, nodes: Sequence[DemoNode], step: str) -> AsyncIterator[None]:
        """Keep reading and writing through `nodes` until the block is left."""
        load = Load(nodes, self.key_count)
        scope = Scope("load")
        scope.spawn(load.run(), name="load")
        try:
            yield
        finally:
            await scope.close()
        self.note(f"{step}: slowest of the calls meanwhile", load.slowest)
        self.failures += load.failures
        self.operations += load.reads + load.writes

    def ids(self) -> list[str]:
        """Return the ids of the members that run."""
        return [node.id for node in self.cluster.nodes]

    async def form(self) -> None:
        """Start three members and fill them."""
        for number in range(3):
            await self.cluster.start_node(f"node-{number}")
        ids = self.ids()
        await self.cluster.until("three members", lambda sights: is_settled(sights, ids))
        started_at = self.clock.monotonic()
        for start in range(0, self.key_count, BATCH):
            numbers = range(start, min(start + BATCH, self.key_count))
            items = {f"user:{number}": VALUE for number in numbers}
            node = self.cluster.nodes[start // BATCH % 3]
            await node.client.call(MAP, "set_many", items=items)
        self.note("fill: all keys written on two copies", self.clock.monotonic() - started_at)

    async def join(self) -> None:
        """Let a fourth member take its share."""
        staying = list(self.cluster.nodes)
        async with self.load(staying, "join"):
            started_at = self.clock.monotonic()
            newcomer = await self.cluster.start_node("node-3")
            self.note("join: process started and serving", self.clock.monotonic() - started_at)
            ids = self.ids()

            def balanced(sights: Sequence[Sight]) -> bool:
                least = min(sights[0].owned_by(member) for member in ids)
                return is_settled(sights, ids) and least >= len(sights[0].rows) // len(ids) - 1

            at = await self.cluster.until("balance", balanced)
        self.note(BALANCED, at - started_at)
        assert newcomer.id in ids

    async def crash(self, signum: signal.Signals) -> None:
        """Lose a member by a signal; SIGSTOP leaves its sockets open and silent."""
        step = signum.name
        victim = self.cluster.nodes[-1]
        staying = [node for node in self.cluster.nodes if node is not victim]
        async with self.load(staying, step):
            killed_at = self.clock.monotonic()
            os.kill(victim.process.pid, signum)
            await self.cluster.forget(victim, step)
            times = CrashTimes(victim.id, self.ids())
            await self.cluster.until("copies restored", times.take)
        detected = max(times.detected.values())
        self.note(f"{step}: known to every survivor", detected - killed_at)
        self.note(f"{step}: every key writable again", times.promoted - killed_at)
        self.note(f"{step}: all copies restored", times.restored - killed_at)
        victim.process.kill()
        await victim.process.wait_exit()

    async def drain(self) -> None:
        """Let the coordinator leave."""
        sights = await self.cluster.look()
        coordinator = sights[0].status["coordinator"]
        leaver = next(node for node in self.cluster.nodes if node.id == coordinator)
        staying = [node for node in self.cluster.nodes if node is not leaver]
        async with self.load(staying, "drain"):
            receipt = await leaver.client.drain()
        self.note("drain: handed over", receipt["seconds"])
        await self.cluster.forget(leaver, "drained")
        if not receipt["complete"]:
            self.failures.append("the drain's receipt is not complete")

    async def count_lost(self) -> int:
        """Read every key."""
        client, lost = self.cluster.nodes[0].client, 0
        for start in range(0, self.key_count, BATCH):
            keys = [f"user:{n}" for n in range(start, min(start + BATCH, self.key_count))]
            found = await client.call(MAP, "get_many", keys=keys)
            lost += sum(found.get(key) != VALUE for key in keys)
        return lost


@asynccontextmanager
async def cluster_bench(key_count: int) -> AsyncIterator[Bench]:
    """Yield a bench without members; what it starts is stopped when the block is left."""
    with tempfile.TemporaryDirectory(prefix="bench-cluster-") as folder:
        options = ["--preset", "local", "--replicas", str(COPIES), "--log-level", "error"]
        options += ["--cluster-name", "bench"]
        processes = ProcessGroup(Path(folder), secret=SECRET, options=options)
        clock = SystemClock()
        cluster = DemoCluster(
            processes,
            cluster_name="bench",
            secret=SECRET,
            clock=clock,
            view=PlainView(clock, io.StringIO()),  # The demo's view has nothing to show here.
        )
        try:
            yield Bench(cluster, key_count)
        finally:
            await cluster.close()
            await processes.stop()


async def main(arguments: argparse.Namespace) -> int:
    async with cluster_bench(arguments.keys) as bench:
        lost = await _run(bench)
    _report(bench, lost, arguments.json)
    return 1 if lost or bench.failures else 0


async def _run(bench: Bench) -> int:
    await bench.form()
    await bench.join()
    await bench.crash(signal.SIGKILL)
    await bench.cluster.start_node("node-4")
    ids = bench.ids()
    await bench.cluster.until("whole again", lambda sights: is_settled(sights, ids))
    await bench.crash(signal.SIGSTOP)
    await bench.drain()
    return await bench.count_lost()


def _report(bench: Bench, lost: int, path: Path | None) -> None:
    rows = [[what, f"{s:.2f} s", OLRIC.get(what, "")] for what, s in bench.seconds.items()]
    rows.append(["keys lost", str(lost), ""])
    rows.append([f"calls meanwhile: {bench.operations:,}; failed", str(len(bench.failures)), ""])
    title = f"{bench.key_count:,} keys of 100 bytes, two copies"
    print_table(title, ["what", "here", "Olric, as published by its measurement"], rows)
    for failure in bench.failures[:5]:
        print(failure)
    figures: dict[str, Any] = {"seconds": bench.seconds, "lost": lost}  # Any: JSON values
    write_json(path, {"cluster": {**figures, "failed_calls": len(bench.failures)}})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--json", type=Path, help="write the figures there")
    with suppress(KeyboardInterrupt):
        raise SystemExit(run(main(parser.parse_args())))
