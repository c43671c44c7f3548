"""Locks, semaphores and elections through their handles: waiting, losing, giving up."""

from __future__ import annotations

import asyncio

import pytest

from cache.cluster.consistent.consistent import Consistent
from cache.cluster.consistent.election import Leader
from cache.cluster.consistent.state.commands import Kind, Look, Seats, decode_answer, encode
from cache.cluster.scope import Scope
from cache.cluster.structures.lock import LockToken
from cache.errors import (
    ConfigError,
    LockLostError,
    LockTimeoutError,
    OperationTimeoutError,
    RejectedError,
    SessionLostError,
)
from tests.unit.cluster.consistent.groups import Client, Replicas, consistent, pause, play


def two(replicas: Replicas) -> tuple[Consistent, Consistent]:
    """Return what two nodes have."""
    return consistent(replicas, Client(replicas)), consistent(replicas, Client(replicas))


async def until_waiting(client: Client, count: int, kind: Kind = Kind.LOCK) -> None:
    """Return when so many wait for the object `x`."""
    async with asyncio.timeout(10.0):
        while True:
            answer = decode_answer(await client.query(encode(Look(b"x", kind))) or b"")
            assert isinstance(answer, Seats)
            if answer.waiting == count:
                return
            await pause(0.01)


def test_a_lock_has_one_holder_and_tokens_rise() -> None:
    """Over release, and from one node to the other."""

    async def scene(replicas: Replicas) -> None:
        one, other = two(replicas)
        async with one.lock("x").held() as first:
            assert await other.lock("x").locked()
            with pytest.raises(LockTimeoutError):
                await other.lock("x").acquire(wait=0)
            with pytest.raises(LockTimeoutError):
                await other.lock("x").acquire(wait="200ms")
        assert not await other.lock("x").locked(lease=True)
        lock = other.lock("x")
        second = await lock.acquire(wait=0)
        assert second > first
        assert not lock.lost.is_set()
        await lock.release()
        assert lock.lost.is_set()
        with pytest.raises(LockLostError, match="does not hold"):
            await lock.release()

    play(scene)


def test_who_waits_is_granted_when_the_holder_gives_it_back() -> None:
    """In the order of asking, with no poll in between."""

    async def scene(replicas: Replicas) -> None:
        client = Client(replicas)
        one, other = consistent(replicas, client), consistent(replicas, Client(replicas))
        order: list[int] = []

        async def work(number: int, grid: Consistent) -> None:
            async with grid.lock("x").held(wait="20s"):
                order.append(number)

        async with asyncio.TaskGroup() as tasks, one.lock("x").held():
            for number, grid in enumerate((other, one, other)):
                tasks.create_task(work(number, grid))
                await until_waiting(client, number + 1)
            asked = client.command_count
            await pause(5.0)
            assert asked == client.command_count
        assert [0, 1, 2] == order

    play(scene)


def test_a_lock_in_the_same_task_is_reentrant_only_if_wanted() -> None:
    """Another task waits all the same, though it uses the same handle."""

    async def scene(replicas: Replicas) -> None:
        grid, other = two(replicas)
        plain = grid.lock("x")
        async with plain.held():
            with pytest.raises(RejectedError, match="reentrant=True"):
                await plain.acquire()
        lock = grid.lock("x", reentrant=True)
        async with lock.held() as first:
            async with lock.held() as second:
                assert second is first
            assert await other.lock("x").locked()
            (refused,) = await asyncio.gather(lock.acquire(wait="100ms"), return_exceptions=True)
            assert isinstance(refused, LockTimeoutError)
        assert not await other.lock("x").locked()

    play(scene)


def test_a_lost_session_loses_the_lock_before_another_gets_it() -> None:
    """The holder knows by its own clock, cut off from everybody."""

    async def scene(replicas: Replicas) -> None:
        client = Client(replicas, ttl=2.0)
        one, other = consistent(replicas, client), consistent(replicas, Client(replicas))
        lock = one.lock("x")
        token = await lock.acquire()
        waiting = asyncio.ensure_future(other.lock("x").acquire(wait="1m"))
        client.is_cut = True
        await lock.lost.wait()
        assert token.lost.is_set()
        assert not waiting.done()
        assert await waiting > token
        with pytest.raises(SessionLostError, match="lock 'x'"):
            await lock.release()

    play(scene)


