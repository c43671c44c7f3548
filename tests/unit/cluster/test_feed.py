"""A queue that never grows."""

from __future__ import annotations

import asyncio

import pytest

from cache.cluster.feed import Feed
from cache.errors import ClosedError, ConfigError


async def test_items_come_in_order() -> None:
    """A feed is a queue."""
    feed: Feed[int] = Feed()
    feed.push(1)
    feed.push(2)

    assert [(1, 0), (2, 0)] == [await feed.next(), await feed.next()]


async def test_the_oldest_go_and_the_reader_is_told_how_many() -> None:
    """The number stands where the gap is, and is told once."""
    feed: Feed[int] = Feed(count_max=2)
    for item in range(5):
        feed.push(item)

    assert [(3, 3), (4, 0)] == [await feed.next(), await feed.next()]
    assert 3 == feed.missed


async def test_bytes_are_bounded_too() -> None:
    """The latest item stays, whatever its size."""
    feed: Feed[str] = Feed(bytes_max=10)
    feed.push("small", 4)
    feed.push("large", 100)
    assert 1 == len(feed)
    assert ("large", 1) == await feed.next()

    feed.push("a", 5)
    feed.push("b", 5)
    assert [("a", 0), ("b", 0)] == [await feed.next(), await feed.next()]


async def test_a_reader_waits_for_the_next_item() -> None:
    """And only for that."""
    feed: Feed[int] = Feed()
    asyncio.get_running_loop().call_soon(feed.push, 7)

    assert (7, 0) == await feed.next()


async def test_a_reader_that_is_cancelled_loses_nothing() -> None:
    """The item is there for the next call."""
    feed: Feed[int] = Feed()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(feed.next(), 0.001)
    feed.push(7)

    assert (7, 0) == await feed.next()


async def test_a_feed_that_fails_is_read_to_its_end_first() -> None:
    """Then the error comes, each time."""
    feed: Feed[int] = Feed()
    feed.push(1)
    feed.close(ClosedError("over"))
    feed.push(2)

    assert (1, 0) == await feed.next()
    for _ in range(2):
        with pytest.raises(ClosedError, match="over"):
            await feed.next()


async def test_a_feed_that_its_reader_closes_is_over() -> None:
    """Also for a reader that waits."""
    feed: Feed[int] = Feed()
    asyncio.get_running_loop().call_soon(feed.close)

    with pytest.raises(StopAsyncIteration):
        await feed.next()


@pytest.mark.parametrize("limit", [0, -1, 1.5])
def test_a_limit_below_one_is_refused(limit: int) -> None:
    """By the name of the option."""
    with pytest.raises(ConfigError, match="queue_max="):
        Feed(count_max=limit)
    with pytest.raises(ConfigError, match="queue_bytes_max="):
        Feed(bytes_max=limit)
