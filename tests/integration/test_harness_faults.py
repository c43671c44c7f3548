"""Consensus on a network that is cut, slow or lossy: rows C11 to C20 of docs/consensus-rows.md."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from statistics import mean

import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from cache.cluster import ConsistentConfig
from cache.cluster.config import RaftConfig
from cache.errors import IndeterminateError, NoQuorumError
from cache.testing import TestCluster
from cache.testing.running import run_cluster
from tests.integration.counting import AT_START, consensus_test
from tests.integration.shared_log import (
    DISK,
    FIVE,
    LOCAL,
    SEVEN,
    SOON,
    STEPS_DOWN,
    Leaders,
    append,
    held,
    observer,
    others,
    read_all,
    refused,
    term_of,
)


async def role_of(cluster: TestCluster, index: int) -> str | None:
    """Return what a member says it is."""
    return (await cluster.member(index).raft()).role


# -- partitions ----------------------------------------------------------------------------------


@consensus_test("simulated", "processes", size=5, consistent=FIVE, faults=True)
async def test_three_of_five_go_on_and_two_do_not(cluster: TestCluster) -> None:
    """C11: the side with the majority has a leader and commits; on the other one nothing is committed."""
    await cluster.wait_for_voters(5)
    old = await cluster.wait_for_consensus()
    small = [old, others(cluster, old)[0]]
    large = others(cluster, *small)
    cluster.partition(small, large)

    await cluster.wait_for_no_leader(SOON, among=small)
    leader = await cluster.wait_for_consensus(SOON, among=large)
    commits = [(await cluster.member(index).raft()).commit for index in small]
    async with observer(cluster, among=large) as member:
        await append(member, *range(5))

    assert commits == [(await cluster.member(index).raft()).commit for index in small]
    assert (await cluster.member(leader).raft()).commit >= max(commits) + 5
    assert await cluster.leader(among=small) is None
    assert (True, False) == (
        await cluster.has_quorum(among=large),
        await cluster.has_quorum(among=small),
    )
    cluster.heal()
    assert [0, 1, 2, 3, 4] == await cluster.wait_for_equal_states()


@consensus_test("simulated", size=3, operation_timeout=1.0)
async def test_an_isolated_leader_steps_down_and_what_it_did_not_commit_is_gone(
    cluster: TestCluster,
) -> None:
    """C12: within one election timeout; its caller is told that it may be lost."""
    leader = await cluster.wait_for_consensus()
    await append(cluster.member(leader), "before")
    cluster.isolate(leader)
    losing = asyncio.ensure_future(refused(cluster, leader, "lost"))
    await cluster.wait_for_no_leader(STEPS_DOWN, among=[leader])
    info = await cluster.member(leader).raft()
    assert info.last_index > info.commit
    await cluster.wait_for_consensus(among=others(cluster, leader))
    await append(cluster.member(others(cluster, leader)[0]), "after")
    await losing
    cluster.heal()
    await cluster.wait_for_consensus()
    await cluster.wait_for_equal_states()

    assert [["before", "after"]] == await read_all(cluster)
    assert ["before", "after"] == await held(cluster.member(leader))


@consensus_test("simulated", size=6, operation_timeout=1.0)
async def test_of_two_halves_of_six_only_the_one_with_more_voters_commits(
    cluster: TestCluster,
) -> None:
    """C13: six members have five voters, so that three against three is no stalemate."""
    voters = await cluster.wait_for_voters(5)
    voting = [member.index for member in cluster.members if member.name in voters]
    [silent] = others(cluster, *voting)
    large, small = voting[:3], [*voting[3:], silent]
    leaders = Leaders(cluster)
    async with leaders.watch():
        cluster.partition(large, small)
        await cluster.wait_for_consensus(among=large)
        await cluster.wait_for_no_leader(among=small)
        await append(cluster.member(large[0]), "large")
        for index in small:
            await refused(cluster, index, "small")
        assert await cluster.leader(among=small) is None
        cluster.heal()
        await cluster.wait_for_consensus()

    await cluster.wait_for_equal_states()
    assert [["large"]] == await read_all(cluster)


@consensus_test("simulated", size=6, operation_timeout=1.0)
async def test_of_three_thirds_of_six_none_commits(cluster: TestCluster) -> None:
    """C13: no leader, nothing committed; healed, one leader and equal logs."""
    await cluster.wait_for_voters(5)
    await append(cluster.member(0), "before")
    cluster.partition([0, 1], [2, 3], [4, 5])
    await cluster.wait_for_no_leader(STEPS_DOWN)
    for index in (0, 2, 4):
        await refused(cluster, index, "within")
    assert await cluster.leader() is None
    cluster.heal()
    leader = await cluster.wait_for_consensus()
    await append(cluster.member(leader), "after")
    await cluster.wait_for_equal_states()

    assert [["before", "after"]] == await read_all(cluster)


@consensus_test("simulated", size=7, consistent=SEVEN)
async def test_members_of_one_side_still_talk(cluster: TestCluster) -> None:
    """C14: four of seven have a leader; the three see each other, and have none."""
    await cluster.wait_for_voters(7)
    four, three = [0, 1, 2, 3], [4, 5, 6]
    cluster.partition(four, three)
    await cluster.wait_for_consensus(among=four)
    await cluster.wait_for_no_leader(among=three)
    await append(cluster.member(0), "four")
    await refused(cluster, 4, "three")

    async def alone() -> bool:
        seen = [await cluster.member(index).members() for index in three]
        return seen == [sorted(cluster.member(index).id for index in three)] * 3

    await cluster.eventually(alone, what="three members that see each other only")
    await cluster.member(4).map("users").set("ada", 1)
    assert 1 == await cluster.member(6).map("users").get("ada")


@consensus_test("simulated", size=5, consistent=FIVE)
async def test_a_leader_that_hears_nobody_is_replaced(cluster: TestCluster) -> None:
    """C15, reliability 20: it sends on, which keeps the others quiet until it steps down."""
    await cluster.wait_for_voters(5)
    leader = await cluster.wait_for_consensus()
    term = await term_of(cluster, leader)
    rest = others(cluster, leader)
    cut_at = cluster.now()
    for index in rest:
        cluster.cut(index, leader)
    await cluster.wait_for_no_leader(STEPS_DOWN, among=[leader])
    successor = await cluster.wait_for_consensus(among=rest)

    assert cluster.now() - cut_at <= 4 * LOCAL.raft.election_timeout_max
    assert successor != leader
    assert await term_of(cluster, successor) <= term + 3
    await append(cluster.member(successor), "on")
    cluster.heal()
    await cluster.wait_for_consensus()


@consensus_test("simulated", size=5, consistent=FIVE)
async def test_a_leader_that_nobody_hears_is_replaced(cluster: TestCluster) -> None:
    """C15, reliability 20: the other direction."""
    await cluster.wait_for_voters(5)
    leader = await cluster.wait_for_consensus()
    term = await term_of(cluster, leader)
    rest = others(cluster, leader)
    cut_at = cluster.now()
    for index in rest:
        cluster.cut(leader, index)
    successor = await cluster.wait_for_consensus(among=rest)

    assert cluster.now() - cut_at <= 4 * LOCAL.raft.election_timeout_max
    assert await term_of(cluster, successor) <= term + 3
    await append(cluster.member(successor), "on")
    cluster.heal()
    await cluster.wait_for_consensus()


@consensus_test("simulated", size=5, consistent=FIVE)
async def test_a_follower_that_hears_nobody_raises_no_term(cluster: TestCluster) -> None:
    """C15, reliability 19: for a minute, and when it is back: it asks before it campaigns."""
    await cluster.wait_for_voters(5)
    leader = await cluster.wait_for_consensus()
    term = await term_of(cluster, leader)
    deaf = others(cluster, leader)[0]
    for index in others(cluster, deaf):
        cluster.cut(index, deaf)
    await cluster.sleep(60.0)
    assert (term, "leader") == (await term_of(cluster, leader), await role_of(cluster, leader))
    assert term == await term_of(cluster, deaf)
    cluster.heal()

    assert leader == await cluster.wait_for_consensus()
    assert term == await term_of(cluster, deaf)


@consensus_test("simulated", size=5, consistent=FIVE)
async def test_a_network_that_flaps_leaves_one_leader_that_stays(cluster: TestCluster) -> None:
    """C16: five times; one election for each at most, and none when it is over."""
    await cluster.wait_for_voters(5)
    before = await term_of(cluster, await cluster.wait_for_consensus())
    for _ in range(5):
        leader = await cluster.wait_for_leader()
        cluster.partition([leader, others(cluster, leader)[0]], others(cluster, leader)[1:])
        await cluster.sleep(1.0)
        cluster.heal()
        await cluster.sleep(0.3)
    leader = await cluster.wait_for_consensus()
    term = await term_of(cluster, leader)
    await cluster.sleep(3.0)

    assert (leader, term) == (await cluster.wait_for_consensus(), await term_of(cluster, leader))
    assert before + 5 <= term <= before + 10
    await append(cluster.member(leader), "after")


# -- links and seeds -----------------------------------------------------------------------------


@consensus_test("simulated", size=3)
async def test_latency_is_felt_by_each_append(cluster: TestCluster) -> None:
    """C17: one way to a follower and one back; sockets and processes: test_link_faults.py."""
    leader = await cluster.wait_for_consensus()
    member = cluster.member(leader)
    await append(member, "quick")
    begun = cluster.now()
    await append(member, "quick")
    quick = cluster.now() - begun
    for index in others(cluster, leader):
        cluster.link(leader, index, latency=0.03)
        cluster.link(index, leader, latency=0.03)
    begun = cluster.now()
    await append(member, "slow")

    assert 0.06 <= cluster.now() - begun <= 0.06 + 2 * quick + 0.02
    assert leader == await cluster.wait_for_consensus()
    assert [["quick", "quick", "slow"]] == await read_all(cluster)


@consensus_test("simulated", size=3)
async def test_loss_and_narrow_links_lose_nothing(cluster: TestCluster) -> None:
    """C17: a fifth of all packets lost, 100 kB a second."""
    leader = await cluster.wait_for_consensus()
    for index in others(cluster, leader):
        cluster.link(leader, index, loss=0.2, bandwidth=100_000.0)
        cluster.link(index, leader, loss=0.2, bandwidth=100_000.0)
    await append(cluster.member(others(cluster, leader)[0]), *range(50))

    await cluster.wait_for_equal_states()
    assert [list(range(50))] == await read_all(cluster)


@pytest.mark.sim
def test_a_seed_gives_one_run() -> None:
    """C18: step for step, faults included; another seed gives another one."""

    async def scenario(cluster: TestCluster) -> None:
        leader = await cluster.wait_for_consensus()
        cluster.isolate(leader)
        successor = await cluster.wait_for_consensus(among=others(cluster, leader))
        await append(cluster.member(successor), *range(10))
        cluster.heal()
        await cluster.wait_for_equal_states()

    traces = [run_cluster(scenario, seed=seed, consistent=AT_START) for seed in (1, 1, 2)]
    assert traces[0] == traces[1] != traces[2]


@pytest.mark.sim
@settings(max_examples=15, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@example(
    size=5, seed=5548, steps=[("kill", 0), ("cut", 3), ("restart", 0), ("kill", 2), ("kill", 1)]
)
@example(size=4, seed=258, steps=[("cut", 1)])
@example(size=3, seed=1284, steps=[("cut", 0), ("cut", 1), ("cut", 0)])
@given(
    size=st.integers(3, 7),
    seed=st.integers(0, 2**16),
    steps=st.lists(
        st.tuples(st.sampled_from(["kill", "kill", "restart", "cut", "heal"]), st.integers(0, 6)),
        min_size=1,
        max_size=8,
    ),
)
def test_a_majority_that_is_connected_goes_on_and_nobody_else_does(
    size: int, seed: int, steps: list[tuple[str, int]]
) -> None:
    """C19: after each kill, restart, cut; never two leaders in a term, nothing acknowledged is lost."""
    config = replace(SEVEN if size == 7 else LOCAL, replace_after=600.0, expected_size=size)

    async def scenario(cluster: TestCluster) -> None:
        await cluster.wait_for_voters(size - 1 if size in (4, 6) else size)
        await Schedule(cluster).run(steps)

    run_cluster(
        scenario, size=size, seed=seed, data_dir=DISK, consistent=config, operation_timeout=1.0
    )


class Schedule:
    """Lets things happen to a cluster, and says after each of them who must go on, and who must not."""

    def __init__(self, cluster: TestCluster) -> None:
        self._cluster = cluster
        self._all = others(cluster)
        self._alone: int | None = None
        self._acknowledged: list[int] = []
        self._count = 0

    async def run(self, steps: list[tuple[str, int]]) -> None:
        """Do all steps, with a look at each of them, and at the whole when it is healed."""
        leaders = Leaders(self._cluster)
        async with leaders.watch():
            for what, number in steps:
                await self._step(what, self._all[number % len(self._all)])
                await self._judge()
            await self._step("heal", 0)
            for index in self._all:
                await self._step("restart", index)
            await self._judge()
        await self._cluster.wait_for_equal_states()
        await self._cluster.wait_for_convergence()
        [records] = await read_all(self._cluster)
        assert self._acknowledged == [one for one in records if one in self._acknowledged]

    async def _step(self, what: str, index: int) -> None:
        cluster, running = self._cluster, others(self._cluster)
        if what == "kill" and index in running and len(running) > 1:
            await cluster.kill(index, power_loss=True)
        elif what == "restart" and index not in running:
            await cluster.restart(index, keep_disk=True)
        elif what == "cut" and index in running and len(running) > 1:
            self._cut_off(index)
        elif what == "heal":
            cluster.set_cuts([])
            self._alone = None

    async def _commit(self, side: list[int]) -> None:
        """There is a commit in time; a leader that is seen first may just be losing its majority."""
        latest = self._cluster.now() + GOES_ON
        while True:
            leader = await self._cluster.wait_for_consensus(GOES_ON, among=side)
            self._count += 1
            try:
                await append(self._cluster.member(leader), self._count)
            except (NoQuorumError, IndeterminateError):
                assert self._cluster.now() < latest, f"nothing was committed among {side}"
            else:
                self._acknowledged.append(self._count)
                return

    def _cut_off(self, index: int) -> None:
        """Cut a member off from all others, also from those that are down and come back."""
        rest = [other for other in self._all if other != index]
        self._cluster.set_cuts(
            [pair for other in rest for pair in ((index, other), (other, index))]
        )
        self._alone = index

    async def _judge(self) -> None:
        """Hold each side to what it has to do: a majority of the voters goes on, nobody else does."""
        running = others(self._cluster)
        together = [index for index in running if index != self._alone]
        for side in (together, [index for index in running if index == self._alone]):
            if not side:
                continue
            if await self._cluster.has_quorum(among=side):
                await self._commit(side)
            else:
                await self._cluster.wait_for_no_leader(STEPS_DOWN, among=side)
                await refused(self._cluster, side[0], "refused")
                assert await self._cluster.leader(among=side) is None


GOES_ON = 6 * LOCAL.raft.election_timeout_max
"""Seconds in which a majority has a leader: a replica that restarted keeps quiet for one timeout."""


@pytest.mark.sim
def test_elections_take_as_long_as_their_timeouts() -> None:
    """C20: local, LAN and WAN settings, from the leader's death to the next leader."""

    def measure(raft: RaftConfig, seed: int) -> float:
        taken: list[float] = []
        config = ConsistentConfig(
            raft=raft, replace_after=600.0, session_ttl=30.0, found_at_start=True
        )

        async def scenario(cluster: TestCluster) -> None:
            leader = await cluster.wait_for_consensus()
            begun = cluster.now()
            await cluster.kill(leader)
            await cluster.wait_for_leader()
            taken.append(cluster.now() - begun)

        run_cluster(scenario, seed=seed, partition_count=8, consistent=config)
        return taken[0]

    settings_of = (RaftConfig.local(), RaftConfig.lan(), RaftConfig.wan())
    local, lan, wan = (mean(measure(raft, seed) for seed in range(8)) for raft in settings_of)

    for raft, taken in zip(settings_of, (local, lan, wan), strict=True):
        shortest = raft.election_timeout_min - raft.heartbeat_interval
        assert shortest <= taken <= 2 * raft.election_timeout_max
    assert 4.0 <= lan / local <= 10.0
    assert 2.0 <= wan / lan <= 4.5