@pytest.mark.parametrize("waits", [False, True])
def test_a_claim_in_a_session_that_was_opened_on_the_way_is_kept(*, waits: bool) -> None:
    """The one before was lost between the question for it and the command."""

    async def scene(replicas: Replicas) -> None:
        client = Client(replicas, ttl=1.0)
        one, other = consistent(replicas, client), consistent(replicas, Client(replicas))
        await client.session()
        before = other.lock("x")
        if waits:
            await before.acquire()
        client.lose_session = True
        waiting = asyncio.ensure_future(one.lock("x").acquire(wait="1m"))
        await pause(4.0)
        if waits:
            await before.release()
        token = await waiting
        await pause(4.0)
        assert not token.lost.is_set()
        assert await other.lock("x").locked()

    play(scene)


def test_the_end_of_a_block_tells_of_a_lost_session() -> None:
    """Unless the block raised something of its own."""

    async def scene(replicas: Replicas) -> None:
        client = Client(replicas, ttl=1.0)
        lock = consistent(replicas, client).lock("x")

        async def work(error: Exception | None) -> None:
            client.is_cut = False
            async with lock.held(wait="10s") as token:
                client.is_cut = True
                await token.lost.wait()
                if error is not None:
                    raise error

        with pytest.raises(SessionLostError):
            await work(None)
        with pytest.raises(ZeroDivisionError):
            await work(ZeroDivisionError())

    play(scene)


@pytest.mark.parametrize("heals", [False, True])
def test_who_waits_is_told_of_its_lost_session(*, heals: bool) -> None:
    """Long before it would give up, whether the group can be asked or not."""

    async def scene(replicas: Replicas) -> None:
        client, waiter = Client(replicas), Client(replicas, ttl=1.0, timeout=0.3)
        await consistent(replicas, client).lock("x").acquire()
        waiting = asyncio.ensure_future(consistent(replicas, waiter).lock("x").acquire(wait="1h"))
        await until_waiting(client, 1)
        waiter.is_cut = True
        await until_waiting(client, 0)
        waiter.is_cut = not heals
        with pytest.raises(SessionLostError, match="ended"):
            await asyncio.wait_for(waiting, 12.0)

    play(scene)


def test_who_is_cancelled_while_waiting_withdraws() -> None:
    """So the lock does not go to somebody who is gone."""

    async def scene(replicas: Replicas) -> None:
        client = Client(replicas)
        one, other = consistent(replicas, client), consistent(replicas, Client(replicas))
        lock = one.lock("x")
        await lock.acquire()
        waiting = asyncio.ensure_future(other.lock("x").acquire(wait="1m"))
        await until_waiting(client, 1)
        waiting.cancel()
        await asyncio.wait((waiting,))
        assert waiting.cancelled()
        await until_waiting(client, 0)
        await lock.release()
        assert not await lock.locked()

    play(scene)


def test_a_closed_node_has_nothing_to_withdraw() -> None:
    """Its session ends with it; the caller sees the error of its own call."""

    async def scene(replicas: Replicas) -> None:
        client, scope = Client(replicas), Scope("node")
        grid = Consistent(lambda name: client, replicas.clock, scope, info=dict)
        await consistent(replicas, Client(replicas)).lock("x").acquire()
        waiting = asyncio.ensure_future(grid.lock("x").acquire(wait="1m"))
        await until_waiting(client, 1)
        await scope.close()
        waiting.cancel()
        await asyncio.wait((waiting,))
        assert waiting.cancelled()

    play(scene)


def test_a_withdrawal_is_repeated_until_the_group_has_it() -> None:
    """The session lives on: nothing else would take the claim away."""

    async def scene(replicas: Replicas) -> None:
        client, waiter = Client(replicas), Client(replicas, ttl=60.0, timeout=0.5)
        lock = consistent(replicas, client).lock("x")
        await lock.acquire()
        waiting = asyncio.ensure_future(consistent(replicas, waiter).lock("x").acquire(wait="1m"))
        await until_waiting(client, 1)
        waiter.is_cut = True
        waiting.cancel()
        await pause(3.0)
        assert waiting.cancelled()
        await until_waiting(client, 1)
        waiter.is_cut = False
        await until_waiting(client, 0)

    play(scene)


def test_who_dies_while_waiting_is_withdrawn_by_the_end_of_its_session() -> None:
    """Nobody could send the withdrawal."""

    async def scene(replicas: Replicas) -> None:
        client, waiter = Client(replicas), Client(replicas, ttl=2.0)
        await consistent(replicas, client).lock("x").acquire()
        waiting = asyncio.ensure_future(consistent(replicas, waiter).lock("x").acquire(wait="1m"))
        await until_waiting(client, 1)
        await waiter.close()
        await until_waiting(client, 0)
        waiting.cancel()
        await asyncio.wait((waiting,))

    play(scene)


