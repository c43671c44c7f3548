"""`DistributedMap`: a dictionary shared by all members, every key on `replica_count` of them.

Reads of keys owned by this member are served from memory without a hop; everything else goes to the owner,
see `router.py`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from typing import TypeVar, cast

from cache.cluster.ids import MemberId
from cache.cluster.structures.access import MapAccess
from cache.cluster.structures.batches import Batches
from cache.cluster.structures.keyed import KeyOperations
from cache.cluster.structures.loader import Loader
from cache.cluster.structures.near import MapStats
from cache.cluster.structures.pipeline import Pipeline
from cache.cluster.structures.state import CLOSED, MapState
from cache.cluster.structures.updates import Updates
from cache.cluster.structures.whole import WholeMap
from cache.cluster.wire.messages import ClearEntries, CountEntries, InvalidateTags
from cache.durations import DEFAULT
from cache.interface import Cache
from cache.keys import K, Key, Ttl, check_keys, check_tags

V = TypeVar("V")


class DistributedMap(KeyOperations[V], Cache[V]):
    """A map of the cluster; get one from `Node.map`.

    Keys are `str`, `bytes` or `int`; values any MessagePack type, `bytes` (kept as they are) or None.

    Guarantees:
        Consistency: per key, operations run one after the other on its owner; every member reads its
            own acknowledged writes and everybody else's. After a split, eventual: last writer wins by
            hybrid logical clock.
        An ack means: the write is in memory on every copy the table lists (or on `write_quorum`).
        Under partition: each side with `member_quorum` members serves what it holds; on heal the later
            version of each key wins, deletes included. The other side stops serving only once the
            failure detector has noticed.
        Under pause: a paused owner that resumes is refused by its backups (epoch).
        Clocks: none for safety; version order between two sides of a split follows wall clocks.
        With a near cache: reads may be behind the owner by its `staleness_bound` at most, never behind
            this member's own acknowledged writes, and are not given by backups (docs/near_cache.md).
        With a policy: times to live, idle ends and bounds are decided by the key's owner, the same
            whoever writes or reads (docs/policies.md).
        With a store: the owner loads from it and writes to it, through or behind; each mode has a card
            of its own (docs/stores.md).
        Loss is reported by: the counter `partitions.lost`, when every copy of a partition died.
        Tested by: tests/integration.

    All operations raise `RejectedError` (not applied), `IndeterminateError` (may have been applied) or
    `CodecError` (key or value not storable).
    """

    def __init__(self, access: MapAccess, state: MapState) -> None:
        super().__init__(access, state)
        self._name = access.name
        self._state = state
        self._batches = Batches(access.name, access.router)
        self._whole = WholeMap(access.name, access.router)

    @property
    def name(self) -> str:
        """Name of the map; every member that asks for this name gets the same data."""
        return self._name

    def __repr__(self) -> str:
        return f"<DistributedMap {self._name!r}>"

    def partition_of(self, key: Key) -> int:
        """Return the partition that holds `key`."""
        return self._access.locate(key)[1]

    def owner_of(self, key: Key) -> MemberId | None:
        """Return the member that owns `key` by this member's table."""
        return self._access.owner_of(key)

    # -- many keys ---------------------------------------------------------------------------

    async def get_many(self, keys: Iterable[K]) -> dict[K, V]:
        """Return the values of those `keys` that are present: one request per member, in parallel."""
        located = {key: self._access.locate(key) for key in check_keys(keys)}
        deadline = self._access.router.deadline()
        read = self._batches.get if self._access.near is None else self._access.near.get_many
        found = await read(located)
        if left := [key for key in located if key not in found]:
            found |= await self._access.read_each(left, deadline)
        present = {
            k: cast(V, self._access.decode(raw)) for k, raw in found.items() if raw is not None
        }
        self._counts.hits += len(present)
        self._counts.misses += len(located) - len(present)
        return present

    async def set_many(
        self, items: Mapping[K, V], *, ttl: Ttl = DEFAULT, tags: Iterable[str] = ()
    ) -> None:
        """Store all `items`: one request per member, in parallel.

        Raises:
            RejectedError: none was stored.
            BatchError: its `failed` names the keys that were not, or may not have been.
        """
        located = {key: self._access.locate(key) for key in items}
        bears = check_tags(tags)
        encoded = {key: self._access.encode(value, bears) for key, value in items.items()}
        for key in located:
            self._flights.outdate(key)
        seconds = self._access.seconds(ttl)
        await self._batches.set(located, encoded, seconds)
        self._counts.sets += len(located)

    async def delete_many(self, keys: Iterable[K]) -> int:
        """Remove `keys`; return how many were present.

        Raises:
            RejectedError: none was removed.
            BatchError: its `failed` names the keys that were not, or may not have been.
        """
        located = {key: self._access.locate(key) for key in check_keys(keys)}
        for key in located:
            self._flights.outdate(key)
        count = await self._batches.delete(located, self._access.operation_ids.next)
        self._counts.deletes += count
        return count

    def pipeline(self) -> Pipeline[V]:
        """Return a pipeline: operations that leave together, one message per member.

        Use as `async with users.pipeline() as batch:` and look at the results afterwards, see `Pipeline`.
        """
        return Pipeline(self._access, self._state)

    # -- the whole map -----------------------------------------------------------------------

    async def scan(self, prefix: str = "") -> AsyncIterator[Key]:
        """Yield the keys that begin with `prefix`, each once, in no order.

        A key that is present all the while is yielded exactly once, also while partitions move and members
        die, as long as a copy of it lives; one that comes or goes meanwhile may be.
        """
        async for key in self._whole.scan(prefix):
            yield key

    async def size(self) -> int:
        """Return the number of keys: a sum over members, not a snapshot at one instant."""
        return await self._whole.everywhere(lambda owned: CountEntries(self._name, owned), "size")

    async def clear(self) -> int:
        """Remove every key that is present now; return how many. Later writes stay."""
        operation = self._access.operation_ids.next()
        self._flights.outdate_all()
        count = await self._whole.everywhere(
            lambda owned: ClearEntries(self._name, owned, operation), "clear"
        )
        self._counts.deletes += count
        return count

    async def invalidate_tags(self, *tags: str) -> int:
        """Remove every key that bears one of `tags`, on all members; return how many."""
        gone = list(check_tags(tags))
        self._flights.invalidate(gone)
        count = await self._whole.everywhere(
            lambda owned: InvalidateTags(self._name, owned, gone), "invalidate_tags"
        )
        self._counts.deletes += count
        return count

    def _outdate_loads(self, prefix: str) -> None:
        self._flights.outdate_all(prefix)

    def stats(self) -> MapStats:
        """Return what this member did with the map, and what its copies hold now; looks at every key.

        `evictions` are those it decided as owner; `expired` are entries of all its copies.
        """
        replication = self._access.router.replication
        now = self._access.router.clock.monotonic()
        usage = replication.room.usage.of(self._name)
        held = [copy.footprint(self._name, now) for copy in replication.copies.values()]
        return MapStats(
            hits=self._counts.hits,
            misses=self._counts.misses,
            sets=self._counts.sets,
            deletes=self._counts.deletes,
            evictions=usage.evicted,
            expired=usage.expired,
            entries=sum(count for count, _ in held),
            bytes=sum(size for _, size in held),
            **({} if self._access.near is None else self._access.near.readings()),
        )

    async def destroy(self) -> None:
        """Remove every key on all members and close this handle: a map is nothing but its entries."""
        await self.clear()
        await self.close()

    async def close(self) -> None:
        """Close this handle; the data stays, and so do other handles. Idempotent."""
        self._access = cast(MapAccess, CLOSED)
        self._loader = cast(Loader, CLOSED)
        self._updates = cast(Updates, CLOSED)
        self._whole = cast(WholeMap, CLOSED)
