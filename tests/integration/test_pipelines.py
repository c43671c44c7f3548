"""Many operations at a time: one message per member, an outcome for each."""

from __future__ import annotations

from typing import Any

import pytest

from cache.cluster import MutableEntry, Node
from cache.cluster.wire.messages import Pipelined
from cache.errors import BatchError, ClosedError, CodecError, OverloadedError, WrongTypeError
from cache.testing import TestCluster, cluster_test
from tests.integration.inside import run_on

KEYS = [f"key-{number}" for number in range(60)]


def double(entry: MutableEntry) -> int:
    """Write twice what is there."""
    entry.set(2 * entry.value)
    return int(entry.value)


async def piped(cluster: TestCluster, index: int, use: Any) -> Any:
    """Fill a pipeline of a member on that member's own loop; return what `use` returned."""
    # Any: a function of the pipeline.
    node = cluster.member(index).node

    async def body() -> Any:  # Any: as above
        async with node.map("users").pipeline() as batch:
            return use(batch)

    return await run_on(cluster, index, body)


def count_messages(node: Node) -> list[int]:
    """Count the operations of each pipeline message that this member sends from now on."""
    sent: list[int] = []
    call = node._rpc.call

    def counted(to: Any, request: Any, *, timeout: float) -> Any:  # Any: passed on
        if isinstance(request, Pipelined):
            sent.append(len(request.requests))
        return call(to, request, timeout=timeout)

    node._rpc.call = counted  # type: ignore[method-assign]  # a spy
    return sent


@cluster_test("simulated", size=3, replica_count=2)
async def test_each_member_gets_one_message(cluster: TestCluster) -> None:
    """However many operations there are; the member's own keys need none."""
    sent = count_messages(cluster.member(0).node)
    entries = cluster.member(0).node.map("users")
    others = [key for key in KEYS if entries.owner_of(key) != cluster.member(0).id]

    def use(batch: Any) -> list[Any]:
        return [(batch.set(key, 1), batch.incr(key, 2), batch.get(key)) for key in KEYS]

    pending = await piped(cluster, 0, use)

    assert [(True, 3, 3)] * 60 == [tuple(one.result() for one in three) for three in pending]
    assert len(sent) == 2
    assert sum(sent) == 3 * len(others) > 60


@cluster_test("simulated", size=3, replica_count=2)
async def test_every_operation_on_one_key_is_there(cluster: TestCluster) -> None:
    """With the same results as one by one, in order."""
    for member in cluster.members:
        member.node.register_processor("test.double", double)  # Also while it runs.

    def use(batch: Any) -> list[Any]:
        return [
            [
                batch.exists(key),
                batch.add(key, 1, ttl=100),
                batch.replace(key, 2, ttl=50),
                batch.ttl(key),
                batch.execute(key, "test.double"),
                batch.compare_and_set(key, 4, 5),
                batch.get_and_set(key, 6),
                batch.decr(key),
                batch.incr(key, 0.5),
                batch.touch(key, 9),
                batch.persist(key),
                batch.pop(key),
                batch.get(key, "gone"),
                batch.delete(key),
            ]
            for key in KEYS
        ]

    for row in await piped(cluster, 1, use):
        found = [pending.result() for pending in row]
        assert found[3] == pytest.approx(50, abs=0.1)
        assert found[:3] == [False, True, True]
        assert found[4:] == [4, True, 5, 5, 5.5, True, True, 5.5, "gone", False]


@cluster_test("simulated", size=3)
async def test_an_operation_that_fails_leaves_the_others(cluster: TestCluster) -> None:
    """The error names the key; each result says its own."""
    await cluster.member(0).map("users").set("text", "one")
    results: list[Any] = []

    def use(batch: Any) -> None:
        results.extend([batch.incr(key) for key in KEYS])
        results.append(batch.incr("text"))

    with pytest.raises(BatchError, match="1 of 61 operations failed: 'text'") as caught:
        await piped(cluster, 2, use)

    assert list(caught.value.failed) == ["text"]
    assert [1] * 60 == [pending.result() for pending in results[:-1]]
    with pytest.raises(WrongTypeError):
        results[-1].result()


@cluster_test("simulated", size=3)
async def test_a_block_that_raises_sends_nothing(cluster: TestCluster) -> None:
    """Neither does a value that cannot be stored."""
    results: list[Any] = []

    def use(batch: Any) -> None:
        results.append(batch.set("k", 1))
        batch.set("bad", object())

    with pytest.raises(CodecError):
        await piped(cluster, 0, use)

    assert await cluster.member(0).map("users").size() == 0
    with pytest.raises(ClosedError, match="not sent"):
        results[0].result()


@cluster_test("simulated", size=4, replica_count=2)
async def test_a_pipeline_goes_on_when_an_owner_dies(cluster: TestCluster) -> None:
    """What its batch did not do is done alone, once, in order."""
    await cluster.member(0).map("users").set_many(dict.fromkeys(KEYS, 0))
    await cluster.kill(3)

    def use(batch: Any) -> list[Any]:
        return [(batch.incr(key), batch.incr(key, 10), batch.get(key)) for key in KEYS]

    pending = await piped(cluster, 0, use)

    assert [(1, 11, 11)] * 60 == [tuple(one.result() for one in three) for three in pending]


@cluster_test("simulated", size=2)
async def test_no_operation_overtakes_one_that_was_refused(cluster: TestCluster) -> None:
    """Both are on one key; the owner is overloaded for the first, and free again for the second."""
    owner: Any = cluster.member(1).node._structures  # Any: looked into
    admit = owner._writes.admit
    refused: list[int] = []

    def once(partition: int) -> Any:  # Any: passed on
        if not refused:
            refused.append(partition)
            raise OverloadedError("for a moment")
        return admit(partition)

    owner._writes.admit = once
    entries = cluster.member(0).node.map("users")
    key = next(key for key in KEYS if entries.owner_of(key) == cluster.member(1).id)

    pending = await piped(cluster, 0, lambda batch: [batch.incr(key), batch.incr(key, 10)])

    assert len(refused) == 1
    assert [1, 11] == [one.result() for one in pending]


@cluster_test("simulated", size=3, replica_count=1, operation_timeout=1.0)
async def test_a_batch_without_an_owner_says_which_keys_in_time(cluster: TestCluster) -> None:
    """All keys share one deadline, and what was stored is not called failed."""
    cluster.isolate(2)
    entries = cluster.member(0).node.map("users")
    lost = {key for key in KEYS if entries.owner_of(key) == cluster.member(2).id}
    started_at = cluster.now()

    with pytest.raises(BatchError) as caught:
        await cluster.member(0).map("users").set_many(dict.fromkeys(KEYS, 1))

    assert cluster.now() - started_at <= 1.01
    assert set(caught.value.failed) == lost != set()
    for key in set(KEYS) - lost:
        assert await cluster.member(0).map("users").get(key) == 1
