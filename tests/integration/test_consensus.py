"""Raft groups on nodes: they begin once, go on without the dead, and say so when they cannot."""

from __future__ import annotations

import asyncio

import pytest

from cache.cluster.config.consistent import ConsistentConfig
from cache.errors import NoQuorumError
from cache.testing import TestCluster, cluster_test
from cache.testing.running import run_cluster
from tests.integration.counting import (
    AT_START,
    Counter,
    add_many,
    consensus_test,
    infos,
    leader_of,
    uuids,
    voters_of,
)

ALONE = ConsistentConfig.local(expected_size=1, found_at_start=True)


@consensus_test(size=3)
async def test_three_members_found_one_group(cluster: TestCluster) -> None:
    """All of them vote."""
    await leader_of(cluster)

    assert 1 == len(await uuids(cluster))
    assert ["m0", "m1", "m2"] == await voters_of(cluster, 3)


@cluster_test("simulated", "sockets", size=3)
async def test_a_group_is_founded_when_it_is_first_used(cluster: TestCluster) -> None:
    """Whoever uses none sends no message for one; from any member the first use founds it."""
    await cluster.sleep(3.0)
    assert [] == await uuids(cluster)
    for member in cluster.members:
        assert 0 == (await member.inspect("stats"))["rpc.notices"]

    assert 1 == await Counter(cluster, 2).add()
    assert ["m0", "m1", "m2"] == await voters_of(cluster, 3)


@consensus_test("simulated", size=4)
async def test_whoever_comes_later_is_told_of_the_group(cluster: TestCluster) -> None:
    """Three that never used it do not found another one when they are cut off from those that have it."""
    await voters_of(cluster, 3)
    for _ in range(3):
        await cluster.add_member()
    voters = [int(name[1:]) for name in await voters_of(cluster, 5)]
    others = [member.index for member in cluster.members if member.index not in voters]
    assert 2 == len(others)
    known = await uuids(cluster)

    async def all_know() -> bool:
        return all(info["uuid"] for info in (await infos(cluster)).values())

    await cluster.eventually(all_know, what="everybody has heard of the group")
    apart = [*others, voters[0]]
    cluster.partition(apart, voters[1:])
    for index in others:
        with pytest.raises(NoQuorumError):
            await Counter(cluster, index).add(timeout=5.0)

    assert known == await uuids(cluster)
    cluster.heal()


@consensus_test("simulated", "sockets", size=2)
async def test_two_of_three_expected_members_found_nothing(cluster: TestCluster) -> None:
    """And say what they wait for, within the deadline."""
    begun = cluster.now()
    with pytest.raises(NoQuorumError, match="waits for 3 members, sees 2"):
        await Counter(cluster, 0).add(timeout=1.0)

    assert 0.9 <= cluster.now() - begun < 2.0
    assert [] == await uuids(cluster)


@consensus_test("simulated", "sockets", size=3)
async def test_every_member_reaches_the_group(cluster: TestCluster) -> None:
    """Followers, the leader, and a lite member, which has no replica; what one wrote the next one reads."""
    await cluster.add_member(data=False)
    counters = [Counter(cluster, index) for index in range(4)]

    assert list(range(1, 41)) == await add_many(counters, 40)
    assert [40] * 4 == [await counter.get() for counter in counters]
    assert (await infos(cluster))[3]["replica"] is None


@consensus_test(size=1, consistent=ALONE)
async def test_a_lone_founder_gets_two_more_voters(cluster: TestCluster) -> None:
    """Two members have one voter still; joiners never found."""
    await leader_of(cluster)
    first = await uuids(cluster)
    await cluster.add_member()
    assert ["m0"] == await voters_of(cluster, 1)
    await cluster.add_member()

    assert ["m0", "m1", "m2"] == await voters_of(cluster, 3)
    assert first == await uuids(cluster)


@consensus_test(size=5, consistent=ConsistentConfig.local(expected_size=5, found_at_start=True))
async def test_five_members_have_five_voters(cluster: TestCluster) -> None:
    """Two may die."""
    assert 5 == len(await voters_of(cluster, 5))


@consensus_test("simulated", "sockets", size=5)
async def test_three_founders_get_two_more_voters(cluster: TestCluster) -> None:
    """As soon as five members are there."""
    assert 5 == len(await voters_of(cluster, 5))


