"""Writes of one tick travel together: each has its own outcome, its copies, and nobody else's troubles."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import Any

from cache.cluster.node import Node
from cache.cluster.replication.entries import Entry
from cache.cluster.transport.rpc import Peer
from cache.cluster.wire.messages import (
    NEVER,
    FetchDigests,
    Outcomes,
    ReplicatedEach,
    ReplicateEach,
    SetMany,
)
from cache.codec import encode_key, encode_value
from cache.errors import CacheError
from cache.testing import TestCluster, cluster_test
from tests.integration.inside import node_of, run_on

COUNT = 200


def requests_of(cluster: TestCluster) -> float:
    """Return how many requests all members have served."""
    return sum(
        node_of(cluster, member.index).stats().readings["rpc.requests"]
        for member in cluster.members
    )


async def set_together(
    cluster: TestCluster, index: int, values: dict[str, int]
) -> list[BaseException | bool]:
    """Begin all these writes in one tick of a member's loop; return what came of each."""
    users = node_of(cluster, index).map("users")

    async def write() -> list[BaseException | bool]:
        calls = [users.set(key, value) for key, value in values.items()]
        return await asyncio.gather(*calls, return_exceptions=True)

    outcomes: list[BaseException | bool] = await run_on(cluster, index, write)
    return outcomes


def held_by(node: Node, key: str) -> object:
    """Return what a member's own copy has for a key."""
    users = node.map("users")
    replica = node._replication.copies.get(users.partition_of(key))
    entry = None if replica is None else replica.entry("users", encode_key(key))
    return None if entry is None else entry.value


@cluster_test("simulated", size=3, replica_count=2)
async def test_many_writes_of_one_tick_need_few_requests(cluster: TestCluster) -> None:
    """Six pairs of owner and copy: as many requests, and as many to the copies, not two per key."""
    values = {f"key-{number}": number for number in range(COUNT)}
    before = requests_of(cluster)

    outcomes = await set_together(cluster, 1, values)

    assert [True] * COUNT == outcomes
    assert requests_of(cluster) - before < COUNT / 4


@cluster_test("simulated", size=2, replica_count=2)
async def test_entries_of_one_origin_share_its_number(cluster: TestCluster) -> None:
    """Each message brings one of its own, which its entries would keep alive."""
    keys = [f"key-{number}" for number in range(COUNT)]

    await set_together(cluster, 0, dict.fromkeys(keys[:-20], 1))
    for key in keys[-20:]:
        assert await cluster.member(0).map("users").add(key, 1)

    for member in cluster.members:
        copies = node_of(cluster, member.index)._replication.copies.values()
        origins = [entry.origin for copy in copies for entry in copy.entries("users").values()]
        assert (COUNT, 2, 2) == (len(origins), len(set(origins)), len(set(map(id, origins))))


@cluster_test("simulated", size=3, replica_count=2)
async def test_every_gathered_write_is_on_all_copies_when_it_is_acknowledged(
    cluster: TestCluster,
) -> None:
    """Invariant 1: also for those that travelled in one message."""
    values = {f"key-{number}": number for number in range(COUNT)}

    await set_together(cluster, 2, values)

    for key, value in values.items():
        nodes = [node_of(cluster, index) for index in await cluster.copies("users", key)]
        assert [encode_value(value)] * 2 == [held_by(node, key) for node in nodes]


@cluster_test("simulated", size=3, replica_count=2)
async def test_a_silent_copy_holds_up_its_own_keys_only(cluster: TestCluster) -> None:
    """Those that need the paused member wait, until it is struck; the others are done at once."""
    await cluster.member(0).map("users").set("warm", 1)
    rows = node_of(cluster, 0).partition_table().rows
    users, silent = node_of(cluster, 0).map("users"), cluster.member(2).id
    keys = [key for key in map(str, range(COUNT)) if users.owner_of(key) != silent]
    unharmed = [key for key in keys if silent not in rows[users.partition_of(key)].replicas]
    seconds: dict[str, float] = {}
    started_at = cluster.now()

    async def write(key: str) -> None:
        await users.set(key, 1)
        seconds[key] = cluster.now() - started_at

    async def write_all() -> None:
        await asyncio.gather(*(write(key) for key in keys))

    await cluster.pause(2)
    await run_on(cluster, 0, write_all)
    await cluster.resume(2)

    assert 0 < len(unharmed) < len(keys)
    assert max(seconds[key] for key in unharmed) < 0.05
    assert min(seconds[key] for key in keys if key not in unharmed) > 0.5


