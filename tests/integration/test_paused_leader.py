"""A leader whose process is stopped (SIGSTOP): others lead, and it serves nothing old after that."""

from __future__ import annotations

import asyncio
from functools import partial

from cache.cluster import Node
from cache.cluster.consistent.state.commands import LogRead, Records, decode_answer, encode
from cache.cluster.raft.calls import Outcome
from cache.cluster.wire.messages import GroupAnswer, QueryGroup
from cache.testing import MemberHandle, TestCluster
from tests.integration.counting import consensus_test
from tests.integration.shared_log import append, log_of, observer, others, read

SOON = 30.0
"""Seconds for what takes real processes on a busy machine long."""


async def ask(member: MemberHandle, node: Node, uuid: str, *, lease: bool) -> int | None:
    """Ask this very member for all records, by what it knows of its leadership; return how many it says.

    None if it does not answer for the group.
    """
    data = encode(LogRead(log_of(node)._access.name, 0, 1000))
    question = QueryGroup("main", bytes.fromhex(uuid), data, 0.0, lease, SOON)
    answer = await node._rpc.call(member.address, question, timeout=2 * SOON)
    assert isinstance(answer, GroupAnswer)
    if answer.outcome != Outcome.DONE:
        return None
    said = decode_answer(answer.data)
    assert isinstance(said, Records)
    return len(said.values)


@consensus_test("simulated", "processes", size=3)
async def test_a_stopped_leader_serves_nothing_old_and_follows(cluster: TestCluster) -> None:
    """Questions that reached it while it stood still are what it sees first: by lease, and without."""
    leader = await cluster.wait_for_consensus(SOON)
    rest = others(cluster, leader)
    old = cluster.member(leader)
    before = await old.raft()
    async with observer(cluster, among=rest) as member:
        await append(member, "before")
        assert 1 == await member.run(lambda node: ask(old, node, before.uuid, lease=True))

        await cluster.pause(leader)
        successor = await cluster.wait_for_consensus(SOON, among=rest)
        await append(member, "after")
        asked = [member.run(partial(_ask_later, old, before.uuid, number)) for number in range(6)]
        waiting = asyncio.gather(*asked)
        await cluster.sleep(0.5)
        await cluster.resume(leader)
        counts = await waiting

        assert {None} == set(counts), "it answered for the group though others led"
        assert ["before", "after"] == await read(member)
        assert ["before", "after"] == await read(member, lease=True)

    last = await cluster.wait_for_consensus(SOON)
    infos = [await one.raft() for one in cluster.members]
    assert 1 == [info.role for info in infos].count("leader")
    assert (await cluster.member(last).raft()).term > before.term
    assert successor != leader


async def _ask_later(old: MemberHandle, uuid: str, number: int, node: Node) -> int | None:
    """Ask who stands still, by its lease and without."""
    return await ask(old, node, uuid, lease=number % 2 == 0)
