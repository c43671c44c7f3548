"""The test cluster and what it can do to consensus: the rows C of docs/consensus-rows.md."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.cluster import ClusterConfig
from cache.errors import CacheError, NoQuorumError
from cache.testing import TestCluster
from cache.testing.consensus import is_quorum
from cache.testing.running import run_cluster
from cache.testing.worlds.sockets import SocketsWorld
from tests.integration.counting import AT_START, consensus_test
from tests.integration.shared_log import (
    COMPACT,
    DISK,
    ELECTION_MAX,
    FIVE,
    LOCAL,
    PATIENT,
    SEVEN,
    SOON,
    STEPS_DOWN,
    append,
    held,
    observer,
    others,
    read,
    read_all,
    refused,
    term_of,
)

# -- members, and waiting ------------------------------------------------------------------------


@pytest.mark.sockets
async def test_two_clusters_run_side_by_side() -> None:
    """C1: their members have ids, ports and folders of their own, and do not hear of each other."""
    config = ClusterConfig.local(data_dir=DISK, consistent=LOCAL)
    async with (
        TestCluster(3, world=SocketsWorld(), config=config) as one,
        TestCluster(3, world=SocketsWorld(), config=config) as two,
    ):
        await one.wait_for_consensus()
        await two.wait_for_consensus()
        members = [*one.members, *two.members]
        assert 6 == len({member.id for member in members})
        assert 6 == len({member.address for member in members})
        assert 6 == len({member.node.config.data_dir for member in members})
        await append(one.member(0), "one")
        await append(two.member(0), "two")

        assert [["one"]] == await read_all(one)
        assert [["two"]] == await read_all(two)


@pytest.mark.sim
@pytest.mark.parametrize("size", [3, 5, 7])
def test_a_leader_is_waited_for(size: int) -> None:
    """C2: it is one of the members, and says so itself."""

    async def scenario(cluster: TestCluster) -> None:
        leader = await cluster.wait_for_leader(10.0)

        assert leader in range(size)
        assert "leader" == (await cluster.member(leader).raft()).role

    run_cluster(scenario, size=size, consistent=SEVEN if size == 7 else LOCAL)


@consensus_test("simulated", size=2)
async def test_waiting_for_a_leader_ends_and_says_what_members_saw(cluster: TestCluster) -> None:
    """C2: two of three expected members found nothing."""
    begun = cluster.now()
    with pytest.raises(AssertionError, match=r"a leader did not happen within 2\.0 s") as caught:
        await cluster.wait_for_leader(2.0)

    assert 2.0 <= cluster.now() - begun < 2.1
    assert "member 1 knows no group" in str(caught.value)
    assert await cluster.leader() is None


@consensus_test("simulated", size=3)
async def test_consensus_is_of_all_running_members(cluster: TestCluster) -> None:
    """C3: one that is cut off names nobody or somebody else, and is not passed over."""
    leader = await cluster.wait_for_consensus()
    cluster.isolate(leader)
    assert leader != await cluster.wait_for_consensus(among=others(cluster, leader))

    with pytest.raises(AssertionError, match="one leader and one term on all members") as caught:
        await cluster.wait_for_consensus(3.0)
    assert re.search(rf"member {leader}: (follower|pre-candidate) in term", str(caught.value))

    cluster.heal()
    assert leader != await cluster.wait_for_consensus()


@consensus_test("simulated", size=3)
async def test_a_killed_leader_is_followed_by_another_one_in_time(cluster: TestCluster) -> None:
    """C4: within two election timeouts, in a higher term; over processes see row A3."""
    leader = await cluster.wait_for_consensus()
    term = await term_of(cluster, leader)
    killed_at = cluster.now()
    await cluster.kill(leader)
    successor = await cluster.wait_for_consensus(SOON)

    assert cluster.now() - killed_at <= ELECTION_MAX
    assert successor != leader
    assert await term_of(cluster, successor) > term


@consensus_test("simulated", "processes", size=5, data_dir=DISK, consistent=FIVE)
async def test_three_of_five_killed_have_no_leader_until_one_is_back(cluster: TestCluster) -> None:
    """C5: and the log is what it was."""
    await cluster.wait_for_voters(5)
    async with observer(cluster) as member:
        await append(member, *range(10))
    for index in (0, 1, 2):
        await cluster.kill(index)
    await cluster.wait_for_no_leader(SOON)
    assert not await cluster.has_quorum()

    await cluster.restart(1, keep_disk=True)

    assert await cluster.wait_for_consensus(SOON) in (1, 3, 4)
    assert await cluster.has_quorum()
    async with observer(cluster) as member:
        assert list(range(10)) == await read(member)
    assert [1, 3, 4] == await cluster.wait_for_equal_states()


@consensus_test("simulated", size=7, consistent=SEVEN)
async def test_three_of_seven_followers_killed_change_nothing(cluster: TestCluster) -> None:
    """C6: the same leader, in the same term, and it goes on."""
    assert 7 == len(await cluster.wait_for_voters(7))
    leader = await cluster.wait_for_consensus()
    term = await term_of(cluster, leader)
    await append(cluster.member(leader), "before")
    for index in others(cluster, leader)[:3]:
        await cluster.kill(index)
    await append(cluster.member(others(cluster, leader)[0]), "after")
    await cluster.sleep(5.0)

    assert (leader, term) == (await cluster.wait_for_consensus(), await term_of(cluster, leader))
    assert [["before", "after"]] == await read_all(cluster)


@consensus_test("simulated", size=5, consistent=FIVE)
async def test_two_leaders_of_five_can_die_and_not_the_third(cluster: TestCluster) -> None:
    """C7: where nobody takes the place of the dead, three of five are the last majority."""
    await cluster.wait_for_voters(5)
    terms = []
    for _ in range(2):
        leader = await cluster.wait_for_consensus()
        terms.append(await term_of(cluster, leader))
        await cluster.kill(leader)
    last = await cluster.wait_for_consensus()
    terms.append(await term_of(cluster, last))
    assert terms == sorted(set(terms))
    await append(cluster.member(last), "with three")

    await cluster.kill(last)
    await cluster.wait_for_no_leader(STEPS_DOWN)
    await refused(cluster, cluster.members[0].index, "with two")
    assert await cluster.leader() is None


@consensus_test("simulated", size=5)
async def test_a_third_leader_can_die_when_the_dead_were_given_up(cluster: TestCluster) -> None:
    """C7: the leader takes the votes of those that are dead for `replace_after`; two of three are enough."""
    await cluster.wait_for_voters(5)
    for count in (5, 3):
        await cluster.wait_for_voters(count)
        for _ in range(2 if count == 5 else 1):
            await cluster.kill(await cluster.wait_for_consensus())
    survivor = await cluster.wait_for_consensus()

    await append(cluster.member(survivor), "with two")
    assert [["with two"]] == await read_all(cluster)


# -- replication ---------------------------------------------------------------------------------


@consensus_test("simulated", size=5)
async def test_a_hundred_records_are_the_same_on_five_members(cluster: TestCluster) -> None:
    """C8: in the state of each, in what each reads, and by the digests of the whole state."""
    await cluster.wait_for_voters(5)
    leader = await cluster.wait_for_consensus()
    await append(cluster.member(leader), *range(100))

    assert [0, 1, 2, 3, 4] == await cluster.wait_for_equal_states()
    assert [list(range(100))] * 5 == [await held(member) for member in cluster.members]
    assert [list(range(100))] == await read_all(cluster)


@consensus_test("simulated", "processes", size=3, data_dir=DISK, consistent=PATIENT)
async def test_a_follower_that_was_down_catches_up_in_order(cluster: TestCluster) -> None:
    """C9, C21: with what was there before, and the ten that it missed, which the leader tells as its lag."""
    follower, _ = others(cluster, await cluster.wait_for_consensus())
    missing = (await cluster.member(follower).raft()).replica
    async with observer(cluster) as member:
        await append(member, *range(10))
    await cluster.wait_for_equal_states()
    await cluster.kill(follower)
    async with observer(cluster) as member:
        await append(member, *range(10, 20))
    await cluster.wait_for_equal_states()

    async def is_told() -> bool:
        leader = (
            await cluster.wait_for_leader()
        )  # Not always the first one: machines are slow at times.
        lag = dict((await cluster.member(leader).raft()).lag)
        return lag.pop(missing or "", 0) >= 10 and [0] == list(lag.values())

    await cluster.eventually(is_told, what="the lag of who is down, and of nobody else")
    await cluster.restart(follower, keep_disk=True)

    assert [0, 1, 2] == await cluster.wait_for_equal_states()
    async with observer(cluster) as member:
        assert list(range(20)) == await read(member)


@pytest.mark.sim
@settings(max_examples=15)
@given(messages=st.lists(st.binary(min_size=1, max_size=1024), min_size=1, max_size=50))
def test_any_messages_replicate_equal_and_in_order(messages: list[bytes]) -> None:
    """C10: 1 to 50 of 1 to 1024 bytes, on every member."""

    async def scenario(cluster: TestCluster) -> None:
        leader = await cluster.wait_for_consensus()
        await append(cluster.member(leader), *messages)
        await cluster.wait_for_equal_states()

        assert [messages] * 3 == [await held(member) for member in cluster.members]

    run_cluster(scenario, size=3, partition_count=8, consistent=AT_START)


# -- looking, and cleaning up --------------------------------------------------------------------


@consensus_test("processes", size=3)
async def test_members_in_processes_say_what_they_are_and_whether_they_live(
    cluster: TestCluster,
) -> None:
    """C21, C22: by the member client and on the command line; also when one dies by itself."""
    leader = await cluster.wait_for_consensus()
    infos = {member.index: await member.raft() for member in cluster.members}
    assert ["follower", "follower", "leader"] == sorted(str(info.role) for info in infos.values())
    assert {infos[leader].replica} == {info.leader for info in infos.values()}
    assert all(0 < info.applied <= info.commit for info in infos.values())
    assert set(infos[leader].lag) == set(infos[leader].voters) - {infos[leader].replica}
    said = await command_line("raft", "info", "--at", cluster.member(leader).address)
    assert f"leader       {infos[leader].replica}" in said

    process: Any = cluster.member(leader)._backend  # Any: of the processes world
    assert await cluster.is_alive(leader)
    os.kill(process.process.pid, signal.SIGKILL)
    await process.wait()
    assert not await cluster.is_alive(leader)
    await cluster.kill(leader)
    await cluster.restart(leader)
    assert await cluster.is_alive(leader)
    await cluster.pause(leader)
    assert not await cluster.is_alive(leader)
    await cluster.resume(leader)
    assert await cluster.is_alive(leader)


async def command_line(*arguments: str) -> str:
    """Run `cache` and return what it prints."""
    command = [sys.executable, "-m", "cache", *arguments]
    done = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, check=True
    )
    return done.stdout


def files_in(folder: str) -> list[str]:
    """Return the names of what is there."""
    return sorted(entry.name for entry in Path(folder).iterdir())


@pytest.mark.processes
def test_a_test_that_fails_leaves_nothing_behind() -> None:
    """C23: no process, port, folder or thread."""
    left: dict[str, list[Any]] = {"pids": [], "addresses": [], "folders": []}
    threads = threading.active_count()

    async def scenario(cluster: TestCluster) -> None:
        world: Any = cluster._world  # Any: the processes world
        left["folders"] = [world._folder.name]
        for member in cluster.members:
            backend: Any = member._backend  # Any: of that world
            left["pids"].append(backend.process.pid)
            left["addresses"].append(member.address)
            assert files_in(world.data_dir(member.index))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_cluster(scenario, world="processes", size=2, data_dir=DISK)

    assert [False] == [Path(folder).exists() for folder in left["folders"]]
    assert 2 == len(left["pids"])
    for pid in left["pids"]:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    for address in left["addresses"]:
        host, port = address.rsplit(":", 1)
        with socket.socket() as free:
            free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            free.bind((host, int(port)))
    assert threads == threading.active_count()


@given(alive=st.integers(0, 50), dead=st.integers(0, 50))
def test_a_quorum_is_more_than_half(alive: int, dead: int) -> None:
    """C24: two disjoint quorums do not exist; without voters there is none."""
    size = alive + dead

    assert is_quorum(alive, size) == (alive > size / 2)
    assert not (is_quorum(alive, size) and is_quorum(dead, size))


# -- members that come and go, snapshots, leases -------------------------------------------------


@consensus_test("simulated", size=3)
async def test_voters_grow_to_five_and_shrink_to_three(cluster: TestCluster) -> None:
    """C25, reliability 17: two join, then the leader and another one leave; nothing is lost."""
    await cluster.wait_for_voters(3)
    await append(cluster.member(0), "three")
    for _ in range(2):
        await cluster.add_member()
    await cluster.wait_for_voters(5)
    await append(cluster.member(3), "five")
    for _ in range(2):
        receipt = await cluster.remove_member(await cluster.wait_for_consensus())
        assert receipt["complete"], receipt

    assert 3 == len(await cluster.wait_for_voters(3))
    await append(cluster.members[0], "three again")
    assert [["three", "five", "three again"]] == await read_all(cluster)


@consensus_test("simulated", size=3, data_dir=DISK, consistent=COMPACT)
async def test_all_restart_from_a_snapshot_and_the_log_behind_it(cluster: TestCluster) -> None:
    """C26: the log is cut off; what is in neither place twice is there once."""
    leader = await cluster.wait_for_consensus()
    await append(cluster.member(leader), *range(130))
    info = await cluster.member(leader).raft()
    assert 1 < info.first_index <= info.snapshot_index < info.last_index
    for index in others(cluster):
        await cluster.kill(index, power_loss=True)
    for index in range(3):
        await cluster.restart(index, keep_disk=True)
    await cluster.wait_for_consensus()

    assert [0, 1, 2] == await cluster.wait_for_equal_states()
    assert [list(range(130))] == await read_all(cluster)


@consensus_test("simulated", size=3, operation_timeout=1.0)
async def test_a_lease_read_needs_no_majority_and_ends_with_the_lease(cluster: TestCluster) -> None:
    """C27: asked on any member, answered by the leader; cut off, it refuses before others may lead."""
    leader = await cluster.wait_for_consensus()
    await append(cluster.member(leader), "x")
    assert ["x"] == await read(cluster.member(others(cluster, leader)[0]), lease=True)
    cluster.isolate(leader)
    assert ["x"] == await read(cluster.member(leader), lease=True)

    await cluster.sleep(LOCAL.raft.lease_duration)
    with pytest.raises(CacheError) as caught:
        await read(cluster.member(leader), lease=True)
    assert isinstance(caught.value, NoQuorumError)
    cluster.heal()