@cluster_test("simulated", size=2, replica_count=2, partition_count=8)
async def test_a_batch_says_which_of_its_writes_were_refused(cluster: TestCluster) -> None:
    """What the owner does not serve is refused; the keys around it are written."""
    await cluster.member(0).map("users").set("warm", 1)
    node = node_of(cluster, 0)
    owned = sorted(node._replication.owned)
    node._replication.owned[owned[1]].frozen = True
    node._replication.refresh_serving(owned[1])
    partitions = [owned[0], owned[1], 999, -1, owned[2]]
    keys = [encode_key(number) for number in range(5)]
    batch = SetMany("users", partitions, keys, [encode_value(7)] * 5, NEVER, b"")

    reply = await run_on(cluster, 0, lambda: node._structures.dispatch(batch))

    assert isinstance(reply, Outcomes)
    assert [True, False, False, False, True] == [code > 0 for code in reply.codes]
    copies = node_of(cluster, 1)._replication.copies
    stored = [copies[owned[place]].entry("users", keys[4 * (place == 2)]) for place in (0, 2)]
    assert all(entry is not None and entry.value == encode_value(7) for entry in stored)


async def replicate_each(
    cluster: TestCluster,
    holder: int,
    *,
    partitions: Sequence[int],
    epochs: Sequence[int],
    hlcs: Sequence[int],
    sender: int,
) -> ReplicatedEach:
    """Send columns of writes to a holder, with keys 0, 1, 2 …, as if `sender` were their owner."""
    count = len(partitions)
    message = ReplicateEach(
        "users",
        1,
        list(partitions),
        list(epochs),
        [encode_key(number) for number in range(count)],
        [encode_value(5)] * count,
        list(hlcs),
        [NEVER] * count,
    )
    handler = node_of(cluster, holder)._rpc._handlers[ReplicateEach]
    peer = Peer(node_of(cluster, sender).id, None)
    reply = await run_on(cluster, holder, lambda: handler(message, peer))
    assert isinstance(reply, ReplicatedEach)
    return reply


@cluster_test("simulated", size=2, replica_count=2, partition_count=8)
async def test_a_holder_refuses_those_of_an_older_epoch_and_takes_the_others(
    cluster: TestCluster,
) -> None:
    """Invariant 2, for each write of a message by itself."""
    await cluster.member(0).map("users").set("warm", 1)
    node = node_of(cluster, 1)
    rows = node.partition_table().rows
    owned = sorted(node_of(cluster, 0)._replication.owned)[:2]
    wall = node_of(cluster, 0)._replication.stamp()

    reply = await replicate_each(
        cluster,
        1,
        partitions=[*owned, owned[0], 999],
        epochs=[rows[owned[0]].epoch, 0, rows[owned[0]].epoch, 1],
        hlcs=[wall, wall, wall + (10**9 << 16), wall],
        sender=0,
    )

    assert [1, 2, 3] == [place for place, _ in reply.refused]
    assert ["is over", "a day ahead", "is outside"] == [
        next(word for word in ("is over", "a day ahead", "is outside") if word in failure.text)
        for _, failure in reply.refused
    ]
    held = node._replication.copies[owned[0]].entry("users", encode_key(0))
    assert held is not None
    assert encode_value(5) == held.value
    assert node._replication.copy_of(owned[1]).entry("users", encode_key(1)) is None
    assert node._replication.copies[owned[0]].entry("users", encode_key(2)) is None


@cluster_test("simulated", size=3, replica_count=3, partition_count=8)
async def test_a_holder_that_took_writes_of_an_epoch_takes_them_from_its_owner_only(
    cluster: TestCluster,
) -> None:
    """And not any more once its table has another."""
    await cluster.member(0).map("users").set("warm", 1)
    node = node_of(cluster, 1)
    partition = min(node_of(cluster, 0)._replication.owned)
    rows = node.partition_table().rows
    stamp = node_of(cluster, 0)._replication.stamp()

    async def replicate(sender: int) -> list[str]:
        reply = await replicate_each(
            cluster,
            1,
            partitions=[partition],
            epochs=[rows[partition].epoch],
            hlcs=[stamp],
            sender=sender,
        )
        return [failure.text for _, failure in reply.refused]

    accepted, of_another = await replicate(0), await replicate(2)
    await cluster.pause(0)
    await cluster.eventually(lambda: _later_epoch(cluster, partition, rows[partition].epoch))
    too_late = await replicate(0)
    await cluster.resume(0)

    assert [] == accepted
    assert all("is over" in text for text in (*of_another, *too_late))
    assert [1, 1] == [len(of_another), len(too_late)]


async def _later_epoch(cluster: TestCluster, partition: int, epoch: int) -> bool:
    return all(
        node_of(cluster, index).partition_table().rows[partition].epoch > epoch for index in (1, 2)
    )


@cluster_test("simulated", size=3, replica_count=2, partition_count=8)
async def test_what_a_copy_refuses_is_not_acknowledged_with_the_others(
    cluster: TestCluster,
) -> None:
    """The copy has heard of a later owner: the write counts when it has it, by a new epoch."""
    await cluster.member(0).map("users").set("warm", 1)
    node = node_of(cluster, 0)
    users, rows = node.map("users"), node.partition_table().rows
    keys = [key for key in map(str, range(COUNT)) if users.owner_of(key) == node.id]
    partition = users.partition_of(keys[-1])  # Not the first, which goes alone.
    row = rows[partition]
    index = next(each.index for each in cluster.members if each.id == row.replicas[1])
    compare = node_of(cluster, index)._rpc._handlers[FetchDigests]
    later = Peer(next(each.id for each in cluster.members if each.id not in row.replicas), None)
    await run_on(cluster, index, lambda: compare(FetchDigests([partition], [row.epoch + 1]), later))

    outcomes = await set_together(cluster, 0, dict.fromkeys(keys, 7))

    assert [True] * len(keys) == outcomes
    for key in keys:
        holders = [node_of(cluster, one) for one in await cluster.copies("users", key)]
        assert [encode_value(7)] * 2 == [held_by(holder, key) for holder in holders]
    assert node.partition_table().rows[partition].epoch > row.epoch


