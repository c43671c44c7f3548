"""Locks whose holders stand still, die and are cut off, and what tokens are for (reliability 22 to 24)."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from random import Random

import pytest

from cache.cluster import ConsistentConfig, LockToken, Node
from cache.cluster.config import RaftConfig
from cache.errors import CacheError
from cache.testing import MemberHandle, TestCluster
from cache.testing.running import run_cluster
from cache.testing.sim.world import ProcessKilledError
from tests.integration.counting import AT_START, consensus_test
from tests.integration.shared_log import DISK, LOCAL, others

COMPACT = ConsistentConfig.local(
    found_at_start=True, raft=RaftConfig(snapshot_interval=50, snapshot_trailing=10)
)


class Store:
    """What a lock protects: refuses a token that is lower than one it has seen."""

    def __init__(self) -> None:
        self.accepted: list[tuple[int, int]] = []
        self.refused_count = 0
        self.holder: int | None = None
        """The member that was given the lock last, until it writes."""

    def write(self, token: int, member: int) -> None:
        """Write as a member that was given a token."""
        self.holder = None
        if self.accepted and token < self.accepted[-1][0]:
            self.refused_count += 1
        else:
            self.accepted.append((token, member))


async def acquire(member: MemberHandle) -> LockToken:
    """Take the lock on a member; it is not given back."""

    async def take(node: Node) -> LockToken:
        return await node.consistent.lock("x").acquire(wait="1m")

    return await member.run(take)


async def hold_and_write(
    cluster: TestCluster, member: MemberHandle, store: Store, until: float
) -> None:
    """Hold the lock for a while, write, and give it back; over and over."""

    async def work(node: Node) -> None:
        while cluster.now() < until:
            with suppress(CacheError):
                async with node.consistent.lock("x").held(wait="2s") as token:
                    store.holder = member.index
                    await cluster.sleep(0.2)
                    store.write(token, member.index)

    with suppress(ProcessKilledError):
        await member.run(work)


@pytest.mark.sim
@pytest.mark.parametrize("seed", range(2))
def test_a_store_that_checks_tokens_takes_no_lower_one(seed: int) -> None:
    """Reliability 22: a holder that stood still for longer than its session writes late, and is refused."""

    async def scenario(cluster: TestCluster) -> None:
        store, rng = Store(), Random(seed)
        await cluster.wait_for_consensus()
        until = cluster.now() + 30.0
        working = [
            asyncio.ensure_future(hold_and_write(cluster, member, store, until))
            for member in cluster.members
        ]
        for number in range(3):
            await cluster.sleep(1.0 + rng.random())
            victim = await holder_of(cluster, store)
            if number % 2:
                cluster.isolate(victim)
                await cluster.sleep(2.0)
                cluster.heal()
                continue
            await cluster.pause(victim)
            await cluster.sleep(LOCAL.session_ttl + 3.0)
            await cluster.resume(victim)
        await asyncio.gather(*working)

        tokens = [token for token, _ in store.accepted]
        assert tokens == sorted(set(tokens))
        assert len(tokens) > 30
        assert store.refused_count > 0, "nobody wrote late: the token stood in nobody's way"

    run_cluster(scenario, size=3, seed=seed, consistent=AT_START)


async def holder_of(cluster: TestCluster, store: Store) -> int:
    """Wait until a member holds the lock, and has not written yet; return it."""

    async def held() -> bool:
        return store.holder is not None

    await cluster.eventually(held, what="a holder")
    assert store.holder is not None
    return store.holder


@consensus_test("simulated", size=3, data_dir=DISK, consistent=COMPACT)
async def test_tokens_rise_for_ever(cluster: TestCluster) -> None:
    """Reliability 23: through dead leaders, restarts of all, and states that came from snapshots."""
    tokens: list[int] = []

    async def use(member: MemberHandle, count: int) -> None:
        async def work(node: Node) -> None:
            for _ in range(count):
                async with node.consistent.lock("x").held(wait="30s") as token:
                    tokens.append(int(token))

        await member.run(work)

    for number in range(4):
        leader = await cluster.wait_for_consensus()
        await use(cluster.member(leader), 25)
        victims = [leader] if number % 2 else others(cluster)
        for index in victims:
            await cluster.kill(index, power_loss=True)
        if number % 2:
            await use(cluster.members[0], 25)
        for index in victims:
            await cluster.restart(index, keep_disk=True)
    leader = await cluster.wait_for_consensus()
    await use(cluster.member(leader), 1)

    assert tokens == sorted(set(tokens))
    assert 4 * 25 + 2 * 25 + 1 == len(tokens)
    assert (await cluster.member(leader).raft()).snapshot_index > 0


@consensus_test("simulated", size=4)
async def test_the_next_live_waiter_gets_the_lock_of_a_dead_holder(cluster: TestCluster) -> None:
    """Reliability 24: the holder leads, and dies; so does the first waiter; the second one is next."""
    leader = await cluster.wait_for_consensus()
    voters = await cluster.wait_for_voters(3)
    first = await acquire(cluster.member(leader))
    [outside] = [m.index for m in cluster.members if m.name not in voters]
    second = others(cluster, leader, outside)[0]
    waiting: list[asyncio.Future[LockToken]] = []
    for index in (outside, second):
        waiting.append(asyncio.ensure_future(acquire(cluster.member(index))))
        await cluster.sleep(0.5)
    killed_at = cluster.now()
    await cluster.kill(outside)
    await cluster.kill(leader)

    assert await waiting[1] > first
    election = 2 * LOCAL.raft.election_timeout_max
    assert cluster.now() - killed_at <= LOCAL.session_ttl + election + 2.0
    with pytest.raises(ProcessKilledError):
        await waiting[0]
