"""Commands under cuts, kills and restarts: each takes effect once, or says that it may have."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from cache.errors import IndeterminateError, RejectedError
from cache.testing import TestCluster
from cache.testing.running import run_cluster
from cache.testing.sim.world import ProcessKilledError
from tests.integration.counting import AT_START, Counter, leader_of, uuids

SEEDS = 6
SIZE = 5

PAUSE = 0.05
"""Seconds between two calls of one caller: it is faults that count here, not load."""


class Callers:
    """One caller on each member that counts, over and over; and what became of each call."""

    def __init__(self, cluster: TestCluster) -> None:
        self.cluster = cluster
        self.answers: list[int] = []
        self.unknown_count = 0
        self.refused_count = 0
        self.done = False

    async def run(self, index: int) -> None:
        """Count until the end, or the death of the member."""
        counter = Counter(self.cluster, index)
        life = self.cluster.member(index).id
        last = 0
        while not self.done and life in [member.id for member in self.cluster.members]:
            try:
                number = await counter.add(timeout=3.0)
            except IndeterminateError:
                self.unknown_count += 1
            except RejectedError:
                self.refused_count += 1
            except ProcessKilledError:  # Nobody knows.
                self.unknown_count += 1
                return
            else:
                assert number > last, "a counter went back"
                self.answers.append(number)
                last = number
            await self.cluster.sleep(PAUSE)


async def break_things(cluster: TestCluster, rng: Random, callers: Callers) -> list[str]:
    """Do a few things to the cluster, one after another, and undo them; return what."""
    done: list[str] = []
    running: list[asyncio.Future[None]] = []
    for _ in range(5):
        await cluster.sleep(rng.uniform(0.2, 1.0))
        what = rng.choice(("cut", "kill", "leader", "pause"))
        done.append(what)
        if what == "cut":
            indexes = list(range(SIZE))
            rng.shuffle(indexes)
            split = rng.randrange(1, SIZE)
            cluster.partition(indexes[:split], indexes[split:])
            await cluster.sleep(rng.uniform(0.2, 4.0))
            cluster.heal()
        elif what == "pause":
            victim = rng.randrange(SIZE)
            await cluster.pause(victim)
            await cluster.sleep(rng.uniform(0.1, 1.5))
            await cluster.resume(victim)
        else:
            victim = await leader_of(cluster) if what == "leader" else rng.randrange(SIZE)
            await cluster.kill(victim, power_loss=True)
            await cluster.sleep(rng.uniform(0.0, 3.0))
            await cluster.restart(victim, keep_disk=True)
            running.append(asyncio.ensure_future(callers.run(victim)))
    callers.done = True
    await asyncio.gather(*running)
    return done


@pytest.mark.sim
@pytest.mark.parametrize("seed", range(SEEDS))
def test_each_command_counts_once_under_faults(seed: int) -> None:
    """No answer is given twice, none is lost, and what was refused was not applied."""

    async def scenario(cluster: TestCluster) -> None:
        callers = Callers(cluster)
        running = [asyncio.ensure_future(callers.run(index)) for index in range(SIZE)]
        done = await break_things(cluster, Random(seed), callers)
        await asyncio.gather(*running)
        await leader_of(cluster)
        total = await Counter(cluster, 0).get()

        assert len(done) == 5
        assert len(set(callers.answers)) == len(callers.answers) > 100
        assert len(callers.answers) <= total <= len(callers.answers) + callers.unknown_count
        assert 1 == len(await uuids(cluster))

    run_cluster(scenario, consistent=AT_START, size=SIZE, seed=seed, data_dir="kept")
