"""One map as a member reaches it, below the values: where a key is, its bytes in and out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from copy import copy
from functools import partial
from typing import Any, cast

from xxhash import xxh3_64_intdigest

from cache.cluster.config.maps import Policies
from cache.cluster.ids import MemberId
from cache.cluster.partitions.table import map_seed, partition_of
from cache.cluster.replication.entries import Entry
from cache.cluster.replication.recent import OVERHEAD_BYTES, VALUE_BYTES_MAX
from cache.cluster.replication.replica import PartitionReplica
from cache.cluster.structures.columns import Columns
from cache.cluster.structures.near_reader import NearMap
from cache.cluster.structures.operations import wire_ttl
from cache.cluster.structures.outcomes import each
from cache.cluster.structures.reads import Reading
from cache.cluster.structures.router import RETRIED, Router
from cache.cluster.structures.state import OperationIds
from cache.cluster.wire.messages import NEVER, Get, Modify, Value
from cache.codec import (
    check_key,
    check_value,
    decode_items,
    decode_value,
    encode_key,
    encode_value,
    with_tags,
)
from cache.durations import DEFAULT
from cache.errors import CacheError
from cache.keys import K, Key, Ttl
from cache.serializers import Serializer


class MapAccess:
    """What a handle of a map does its operations with."""

    def __init__(
        self,
        name: str,
        router: Router,
        *,
        ttl: Ttl,
        operation_ids: OperationIds,
        serializer: Serializer | None = None,
        near: NearMap | None = None,
    ) -> None:
        self.name = name
        self.router = router
        self.operation_ids = operation_ids
        self.near = near
        self.partition_count = router.config.partition_count
        self.decode: Callable[[bytes], object] = decode_value
        """Returns the value of its bytes."""
        self._encode_value: Callable[[object], bytes] = encode_value
        if serializer is not None:
            self._encode_value = partial(serializer.encode, context=name)
            self.decode = partial(serializer.decode, context=name)
        self._seed = map_seed(name)
        self._ttl = NEVER if ttl is DEFAULT else wire_ttl(ttl, NEVER)
        self.now = router.clock.monotonic
        self.value_of = router.value_of
        self.site = router.site
        self.validity = router.site.validity
        self._serving = router.site.serving
        store = router.config.stores.get(name)
        self._is_loaded = store is not None and store.read
        """Whether an absent key has to be asked of the owner's store; kept out of the path of other maps."""
        self._reads_here = router.config.read_quorum == 1 and not self._is_loaded
        watches_reads = Policies(router.config.maps).of(name).watches_reads
        keeps_some = router.config.limits.recent_bytes_max > OVERHEAD_BYTES
        # Only what every handle of the map decodes alike.
        remembers = self._reads_here and serializer is None and not watches_reads and keeps_some
        self.recent: dict[str, Any] = router.site.recent.of(name) if remembers else {}
        """Values of keys that are served here, see `RecentReads`; to be read while `validity` lasts."""
        # Any: values of the map, or pairs of one and the instant at which it ends.
        self.recent_bytes_max = VALUE_BYTES_MAX if remembers else -1
        """Bytes of the largest value that is remembered."""
        self._key_limit = router.config.limits.key_bytes_max
        self._value_limit = router.config.limits.value_bytes_max

    def locate(self, key: Key) -> tuple[bytes, int]:
        """Return the bytes of a key, and its partition.

        Raises:
            CodecError: no key, or over the limit.
        """
        try:  # Texts, and `partition_of`, without a call: the hot path.
            encoded = b"s" + key.encode() if type(key) is str else encode_key(key)
        except UnicodeEncodeError:
            encoded = encode_key(key)  # Which says what is wrong.
        if len(encoded) > self._key_limit:
            check_key(encoded, self._key_limit)
        return encoded, xxh3_64_intdigest(encoded, self._seed) % self.partition_count

    def columns(self, keys: Iterable[K]) -> Columns[K]:
        """Return many keys with their bytes and partitions.

        Raises:
            CodecError: one is no key, or over the limit.
        """
        columns = Columns.of(keys, self._seed, self.partition_count)
        limit = self._key_limit
        if columns.encoded and max(map(len, columns.encoded)) > limit:
            for encoded in columns.encoded:
                check_key(encoded, limit)
        return columns

    def decode_items(self, encoded: Mapping[K, bytes | None]) -> dict[K, object]:
        """Return the values of many keys, without those that have none."""
        if self.decode is decode_value:
            return decode_items(encoded.items())
        return {key: self.decode(raw) for key, raw in encoded.items() if raw is not None}

    def partition_of(self, encoded: bytes) -> int:
        """Return the partition of an encoded key."""
        return partition_of(encoded, self._seed, self.partition_count)

    def owner_of(self, key: Key) -> MemberId | None:
        """Return who owns a key, by this member's table."""
        return self.router.owner(self.locate(key)[1])

    def encode(self, value: object, tags: Sequence[str] = ()) -> bytes:
        """Return the bytes of a value with its tags.

        Raises:
            CodecError: it cannot be stored, or is over the limit.
        """
        encoded = with_tags(self._encode_value(value), tags)
        if len(encoded) > self._value_limit:
            check_value(encoded, self._value_limit)
        return encoded

    def seconds(self, ttl: Ttl) -> float:
        """Return a time to live as the wire has it."""
        return wire_ttl(ttl, self._ttl)

    # -- one key -----------------------------------------------------------------------------

    async def read(self, key: Key, deadline: float | None = None) -> bytes | None:
        """Return the encoded value of a key, None if it is absent."""
        found = self.begin_read(key, deadline=deadline)
        if type(found) is Entry:
            return found.value
        return None if found is None else await cast("Awaitable[bytes | None]", found)

    def begin_read(
        self,
        key: Key,
        max_staleness: float | None = None,
        deadline: float | None = None,
        *,
        is_attempt: bool = False,
    ) -> Entry | Reading | Awaitable[bytes | None] | None:
        """Return the live entry of a key that is served here, None if it is absent.

        Of a key that is not served here, what to await for its encoded value: if `is_attempt`, it may be a
        `Reading`. What that resolves with is for `value_of`, and when it fails, `read_again`.
        """
        try:  # As `locate`, without a call: the hot path.
            encoded = b"s" + key.encode() if type(key) is str else encode_key(key)
        except UnicodeEncodeError:
            encoded = encode_key(key)  # Which says what is wrong.
        if len(encoded) > self._key_limit:
            check_key(encoded, self._key_limit)
        partition = xxh3_64_intdigest(encoded, self._seed) % self.partition_count
        replica = self._serving[partition]
        if replica is not None and self._reads_here:
            now = self.now()
            if now <= self.validity.until:
                entries = replica.readable.get(self.name)
                if entries is None:
                    return self._used(replica, encoded, now) if replica.kept else None
                entry = entries.get(encoded)
                if entry is None or now >= entry.expires_at or entry.value is None:
                    return None
                return entry
        if max_staleness is None and self.near is None and not self._is_loaded:
            if is_attempt:
                reading = self.router.begin_read(self.name, partition, encoded)
                if reading is not None:
                    return reading
            return self.router.read(self.name, partition, encoded, deadline)
        return self._read_elsewhere(encoded, partition, max_staleness, deadline)

    async def read_again(self, key: Key, began_at: float, error: CacheError) -> bytes | None:
        """Return what a read found whose first attempt, begun at `began_at`, failed with `error`.

        Raises:
            CacheError: `error`, if it is none that another attempt can mend.
        """
        if not isinstance(error, RETRIED):
            raise error
        encoded, partition = self.locate(key)
        deadline = began_at + self.router.config.operation_timeout
        return await self.router.read_again(self.name, partition, encoded, deadline)

    def _used(self, replica: PartitionReplica, encoded: bytes, now: float) -> Entry | None:
        """Return the live entry of a key, None if it is absent; it counts as a use of the entry."""
        entry = replica.use(self.name, encoded, now)
        return None if entry is None or entry.value is None or now >= entry.expires_at else entry

    def remember(self, key: str, entry: Entry, value: object) -> None:
        """Keep the value of an entry that was read here in this turn of the loop, if it is its turn."""
        if self.site.recent.has_turn():
            encoded, partition = self.locate(key)
            replica = self._serving[partition]
            if replica is not None and replica.entry(self.name, encoded) is entry:
                self.site.recent.note(replica, self.name, encoded, value, entry)

    async def _read_elsewhere(
        self, encoded: bytes, partition: int, max_staleness: float | None, deadline: float | None
    ) -> bytes | None:
        if self._is_loaded and (raw := self._read_loaded(encoded, partition)) is not None:
            return raw
        if max_staleness is not None and not max_staleness >= 0:
            raise ValueError(f"max_staleness={max_staleness!r}: must be 0 seconds or more")
        if self.near is not None:
            copy = self.near.get(encoded, self.now(), max_staleness)
            return await self.near.fetch(partition, encoded) if copy is None else copy
        if max_staleness is None:
            return await self.router.read(self.name, partition, encoded, deadline)
        request = Get(self.name, partition, encoded, False)
        reply, _, _ = await self.router.read_on_owner(partition, request)
        assert isinstance(reply, Value)
        return reply.value

    def _read_loaded(self, encoded: bytes, partition: int) -> bytes | None:
        """Return what is here of a map that is loaded, None to ask its owner."""
        replica, now = self._serving[partition], self.now()
        is_current = now <= self.validity.until
        is_enough = self.router.config.read_quorum == 1 and is_current
        return None if replica is None or not is_enough else replica.get(self.name, encoded, now)

    async def read_each(self, keys: Collection[K], deadline: float) -> dict[K, bytes | None]:
        """Return the encoded values of keys that no batch answered: patiently.

        Raises:
            RejectedError: some could not be read.
        """
        found = await each(keys, lambda key: self.read(key, deadline))
        for outcome in found.values():
            if isinstance(outcome, CacheError):
                raise outcome
        return {key: raw for key, raw in found.items() if not isinstance(raw, CacheError)}

    def recording(self, recorder: object) -> MapAccess:
        """Return an access that asks `recorder` instead: what operations on one key need of a router."""
        other = copy(self)
        other.router = cast(Router, recorder)
        other.near = None
        other._reads_here = other._is_loaded = False  # It may follow a write of the same pipeline.
        other.recent, other.recent_bytes_max = {}, -1
        return other

    def read_here(self, key: Key) -> Entry | bytes | None:
        """Return the live entry of a key that this member owns, or the bytes of a near copy; for any thread.

        While the loop's thread changes the copy, this one looks into it without a lock, and may:

        1. A look is a few reads of lists and dicts with keys of `bytes`, each of which is atomic. What is
           found is an entry, which nobody changes.
        2. An overwrite may take a key out and put it in again. So None says nothing, and the caller asks
           the loop.
        3. The partition may be handed over between the look at the table and the look at the copy. Then
           what is found was current when the call began: a copy gets newer values, or has one taken back
           that was never acknowledged.

        Near copies: see `MapCopies.peek`. What is remembered (`recent`) is forgotten before it is replaced:
        who finds it there began before the replacement ended, as in 3.
        """
        near = self.near
        if near is None and not self._reads_here:
            return None
        encoded, partition = self.locate(key)
        replica = self._serving[partition]
        now = self.now()
        if replica is None:
            return None if near is None else near.peek(encoded, now)
        if not self._reads_here or now > self.validity.until:
            return None
        return self._used(replica, encoded, now)

    async def modify(
        self, name: int, key: Key, value: bytes = b"", ttl: Ttl = DEFAULT, *, number: int = 0
    ) -> bytes | None:
        """Have one of the `MODIFY_…` operations done to a key by its owner; return its result."""
        encoded, partition = self.locate(key)
        operation = self.operation_ids.next()
        seconds = self.seconds(ttl)
        request = Modify(self.name, partition, encoded, operation, name, value, seconds, number)
        reply = await self.router.write(partition, request)
        assert isinstance(reply, Value)
        return reply.value
