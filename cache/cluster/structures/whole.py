"""All of a map: operations on every partition, wherever it is and also while it moves."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any, Final

from cache.cluster.ids import MemberId
from cache.cluster.partitions.table import map_seed, partition_of
from cache.cluster.structures.router import BACKOFF_FIRST, Router
from cache.cluster.wire.messages import Counted, ScanKeys, Scanned
from cache.codec import decode_key
from cache.errors import CacheError
from cache.keys import Key

SCAN_PAGE: Final = 1_000
"""Keys asked for at a time."""


class WholeMap:
    """Operations on all partitions of one map."""

    def __init__(self, name: str, router: Router) -> None:
        self._name = name
        self._router = router
        self._partition_count = router.config.partition_count

    async def everywhere(self, request: Callable[[list[int]], Any], what: str) -> int:
        """Send a request to every owner, for its partitions; return the sum of what they counted.

        Raises:
            RejectedError: some partitions had no owner within the operation timeout.
        """
        # Any: a map request about these partitions.
        deadline = self._router.deadline()
        todo: Iterable[int] = range(self._partition_count)
        total, backoff = 0, BACKOFF_FIRST
        while todo:
            members = self._by_owner(todo)
            todo = []
            replies = await self._router.to_members([(m, request(owned)) for m, owned in members])
            for (_, partitions), reply in zip(members, replies, strict=True):
                if isinstance(reply, CacheError):
                    self._router.site.check_member_quorum()
                    todo.extend(partitions)
                    continue
                assert isinstance(reply, Counted)
                total += reply.count
                todo.extend(reply.refused)
            if todo:
                backoff = await self._router.pause(backoff, deadline, what)
        return total

    async def scan(self, prefix: str) -> AsyncIterator[Key]:
        """Yield the keys with a prefix."""
        async for page in self._listed(range(self._partition_count), prefix.encode()):
            for key in page:
                yield decode_key(key)

    async def keys_of(self, partitions: Sequence[int]) -> dict[int, list[bytes]]:
        """Return the encoded keys of some partitions, by partition."""
        found: dict[int, list[bytes]] = {partition: [] for partition in partitions}
        seed = map_seed(self._name)
        async for page in self._listed(partitions, b""):
            for key in page:
                found[partition_of(key, seed, self._partition_count)].append(key)
        return found

    async def _listed(self, partitions: Iterable[int], prefix: bytes) -> AsyncIterator[list[bytes]]:
        """Yield pages of keys. A page at a time, each partition goes on after its last key."""
        cursors = dict.fromkeys(partitions, b"")
        while cursors:
            deadline, backoff = self._router.deadline(), BACKOFF_FIRST
            while not (pages := await self._pages(cursors, prefix)):
                self._router.site.check_member_quorum()
                backoff = await self._router.pause(backoff, deadline, "scan")
            for page in pages:
                yield page

    async def _pages(self, cursors: dict[int, bytes], prefix: bytes) -> list[list[bytes]]:
        """Ask every owner for a page, and move the cursors; a partition that was listed loses its own."""
        # A partition that is half listed goes first: only the first one of a request has a cursor.
        order = sorted(cursors, key=lambda partition: (not cursors[partition], partition))
        members = self._by_owner(order)
        asked = []
        for member, partitions in members:
            started = [p for p in partitions if cursors[p]]
            asked.append(([*started[:1], *(p for p in partitions if not cursors[p])], member))
        requests = [
            (member, ScanKeys(self._name, listed, cursors[listed[0]], prefix, SCAN_PAGE))
            for listed, member in asked
        ]
        replies = await self._router.to_members(requests)
        pages = []
        for reply in replies:
            if isinstance(reply, CacheError):
                continue
            assert isinstance(reply, Scanned)
            for partition in reply.finished:
                cursors.pop(partition, None)
            if reply.halfway in cursors and reply.keys:
                cursors[reply.halfway] = reply.keys[-1]
            if reply.finished or reply.keys:
                pages.append(reply.keys)
        return pages

    def _by_owner(self, partitions: Iterable[int]) -> list[tuple[MemberId | None, list[int]]]:
        by_owner: dict[MemberId | None, list[int]] = {}
        for partition in partitions:
            by_owner.setdefault(self._router.owner(partition), []).append(partition)
        return list(by_owner.items())
