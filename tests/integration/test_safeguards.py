"""Safeguards that random faults seldom need: each is called for on purpose, inside simulated nodes."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest

from cache.cluster.replication.entries import Entry
from cache.cluster.replication.ownership import Ownership
from cache.cluster.transport.rpc import Peer
from cache.cluster.wire.messages import (
    CODE_INDETERMINATE,
    MODIFY_INCREMENT,
    NEVER,
    EntryRecord,
    FetchDigests,
    Modify,
    Offer,
    Outcomes,
    Replicate,
    Set,
    SetMany,
    Value,
)
from cache.codec import encode_key, encode_value
from cache.errors import IndeterminateError, NotOwnerError
from cache.testing import TestCluster, cluster_test
from tests.integration.inside import node_of, run_on

KEY = "ada"


async def _placed(cluster: TestCluster) -> tuple[int, int, int]:
    """Store a key; return (partition, its owner, another holder) with members by index."""
    await cluster.member(0).map("users").set(KEY, 1)
    partition = node_of(cluster, 0).map("users").partition_of(KEY)
    owner = await cluster.owner_of(partition)
    holders = await cluster.copies("users", KEY)
    return partition, owner, next(index for index in holders if index != owner)


@cluster_test("simulated", size=3, partition_count=8)
async def test_a_comparison_by_a_later_owner_ends_an_earlier_one(cluster: TestCluster) -> None:
    """Invariant 2: copies that were compared stay equal, also if there was nothing to send."""
    partition, owner, holder = await _placed(cluster)
    node, peer = node_of(cluster, owner), Peer(node_of(cluster, holder).id, None)
    epoch = node.partition_table().rows[partition].epoch
    compare = node._rpc._handlers[FetchDigests]
    write = node._rpc._handlers[Set]
    request = Set("users", partition, encode_key(KEY), encode_value(2), NEVER, b"")

    with pytest.raises(NotOwnerError, match="is over"):
        await run_on(cluster, owner, lambda: compare(FetchDigests([partition], [epoch - 1]), peer))
    await run_on(cluster, owner, lambda: compare(FetchDigests([partition], [epoch + 1]), peer))

    with pytest.raises(NotOwnerError, match="is not served"):
        await run_on(cluster, owner, lambda: write(request, peer))


@cluster_test("simulated", size=3, partition_count=8)
async def test_a_holder_refuses_an_owner_of_an_older_epoch(cluster: TestCluster) -> None:
    """Invariant 2: what a deposed owner still sends has no effect."""
    partition, owner, holder = await _placed(cluster)
    node = node_of(cluster, holder)
    record = EntryRecord("users", encode_key(KEY), encode_value(2), 2**62, 1, NEVER)
    message = Replicate(partition=partition, epoch=0, entries=[record], operations=[], evicted=[])
    handler = node._rpc._handlers[Replicate]
    peer = Peer(node_of(cluster, owner).id, None)

    with pytest.raises(NotOwnerError, match="is over"):
        await run_on(cluster, holder, lambda: handler(message, peer))

    assert 1 == await cluster.member(owner).map("users").get(KEY)


@cluster_test("simulated", size=3, partition_count=8)
async def test_a_repeated_operation_takes_effect_once(cluster: TestCluster) -> None:
    """A retry carries the id of the first attempt, and is given its answer."""
    partition, owner, _ = await _placed(cluster)
    request = Modify(
        "users",
        partition,
        encode_key(KEY),
        b"operation",
        MODIFY_INCREMENT,
        encode_value(0),
        NEVER,
        1,
    )
    structures = node_of(cluster, owner)._structures

    answers = [await run_on(cluster, owner, lambda: structures.dispatch(request)) for _ in range(3)]

    assert [Value(value=encode_value(2))] * 3 == answers
    assert 2 == await cluster.member(owner).map("users").get(KEY)


@cluster_test("simulated", size=3, partition_count=8)
async def test_a_promoted_copy_remembers_operations(cluster: TestCluster) -> None:
    """The owner died after it had acknowledged: the retry is not a second increment."""
    partition, owner, holder = await _placed(cluster)
    request = Modify(
        "users",
        partition,
        encode_key(KEY),
        b"operation",
        MODIFY_INCREMENT,
        encode_value(0),
        NEVER,
        1,
    )
    structures = node_of(cluster, owner)._structures
    first = await run_on(cluster, owner, lambda: structures.dispatch(request))
    await cluster.kill(owner)
    await cluster.wait_for_convergence()
    promoted = await cluster.owner_of(partition) if cluster.members[0].index == 0 else holder

    successor = node_of(cluster, promoted)._structures
    again = await run_on(cluster, promoted, lambda: successor.dispatch(request))

    assert first == again
    assert 2 == await cluster.members[0].map("users").get(KEY)


@cluster_test("simulated", size=2, partition_count=8, operation_timeout=2.0)
async def test_a_write_that_everybody_forgot_ends_nevertheless(cluster: TestCluster) -> None:
    """Invariant 7: no call outlasts its deadline by much, whatever became of it."""
    partition, owner, _ = await _placed(cluster)
    node = node_of(cluster, owner)
    request = Set("users", partition, encode_key(KEY), encode_value(2), NEVER, b"")
    started_at = cluster.now()

    async def write() -> None:
        answer: Any = node._structures.dispatch(request)  # Any: here it has to be awaited
        for pending in node._replication.owned[partition].pending:
            pending.waiting.clear()  # Whoever was asked: nothing is made of the answer.
        await answer

    with pytest.raises(IndeterminateError, match="in time"):
        await run_on(cluster, owner, write)

    assert cluster.now() - started_at < 3.5
    assert 1 == node.stats().readings["replication.overdue"]
    assert not node._replication.unconfirmed


@cluster_test("simulated", size=2, partition_count=8, operation_timeout=2.0)
async def test_a_batch_that_everybody_forgot_ends_nevertheless(cluster: TestCluster) -> None:
    """Each of its writes by itself, with the answer to whoever asked for them."""
    partition, owner, _ = await _placed(cluster)
    node = node_of(cluster, owner)
    keys, values = [encode_key(number) for number in range(3)], [encode_value(2)] * 3
    request = SetMany("users", [partition] * 3, keys, values, NEVER, b"")

    async def write() -> object:
        answer: Any = node._structures.dispatch(request)  # Any: here it has to be awaited
        for pending in node._replication.owned[partition].pending:
            pending.waiting.clear()  # Whoever was asked: nothing is made of the answer.
        return await answer

    reply = await run_on(cluster, owner, write)

    assert Outcomes([-CODE_INDETERMINATE] * 3) == reply
    assert 3 == node.stats().readings["replication.overdue"]
    assert not node._replication.unconfirmed


@cluster_test("simulated", size=3, partition_count=8)
async def test_a_write_that_one_copy_missed_ends_with_the_ownership(cluster: TestCluster) -> None:
    """The joining copy is given up; the other one is still asked when the partition moves."""
    partition, owner, holder = await _placed(cluster)
    replication = node_of(cluster, owner)._replication
    ownership = replication.owned[partition]
    joining = cluster.member(3 - owner - holder).id

    async def write() -> None:
        ownership.activate(joining)
        entry = Entry(encode_value(2), replication.stamp(), replication.origin, math.inf)
        pending = replication.put(ownership, "users", encode_key(KEY), entry)
        assert pending is not None
        assert {joining, cluster.member(holder).id} == set(pending.waiting)

        replication._sender._missed(joining, pending)
        assert [cluster.member(holder).id] == list(pending.waiting)
        ownership.abandon(IndeterminateError("the partition moved"))

        with pytest.raises(IndeterminateError, match="moved"):
            await pending.future

    await run_on(cluster, owner, write)
    assert not replication.unconfirmed


@cluster_test("simulated", size=2, partition_count=8)
async def test_a_write_beats_a_later_version_left_on_a_copy(cluster: TestCluster) -> None:
    """Writes are in the order of events: what a copy has from before comes before."""
    partition, owner, holder = await _placed(cluster)
    replica = node_of(cluster, holder)._replication.copies[partition]
    held = replica.entry("users", encode_key(KEY))
    assert held is not None
    ahead = held.hlc + (3_600_000 << 16)  # An hour ahead, as from a member whose clock was wrong.
    replica.apply("users", encode_key(KEY), Entry(encode_value(99), ahead, 7, NEVER_EXPIRES))

    await cluster.member(owner).map("users").set(KEY, 5)

    assert [5, 5] == [await member.map("users").get(KEY) for member in cluster.members]
    await cluster.kill(owner)
    await cluster.wait_for_convergence()
    assert 5 == await cluster.members[0].map("users").get(KEY)


NEVER_EXPIRES = float("inf")


@cluster_test("simulated", size=2, partition_count=8)
async def test_a_write_is_not_acknowledged_before_its_copy_has_it(cluster: TestCluster) -> None:
    """Invariant 1: the owner may die in the very next moment."""
    partition, owner, holder = await _placed(cluster)
    copy = node_of(cluster, holder)._replication.copies[partition]
    users = node_of(cluster, owner).map("users")

    async def write() -> bytes | None:
        await users.set(KEY, 2)
        return copy.get("users", encode_key(KEY), 0.0)

    assert encode_value(2) == await run_on(cluster, owner, write)


@cluster_test("simulated", size=3, partition_count=8)
async def test_writes_go_on_when_a_copy_can_be_reached_by_others_only(
    cluster: TestCluster,
) -> None:
    """The detector hears of the copy through a third member; the owner has it struck."""
    _, owner, holder = await _placed(cluster)
    cluster.partition([owner], [holder])

    await cluster.member(owner).map("users").set(KEY, 2)

    assert 3 == len(await cluster.member(owner).members())
    cluster.heal()
    await cluster.wait_for_convergence()
    assert [2, 2, 2] == [await member.map("users").get(KEY) for member in cluster.members]


@cluster_test("simulated", size=3, partition_count=8)
async def test_a_resumed_owner_reads_nothing_old(cluster: TestCluster) -> None:
    """It was replaced while it stood still, and asks before it serves again."""
    _, owner, _ = await _placed(cluster)
    await cluster.pause(owner)
    others = [member for member in cluster.members if member.index != owner]

    async def buried() -> bool:
        return all([len(await member.members()) == 2 for member in others])

    await cluster.eventually(buried, what="the death of the paused owner")
    await others[0].map("users").set(KEY, 2)
    world: Any = cluster._world  # Any: the simulated world
    clock = world._members[owner].process.clock
    before = clock.monotonic()

    await cluster.resume(owner)
    value = await cluster.member(owner).map("users").get(KEY)

    assert 2 == value
    assert clock.monotonic() - before < 5


@cluster_test("simulated", size=2, partition_count=8, anti_entropy_interval=3600.0, member_quorum=2)
async def test_copies_that_a_failed_write_left_unequal_are_compared_at_once(
    cluster: TestCluster,
) -> None:
    """Not only at the next round of anti-entropy, here an hour away."""
    partition, owner, holder = await _placed(cluster)
    cluster.partition([owner], [holder])
    with pytest.raises(IndeterminateError):
        await cluster.member(owner).map("users").set(KEY, 2)
    await cluster.sleep(5.0)  # The owner has given up, too.
    held = [(await m.inspect("digests"))[partition] for m in cluster.members]
    assert held[0] != held[1]
    cluster.heal()

    async def equal() -> bool:
        held = [(await m.inspect("digests"))[partition] for m in cluster.members]
        return bool(held[0] == held[1])

    await cluster.eventually(equal, within=10.0, what="equal copies")


@cluster_test("simulated", size=2, partition_count=8)
async def test_a_partition_with_an_unconfirmed_write_is_not_handed_over(
    cluster: TestCluster,
) -> None:
    """The hand-over's last delta: a write that is on this copy only must not be left behind."""
    partition, owner, holder = await _placed(cluster)
    node = node_of(cluster, owner)
    cluster.partition([owner], [holder])

    async def write_and_release() -> list[int]:
        request = node.map("users")
        writing = asyncio.ensure_future(request.set(KEY, 2))
        await asyncio.sleep(0)
        released = await node._replication.yielding.release([partition])
        writing.cancel()
        return released

    assert [] == await run_on(cluster, owner, write_and_release)
    cluster.heal()


