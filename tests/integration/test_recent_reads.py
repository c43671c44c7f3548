"""What an owner remembers of reads ends with its right to read: hand-over, quorum, stall, end of life."""

from __future__ import annotations

import asyncio
import math
from enum import Enum
from typing import Any, cast

import pytest

from cache import SyncCache
from cache.cluster import MapPolicy, Node
from cache.cluster.structures.map import DistributedMap
from cache.codec import decode_value, encode_value
from cache.errors import ClosedError, CodecError, NoQuorumError
from cache.testing import TestCluster, cluster_test
from tests.integration.inside import node_of, run_on

KEY = "ada"


class Doubling:
    """A serializer that reads numbers as twice what they are."""

    def encode(self, value: object, context: str) -> bytes:
        return encode_value(value)

    def decode(self, encoded: bytes, context: str) -> object:
        return 2 * cast(int, decode_value(encoded))


class Owner:
    """The member that owns the key, which it has stored and read."""

    def __init__(self, cluster: TestCluster, index: int) -> None:
        self.cluster = cluster
        self.index = index
        self.node: Node = node_of(cluster, index)
        self.users: DistributedMap[Any] = self.node.map("users")
        self.partition = self.users.partition_of(KEY)

    async def do(self, call: Any) -> Any:  # Any: whatever it gives
        return await run_on(self.cluster, self.index, call)

    async def get(self) -> Any:  # Any: a value
        return await self.do(lambda: self.users.get(KEY))

    def remembered(self) -> Any:  # Any: a value, None for none
        return self.node._replication.recent.of("users").get(KEY)


async def _owner(cluster: TestCluster) -> Owner:
    """Store the key, read it where it is owned, and see that this is remembered."""
    partition = node_of(cluster, 0).map("users").partition_of(KEY)
    owner = Owner(cluster, await cluster.owner_of(partition))
    await owner.do(lambda: owner.users.set(KEY, 1))
    assert 1 == await owner.get()
    assert 1 == owner.remembered()
    return owner


@cluster_test("simulated", size=3, replica_count=2, partition_count=8)
async def test_a_write_from_elsewhere_is_read_at_once(cluster: TestCluster) -> None:
    """The owner forgets before it applies; deletes and evictions are no different."""
    owner = await _owner(cluster)
    other = next(member for member in cluster.members if member.index != owner.index)

    for value in (2, "text", None, 3, [4], 5):
        await other.map("users").set(KEY, value)
        assert [value, value] == [await owner.get(), await owner.get()]

    await other.map("users").delete(KEY)
    assert await owner.get() is None
    assert owner.remembered() is None


@cluster_test("simulated", size=3, replica_count=2, partition_count=8)
async def test_who_hands_over_reads_nothing_from_memory(cluster: TestCluster) -> None:
    """From the release on, another member may take writes."""
    owner = await _owner(cluster)
    yielding = owner.node._replication.yielding

    assert [owner.partition] == await owner.do(lambda: yielding.release([owner.partition]))

    assert owner.remembered() is None
    assert owner.users.read_here(KEY, "elsewhere") == "elsewhere"


@cluster_test("simulated", size=3, replica_count=2, partition_count=8)
async def test_who_does_not_own_any_more_asks_who_does(cluster: TestCluster) -> None:
    """Cut off and replaced, the old owner has nothing left of it when it is back."""
    owner = await _owner(cluster)
    other = next(member for member in cluster.members if member.index != owner.index)
    cluster.isolate(owner.index)

    async def is_replaced() -> bool:
        return other.node.map("users").owner_of(KEY) not in (None, owner.node.id)

    await cluster.eventually(is_replaced, what="another owner", within=60.0)
    await other.map("users").set(KEY, 2)
    cluster.heal()
    await cluster.wait_for_convergence()

    assert 2 == await owner.get()


@cluster_test("simulated", size=2, member_quorum=2, partition_count=8)
async def test_without_a_quorum_nothing_is_read_from_memory(cluster: TestCluster) -> None:
    """The other side may have a quorum, and write."""
    owner = await _owner(cluster)
    await cluster.kill(1 - owner.index)

    async def is_forgotten() -> bool:
        return owner.remembered() is None

    await cluster.eventually(is_forgotten, what="forgetting", within=60.0)

    with pytest.raises(NoQuorumError):
        await owner.get()


@cluster_test("simulated", size=2, partition_count=8)
async def test_a_stalled_owner_reads_nothing_from_memory(cluster: TestCluster) -> None:
    """It may have been replaced while it stood still, and first asks."""
    owner = await _owner(cluster)

    def read_after_a_stall() -> tuple[object, object]:
        current = owner.users.read_here(KEY, "elsewhere")
        owner.node._replication.validity.until = -math.inf
        return current, owner.users.read_here(KEY, "elsewhere")

    assert (1, "elsewhere") == await owner.do(read_after_a_stall)

    def begins_to_wait() -> bool:
        owner.node._replication.validity.until = -math.inf
        reading = owner.users.get(KEY)
        waits_for = reading.send(None)
        reading.close()
        return asyncio.isfuture(waits_for)

    assert await owner.do(begins_to_wait)


