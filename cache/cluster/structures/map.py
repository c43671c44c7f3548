"""`DistributedMap`: a dictionary shared by all members, every key on `replica_count` of them.

Reads of keys owned by this member are served from memory without a hop; everything else goes to the owner,
see `router.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar, cast

from cache.cluster.ids import MemberId
from cache.cluster.structures.access import MapAccess
from cache.cluster.structures.batches import Batches
from cache.cluster.structures.events import EntryEvents, EventKind
from cache.cluster.structures.keyed import KeyOperations
from cache.cluster.structures.loader import Loader
from cache.cluster.structures.lock import DistributedLock
from cache.cluster.structures.near import MapStats
from cache.cluster.structures.pipeline import Pipeline
from cache.cluster.structures.state import CLOSED, MapState
from cache.cluster.structures.updates import Updates
from cache.cluster.structures.whole import WholeMap
from cache.cluster.structures.wide import WideOperations
from cache.durations import DEFAULT
from cache.interface import Cache
from cache.keys import K, Key, Ttl, check_keys, check_tags

V = TypeVar("V")


class DistributedMap(KeyOperations[V], WideOperations[V], Cache[V]):
    """A map of the cluster; get one from `Node.map`.

    Keys are `str`, `bytes` or `int`; values any MessagePack type, `bytes` (kept as they are) or None.

    Guarantees:
        Consistency: per key, operations run one after the other on its owner; every member reads its
            own acknowledged writes and everybody else's. After a split, eventual: last writer wins by
            hybrid logical clock.
            A write may be read before it is acknowledged, and is gone if its owner dies before then.
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
        KeyOperations.__init__(self, access, state)
        WideOperations.__init__(self, access, state)
        self._state = state
        self._batches = Batches(access.name, access.router)

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

    def lock(
        self, key: Key, *, lease: float = 10.0, wait: float = 5.0, renew: bool = True
    ) -> DistributedLock:
        """Return the lock of `key`, to be held in `async with`, which gives its fencing number.

        The lock says nothing of the key's entry, which may be absent, and is read and written as ever.

        Args:
            key: what to lock; its owner keeps the lock.
            lease: seconds after which the lock of a holder that died is free, 0.1 to 86,400.
            wait: seconds to wait for it; 0 takes it now or not at all.
            renew: let `async with` renew the lease for as long as its body runs.

        Raises:
            ConfigError: `lease` or `wait` cannot be used.
            CodecError: no key.
        """
        return DistributedLock(self._access, key, lease=lease, wait=wait, renew=renew)

    # -- many keys ---------------------------------------------------------------------------

    async def get_many(self, keys: Iterable[K]) -> dict[K, V]:
        """Return the values of those `keys` that are present: one request per member, in parallel."""
        columns = self._access.columns(check_keys(keys))
        deadline = self._access.router.deadline()
        read = self._batches.get if self._access.near is None else self._access.near.get_many
        found = await read(columns)
        if len(found) < len(columns.keys):
            left = [key for key in columns.keys if key not in found]
            found |= await self._access.read_each(left, deadline)
        values = self._access.decode_items(found)
        self._counts.hits += len(values)
        self._counts.misses += len(found) - len(values)
        return cast("dict[K, V]", values)

    async def set_many(
        self, items: Mapping[K, V], *, ttl: Ttl = DEFAULT, tags: Iterable[str] = ()
    ) -> None:
        """Store all `items`: one request per member, in parallel.

        Raises:
            RejectedError: none was stored.
            BatchError: its `failed` names the keys that were not, or may not have been.
        """
        columns = self._access.columns(items)
        bears = check_tags(tags)
        encoded = {key: self._access.encode(value, bears) for key, value in items.items()}
        for key in columns.keys:
            self._flights.outdate(key)
        seconds = self._access.seconds(ttl)
        await self._batches.set(columns, encoded, seconds)
        self._counts.sets += len(columns.keys)

    async def delete_many(self, keys: Iterable[K]) -> int:
        """Remove `keys`; return how many were present.

        Raises:
            RejectedError: none was removed.
            BatchError: its `failed` names the keys that were not, or may not have been.
        """
        columns = self._access.columns(check_keys(keys))
        for key in columns.keys:
            self._flights.outdate(key)
        count = await self._batches.delete(columns, self._access.operation_ids.next)
        self._counts.deletes += count
        return count

    def pipeline(self) -> Pipeline[V]:
        """Return a pipeline: operations that leave together, one message per member.

        Use as `async with users.pipeline() as batch:` and look at the results afterwards, see `Pipeline`.
        """
        return Pipeline(self._access, self._state)

    # -- the whole map -----------------------------------------------------------------------

    def events(
        self,
        *,
        kinds: Iterable[EventKind] | None = None,
        key: Key | None = None,
        prefix: str | None = None,
        include_value: bool = False,
        after: str | None = None,
    ) -> EntryEvents:
        """Return what happens to entries, to be entered: `async with users.events() as events`.

        Args:
            kinds: some of "created", "updated", "removed", "expired", "evicted", "invalidated"; None for all.
            key: only events of this key.
            prefix: only those of keys, text or bytes, that begin so.
            include_value: with the values.
            after: the `token` of an earlier reader, to go on from; None for what happens from now on.

        Raises:
            ConfigError: unknown kinds, key and prefix together, or no token.
        """
        return EntryEvents(
            self._access,
            kinds=kinds,
            key=key,
            prefix=prefix,
            include_value=include_value,
            after=after,
        )

    def _outdate_loads(self, prefix: str) -> None:
        self._flights.outdate_all(prefix)

    def stats(self) -> MapStats:
        """Return what this member did with the map, and what its copies hold now; looks at every key.

        `evictions` are those it decided as owner; `expired` are entries of all its copies.
        """
        site = self._access.router.site
        now = self._access.router.clock.monotonic()
        usage = site.usage_of(self._name)
        held = [copy.footprint(self._name, now) for copy in site.copies.values()]
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
        """Remove every key and every index on all members, and close this handle."""
        for name in await self.indexes():
            await self.remove_index(name)
        await self.clear()
        await self.close()

    async def close(self) -> None:
        """Close this handle; the data stays, and so do other handles. Idempotent."""
        self._access = cast(MapAccess, CLOSED)
        self._reads_from = cast(MapAccess, CLOSED)
        self._recent = {}
        self._loader = cast(Loader, CLOSED)
        self._updates = cast(Updates, CLOSED)
        self._whole = cast(WholeMap, CLOSED)
        self._indexes = cast(MapAccess, CLOSED)