@cluster_test("simulated", size=2, partition_count=8)
async def test_a_deposed_owner_takes_back_what_it_could_not_confirm(cluster: TestCluster) -> None:
    """The new owner may have acknowledged another value meanwhile, with an earlier stamp."""
    partition, owner, holder = await _placed(cluster)
    node = node_of(cluster, owner)
    cluster.partition([owner], [holder])

    async def write_and_lose() -> bytes | None:
        writing = asyncio.ensure_future(node.map("users").set(KEY, 2))
        await asyncio.sleep(0)
        ownership: Ownership = node._replication.owned[partition]
        assert encode_value(2) == ownership.replica.get("users", encode_key(KEY), 0.0)
        ownership.abandon(IndeterminateError("deposed"))
        writing.cancel()
        return ownership.replica.get("users", encode_key(KEY), 0.0)

    assert encode_value(1) == await run_on(cluster, owner, write_and_lose)
    cluster.heal()


@cluster_test("simulated", size=2, partition_count=8)
async def test_an_operation_that_was_taken_back_is_not_remembered_as_done(
    cluster: TestCluster,
) -> None:
    """Its retry would be told of a success that no copy has."""
    partition, owner, holder = await _placed(cluster)
    node = node_of(cluster, owner)
    cluster.partition([owner], [holder])

    async def increment_and_lose() -> tuple[int, int]:
        ownership: Ownership = node._replication.owned[partition]
        incrementing = asyncio.ensure_future(node.map("users").incr(KEY))
        await asyncio.sleep(0)
        during = len(ownership.replica.operations.all())
        ownership.abandon(IndeterminateError("deposed"))
        incrementing.cancel()
        return during, len(ownership.replica.operations.all())

    assert (1, 0) == await run_on(cluster, owner, increment_and_lose)
    cluster.heal()


