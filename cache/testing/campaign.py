"""Random faults over many seeds: `python -m cache.testing.campaign --seeds 300 --jobs 2`.

Each seed is one run: a schedule of faults is drawn (`schedule.py`), happens to a simulated cluster under load
(`nemesis.py`, `load.py`), then everything is undone (*safety phase* over), the cluster has to become one
again within `LIVENESS_BOUND` (*liveness phase*), and the history is checked (`checkers.py`).

A failing seed is shrunk to the fewest faults that still fail, and written to a file that
`--replay FILE` runs again.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from cache.errors import CacheError
from cache.testing.checkers import check_digests
from cache.testing.clients import Clients
from cache.testing.cluster import TestCluster
from cache.testing.features import NAMES, Features, draw_features
from cache.testing.groups.run import run_groups, settings_of
from cache.testing.groups.schedule import CONSISTENT, draw_groups
from cache.testing.history import History
from cache.testing.ledgers import SETUP, Ledgers
from cache.testing.load import Load
from cache.testing.nemesis import Nemesis
from cache.testing.result import Result
from cache.testing.running import run_cluster
from cache.testing.schedule import Schedule, draw, parse
from cache.testing.seeds import figures, run_each, seeds_of, seeds_parser

LIVENESS_BOUND: Final = 60.0
"""Virtual seconds after the last fault within which all members agree and all copies are complete."""

EQUAL_BOUND: Final = 10.0
"""Virtual seconds after that within which all copies are equal."""

RUN_LIMIT: Final = 3600.0
"""Virtual seconds a run may take at all."""

SAMPLE_INTERVAL: Final = 0.1
CALM_BEFORE_END: Final = 0.3
LOAD_PACE: Final = 0.06
"""Seconds between two writes of one client, at most."""


Bind = Callable[[TestCluster, History], Clients]


@dataclass(frozen=True, slots=True)
class Work:
    """One run: what happens in it, and what members need for it."""

    run: Callable[[TestCluster, Result], Awaitable[None]]
    settings: Mapping[str, Any]  # Any: fields of ClusterConfig


def _clients(schedule: Schedule, bind: Bind, settings: Mapping[str, Any]) -> Work:
    # Any: fields of ClusterConfig
    return Work(partial(_run, bind), {**settings, **schedule.config})


def _entries(schedule: Schedule) -> Work:
    def bind(cluster: TestCluster, history: History) -> Clients:
        return Load(cluster, history, schedule.seed, pace=LOAD_PACE)

    return _clients(schedule, bind, {})


def _ledgers(schedule: Schedule) -> Work:
    def bind(cluster: TestCluster, history: History) -> Clients:
        return Ledgers(cluster, history, schedule.seed, LOAD_PACE)

    return _clients(schedule, bind, {"setup": SETUP})


def _features(schedule: Schedule) -> Work:
    return _only(draw_features(schedule.seed), schedule)


def _only(names: Sequence[str], schedule: Schedule) -> Work:
    features = Features(names, schedule.seed)

    def bind(cluster: TestCluster, history: History) -> Clients:
        return features.bind(cluster, history, LOAD_PACE)

    return _clients(schedule, bind, features.settings())


def _consistent(schedule: Schedule) -> Work:
    return Work(run_groups, settings_of(schedule))


LOADS: Final[Mapping[str, Callable[[Schedule], Work]]] = MappingProxyType(
    {
        "entries": _entries,
        "ledgers": _ledgers,
        "features": _features,
        CONSISTENT: _consistent,
        **{name: partial(_only, (name,)) for name in NAMES},
    }
)
"""By name, what makes the work of a schedule; "features" draws which features, "consistent" is groups."""


def draw_for(load: str, seed: int) -> Schedule:
    """Draw a schedule for a load."""
    return draw_groups(seed) if load == CONSISTENT else replace(draw(seed), load=load)


REPEATED_PART: Final = 100
"""One seed in so many runs twice, to compare the traces."""

SHRINK_RUNS_MAX: Final = 120


def run_schedule(schedule: Schedule) -> Result:
    """Run one schedule in the simulator and check its history."""
    result = Result(schedule)
    work = LOADS[schedule.load](schedule)

    async def scenario(cluster: TestCluster) -> None:
        await work.run(cluster, result)

    try:
        trace = run_cluster(
            scenario,
            world="simulated",
            size=schedule.size,
            seed=schedule.seed,
            limit=RUN_LIMIT,
            **work.settings,
        )
    except Exception as error:  # noqa: BLE001  (whatever stops a run is a violation)
        result.violations.append(_describe(error))
    else:
        result.trace = trace or ""
    return result


def _describe(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"


async def _run(bind: Bind, cluster: TestCluster, result: Result) -> None:
    history = History()
    load = bind(cluster, history)
    nemesis = Nemesis(cluster, result.schedule, history, load)
    sampling = True

    async def sample() -> None:
        while sampling:
            await _sample(cluster, history)
            await cluster.sleep(SAMPLE_INTERVAL)

    async with asyncio.TaskGroup() as group:
        group.create_task(load.run(), name="load")
        group.create_task(sample(), name="sample")
        await nemesis.run()
        await cluster.sleep(CALM_BEFORE_END)
        load.stop()
        sampling = False
    await cluster.wait_for_convergence(timeout=LIVENESS_BOUND)
    nemesis.close_division()
    await cluster.eventually(
        lambda: _copies_are_equal(cluster), within=EQUAL_BOUND, what="equal copies"
    )
    result.violations += await load.check()
    result.violations += await compare_copies(cluster)
    result.violations += await _check_losses(cluster, nemesis)
    result.counts, result.faults, result.skipped = load.counts(), nemesis.done, nemesis.skipped


async def _copies_are_equal(cluster: TestCluster) -> bool:
    return not await compare_copies(cluster)


async def compare_copies(cluster: TestCluster) -> list[str]:
    """Return in which partitions the copies of a cluster differ."""
    for_all = [await member.inspect("digests") for member in cluster.members]
    return check_digests(
        {p: (count, digest) for p, (count, digest) in one.items()} for one in for_all
    )


async def _sample(cluster: TestCluster, history: History) -> None:
    for member in cluster.members:
        try:
            rows = (await member.inspect("table"))["rows"]
        except CacheError:
            continue
        for partition, (epoch, replicas, _) in enumerate(rows):
            if replicas:
                history.ownership.setdefault((partition, epoch), {})[replicas[0]] = None


async def _check_losses(cluster: TestCluster, nemesis: Nemesis) -> list[str]:
    """What was destroyed is reported by every member; nothing else is, unless sides took over."""
    if any(kind in nemesis.done for kind in ("join", "restart", "drain", "pause")):
        return []  # Who joined later cannot know; who stalled may have missed a table.
    expected = sorted(nemesis.expected_lost)
    violations = []
    for member in cluster.members:
        reported = sorted(await member.inspect("lost"))
        wrong = reported != expected if not nemesis.history.divided else False
        if wrong or not set(expected) <= set(reported):
            violations.append(f"{member} reports {reported} as lost, destroyed were {expected}")
    return violations


def shrink(schedule: Schedule) -> Schedule:
    """Return a schedule with as few of the faults as still fail.

    Source: delta debugging, Zeller & Hildebrandt 2002, without its complements.
    """
    runs, size = 0, max(1, len(schedule.faults) // 2)
    while size:
        start, removed = 0, False
        while start < len(schedule.faults) and runs < SHRINK_RUNS_MAX:
            smaller = schedule.without(start, size)
            runs += 1
            if run_schedule(smaller).violations:
                schedule, removed = smaller, True
            else:
                start += size
        if not removed or size > len(schedule.faults):
            size //= 2
    return schedule


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the campaign; return the exit code."""
    parser = seeds_parser(__doc__, seeds=20, stop="end at the first failure, unshrunk")
    parser.add_argument("--load", choices=sorted(LOADS), default="entries", help="what clients do")
    parser.add_argument("--replay", type=Path, help="run this schedule instead")
    parser.add_argument("--trace", action="store_true", help="print the hash of each trace")
    parser.add_argument("--out", type=Path, default=Path(), help="folder for failing schedules")
    options = parser.parse_args(arguments)
    logging.disable(logging.CRITICAL)  # What members say of dead peers is expected here.
    if options.replay is not None:
        schedules = [parse(options.replay.read_text())]
    else:
        schedules = [draw_for(options.load, seed) for seed in seeds_of(options)]
    started = time.monotonic()
    if options.stop:
        return _run_until_failure(schedules)
    results = list(run_each(run_twice, schedules, options.jobs))
    failed = [result for result in results if result.violations]
    for result in failed:
        _report_failure(result, options.out, replayed=options.replay)
    if options.trace:
        for result in results:
            print(f"{result.schedule.seed} {result.trace}")
    _summarize(results, time.monotonic() - started)
    print(f"{len(failed)} failed")
    return 1 if failed else 0


