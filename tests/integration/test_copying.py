"""Copies of partitions made by columns: who may send them, what is taken, and what comes back."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from dataclasses import replace
from unittest.mock import patch

import pytest

from cache.cluster.ids import Address, MemberId
from cache.cluster.partitions.table import TableVersion
from cache.cluster.replication.entries import Entry
from cache.cluster.transport.rpc import Peer, RpcEndpoint
from cache.cluster.wire.messages import (
    NEVER,
    CopyEntries,
    FetchBuckets,
    FetchDigests,
    FetchVersions,
    OperationRecord,
    Replicated,
    Reply,
    Request,
)
from cache.codec import encode_key, encode_value
from cache.errors import NotOwnerError, RemoteProtocolError, UnavailableError
from cache.testing import TestCluster, cluster_test
from tests.integration.inside import node_of, run_on

KEYS = [encode_key(number) for number in range(3)]
VALUE = encode_value(5)
OWNER, HOLDER = 0, 1


async def copied(
    cluster: TestCluster, *, epoch: int = 0, hlc: int = 0, ttl: float = NEVER, partition: int = -1
) -> Replicated:
    """Let the holder take entries of a partition that the other member owns, as if that one sent them.

    `epoch` is added to the present one, `hlc` to a new stamp.
    """
    owner, holder = node_of(cluster, OWNER), node_of(cluster, HOLDER)
    partition = min(owner._replication.owned) if partition < 0 else partition
    row = owner.partition_table().rows[min(partition, len(owner.partition_table().rows) - 1)]
    stamp = owner._replication.stamp() + hlc
    message = CopyEntries(
        partition, row.epoch + epoch, ["users"], [3], KEYS, [VALUE] * 3, [stamp] * 3, [1], [ttl]
    )
    handler = holder._rpc._handlers[CopyEntries]
    reply = await run_on(cluster, HOLDER, lambda: handler(message, Peer(owner.id, None)))
    assert isinstance(reply, Replicated)
    return reply


def held(cluster: TestCluster) -> dict[bytes, Entry]:
    """Return what the holder's copy has."""
    partition = min(node_of(cluster, OWNER)._replication.owned)
    return dict(node_of(cluster, HOLDER)._replication.copy_of(partition).entries("users"))


@cluster_test("simulated", size=2, replica_count=2, partition_count=8)
async def test_what_an_owner_copies_is_taken(cluster: TestCluster) -> None:
    """All columns arrive in the copy; entries share the number of their origin."""
    reply = await copied(cluster)

    entries = held(cluster)
    assert Replicated([], []) == reply
    assert KEYS == list(entries)
    assert {VALUE} == {entry.value for entry in entries.values()}
    assert 1 == len({id(entry.origin) for entry in entries.values()})


@cluster_test("simulated", size=2, replica_count=2, partition_count=8)
async def test_what_must_not_be_taken_is_refused_whole(cluster: TestCluster) -> None:
    """Invariants 2 and 8, as for single writes."""
    with pytest.raises(NotOwnerError, match="is over"):
        await copied(cluster, epoch=-1)
    with pytest.raises(NotOwnerError, match="is outside"):
        await copied(cluster, partition=999)
    with pytest.raises(RemoteProtocolError, match="a day ahead"):
        await copied(cluster, hlc=10**9 << 16)

    assert {} == held(cluster)


@cluster_test("simulated", size=2, replica_count=2, partition_count=8)
async def test_a_later_epoch_fences_the_owner_before(cluster: TestCluster) -> None:
    """Invariant 2: an owner that was accepted once ends the earlier ones."""
    await copied(cluster, epoch=1)

    with pytest.raises(NotOwnerError, match="is over"):
        await copied(cluster)


@cluster_test("simulated", size=2, replica_count=2, partition_count=8)
async def test_a_stalled_holder_takes_nothing_that_ends(cluster: TestCluster) -> None:
    """Invariant 3: it does not know how long they waited for it."""
    replication = node_of(cluster, HOLDER)._replication
    replication.validity.until = 0.0
    with pytest.raises(UnavailableError, match="was stalled"):
        await copied(cluster, ttl=60.0)
    assert {} == held(cluster)

    replication.validity.until = 0.0
    await copied(cluster)

    assert KEYS == list(held(cluster))


@cluster_test("simulated", size=2, replica_count=2, partition_count=8)
async def test_what_is_later_here_comes_back_with_its_operations(cluster: TestCluster) -> None:
    """The owner has to learn of it, and that a retry of that operation had its effect."""
    replication = node_of(cluster, HOLDER)._replication
    replica = replication.copy_of(min(node_of(cluster, OWNER)._replication.owned))
    later = Entry(b"later", replication.stamp() + (1000 << 16), 7, 1e9)
    replica.apply("users", KEYS[1], later)
    done = OperationRecord(b"id", "users", KEYS[1], b"result")
    replica.operations.remember(done)

    reply = await copied(cluster)

    assert [(KEYS[1], b"later")] == [(record.key, record.value) for record in reply.newer]
    assert [done] == reply.operations
    assert later == replica.entry("users", KEYS[1])


