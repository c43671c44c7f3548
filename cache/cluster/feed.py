"""A queue with one reader that never grows: when it is full the oldest item goes, and the reader is told.

Whoever writes never waits and never fails, so a slow reader harms nobody but itself.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final, Generic, TypeVar

from cache.errors import CacheError, ConfigError

T = TypeVar("T")

COUNT_MAX: Final = 1024
BYTES_MAX: Final = 16 * 1024 * 1024
"""What a queue holds unless its reader wants it otherwise."""


class Feed(Generic[T]):
    """Items for one reader.

    Args:
        count_max: items held.
        bytes_max: bytes of the items held; the latest one is always kept, whatever its size.

    Raises:
        ConfigError: a limit is below 1.
    """

    def __init__(self, count_max: int = COUNT_MAX, bytes_max: int = BYTES_MAX) -> None:
        for name, limit in (("queue_max", count_max), ("queue_bytes_max", bytes_max)):
            if not isinstance(limit, int) or limit < 1:
                raise ConfigError(f"{name}={limit!r}: must be a whole number, 1 or more")
        self.missed = 0
        """Items that went unread since the beginning."""
        self._count_max = count_max
        self._bytes_max = bytes_max
        self._items: deque[tuple[T, int]] = deque()
        self._bytes = 0
        self._missed_now = 0
        self._waiter: asyncio.Future[None] | None = None
        self._closed = False
        self._error: CacheError | None = None

    def __len__(self) -> int:
        return len(self._items)

    def push(self, item: T, size_bytes: int = 0) -> None:
        """Add an item; the oldest ones go when there are too many, or too large ones."""
        if self._closed:
            return
        self._items.append((item, size_bytes))
        self._bytes += size_bytes
        while len(self._items) > 1 and (
            len(self._items) > self._count_max or self._bytes > self._bytes_max
        ):
            self._bytes -= self._items.popleft()[1]
            self._missed_now += 1
            self.missed += 1
        self._wake()

    async def next(self) -> tuple[T, int]:
        """Return the next item, and how many went unread just before it.

        Raises:
            StopAsyncIteration: the feed was closed by its reader.
            CacheError: it was closed because of this error, and everything was read.
        """
        while not self._items:
            if self._error is not None:
                raise self._error
            if self._closed:
                raise StopAsyncIteration
            assert self._waiter is None, "a feed has one reader"
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        item, size = self._items.popleft()
        self._bytes -= size
        missed, self._missed_now = self._missed_now, 0
        return item, missed

    def close(self, error: CacheError | None = None) -> None:
        """End: without an error what is queued is given up, with one it can still be read. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._error = error
        if error is None:
            self._items.clear()
            self._bytes = 0
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
