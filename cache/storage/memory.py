"""A store in memory: what a process forgets, with all that a store checks.

Its `content` can be given to the next store, as a disk is: tests restart replicas that way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import TypeVar

from sortedcontainers import SortedDict

from cache.storage import records
from cache.storage.base import PENDING_BYTES_MAX, Identity
from cache.storage.recorded import Found, Reader, RecordedStorage
from cache.storage.records import Change, Cut

T = TypeVar("T")


class SortedRecords:
    """Records in memory, by position; a `Reader`."""

    def __init__(self) -> None:
        self.content: SortedDict[bytes, bytes] = SortedDict()

    def apply(self, changes: Iterable[Change]) -> None:
        """Carry out changes."""
        for change in changes:
            if isinstance(change, Cut):
                for position in list(self._between(change.first, change.end)):
                    del self.content[position]
            else:
                self.content[change.position] = change.sealed

    def _between(self, first: bytes, end: bytes) -> Iterable[bytes]:
        return self.content.irange(first, end, (True, False))

    def find(self, position: bytes) -> bytes | None:
        """Return what is stored there."""
        return self.content.get(position)

    def find_from(self, first: bytes, end: bytes, limit: int) -> Found:
        """Return the records of a range."""
        return [(p, self.content[p]) for p in islice(self._between(first, end), limit)]


class MemoryStorage(RecordedStorage):
    """A `Storage` that lasts as long as its `content`.

    An ack means: in the memory of this process. It is for groups whose members are many enough, and
    for tests.
    """

    def __init__(
        self,
        identity: Identity,
        content: SortedRecords | None = None,
        *,
        pending_bytes_max: int = PENDING_BYTES_MAX,
    ) -> None:
        """Make a store; `content` is what an earlier one left, if it is to go on from there."""
        super().__init__(identity, pending_bytes_max=pending_bytes_max)
        self.content = SortedRecords() if content is None else content

    async def _start(self) -> None:
        sealed = self.content.find(records.IDENTITY_POSITION)
        if sealed is None:
            self.content.apply([records.seal_identity(self.identity)])
        else:
            records.check_identity(sealed, self.identity, "this memory")

    async def _end(self) -> None:
        """Nothing is under way, ever."""

    def _submit(self, changes: Sequence[Change]) -> asyncio.Future[None]:
        self.content.apply(changes)
        future = asyncio.get_running_loop().create_future()
        future.set_result(None)
        return future

    async def _read(self, job: Callable[[Reader], T]) -> T:
        return job(self.content)
