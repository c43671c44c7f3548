"""`TestCluster` itself: members by index, waits that explain, faults that must count, one trace."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from unittest.mock import AsyncMock

import pytest

from cache.cluster.config import ClusterConfig
from cache.errors import CacheError
from cache.testing.cluster import TestCluster
from cache.testing.running import cluster_test, default_seed, run_cluster
from cache.testing.sim.world import ProcessKilledError
from cache.testing.worlds.sockets import SocketsWorld

ROOT = Path(__file__).resolve().parents[3]
CLIENTS = 3
OPERATIONS = 15

Fault = Callable[[TestCluster], object]


def simulate(
    scenario: Callable[[TestCluster], Awaitable[None]], size: int = 3, seed: int = 0
) -> str:
    """Run a scenario on a small simulated cluster and return its trace hash."""
    trace = run_cluster(scenario, size=size, seed=seed, partition_count=16, replica_count=2)
    assert trace is not None
    return trace


# -- one seed, one run ---------------------------------------------------------------------------


async def load(cluster: TestCluster, client: int) -> None:
    """Write and read through a member that stays alive, whatever happens to another one."""
    entries = cluster.member(client % 2).map("load")
    for number in range(OPERATIONS):
        try:
            await entries.set(f"{client}-{number}", number)
            await entries.get(f"{client - 1}-{number}")
        except (CacheError, ProcessKilledError):
            pass  # An operation may fail during a crash; that it does is part of the trace.
        await cluster.sleep(0.05)


def outcome(seed: int) -> str:
    """Return the trace, and the final tables, members and copies, of a run with load and a crash."""
    final: list[object] = []

    async def scenario(cluster: TestCluster) -> None:
        async with asyncio.TaskGroup() as group:
            for client in range(CLIENTS):
                group.create_task(load(cluster, client))
            await cluster.sleep(0.3)
            await cluster.kill(2)
        await cluster.wait_for_convergence(2)
        final.extend([await member.members() for member in cluster.members])
        final.extend([await member.inspect("table") for member in cluster.members])
        final.append(sorted((await cluster.key_copies("load")).items()))
        final.append(cluster.now())

    return f"{simulate(scenario, seed=seed)} {final}"


def outcome_under_hash_seed(hash_seed: int) -> str:
    """Return `outcome(1)` as a fresh interpreter with that PYTHONHASHSEED finds it."""
    code = f"import sys, {__name__} as t; sys.stdout.write(t.outcome(1))"
    environment = {**os.environ, "PYTHONHASHSEED": str(hash_seed)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout


def test_the_same_seed_gives_the_same_run() -> None:
    """Load and a crash included: every step, the final table, members and copies are alike."""
    assert outcome(1) == outcome(1)


def test_different_seeds_give_different_traces() -> None:
    """Otherwise a campaign of seeds would be one run."""
    traces = {outcome(seed).split()[0] for seed in range(1, 4)}

    assert 3 == len(traces)


def test_the_hash_seed_of_the_interpreter_changes_nothing() -> None:
    """No order may come from a set of texts: PYTHONHASHSEED=1 and =2 give the same run."""
    expected = outcome(1)

    assert expected == outcome_under_hash_seed(1)
    assert expected == outcome_under_hash_seed(2)


# -- members by index ----------------------------------------------------------------------------


def test_members_are_numbered_in_order_of_start() -> None:
    """Index, name and position agree, and every member has an id of its own."""

    async def scenario(cluster: TestCluster) -> None:
        added = await cluster.add_member()

        assert 3 == added.index
        assert [0, 1, 2, 3] == [member.index for member in cluster.members]
        assert ["m0", "m1", "m2", "m3"] == [member.name for member in cluster.members]
        assert 4 == len({member.id for member in cluster.members})

    simulate(scenario)


def test_a_killed_member_is_no_member_any_more() -> None:
    """The others keep their indexes, and agree that it is gone."""

    async def scenario(cluster: TestCluster) -> None:
        await cluster.kill(1)
        await cluster.wait_for_convergence(2)

        assert [0, 2] == [member.index for member in cluster.members]
        assert [cluster.member(0).id, cluster.member(2).id] == await cluster.member(0).members()

    simulate(scenario)


def test_a_removed_member_leaves_with_a_receipt() -> None:
    """A graceful leave is told apart from a kill."""

    async def scenario(cluster: TestCluster) -> None:
        receipt = await cluster.remove_member(2)
        await cluster.wait_for_convergence(2)

        assert receipt
        assert [0, 1] == [member.index for member in cluster.members]

    simulate(scenario)


def test_a_restarted_member_is_another_life_on_the_same_address() -> None:
    """`MemberId` is one life: name and address stay, the id changes."""

    async def scenario(cluster: TestCluster) -> None:
        before = cluster.member(2)
        await cluster.kill(2)
        after = await cluster.restart(2)
        await cluster.wait_for_convergence(3)

        assert (before.index, before.name, before.address) == (
            after.index,
            after.name,
            after.address,
        )
        assert before.id != after.id

    simulate(scenario)


def test_a_running_member_cannot_be_restarted() -> None:
    """A test that forgot its `kill` is told so."""

    async def scenario(cluster: TestCluster) -> None:
        await cluster.restart(0)

    with pytest.raises(AssertionError, match="member 0 is running"):
        simulate(scenario, size=1)


def test_a_member_that_never_was_cannot_be_killed() -> None:
    """A fault on nobody must not pass."""

    async def scenario(cluster: TestCluster) -> None:
        await cluster.kill(7)

    with pytest.raises(KeyError):
        simulate(scenario, size=1)


def test_a_paused_member_answers_when_it_is_resumed() -> None:
    """A pause is not a crash: a call through it waits, and then succeeds."""

    async def scenario(cluster: TestCluster) -> None:
        await cluster.pause(0)
        asyncio.get_running_loop().call_later(5, lambda: asyncio.ensure_future(cluster.resume(0)))
        began = cluster.now()
        await cluster.member(0).map("m").set("key", 1)

        assert 5 <= cluster.now() - began < 6

    simulate(scenario, size=1)


def test_copies_names_the_members_that_really_hold_a_key() -> None:
    """Two copies of three members, and the owner is one of them."""

    async def scenario(cluster: TestCluster) -> None:
        await cluster.member(0).map("m").set("key", 1)

        assert 2 == len(await cluster.copies("m", "key"))
        assert [] == await cluster.copies("m", "other")
        assert [await cluster.copies("m", "key")] == list((await cluster.key_copies("m")).values())

    simulate(scenario)


# -- waits ---------------------------------------------------------------------------------------


def test_a_wait_that_times_out_says_what_each_member_saw() -> None:
    """The message names the condition, its time, and the view of every member."""

    async def scenario(cluster: TestCluster) -> None:
        await cluster.wait_for_convergence(4, timeout=5)

    with pytest.raises(AssertionError, match="convergence of 4 members") as caught:
        simulate(scenario)

    message = str(caught.value)
    assert "within 5 s" in message
    for index in range(3):
        assert re.search(rf"<member {index} m{index} at .*> sees \['m0:alive', 'm1", message)


def test_a_wait_ends_as_soon_as_its_condition_holds() -> None:
    """Not at its deadline."""

    async def scenario(cluster: TestCluster) -> None:
        ready_at = cluster.now() + 1

        async def ready() -> bool:
            return cluster.now() >= ready_at

        await cluster.eventually(ready, within=60)

        assert ready_at <= cluster.now() < ready_at + 0.1

    simulate(scenario, size=1)


def test_a_wait_lasts_as_long_as_it_was_given() -> None:
    """The deadline is in the world's own time."""

    async def scenario(cluster: TestCluster) -> None:
        began = cluster.now()

        async def never() -> bool:
            return False

        with pytest.raises(AssertionError, match="a miracle did not happen within 3"):
            await cluster.eventually(never, within=3, what="a miracle")

        assert 3 <= cluster.now() - began < 3.1

    simulate(scenario, size=1)


