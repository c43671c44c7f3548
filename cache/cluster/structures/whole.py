"""All of a map: operations on every partition, wherever it is and also while it moves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

from cache.cluster.ids import MemberId
from cache.cluster.structures.router import BACKOFF_FIRST, Router
from cache.cluster.wire.messages import Counted, EntriesPage
from cache.errors import CacheError, RemoteProtocolError


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

    async def pages(
        self,
        request: Callable[[list[int], bytes], Any],
        what: str,
        partitions: Iterable[int] | None = None,
    ) -> AsyncIterator[EntriesPage]:
        """Yield what each owner lists, a page at a time; each partition goes on after its last key.

        Args:
            request: makes the request about these partitions, of which the first goes on after a key.
            what: the operation, for errors.
            partitions: only these; None for all.

        Raises:
            RejectedError: no partition that is left had an owner within the operation timeout.
        """
        # Any: a map request.
        every = range(self._partition_count)
        cursors = dict.fromkeys(every if partitions is None else partitions, b"")
        while cursors:
            deadline, backoff = self._router.deadline(), BACKOFF_FIRST
            while not (pages := await self._round(cursors, request)):
                self._router.site.check_member_quorum()
                backoff = await self._router.pause(backoff, deadline, what)
            for page in pages:
                yield page
            await asyncio.sleep(0)  # Pages that were all made here have waited for nothing.

    async def _round(
        self, cursors: dict[int, bytes], request: Callable[[list[int], bytes], Any]
    ) -> list[EntriesPage]:
        """Ask every owner for a page, and move the cursors; a partition that was listed loses its own."""
        # Any: a map request. A partition that is half listed goes first: only the first one of a request
        # has a cursor.
        order = sorted(cursors, key=lambda partition: (not cursors[partition], partition))
        requests = []
        for member, partitions in self._by_owner(order):
            started = [p for p in partitions if cursors[p]]
            listed = [*started[:1], *(p for p in partitions if not cursors[p])]
            requests.append((member, request(listed, cursors[listed[0]])))
        pages = []
        for reply in await self._router.to_members(requests):
            if isinstance(reply, CacheError):
                if isinstance(reply, RemoteProtocolError):
                    raise reply  # It would say so for ever.
                continue
            assert isinstance(reply, EntriesPage)
            for partition in reply.finished:
                cursors.pop(partition, None)
            if reply.halfway in cursors:
                cursors[reply.halfway] = reply.after
            if reply.finished or reply.halfway >= 0:
                pages.append(reply)
        return pages

    def _by_owner(self, partitions: Iterable[int]) -> list[tuple[MemberId | None, list[int]]]:
        by_owner: dict[MemberId | None, list[int]] = {}
        for partition in partitions:
            by_owner.setdefault(self._router.owner(partition), []).append(partition)
        return list(by_owner.items())
