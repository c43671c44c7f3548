"""Copies that are made again take a few transfers at a time."""

from __future__ import annotations

from collections import Counter
from typing import Any
from unittest.mock import patch

from cache.cluster.replication.copying import Copier
from cache.testing import TestCluster, cluster_test

KEYS = {f"key-{number}": number for number in range(500)}


@cluster_test("simulated", size=3, partition_count=64, migration_parallelism=2)
async def test_copies_after_a_death_are_made_a_few_at_a_time(cluster: TestCluster) -> None:
    """P10: `migration_parallelism` holds for all that one member sends, and is made use of."""
    await cluster.member(0).map("users").set_many(KEYS)
    under_way: Counter[int] = Counter()
    most: Counter[int] = Counter()
    send = Copier.send

    async def counted(copier: Copier, *arguments: Any) -> None:  # Any: as the method
        under_way[id(copier)] += 1
        most[id(copier)] = max(most[id(copier)], under_way[id(copier)])
        try:
            await send(copier, *arguments)
        finally:
            under_way[id(copier)] -= 1

    with patch.object(Copier, "send", counted):
        await cluster.kill(2)
        await cluster.wait_for_convergence(2)

    assert 2 == max(most.values())
