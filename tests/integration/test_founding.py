"""Members that are torn apart while they found a group never make two of one name."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from cache.testing import TestCluster
from cache.testing.running import run_cluster
from tests.integration.counting import AT_START, Counter, infos, leader_of, uuids
from tests.integration.inside import node_of

LATENCY = 0.02
"""Seconds of one way: a founding takes eight of them."""

BLOCKS = 8
SEEDS_PER_BLOCK = 5


def foundings(cluster: TestCluster) -> int:
    """Return how many groups members have begun to found."""
    counters = (node_of(cluster, m.index)._metrics.snapshot() for m in cluster.members)
    return int(sum(readings["raft.foundings"] for readings in counters))


async def born(cluster: TestCluster) -> list[str]:
    """Return the groups of which a member knows that something was committed, each once."""
    found = (await infos(cluster)).values()
    return list(dict.fromkeys(info["uuid"] for info in found if info["commit"]))


def cut_in_two(cluster: TestCluster, rng: Random) -> None:
    """Cut the members into two at random, those included that are just starting."""
    world: Any = cluster._world  # Any: the simulated world
    indexes = sorted(world._hosts)
    rng.shuffle(indexes)
    split = rng.randrange(1, len(indexes))
    left, right = indexes[:split], indexes[split:]
    cluster.set_cuts([*itertools.product(left, right), *itertools.product(right, left)])


async def tear(cluster: TestCluster, rng: Random) -> int:
    """Cut and mend over and over; return how often that was in the middle of a founding."""
    hit_count = 0
    for _ in range(rng.randrange(3, 6)):
        seen, until = foundings(cluster), cluster.now() + rng.random()
        while foundings(cluster) == seen and cluster.now() < until:
            await cluster.sleep(0.01)
        await cluster.sleep(4 * LATENCY * rng.random())
        cut_in_two(cluster, rng)
        hit_count += foundings(cluster) > 0 and not await born(cluster)
        await cluster.sleep(rng.choice((0.05, 3.0, 6.0)) * rng.random())
        cluster.set_cuts([])
        assert len(await born(cluster)) <= 1
    return hit_count


async def found_under_cuts(cluster: TestCluster, rng: Random) -> int:
    """Let the third and the fourth of four members begin while cuts come and go; return how many hit."""
    world: Any = cluster._world  # Any: the simulated world
    network = world.world.network
    network.default = replace(network.default, latency=LATENCY)
    joining = [asyncio.ensure_future(cluster.add_member()) for _ in range(2)]
    hit_count = await tear(cluster, rng)
    await asyncio.gather(*joining)
    if rng.random() < 0.5:
        victim = rng.randrange(4)
        await cluster.kill(victim)
        await cluster.sleep(rng.random())
        await cluster.restart(victim)
    await leader_of(cluster)
    assert 1 == len(await born(cluster))
    assert await uuids(cluster) == await born(cluster)
    assert 1 == await Counter(cluster, 0).add()
    return hit_count


@pytest.mark.sim
@pytest.mark.parametrize("block", range(BLOCKS))
def test_cuts_during_the_founding_never_make_two_groups(block: int) -> None:
    """Four members of which three are expected: one fewer than two groups would need."""
    hits = []

    for seed in range(block * SEEDS_PER_BLOCK, (block + 1) * SEEDS_PER_BLOCK):

        async def scenario(cluster: TestCluster, seed: int = seed) -> None:
            hits.append(await found_under_cuts(cluster, Random(seed)))

        run_cluster(scenario, consistent=AT_START, size=2, seed=seed)

    assert sum(hits) > 0, "no cut came in the middle of a founding"
