"""Reliable topics while owners die, partitions move and the cluster splits."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import Any

import pytest

from cache.cluster import BEGINNING, Node, ReliableTopic
from cache.cluster.topics.stored import map_of
from cache.cluster.wire.messages import Append
from cache.errors import CacheError, ClosedError, ConfigError
from cache.testing import TestCluster, cluster_test, run_cluster
from cache.testing.history import Span
from tests.integration.inside import node_of, run_on
from tests.integration.listening import Listener, listen

TOPIC = "orders"
SEGMENT_DIGITS = 24
"""Of a message's id: which owner's segment it stands in."""

PUBLISH_INTERVAL = 0.01
"""Virtual seconds between two messages of a publisher."""


def topic_of(node: Node, **options: Any) -> ReliableTopic:
    """The topic as a member has it."""
    return node.topic(TOPIC, reliable=True, **options)


def from_now(node: Node) -> Any:
    """Subscribe to what comes."""
    return topic_of(node).subscribe()


def from_beginning(node: Node) -> Any:
    """Subscribe to all that is kept."""
    return topic_of(node).subscribe(BEGINNING)


async def publish(cluster: TestCluster, index: int, *values: Any, **options: Any) -> list[str]:
    """Publish values through a member; their ids."""

    async def run() -> list[str]:
        topic = topic_of(node_of(cluster, index), **options)
        return [await topic.publish(value) for value in values]

    ids: list[str] = await run_on(cluster, index, run)
    return ids


async def owner_of(cluster: TestCluster) -> int:
    """Who owns the topic."""
    index = cluster.members[0].index
    return await cluster.owner_of(topic_of(node_of(cluster, index)).partition)


def held(cluster: TestCluster, index: int) -> int:
    """How many messages a member holds."""
    node = node_of(cluster, index)
    replica = node._replication.copies.get(topic_of(node).partition)
    keys = [] if replica is None else replica.keys(map_of(TOPIC), 0.0)
    return sum(key.startswith(b"m") for key in keys)


class Publisher:
    """Publishes numbers through a member until it is told to stop; remembers what was acknowledged."""

    def __init__(self, cluster: TestCluster, index: int) -> None:
        self.acknowledged: list[Any] = []
        self.tried: list[Any] = []
        self.going = True
        self.spans: dict[int, Span] = {}
        """When each number was being published, by the world's clock."""
        self._now = cluster.now
        world: Any = cluster._world  # Any: the simulated world
        node = node_of(cluster, index)
        loop = world._members[index].process.loop
        loop.call_soon(lambda: node._scope.spawn(self._publish(node, index), name="publisher"))

    async def _publish(self, node: Node, index: int) -> None:
        topic, count = topic_of(node), 0
        loop = asyncio.get_running_loop()
        while self.going:
            turn = loop.create_future()
            loop.call_later(PUBLISH_INTERVAL, turn.set_result, None)
            await turn
            value = [index, count]
            count += 1
            self.tried.append(value)
            began_at = self._now()
            try:
                await topic.publish(value)
            except CacheError:
                continue
            finally:
                self.spans[value[1]] = Span(began_at, self._now())
            self.acknowledged.append(value)


def check(publishers: list[Publisher], listener: Listener, divided: Sequence[Span] = ()) -> None:
    """No acknowledged message is missing without a gap, none comes twice, each publisher's are in order.

    After members were `divided` the order is that of each side, and both may have taken what was being
    published then.
    """
    values = listener.values
    missed = sum(message.missed for message in listener.items)
    for publisher in publishers:
        own = [value for value in values if value[0] == publisher.tried[0][0]]
        assert divided or own == sorted(own), "in order"
        for segment in {message.id[:SEGMENT_DIGITS]: None for message in listener.items}:
            of_segment = [m.value for m in listener.items if m.id.startswith(segment)]
            taken = [value for value in of_segment if value in own]
            assert taken == sorted(taken), "in order, as far as one owner took them"
        twice = [number for number, count in Counter(v[1] for v in own).items() if count > 1]
        spans = [publisher.spans[number] for number in twice]
        assert all(any(d.overlaps(s.start, s.end) for d in divided) for s in spans), "once"
        assert all(value in publisher.tried for value in own), "nothing made up"
    lost = sum(value not in values for p in publishers for value in p.acknowledged)
    assert lost == 0 or lost <= missed, f"{lost} lost, {missed} reported"


def has(publishers: list[Publisher]) -> Any:
    """A condition: all that was acknowledged was read."""

    def read(items: list[Any]) -> bool:
        values = [tuple(item.value) for item in items]
        known = set(values)
        return all(tuple(value) in known for p in publishers for value in p.acknowledged)

    return read


