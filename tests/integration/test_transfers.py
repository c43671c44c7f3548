"""Copies that are made again take a few transfers at a time."""

from __future__ import annotations

from collections import Counter
from typing import Any
from unittest.mock import patch

from cache.cluster.replication.repair import Repair
from cache.testing import TestCluster, cluster_test

KEYS = {f"key-{number}": number for number in range(500)}


@cluster_test("simulated", size=3, partition_count=64, migration_parallelism=2)
async def test_copies_after_a_death_are_made_a_few_at_a_time(cluster: TestCluster) -> None:
    """P10: `migration_parallelism` holds for all that one member sends, and is made use of."""
    await cluster.member(0).map("users").set_many(KEYS)
    under_way: Counter[int] = Counter()
    most: Counter[int] = Counter()
    differing = Repair._differing_buckets

    async def counted(repair: Repair, *arguments: Any) -> Any:  # Any: as the method
        under_way[id(repair)] += 1
        most[id(repair)] = max(most[id(repair)], under_way[id(repair)])
        try:
            return await differing(repair, *arguments)
        finally:
            under_way[id(repair)] -= 1

    with patch.object(Repair, "_differing_buckets", counted):
        await cluster.kill(2)
        await cluster.wait_for_convergence(2)

    assert 2 == max(most.values())