@cluster_test("simulated", size=2, replica_count=2, partition_count=8, chunk_bytes=1024)
async def test_a_joining_member_is_brought_up_by_columns(cluster: TestCluster) -> None:
    """Values of all sizes, tombstones, times to live, several maps; and both copies are equal."""
    users, others = cluster.member(0).map("users"), cluster.member(0).map("others")
    values = {f"k{n}": bytes(n * n) for n in range(120)} | {"large": bytes(300_000)}
    await users.set_many(values)
    await others.set_many({f"k{n}": n for n in range(50)}, ttl=60.0)
    await users.delete_many([f"k{n}" for n in range(0, 120, 10)])
    await cluster.wait_for_convergence(2)

    await cluster.add_member()
    await cluster.wait_for_convergence(3)

    joined = node_of(cluster, 2)
    brought = [
        p for p, row in enumerate(joined.partition_table().rows) if joined.id in row.replicas
    ]
    served = joined.stats().readings["rpc.requests"]
    assert brought
    assert served > len(brought)
    for partition in brought:
        owner = node_of(cluster, await cluster.owner_of(partition))
        mine, theirs = (n._replication.copies[partition] for n in (joined, owner))
        assert mine.digest() == theirs.digest()
        assert mine.entry_count == theirs.entry_count
        assert {name: dict(mine.entries(name)).keys() for name in mine.map_names()} == {
            name: dict(theirs.entries(name)).keys() for name in theirs.map_names()
        }


@cluster_test(
    "simulated", size=1, replica_count=2, partition_count=16, chunk_bytes=1024, chunk_window=3
)
async def test_as_many_chunks_are_under_way_as_the_window_has_room_for(
    cluster: TestCluster,
) -> None:
    """`chunk_window` holds for all partitions that one member sends to another, and is made use of."""
    await cluster.member(0).map("users").set_many({f"k{n}": bytes(100) for n in range(1000)})
    under_way: Counter[Address] = Counter()
    most: Counter[Address] = Counter()
    call = RpcEndpoint.call

    def counted(
        rpc: RpcEndpoint, to: Address, request: Request, *, timeout: float
    ) -> asyncio.Future[Reply]:
        answer = call(rpc, to, request, timeout=timeout)
        if isinstance(request, CopyEntries):
            under_way[to] += 1
            most[to] = max(most[to], under_way[to])
            answer.add_done_callback(lambda _: under_way.subtract([to]))
        return answer

    with patch.object(RpcEndpoint, "call", counted):
        await cluster.add_member()
        await cluster.wait_for_convergence(2)

    assert [3] == list(most.values())


@cluster_test("simulated", size=1, replica_count=2, partition_count=16)
async def test_an_empty_copy_is_asked_nothing_more(cluster: TestCluster) -> None:
    """That it has nothing was said when digests were compared."""
    await cluster.member(0).map("users").set_many({f"k{n}": n for n in range(100)})
    sent: Counter[type] = Counter()
    call = RpcEndpoint.call

    def counted(
        rpc: RpcEndpoint, to: Address, request: Request, *, timeout: float
    ) -> asyncio.Future[Reply]:
        sent[type(request)] += 1
        return call(rpc, to, request, timeout=timeout)

    with patch.object(RpcEndpoint, "call", counted):
        await cluster.add_member()
        await cluster.wait_for_convergence(2)

    assert sent[FetchDigests] > 0
    assert 16 == sent[CopyEntries]
    assert (0, 0) == (sent[FetchBuckets], sent[FetchVersions])


@cluster_test("simulated", size=2, replica_count=2, partition_count=8, anti_entropy_interval=1.0)
async def test_what_only_another_copy_has_is_fetched(cluster: TestCluster) -> None:
    """A copy that is not empty is asked what is in it; only an empty one is sent everything."""
    owner, holder = node_of(cluster, OWNER)._replication, node_of(cluster, HOLDER)._replication
    partition = min(owner.owned)
    entry = Entry(VALUE, owner.stamp(), 7, math.inf)
    holder.copy_of(partition).apply("users", KEYS[0], entry)

    async def is_equal() -> bool:
        return owner.copies[partition].entry("users", KEYS[0]) == entry

    await cluster.eventually(is_equal, within=10.0, what="equal copies")


@cluster_test("simulated", size=2, replica_count=2, partition_count=8)
async def test_a_member_with_another_table_is_sent_all_of_it(cluster: TestCluster) -> None:
    """Changes are refused by whoever has not what they change; then the whole table comes at once."""
    coordinator, other = node_of(cluster, 0)._partitions, node_of(cluster, 1)
    table = coordinator.table
    coordinator._confirmed[other.id] = replace(table, id=TableVersion(1, MemberId("x#1")))
    coordinator._coordinator.table = replace(
        table, id=TableVersion(table.id.version + 1, table.id.coordinator)
    )
    member = next(m for m in node_of(cluster, 0).members() if m.id == other.id)

    assert await run_on(cluster, 0, lambda: coordinator._push_once(member))
    assert coordinator.table == other.partition_table()


@cluster_test("simulated", size=2, replica_count=2, partition_count=8)
async def test_a_released_partition_whose_row_stays_is_served_again(cluster: TestCluster) -> None:
    """A hand-over that the next table does not make is over with that table."""
    replication = node_of(cluster, OWNER)._replication
    partition, table = min(replication.owned), replication.partitions.table
    released = await run_on(cluster, OWNER, lambda: replication.yielding.release([partition]))
    assert ([partition], None) == (released, replication.serving[partition])

    replication._on_table(table, replace(table, id=TableVersion(99, table.id.coordinator)))

    assert replication.serving[partition] is not None
