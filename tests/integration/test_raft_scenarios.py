"""Raft scenarios on whole nodes: rows A1 to A13 of docs/consensus-rows.md."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from cache.cluster import ConsistentConfig
from cache.cluster.config import RaftConfig
from cache.cluster.raft.calls import Outcome
from cache.cluster.raft.hosted import Hosted
from cache.cluster.raft.messages import Kind, ReplicaId, TimeoutNow
from cache.cluster.wire.messages import CallGroup, GroupAnswer
from cache.errors import IndeterminateError
from cache.testing import TestCluster
from cache.testing.running import run_cluster
from tests.integration.counting import AT_START, consensus_test
from tests.integration.shared_log import (
    DISK,
    ELECTION_MAX,
    Leaders,
    append,
    collect,
    held,
    hosted,
    observer,
    others,
    read,
    read_all,
)

SOON = 30.0
"""Seconds for what takes real processes on a busy machine long."""

COMPACT = RaftConfig(snapshot_interval=50, snapshot_trailing=10)
"""A log that is cut off often."""


# -- elections -----------------------------------------------------------------------------------


@pytest.mark.sim
@pytest.mark.parametrize("seed", range(10))
def test_three_members_elect_one_leader_in_time(seed: int) -> None:
    """A1: within two election timeouts of the founding; the others follow it, in the same term."""

    async def scenario(cluster: TestCluster) -> None:
        starting = asyncio.ensure_future(cluster.add_member())

        async def founded() -> bool:
            known = [(await member.raft()).replica for member in cluster.members]
            return len(known) == 3 and None not in known

        await cluster.eventually(founded, what="a group on three members")
        leader = await cluster.wait_for_consensus(ELECTION_MAX)
        await starting

        infos = {member.index: await member.raft() for member in cluster.members}
        roles = sorted(str(info.role) for info in infos.values())
        assert ["follower", "follower", "leader"] == roles
        assert {(infos[leader].replica, infos[leader].term)} == {
            (info.leader, info.term) for info in infos.values()
        }

    run_cluster(scenario, size=2, seed=seed, consistent=AT_START)


@consensus_test("simulated", size=4)
async def test_a_member_that_is_added_follows_the_leader_that_is_there(
    cluster: TestCluster,
) -> None:
    """A2: neither leader nor term change; with five members it votes."""
    leader = await cluster.wait_for_consensus()
    term = (await cluster.member(leader).raft()).term

    added = await cluster.add_member()
    voters = await cluster.wait_for_voters(5)
    assert leader == await cluster.wait_for_consensus()

    info = await added.raft()
    assert added.name in voters
    assert ("follower", term) == (info.role, info.term)
    assert (await cluster.member(leader).raft()).replica == info.leader


@consensus_test("simulated", "processes", size=3)
async def test_a_killed_leader_has_one_successor_and_two_kills_have_none(
    cluster: TestCluster,
) -> None:
    """A3: in a higher term; the one that is left stops leading."""
    leader = await cluster.wait_for_consensus()
    term = (await cluster.member(leader).raft()).term
    await cluster.kill(leader)

    successor = await cluster.wait_for_consensus(SOON)
    assert successor != leader
    assert (await cluster.member(successor).raft()).term > term

    await cluster.kill(successor)
    await cluster.wait_for_no_leader(SOON)
    [last] = cluster.members
    await cluster.sleep(2.0)
    assert "leader" != (await last.raft()).role
    assert not await cluster.has_quorum()


@pytest.mark.sim
@pytest.mark.parametrize("seed", range(4))
def test_no_term_has_two_leaders(seed: int) -> None:
    """A4: whatever is cut, killed and restarted with its disk; nobody votes twice in a term."""

    async def scenario(cluster: TestCluster) -> None:
        rng = Random(seed)
        leaders = Leaders(cluster)
        async with leaders.watch():
            for number in range(6):
                leader = await cluster.wait_for_leader()
                if number % 2:
                    cluster.isolate(leader)
                    await cluster.sleep(rng.uniform(0.1, 2.0))
                    cluster.heal()
                else:
                    await cluster.kill(leader, power_loss=True)
                    await cluster.sleep(rng.uniform(0.0, 0.5))
                    await cluster.restart(leader, keep_disk=True)
            await cluster.wait_for_consensus()
        assert len(leaders.by_term) >= 4, leaders.by_term

    run_cluster(scenario, size=3, seed=seed, data_dir=DISK, consistent=AT_START)


# -- replication ---------------------------------------------------------------------------------


@consensus_test("simulated", size=3)
async def test_a_replica_that_does_not_lead_names_the_leader(cluster: TestCluster) -> None:
    """A7: it refuses to append; `node.consistent` goes to the leader instead, from every member."""
    leader = await cluster.wait_for_consensus()
    leads = await cluster.member(leader).raft()
    uuid = bytes.fromhex(leads.uuid)
    command = CallGroup("main", uuid, Kind.COMMAND, b"x", 0, 0, 0, remaining=1.0)
    for index in others(cluster, leader):
        member = cluster.member(index)
        group = await hosted(member)

        async def call(_: object, group: Hosted = group) -> GroupAnswer:
            return await group.call(command)

        answer = await member.run(call)
        assert (Outcome.NOT_LEADER, leads.replica) == (answer.outcome, answer.leader)
    assert leads.last_index == (await cluster.member(leader).raft()).last_index

    for index in others(cluster, leader):
        await append(cluster.member(index), index)
    assert others(cluster, leader) == await read(cluster.member(leader))


@consensus_test("simulated", size=3, operation_timeout=1.0)
async def test_an_append_without_a_majority_never_says_that_it_is_there(
    cluster: TestCluster,
) -> None:
    """A7: the leader has it in its log, alone; the caller is told in time that it may be lost."""
    leader = await cluster.wait_for_consensus()
    member = cluster.member(leader)
    await append(member, "before")
    for index in others(cluster, leader):
        await cluster.kill(index)
    begun = cluster.now()

    with pytest.raises(IndeterminateError):
        await append(member, "after")

    info = await member.raft()
    assert info.last_index > info.commit
    assert cluster.now() - begun < 1.5
    assert ["before"] == await held(member)


@consensus_test("simulated", size=3)
async def test_each_member_sees_each_record_once_in_order(cluster: TestCluster) -> None:
    """A8: those that subscribed from the beginning, while the leader is killed in the middle."""
    leader = await cluster.wait_for_consensus()
    first, second = (cluster.member(index) for index in others(cluster, leader))
    seen = [asyncio.ensure_future(collect(member, 40)) for member in (first, second)]
    for number in range(20):
        await append(first, number)
    await cluster.kill(leader)
    for number in range(20, 40):
        await append(second, number)

    expected = [(number, number) for number in range(40)]
    assert [expected, expected] == await asyncio.gather(*seen)


# -- what survives -------------------------------------------------------------------------------


@consensus_test("simulated", "processes", size=3, data_dir=DISK)
async def test_terms_and_records_survive_the_restart_of_all(cluster: TestCluster) -> None:
    """A9: killed at once, power and all; what was acknowledged is applied again, terms go on."""
    leader = await cluster.wait_for_consensus()
    term = (await cluster.member(leader).raft()).term
    async with observer(cluster) as member:
        await append(member, *range(20))
    for index in others(cluster):
        await cluster.kill(index)
    for index in range(3):
        await cluster.restart(index, keep_disk=True)
    leader = await cluster.wait_for_consensus()

    assert (await cluster.member(leader).raft()).term > term
    async with observer(cluster) as member:
        assert list(range(20)) == await read(member)
    assert [0, 1, 2] == await cluster.wait_for_equal_states()


@consensus_test(
    "simulated",
    size=3,
    data_dir=DISK,
    consistent=ConsistentConfig.local(found_at_start=True, raft=COMPACT, replace_after=600.0),
)
async def test_a_member_that_fell_behind_the_log_gets_a_snapshot(cluster: TestCluster) -> None:
    """A10: what it lacks is no longer in the log of anybody else."""
    leader = await cluster.wait_for_consensus()
    victim = others(cluster, leader)[0]
    had = (await cluster.member(victim).raft()).last_index
    await cluster.kill(victim)
    async with observer(cluster) as member:
        await append(member, *range(200))
    assert (await cluster.member(leader).raft()).first_index > had + 50
    await cluster.restart(victim, keep_disk=True)

    assert [0, 1, 2] == await cluster.wait_for_equal_states()
    assert (await cluster.member(victim).raft()).snapshot_index > had
    async with observer(cluster) as member:
        assert list(range(200)) == await read(member)


# -- who leads, and who does not -----------------------------------------------------------------


@consensus_test("simulated", size=3)
async def test_leadership_goes_to_the_member_that_is_named(cluster: TestCluster) -> None:
    """A12: without a pause: the term rises by one, and nothing is lost."""
    leader = await cluster.wait_for_consensus()
    await append(cluster.member(leader), "before")
    term = (await cluster.member(leader).raft()).term
    target = others(cluster, leader)[1]
    chosen = (await cluster.member(target).raft()).replica
    replica = (await hosted(cluster.member(leader))).replica
    assert chosen is not None
    assert replica is not None

    async def transfer(_: object) -> None:
        replica.transfer(ReplicaId(chosen))

    await cluster.member(leader).run(transfer)

    async def handed_on() -> bool:
        return await cluster.leader() == target

    await cluster.eventually(handed_on, within=ELECTION_MAX, what="another leader")
    assert target == await cluster.wait_for_consensus()
    assert term + 1 == (await cluster.member(target).raft()).term
    assert ["before"] == await read(cluster.member(leader))


@consensus_test("simulated", size=3)
async def test_a_request_of_an_earlier_term_to_take_over_is_refused(cluster: TestCluster) -> None:
    """A12: it comes from who led once; nobody campaigns."""
    leader = await cluster.wait_for_consensus()
    term = (await cluster.member(leader).raft()).term
    follower = cluster.member(others(cluster, leader)[0])
    group = await hosted(follower)
    replica = group.replica
    assert replica is not None
    sender = ReplicaId((await cluster.member(leader).raft()).replica or "")

    async def receive(_: object) -> None:
        replica.receive(TimeoutNow(group.name, sender, term - 1))

    await follower.run(receive)
    await cluster.sleep(2.0)

    assert leader == await cluster.wait_for_consensus()
    assert term == (await cluster.member(leader).raft()).term


@consensus_test("simulated", size=3)
async def test_joiners_never_disturb_the_term(cluster: TestCluster) -> None:
    """A13: three more members come, one of them twice; leader and term stay what they were."""
    leader = await cluster.wait_for_consensus()
    term = (await cluster.member(leader).raft()).term
    leaders = Leaders(cluster)
    async with leaders.watch():
        for _ in range(3):
            await cluster.add_member()
        await cluster.wait_for_voters(5)
        await cluster.kill(5)
        await cluster.restart(5)
        await cluster.wait_for_voters(5)

    assert [term] == list(leaders.by_term)
    assert term == leaders.highest_term
    assert leader == await cluster.wait_for_consensus()


@consensus_test("simulated", size=3)
async def test_a_read_at_a_leader_that_stood_still_is_fresh(cluster: TestCluster) -> None:
    """Reliability 12: others led and wrote while it was paused; what it answers then is theirs."""
    leader = await cluster.wait_for_consensus()
    old, new = cluster.member(leader), cluster.member(others(cluster, leader)[0])
    await append(old, "old")
    await cluster.pause(leader)
    await append(new, "new")
    await cluster.sleep(8.0)
    await cluster.resume(leader)

    assert ["old", "new"] == await read(old)
    assert [["old", "new"]] == await read_all(cluster)
