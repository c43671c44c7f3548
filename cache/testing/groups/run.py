"""One run of the campaign of groups: faults and clients, then none, and whether the group keeps its word.

A group that keeps a majority of its logs has a leader and commits within `LIVENESS_BOUND`, on every member.
One that really lost it never says that something is done, and every call says what it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from cache.cluster.config import ConsistentConfig
from cache.cluster.config.raft import RaftConfig
from cache.cluster.node import Node
from cache.errors import CacheError, NoQuorumError
from cache.testing.cluster import TestCluster
from cache.testing.groups.load import OPERATION_TIMEOUT, GroupClients
from cache.testing.groups.logs import Replica, can_go_on, is_lost, replicas_of
from cache.testing.groups.nemesis import GroupNemesis
from cache.testing.groups.watch import Watch
from cache.testing.history import History
from cache.testing.result import Result
from cache.testing.schedule import Schedule

CONVERGENCE_BOUND: Final = 60.0
"""Virtual seconds after the last fault within which members see each other."""

LIVENESS_BOUND: Final = 3.0
"""Virtual seconds after that until a leader is there: ten of the longest election timeouts."""

EQUAL_BOUND: Final = 10.0
REPORT_BOUND: Final = 20.0
"""Seconds after which whoever has a replica of a group that is lost knows it."""

PARTITIONS: Final = 8
PACE: Final = 0.06
LOOK_INTERVAL: Final = 0.05
STATES_EVERY: Final = 8
CALM_BEFORE_END: Final = 0.5
LOST_TEXT: Final = "a majority of its logs is lost"


def settings_of(schedule: Schedule) -> Mapping[str, Any]:  # Any: fields of ClusterConfig
    """Return the settings of the members of a run."""
    interval = schedule.config.get("snapshots", 10_000)
    raft = RaftConfig(snapshot_interval=interval, snapshot_trailing=min(interval, 10))
    consistent = ConsistentConfig.local(
        found_at_start=True, expected_size=schedule.config.get("expected", 3), raft=raft
    )
    disk = {"data_dir": "kept"} if schedule.config.get("disk", 0) else {}
    return {
        "consistent": consistent,
        "operation_timeout": OPERATION_TIMEOUT,
        "partition_count": PARTITIONS,
        **disk,
    }


async def run_groups(cluster: TestCluster, result: Result) -> None:
    """Run one schedule; what breaks a promise is added to the result."""
    schedule, history = result.schedule, History()
    clients = GroupClients(cluster, history, schedule.seed, PACE)
    nemesis = GroupNemesis(cluster, schedule, history, clients)
    watch = Watch(cluster)
    await cluster.wait_for_consensus()
    await _under_faults(cluster, clients, nemesis, watch)
    await nemesis.restore()
    await cluster.wait_for_convergence(timeout=CONVERGENCE_BOUND)
    replicas = list((await replicas_of(cluster)).values())
    if can_go_on(replicas) or not nemesis.may_lose:
        await _goes_on(cluster, clients)
        fate = "groups that went on"
    elif is_lost(replicas):
        result.violations += await _says_lost(cluster, replicas)
        fate = "groups that were lost"
    else:
        fate = "groups of unclear fate"
    await watch.look(states=True)
    result.violations += watch.violations
    result.violations += await clients.check()
    result.counts = {**clients.counts(), fate: 1, "terms": len(watch.leaders)}
    result.faults, result.skipped = nemesis.done, nemesis.skipped


async def _under_faults(
    cluster: TestCluster, clients: GroupClients, nemesis: GroupNemesis, watch: Watch
) -> None:
    """Let faults and clients at it until the last fault is over."""
    watching = True

    async def look() -> None:
        count = 0
        while watching:
            await watch.look(states=count % STATES_EVERY == 0)
            count += 1
            await cluster.sleep(LOOK_INTERVAL)

    async with asyncio.TaskGroup() as group:
        group.create_task(clients.run(), name="clients")
        group.create_task(look(), name="look")
        await nemesis.run()
        await cluster.sleep(CALM_BEFORE_END)
        clients.stop()
        watching = False


async def _goes_on(cluster: TestCluster, clients: GroupClients) -> None:
    """Within the bound all replicas name one leader, each member commits and reads, all states are equal."""
    await cluster.wait_for_consensus(LIVENESS_BOUND)
    await clients.finish()
    await cluster.wait_for_equal_states(EQUAL_BOUND)


async def _says_lost(cluster: TestCluster, replicas: list[Replica]) -> list[str]:
    """Every member refuses in time; those with a replica say why."""
    logs = [replica.log for replica in replicas]

    async def add(node: Node) -> str:
        try:
            await node.consistent.counter("n").add(1)
        except NoQuorumError as error:
            return str(error)
        except CacheError as error:
            return f"{type(error).__name__}: {error}"
        return "it was done"

    texts: dict[int, str] = {}

    async def all_say_so() -> bool:
        for member in cluster.members:
            texts[member.index] = await member.run(add)
        told = [texts[m.index] for m in cluster.members if (await m.raft()).replica in logs]
        return all(LOST_TEXT in text for text in told)

    try:
        await cluster.eventually(
            all_say_so, within=REPORT_BOUND, what="members that say what is lost"
        )
    except AssertionError:
        return [f"a group that lost {logs} of its majority does not say so: {texts}"]
    return [f"member {n} says: {text}" for n, text in texts.items() if "did not answer" not in text]