@pytest.mark.parametrize("others", [False, True])
def test_a_claim_whose_answer_was_lost_is_withdrawn(*, others: bool) -> None:
    """Whether it waits or holds: the caller knows neither."""

    async def scene(replicas: Replicas) -> None:
        client, unlucky = Client(replicas), Client(replicas)
        lock = consistent(replicas, client).lock("x")
        holding = await lock.acquire() if others else None
        await unlucky.session()
        unlucky.lose_answers = 1
        with pytest.raises(OperationTimeoutError, match="answer was lost"):
            await consistent(replicas, unlucky).lock("x").acquire()
        await until_waiting(client, 0)
        assert (holding is not None) == await lock.locked()

    play(scene)


def test_a_release_whose_answer_was_lost_is_repeated() -> None:
    """The caller is told that nothing is known; the lock is free soon."""

    async def scene(replicas: Replicas) -> None:
        client = Client(replicas)
        grid, other = consistent(replicas, client), consistent(replicas, Client(replicas))
        lock = grid.lock("x")
        await lock.acquire()
        client.is_cut, client.timeout = True, 0.2
        with pytest.raises(RejectedError):
            await lock.release()
        client.is_cut = False
        await other.lock("x").acquire(wait="3s")

    play(scene)


def test_a_cancelled_block_gives_the_lock_back() -> None:
    """In the background: who cancels does not wait."""

    async def scene(replicas: Replicas) -> None:
        one, other = two(replicas)
        inside = asyncio.Event()

        async def work() -> None:
            async with one.lock("x", reentrant=True).held():
                inside.set()
                await asyncio.Event().wait()

        task = asyncio.ensure_future(work())
        await inside.wait()
        task.cancel()
        await asyncio.wait((task,))
        assert task.cancelled()
        await other.lock("x").acquire(wait="1s")

    play(scene)


def test_a_lease_ends_for_its_holder_first() -> None:
    """The holder counts from before it asked; who waits makes the group look at its clock."""

    async def scene(replicas: Replicas) -> None:
        one, other = two(replicas)
        lock = one.lock("x", lease="1s")
        first = await lock.acquire()
        waiting = asyncio.ensure_future(other.lock("x", lease="1s").acquire(wait="10s"))
        await pause(0.8)
        await lock.renew()
        await pause(0.8)
        assert not first.lost.is_set()
        await first.lost.wait()
        assert not waiting.done()
        second = await waiting
        assert second > first
        assert not second.lost.is_set()
        for call in (lock.renew, lock.release):
            with pytest.raises(LockLostError, match="lease ended"):
                await call()

    play(scene)


def test_a_lease_that_ended_during_a_long_wait_is_not_taken_for_held() -> None:
    """The lease begins with the grant; the holder renews it as soon as it knows."""

    async def scene(replicas: Replicas) -> None:
        one, other = two(replicas)
        lock = one.lock("x")
        await lock.acquire()
        waiting = asyncio.ensure_future(other.lock("x", lease="500ms").acquire(wait="20s"))
        await pause(5.0)
        await lock.release()
        token = await waiting
        assert not token.lost.is_set()
        await pause(0.4)
        assert not token.lost.is_set()
        await token.lost.wait()

    play(scene)


def test_leases_have_a_range_and_only_leases_are_renewed() -> None:
    """Said at once."""

    async def scene(replicas: Replicas) -> None:
        grid, _ = two(replicas)
        for lease in (0, "50ms", "2d"):
            with pytest.raises(ConfigError, match="lease="):
                grid.lock("x", lease=lease)
        lock = grid.lock("x")
        await lock.acquire()
        with pytest.raises(ConfigError, match="no lease"):
            await lock.renew()

    play(scene, names=("a",))


# -- semaphores ----------------------------------------------------------------------------------


def test_a_semaphore_grants_as_many_as_it_has() -> None:
    """Each grant is given back by its own token."""

    async def scene(replicas: Replicas) -> None:
        one, other = two(replicas)
        semaphore, elsewhere = one.semaphore("x", 3), other.semaphore("x", 3)
        first, second = await asyncio.gather(semaphore.acquire(), semaphore.acquire())
        assert 1 == await elsewhere.available()
        with pytest.raises(LockTimeoutError):
            await elsewhere.acquire(2, wait=0)
        waiting = asyncio.ensure_future(elsewhere.acquire(2, wait="5s"))
        await semaphore.release(first)
        await waiting
        assert 0 == await semaphore.available(lease=True)
        with pytest.raises(LockLostError):
            await semaphore.release(first)
        await semaphore.release(second)
        await elsewhere.release()
        async with elsewhere.held(3) as token:
            assert isinstance(token, LockToken)
            assert 0 == await semaphore.available()
        assert 3 == await semaphore.available()

    play(scene)