def test_a_cut_off_member_keeps_the_cluster_from_converging() -> None:
    """Convergence is agreement of all members, not of most."""

    async def scenario(cluster: TestCluster) -> None:
        cluster.isolate(2)
        await cluster.sleep(20)
        with pytest.raises(AssertionError, match="convergence"):
            await cluster.wait_for_convergence(3, timeout=20)
        cluster.heal()
        await cluster.wait_for_convergence(3)

    simulate(scenario)


@pytest.mark.parametrize(
    ("reading", "value"),
    [("ready", False), ("members", 1), ("table_id", "another"), ("orphans", 1), ("unsettled", 1)],
)
def test_one_member_that_has_not_settled_is_enough_to_wait_for(reading: str, value: object) -> None:
    """Convergence asks every member: ready, the same members and table, no work left."""

    async def scenario(cluster: TestCluster) -> None:
        odd = cluster.member(1)
        status = {**await odd.inspect("status"), reading: value}
        odd.inspect = AsyncMock(return_value=status)  # type: ignore[method-assign]  # one answer
        odd.members = cluster.member(0).members  # type: ignore[method-assign]  # agreed upon

        assert not await cluster._converged(2)

    simulate(scenario, size=2)


# -- faults --------------------------------------------------------------------------------------


def test_a_heal_tells_how_much_the_cuts_stopped() -> None:
    """Gossip alone meets the cuts within seconds."""

    async def scenario(cluster: TestCluster) -> None:
        cluster.partition([0, 1], [2])
        await cluster.sleep(3)

        assert 0 < cluster.heal()

    simulate(scenario)