@cluster_test("simulated", size=3, partition_count=8)
async def test_a_write_that_reached_a_former_copy_late_is_offered_to_the_owner(
    cluster: TestCluster,
) -> None:
    """No new table comes to remind the member that holds it."""
    partition, owner, holder = await _placed(cluster)
    stray = ({0, 1, 2} - {owner, holder}).pop()
    table = node_of(cluster, stray).partition_table()
    replica = node_of(cluster, stray)._replication.copy_of(partition)
    held = node_of(cluster, owner)._replication.copies[partition].entry("users", encode_key(KEY))
    assert held is not None
    replica.apply("users", encode_key(KEY), Entry(encode_value(2), held.hlc + 1, 7, NEVER_EXPIRES))

    async def gone() -> bool:
        return partition not in node_of(cluster, stray)._replication.copies

    await cluster.eventually(gone, within=10.0, what="the stray copy's end")

    assert [2, 2, 2] == [await member.map("users").get(KEY) for member in cluster.members]
    assert table == node_of(cluster, stray).partition_table()


@cluster_test("simulated", size=2, partition_count=8)
async def test_a_joining_copy_that_missed_a_write_is_not_complete(cluster: TestCluster) -> None:
    """It leaves the holders, so that its bring-up starts again."""
    partition, owner, _ = await _placed(cluster)
    ownership: Ownership = node_of(cluster, owner)._replication.owned[partition]
    joining = node_of(cluster, owner).id  # Anybody who is no replica's backup.
    ownership.row = ownership.row.__class__(ownership.row.epoch, (), (joining,))
    ownership.activate(joining)

    ownership.deactivate(joining)

    assert joining not in ownership.holders


