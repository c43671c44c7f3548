"""A replicated log as the tests of consensus produce to it and consume from it, in every world.

Where members live in the test's process, each is called itself. Members in other processes are reached
through a node of the test's own, which holds no data and has no replica.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from cache.cluster import ConsistentConfig, ConsistentLog, Node
from cache.cluster.config import RaftConfig
from cache.cluster.consistent.state.commands import LogRead, decode_answer, encode
from cache.cluster.raft.hosted import Hosted
from cache.cluster.raft.messages import GroupId
from cache.errors import IndeterminateError, NoQuorumError
from cache.testing import MemberHandle, TestCluster
from cache.testing.worlds.processes import ProcessesWorld
from tests.integration.counting import AT_START

NAME = "events"

LOCAL = AT_START
ELECTION_MAX = 2 * LOCAL.raft.election_timeout_max
"""Seconds in which a leader is elected, in the simulated world: two timeouts, because votes may split."""

DISK = "kept"
"""A `data_dir`; its name does not matter."""

SOON = 30.0
"""Seconds for what takes real processes on a busy machine long."""

STEPS_DOWN = LOCAL.raft.election_timeout_max + 0.1
"""Seconds after which a leader that hears from no majority leads no more, in the simulated world."""

PATIENT = ConsistentConfig.local(found_at_start=True, replace_after=600.0)
"""Nobody takes the place of a dead voter."""

SEVEN = ConsistentConfig.local(found_at_start=True, expected_size=4, voters=7, replace_after=600.0)
FIVE = ConsistentConfig.local(found_at_start=True, expected_size=3, voters=5, replace_after=600.0)
COMPACT = ConsistentConfig.local(
    found_at_start=True, raft=RaftConfig(snapshot_interval=50, snapshot_trailing=10)
)


def log_of(node: Node) -> ConsistentLog[Any]:
    """Return the log of a node."""
    return node.consistent.log(NAME)


async def append(member: MemberHandle, *values: Any) -> int:  # Any: records
    """Append records by a member, one after another; return the offset of the last."""

    async def produce(node: Node) -> int:
        offset = -1
        for value in values:
            offset = await log_of(node).append(value)
        return offset

    return await member.run(produce)


async def read(member: MemberHandle, *, lease: bool = False) -> list[Any]:  # Any: records
    """Return all records, as a member reads them."""

    async def consume(node: Node) -> list[Any]:  # Any: records
        page = await log_of(node).read(0, 1000, lease=lease)
        return [record.value for record in page.records]

    return await member.run(consume)


async def read_all(cluster: TestCluster) -> list[list[Any]]:
    """Return what each running member reads, each list once.  # Any: records."""
    lists: list[list[Any]] = []  # Any: records
    for member in cluster.members:
        if (records := await read(member)) not in lists:
            lists.append(records)
    return lists


async def collect(member: MemberHandle, count: int) -> list[tuple[int, Any]]:
    """Subscribe from the beginning; return so many records with their offsets.  # Any: records."""

    async def consume(node: Node) -> list[tuple[int, Any]]:  # Any: records
        seen: list[tuple[int, Any]] = []  # Any: records
        async for record in log_of(node).subscribe():
            seen.append((record.offset, record.value))
            if len(seen) == count:
                break
        return seen

    return await member.run(consume)


async def hosted(member: MemberHandle) -> Hosted:
    """Return the group on a member, to look inside."""

    async def look(node: Node) -> Hosted:
        return node._consensus.host.groups[GroupId("main")]

    return await member.run(look)


async def held(member: MemberHandle) -> list[Any]:
    """Return the records that the replica on a member has applied, without asking others.  # Any: records."""

    async def look(node: Node) -> list[Any]:  # Any: records
        access = log_of(node)._access
        machine = node._consensus.host.groups[GroupId("main")]._machine
        assert machine is not None, f"{node!r} has no replica"
        answer = machine.query(encode(LogRead(access.name, 0, 1000, until_some=False)))
        assert answer is not None, "it is not to be held"
        said: Any = decode_answer(answer)  # Any: `Records`
        return [access.decode(value) for value in said.values]

    return await member.run(look)


@asynccontextmanager
async def observer(
    cluster: TestCluster, *, among: Sequence[int] | None = None
) -> AsyncIterator[MemberHandle]:
    """Give a member that can be called: one of these, or a node of the test's own beside processes."""
    members = [m for m in cluster.members if among is None or m.index in among]
    if not isinstance(cluster._world, ProcessesWorld):
        yield members[-1]
        return
    peers = tuple(member.address for member in members)
    config = cluster._config.with_changes(name="observer", peers=peers, data=False, data_dir=None)
    async with Node(config) as node:
        yield MemberHandle(
            index=-1, name="observer", member=node.id, address=node.address, backend=_Own(node)
        )


class _Own:
    """A node of the test's own, as the backend of a handle."""

    def __init__(self, node: Node) -> None:
        self.node = node

    async def run(self, function: Any) -> Any:  # Any: what coroutines send and yield
        return await function(self.node)

    async def call(self, map_name: str, method: str, arguments: Any) -> Any:
        raise NotImplementedError("the observer has no data")

    async def inspect(self, what: str) -> Any:  # Any: MessagePack values
        return self.node.inspect(what)

    async def drain(self) -> Any:
        raise NotImplementedError("the observer ends with its block")


async def term_of(cluster: TestCluster, index: int) -> int:
    """Return the term a member is in."""
    return (await cluster.member(index).raft()).term


async def refused(cluster: TestCluster, index: int, value: str) -> None:
    """Append on a member that cannot reach a majority; it must not say that it did."""
    with pytest.raises((NoQuorumError, IndeterminateError)):
        await append(cluster.member(index), value)


class Leaders:
    """Watches who says it leads in which term; two in one term fail the test at once."""

    def __init__(self, cluster: TestCluster) -> None:
        self._cluster = cluster
        self.by_term: dict[int, str] = {}
        self.highest_term = 0

    async def look(self) -> None:
        """Take in what members say now."""
        for member in self._cluster.members:
            info = await member.raft()
            self.highest_term = max(self.highest_term, info.term)
            if info.role == "leader" and info.replica is not None:
                known = self.by_term.setdefault(info.term, info.replica)
                assert known == info.replica, f"two leaders in term {info.term}"

    @asynccontextmanager
    async def watch(self) -> AsyncIterator[None]:
        """Look every 10 ms while the block runs."""

        async def forever() -> None:
            while True:
                await self.look()
                await self._cluster.sleep(0.01)

        watching = asyncio.ensure_future(forever())
        try:
            yield
            assert not watching.done(), watching.exception()
        finally:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching


def others(cluster: TestCluster, *indexes: int) -> list[int]:
    """Return the running members but these."""
    return [member.index for member in cluster.members if member.index not in indexes]
