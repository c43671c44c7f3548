"""Memory is bounded: evictions, unconfirmed writes, expiries, references of overwritten entries."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from cache.cluster.config import LimitsConfig
from cache.cluster.node import Node
from cache.cluster.replication.entries import ENTRY_BYTES, Entry
from cache.cluster.replication.replica import PartitionReplica
from cache.cluster.replication.usage import Usage
from cache.cluster.wire.messages import NEVER, Outcomes, SetMany
from cache.codec import encode_key
from cache.errors import OverloadedError
from cache.testing import TestCluster, cluster_test
from tests.integration.inside import run_on
from tests.integration.waiting import equal_copies

LIMIT = 256 * 1024
ROOM = LimitsConfig(memory_bytes_max=LIMIT)
FEW = LimitsConfig(pending_writes_max=10)
VALUE = b"v" * 1000


def _node(cluster: TestCluster, index: int) -> Node:
    world: Any = cluster._world  # Any: the simulated world
    node: Node = world._members[index].node
    return node


@cluster_test("simulated", "processes", size=3, replica_count=2, limits=ROOM, partition_count=16)
async def test_old_entries_make_room_on_every_copy(cluster: TestCluster) -> None:
    """Ten times what fits is written; no member holds more than its limit, and copies stay equal."""
    for start in range(0, 3000, 100):
        items = {f"key{number}": VALUE for number in range(start, start + 100)}
        await cluster.member(start // 100 % 3).map("users").set_many(items)

    held = [(await member.inspect("stats"))["replication.bytes"] for member in cluster.members]
    evicted = [(await m.inspect("stats"))["replication.evicted"] for m in cluster.members]
    assert all(size <= LIMIT for size in held)
    assert sum(evicted) > 1000
    newest = [f"key{number}" for number in range(2980, 3000)]
    assert 20 == len(await cluster.member(0).map("users").get_many(newest))
    await equal_copies(cluster, within=10.0)


@cluster_test("simulated", size=2, partition_count=8, limits=FEW)
async def test_writes_to_a_stopped_copy_do_not_pile_up(cluster: TestCluster) -> None:
    """Ten wait for the copy; the others are refused, and tried again by their callers: no growth."""
    node = _node(cluster, 0)
    owned = [n for n in range(200) if node.map("users").owner_of(n) == node.id][:30]
    await cluster.pause(1)
    users = cluster.member(0).map("users")

    async with asyncio.TaskGroup() as group:
        writes = [group.create_task(users.set(number, VALUE)) for number in owned]
        await cluster.sleep(0.5)
        waiting, done = len(node._replication.unconfirmed), [write.done() for write in writes]

    assert 30 == len(owned)
    assert (10, 0) == (waiting, sum(done))
    assert not node._replication.unconfirmed  # The copy was struck meanwhile, all were written.
    assert 30 == len(await users.get_many(owned))
    await cluster.resume(1)


@cluster_test("simulated", size=2, partition_count=8, limits=FEW)
async def test_batches_to_a_stopped_copy_do_not_pile_up(cluster: TestCluster) -> None:
    """Each of their writes counts: where ten wait, the next batch is refused until they are done."""
    node = _node(cluster, 0)
    partition = next(iter(node._replication.owned))
    keys = [encode_key(number) for number in range(10)]
    batch = SetMany("users", [partition] * 10, keys, [VALUE] * 10, NEVER, b"")
    await cluster.pause(1)

    async def write() -> object:
        waiting: Any = node._structures.dispatch(batch)  # Any: here it has to be awaited
        with pytest.raises(OverloadedError, match="10 writes"):
            node._structures.dispatch(batch)
        await waiting  # The copy is struck meanwhile.
        return node._structures.dispatch(batch)

    assert Outcomes([1] * 10) == await run_on(cluster, 0, write)
    await cluster.resume(1)


@cluster_test("simulated", size=1, partition_count=8)
async def test_many_expiries_at_once_are_spread_over_turns(cluster: TestCluster) -> None:
    """20,000 keys end in the same second; each turn of the loop takes a bounded number."""
    node = _node(cluster, 0)
    await cluster.member(0).map("users").set_many(dict.fromkeys(range(20000), 1), ttl=2)
    sweeps: list[int] = []
    for replica in node._replication.copies.values():
        _spy(replica, sweeps)

    await cluster.sleep(4.0)

    assert 20_000 == sum(sweeps)
    assert max(sweeps) <= 512
    assert 0 == await cluster.member(0).map("users").size()


def _spy(replica: PartitionReplica, sweeps: list[int]) -> None:
    wheel = replica._wheel
    due = wheel.due

    class Spy:
        count = wheel.count
        add = staticmethod(wheel.add)

        @staticmethod
        def due(now: float, limit: int) -> Any:  # Any: references
            taken = due(now, limit)
            sweeps.append(len([1 for name, key in taken if _ends_now(replica, name, key, now)]))
            return taken

    replica._wheel = Spy  # type: ignore[assignment]  # only what a replica calls


def _ends_now(replica: PartitionReplica, name: str, key: bytes, now: float) -> bool:
    entry = replica.entry(name, key)
    return entry is not None and entry.value is not None and entry.expires_at <= now


def test_overwriting_keys_that_expire_leaves_no_references_behind() -> None:
    """A million overwrites of a few keys with a time to live are a few keys with a time to live."""
    usage = Usage()
    replica = PartitionReplica(operation_memory=1, tombstone_lifetime=60.0, usage=usage)

    for version in range(1, 50_001):
        replica.apply("m", b"%d" % (version % 10), Entry(b"v", version, 1, 100.0 + version % 7))

    assert 10 == replica.entry_count
    assert replica._wheel.count < 2000
    assert 10 * (ENTRY_BYTES + 2) == usage.bytes


@pytest.mark.parametrize("wrong", [0, -1, "64 MiB"])
def test_a_bad_limit_is_named(wrong: object) -> None:
    """At construction, with the field."""
    with pytest.raises(Exception, match="memory_bytes_max"):
        LimitsConfig(memory_bytes_max=wrong)  # type: ignore[arg-type]  # the point of the test