@cluster_test("simulated", size=3, partition_count=8)
async def test_an_owner_whose_epoch_is_refused_gets_a_later_one(cluster: TestCluster) -> None:
    """A copy heard of a later epoch from a side of a split that has vanished since."""
    partition, owner, holder = await _placed(cluster)
    node = node_of(cluster, owner)
    epoch = node.partition_table().rows[partition].epoch
    record = EntryRecord("users", encode_key("bob"), encode_value(2), 2**40, 1, NEVER)
    vanished = Replicate(
        partition=partition, epoch=epoch + 1, entries=[record], operations=[], evicted=[]
    )
    handler = node_of(cluster, holder)._rpc._handlers[Replicate]
    await run_on(cluster, holder, lambda: handler(vanished, Peer(node.id, None)))

    await cluster.member(owner).map("users").set(KEY, 3)

    assert epoch + 1 < node.partition_table().rows[partition].epoch
    assert [3, 3, 3] == [await member.map("users").get(KEY) for member in cluster.members]


@cluster_test("simulated", size=2, partition_count=32)
async def test_a_former_copy_reads_nothing_old(cluster: TestCluster) -> None:
    """It did not hear of the table by which it is a copy no more, nor does its owner answer it."""
    keys = [f"key-{n}" for n in range(64)]
    await cluster.member(0).map("users").set_many(dict.fromkeys(keys, "old"))
    cluster.cut(0, 1)
    await cluster.add_member()
    users, former = cluster.member(0).map("users"), node_of(cluster, 1)

    def dropped(key: str) -> bool:
        partition = former.map("users").partition_of(key)
        now = node_of(cluster, 0).partition_table().rows[partition].replicas
        return former.id in former.partition_table().rows[partition].replicas[1:] and (
            former.id not in now
        )

    async def moved() -> bool:
        return any(dropped(key) for key in keys)

    await cluster.eventually(moved, within=5.0, what="a copy that was taken from member 1")
    key = next(key for key in keys if dropped(key))
    await users.set(key, "new")

    reading = asyncio.ensure_future(cluster.member(1).map("users").get(key))
    await cluster.sleep(1.5)
    cluster.heal()

    assert "new" == await reading