@consensus_test("simulated", size=3)
async def test_commands_go_on_when_the_leader_dies_and_count_once(cluster: TestCluster) -> None:
    """What the dead leader applied and did not answer is repeated, and takes effect once."""
    caller = await cluster.add_member(data=False)
    leader = await leader_of(cluster)
    counter = Counter(cluster, caller.index)
    assert 1 == await counter.add()
    cluster.link(leader, caller.index, latency=0.5)
    running = [asyncio.ensure_future(counter.add()) for _ in range(50)]
    applied = (await infos(cluster))[leader]["applied"]
    await cluster.sleep(0.2)
    assert (await infos(cluster))[leader]["applied"] >= applied + 50
    assert not any(one.done() for one in running)
    await cluster.kill(leader)

    assert list(range(2, 52)) == sorted(await asyncio.gather(*running))
    assert 51 == await counter.get()
    assert leader != await leader_of(cluster)


@consensus_test("simulated", size=3)
async def test_calls_go_on_as_soon_as_there_is_a_leader(cluster: TestCluster) -> None:
    """However long the pauses between their tries have become."""
    leader = await leader_of(cluster)
    counters = [Counter(cluster, index) for index in range(3) if index != leader]
    await add_many(counters, 2)
    cluster.partition([0], [1], [2])
    calls = [asyncio.ensure_future(counters[n % 2].add(timeout=20.0)) for n in range(20)]
    await cluster.sleep(4.0)
    cluster.heal()
    await leader_of(cluster)
    elected_at = cluster.now()

    assert list(range(3, 23)) == sorted(await asyncio.gather(*calls))
    assert cluster.now() - elected_at <= 0.1


@consensus_test("sockets", size=3)
async def test_commands_go_on_when_the_leader_stops(cluster: TestCluster) -> None:
    """On real sockets."""
    leader = await leader_of(cluster)
    counters = [Counter(cluster, index) for index in range(3) if index != leader]
    await add_many(counters, 2)
    await cluster.kill(leader)

    assert list(range(3, 23)) == await add_many(counters, 20)
    assert leader != await leader_of(cluster)


@consensus_test("processes", size=3)
async def test_another_process_leads_when_the_leader_is_killed(cluster: TestCluster) -> None:
    """And the member that comes back without its log votes again."""
    leader = await leader_of(cluster)
    before = (await infos(cluster))[leader]["replica"]
    await cluster.kill(leader)
    assert leader != await leader_of(cluster)
    await cluster.restart(leader)
    await voters_of(cluster, 3)

    assert before not in (await infos(cluster))[leader]["voters"]


@consensus_test("simulated", "sockets", size=3)
async def test_without_a_majority_calls_say_so_in_time(cluster: TestCluster) -> None:
    """In memory the two that come back have lost their logs, and the group says that it is lost."""
    leader = await leader_of(cluster)
    await Counter(cluster, leader).add()
    others = [index for index in range(3) if index != leader]
    for index in others:
        await cluster.kill(index)
    begun = cluster.now()
    with pytest.raises(NoQuorumError, match="did not answer in time"):
        await Counter(cluster, leader).get(timeout=1.5)
    assert 1.4 <= cluster.now() - begun < 3.0

    for index in others:
        await cluster.restart(index)

    async def knows() -> bool:
        return len((await infos(cluster))[leader]["gone"]) == 2

    await cluster.eventually(knows, what="the loss of two logs")
    with pytest.raises(NoQuorumError, match="a majority of its logs is lost"):
        await Counter(cluster, leader).get(timeout=1.0)
    assert 1 == len(await uuids(cluster)), "nobody founds another group over it"


@consensus_test("simulated", "sockets", size=3)
async def test_a_rolling_restart_in_memory_loses_nothing(cluster: TestCluster) -> None:
    """Each member hands its vote on before it goes, and gets one when it is back."""
    await voters_of(cluster, 3)
    total = 0
    for index in range(3):
        total = await Counter(cluster, index).add()
        receipt = await cluster.remove_member(index)
        assert receipt["complete"], receipt
        await cluster.restart(index)
        await voters_of(cluster, 3)

    assert 3 == total
    assert [3, 3, 3] == [await Counter(cluster, index).get() for index in range(3)]
    assert 1 == len(await uuids(cluster))


@consensus_test("simulated", "sockets", size=4)
async def test_a_leader_that_drains_is_replaced_first(cluster: TestCluster) -> None:
    """Calls go on meanwhile; the receipt says that the vote was handed on."""
    leader = await leader_of(cluster)
    counters = [Counter(cluster, index) for index in range(4) if index != leader]
    await add_many(counters, 3)
    running = asyncio.ensure_future(add_many(counters, 60))
    receipt = await cluster.remove_member(leader)

    assert list(range(4, 64)) == await running
    assert (True, 0) == (receipt["complete"], receipt["voting"])
    assert 3 == len(await voters_of(cluster, 3))
    assert leader != await leader_of(cluster)


