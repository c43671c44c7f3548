"""What a node knows of a group, and who waits for news of it."""

from __future__ import annotations

import asyncio
from random import Random

from cache.clock import SystemClock
from cache.cluster.config.consistent import ConsistentConfig
from cache.cluster.consistent.machine import ConsistentMachine
from cache.cluster.raft.hosted import Hosted, Surroundings
from cache.cluster.raft.messages import GroupId, ReplicaId
from cache.cluster.raft.status import bootstrap
from cache.cluster.scope import Scope

OLD, NEW = ReplicaId("a/1"), ReplicaId("b/1")


def hosted() -> Hosted:
    around = Surroundings(
        member_name="m",
        config=ConsistentConfig.local(),
        clock=SystemClock(),
        rng=Random(1),
        scope=Scope("test"),
        make_machine=ConsistentMachine,
        send=lambda uuid, to, message: None,
        wake=lambda name: None,
    )
    return Hosted(GroupId("main"), around)


async def test_news_of_a_later_leader_ends_the_waiting() -> None:
    """For all that wait, in the next turn of the loop."""
    group = hosted()
    group.hear(OLD, 1)
    waiting = [asyncio.ensure_future(group.await_leader(60.0)) for _ in range(3)]
    await asyncio.sleep(0)

    group.hear(NEW, 2)

    await asyncio.gather(*waiting)
    assert NEW == group.leader


async def test_a_leader_that_was_doubted_and_is_heard_of_again_is_no_news() -> None:
    """Callers that find it dead would wake each other, again and again, until another one is elected."""
    group = hosted()
    group.hear(OLD, 1)
    group.leader = None
    waiting = asyncio.ensure_future(group.await_leader(0.0))
    await asyncio.sleep(0)
    (heard,) = group._awaiting_leader

    group.hear(OLD, 1)

    assert not heard.done()
    await waiting
    assert {} == group._awaiting_leader


async def test_the_own_replica_is_believed_when_it_knows_a_later_leader() -> None:
    """It was elected, and did not say so yet; what was heard of a still later term stays."""
    group = hosted()
    group.begin(bootstrap((group.me,)), None)
    await group.await_leader(10.0)
    assert group.me == group.leader

    group.leader, group.leader_term = OLD, 0
    group.hear_replica()
    assert group.me == group.leader
    group.leader, group.leader_term = NEW, 99
    group.hear_replica()
    assert NEW == group.leader

    group.close()
    await group._around.scope.close()
