"""Consistent structures through whole nodes: holders that die, are cut off or leave; histories."""

from __future__ import annotations

import asyncio
from typing import Any

from cache.cluster.consistent.consistent import Consistent
from cache.cluster.structures.lock import LockToken
from cache.errors import CacheError, RejectedError
from cache.testing import TestCluster
from cache.testing.history import Operation, Outcome, Recorder
from cache.testing.linearizability import check
from cache.testing.models import Counter, Register
from tests.integration.counting import consensus_test, leader_of
from tests.integration.inside import node_of, run_on


def consistent(cluster: TestCluster, index: int) -> Consistent:
    """Return the structures of a member."""
    return node_of(cluster, index).consistent


async def acquire(cluster: TestCluster, index: int, wait: str = "1m") -> LockToken:
    """Take the lock `x` on a member."""
    token: LockToken = await run_on(
        cluster, index, lambda: consistent(cluster, index).lock("x").acquire(wait=wait)
    )
    return token


@consensus_test("simulated", size=3)
async def test_the_lock_of_a_member_that_dies_goes_to_the_next(cluster: TestCluster) -> None:
    """When its session has ended; tokens rise."""
    holder = await leader_of(cluster)
    first = await acquire(cluster, holder)
    begun = cluster.now()
    await cluster.kill(holder)

    second = await acquire(cluster, (holder + 1) % 3)

    assert second > first
    assert 4.0 <= cluster.now() - begun <= 8.0  # session_ttl of a local cluster: 5 s


@consensus_test("simulated", size=3)
async def test_a_holder_that_is_cut_off_knows_before_the_next_one_holds(
    cluster: TestCluster,
) -> None:
    """By its own clock."""
    holder = (await leader_of(cluster) + 1) % 3
    token = await acquire(cluster, holder)
    times: dict[str, float] = {}

    async def watch() -> None:
        async def lost() -> None:
            await token.lost.wait()

        await run_on(cluster, holder, lost)
        times["lost"] = cluster.now()

    async def follow() -> None:
        await acquire(cluster, (holder + 1) % 3)
        times["held"] = cluster.now()

    cluster.isolate(holder)
    await asyncio.gather(watch(), follow())

    assert times["lost"] <= times["held"]


@consensus_test("simulated", size=3)
async def test_a_member_that_leaves_gives_back_what_it_holds(cluster: TestCluster) -> None:
    """At once: it closes its session, and says so to whoever holds something by it."""
    holder = await leader_of(cluster)
    first = await acquire(cluster, holder)
    await cluster.remove_member(holder)
    begun = cluster.now()
    assert first.lost.is_set()

    assert await acquire(cluster, (holder + 1) % 3) > first
    assert cluster.now() - begun < 2.0


@consensus_test("simulated", size=3)
async def test_members_elect_a_leader_and_all_see_it(cluster: TestCluster) -> None:
    """Also the one whose own leader of the group died."""
    await leader_of(cluster)
    token = await run_on(
        cluster, 0, lambda: consistent(cluster, 0).election("e").campaign({"member": 0})
    )
    elections = [consistent(cluster, index).election("e") for index in range(3)]
    seen = [await run_on(cluster, index, one.leader) for index, one in enumerate(elections)]
    assert [(int(token), {"member": 0})] * 3 == [(one.token, one.value) for one in seen]


async def turns(cluster: TestCluster, index: int, recorder: Recorder, count: int) -> None:
    """Write and read on one member, and note what it was told."""

    async def note(name: str, key: str, argument: Any, call: Any) -> None:  # Any: what they are
        operation = recorder.begin(name, key, argument)
        try:
            result = await run_on(cluster, index, call)
        except RejectedError:
            recorder.end(operation, Outcome.FAIL)
        except CacheError:
            pass
        else:
            recorder.end(operation, Outcome.OK, result)

    for number in range(count):
        await cluster.sleep(0.03)
        grid, value = consistent(cluster, index), f"{index}.{number}"
        match number % 4:
            case 0:
                await note("write", "r", value, lambda: grid.register("r").set(value))  # noqa: B023
            case 1:
                await note("read", "r", None, lambda: grid.register("r").get())  # noqa: B023
            case 2:
                await note("add", "n", 1, lambda: grid.counter("n").add())  # noqa: B023
            case _:
                await note("get", "n", None, lambda: grid.counter("n").get(lease=True))  # noqa: B023


@consensus_test("simulated", size=5)
async def test_histories_through_nodes_are_linearizable(cluster: TestCluster) -> None:
    """While leaders are cut off and killed."""
    await leader_of(cluster)
    recorders = [Recorder(index, clock=cluster.now) for index in range(3)]
    working = [
        asyncio.ensure_future(turns(cluster, index, recorders[index], 200)) for index in range(3)
    ]
    for _ in range(2):
        await cluster.sleep(0.3)
        leader = await leader_of(cluster)
        cluster.isolate(leader)
        await cluster.sleep(2.0)
        cluster.heal()
        assert not any(task.done() for task in working), "the fault came too late"
    victim = next(index for index in (4, 3) if index in {m.index for m in cluster.members})
    await cluster.kill(victim)
    await asyncio.gather(*working)

    operations: list[Operation] = [o for recorder in recorders for o in recorder.operations]
    told = [operation for operation in operations if operation.outcome is Outcome.OK]
    assert len(told) > 300
    assert max(o.ended_at - o.started_at for o in told) > 0.3, "no operation met a fault"
    check([o for o in operations if o.key == "r"], Register()).require()
    check([o for o in operations if o.key == "n"], Counter()).require()
