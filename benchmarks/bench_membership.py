"""Membership at scale: `python benchmarks/bench_membership.py [--quick] [--json FILE] [--plots]`.

Up to 1,000 SWIM machines run in one simulation (`tests/unit/cluster/membership/simulation.py`) with the
defaults of a LAN: every figure is virtual time and can be had again from its seed. A crash is silent: streams
to the member are not refused, they time out. T1 to T9 are the targets of the issue. The full run takes about
ten minutes on two cores, `--quick` less than one.
"""

from __future__ import annotations

import argparse
import importlib
import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.support import print_table, write_json
from cache.cluster.ids import MemberId
from tests.unit.cluster.membership.simulation import World

PLOTS: Final = Path(__file__).resolve().parent / "plots"
JOBS: Final = 2

ResultT = TypeVar("ResultT")


# -- scenarios: each is a function of its arguments and a seed ------------------------------------


def formed(size: int, seed: int, *, loss: float = 0.0, weigh: bool = False) -> World:
    """Return a quiet cluster of `size` members."""
    world = World(seed, loss=loss, weigh=weigh)
    world.form(size)
    world.run(3 + world.rng.random())
    world.noted.clear()
    return world


def crashes(size: int, batches: int, victims: int, seed: int) -> list[tuple[float, float]]:
    """Crash some members, `victims` within two seconds, around `size`.

    Returns:
        For each, seconds until the first member knows, and from then until the last one does.
    """
    world = formed(size + batches * victims // 2, seed)
    crashed: list[tuple[float, MemberId]] = []
    for _ in range(batches):
        world.run(4 + world.rng.random())
        batch = world.rng.sample(list(world.hosts.values())[1:], victims)
        for host in batch:
            world.run(world.rng.uniform(0, 2 / victims))
            world.crash(host)
            crashed.append((world.now, host.member.id))
            world.noted[("member.dead", host.member.id)] = []
        all_know = partial(world.buried_by_all, [host.member.id for host in batch])
        world.until(all_know, limit=120)
    dead = ((at, world.noted[("member.dead", member)]) for at, member in crashed)
    return [(told[0][0] - at, told[-1][0] - told[0][0]) for at, told in dead]


def joins(size: int, times: int, seed: int) -> list[float]:
    """Let members join one by one, as the `size`-th; return how long until all knew all."""
    world = formed(size - 1, seed)
    results = []
    for number in range(size, size + times):
        world.join(number)
        results.append(world.until(lambda: world.complete(size), limit=120, step=0.01))
        leaver = world.rng.choice(list(world.hosts.values())[1:])
        world.leave(leaver)
        world.until(lambda: world.complete(size - 1), limit=120)
        world.run(3)
    return results


def mass_join(size: int, seed: int) -> float:
    """Let all but one join at once through that one; return how long until all knew all."""
    world = formed(1, seed)
    for number in range(1, size):
        world.join(number)
    return world.until(lambda: world.complete(size), limit=300)


def heal(size: int, cut: float, seed: int) -> float:
    """Cut a cluster into halves for `cut` seconds; return how long after that until all knew all."""
    world = formed(size, seed)
    world.split(lambda number: number % 2)
    world.run(cut)
    assert world.deaths(), "the cut was too short to do anything"
    world.split(lambda _: 0)
    return world.until(lambda: world.complete(size), limit=300, step=0.1)


def lossy(size: int, seconds: float, seed: int) -> int:
    """Lose 5 % of all packets; return how many deaths were declared of members that all lived."""
    world = formed(size, seed, loss=0.05)
    world.run(seconds)
    return len(world.deaths())


def slow_members(
    slow: int,
    blocked: float,
    open_for: float,
    size: int,
    seconds: float,
    deaf: bool,
    seed: int,
) -> tuple[int, int]:
    """Block members again and again; return false deaths of the others: all, and those at healthy ones.

    Deaf ones have timers that run on while all their messages wait, as in memberlist's measurement; the
    others stop altogether, as a blocked event loop does.
    """
    world = formed(size, seed)
    sick = world.rng.sample(list(world.hosts.values()), slow)
    ids = {host.member.id for host in sick}
    for host in sick:
        world.freeze_cyclically(host, blocked=blocked, open_for=open_for, deaf=deaf)
    world.run(seconds)
    false = [by for about, by in world.deaths() if about not in ids]
    return len(false), sum(by not in sick for by in false)


def stalls(size: int, blocked: float, seconds: float, seed: int) -> tuple[int, int]:
    """Stall one member once a minute; return the deaths declared of it, and those of others."""
    world = formed(size, seed)
    host = world.rng.choice(list(world.hosts.values()))
    world.freeze_cyclically(host, blocked=blocked, open_for=60 - blocked)
    world.run(seconds)
    own = sum(about == host.member.id for about, _ in world.deaths())
    return own, len(world.deaths()) - own


def traffic(size: int, seconds: float, seed: int) -> tuple[float, float, float]:
    """Return bytes and packets per second that a member sends when all is quiet, and those of exchanges.

    Bytes of exchanges are counted both ways, without frames.
    """
    world = formed(size, seed, weigh=True)
    world.run(5)
    for host in world.hosts.values():
        host.bytes_sent = host.packets_sent = host.stream_bytes = 0
    world.run(seconds)
    per = 1 / (seconds * size)
    return (
        sum(host.bytes_sent for host in world.hosts.values()) * per,
        sum(host.packets_sent for host in world.hosts.values()) * per,
        sum(host.stream_bytes for host in world.hosts.values()) * per,
    )


# -- the report ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    what: str
    bar: str
    measured: str
    ok: bool | None = None
    """None for what has no bar here."""


@dataclass(slots=True)
class Report:
    """Runs scenarios on several processes and gathers rows and the points of the plots."""

    pool: ProcessPoolExecutor
    quick: bool
    rows: list[Row] = field(default_factory=list)
    points: dict[str, dict[str, float]] = field(default_factory=dict)

    def run(
        self, scenario: Callable[..., ResultT], *arguments: object, seeds: int
    ) -> list[ResultT]:
        """Return the results of a scenario under seed 1, seed 2 and so on."""
        started_at = time.perf_counter()
        tasks = [self.pool.submit(scenario, *arguments, seed) for seed in range(1, seeds + 1)]
        results = [task.result() for task in tasks]
        seconds = time.perf_counter() - started_at
        print(f"{scenario.__name__}{arguments} x {seeds}: {seconds:.0f} s", file=sys.stderr)
        return results

    def add(self, what: str, bar: str, measured: str, ok: bool | None = None) -> None:
        """Add a row."""
        self.rows.append(Row(what, bar, measured, ok))
        print(f"  {what}: {measured}", file=sys.stderr)

    def point(self, curve: str, at: object, value: float) -> None:
        """Add a point to a plot."""
        self.points.setdefault(curve, {})[str(at)] = value


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that `share` of the values do not exceed."""
    return sorted(values)[min(len(values) - 1, math.ceil(share * len(values)) - 1)]


def report_crashes(report: Report) -> None:
    """T1 and T2."""
    plan = [(16, 5.6, 0.1, (1, 1), 200), (128, 8.1, 0.1, (6, 1), 30), (1000, 10.8, 0.4, (2, 12), 4)]
    if report.quick:
        plan = [(16, 5.6, 0.1, (1, 1), 100), (128, 8.1, 0.1, (4, 2), 16)]
    for size, bar, spread_bar, (batches, victims), seeds in plan:
        results = report.run(crashes, size, batches, victims, seeds=seeds)
        samples = [sample for result in results for sample in result]
        first, spread = ([sample[i] for sample in samples] for i in (0, 1))
        p50, told = statistics.median(first), statistics.median(spread)
        high, low = percentile(first, 0.99), min(first)
        measured = f"p50 {p50:.2f} s (min {low:.2f}, p99 {high:.2f}; {len(first)} crashes)"
        report.add(f"silent crash → first dead, n={size}", f"p50 ≤ {bar} s", measured, p50 <= bar)
        measured = f"p50 {told:.3f} s (max {max(spread):.3f})"
        what = f"dead rumour, first → last member, n={size}"
        report.add(what, f"p50 ≤ {spread_bar} s", measured, told <= spread_bar)
        report.point("first dead, p50", size, p50)
        report.point("first dead, p99", size, high)
        report.point("bar", size, bar)
        report.point("first → last, p50", size, told)


def report_joins(report: Report) -> None:
    """T3 and T4."""
    for size in (16, 128):
        times = 15 if report.quick else 50
        results = [seconds for each in report.run(joins, size, times, seeds=4) for seconds in each]
        p50, worst = statistics.median(results), max(results)
        measured = f"p50 {p50:.2f}, p100 {worst:.2f} s ({len(results)} joins)"
        ok = worst <= 3 and p50 <= 0.2
        report.add(f"join seen by all, n={size}", "p50 ≤ 0.2 s, p100 ≤ 3 s", measured, ok)
    runs = report.run(mass_join, 128, seeds=4 if report.quick else 20)
    good = sum(seconds <= 5 for seconds in runs)
    measured = f"{good} of {len(runs)}, slowest {max(runs):.2f} s"
    what = "127 joins at once through one seed: all know all"
    report.add(what, "≤ 5 s, every run", measured, good == len(runs))


def report_heals(report: Report) -> None:
    """T7."""
    plan: list[tuple[int, float, float, int]] = [(16, 20, 35, 20), (16, 600, 65, 20)]
    if not report.quick:
        plan += [(128, 20, 35, 6), (128, 600, 65, 2)]
    for size, cut, bar, seeds in plan:
        runs = report.run(heal, size, cut, seeds=seeds)
        measured = f"{max(runs):.1f} s (slowest of {len(runs)})"
        what = f"cut into halves for {cut} s: heals by itself, n={size}"
        report.add(what, f"≤ {bar} s", measured, max(runs) <= bar)


def report_false_deaths(report: Report) -> None:
    """T8 and T9, and stalls of the event loop."""
    seconds = 600.0 if report.quick else 3600.0
    hours = f"{seconds / 3600:.2g} h"
    for size, seeds in ((50, 2),) if report.quick else ((50, 2), (200, 1)):
        dead = report.run(lossy, size, seconds, seeds=seeds)
        what = f"5 % of packets lost for {hours}, n={size}: false deaths"
        report.add(what, "0", f"{sum(dead)} ({seeds} × {hours})", sum(dead) == 0)
    rows = [(1, 8.0, 0.25), (4, 8.0, 0.25), (10, 8.0, 0.25), (4, 2.0, 0.02), (10, 2.0, 0.02)]
    cases = [(*row, deaf) for deaf in (False, True) for row in rows]
    for slow, blocked, open_for, deaf in cases:
        seeds = 2 if report.quick else 8
        counts = report.run(slow_members, slow, blocked, open_for, 100, 150.0, deaf, seeds=seeds)
        healthy = sum(at_healthy for _, at_healthy in counts)
        worst = max(total for total, _ in counts)
        how = "messages blocked" if deaf else "process blocked"
        what = f"{slow} of 100, {how} {blocked:g} s, open {open_for:g} s, 150 s: false deaths"
        measured = f"{healthy}; at all members {worst} at most ({len(counts)} runs)"
        report.add(what, "0 at healthy members; ≤ 3 at all", measured, healthy == 0 and worst <= 3)
        curve = "false deaths, messages blocked" if deaf else "false deaths"
        report.point(curve, f"{slow}: {blocked:g}/{open_for:g} s", worst)
    for size, blocked in ((5, 2.0), (50, 2.0), (50, 10.0)):
        runs = report.run(stalls, size, blocked, seconds, seeds=2)
        own, others = (sum(run[i] for run in runs) for i in (0, 1))
        what = f"one member stalls {blocked:g} s a minute for {hours}, n={size}: false deaths"
        if blocked < 5:
            report.add(what, "0", str(own + others), own + others == 0)
        else:  # It is rightly called dead: others cannot know that it will come back.
            report.add(f"{what} of others", "0", str(others), others == 0)


def report_traffic(report: Report) -> None:
    """T5, and what T6 asks for."""
    for size in (16, 128) if report.quick else (16, 128, 1000):
        # Longer than the time between two exchanges of a member, which is 180 s at 1,000.
        [(size_bytes, packets, exchanged)] = report.run(traffic, size, 200.0, seeds=1)
        ok = size_bytes <= 160 and packets <= 2.1
        measured = f"{size_bytes:.0f} B/s, {packets:.2f} packets/s"
        what = f"quiet: sent by each member, authenticated, n={size}"
        report.add(what, "≤ 160 B/s, ≤ 2.1 packets/s", measured, ok)
        what = f"exchanges at rest, sent and received by each member, n={size}"
        report.add(what, "≤ 300 B/s", f"{exchanged:.2f} B/s", exchanged <= 300)
        report.point("packets, sent", size, size_bytes)
        report.point("exchanges, both ways", size, exchanged)


def draw(points: dict[str, dict[str, float]]) -> None:
    """Draw the plots, when matplotlib is installed."""
    try:
        matplotlib = importlib.import_module("matplotlib")
    except ImportError:
        print("matplotlib is not installed: no plots")
        return
    matplotlib.use("Agg")
    pyplot: Any = importlib.import_module("matplotlib.pyplot")  # Any: an optional library
    PLOTS.mkdir(exist_ok=True)
    detection = ["first dead, p50", "first dead, p99", "bar", "first → last, p50"]
    for name, curves, label in (
        ("membership_detection", detection, "seconds"),
        (
            "membership_traffic",
            ["packets, sent", "exchanges, both ways"],
            "bytes per second, member",
        ),
    ):
        figure, axes = pyplot.subplots(figsize=(6.4, 4))
        for curve in curves:
            sizes = [int(size) for size in points[curve]]
            axes.plot(sizes, list(points[curve].values()), marker="o", label=curve)
        axes.set(xscale="log", yscale="log", xlabel="members", ylabel=label)
        axes.legend()
        figure.savefig(PLOTS / f"{name}.png", dpi=120, bbox_inches="tight")
    figure, axes = pyplot.subplots(figsize=(6.4, 4))
    deaths = points["false deaths, messages blocked"]
    axes.bar(list(deaths), list(deaths.values()))
    axes.set(xlabel="of 100, slow: blocked/open", ylabel="false deaths, worst run", ylim=(0, 4))
    figure.savefig(PLOTS / "membership_false_deaths.png", dpi=120, bbox_inches="tight")
    print(f"plots: {PLOTS}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a minute instead of ten")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plots", action="store_true")
    options = parser.parse_args()
    with ProcessPoolExecutor(JOBS) as pool:
        report = Report(pool, options.quick)
        report_traffic(report)
        report_joins(report)
        report_heals(report)
        report_crashes(report)
        report_false_deaths(report)
    verdicts = {True: "yes", False: "**no**", None: ""}
    rows = [(row.what, row.bar, row.measured, verdicts[row.ok]) for row in report.rows]
    print_table("Membership, simulated", ("what", "bar", "measured", "ok"), rows)
    figures = {"membership": [asdict(row) for row in report.rows], "curves": report.points}
    write_json(options.json, figures)
    if options.plots:
        draw(report.points)
    return sum(row.ok is False for row in report.rows)


if __name__ == "__main__":
    sys.exit(main())
