"""`DistributedMap`: a dictionary shared by all members, every key on `replica_count` of them.

Reads of keys owned by this member are served from memory without a hop; everything else goes to the owner,
see `router.py`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar, cast, overload

from cache.cluster.ids import MemberId
from cache.cluster.partitions.table import map_seed, partition_of
from cache.cluster.replication.replica import PartitionReplica
from cache.cluster.structures.batches import Batches
from cache.cluster.structures.loader import Load
from cache.cluster.structures.near import MapStats
from cache.cluster.structures.near_reader import NearMap
from cache.cluster.structures.router import Router
from cache.cluster.structures.state import CLOSED, MapState, OperationIds
from cache.cluster.structures.whole import WholeMap
from cache.cluster.wire.messages import (
    LOAD_PRESENT,
    MODIFY_ADD,
    MODIFY_DELETE,
    MODIFY_INCREMENT,
    MODIFY_PERSIST,
    MODIFY_POP,
    MODIFY_REPLACE,
    MODIFY_TOUCH,
    NEVER,
    ClearEntries,
    CountEntries,
    Found,
    Get,
    GetEntry,
    InvalidateTags,
    Modify,
    Remaining,
    Set,
    TimeToLive,
    Value,
)
from cache.codec import check_key, check_value, decode_value, encode_key, encode_value, with_tags
from cache.durations import DEFAULT, Default, parse_ttl
from cache.errors import CacheError
from cache.flights import Factory, Flight, Loaded
from cache.interface import Cache, CacheEntry
from cache.keys import K, Key, Ttl, check_keys, check_tags
from cache.serializers import Serializer

logger = logging.getLogger(__name__)

V = TypeVar("V")
D = TypeVar("D")


class DistributedMap(Cache[V]):
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
        Loss is reported by: the counter `partitions.lost`, when every copy of a partition died.
        Tested by: tests/integration.

    All operations raise `RejectedError` (not applied), `IndeterminateError` (may have been applied) or
    `CodecError` (key or value not storable).
    """

    def __init__(
        self,
        name: str,
        router: Router,
        *,
        ttl: Ttl,
        operation_ids: OperationIds,
        state: MapState,
        serializer: Serializer | None = None,
        near: NearMap | None = None,
    ) -> None:
        self._name = name
        self._near = near
        self._seed = map_seed(name)
        self._router = router
        self._ttl = NEVER if ttl is DEFAULT else _seconds(ttl, NEVER)
        self._operation_ids = operation_ids
        self._encode_value: Callable[[object], bytes] = encode_value
        self._decode_value: Callable[[bytes], object] = decode_value
        if serializer is not None:
            self._encode_value = partial(serializer.encode, context=name)
            self._decode_value = partial(serializer.decode, context=name)
        self._flights = state.flights
        self._counts = state.counts
        self._batches = Batches(name, router)
        self._whole = WholeMap(name, router)
        self._serving = router.replication.serving
        self._partition_count = router.config.partition_count
        self._key_limit = router.config.limits.key_bytes_max
        self._value_limit = router.config.limits.value_bytes_max
        self._reads_here = router.config.read_quorum == 1

    @property
    def name(self) -> str:
        """Name of the map; every member that asks for this name gets the same data."""
        return self._name

    def __repr__(self) -> str:
        return f"<DistributedMap {self._name!r} on {self._router.replication.member}>"

    def partition_of(self, key: Key) -> int:
        """Return the partition that holds `key`."""
        return self._locate(key)[1]

    def owner_of(self, key: Key) -> MemberId | None:
        """Return the member that owns `key` by this member's table."""
        return self._router.owner(self._locate(key)[1])

    def _locate(self, key: Key) -> tuple[bytes, int]:
        encoded = encode_key(key)
        if len(encoded) > self._key_limit:
            check_key(encoded, self._key_limit)
        return encoded, partition_of(encoded, self._seed, self._partition_count)

    def _encode(self, value: object, tags: Sequence[str] = ()) -> bytes:
        encoded = with_tags(self._encode_value(value), tags)
        if len(encoded) > self._value_limit:
            check_value(encoded, self._value_limit)
        return encoded

    # -- one key, read -----------------------------------------------------------------------

    @overload
    async def get(self, key: Key, *, max_staleness: float | None = None) -> V | None: ...
    @overload
    async def get(self, key: Key, default: D, *, max_staleness: float | None = None) -> V | D: ...
    async def get(
        self, key: Key, default: object = None, *, max_staleness: float | None = None
    ) -> object:
        """Return the value of `key`, or `default`. A stored None is a value: see `exists`.

        `max_staleness` is by how many seconds this read may be behind the owner: less than the bound of
        the near cache, 0 to ask the owner. It also keeps backups from answering for a silent owner.
        """
        raw = await self._get(key, max_staleness)
        if raw is None:
            self._counts.misses += 1
            return default
        self._counts.hits += 1
        return self._decode_value(raw)

    async def get_entry(self, key: Key) -> CacheEntry[V] | None:
        """Return the value of `key` with the seconds it has left, None if it is absent."""
        encoded, partition = self._locate(key)
        reply = await self._router.write(partition, GetEntry(self._name, partition, encoded))
        assert isinstance(reply, Found)
        if reply.value is None:
            self._counts.misses += 1
            return None
        self._counts.hits += 1
        remaining = math.inf if reply.ttl == NEVER else reply.ttl
        return CacheEntry(cast(V, self._decode_value(reply.value)), remaining)

    async def exists(self, key: Key) -> bool:
        """Return whether `key` is present (also when its value is None)."""
        return await self._get(key) is not None

    async def _get(self, key: Key, max_staleness: float | None = None) -> bytes | None:
        encoded, partition = self._locate(key)
        replica = self._serving[partition]
        if replica is not None and self._reads_here:
            now = self._router.clock.monotonic()
            if now <= self._router.replication.valid_until:
                return replica.get(self._name, encoded, now)
        if max_staleness is not None and not max_staleness >= 0:
            raise ValueError(f"max_staleness={max_staleness!r}: must be 0 seconds or more")
        if self._near is not None:
            copy = self._near.get(encoded, self._router.clock.monotonic(), max_staleness)
            return await self._near.fetch(partition, encoded) if copy is None else copy
        if max_staleness is None:
            return await self._router.read(self._name, partition, encoded)
        request = Get(self._name, partition, encoded, False)
        reply, _, _ = await self._router.read_on_owner(partition, request)
        assert isinstance(reply, Value)
        return reply.value

    async def ttl(self, key: Key) -> float | None:
        """Return the seconds `key` has left, `math.inf` if it does not expire, None if absent."""
        encoded, partition = self._locate(key)
        request = TimeToLive(self._name, partition, encoded)
        reply = await self._router.write(partition, request)
        assert isinstance(reply, Remaining)
        if not reply.exists:
            return None
        return math.inf if reply.ttl == NEVER else reply.ttl

    # -- one key, write ----------------------------------------------------------------------

    async def set(
        self, key: Key, value: V, *, ttl: Ttl = DEFAULT, tags: Iterable[str] = ()
    ) -> None:
        """Store `value`, replacing what was there, its time to live and its tags included."""
        encoded, partition = self._locate(key)
        seconds = _seconds(ttl, self._ttl)
        raw = self._encode(value, check_tags(tags)) if tags else self._encode(value)
        if self._flights.loading:
            self._flights.outdate(key)
        await self._router.write(partition, Set(self._name, partition, encoded, raw, seconds, b""))
        self._counts.sets += 1

    async def add(
        self, key: Key, value: V, *, ttl: Ttl = DEFAULT, tags: Iterable[str] = ()
    ) -> bool:
        """Store `value` only if `key` is absent; return whether it was."""
        raw = self._encode(value, check_tags(tags))
        stored = await self._modify(MODIFY_ADD, key, raw, ttl) is not None
        self._counts.sets += stored
        return stored

    async def replace(
        self, key: Key, value: V, *, ttl: Ttl = DEFAULT, tags: Iterable[str] = ()
    ) -> bool:
        """Store `value` only if `key` is present; return whether it was."""
        raw = self._encode(value, check_tags(tags))
        stored = await self._modify(MODIFY_REPLACE, key, raw, ttl) is not None
        self._counts.sets += stored
        return stored

    async def delete(self, key: Key) -> bool:
        """Remove `key`; return whether it was present."""
        self._flights.outdate(key)
        removed = await self._modify(MODIFY_DELETE, key) is not None
        self._counts.deletes += removed
        return removed

    @overload
    async def pop(self, key: Key) -> V | None: ...
    @overload
    async def pop(self, key: Key, default: D) -> V | D: ...
    async def pop(self, key: Key, default: object = None) -> object:
        """Remove `key` and return its value, or `default`."""
        self._flights.outdate(key)
        raw = await self._modify(MODIFY_POP, key)
        if raw is None:
            return default
        self._counts.deletes += 1
        return self._decode_value(raw)

    async def touch(self, key: Key, ttl: Ttl = DEFAULT) -> bool:
        """Give `key` a new time to live; return whether it is present."""
        return await self._modify(MODIFY_TOUCH, key, b"", ttl) is not None

    async def persist(self, key: Key) -> bool:
        """Let `key` never expire; return whether it is present."""
        return await self._modify(MODIFY_PERSIST, key) is not None

    async def incr(self, key: Key, delta: int = 1, *, initial: int = 0, ttl: Ttl = DEFAULT) -> int:
        """Add `delta` to a whole number and return the sum; an absent key starts at `initial`.

        The time to live is set when the key is made and kept afterwards. A retry after a failover takes
        effect once.

        Raises:
            WrongTypeError: the key holds something else, or the sum would leave 64 bits.
        """
        start = self._encode(initial)
        raw = await self._modify(MODIFY_INCREMENT, key, start, ttl, number=delta)
        assert raw is not None, "an increment always has a result"
        self._counts.sets += 1
        return cast(int, decode_value(raw))  # The owner stores only whole numbers here.

    async def decr(self, key: Key, delta: int = 1, *, initial: int = 0, ttl: Ttl = DEFAULT) -> int:
        """Subtract `delta`; otherwise as `incr`."""
        return await self.incr(key, -delta, initial=initial, ttl=ttl)

    async def get_or_set(
        self,
        key: Key,
        factory: Factory[V],
        *,
        ttl: Ttl = DEFAULT,
        tags: Iterable[str] = (),
        min_ttl: float = 0.0,
    ) -> V:
        """Return the value of `key`; if it is absent, what `factory` makes, and store that.

        Of all callers in the cluster one runs `factory`, by a lease that the key's owner gives. When the
        loader's member dies, another caller takes over; when the owner changes, the key may be loaded once
        more, and only a load of the new owner's is stored. An error of the factory reaches callers on
        other members as the same exception where its class is known, else as `LoaderError`.

        Raises:
            RejectedError: the owner could not be asked; `factory` did not run.
            CodecError: the value cannot be stored.
        """
        if min_ttl <= 0 and (raw := await self._get(key)) is not None:
            self._counts.hits += 1
            return cast(V, self._decode_value(raw))
        bears = check_tags(tags)
        seconds = _seconds(ttl, self._ttl)

        async def load() -> V:
            return await self._load(key, factory, seconds, bears, min_ttl)

        return cast(V, await self._flights.run(key, load, _nothing, bears))

    async def _load(
        self,
        key: Key,
        factory: Factory[V],
        seconds: float,
        tags: tuple[str, ...],
        min_ttl: float,
    ) -> V:
        encoded, partition = self._locate(key)
        load = Load(
            self._router,
            map_name=self._name,
            partition=partition,
            key=encoded,
            token=self._operation_ids.next(),
            tags=tags,
        )
        turn = await load.turn(max(0.0, min_ttl))
        if turn.turn == LOAD_PRESENT:
            self._counts.hits += 1
            return cast(V, self._decode_value(turn.value))
        self._counts.misses += 1
        loaded = await load.run(factory, lambda: self._flights.outdate(key))
        try:
            raw = self._encode(loaded.value, check_tags((*tags, *loaded.tags)))
            ttl = _seconds(loaded.ttl, seconds)
        except ValueError:
            load.give_up()
            raise
        try:
            await load.keep(raw, ttl, store=loaded.store)
            self._counts.sets += loaded.store
        except CacheError as error:
            logger.warning("map.loaded_not_stored map=%s error=%s", self._name, error)
        return cast(V, loaded.value)

    async def _modify(
        self, name: int, key: Key, value: bytes = b"", ttl: Ttl = DEFAULT, *, number: int = 0
    ) -> bytes | None:
        encoded, partition = self._locate(key)
        request = Modify(
            self._name,
            partition,
            encoded,
            self._operation_ids.next(),
            name,
            value,
            _seconds(ttl, self._ttl),
            number,
        )
        reply = await self._router.write(partition, request)
        assert isinstance(reply, Value)
        return reply.value

    # -- many keys ---------------------------------------------------------------------------

    async def get_many(self, keys: Iterable[K]) -> dict[K, V]:
        """Return the values of those `keys` that are present: one request per member, in parallel."""
        located = {key: self._locate(key) for key in check_keys(keys)}
        read = self._batches.get if self._near is None else self._near.get_many
        found = await read(located)
        for key in located:
            if key not in found:  # One by one, with retries and backups.
                found[key] = await self._get(key)
        present = {
            k: cast(V, self._decode_value(raw)) for k, raw in found.items() if raw is not None
        }
        self._counts.hits += len(present)
        self._counts.misses += len(located) - len(present)
        return present

    async def set_many(
        self, items: Mapping[K, V], *, ttl: Ttl = DEFAULT, tags: Iterable[str] = ()
    ) -> None:
        """Store all `items`: one request per member, in parallel. If it raises, some are stored."""
        located = {key: self._locate(key) for key in items}
        bears = check_tags(tags)
        encoded = {key: self._encode(value, bears) for key, value in items.items()}
        for key in located:
            self._flights.outdate(key)
        seconds = _seconds(ttl, self._ttl)

        async def alone(key: K) -> int:
            request = Set(self._name, located[key][1], located[key][0], encoded[key], seconds, b"")
            await self._router.write(located[key][1], request)
            return 1

        await self._batches.set(located, encoded, seconds, alone)
        self._counts.sets += len(located)

    async def delete_many(self, keys: Iterable[K]) -> int:
        """Remove `keys`; return how many were present."""
        located = {key: self._locate(key) for key in check_keys(keys)}
        for key in located:
            self._flights.outdate(key)

        async def alone(key: K) -> int:
            return await self._modify(MODIFY_DELETE, key) is not None

        count = await self._batches.delete(located, self._operation_ids.next, alone)
        self._counts.deletes += count
        return count

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
        operation = self._operation_ids.next()
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

        Evictions and expiries are those of the whole member: they are not counted per map.
        """
        replication = self._router.replication
        now = self._router.clock.monotonic()
        held = [copy.footprint(self._name, now) for copy in replication.copies.values()]
        return MapStats(
            hits=self._counts.hits,
            misses=self._counts.misses,
            sets=self._counts.sets,
            deletes=self._counts.deletes,
            evictions=replication.evicted.value,
            expired=replication.expired.value,
            entries=sum(count for count, _ in held),
            bytes=sum(size for _, size in held),
            **({} if self._near is None else self._near.readings()),
        )

    async def close(self) -> None:
        """Close this handle; the data stays, and so do other handles. Idempotent."""
        self._router = cast(Router, CLOSED)
        self._serving = cast("list[PartitionReplica | None]", CLOSED)


def _nothing(loaded: Loaded[Any], flight: Flight[Any]) -> None:
    """Keep nothing: the owner did."""


def _seconds(ttl: Ttl, default: float) -> float:
    """Return `ttl` as the wire has it."""
    if isinstance(ttl, Default):
        return default
    seconds = parse_ttl(ttl)
    return NEVER if seconds is None else seconds