@consensus_test("simulated", size=4)
async def test_a_dead_voter_is_replaced_after_a_while(cluster: TestCluster) -> None:
    """Not at once: a restart is no reason to move a copy."""
    leader = await leader_of(cluster)
    voters = await voters_of(cluster, 3)
    victim = next(m.index for m in cluster.members if m.index != leader and m.name in voters)
    killed_at = cluster.now()
    await cluster.kill(victim)
    assert 3 == len(await voters_of(cluster, 3))

    assert cluster.now() - killed_at >= ALONE.replace_after
    assert 1 == await Counter(cluster, leader).add()


@consensus_test(size=3, data_dir="kept")
async def test_members_with_disks_lose_nothing_when_all_are_killed(cluster: TestCluster) -> None:
    """The same group, with the same logs, goes on where it was."""
    await voters_of(cluster, 3)
    before = {info["replica"] for info in (await infos(cluster)).values()}
    known = await uuids(cluster)
    for index in range(3):
        await cluster.kill(index)
    for index in range(3):
        await cluster.restart(index, keep_disk=True)
    await leader_of(cluster)

    assert known == await uuids(cluster)
    assert before == {info["replica"] for info in (await infos(cluster)).values()}


@consensus_test("simulated", "sockets", size=3, data_dir="kept")
async def test_what_was_acknowledged_survives_the_death_of_all(cluster: TestCluster) -> None:
    """An acknowledgement means: on the disks of a majority."""
    assert list(range(1, 21)) == await add_many([Counter(cluster, n) for n in range(3)], 20)
    for index in range(3):
        await cluster.kill(index)
    for index in range(3):
        await cluster.restart(index, keep_disk=True)

    assert 20 == await Counter(cluster, 1).get()
    assert 21 == await Counter(cluster, 2).add()


@consensus_test("simulated", "sockets", size=3, data_dir="kept")
async def test_with_disks_a_majority_that_comes_back_goes_on(cluster: TestCluster) -> None:
    """Nothing was lost but time."""
    leader = await leader_of(cluster)
    await Counter(cluster, leader).add()
    others = [index for index in range(3) if index != leader]
    for index in others:
        await cluster.kill(index)
    with pytest.raises(NoQuorumError):
        await Counter(cluster, leader).get(timeout=1.0)
    for index in others:
        await cluster.restart(index, keep_disk=True)

    assert 2 == await Counter(cluster, leader).add()


@consensus_test("simulated", size=3, data_dir="kept")
async def test_a_member_that_lost_its_disk_comes_back_as_another_replica(
    cluster: TestCluster,
) -> None:
    """Its old log may have voted; the new one begins as a learner."""
    leader = await leader_of(cluster)
    await Counter(cluster, leader).add()
    other = (leader + 1) % 3
    lost = (await infos(cluster))[other]["replica"]
    await cluster.kill(other)
    await cluster.restart(other, keep_disk=False)
    await voters_of(cluster, 3)

    assert lost not in (await infos(cluster))[leader]["voters"]
    assert 1 == await Counter(cluster, other).get()


@consensus_test("simulated", "sockets", size=3)
async def test_a_node_gives_its_consistent_structures(cluster: TestCluster) -> None:
    """A lock of one member is not to be had by another one until that one leaves."""
    first, second = Counter(cluster, 0), Counter(cluster, 1)

    async def add() -> int:
        return await first.node.consistent.counter("visits").add(5)

    async def read() -> int:
        return await second.node.consistent.counter("visits").get()

    assert 5 == await first.run(add)
    assert 5 == await second.run(read)


@consensus_test("simulated", size=3)
async def test_a_held_question_is_answered_when_the_object_changes(cluster: TestCluster) -> None:
    """Although the leader that held it died meanwhile; and by nothing when its time is over."""
    leader = await leader_of(cluster)
    asker, other = [Counter(cluster, index) for index in range(3) if index != leader]
    assert await asker.latch(wait=0.5) is None
    asked_at = cluster.now()
    waiting = asyncio.ensure_future(asker.latch(wait=30.0))
    await cluster.sleep(0.2)
    await cluster.kill(leader)
    await leader_of(cluster)
    await cluster.sleep(1.0)
    await other.count_down()
    opened_at = cluster.now()

    assert (True, 0) == await waiting
    assert cluster.now() - opened_at < 0.1 < opened_at - asked_at