def test_a_semaphore_in_use_is_not_opened_with_another_number() -> None:
    """And nobody asks for more than there are."""

    async def scene(replicas: Replicas) -> None:
        one, other = two(replicas)
        await one.semaphore("x", 3).acquire()
        with pytest.raises(ConfigError, match="in use with 3"):
            await other.semaphore("x", 4).acquire()
        with pytest.raises(ConfigError, match="must be 1 to 3"):
            await one.semaphore("x", 3).acquire(4)

    play(scene, names=("a",))


def test_permits_of_a_lost_session_are_free() -> None:
    """All of them."""

    async def scene(replicas: Replicas) -> None:
        client = Client(replicas, ttl=1.0)
        semaphore = consistent(replicas, client).semaphore("x", 3)
        tokens = [await semaphore.acquire() for _ in range(3)]
        client.is_cut = True
        await consistent(replicas, Client(replicas)).semaphore("x", 3).acquire(3, wait="20s")
        assert [True] * 3 == [token.lost.is_set() for token in tokens]

    play(scene)


# -- elections -----------------------------------------------------------------------------------


def test_leaders_follow_each_other_and_all_see_it() -> None:
    """With what they say of themselves."""

    async def scene(replicas: Replicas) -> None:
        one, other = two(replicas)
        election, candidate = one.election("x"), other.election("x")
        watch = other.election("x").observe()
        assert await anext(watch) is None
        first = await election.campaign("one")
        assert Leader(first, "one") == await anext(watch) == await candidate.leader(lease=True)
        with pytest.raises(LockTimeoutError):
            await candidate.campaign("other", wait=0)
        waiting = asyncio.ensure_future(candidate.campaign("other"))
        await until_waiting(Client(replicas), 1, Kind.ELECTION)
        await election.resign()
        second = await waiting
        assert second > first
        assert Leader(second, "other") == await anext(watch)
        await candidate.resign(second)
        assert await anext(watch) is None
        async with election.led({"port": 1}) as third:
            assert Leader(third, {"port": 1}) == await anext(watch)

    play(scene)


def test_a_leader_that_dies_is_followed_by_the_next() -> None:
    """When its session ends."""

    async def scene(replicas: Replicas) -> None:
        client = Client(replicas, ttl=2.0)
        first = await consistent(replicas, client).election("x").campaign()
        client.is_cut = True
        assert first < await consistent(replicas, Client(replicas)).election("x").campaign(wait=60)
        assert first.lost.is_set()

    play(scene)


# -- logs ----------------------------------------------------------------------------------------


def test_a_subscription_reads_what_is_there_and_what_comes() -> None:
    """In one order, from whatever offset."""

    async def scene(replicas: Replicas) -> None:
        one, other = two(replicas)
        log = one.log("x", entries_max=4)
        assert [0, 1, 2] == [await log.append(value) for value in "abc"]
        records = other.log("x").subscribe(1)
        assert ["b", "c"] == [(await anext(records)).value for _ in range(2)]
        record, offset = await asyncio.gather(anext(records), log.append_many(["d", "e"]))
        assert (3, "d") == (record.offset, record.value)
        assert 3 == offset
        page = await other.log("x").read(0, limit=2, lease=True)
        assert (1, 5) == (page.first, page.end)
        assert [(1, "b"), (2, "c")] == [(one.offset, one.value) for one in page.records]
        assert 4 == (await anext(records)).offset
        with pytest.raises(ConfigError, match="offset=-1"):
            await log.read(-1)
        assert await log.destroy()
        assert 0 == (await log.read()).end

    play(scene)


@pytest.mark.parametrize("seed", range(5))
def test_locks_work_through_kills_and_losses(seed: int) -> None:
    """Each worker gets its turns, and no two of them at the same time."""

    async def scene(replicas: Replicas) -> None:
        inside, tokens = [0], [0]

        async def work(grid: Consistent) -> None:
            for _ in range(4):
                async with grid.lock("x").held(wait="2m") as token:
                    inside[0] += 1
                    assert 1 == inside[0]
                    assert tokens[-1] < token
                    tokens.append(token)
                    await pause(0.05)
                    inside[0] -= 1

        async def disturb() -> None:
            for _ in range(3):
                await pause(0.4)
                name = replicas.leader() or "a"
                replicas.kill(name)
                await pause(0.6)
                replicas.start(name)

        replicas.loss = 0.05
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(disturb())
            for _ in range(3):
                grid = consistent(replicas, Client(replicas, ttl=30.0, timeout=20.0))
                tasks.create_task(work(grid))
        assert 13 == len(tokens)
        assert 3 == replicas.counts["killed"]
        assert replicas.counts["lost"] > 0

    play(scene, seed=seed)
