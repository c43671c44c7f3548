"""Locks in a cluster: one holder while the members reach each other, in turn, with numbers that only rise."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest

from cache.cluster import DistributedLock, LimitsConfig, LockToken
from cache.cluster.replication.entries import Entry
from cache.cluster.replication.transit import TRANSIT_MAX
from cache.cluster.structures.locks import LOCKS
from cache.cluster.wire.messages import LOCK_LOST, AcquireLock, LockTurn
from cache.codec import encode_key
from cache.errors import (
    CacheError,
    ConfigError,
    LockLostError,
    LockTimeoutError,
    OverloadedError,
    RejectedError,
)
from cache.testing import TestCluster, cluster_test
from cache.testing.worlds.simulated import SimulatedWorld
from tests.integration.inside import node_of, run_on

KEY = "job"


class Caller:
    """A handle on a member, whose calls run on that member."""

    def __init__(self, cluster: TestCluster, index: int, key: str = KEY, **options: Any) -> None:
        self.cluster = cluster
        self.index = index
        self.is_simulated = isinstance(cluster._world, SimulatedWorld)
        node = node_of(cluster, index) if self.is_simulated else cluster.member(index).node
        self.lock: DistributedLock = node.map("jobs").lock(key, **options)
        self.token = LockToken(0)
        self.got_at = 0.0

    async def _run(self, call: Callable[[], Any]) -> Any:  # Any: what the call gives
        return await (run_on(self.cluster, self.index, call) if self.is_simulated else call())

    async def acquire(self) -> LockToken:
        self.token = await self._run(self.lock.acquire)
        self.got_at = self.cluster.now()
        return self.token

    def begin(self) -> asyncio.Future[LockToken]:
        """Acquire in the background, from this instant on."""
        return asyncio.ensure_future(self.acquire())

    async def release(self) -> bool:
        return bool(await self._run(self.lock.release))

    async def renew(self) -> None:
        await self._run(self.lock.renew)

    async def locked(self) -> bool:
        return bool(await self._run(self.lock.locked))


async def _placed(cluster: TestCluster) -> tuple[int, int, list[int]]:
    """Return (partition, its owner, the other members) of the key."""
    partition = node_of(cluster, 0).map("jobs").partition_of(KEY)
    owner = await cluster.owner_of(partition)
    return partition, owner, [m.index for m in cluster.members if m.index != owner]


async def _waiting(cluster: TestCluster, index: int, count: int) -> None:
    """Wait until so many wait for locks on a member."""

    async def probe() -> bool:
        return int((await cluster.member(index).inspect("stats"))["locks.waiting"]) == count

    await cluster.eventually(probe, what=f"{count} callers waiting")


# -- holding -------------------------------------------------------------------------------------


@cluster_test("sockets", "simulated", size=3, partition_count=8)
async def test_one_holds_it_and_numbers_rise(cluster: TestCluster) -> None:
    """Through whichever member; who does not want to wait is told at once."""
    callers = [Caller(cluster, n % 3, wait=0) for n in range(9)]
    tokens = []
    for number, caller in enumerate(callers):
        tokens.append(await caller.acquire())
        assert await caller.locked()
        with pytest.raises(LockTimeoutError, match="held by another"):
            await Caller(cluster, (number + 1) % 3, wait=0).acquire()
        assert await caller.release()
        assert not await caller.locked()

    assert tokens == sorted(set(tokens))


@cluster_test("simulated", size=3, partition_count=8)
async def test_a_lock_is_no_entry_of_the_map(cluster: TestCluster) -> None:
    """Neither counted nor listed nor cleared; the key may be written meanwhile."""
    jobs = node_of(cluster, 0).map("jobs")
    caller = Caller(cluster, 0)
    await caller.acquire()
    await cluster.member(1).map("jobs").set(KEY, 1)
    assert 1 == await cluster.member(2).map("jobs").size()

    assert 1 == await cluster.member(1).map("jobs").clear()

    async def keys() -> list[Any]:
        return [key async for key in jobs.scan()]

    assert [] == await run_on(cluster, 0, keys)
    held = [node_of(cluster, n).map("jobs").stats().entries for n in range(3)]
    assert [0, 0, 0] == held
    assert await caller.locked()
    assert await caller.release()


@cluster_test("simulated", size=3, partition_count=8)
async def test_a_body_longer_than_the_lease_keeps_the_lock(cluster: TestCluster) -> None:
    """It is renewed in the background."""
    lock = node_of(cluster, 0).map("jobs").lock(KEY, lease=1.0)
    go_on, entered = asyncio.Event(), asyncio.Event()

    async def body() -> bool:
        async with lock as token:
            entered.set()
            await go_on.wait()
            return token.lost.is_set()

    working = asyncio.ensure_future(run_on(cluster, 0, body))
    await entered.wait()
    await cluster.sleep(30)
    with pytest.raises(LockTimeoutError):
        await Caller(cluster, 1, wait=0).acquire()
    go_on.set()

    assert not await working
    await Caller(cluster, 1, wait=0).acquire()


@cluster_test("simulated", size=3, partition_count=8)
async def test_a_body_that_outlives_its_lease_is_told(cluster: TestCluster) -> None:
    """By the token at once, and by an error at the end; its own error goes first."""
    go_on, entered = asyncio.Event(), asyncio.Event()
    lock = node_of(cluster, 0).map("jobs").lock(KEY, lease=1.0, renew=False)
    tokens: list[LockToken] = []

    async def body(error: Exception | None = None) -> None:
        async with lock as token:
            tokens.append(token)
            entered.set()
            await go_on.wait()
            if error is not None:
                raise error

    working = asyncio.ensure_future(run_on(cluster, 0, body))
    await entered.wait()
    assert not tokens[0].lost.is_set()
    await cluster.sleep(1.1)
    assert tokens[0].lost.is_set()
    go_on.set()
    with pytest.raises(LockLostError, match="another may have held"):
        await working

    with pytest.raises(ZeroDivisionError):
        await run_on(cluster, 0, lambda: body(ZeroDivisionError()))
    assert await Caller(cluster, 1, wait=0).acquire() > tokens[1] > tokens[0]


@cluster_test("simulated", size=3, partition_count=8)
async def test_a_late_release_takes_nobody_elses_lock(cluster: TestCluster) -> None:
    """Nor does a late renewal."""
    late = Caller(cluster, 0, lease=1.0)
    await late.acquire()
    await cluster.sleep(1.5)
    now = Caller(cluster, 1)
    await now.acquire()

    with pytest.raises(LockLostError):
        await late.renew()
    assert not await late.release()

    assert await now.locked()
    assert await now.release()


@cluster_test("simulated", size=3, partition_count=8)
async def test_one_handle_holds_it_once(cluster: TestCluster) -> None:
    """Not reentrant: another handle of the same task waits as any other."""
    caller = Caller(cluster, 0)
    await caller.acquire()
    with pytest.raises(RejectedError, match="not reentrant"):
        await caller.acquire()
    with pytest.raises(LockTimeoutError):
        await Caller(cluster, 0, wait=1.0).acquire()
    assert await caller.release()
    assert not await caller.release()


@cluster_test("simulated", size=1)
async def test_options_are_checked(cluster: TestCluster) -> None:
    """Before anything is sent."""
    jobs = node_of(cluster, 0).map("jobs")
    for lease in (0, 0.05, 1e6, float("nan")):
        with pytest.raises(ConfigError, match="lease="):
            jobs.lock(KEY, lease=lease)
    for wait in (-1, float("inf"), float("nan")):
        with pytest.raises(ConfigError, match="wait="):
            jobs.lock(KEY, wait=wait)
    with pytest.raises(ConfigError, match="NUL"):
        node_of(cluster, 0).map(LOCKS + "jobs")


# -- waiting -------------------------------------------------------------------------------------


@cluster_test("simulated", size=3, partition_count=8)
async def test_who_waits_longest_is_next(cluster: TestCluster) -> None:
    """Through three members; each gets it as soon as the one before gives it back."""
    _, owner, _ = await _placed(cluster)
    first = Caller(cluster, 0, lease=60)
    await first.acquire()
    callers = [Caller(cluster, n % 3, lease=60, wait=60) for n in range(12)]
    waiting = []
    for number, caller in enumerate(callers):
        waiting.append(caller.begin())
        await _waiting(cluster, owner, number + 1)
    await cluster.sleep(10)  # They have asked again several times.

    holder = first
    for caller, wait in zip(callers, waiting, strict=True):
        released_at = cluster.now()
        assert await holder.release()
        token = await wait
        assert token > holder.token
        assert caller.got_at - released_at < 0.1
        holder = caller


@cluster_test("simulated", size=4, replica_count=3, partition_count=8)
async def test_the_order_of_waiting_survives_the_owner(cluster: TestCluster) -> None:
    """They ask the new owner, and stand there in the order of before; the holder holds on."""
    _, owner, others = await _placed(cluster)
    first = Caller(cluster, others[0], lease=60)
    await first.acquire()
    callers = [Caller(cluster, others[n % 3], lease=60, wait=60) for n in range(9)]
    waiting = []
    for number, caller in enumerate(callers):
        waiting.append(caller.begin())
        await _waiting(cluster, owner, number + 1)
    await cluster.kill(owner)
    await cluster.wait_for_convergence()
    _, promoted, _ = await _placed_among(cluster)
    await _waiting(cluster, promoted, len(callers))
    assert not any(wait.done() for wait in waiting)

    holder = first
    for caller, wait in zip(callers, waiting, strict=True):
        assert await holder.release()
        assert await wait > holder.token
        holder = caller


async def _placed_among(cluster: TestCluster) -> tuple[int, int, list[int]]:
    """As `_placed`, when the first member may be gone."""
    index = cluster.members[0].index
    partition = node_of(cluster, index).map("jobs").partition_of(KEY)
    owner = await cluster.owner_of(partition)
    return partition, owner, [m.index for m in cluster.members if m.index != owner]


@cluster_test("simulated", size=3, partition_count=8, limits=LimitsConfig(lock_waiters_max=3))
async def test_the_queue_is_bounded(cluster: TestCluster) -> None:
    """One more is refused at once; a place that is given up is free again."""
    _, owner, _ = await _placed(cluster)
    holder = Caller(cluster, 0, lease=60)
    await holder.acquire()
    waiting = [Caller(cluster, n, wait=60).begin() for n in range(3)]
    await _waiting(cluster, owner, 3)

    with pytest.raises(OverloadedError, match="lock_waiters_max"):
        await Caller(cluster, 0, wait=60).acquire()

    with pytest.raises(LockTimeoutError):
        await Caller(cluster, 0, wait=0).acquire()
    await holder.release()
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    await _waiting(cluster, owner, 2)


@cluster_test("simulated", size=3, partition_count=8)
async def test_a_cancelled_waiter_holds_nobody_up(cluster: TestCluster) -> None:
    """Its place is given up, not granted."""
    _, owner, others = await _placed(cluster)
    holder = Caller(cluster, owner)
    await holder.acquire()
    lock = Caller(cluster, others[0], wait=60).lock
    inside: list[asyncio.Task[Any]] = []

    async def wait() -> None:
        inside.append(asyncio.get_running_loop().create_task(lock.acquire()))
        await asyncio.gather(*inside, return_exceptions=True)

    gone = asyncio.ensure_future(run_on(cluster, others[0], wait))
    await _waiting(cluster, owner, 1)
    second = Caller(cluster, others[1], wait=60)
    waiting = second.begin()
    await _waiting(cluster, owner, 2)

    await run_on(cluster, others[0], inside[0].cancel)
    await gone
    await _waiting(cluster, owner, 1)
    released_at = cluster.now()
    await holder.release()
    await waiting

    assert second.got_at - released_at < 0.1


# -- deaths --------------------------------------------------------------------------------------


@cluster_test("simulated", size=3, partition_count=8)
async def test_a_dead_holders_lock_is_free_at_the_end_of_its_lease(cluster: TestCluster) -> None:
    """And a little for what clocks and copies differ by. To be believed dead is no proof."""
    _, owner, (one, two) = await _placed(cluster)
    dead = Caller(cluster, one, lease=20)
    token = await dead.acquire()
    heir = Caller(cluster, two, wait=60)
    waiting = heir.begin()
    await _waiting(cluster, owner, 1)

    await cluster.kill(one)

    assert await waiting > token
    assert 20 + TRANSIT_MAX <= heir.got_at - dead.got_at < 21


@cluster_test("simulated", size=3, partition_count=8)
async def test_the_lock_outlives_its_owner(cluster: TestCluster) -> None:
    """The promoted copy knows who holds it; its holder may renew it and give it back."""
    _, owner, (one, two) = await _placed(cluster)
    holder, other = Caller(cluster, one, lease=30), Caller(cluster, two, wait=60)
    await holder.acquire()
    waiting = other.begin()
    await _waiting(cluster, owner, 1)

    await cluster.kill(owner)
    await cluster.wait_for_convergence()
    await holder.renew()
    await cluster.sleep(25)
    assert not waiting.done()
    assert await holder.locked()

    assert await holder.release()
    assert await waiting > holder.token


@cluster_test("simulated", size=3, partition_count=8)
async def test_a_grant_whose_answer_is_lost_is_given_again(cluster: TestCluster) -> None:
    """The owner gives the lock, cannot say so, and dies: the caller, and no other, holds it."""
    partition, owner, (one, two) = await _placed(cluster)
    caller = Caller(cluster, one, lease=60, wait=30)
    cluster.cut(owner, one)
    acquiring = caller.begin()

    async def given() -> bool:
        entries = node_of(cluster, owner)._replication.copies[partition].entries(LOCKS + "jobs")
        return len(entries) == 1

    await cluster.eventually(given, what="the lock given")
    await cluster.kill(owner)
    token = await acquiring

    assert token > 0
    with pytest.raises(LockTimeoutError):
        await Caller(cluster, two, wait=0).acquire()
    await caller.renew()
    assert await caller.release()
    assert await Caller(cluster, two, wait=0).acquire() > token


@cluster_test("simulated", size=3, partition_count=8)
async def test_a_request_that_comes_after_the_release_gets_nothing(cluster: TestCluster) -> None:
    """It was long on the way: nobody would give that lock back."""
    partition, owner, _ = await _placed(cluster)
    caller = Caller(cluster, 0)
    await caller.acquire()
    hold = caller.lock._hold
    assert hold is not None
    request = AcquireLock("jobs", partition, encode_key(KEY), hold.attempt, 10.0, 5.0, 0.0)
    await caller.release()

    structures = node_of(cluster, owner)._structures
    answer = await run_on(cluster, owner, lambda: structures.dispatch(request))

    assert LockTurn(LOCK_LOST, 0, 0.0) == answer
    assert not await caller.locked()


@cluster_test("simulated", size=3, partition_count=8)
async def test_a_holder_that_stood_still_is_told(cluster: TestCluster) -> None:
    """Meanwhile another holds the lock; what the first one does now changes nothing."""
    _, _, (one, two) = await _placed(cluster)
    asleep = Caller(cluster, one, lease=2)
    await asleep.acquire()
    await cluster.pause(one)
    heir = Caller(cluster, two, lease=60, wait=30)
    token = await heir.acquire()
    await cluster.resume(one)
    await cluster.wait_for_convergence()

    assert token > asleep.token
    assert asleep.token.lost.is_set()
    assert not await asleep.release()
    assert await heir.locked()


@cluster_test("simulated", size=3, partition_count=8)
async def test_a_lock_moves_with_its_partition(cluster: TestCluster) -> None:
    """Members come and leave; whoever holds it, holds it."""
    _, owner, others = await _placed(cluster)
    holder = Caller(cluster, others[0], lease=600)
    await holder.acquire()
    for _ in range(3):
        await cluster.add_member()
    await cluster.remove_member(owner)
    await cluster.wait_for_convergence()

    with pytest.raises(LockTimeoutError):
        await Caller(cluster, others[1], wait=0).acquire()
    assert await holder.release()
    assert await Caller(cluster, others[1], wait=0).acquire() > holder.token


@cluster_test("simulated", size=2, partition_count=8)
async def test_each_side_of_a_split_gives_it_once_and_the_later_stays(cluster: TestCluster) -> None:
    """An AP lock: only the token protects. After the heal the loser is told, and numbers rise on."""
    cluster.partition([0], [1])
    await cluster.sleep(10)
    one, two = Caller(cluster, 0, lease=600), Caller(cluster, 1, lease=600)
    await one.acquire()
    await cluster.sleep(1)
    await two.acquire()
    assert one.token != two.token

    cluster.heal()
    await cluster.wait_for_convergence()

    await two.renew()
    with pytest.raises(LockLostError):
        await one.renew()
    assert one.token.lost.is_set()
    with pytest.raises(LockTimeoutError):
        await Caller(cluster, 0, wait=0).acquire()
    assert await two.release()
    assert await Caller(cluster, 0, wait=0).acquire() > max(one.token, two.token)


@cluster_test("simulated", size=2, partition_count=8)
async def test_a_later_lock_on_a_copy_stands(cluster: TestCluster) -> None:
    """The owner has not heard of it, as just after a split: it gives nothing, and nothing is lost."""
    partition, owner, (other,) = await _placed(cluster)
    name, key = LOCKS + "jobs", encode_key(KEY)
    copies = [node_of(cluster, n)._replication.copy_of(partition) for n in (owner, other)]
    wall = node_of(cluster, other)._environment.clock.wall()
    later = int(wall * 1000 + 60_000) << 16
    copies[1].apply(name, key, Entry(b"another attempt", later, 7, math.inf))

    with pytest.raises(LockTimeoutError):
        await Caller(cluster, owner, wait=0).acquire()

    held = [copy.entry(name, key) for copy in copies]
    assert [Entry(b"another attempt", later, 7, math.inf)] * 2 == held


@cluster_test("simulated", size=2, partition_count=8)
async def test_a_later_release_on_a_copy_makes_the_number_later(cluster: TestCluster) -> None:
    """The owner has not heard of the lock that was given back on another side; its own is later."""
    partition, owner, (other,) = await _placed(cluster)
    name, key = LOCKS + "jobs", encode_key(KEY)
    copy = node_of(cluster, other)._replication.copy_of(partition)
    wall = node_of(cluster, other)._environment.clock.wall()
    later = int(wall * 1000 + 60_000) << 16
    copy.apply(name, key, Entry(None, later, 7, math.inf))

    assert await Caller(cluster, owner, wait=0).acquire() > later


@cluster_test("simulated", size=3, partition_count=8)
async def test_a_holders_lease_ends_before_the_owners(cluster: TestCluster) -> None:
    """However long the answer took."""
    partition, owner, others = await _placed(cluster)
    replicas = node_of(cluster, 0).partition_table().rows[partition].replicas
    one = next(n for n in others if cluster.member(n).id not in replicas)
    caller = Caller(cluster, one, lease=2.0)
    cluster.link(owner, one, latency=0.8)
    await caller.acquire()
    await cluster.sleep(1.3)  # 2.1 seconds after it was given.

    assert caller.token.lost.is_set()
    assert not await caller.release()


@cluster_test("simulated", size=3, partition_count=8)
async def test_numbers_rise_over_owners_whose_clocks_are_behind(cluster: TestCluster) -> None:
    """A promoted owner's clock has seen the stamps of its predecessor; the wall clock does not matter."""
    _, owner, others = await _placed(cluster)
    cluster.clock(owner, jump=300.0)
    ahead = Caller(cluster, others[0], lease=600)
    await ahead.acquire()
    await ahead.release()
    assert (
        int(ahead.token) >> 16
        > (node_of(cluster, others[0])._environment.clock.wall() + 200) * 1000
    )

    await cluster.kill(owner)
    await cluster.wait_for_convergence()

    assert await Caller(cluster, others[1], wait=10).acquire() > ahead.token


