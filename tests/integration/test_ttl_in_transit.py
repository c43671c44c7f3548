"""Times to live on slow links: a copy never lives longer than what it was copied from."""

from __future__ import annotations

from cache.testing import TestCluster, cluster_test

KEYS = [f"key-{n}" for n in range(50)]
TTL = 60.0
EARLY_MAX = 0.5
"""Seconds by which a copy may end early: what is taken off for the way."""


async def _ends(cluster: TestCluster, index: int) -> tuple[float, float]:
    """Return the earliest and the latest instant at which a member's keys end."""
    users = cluster.member(index).map("users")
    ends = [cluster.now() + (await users.ttl(key) or 0.0) for key in KEYS]
    return min(ends), max(ends)


async def _check_a_copy_made_over(cluster: TestCluster, latency: float) -> None:
    await cluster.kill(1)
    await cluster.wait_for_convergence()
    written_at = cluster.now()
    await cluster.member(0).map("users").set_many(dict.fromkeys(KEYS, 1), ttl=TTL)
    cluster.link(0, 1, latency=latency)
    await cluster.restart(1)
    await cluster.sleep(5.0)
    cluster.mend(0, 1)
    await cluster.wait_for_convergence()
    await cluster.sleep(10.0)

    await cluster.kill(0)
    await cluster.wait_for_convergence()

    earliest, latest = await _ends(cluster, 1)
    assert written_at + TTL - EARLY_MAX <= earliest
    assert latest <= written_at + TTL + 0.05  # Writing took a moment itself.


@cluster_test("simulated", size=2, partition_count=8)
async def test_a_copy_made_over_a_slow_link_ends_in_time(cluster: TestCluster) -> None:
    """The way is taken off."""
    await _check_a_copy_made_over(cluster, 0.2)


@cluster_test("simulated", size=2, partition_count=8)
async def test_a_copy_made_over_a_very_slow_link_is_told_again(cluster: TestCluster) -> None:
    """Equal versions are no reason to leave its times to live as they are."""
    await _check_a_copy_made_over(cluster, 0.9)
