"""Random Raft groups under faults in virtual time: `python -m cache.testing.raft --seeds 300`.

Each seed draws a group, its settings and its faults (*safety phase*, checked at every step by `checks.py`);
then all faults stop, and within `LIVENESS_BOUND` every member of the group has to have applied a new write
(*liveness phase*). The same seed gives the same run, so a failing one is replayed by its number.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final

from cache.cluster.config.raft import RaftConfig
from cache.cluster.raft.changes import everyone
from cache.cluster.raft.outputs import Persisted, Propose, Reason
from cache.cluster.raft.sessions import Applied
from cache.cluster.raft.status import bootstrap
from cache.testing.raft.clients import Client
from cache.testing.raft.nemesis import Nemesis
from cache.testing.raft.world import Links, World
from cache.testing.seeds import figures, run_each, seeds_of, seeds_parser

SAFETY_SECONDS: Final = 5.0
LIVENESS_BOUND: Final = 6.0
"""Virtual seconds after the last fault: twenty of the longest election timeouts."""

STEPS_MAX: Final = 400_000
"""Of one run; more is a storm of messages, and a violation."""


@dataclass(slots=True)
class Result:
    """What came of one seed."""

    seed: int
    violation: str = ""
    counts: Counter[str] = field(default_factory=Counter)


def draw_config(rng: Random) -> RaftConfig:
    """Return small limits, so that each of them is reached within seconds."""
    return RaftConfig(
        append_bytes_max=rng.choice((1, 200, 1_000, 100_000)),
        inflight_max=rng.choice((1, 2, 8)),
        uncommitted_bytes_max=rng.choice((500, 100_000)),
        snapshot_interval=rng.choice((10, 40, 100_000)),
        snapshot_trailing=rng.choice((1, 10)),
        snapshot_chunk_bytes=rng.choice((50, 100_000)),
        promotion_lag_max=rng.choice((1, 100)),
    )


def run_seed(seed: int) -> Result:
    """Run one seed."""
    rng = Random(f"raft {seed}")
    world = World(f"world {seed}", draw_config(rng), Links())
    nemesis = Nemesis(world, str(seed))
    size = rng.choice((1, 3, 3, 3, 5, 5))
    names = [f"r{number}" for number in range(1, size + 1)]
    for name in names:
        world.add(name, bootstrap(tuple(names)), nemesis.rate())
    if "members" in nemesis.faults:
        for number in range(size + 1, size + 4):
            world.add(f"r{number}", Persisted(), nemesis.rate())
    for host in world.hosts.values():
        host.start()
    result = Result(seed, counts=world.counts)
    try:
        _run(world, nemesis, rng)
    except Exception as error:  # noqa: BLE001  (whatever stops a run is a violation)
        result.violation = f"at {world.time:.3f}: {type(error).__name__}: {error}"
    return result


def _run(world: World, nemesis: Nemesis, rng: Random) -> None:
    pace = rng.choice((0.01, 0.05, 0.2))
    clients = [
        Client(world, f"c{number}", with_session=number % 2 == 0, pace=pace)
        for number in range(rng.choice((2, 4)))
    ]
    nemesis.start()
    world.run(SAFETY_SECONDS)
    nemesis.stop()
    for client in clients:
        client.stop()
    _check_liveness(world)
    for host in world.hosts.values():
        twice = [value for value, times in host.registers.applied.items() if times > 1]
        if twice:
            world.checks.fail(f"{host.name} applied {twice[0]} more than once")
    if world.counts["steps"] > STEPS_MAX:
        world.checks.fail(f"{world.counts['steps']} steps")


def _check_liveness(world: World) -> None:
    """After the faults a write is applied by every member of the group."""
    done: list[int] = []
    end = world.time + LIVENESS_BOUND

    def answer(result: Applied | Reason | int, place: int) -> None:
        if isinstance(result, Applied):
            done.append(place)

    while world.time < end and not _is_whole(world, done):
        world.run(world.time + 0.2)
        leader = world.leader()
        if leader is not None and not done:
            leader.post(Propose(request=leader.ask(answer), data=f"y={world.time}".encode()))
    if not _is_whole(world, done):
        states = [host.machine.status() for host in world.hosts.values()]
        world.checks.fail(f"no life after the faults: {done} {states}")


def _is_whole(world: World, done: list[int]) -> bool:
    leader = world.leader()
    if leader is None or not done:
        return False
    members = leader.machine.status().members
    applied = [world.hosts[name].state.index for name in everyone(members)]
    return not members.outgoing and min(applied) >= done[0]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the campaign; return the exit code."""
    parser = seeds_parser(__doc__, seeds=100, prog="python -m cache.testing.raft")
    options = parser.parse_args(arguments)
    started = time.monotonic()
    results: list[Result] = []
    for result in run_each(run_seed, seeds_of(options), 1 if options.stop else options.jobs):
        results.append(result)
        if options.stop and result.violation:
            break
    failed = [result for result in results if result.violation]
    for result in failed:
        print(f"FAILED seed {result.seed}: {result.violation}")
        print(f"replay: python -m cache.testing.raft --first {result.seed} --seeds 1")
    _summarize(results, time.monotonic() - started)
    print(f"{len(failed)} failed")
    return 1 if failed else 0


def _summarize(results: Sequence[Result], seconds: float) -> None:
    totals: Counter[str] = Counter()
    for result in results:
        totals.update(result.counts)
    faults = {key[7:]: count for key, count in totals.items() if key.startswith("fault: ")}
    others = {key: count for key, count in totals.items() if not key.startswith("fault: ")}
    print(f"{len(results)} seeds in {seconds:.1f} s")
    for title, counts in (("faults", faults), ("seen", others)):
        print(f"{title}: {figures(counts)}")


if __name__ == "__main__":
    sys.exit(main())