def test_a_heal_of_cuts_that_stopped_nothing_raises() -> None:
    """A fault call that affected nothing shows nothing."""

    async def scenario(cluster: TestCluster) -> None:
        cluster.cut(0, 1)
        cluster.heal()

    with pytest.raises(AssertionError, match=r"cuts \[\(0, 1\)\] stopped no traffic"):
        simulate(scenario, size=2)


def test_traffic_stopped_by_earlier_cuts_does_not_count_for_later_ones() -> None:
    """Each heal answers for its own cuts."""

    async def scenario(cluster: TestCluster) -> None:
        cluster.cut(0, 1)
        await cluster.sleep(3)
        cluster.heal()
        cluster.cut(0, 1)
        cluster.heal()

    with pytest.raises(AssertionError, match="stopped no traffic"):
        simulate(scenario, size=2)


def test_a_skewed_clock_keeps_members_from_nothing() -> None:
    """Five seconds of skew on one member leave its writes readable at the other."""

    async def scenario(cluster: TestCluster) -> None:
        cluster.clock(0, skew=5.0)
        await cluster.member(0).map("m").set("key", 1)

        assert 1 == await cluster.member(1).map("m").get("key")

    simulate(scenario, size=2)


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(lambda cluster: cluster.cut(0, 1), id="cut"),
        pytest.param(lambda cluster: cluster.partition([0], [1]), id="partition"),
        pytest.param(lambda cluster: cluster.set_cuts([(0, 1)]), id="set_cuts"),
        pytest.param(lambda cluster: cluster.link(0, 1, loss=1.0), id="link"),
        pytest.param(lambda cluster: cluster.mend(0, 1), id="mend"),
        pytest.param(lambda cluster: cluster.slow(0, 0.1), id="slow"),
        pytest.param(lambda cluster: cluster.clock(0, skew=1.0), id="clock"),
    ],
)
def test_a_fault_that_the_world_cannot_inject_skips(fault: Fault) -> None:
    """Real sockets have no such fault; the test must not pass without it."""
    cluster = TestCluster(0, world=SocketsWorld(), config=ClusterConfig.local())

    with pytest.raises(pytest.skip.Exception, match="real"):
        fault(cluster)


async def test_a_pause_that_the_world_cannot_inject_skips() -> None:
    """Nodes that share an event loop cannot be stopped one by one."""
    cluster = TestCluster(0, world=SocketsWorld(), config=ClusterConfig.local())

    with pytest.raises(pytest.skip.Exception, match="event loop"):
        await cluster.pause(0)
    with pytest.raises(pytest.skip.Exception, match="event loop"):
        await cluster.resume(0)


# -- running -------------------------------------------------------------------------------------


def test_a_failure_says_how_to_replay_its_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every failure prints its seed and the setting that replays it."""
    monkeypatch.setenv("CACHE_SEED", "4711")

    async def scenario(cluster: TestCluster) -> None:
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine") as caught:
        run_cluster(scenario, size=0)

    assert 4711 == default_seed()
    assert ["simulated with seed 4711: replay with CACHE_SEED=4711"] == caught.value.__notes__


def test_a_cluster_test_keeps_name_and_docstring_and_runs_in_each_world() -> None:
    """The scenario's sentence is the test's sentence."""

    async def test_something_holds(cluster: TestCluster) -> None:
        """The rule."""

    decorated = cluster_test()(test_something_holds)

    assert ("test_something_holds", "The rule.") == (decorated.__name__, decorated.__doc__)
    [mark] = decorated.pytestmark  # type: ignore[attr-defined]  # pytest puts it there
    assert [("simulated",), ("sockets",), ("processes",)] == [set_.values for set_ in mark.args[1]]
