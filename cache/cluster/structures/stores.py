"""Databases behind maps, on the member that owns the key: calls of the store, in order per key.

The owner talks to the store because it is the one place that every write of a key passes: so the order is
one, a partition that moves takes the duty with it, and callers (clients too) need not know of the store.

* *Read-through*: an absent key is loaded under the lease that `get_or_set` has, once for all who ask.
* *Write-through*: a key's writes take turns. The store has the value before any copy has it.
* *Write-behind*: a write and its place in the queue are one change, on all copies. The queue is a map of its
  own (`queue_of`) with the latest value of each key; what the store has is taken out by a tombstone of the
  same version, so that a later write stays. See `behind.py`.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from cache.cluster.config.maps import QUEUE
from cache.cluster.config.stores import BEHIND, THROUGH, StoreConfig
from cache.cluster.replication.entries import Entry
from cache.cluster.replication.ownership import Change, Ownership
from cache.cluster.replication.service import ReplicationService
from cache.cluster.structures.leases import Lease, LeaseKey, Leases
from cache.cluster.structures.operations import wire_ttl
from cache.cluster.structures.writes import Writes
from cache.cluster.wire.messages import LOAD_BUSY, LOAD_PRESENT, NEVER
from cache.codec import decode_key, decode_value, encode_value, untagged, with_tags
from cache.errors import OperationTimeoutError, OverloadedError, StoreError
from cache.flights import Loaded
from cache.keys import Key, check_tags
from cache.metrics import Metrics

logger = logging.getLogger(__name__)

Place = tuple[int, bytes]
"""(partition, key)."""

DELETED: Final = b"\x00"
WRITTEN: Final = b"\x01"
"""First byte of what waits in a queue; the value comes after."""

ABSENT: Final = b"absent"
FAILED: Final = b"failed"
"""What those who wait for a load here are told when it ends without a value."""


def queue_of(map_name: str) -> str:
    """Return the name of the map with the writes that wait for a store."""
    return QUEUE + map_name


def queued(map_name: str, key: bytes, entry: Entry) -> Change:
    """Return a write's place in the queue: of the same version, never ending."""
    waiting = DELETED if entry.value is None else WRITTEN + entry.value
    return (queue_of(map_name), key, Entry(waiting, entry.hlc, entry.origin, math.inf))


class Store:
    """One map's store, in terms of encoded keys and values."""

    def __init__(self, map_name: str, config: StoreConfig, metrics: Metrics) -> None:
        self.map = map_name
        self.config = config
        self._calls = metrics.counter("stores.calls")
        self._failures = metrics.counter("stores.failures")

    async def write(self, entries: Mapping[bytes, tuple[bytes | None, int]]) -> None:
        """Bring writes to the store: encoded value (None to delete) and version of each key.

        Raises:
            StoreError: the store refused; nothing was stored.
            OperationTimeoutError: it did not answer in time.
        """
        stored: dict[Key, Any] = {}  # Any: values of the map
        versions: dict[Key, int] = {}
        gone: dict[Key, int] = {}
        for encoded, (value, version) in entries.items():
            key = decode_key(encoded)
            if value is None:
                gone[key] = version
            else:
                stored[key], versions[key] = self._decode(value), version
        store = self.config.store
        if len(stored) == 1:
            ((key, item),) = stored.items()
            await self._call(store.store(key, item, versions[key]), "store")
        elif stored:
            await self._call(store.store_many(stored, versions), "store_many")
        if len(gone) == 1:
            ((key, version),) = gone.items()
            await self._call(store.delete(key, version), "delete")
        elif gone:
            await self._call(store.delete_many(gone), "delete_many")

    async def load(self, keys: Sequence[bytes]) -> dict[bytes, tuple[bytes, float]]:
        """Return encoded value and seconds to live of the keys that the store has.

        Raises:
            StoreError: the store failed or did not answer in time.
        """
        decoded = {decode_key(key): key for key in keys}
        store = self.config.store
        try:
            if len(decoded) == 1:
                (key,) = decoded
                found: Mapping[Key, Any] = {key: await self._call(store.load(key), "load")}
            else:
                found = await self._call(store.load_many(list(decoded)), "load_many")
        except OperationTimeoutError as error:
            raise StoreError(str(error)) from error
        return {
            decoded[k]: self._encode(v) for k, v in found.items() if v is not None and k in decoded
        }

    def _decode(self, encoded: bytes) -> object:
        serializer = self.config.serializer
        if serializer is None:
            return decode_value(encoded)
        return serializer.decode(untagged(encoded), self.map)

    def _encode(self, value: object) -> tuple[bytes, float]:
        loaded = value if isinstance(value, Loaded) else Loaded(value)
        serializer = self.config.serializer
        raw = (
            encode_value(loaded.value)
            if serializer is None
            else serializer.encode(loaded.value, self.map)
        )
        return with_tags(raw, check_tags(loaded.tags)), wire_ttl(loaded.ttl, NEVER)

    async def _call(self, call: Awaitable[Any], what: str) -> Any:  # Any: as the store's method
        self._calls.add()
        name = f"{what} of the store of {self.map!r}"
        try:
            async with asyncio.timeout(self.config.timeout) as limit:
                return await call
        except Exception as error:  # The application's code may raise anything.
            self._failures.add()
            logger.warning(
                "store.failed map=%s call=%s error=%s", self.map, what, type(error).__name__
            )
            if limit.expired():
                raise OperationTimeoutError(
                    f"{name} did not answer within {self.config.timeout:g} s: it may have the write"
                ) from error
            raise StoreError(f"{name} raised {type(error).__name__}: {error}") from error