@cluster_test("simulated", size=3, replica_count=2)
async def test_every_subscriber_reads_every_message_in_one_order(cluster: TestCluster) -> None:
    """Those who come later read what was kept; copies are on two members."""
    listeners = [await listen(cluster, index, from_now) for index in range(3)]

    ids = [*await publish(cluster, 0, 1, "two"), *await publish(cluster, 1, b"three", None)]

    listeners.append(await listen(cluster, 2, from_beginning))
    for listener in listeners:
        await listener.until(lambda items: len(items) == 4)
        assert [1, "two", b"three", None] == listener.values
        assert ids == [message.id for message in listener.items] == sorted(ids)
        assert 0 == sum(message.missed for message in listener.items)
    assert [0, 4, 4] == sorted(held(cluster, index) for index in range(3))


@cluster_test("sockets", size=3, replica_count=2)
async def test_reliable_topics_work_over_real_sockets(cluster: TestCluster) -> None:
    """The same code on another transport."""
    async with topic_of(cluster.member(0).node).subscribe(BEGINNING) as messages:
        for value in range(20):
            await topic_of(cluster.member(1).node).publish(value)
        assert list(range(20)) == [(await anext(messages)).value for _ in range(20)]


@cluster_test("simulated", size=3, replica_count=2)
async def test_a_reader_goes_on_where_it_stopped(cluster: TestCluster) -> None:
    """On another member, from a position it kept."""
    await publish(cluster, 0, *range(10))
    listener = await listen(cluster, 1, from_beginning)
    await listener.until(lambda items: len(items) == 10)

    position = listener.items[3].position
    resumed = await listen(cluster, 2, lambda node: topic_of(node).subscribe(position))

    await resumed.until(lambda items: len(items) == 6)
    assert list(range(4, 10)) == resumed.values


@cluster_test("simulated", size=3, replica_count=2)
async def test_what_was_overwritten_is_reported_with_its_number(cluster: TestCluster) -> None:
    """A slow reader learns how many it missed, and memory is bounded on all copies; after a move, too."""
    listener = await listen(cluster, 0, from_beginning)
    await publish(cluster, 0, "first", capacity=5)
    await listener.until(lambda items: items)
    position = listener.items[0].position
    await publish(cluster, 1, *range(20), capacity=5)
    assert [0, 5, 5] == sorted(held(cluster, index) for index in range(3))

    late = await listen(cluster, 2, lambda node: topic_of(node).subscribe(position))
    await late.until(lambda items: len(items) == 5)
    assert [(15, 15), (16, 0), (17, 0), (18, 0), (19, 0)] == [
        (message.value, message.missed) for message in late.items
    ]

    await cluster.kill(await owner_of(cluster))
    await cluster.wait_for_convergence()
    survivor = cluster.members[0].index
    moved = await listen(cluster, survivor, lambda node: topic_of(node).subscribe(position))
    await moved.until(lambda items: len(items) == 5)
    assert (15, 15) == (moved.items[0].value, moved.items[0].missed)


@cluster_test("simulated", size=4, replica_count=2)
async def test_no_acknowledged_message_is_lost_when_owners_die(cluster: TestCluster) -> None:
    """Publishers retry, readers go on with the next owner; nothing is missing or comes twice."""
    owner = await owner_of(cluster)
    others = [member.index for member in cluster.members if member.index != owner]
    listeners = [await listen(cluster, index, from_now) for index in others[:2]]
    publishers = [Publisher(cluster, index) for index in others[:2]]
    await cluster.sleep(0.5)
    before = len(publishers[0].acknowledged)
    assert before > 10

    await cluster.kill(owner)
    await cluster.sleep(10.0)
    assert owner not in [member.index for member in cluster.members]
    assert len(publishers[0].acknowledged) > before, "it goes on with the next owner"

    for publisher in publishers:
        publisher.going = False
    for listener in listeners:
        await listener.until(has(publishers), what="all messages")
        check(publishers, listener)
        assert 0 == sum(message.missed for message in listener.items)


@cluster_test("simulated", size=3, replica_count=2)
async def test_messages_move_with_their_partition(cluster: TestCluster) -> None:
    """Members join and leave gracefully meanwhile: nobody misses anything."""
    owner = await owner_of(cluster)
    index = next(member.index for member in cluster.members if member.index != owner)
    listener = await listen(cluster, index, from_now)
    publisher = Publisher(cluster, index)
    await cluster.add_member()

    await cluster.remove_member(owner)
    await cluster.wait_for_convergence()
    assert await owner_of(cluster) != owner
    publisher.going = False

    await listener.until(has([publisher]), what="all messages")
    check([publisher], listener)
    assert 0 == sum(message.missed for message in listener.items)