@consensus_test("simulated", size=3)
async def test_a_session_is_kept_while_something_depends_on_it(cluster: TestCluster) -> None:
    """Without a command for three times its life; a new leader changes nothing of that."""
    leader = await leader_of(cluster)
    counter = Counter(cluster, (leader + 1) % 3)
    lost: list[int] = []
    counter.group.on_session_lost(lost.append)
    session = await counter.session()
    await cluster.sleep(2 * ALONE.session_ttl)
    await cluster.kill(leader)
    await cluster.sleep(ALONE.session_ttl)

    assert session == await counter.session()
    assert [] == lost


@consensus_test("simulated", size=3)
async def test_a_member_that_is_cut_off_knows_when_its_session_may_be_over(
    cluster: TestCluster,
) -> None:
    """Before the group can end it; and it gets another one when it is back."""
    leader = await leader_of(cluster)
    index = (leader + 1) % 3
    counter = Counter(cluster, index)
    lost: list[tuple[int, float]] = []
    counter.group.on_session_lost(lambda number: lost.append((number, cluster.now())))
    session = await counter.session()
    cut_at = cluster.now()
    cluster.isolate(index)
    await cluster.sleep(ALONE.session_ttl + 0.1)
    assert [session] == [number for number, _ in lost]
    assert lost[0][1] - cut_at <= ALONE.session_ttl

    cluster.heal()
    assert session != await counter.session(timeout=20.0)


@consensus_test("simulated", size=3)
async def test_a_deposed_leader_answers_no_question(cluster: TestCluster) -> None:
    """It is cut off, and does not know yet that others lead: it asks a majority before each answer."""
    leader = await leader_of(cluster)
    old, new = Counter(cluster, leader), Counter(cluster, (leader + 1) % 3)
    assert 1 == await old.add()
    cluster.isolate(leader)
    stale = asyncio.ensure_future(old.get(timeout=20.0))
    assert 2 == await new.add()
    cluster.heal()

    assert 2 == await stale


@consensus_test("simulated", size=4, data_dir="kept")
async def test_a_replica_whose_disk_fails_stops_and_is_replaced(cluster: TestCluster) -> None:
    """It promises nothing more, says why, and its vote goes to the member that had none."""
    leader = await leader_of(cluster)
    voters = await voters_of(cluster, 3)
    victim = next(m.index for m in cluster.members if m.index != leader and m.name in voters)
    cluster.disk(victim, eio=1.0)
    assert 1 == await Counter(cluster, leader).add()

    async def halted() -> bool:
        return bool((await infos(cluster))[victim]["halted"])

    await cluster.eventually(halted, what="a replica that says that it stopped")
    after = await voters_of(cluster, 3)
    assert f"m{victim}" not in after
    assert 2 == await Counter(cluster, victim).add()


async def damage_a_log(cluster: TestCluster) -> None:
    """Let a member restart while reads of its disk go wrong."""
    leader = await leader_of(cluster)
    assert list(range(1, 51)) == await add_many([Counter(cluster, leader)], 50)
    other = (leader + 1) % 3
    before = (await infos(cluster))[other]["replica"]
    await cluster.kill(other)
    cluster.disk(other, flip=0.05)
    await cluster.restart(other, keep_disk=True)
    assert cluster.mend_disk(other)["flip"] > 0
    await voters_of(cluster, 3)

    assert before not in (await infos(cluster))[leader]["voters"]
    assert 50 == await Counter(cluster, other).get()


@pytest.mark.sim
def test_a_damaged_log_is_forgotten_and_fetched_anew() -> None:
    """As another replica: what the damaged one had promised is not known any more.

    With this seed the store itself can be opened, and a record of the log cannot be read.
    """
    run_cluster(damage_a_log, consistent=AT_START, size=3, seed=1, data_dir="kept")


@consensus_test("simulated", size=4)
async def test_a_member_that_leaves_gives_its_session_back(cluster: TestCluster) -> None:
    """What it held is free at once, not only when its session has run out; and it is told before."""
    holder, other = Counter(cluster, 0), Counter(cluster, 1)
    lost: list[int] = []
    holder.group.on_session_lost(lost.append)
    session = await holder.session()
    await holder.run(lambda: holder.node.consistent.lock("job").acquire())
    waiting = asyncio.ensure_future(
        other.run(lambda: other.node.consistent.lock("job").acquire(wait=30.0))
    )
    await cluster.sleep(1.0)
    begun = cluster.now()
    await cluster.remove_member(0)
    await waiting

    assert cluster.now() - begun < ALONE.session_ttl / 2
    assert [session] == lost