class Stores:
    """The stores of a member, and the order of what is done with them."""

    def __init__(
        self, replication: ReplicationService, writes: Writes, leases: Leases, metrics: Metrics
    ) -> None:
        self._replication = replication
        self._writes = writes
        self._leases = leases
        self._tokens = 0
        configs = replication.config.stores
        stores = {name: Store(name, config, metrics) for name, config in configs.items()}
        self.reading = {n: s for n, s in stores.items() if s.config.read}
        self.through = {n: s for n, s in stores.items() if s.config.write == THROUGH}
        self.behind = {n: s for n, s in stores.items() if s.config.write == BEHIND}
        self.writing = {**self.through, **self.behind}
        self.full = metrics.counter("stores.queue_full")
        self._turns: dict[tuple[str, bytes], tuple[asyncio.Lock, list[None]]] = {}

    # -- writes ------------------------------------------------------------------------------

    def admit(self, map_name: str, partition: int) -> Ownership:
        """Return the ownership of a partition in which a map may be written to now, as `Writes.admit`.

        Raises:
            OverloadedError: too many writes of the map wait for its store; and as `Writes.admit`.
        """
        if map_name in self.behind:
            self._check_room(map_name, self.behind[map_name])
        return self._writes.admit(partition)

    def _check_room(self, map_name: str, store: Store) -> None:
        waiting = self._replication.room.usage.of(queue_of(map_name)).pending
        if waiting >= store.config.queue_max:
            self.full.add()
            raise OverloadedError(
                f"{waiting} writes of map {map_name!r} wait for its store (queue_max): is it down?"
            )

    def changes(self, map_name: str, key: bytes, entry: Entry) -> list[Change]:
        """Return what one write changes: the entry, and its place in the queue if there is one."""
        change = (map_name, key, entry)
        return [change, queued(map_name, key, entry)] if map_name in self.behind else [change]

    @asynccontextmanager
    async def turn(self, map_name: str, keys: Iterable[bytes]) -> AsyncIterator[None]:
        """Wait until nobody else writes these keys through; first come, first served.

        Locks guard the time between the decision what to store and its commit. They are taken in one
        order, so that two batches do not wait for each other.
        """
        places = [(map_name, key) for key in sorted(dict.fromkeys(keys))]
        limit = self._replication.config.limits.pending_writes_max
        if len(self._turns) + len(places) > limit:
            raise OverloadedError(f"{limit} writes wait for stores (limits.pending_writes_max)")
        held: list[asyncio.Lock] = []
        for place in places:
            self._turns.setdefault(place, (asyncio.Lock(), []))[1].append(None)
        try:
            for place in places:
                await self._turns[place][0].acquire()
                held.append(self._turns[place][0])
            yield
        finally:
            for lock in held:
                lock.release()
            for place in places:
                self._turns[place][1].pop()
                if not self._turns[place][1]:
                    del self._turns[place]

    # -- reads -------------------------------------------------------------------------------

    async def load(self, map_name: str, places: Sequence[Place]) -> dict[Place, bytes | None]:
        """Return the values of keys that are absent here: what waits in the queue, else what the store has.

        Raises:
            StoreError: the store failed.
            NotOwnerError: the partition is not served here any more.
        """
        found: dict[Place, bytes | None] = {}
        mine: dict[Place, tuple[bytes, Ownership]] = {}
        others: list[Place] = []
        for place in dict.fromkeys(places):
            ownership = self._replication.serve(place[0])
            waiting = ownership.replica.entry(queue_of(map_name), place[1])
            if waiting is not None and waiting.value is not None:
                found[place] = self._from_queue(map_name, place, ownership, waiting)
            elif (token := self._begin(map_name, place, ownership)) is None:
                others.append(place)
            else:
                mine[place] = (token, ownership)
        if mine:
            found.update(await self._load(map_name, mine))
        for place in others:
            found[place] = await self._wait(map_name, place)
        return found

    def _from_queue(
        self, map_name: str, place: Place, ownership: Ownership, waiting: Entry
    ) -> bytes | None:
        """Keep what waits for the store, and ended here before it was there."""
        assert waiting.value is not None, "what waits has a value, or says that there is none"
        if waiting.value[:1] == DELETED:
            return None
        value = waiting.value[1:]
        held = ownership.replica.entry(map_name, place[1])
        replaced = waiting if held is None or held.version < waiting.version else held
        self._keep(ownership, map_name, place[1], (value, NEVER), replaced)
        return value

    def _keep(
        self,
        ownership: Ownership,
        map_name: str,
        key: bytes,
        loaded: tuple[bytes, float],
        held: Entry | None,
    ) -> None:
        """Put on all copies what was loaded in place of `held`; a later version of any copy stands."""
        entry = self._writes.stamper(map_name).loaded(*loaded, held)
        self._replication.commit(ownership, [(map_name, key, entry)], merging=True)

    def _begin(self, map_name: str, place: Place, ownership: Ownership) -> bytes | None:
        """Take the lease on a key; None if somebody has it."""
        replication, (partition, key) = self._replication, place
        at, now = (partition, map_name, key), replication.clock.monotonic()
        addresses = replication.partitions.table.addresses
        if self._leases.current(at, ownership, now, lambda m: m in ("", *addresses)) is not None:
            return None
        self._tokens += 1
        entry = ownership.replica.entry(map_name, key)
        lease = Lease(
            token=b"store%d" % self._tokens,
            holder=replication.member,
            term=ownership,
            version=None if entry is None else entry.version,
            tags=frozenset(),
            renewed_at=now,
        )
        self._leases.grant(at, lease)
        return lease.token

    async def _load(
        self, map_name: str, mine: Mapping[Place, tuple[bytes, Ownership]]
    ) -> dict[Place, bytes | None]:
        loaded: dict[bytes, tuple[bytes, float]] = {}
        ending = FAILED
        try:
            loaded = await self.reading[map_name].load([key for _, key in mine])
            ending = ABSENT
        finally:
            results = {
                place: self._end(
                    (place[0], map_name, place[1]), *held, loaded.get(place[1]), ending
                )
                for place, held in mine.items()
            }
        return results

    def _end(
        self,
        at: LeaseKey,
        token: bytes,
        ownership: Ownership,
        loaded: tuple[bytes, float] | None,
        ending: bytes,
    ) -> bytes | None:
        """End the lease on a key, and keep what was loaded unless the key was written meanwhile."""
        partition, map_name, key = at
        now = self._replication.clock.monotonic()
        serves = self._replication.owned.get(partition) is ownership and ownership.serving
        lease = self._leases.held(at, token, ownership)
        if lease is None and serves and loaded is not None:
            return ownership.replica.get(map_name, key, now)  # Whatever was written is newer.
        if lease is None or loaded is None:
            if lease is not None:
                self._leases.finish(at, LOAD_BUSY, ending)
            return None if loaded is None else loaded[0]
        value = loaded[0]
        held = ownership.replica.entry(map_name, key)
        is_present = None if held is None else held.version
        if serves and is_present == lease.version and not lease.invalidated:
            self._keep(ownership, map_name, key, loaded, held)
        self._leases.finish(at, LOAD_PRESENT, value)
        return value

    async def _wait(self, map_name: str, place: Place) -> bytes | None:
        """Wait for the load of somebody else; begin one when that ends without an answer."""
        ownership = self._replication.serve(place[0])
        now = self._replication.clock.monotonic()
        lease = self._leases.current((place[0], map_name, place[1]), ownership, now, lambda _: True)
        if lease is not None:
            answer: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()

            def wake(turn: int, value: bytes) -> None:
                if not answer.done():
                    answer.set_result((turn, value))

            lease.waiters[wake] = None
            try:
                async with asyncio.timeout(self.reading[map_name].config.timeout):
                    turn, value = await answer
            except TimeoutError as error:
                raise StoreError(f"a load of map {map_name!r} takes too long") from error
            finally:
                lease.waiters.pop(wake, None)
            if turn == LOAD_PRESENT:
                return value
            if value == FAILED:
                raise StoreError(f"the store of map {map_name!r} failed for another caller")
            if value == ABSENT:
                return None
        held = self._replication.serve(place[0]).replica
        present = held.get(map_name, place[1], self._replication.clock.monotonic())
        if present is not None:
            return present
        return (await self.load(map_name, [place]))[place]
