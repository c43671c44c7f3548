"""The same load, nemesis and checkers over real processes: `python -m cache.testing.chaos --seconds 600`.

Kills are SIGKILL, pauses SIGSTOP, leaves are drains, and members join and come back all the time. For a part
of the time the network is cut: in one direction, around one member, in two, or it loses packets. Where
network namespaces can be made (Linux, root, `ip`, `nft`) members run in them and nftables cuts; elsewhere
(`proxied`) they are on loopback and the fault-injecting proxy does. In `processes` the network holds. What
real processes cannot suffer (clocks) is left to the simulator.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final, Literal

from cache.testing.campaign import EQUAL_BOUND, compare_copies
from cache.testing.cluster import TestCluster
from cache.testing.history import GET, History, Operation, Outcome
from cache.testing.load import Load
from cache.testing.nemesis import Nemesis
from cache.testing.running import run_cluster
from cache.testing.schedule import Fault, Schedule
from cache.testing.worlds.lan import why_unavailable

SIZE: Final = 4
COPIES: Final = 2
LOAD_PACE: Final = 0.02
SETTLE_BOUND: Final = 60.0
PARTITIONS: Final = 64
DEADLINE: Final = 5.0
"""Seconds an operation may take inside a member (`operation_timeout`)."""

GRACE: Final = 0.2
"""Seconds by which a call may pass its deadline."""

DETECTION: Final = 10.0
"""Seconds within which a death is known to all: two probe intervals and a suspicion nobody confirms."""

WRITABLE_AGAIN: Final = DETECTION + 2.0
"""Seconds without an acknowledged write of a key, at most, while members can reach each other."""

CUT_PERIOD: Final = 30.0
CUT_WINDOW: Final = 12.0
"""In so many seconds of each period the network fails, too. In the rest it must be one cluster again: while
members are divided each side has its own truth, and the checkers can say less."""

ChaosWorld = Literal["processes", "proxied", "namespaces"]


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
    """Longest of them that was a write, acknowledged or not."""
    outage: float = 0.0
    """Longest time in which attempts to write a key failed, while members could reach each other."""
    divided: float = 0.0
    """Seconds in which they could not, up to the convergence after it."""
    lasted: float = 0.0
    story: list[str] = field(default_factory=list)
    """If there is a violation: the faults, and what was done to the keys it names, in order."""
    stopped: int = 0
    """Packets that cuts stopped."""


def draw_chaos(seed: int, seconds: float, *, cuts: bool = False) -> Schedule:
    """Draw kills, restarts, pauses, joins and leaves for so long, one every two seconds or so.

    With `cuts` also faults of the network, in the first `CUT_WINDOW` seconds of each `CUT_PERIOD`.
    """
    rng = Random(f"chaos/{seed}")
    faults: list[Fault] = []
    at = 0.0
    while True:
        at += rng.uniform(1.0, 2.5)
        if at >= seconds:
            return Schedule(seed, SIZE, {"replica_count": COPIES}, tuple(faults))
        if cuts and at % CUT_PERIOD < CUT_WINDOW:
            faults.append(_draw_network_fault(rng, round(at, 3)))
            if rng.random() < 0.5:
                continue
        kind = rng.choice(("restart", "restart", "restart", "pause", "pause", "join", "drain"))
        lasting = round(rng.choice((0.3, 1.0, 3.0)) * rng.uniform(0.5, 1.5), 3)
        members = () if kind == "join" else (rng.randrange(60),)  # A rank, see `Nemesis.ranked`.
        faults.append(Fault(round(at, 3), kind, members, lasting if kind == "pause" else 0.0))


def _draw_network_fault(rng: Random, at: float) -> Fault:
    kind = rng.choice(("cut", "cut", "isolate", "isolate", "split", "split", "loss"))
    count = {"isolate": 1, "split": rng.randint(1, 3)}.get(kind, 2)
    members = tuple(rng.randrange(60) for _ in range(count))
    lasting = round(rng.choice((0.5, 3.0, 8.0)) * rng.uniform(0.5, 1.5), 3)
    settings = {"loss": round(rng.uniform(0.1, 0.6), 3)} if kind == "loss" else {}
    return Fault(at, kind, members, lasting, settings)


def run_chaos(seed: int, seconds: float, *, world: ChaosWorld = "processes") -> Findings:
    """Run over real processes, with cuts unless the world is `processes`, and check the history."""
    findings, has_cuts = Findings(), world != "processes"
    schedule = draw_chaos(seed, seconds, cuts=has_cuts)

    async def scenario(cluster: TestCluster) -> None:
        await _run(cluster, schedule, findings)
        if has_cuts:
            findings.stopped = cluster.heal()
            if not findings.stopped:
                findings.violations.append("the cuts stopped no packet: nothing is shown")

    run_cluster(
        scenario,
        world="namespaces" if world == "namespaces" else "processes",
        faults=world == "proxied",
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
    began_at = cluster.now()
    async with asyncio.TaskGroup() as group:
        group.create_task(load.run(), name="load")
        await nemesis.run()
        load.stop()
    await cluster.wait_for_convergence(timeout=SETTLE_BOUND)
    nemesis.close_division()
    findings.lasted = cluster.now() - began_at

    async def equal() -> bool:
        return not await compare_copies(cluster)

    await cluster.eventually(equal, within=EQUAL_BOUND, what="equal copies")
    findings.violations += (found := await load.check())
    if found:
        findings.story = _tell(history, nemesis, {sentence.split()[0] for sentence in found})
    findings.faults, findings.skipped = nemesis.done, nemesis.skipped
    findings.counts = history.counts()
    findings.divided = sum(span.end - span.start for span in history.divided)
    _measure(history, nemesis, findings)


def _tell(history: History, nemesis: Nemesis, keys: set[str]) -> list[str]:
    events = list(nemesis.events)
    operations: list[Operation] = [*history.writes, *history.reads]
    events += [(one.started_at, str(one)) for one in operations if one.key in keys]
    return [f"{at:.3f} {event}" for at, event in sorted(events)]


def _measure(history: History, nemesis: Nemesis, findings: Findings) -> None:
    """Take the times of calls through members that were not stopped meanwhile themselves."""
    calls: list[Operation] = [*history.reads, *history.unanswered, *history.writes]
    for call in calls:
        if nemesis.was_paused(call.member, call.started_at, call.ended_at):
            continue
        seconds = call.ended_at - call.started_at
        findings.slowest = max(findings.slowest, seconds)
        if call.name != GET:
            findings.slowest_write = max(findings.slowest_write, seconds)
        if seconds > DEADLINE + GRACE:
            findings.violations.append(f"over {DEADLINE} s: {seconds:.2f} s for {call}")
    findings.outage = _longest_outage(history, nemesis)
    if findings.outage > WRITABLE_AGAIN:
        findings.violations.append(f"a key was not writable for {findings.outage:.2f} s")


def _longest_outage(history: History, nemesis: Nemesis) -> float:
    """From the first attempt at a key that failed to the end of the next one that succeeded, at most."""
    failing_since: dict[str, float] = {}
    longest = 0.0
    for write in history.writes:
        if write.ttl is not None or _is_excused(write, history, nemesis):
            failing_since.pop(write.key, None)
        elif write.outcome in (Outcome.FAIL, Outcome.UNKNOWN):
            failing_since.setdefault(write.key, write.started_at)
        else:
            since = failing_since.pop(write.key, write.started_at)
            longest = max(longest, write.ended_at - since)
    return longest


def _is_excused(write: Operation, history: History, nemesis: Nemesis) -> bool:
    """Return whether the attempt was made through a stopped member, or members were divided."""
    return nemesis.was_paused(write.member, write.started_at, write.ended_at) or any(
        span.overlaps(write.started_at, write.ended_at) for span in history.divided
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run for so long; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--world",
        choices=("processes", "proxied", "namespaces"),
        help="default: namespaces where they can be made, else proxied; processes are without cuts",
    )
    options = parser.parse_args(arguments)
    world = options.world or _choose_world()
    findings = run_chaos(options.seed, options.seconds, world=world)
    print(f"faults: {findings.faults}; not possible: {findings.skipped}")
    print(f"operations: {findings.counts}")
    print(f"slowest call {findings.slowest:.2f} s, slowest write {findings.slowest_write:.2f} s")
    print(f"longest time a key was not writable, divisions apart: {findings.outage:.2f} s")
    if world != "processes":
        share = findings.divided / findings.lasted
        print(f"packets stopped by cuts: {findings.stopped}; divided for {share:.0%} of the time")
    if findings.story:
        path = Path(f"chaos-{options.seed}.log")
        path.write_text("\n".join(findings.story) + "\n")
        print(f"faults, and operations on the keys concerned: {path}")
    for violation in findings.violations[:10]:
        print(f"VIOLATION {violation}", file=sys.stderr)
    print(f"{len(findings.violations)} violations")
    return 1 if findings.violations else 0


def _choose_world() -> ChaosWorld:
    """Take the world with the most faults that can be made here, and say which."""
    if reason := why_unavailable():
        print(f"world: processes on loopback, cut by the proxy: {reason}", flush=True)
        return "proxied"
    print("world: namespaces, the network is cut by nftables", flush=True)
    return "namespaces"


if __name__ == "__main__":
    sys.exit(main())
