"""`Consistent`: the structures of a node that stay consistent whatever fails. What `node.consistent` is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from cache.clock import Clock
from cache.cluster.consistent.access import Access, Reach, Wait
from cache.cluster.consistent.election import ConsistentElection
from cache.cluster.consistent.group import Group
from cache.cluster.consistent.lock import ConsistentLock
from cache.cluster.consistent.log import BYTES_MAX, ENTRIES_MAX, ConsistentLog
from cache.cluster.consistent.map import ConsistentMap, ConsistentRegister
from cache.cluster.consistent.numbers import ConsistentCounter, ConsistentIds, ConsistentLatch
from cache.cluster.consistent.semaphore import ConsistentSemaphore
from cache.cluster.raft.status import GroupInfo
from cache.cluster.scope import Scope
from cache.errors import RejectedError
from cache.serializers import Serializer


class Consistent:
    """Structures whose every operation is linearizable, replicated by Raft. Handles are cheap.

    Objects of one name and different kinds have nothing to do with each other. Every write costs a
    round trip to the leader and one to a majority: for what coordinates, not for what is cached.

    Args:
        groups: returns the group that has the objects of a name; asked again, the same one.
        clock: the node's.
        scope: owns the tasks that give back what their callers left.
        info: tells what the node has and knows of each group.
        give_up: gives up a group, see the method.
    """

    def __init__(
        self,
        groups: Callable[[str], Group],
        clock: Clock,
        scope: Scope,
        *,
        info: Callable[[], dict[str, GroupInfo]],
        give_up: Callable[[str, str], Awaitable[None]] | None = None,
    ) -> None:
        self._info = info
        self._give_up = give_up
        self._groups = groups
        self._clock = clock
        self._scope = scope
        self._reaches: dict[str, Reach] = {}

    def info(self) -> dict[str, GroupInfo]:
        """Return what this node has and knows of each group, by name: role, leader, term, indexes, voters."""
        return self._info()

    async def give_up(self, group: str, uuid: str) -> None:
        """Give up a group in memory that lost a majority of its logs, and everything in it, on every member.

        The next use founds an empty one. **Tokens of locks begin anew**: reset what the stores behind them
        remember as the highest token first. For operators; to be called on a member that has a replica.

        Args:
            group: its name, as `info` has it.
            uuid: which one, as `info` has it: so that nothing else is given up by mistake.

        Raises:
            RejectedError: a majority may still exist, or a live member does not answer or agree; says what to
                do. Nothing is founded before all agree, and asking again goes on where it ended.
        """
        if self._give_up is None:
            raise RejectedError("groups cannot be given up from here; ask a member")
        await self._give_up(group, uuid)

    def register(
        self, name: str, *, serializer: Serializer | None = None
    ) -> ConsistentRegister[Any]:  # Any: the caller says what it stores
        """Return a handle of the register of that name."""
        return ConsistentRegister(self._access("register", name, serializer))

    def map(
        self, name: str, *, serializer: Serializer | None = None
    ) -> ConsistentMap[Any]:  # Any: the caller says what it stores
        """Return a handle of the map of that name; no map of `Node.map`."""
        return ConsistentMap(self._access("consistent map", name, serializer))

    def counter(self, name: str) -> ConsistentCounter:
        """Return a handle of the counter of that name."""
        return ConsistentCounter(self._access("counter", name))

    def lock(
        self, name: str, *, reentrant: bool = False, lease: Wait | None = None
    ) -> ConsistentLock:
        """Return a handle of the lock of that name.

        Args:
            name: what all members call it.
            reentrant: the task that holds it by this handle may acquire it again; the group sees one hold.
            lease: the longest hold without `renew`, 0.1 s to a day; None: as long as this node's session.
        """
        return ConsistentLock(self._access("lock", name), reentrant=reentrant, lease=lease)

    def semaphore(self, name: str, permits: int) -> ConsistentSemaphore:
        """Return a handle of the semaphore of that name; all its users give the same number of permits."""
        return ConsistentSemaphore(self._access("semaphore", name), permits)

    def latch(self, name: str, count: int) -> ConsistentLatch:
        """Return a handle of the latch of that name; all its users give the same count."""
        return ConsistentLatch(self._access("latch", name), count)

    def ids(self, name: str, *, block: int = 100) -> ConsistentIds:
        """Return a handle of the identifiers of that name, which takes `block` of them at a time."""
        return ConsistentIds(self._access("ids", name), block)

    def election(self, name: str, *, serializer: Serializer | None = None) -> ConsistentElection:
        """Return a handle of the election of that name."""
        return ConsistentElection(self._access("election", name, serializer))

    def log(
        self,
        name: str,
        *,
        entries_max: int = ENTRIES_MAX,
        bytes_max: int = BYTES_MAX,
        serializer: Serializer | None = None,
    ) -> ConsistentLog[Any]:  # Any: the caller says what it stores
        """Return a handle of the log of that name; appends by it keep as much as these limits say."""
        access = self._access("log", name, serializer)
        return ConsistentLog(access, entries_max=entries_max, bytes_max=bytes_max)

    def _access(self, what: str, name: str, serializer: Serializer | None = None) -> Access:
        group = self._groups(name)
        reach = self._reaches.get(group.name)
        if reach is None:
            reach = self._reaches[group.name] = Reach(group, self._clock, self._scope)
        return Access(what, name, reach, serializer)