@cluster_test("simulated", size=2, replica_count=2, partition_count=8)
async def test_gathered_writes_beat_later_versions_left_on_a_copy(cluster: TestCluster) -> None:
    """Writes are in the order of events: what a copy has from before comes before."""
    values = {f"key-{number}": number for number in range(20)}
    await set_together(cluster, 0, dict.fromkeys(values, 0))
    node, other = node_of(cluster, 0), node_of(cluster, 1)
    ahead = node._replication.stamp() + (3_600_000 << 16)  # An hour, as from a wrong clock.
    mine = [key for key in values if node.map("users").owner_of(key) == node.id]
    for key in mine[:3]:
        replica = other._replication.copies[node.map("users").partition_of(key)]
        replica.apply("users", encode_key(key), Entry(encode_value(99), ahead, 7, math.inf))

    outcomes = await set_together(cluster, 0, values)

    assert [True] * 20 == outcomes
    assert values == {key: await cluster.member(1).map("users").get(key) for key in values}
    assert [encode_value(values[key]) for key in mine] == [held_by(other, key) for key in mine]


@cluster_test("simulated", size=3, replica_count=2, operation_timeout=2.0)
async def test_gathered_writes_whose_owner_dies_are_done_again(cluster: TestCluster) -> None:
    """The message is lost with the member: each write is tried again where its key has gone."""
    values = {f"key-{number}": number for number in range(COUNT)}
    await set_together(cluster, 0, dict.fromkeys(values, -1))
    writing = asyncio.ensure_future(set_together(cluster, 0, values))
    await asyncio.sleep(0)
    await cluster.kill(1)

    outcomes = await writing

    failed = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    assert all(isinstance(error, CacheError) for error in failed)
    assert not failed
    await cluster.wait_for_convergence()
    assert values == await cluster.member(0).map("users").get_many(values)


@cluster_test("simulated", size=2, replica_count=2)
async def test_a_delete_does_not_overtake_the_write_before_it(cluster: TestCluster) -> None:
    """Owner to copy, messages keep the order of events: no copy has a later version than it is sent."""
    node, copy = node_of(cluster, 0), node_of(cluster, 1)
    users = node.map("users")
    mine = [key for key in map(str, range(COUNT)) if users.owner_of(key) == node.id]
    handlers, replies = copy._rpc._handlers, []
    take = handlers[ReplicateEach]

    def note(message: Any, peer: Peer) -> Any:  # Any: as handlers have it
        replies.append(take(message, peer))
        return replies[-1]

    handlers[ReplicateEach] = note

    async def write_and_delete() -> None:
        calls = [call for key in mine for call in (users.set(key, 1), users.delete(key))]
        await asyncio.gather(*calls)

    await run_on(cluster, 0, write_and_delete)

    assert replies
    assert [] == [reply for reply in replies if reply != ReplicatedEach([], [])]
    assert [None] * len(mine) == [held_by(copy, key) for key in mine]


@cluster_test("simulated", size=3, replica_count=2)
async def test_a_batch_is_acknowledged_when_the_last_of_its_copies_has_it(
    cluster: TestCluster,
) -> None:
    """One `set_many` to an owner whose keys have copies on different members, one of them silent."""
    await cluster.member(0).map("users").set("warm", 1)
    users, silent = node_of(cluster, 0).map("users"), cluster.member(2).id
    mine = [key for key in map(str, range(COUNT)) if users.owner_of(key) == cluster.member(0).id]
    started_at = cluster.now()

    await cluster.pause(2)
    await run_on(cluster, 0, lambda: users.set_many(dict.fromkeys(mine, 1)))
    seconds = cluster.now() - started_at
    rows = node_of(cluster, 0).partition_table().rows
    copies = [rows[users.partition_of(key)].replicas for key in mine]
    await cluster.resume(2)

    assert seconds > 0.5
    assert [] == [replicas for replicas in copies if silent in replicas]


@cluster_test("simulated", size=2, replica_count=2)
async def test_large_values_go_alone_among_small_ones(cluster: TestCluster) -> None:
    """And every value arrives whole."""
    users = node_of(cluster, 0).map("users")
    values = {f"key-{number}": b"v" * (70_000 if number % 5 == 0 else 9) for number in range(40)}

    async def write() -> None:
        await asyncio.gather(*(users.set(key, value) for key, value in values.items()))

    await run_on(cluster, 0, write)

    assert values == await cluster.member(1).map("users").get_many(values)