@cluster_test("simulated", size=5, replica_count=4)
async def test_both_sides_of_a_split_are_merged(cluster: TestCluster) -> None:
    """Each side's readers read the other side's messages after the heal, late and once."""
    left, right = [0, 1], [2, 3, 4]
    listeners = {index: await listen(cluster, index, from_now) for index in (0, 1, 2, 3)}
    await publish(cluster, 0, "before")
    cluster.partition(left, right)

    async def split() -> bool:
        views = [len(node_of(cluster, index).members()) for index in range(5)]
        return views == [2, 2, 3, 3, 3]

    await cluster.eventually(split, what="the split")
    await publish(cluster, 0, *[["left", n] for n in range(5)])
    await publish(cluster, 2, *[["right", n] for n in range(5)])
    await listeners[1].until(lambda items: len(items) == 6)
    await listeners[3].until(lambda items: len(items) == 6)
    cluster.heal()
    await cluster.wait_for_convergence()
    await publish(cluster, 4, "after")

    for listener in listeners.values():
        await listener.until(lambda items: len(items) >= 12, what="both sides")
        values = listener.values
        assert ["before", "after"] == [value for value in values if isinstance(value, str)]
        for side in ("left", "right"):
            assert list(range(5)) == [value[1] for value in values if value[0] == side]
        assert 12 == len(values)
        assert 0 == sum(message.missed for message in listener.items)


async def _random_faults(cluster: TestCluster, seed: int) -> None:
    """Members die and come back, stand still, and are cut off, one after the other, while all publish."""
    rng = Random(seed)
    listeners = [await listen(cluster, index, from_now) for index in (0, 1)]
    publishers = [Publisher(cluster, index) for index in (0, 1)]
    divided = []
    for _ in range(4):
        victim = rng.choice([2, 3])
        began_at = cluster.now()
        match rng.choice(["kill", "pause", "split"]):
            case "kill":
                await cluster.kill(victim)
                await cluster.sleep(rng.uniform(0.1, 3.0))
                await cluster.restart(victim)
            case "pause":
                await cluster.pause(victim)
                await cluster.sleep(rng.uniform(0.5, 6.0))
                await cluster.resume(victim)
            case _:
                cluster.partition([0, victim], [1, 5 - victim])
                await cluster.sleep(rng.uniform(0.5, 6.0))
                cluster.heal()
        await cluster.wait_for_convergence()
        divided.append(Span(began_at, cluster.now()))
    for publisher in publishers:
        publisher.going = False
        assert len(publisher.acknowledged) > 50
    for listener in listeners:
        await listener.until(has(publishers), what="all messages")
        check(publishers, listener, divided)


@pytest.mark.parametrize("seed", range(4))
def test_no_random_faults_lose_an_acknowledged_message(seed: int) -> None:
    """One copy of three is always left: everything arrives, once, in the order that each owner took it."""

    async def scenario(cluster: TestCluster) -> None:
        await _random_faults(cluster, seed)

    run_cluster(scenario, seed=seed, size=4, replica_count=3, partition_count=8)


@cluster_test("simulated", size=3, replica_count=2)
async def test_nobody_is_shown_what_a_copy_lacks(cluster: TestCluster) -> None:
    """The owner dies between its own append and the copy's: no reader saw the message."""
    owner = await owner_of(cluster)
    node = node_of(cluster, owner)
    listener = await listen(cluster, owner, from_now)
    backup = node.partition_table().rows[topic_of(node).partition].replicas[1]
    (held_back,) = [m.index for m in cluster.members if m.id == backup]
    cluster.cut(owner, held_back)

    with pytest.raises((CacheError, TimeoutError)):
        await run_on(cluster, owner, lambda: asyncio.wait_for(topic_of(node).publish(1), 0.2))
    assert 1 == held(cluster, owner)
    assert 0 == held(cluster, held_back)
    assert [] == listener.items
    await cluster.kill(owner)


@cluster_test("simulated", size=3, replica_count=2)
async def test_a_retry_adds_nothing(cluster: TestCluster) -> None:
    """The same operation is the same message, through whichever owner."""
    owner = await owner_of(cluster)
    node = node_of(cluster, owner)
    partition = topic_of(node).partition
    request = Append(TOPIC, partition, b"operation", b"\x00once", 100, 1000)

    async def send(index: int) -> Any:
        return await run_on(
            cluster, index, lambda: node_of(cluster, index)._maps.router.write(partition, request)
        )

    first = await send(owner)
    assert first == await send(owner)
    await cluster.kill(owner)
    await cluster.wait_for_convergence()
    survivor = cluster.members[0].index

    assert first == await send(survivor)
    listener = await listen(cluster, survivor, from_beginning)
    await listener.until(lambda items: items)
    assert [b"once"] == listener.values


@cluster_test("simulated", size=2)
async def test_bad_options_are_refused_by_name(cluster: TestCluster) -> None:
    """Before anything is sent."""
    node = node_of(cluster, 0)

    async def scenario() -> None:
        with pytest.raises(ConfigError, match="capacity=0"):
            node.topic(TOPIC, reliable=True, capacity=0)
        for text in ("x", "????", "gaMBAgM", 5):
            with pytest.raises(ConfigError, match="after="):
                topic_of(node).subscribe(text)  # type: ignore[arg-type]  # one of them is no text
        with pytest.raises(ClosedError, match="enter it first"):
            await anext(from_now(node))
        with pytest.raises(ConfigError, match="the library's"):
            node.map("\x00topic:orders")
        await node.abort()
        with pytest.raises(ClosedError):
            await topic_of(node).publish(1)

    await run_on(cluster, 0, scenario)
