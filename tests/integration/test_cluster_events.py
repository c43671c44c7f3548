"""What one member sees happen to the cluster."""

from __future__ import annotations

from typing import Any

import pytest

from cache.cluster import (
    EventsMissed,
    MemberJoined,
    MemberLeft,
    MemberSuspect,
    Node,
    PartitionLost,
    PartitionMoved,
    SplitMerged,
)
from cache.errors import ClosedError, ConfigError
from cache.testing import TestCluster, cluster_test
from tests.integration.inside import node_of, run_on
from tests.integration.listening import Listener, listen


def events(node: Node) -> Any:
    """Everything from now on."""
    return node.events()


def of(kind: type, listener: Listener) -> list[Any]:
    """Those of one kind."""
    return [event for event in listener.items if isinstance(event, kind)]


@cluster_test("simulated", size=2, replica_count=2)
async def test_a_join_and_a_leave_are_seen_once(cluster: TestCluster) -> None:
    """Partitions move to the new member and away from it; nobody is suspected, nothing lost."""
    listener = await listen(cluster, 0, events)
    joined = (await cluster.add_member()).id
    await cluster.wait_for_convergence()
    await cluster.remove_member(2)
    await cluster.wait_for_convergence()

    assert [joined] == [event.member.id for event in of(MemberJoined, listener)]
    assert [joined] == [event.member.id for event in of(MemberLeft, listener)]
    moved = of(PartitionMoved, listener)
    to, away = ([e for e in moved if e.now == joined], [e for e in moved if e.before == joined])
    taken = {partition for event in to for partition in event.partitions}
    assert 30 < len(taken)
    assert taken == {partition for event in away for partition in event.partitions}
    assert [] == [*of(MemberSuspect, listener), *of(PartitionLost, listener)]


@cluster_test("simulated", size=3, replica_count=1)
async def test_a_crash_is_seen_with_what_it_costs(cluster: TestCluster) -> None:
    """With one copy its partitions are lost, and said to be."""
    listener = await listen(cluster, 0, events)
    victim = cluster.member(2).id
    table = node_of(cluster, 0).partition_table()
    owned = {p for p, row in enumerate(table.rows) if row.owner == victim}

    await cluster.kill(2)
    await cluster.wait_for_convergence()

    assert [victim] == [event.member.id for event in of(MemberLeft, listener)]
    lost = [partition for event in of(PartitionLost, listener) for partition in event.partitions]
    assert owned == set(lost)
    assert len(lost) == len(owned), "once each"


@cluster_test("simulated", size=3, replica_count=2)
async def test_a_silent_member_is_suspected_before_it_is_gone(cluster: TestCluster) -> None:
    """And it joins again when it is heard of."""
    listener = await listen(cluster, 0, events)
    victim = cluster.member(2).id
    await cluster.pause(2)
    await listener.until(lambda items: any(isinstance(event, MemberLeft) for event in items))
    await cluster.resume(2)
    await cluster.wait_for_convergence()

    about = [
        event
        for event in listener.items
        if isinstance(event, (MemberSuspect, MemberLeft, MemberJoined))
    ]
    assert [MemberSuspect, MemberLeft, MemberJoined] == [type(event) for event in about]
    assert [victim] * 3 == [event.member.id for event in about]


@cluster_test("simulated", size=5, replica_count=4)
async def test_a_split_that_healed_is_reported(cluster: TestCluster) -> None:
    """By the owners that merged something."""
    listeners = [await listen(cluster, index, events) for index in range(5)]
    cluster.partition([0, 1], [2, 3, 4])

    async def split() -> bool:
        return [2, 2, 3, 3, 3] == [len(node_of(cluster, i).members()) for i in range(5)]

    await cluster.eventually(split, what="the split")
    for number in range(50):
        await cluster.member(0).map("users").set(f"left-{number}", number)
    cluster.heal()
    await cluster.wait_for_convergence()

    reports = [event.report for listener in listeners for event in of(SplitMerged, listener)]
    assert reports
    assert all(report.complete for report in reports)
    assert 50 <= sum(report.compared for report in reports)


@cluster_test("simulated", size=2)
async def test_a_reader_that_is_slow_is_told_what_it_missed(cluster: TestCluster) -> None:
    """The oldest go; memory is bounded. Whoever lets go of a reader leaves nothing behind."""
    node = node_of(cluster, 0)
    with pytest.raises(ConfigError, match="queue_max=0"):
        node.events(queue_max=0)
    reader = node.events(queue_max=1)
    abandoned = node.events()
    await cluster.add_member()
    await cluster.wait_for_convergence()

    first, second = await run_on(cluster, 0, lambda: _two(reader))
    assert isinstance(first, EventsMissed)
    assert first.count is not None
    assert first.count > 0
    assert isinstance(second, PartitionMoved)
    del abandoned
    assert 1 == len(node._messaging.events._living())


async def _two(reader: Any) -> tuple[Any, Any]:
    return await anext(reader), await anext(reader)


@cluster_test("simulated", size=1)
async def test_a_node_that_closes_ends_its_events(cluster: TestCluster) -> None:
    """With an error, after what was queued."""
    node = node_of(cluster, 0)
    reader = node.events()

    async def scenario() -> None:
        await node.abort()
        with pytest.raises(ClosedError):
            await anext(reader)

    await run_on(cluster, 0, scenario)
