"""Channels of real Redis clients and topics of Python programs, across members."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import redis.asyncio

from cache.cluster.ids import parse_address
from cache.testing import TestCluster, cluster_test
from tests.unit.cluster.transport.support import eventually

PROTOCOLS = (2, 3)


def connect(cluster: TestCluster, number: int, protocol: int) -> Any:  # Any: redis-py is not typed
    """Return a client of a member."""
    address = cluster.member(number).node.resp_address
    assert address is not None, "asked for by the test's settings"
    return redis.asyncio.Redis(port=parse_address(address)[1], protocol=protocol)


async def messages(listener: Any, count: int) -> list[tuple[bytes, ...]]:
    """Return what a redis-py listener is told, acknowledgements aside."""
    found: list[tuple[bytes, ...]] = []
    while len(found) < count:
        told = await listener.get_message(ignore_subscribe_messages=True, timeout=30)
        if told is not None:
            found.append((told["channel"], told["data"]))
    return found


async def scenario(cluster: TestCluster, protocol: int) -> None:
    """Listen through one member, publish through another."""
    one, other = connect(cluster, 0, protocol), connect(cluster, 1, protocol)
    exact, pattern = one.pubsub(), other.pubsub()
    await exact.subscribe("news", "weather")
    await pattern.psubscribe("n*")
    await messages_of_subscribing(exact, 2)
    await messages_of_subscribing(pattern, 1)

    assert await other.publish("news", "first") == 2
    assert await one.publish("weather", b"\x00rain") == 1
    assert await one.publish("nothing", "seen by the pattern") == 1
    assert await one.publish("silence", "seen by nobody") == 0
    assert await cluster.member(2).node.topic("news").publish("of Python") == 2

    heard = sorted([(b"news", b"first"), (b"news", b"of Python"), (b"weather", b"\x00rain")])
    assert heard == sorted(await messages(exact, 3))
    by_pattern = [
        (b"news", b"first"),
        (b"news", b"of Python"),
        (b"nothing", b"seen by the pattern"),
    ]
    assert by_pattern == sorted(await messages(pattern, 3))
    assert sorted(await other.pubsub_channels()) == [b"news", b"weather"]
    assert await other.pubsub_channels("w*") == [b"weather"]
    assert dict(await other.pubsub_numsub("news", "absent")) == {b"news": 1, b"absent": 0}
    assert await one.pubsub_numpat() == 1

    await exact.unsubscribe("news")
    await messages_of_subscribing(exact, 1)
    counts = cluster.member(1).node.topic_counts
    await eventually(lambda: "news" not in counts().topics)
    assert await other.publish("news", "second") == 1
    for client in (exact, pattern, one, other):
        await client.aclose()
    await eventually(lambda: not counts().topics and not counts().patterns)


async def messages_of_subscribing(listener: Any, count: int) -> None:
    """Wait until the member has said so."""
    for _ in range(count):
        told = await listener.get_message(timeout=30)
        assert told is not None
        assert "subscribe" in told["type"]


@cluster_test("sockets", size=3, resp_bind="127.0.0.1:0")
async def test_clients_of_all_members_hear_each_other(cluster: TestCluster) -> None:
    """Exact channels and patterns, in both protocols, and what Python publishes."""
    for protocol in PROTOCOLS:
        await scenario(cluster, protocol)


@cluster_test("sockets", size=2, resp_bind="127.0.0.1:0")
async def test_python_hears_what_redis_clients_publish(cluster: TestCluster) -> None:
    """As bytes, in order."""
    client = connect(cluster, 0, 3)
    async with cluster.member(1).node.topic("news").subscribe() as heard:
        for number in range(50):
            assert await client.publish("news", number) == 1
        assert [b"%d" % n for n in range(50)] == [(await anext(heard)).value for _ in range(50)]
    await client.aclose()


@cluster_test("sockets", size=1, resp_bind="127.0.0.1:0")
async def test_names_that_are_no_text_are_refused(cluster: TestCluster) -> None:
    """A topic has a text for a name."""
    client = connect(cluster, 0, 2)
    for name in (b"\xff", b"", b"x" * 257):
        with pytest.raises(redis.exceptions.ResponseError, match="names of channels"):
            await client.publish(name, "x")
    await client.aclose()


@cluster_test("sockets", size=1, resp_bind="127.0.0.1:0")
async def test_a_subscriber_that_does_not_read_is_cut_off(cluster: TestCluster) -> None:
    """Over a real socket: its messages cannot wait without bound, and others are not held up."""
    address = cluster.member(0).node.resp_address
    assert address is not None
    reader, writer = await asyncio.open_connection(*parse_address(address), limit=1024)
    writer.write(b"SUBSCRIBE flood\r\n")
    await reader.readuntil(b":1\r\n")
    client = connect(cluster, 0, 2)
    counts = cluster.member(0).node.topic_counts
    payload, sent = b"x" * 65_536, 0

    while counts().topics:
        sent += 1
        assert sent < 10_000
        await client.publish("flood", payload)

    assert sent > 16
    assert 1 == cluster.member(0).node.stats().readings["resp.slow_clients"]
    assert await client.ping()
    writer.close()
    await client.aclose()
