"""Topics at most once, between members that come, go and die."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from cache.cluster import Node
from cache.cluster.topics.outbox import COUNT_MAX
from cache.errors import ClosedError, CodecError, ConfigError
from cache.testing import TestCluster, cluster_test
from tests.integration.inside import node_of, run_on
from tests.integration.listening import listen


def news(node: Node) -> Any:
    """Subscribe to the topic."""
    return node.topic("news").subscribe()


def all_news(node: Node) -> Any:
    """Subscribe to the pattern."""
    return node.topics("new?").subscribe()


async def publish(cluster: TestCluster, index: int, *values: Any, topic: str = "news") -> list[int]:
    """Publish values through a member; how many subscribers each was sent to."""

    async def run() -> list[int]:
        handle = node_of(cluster, index).topic(topic)
        return [await handle.publish(value) for value in values]

    reached: list[int] = await run_on(cluster, index, run)
    return reached


VALUES = [1, "two", b"three", None, {"four": [4.0]}]


@cluster_test("simulated", size=3)
async def test_a_message_reaches_every_subscriber_once_and_in_order(cluster: TestCluster) -> None:
    """Whoever publishes, wherever they listen; the count is that of subscribers."""
    listeners = [await listen(cluster, index, news) for index in (0, 1, 1)]

    assert [3] * len(VALUES) == await publish(cluster, 2, *VALUES)

    for listener in listeners:
        await listener.until(lambda items: len(items) == len(VALUES))
        assert VALUES == listener.values
        assert [cluster.member(2).id] * len(VALUES) == [m.publisher for m in listener.items]


@cluster_test("sockets", size=3)
async def test_topics_work_over_real_sockets(cluster: TestCluster) -> None:
    """The same code on another transport."""
    async with (
        cluster.member(0).node.topic("news").subscribe() as messages,
        cluster.member(2).node.topics("*").subscribe() as all_messages,
    ):
        for value in VALUES:
            assert 2 == await cluster.member(1).node.topic("news").publish(value)
        assert VALUES == [(await anext(messages)).value for _ in VALUES]
        assert VALUES == [(await anext(all_messages)).value for _ in VALUES]


@cluster_test("simulated", size=3)
async def test_patterns_hear_what_fits(cluster: TestCluster) -> None:
    """Each message says its topic; counts are known to every member."""
    listener = await listen(cluster, 0, all_news)
    both = await listen(cluster, 1, news)

    assert [2] == await publish(cluster, 2, 1)
    assert [1] == await publish(cluster, 2, 2, topic="newt")
    assert [0] == await publish(cluster, 2, 3, topic="weather")

    await listener.until(lambda items: len(items) == 2)
    assert [("news", 1), ("newt", 2)] == [(m.topic, m.value) for m in listener.items]
    await both.until(lambda items: len(items) == 1)
    for index in range(3):
        counts = node_of(cluster, index).topic_counts()
        assert ({"news": 1}, {"new?": 1}) == (counts.topics, counts.patterns)


@cluster_test("simulated", size=3)
async def test_only_members_with_subscribers_are_sent_to(cluster: TestCluster) -> None:
    """Silence costs nothing."""
    await listen(cluster, 0, news)

    await publish(cluster, 1, 1, 2, 3)
    await cluster.sleep(1.0)

    assert 3 == node_of(cluster, 0)._metrics.counter("topics.delivered").value
    assert [0, 0] == [_sent(cluster, 1, 2), _sent(cluster, 0, 2)]
    assert 3 == _sent(cluster, 1, 0)


def _sent(cluster: TestCluster, source: int, target: int) -> int:
    return (
        node_of(cluster, source)
        ._messaging.topics._others[cluster.member(target).id]
        .outbox._sequence
    )


@cluster_test("simulated", size=3)
async def test_a_dead_member_neither_fails_nor_delays_a_publish(cluster: TestCluster) -> None:
    """Olric returns an error when one member does not answer; here the others do not notice."""
    await listen(cluster, 0, news)
    listener = await listen(cluster, 1, news)
    dead = cluster.member(0).id
    await cluster.kill(0)
    assert dead in [member.id for member in node_of(cluster, 2).members()]

    before = cluster.now()
    assert [2] * 3 == await publish(cluster, 2, 1, 2, 3)

    assert cluster.now() - before < 0.01, "nobody was waited for"
    await listener.until(lambda items: len(items) == 3)
    assert [1, 2, 3] == listener.values
    await cluster.wait_for_convergence()
    assert [1] == await publish(cluster, 2, 4)


@cluster_test("simulated", size=2)
async def test_what_a_silent_member_is_sent_is_bounded(cluster: TestCluster) -> None:
    """Its outbox fills up; then publishing says that nobody is reached, and goes on."""
    listener = await listen(cluster, 0, news)
    await cluster.pause(0)

    reached = await publish(cluster, 1, *range(2 * COUNT_MAX))

    assert 1 == reached[0]
    assert 0 == reached[-1]
    metrics = node_of(cluster, 1)._metrics
    assert reached.count(0) == metrics.counter("topics.outbox_full").value
    await cluster.resume(0)
    await listener.until(lambda items: items)
    assert sorted(set(listener.values)) == listener.values


@cluster_test("simulated", size=2)
async def test_a_subscriber_that_does_not_read_is_told_what_it_missed(cluster: TestCluster) -> None:
    """The oldest go; the next message that is read says how many."""

    async def scenario() -> list[tuple[Any, int]]:
        topic = node_of(cluster, 0).topic("news")
        async with topic.subscribe(queue_max=3) as messages:
            for value in range(10):
                await topic.publish(value)
            read = [await anext(messages) for _ in range(3)]
            assert 7 == messages.missed
            return [(message.value, message.missed) for message in read]

    assert [(7, 7), (8, 0), (9, 0)] == await run_on(cluster, 0, scenario)


@cluster_test("simulated", size=2)
async def test_a_member_that_joins_is_heard_and_hears(cluster: TestCluster) -> None:
    """It is told who has subscribers, and sends everything until then."""
    listener = await listen(cluster, 0, news)
    await cluster.add_member()

    await publish(cluster, 2, "from the new one")
    late = await listen(cluster, 2, news)
    assert [2] == await publish(cluster, 1, "to all")

    await listener.until(lambda items: len(items) == 2)
    assert ["from the new one", "to all"] == listener.values
    await late.until(lambda items: len(items) == 1)


@cluster_test("simulated", size=4)
async def test_both_sides_of_a_split_go_on_and_meet_again(cluster: TestCluster) -> None:
    """Messages stay on their side; afterwards everybody is reached, by new numbers of old members."""
    listeners = [await listen(cluster, index, news) for index in range(4)]
    cluster.partition([0, 1], [2, 3])
    await cluster.eventually(partial(_sees, cluster, 2), what="the split")

    await publish(cluster, 0, "left")
    await publish(cluster, 3, "right")
    await listeners[1].until(lambda items: items)
    await listeners[2].until(lambda items: items)
    assert ["left"] == listeners[1].values
    assert ["right"] == listeners[2].values
    cluster.heal()
    await cluster.wait_for_convergence()
    await cluster.eventually(partial(_count, cluster, 4), what="all being told")
    assert [4] == await publish(cluster, 0, "both")
    for listener in listeners:
        await listener.until(lambda items: items[-1].value == "both")


async def _sees(cluster: TestCluster, count: int) -> bool:
    return all(len(node_of(cluster, i).members()) == count for i in range(len(cluster.members)))


async def _count(cluster: TestCluster, count: int) -> bool:
    counts = [node_of(cluster, i).topic_counts().topics for i in range(len(cluster.members))]
    return all(found == {"news": count} for found in counts)


@cluster_test("simulated", size=2)
async def test_leaving_a_subscription_ends_it_everywhere(cluster: TestCluster) -> None:
    """Nobody is sent anything any more, and nothing is kept."""

    async def scenario() -> None:
        subscription = news(node_of(cluster, 0))
        async with subscription:
            pass
        with pytest.raises(StopAsyncIteration):
            await anext(subscription)
        with pytest.raises(ClosedError, match="entered before"):
            await subscription.__aenter__()

    await run_on(cluster, 0, scenario)
    await cluster.sleep(0.5)

    assert [0] == await publish(cluster, 1, 1)
    assert {} == node_of(cluster, 0)._messaging.topics._topics


@cluster_test("simulated", size=2)
async def test_a_node_that_closes_ends_its_subscriptions(cluster: TestCluster) -> None:
    """With an error: a stream that merely stopped would look like silence."""
    node = node_of(cluster, 0)

    async def scenario() -> None:
        async with news(node) as messages:
            await node.abort()
            with pytest.raises(ClosedError):
                await anext(messages)

    await run_on(cluster, 0, scenario)


@cluster_test("simulated", size=1)
async def test_bad_input_is_refused_by_name(cluster: TestCluster) -> None:
    """Before anything is sent."""
    node = node_of(cluster, 0)

    async def scenario() -> None:
        with pytest.raises(ConfigError, match="topic '': must be 1 to 256"):
            node.topic("")
        with pytest.raises(ConfigError, match="pattern"):
            node.topics("x" * 257)
        with pytest.raises(ConfigError, match="not valid text"):
            node.topic("\ud800")
        with pytest.raises(ConfigError, match="queue_max=0"):
            node.topic("news").subscribe(queue_max=0)
        with pytest.raises(CodecError):
            await node.topic("news").publish(object())
        with pytest.raises(ClosedError, match="enter it first"):
            await anext(node.topic("news").subscribe())

    await run_on(cluster, 0, scenario)
