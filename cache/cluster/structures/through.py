"""Write-through: the store has a write before any copy has it, and keys take turns.

The order is: decide, store, commit. Between the second and the third another member may take the partition
over; then the store has a write that memory has not, its fate is told as unknown, and the caller's router
asks the new owner for the same operation, which stores it again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from cache.cluster.replication.entries import Entry
from cache.cluster.replication.ownership import Ownership
from cache.cluster.replication.service import ReplicationService
from cache.cluster.structures.answers import Answer, after
from cache.cluster.structures.leases import Leases
from cache.cluster.structures.stores import Stores
from cache.cluster.structures.writes import Writes
from cache.cluster.wire.messages import OperationRecord, Reply, Set
from cache.errors import CacheError, IndeterminateError, OperationTimeoutError

Decision = tuple[Entry | None, Reply, Sequence[OperationRecord]]
"""(entry to store or None for no change, reply, operations to remember)."""


class Through:
    """Writes of the partitions owned here, of maps that are written through."""

    def __init__(
        self, replication: ReplicationService, stores: Stores, writes: Writes, leases: Leases
    ) -> None:
        self._replication = replication
        self._stores = stores
        self._writes = writes
        self._leases = leases

    async def write(
        self,
        message: Any,
        decide: Callable[[Ownership], Decision],
        repeated: Callable[[Any, Ownership], Answer | None] = lambda _, __: None,
    ) -> Reply:
        """Do one write. Any: a request about one key.

        Raises:
            StoreError: the store refused; nothing was applied.
            IndeterminateError: the store did not answer in time, or the partition moved meanwhile.
        """
        async with self._stores.turn(message.map, [message.key]):
            ownership = self._writes.admit(message.partition)
            answer = repeated(message, ownership)
            if answer is None:
                decision = decide(ownership)
                await self._store(message.map, [(message, ownership, decision)])
                answer = self._commit(message, ownership, decision)
        return await answer if isinstance(answer, Awaitable) else answer

    async def write_many(
        self, messages: Sequence[Set], decide: Callable[[Set, Ownership], Decision]
    ) -> list[Answer | CacheError]:
        """Do many writes of one map with one call of the store; all of them fail with it."""
        outcomes: list[Answer | CacheError] = []
        map_name = messages[0].map if messages else ""
        async with self._stores.turn(map_name, [message.key for message in messages]):
            decided: list[tuple[Set, Ownership, Decision] | CacheError] = []
            for message in messages:
                try:
                    ownership = self._writes.admit(message.partition)
                except CacheError as error:
                    decided.append(error)
                else:
                    decided.append((message, ownership, decide(message, ownership)))
            admitted = [done for done in decided if not isinstance(done, CacheError)]
            try:
                await self._store(map_name, admitted)
            except CacheError as error:
                return [done if isinstance(done, CacheError) else error for done in decided]
            for done in decided:
                try:
                    outcomes.append(done if isinstance(done, CacheError) else self._commit(*done))
                except CacheError as error:
                    outcomes.append(error)
        return outcomes

    async def _store(
        self, map_name: str, decided: Sequence[tuple[Any, Ownership, Decision]]
    ) -> None:
        # Any: requests about one key.
        entries = {
            message.key: (entry.value, entry.hlc)
            for message, _, (entry, _, _) in decided
            if entry is not None
        }
        if not entries:
            return
        for message, _, _ in decided:  # What is being loaded is old.
            self._leases.outdate((message.partition, map_name, message.key))
        try:
            await self._stores.through[map_name].write(entries)
        except OperationTimeoutError:
            for message, ownership, _ in decided:
                self._give_up(message, ownership)
            raise

    def _give_up(self, message: Any, ownership: Ownership) -> None:
        """The store may have it or not: let the next read ask the store. Any: a request about one key."""
        held = ownership.replica.entry(message.map, message.key)
        is_loaded = message.map in self._stores.reading and held is not None
        if is_loaded and self._serves(message.partition, ownership):
            tombstone = self._writes.stamper(message.map).tombstone()
            self._replication.commit(ownership, [(message.map, message.key, tombstone)])

    def _serves(self, partition: int, ownership: Ownership) -> bool:
        is_owner = self._replication.owned.get(partition) is ownership
        return is_owner and ownership.serving and not self._replication.stalled

    def _commit(self, message: Any, ownership: Ownership, decision: Decision) -> Answer:
        """Bring to the copies what the store has. Any: a request about one key."""
        entry, reply, records = decision
        if entry is None:
            return reply
        if not self._serves(message.partition, ownership):
            raise IndeterminateError("the store has the write, but the partition moved meanwhile")
        held = ownership.replica.entry(message.map, message.key)
        if held is not None and held.version > entry.version:  # A merge brought it.
            stamp, origin = self._replication.stamp(), self._replication.origin
            entry = Entry(entry.value, stamp, origin, entry.expires_at)
        pending = self._replication.commit(ownership, [(message.map, message.key, entry)], records)
        self._leases.outdate((message.partition, message.map, message.key))
        return reply if pending is None else after(pending, reply)
