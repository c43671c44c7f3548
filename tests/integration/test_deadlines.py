"""No call outlasts its deadline, whoever does not answer it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import pytest

from cache.errors import CacheError
from cache.testing import TestCluster, cluster_test
from tests.integration.inside import node_of, run_on

TIMEOUT = 1.5
"""Seconds for an operation: less than it takes to call a silent member dead."""


@cluster_test("simulated", size=3, replica_count=2, operation_timeout=TIMEOUT)
async def test_a_call_through_a_member_that_nobody_answers_ends_in_time(
    cluster: TestCluster,
) -> None:
    """Reads try the owner, then the other copies; all attempts share one deadline (invariant 7).

    Member 0 makes the tables; member 1 asks it about them on the way.
    """
    await cluster.member(0).map("users").set_many({number: number for number in range(30)})
    seconds = []
    for index in (0, 1):
        users = cluster.member(index).map("users")
        cluster.isolate(index)
        calls: list[Callable[[], Awaitable[object]]] = [partial(users.get, n) for n in range(12)]
        calls += [partial(users.set, 3, 1), partial(users.delete, 4), users.size]
        calls += [partial(users.get_many, range(12)), partial(users.delete_many, range(12))]
        for call in calls:
            started_at = cluster.now()
            try:
                await call()
            except CacheError:
                seconds.append(cluster.now() - started_at)
            if len(await cluster.member(index).members()) < 3:
                break  # It knows that it is alone: what follows is served here.
        cluster.heal()
        await cluster.wait_for_convergence()

    assert seconds
    assert max(seconds) <= TIMEOUT + 0.01


@cluster_test("simulated", size=3, replica_count=2, operation_timeout=TIMEOUT)
async def test_a_call_of_a_lock_whose_owner_is_silent_ends_in_time(cluster: TestCluster) -> None:
    """An attempt that begins late has only what is left of the call's time."""
    locks = node_of(cluster, 1).map("locks")
    keys = [key for key in range(30) if locks.owner_of(key) != cluster.member(1).id]
    cluster.isolate(1)
    seconds = []
    for key in keys[:8]:
        started_at = cluster.now()
        with pytest.raises(CacheError):
            await run_on(cluster, 1, locks.lock(key, wait=0.0).acquire)
        seconds.append(cluster.now() - started_at)
        if len(await cluster.member(1).members()) < 3:
            break  # It knows that it is alone: what follows is served here.
    cluster.heal()

    assert seconds
    assert max(seconds) <= TIMEOUT + 0.01