@cluster_test("simulated", size=2, partition_count=8)
async def test_a_merged_version_keeps_its_age(cluster: TestCluster) -> None:
    """It was written on the other side of a split, before what a copy on this side has."""
    partition, owner, holder = await _placed(cluster)
    key = encode_key(KEY)
    held = node_of(cluster, owner)._replication.copies[partition].entry("users", key)
    assert held is not None
    later = Entry(encode_value("later"), held.hlc + 200, 7, NEVER_EXPIRES)
    node_of(cluster, holder)._replication.copies[partition].apply("users", key, later)
    record = EntryRecord("users", key, encode_value("earlier"), held.hlc + 100, 7, NEVER)
    node = node_of(cluster, owner)
    handler = node._rpc._handlers[Offer]
    offer = Offer(partition=partition, entries=[record], operations=[])

    await run_on(cluster, owner, lambda: handler(offer, Peer(node.id, None)))

    assert ["later"] * 2 == [await member.map("users").get(KEY) for member in cluster.members]


@cluster_test("simulated", size=4, partition_count=16)
async def test_a_resumed_coordinator_follows_those_who_went_on(cluster: TestCluster) -> None:
    """It is the oldest, and stopped with a table that it had told to nobody: a branch of its own."""
    keys = [f"key-{n}" for n in range(50)]
    await cluster.member(0).map("users").set_many(dict.fromkeys(keys, "old"))
    node = node_of(cluster, 0)

    async def make_a_table() -> None:
        node._partitions._coordinator.renew([0])
        assert node._partitions._coordinator.advance(node.members()).table is not None

    await run_on(cluster, 0, make_a_table)
    await cluster.pause(0)

    async def buried() -> bool:
        return all([len(await m.members()) == 3 for m in cluster.members if m.index])

    await cluster.eventually(buried, what="the death of the paused coordinator")
    await cluster.member(1).map("users").set_many(dict.fromkeys(keys, "new"))

    await cluster.resume(0)
    for _ in range(20):
        for member in cluster.members:
            values = [await member.map("users").get(key) for key in keys]
            assert ["new"] * len(keys) == values
        await cluster.sleep(0.02)


@cluster_test("simulated", size=3, partition_count=8)
async def test_a_stray_copy_that_an_owner_asked_for_stays(cluster: TestCluster) -> None:
    """By a table that is still on its way here it may be a copy again, and count as complete."""
    partition, owner, holder = await _placed(cluster)
    stray = ({0, 1, 2} - {owner, holder}).pop()
    node = node_of(cluster, stray)
    held = node_of(cluster, owner)._replication.copies[partition].entry("users", encode_key(KEY))
    assert held is not None
    asked = node._rpc._handlers[FetchDigests]

    async def offer_while_asked() -> bool:
        node._replication.copy_of(partition).apply("users", encode_key(KEY), held)
        offering = asyncio.ensure_future(node._repair._offer(partition))
        await asyncio.sleep(0)
        epoch = node.partition_table().rows[partition].epoch
        asked(FetchDigests([partition], [epoch]), Peer(node_of(cluster, owner).id, None))
        await offering
        return partition in node._replication.copies

    assert await run_on(cluster, stray, offer_while_asked)
