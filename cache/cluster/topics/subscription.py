"""What a subscriber of a topic reads."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from cache.cluster.feed import BYTES_MAX, COUNT_MAX, Feed
from cache.cluster.ids import MemberId
from cache.cluster.topics.interest import Name
from cache.codec import decode_value
from cache.errors import CacheError, ClosedError


@dataclass(frozen=True, slots=True)
class TopicMessage:
    """One published value."""

    topic: str
    value: Any  # Any: a MessagePack value
    publisher: MemberId
    """The member it was published through."""
    missed: int
    """Messages that this subscriber did not read in time, and lost, just before this one."""


class Subscription:
    """Messages of a topic, or of all that fit a pattern: `async with` it, then `async for` over it."""

    def __init__(
        self,
        name: Name,
        *,
        add: Callable[[Subscription], Awaitable[None]],
        remove: Callable[[Subscription], None],
        queue_max: int = COUNT_MAX,
        queue_bytes_max: int = BYTES_MAX,
    ) -> None:
        self.name = name
        self._add = add
        self._remove = remove
        self._feed: Feed[tuple[str, bytes, MemberId]] = Feed(queue_max, queue_bytes_max)
        self._entered = False

    def __repr__(self) -> str:
        return f"<Subscription {self.name[1]!r}>"

    @property
    def missed(self) -> int:
        """Messages lost since the beginning because they were not read in time."""
        return self._feed.missed

    async def __aenter__(self) -> Self:
        if self._entered:
            raise ClosedError(f"{self!r} was entered before; make a new one")
        self._entered = True
        try:
            await self._add(self)
        except BaseException:
            self._leave()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._leave()

    def _leave(self) -> None:
        self._remove(self)
        self._feed.close()

    def __aiter__(self) -> AsyncIterator[TopicMessage]:
        return self

    async def __anext__(self) -> TopicMessage:
        if not self._entered:
            raise ClosedError(f"{self!r}: enter it first, `async with topic.subscribe() as …`")
        (topic, value, publisher), missed = await self._feed.next()
        return TopicMessage(topic, decode_value(value), publisher, missed)

    def deliver(self, topic: str, value: bytes, publisher: MemberId) -> None:
        """Queue a message."""
        self._feed.push((topic, value, publisher), len(value))

    def end(self, error: CacheError) -> None:
        """What is queued can still be read, then `error` is raised."""
        self._feed.close(error)