def _run_until_failure(schedules: Sequence[Schedule]) -> int:
    for schedule in schedules:
        if violations := run_schedule(schedule).violations:
            print(f"FAILED seed {schedule.seed}: {violations[0]}")
            return 1
    return 0


def run_twice(schedule: Schedule) -> Result:
    """Run a schedule, one in `REPEATED_PART` twice: the trace has to be the same."""
    logging.disable(logging.CRITICAL)
    result = run_schedule(schedule)
    if schedule.seed % REPEATED_PART == 0:
        again = run_schedule(schedule)
        if again.trace != result.trace:
            result.violations.append(f"the traces differ: {result.trace} and {again.trace}")
    return result


def _report_failure(result: Result, folder: Path, *, replayed: Path | None) -> None:
    seed = result.schedule.seed
    print(f"FAILED seed {seed}:", file=sys.stderr)
    for violation in result.violations[:5]:
        print(f"  {violation}", file=sys.stderr)
    if replayed is None:
        path = folder / f"seed-{seed}.faults"
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(str(shrink(result.schedule)))
        print(f"replay: python -m cache.testing.campaign --replay {path}", file=sys.stderr)


def _summarize(results: Sequence[Result], seconds: float) -> None:
    totals: dict[str, Counter[str]] = {name: Counter() for name in ("counts", "faults", "skipped")}
    for result in results:
        for name, counter in totals.items():
            counter.update(getattr(result, name))
    print(f"{len(results)} schedules in {seconds:.1f} s")
    for name, title in (
        ("counts", "operations"),
        ("faults", "faults"),
        ("skipped", "not possible"),
    ):
        print(f"{title}: {figures(totals[name])}")


if __name__ == "__main__":
    sys.exit(main())