@cluster_test("simulated", size=1, partition_count=8)
async def test_a_life_ends_on_time(cluster: TestCluster) -> None:
    """Between the instant and the sweep the value is still in memory."""
    owner = Owner(cluster, 0)
    await owner.do(lambda: owner.users.set(KEY, 1, ttl=0.75))
    assert 1 == await owner.get()
    value, ends_at = owner.remembered()
    assert 1 == value

    await cluster.sleep(0.7)
    assert 1 == await owner.get()
    clock = owner.node._replication.clock
    await cluster.sleep(ends_at - clock.monotonic())

    assert await owner.get() is None
    assert owner.users.read_here(KEY, "absent") == "absent"


@cluster_test("simulated", size=1, partition_count=8, maps={"idle": MapPolicy(max_idle=60.0)})
async def test_a_map_that_counts_reads_remembers_none(cluster: TestCluster) -> None:
    """A read from memory would not put off the end of an idle entry."""
    node = node_of(cluster, 0)
    idle: DistributedMap[Any] = node.map("idle")

    await run_on(cluster, 0, lambda: idle.set(KEY, 1))
    assert 1 == await run_on(cluster, 0, lambda: idle.get(KEY))

    assert {} == node._replication.recent.of("idle")


@cluster_test("simulated", size=1, partition_count=8)
async def test_a_handle_with_a_serializer_decodes_for_itself(cluster: TestCluster) -> None:
    """Another handle may read the same bytes as something else."""
    owner = await _owner(cluster)
    other: DistributedMap[Any] = owner.node.map("users", serializer=Doubling())

    assert other._recent is not owner.users._recent
    assert [2, 1] == [await owner.do(lambda: other.get(KEY)), await owner.get()]
    assert {} == other._recent


@cluster_test("simulated", size=1, partition_count=8)
async def test_keys_that_look_alike_are_told_apart(cluster: TestCluster) -> None:
    """A subclass of text has its own text; what is no key is refused."""
    owner = await _owner(cluster)

    class Name(str, Enum):  # noqa: UP042  # its text is not its value, unlike that of StrEnum
        ada = "ada"

    assert await owner.do(lambda: owner.users.get(Name.ada)) is None
    assert await owner.do(lambda: owner.users.get(b"ada")) is None
    for wrong in (["ada"], 1.0, None):
        with pytest.raises(CodecError):
            await owner.do(lambda key=wrong: owner.users.get(key))


@cluster_test("simulated", size=1, partition_count=8)
async def test_a_pipeline_reads_what_it_wrote(cluster: TestCluster) -> None:
    """Its reads take their turn behind its writes."""
    owner = await _owner(cluster)

    async def piped() -> Any:  # Any: a value
        async with owner.users.pipeline() as batch:
            batch.set(KEY, 2)
            found = batch.get(KEY)
        return found.result()

    assert 2 == await owner.do(piped)


@cluster_test("simulated", size=1, partition_count=8)
async def test_a_closed_handle_reads_nothing_from_memory(cluster: TestCluster) -> None:
    """Not even what it has read before."""
    owner = await _owner(cluster)
    await owner.do(owner.users.close)

    with pytest.raises(ClosedError):
        await owner.get()


@cluster_test("simulated", size=1, partition_count=8)
async def test_reads_from_memory_are_hits(cluster: TestCluster) -> None:
    """Statistics count what callers asked, not how it was found."""
    owner = await _owner(cluster)
    before = owner.users.stats()

    for _ in range(3):
        assert 1 == await owner.get()
    assert 1 == await owner.do(lambda: owner.users.read_here(KEY, None))

    assert before.hits + 4 == owner.users.stats().hits
    assert before.misses == owner.users.stats().misses


@cluster_test("sockets", size=1, partition_count=8)
async def test_another_thread_reads_what_is_current(cluster: TestCluster) -> None:
    """Threads look into the memory of the loop's thread, and do not add to it."""
    node = cluster.member(0).node
    users: DistributedMap[Any] = node.map("users")
    blocking = SyncCache(users)
    recent = node._replication.recent.of("users")
    await users.set(KEY, 1)

    assert 1 == await asyncio.to_thread(blocking.get, KEY)
    assert {} == recent
    assert 1 == await users.get(KEY)
    assert {KEY: 1} == recent
    for value in range(2, 50):
        await users.set(KEY, value)
        await users.get(KEY)
        assert value == await asyncio.to_thread(blocking.get, KEY)
