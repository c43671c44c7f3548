"""The same load, nemesis and checkers over real processes: `python -m cache.testing.chaos --seconds 600`.

Members are processes on loopback; kills are SIGKILL, pauses SIGSTOP, leaves are drains, and members join
and come back all the time. What cannot be done to real processes (cuts, clocks) is left to the simulator.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final

from cache.testing.campaign import EQUAL_BOUND, compare_copies
from cache.testing.checkers import check_history
from cache.testing.cluster import TestCluster
from cache.testing.history import History
from cache.testing.load import Load
from cache.testing.nemesis import Nemesis
from cache.testing.running import run_cluster
from cache.testing.schedule import Fault, Schedule

SIZE: Final = 4
COPIES: Final = 2
LOAD_PACE: Final = 0.02
SETTLE_BOUND: Final = 60.0
PARTITIONS: Final = 64
DEADLINE: Final = 5.0
"""Seconds an operation may take inside a member (`operation_timeout`)."""

GRACE: Final = 0.2
"""Seconds by which a call may pass its deadline."""


@dataclass(slots=True)
class Findings:
    """What came of a run."""

    violations: list[str] = field(default_factory=list)
    faults: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    slowest: float = 0.0
    """Longest call through a member that was not paused itself, seconds."""
    slowest_write: float = 0.0
    """Longest acknowledged write: how long a key was not writable, at most."""


def draw_chaos(seed: int, seconds: float) -> Schedule:
    """Draw kills, restarts, pauses, joins and leaves for so long, one every two seconds or so."""
    rng = Random(f"chaos/{seed}")
    faults: list[Fault] = []
    at = 0.0
    while True:
        at += rng.uniform(1.0, 2.5)
        if at >= seconds:
            return Schedule(seed, SIZE, {"replica_count": COPIES}, tuple(faults))
        kind = rng.choice(("restart", "restart", "restart", "pause", "pause", "join", "drain"))
        lasting = round(rng.choice((0.3, 1.0, 3.0)) * rng.uniform(0.5, 1.5), 3)
        members = () if kind == "join" else (rng.randrange(60),)  # A rank, see `Nemesis.ranked`.
        faults.append(Fault(round(at, 3), kind, members, lasting if kind == "pause" else 0.0))


def run_chaos(seed: int, seconds: float) -> Findings:
    """Run over real processes and check the history."""
    findings = Findings()
    schedule = draw_chaos(seed, seconds)

    async def scenario(cluster: TestCluster) -> None:
        await _run(cluster, schedule, findings)

    run_cluster(
        scenario,
        world="processes",
        size=SIZE,
        replica_count=COPIES,
        partition_count=PARTITIONS,
        operation_timeout=DEADLINE,
    )
    return findings


async def _run(cluster: TestCluster, schedule: Schedule, findings: Findings) -> None:
    history = History()
    load = Load(cluster, history, schedule.seed, pace=LOAD_PACE)
    nemesis = Nemesis(cluster, schedule, history, load, ranked=True)
    async with asyncio.TaskGroup() as group:
        group.create_task(load.run(), name="load")
        await nemesis.run()
        load.stop()
    await cluster.wait_for_convergence(timeout=SETTLE_BOUND)
    nemesis.close_division()

    async def equal() -> bool:
        return not await compare_copies(cluster)

    await cluster.eventually(equal, within=EQUAL_BOUND, what="equal copies")
    await load.read_everything()
    findings.violations += check_history(history)
    findings.faults, findings.skipped = nemesis.done, nemesis.skipped
    findings.counts = history.counts()
    _measure(history, nemesis, findings)


def _measure(history: History, nemesis: Nemesis, findings: Findings) -> None:
    """Take the times of calls through members that were not stopped meanwhile themselves."""
    for read in history.reads:
        if not nemesis.was_paused(read.member, read.started_at, read.ended_at):
            findings.slowest = max(findings.slowest, read.ended_at - read.started_at)
    for write in history.writes:
        if nemesis.was_paused(write.member, write.started_at, write.ended_at):
            continue
        seconds = write.ended_at - write.started_at
        findings.slowest = max(findings.slowest, seconds)
        findings.slowest_write = max(findings.slowest_write, seconds)
    if findings.slowest > DEADLINE + GRACE:
        findings.violations.append(f"a call took {findings.slowest:.2f} s, over {DEADLINE} s")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run for so long; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    findings = run_chaos(options.seed, options.seconds)
    print(f"faults: {findings.faults}; not possible: {findings.skipped}")
    print(f"operations: {findings.counts}")
    print(f"slowest call {findings.slowest:.2f} s, slowest write {findings.slowest_write:.2f} s")
    for violation in findings.violations[:10]:
        print(f"VIOLATION {violation}", file=sys.stderr)
    print(f"{len(findings.violations)} violations")
    return 1 if findings.violations else 0


if __name__ == "__main__":
    sys.exit(main())