@cluster_test("simulated", size=4, partition_count=8, replica_count=3)
async def test_200_acquisitions_through_dying_owners_exclude_each_other(
    cluster: TestCluster,
) -> None:
    """No two hold it at once, and in the order of holding the numbers rise."""
    held: list[tuple[float, float, int]] = []
    killed: list[bool] = []
    jobs = node_of(cluster, 0).map("jobs")
    ids = [member.id for member in cluster.members]
    key = next(k for k in map(str, range(99)) if jobs.owner_of(k) in ids[2:])

    async def work(index: int) -> None:
        while len(held) < 200:
            caller = Caller(cluster, index, key, lease=3.0, wait=20)
            try:
                token = await caller.acquire()
            except CacheError:
                continue
            begun_at = cluster.now()
            await cluster.sleep(0.02)
            ended_at = cluster.now()
            held.append((begun_at, ended_at, int(token)))
            with contextlib.suppress(CacheError):  # It is free when the lease ends.
                await caller.release()

    async def strike() -> None:
        for _ in range(4):
            count = len(held)

            async def worked(count: int = count) -> bool:
                return len(held) > count + 20

            await cluster.eventually(worked, what="20 acquisitions", within=120)
            owner = await cluster.owner_of(jobs.partition_of(key))
            victim = owner if owner > 1 else max(m.index for m in cluster.members)
            killed.append(victim == owner)
            await cluster.kill(victim)
            await cluster.add_member()

    async with asyncio.TaskGroup() as group:
        for index in (0, 1, 0, 1):
            group.create_task(work(index))
        group.create_task(strike())

    held.sort()
    assert sum(killed) >= 1
    for before, after in itertools.pairwise(held):
        assert before[1] <= after[0]
        assert before[2] < after[2]
