"""`DistributedMap`: a dictionary shared by all members, every key on `replica_count` of them.

Reads of keys owned by this member are served from memory without a hop; everything else goes to the owner,
see `router.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Generic, TypeVar, cast, overload

from cache.cluster.ids import MemberId
from cache.cluster.partitions.table import map_seed, partition_of
from cache.cluster.structures.router import BACKOFF_FIRST, Router
from cache.cluster.wire.messages import (
    MODIFY_ADD,
    MODIFY_DELETE,
    MODIFY_INCREMENT,
    MODIFY_PERSIST,
    MODIFY_POP,
    MODIFY_REPLACE,
    MODIFY_TOUCH,
    NEVER,
    ClearEntries,
    Counted,
    CountEntries,
    DeleteMany,
    Get,
    GetMany,
    Many,
    Modify,
    Outcomes,
    Remaining,
    Set,
    SetMany,
    TimeToLive,
    Value,
)
from cache.codec import check_key, check_value, decode_value, encode_key, encode_value
from cache.durations import DEFAULT, Default, parse_ttl
from cache.errors import CacheError

V = TypeVar("V")
D = TypeVar("D")

Key = str | bytes | int
K = TypeVar("K", bound=Key)
Ttl = float | timedelta | str | None | Default
"""Seconds, `timedelta`, text such as "1h30m", None for never, or `DEFAULT` for the map's own."""


class DistributedMap(Generic[V]):
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
        Loss is reported by: the counter `partitions.lost`, when every copy of a partition died.
        Tested by: tests/integration.

    All operations raise `RejectedError` (not applied), `IndeterminateError` (may have been applied) or
    `CodecError` (key or value not storable).
    """

    def __init__(self, name: str, router: Router, *, ttl: Ttl, operation_ids: OperationIds) -> None:
        self._name = name
        self._seed = map_seed(name)
        self._router = router
        self._ttl = NEVER if ttl is DEFAULT else _seconds(ttl, NEVER)
        self._operation_ids = operation_ids
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

    def _encode(self, value: object) -> bytes:
        encoded = encode_value(value)
        if len(encoded) > self._value_limit:
            check_value(encoded, self._value_limit)
        return encoded

    # -- one key, read -----------------------------------------------------------------------

    @overload
    async def get(self, key: Key) -> V | None: ...
    @overload
    async def get(self, key: Key, default: D) -> V | D: ...
    async def get(self, key: Key, default: object = None) -> object:
        """Return the value of `key`, or `default`. A stored None is a value: see `exists`."""
        raw = await self._get(key)
        return default if raw is None else decode_value(raw)

    async def exists(self, key: Key) -> bool:
        """Return whether `key` is present (also when its value is None)."""
        return await self._get(key) is not None

    async def _get(self, key: Key) -> bytes | None:
        encoded, partition = self._locate(key)
        replica = self._serving[partition]
        if replica is not None and self._reads_here:
            now = self._router.clock.monotonic()
            if now <= self._router.replication.valid_until:
                return replica.get(self._name, encoded, now)
        request = Get(self._name, partition, encoded, False)
        reply = await self._router.read(partition, request)
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

    async def set(self, key: Key, value: V, *, ttl: Ttl = DEFAULT) -> None:
        """Store `value`, replacing what was there, its time to live included."""
        encoded, partition = self._locate(key)
        seconds = _seconds(ttl, self._ttl)
        request = Set(self._name, partition, encoded, self._encode(value), seconds, b"")
        await self._router.write(partition, request)

    async def add(self, key: Key, value: V, *, ttl: Ttl = DEFAULT) -> bool:
        """Store `value` only if `key` is absent; return whether it was."""
        return await self._modify(MODIFY_ADD, key, self._encode(value), ttl) is not None

    async def replace(self, key: Key, value: V, *, ttl: Ttl = DEFAULT) -> bool:
        """Store `value` only if `key` is present; return whether it was."""
        return await self._modify(MODIFY_REPLACE, key, self._encode(value), ttl) is not None

    async def delete(self, key: Key) -> bool:
        """Remove `key`; return whether it was present."""
        return await self._modify(MODIFY_DELETE, key) is not None

    @overload
    async def pop(self, key: Key) -> V | None: ...
    @overload
    async def pop(self, key: Key, default: D) -> V | D: ...
    async def pop(self, key: Key, default: object = None) -> object:
        """Remove `key` and return its value, or `default`."""
        raw = await self._modify(MODIFY_POP, key)
        return default if raw is None else decode_value(raw)

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
        return cast(int, decode_value(raw))  # The owner stores only whole numbers here.

    async def decr(self, key: Key, delta: int = 1, *, initial: int = 0, ttl: Ttl = DEFAULT) -> int:
        """Subtract `delta`; otherwise as `incr`."""
        return await self.incr(key, -delta, initial=initial, ttl=ttl)

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
        located = {key: self._locate(key) for key in keys}
        batches = self._by_owner(located)
        replies = await self._router.to_members(
            [
                (
                    member,
                    GetMany(
                        self._name,
                        [located[key][1] for key in batch],
                        [located[key][0] for key in batch],
                        False,
                    ),
                )
                for member, batch in batches
            ]
        )
        found: dict[K, bytes | None] = {}
        for (_, batch), reply in zip(batches, replies, strict=True):
            if not isinstance(reply, CacheError):
                assert isinstance(reply, Many)
                found.update(zip(batch, reply.values, strict=True))
        for key in located:
            if key not in found:  # One by one, with retries and backups.
                found[key] = await self._get(key)
        return {k: cast(V, decode_value(raw)) for k, raw in found.items() if raw is not None}

    async def set_many(self, items: Mapping[K, V], *, ttl: Ttl = DEFAULT) -> None:
        """Store all `items`: one request per member, in parallel.

        Raises:
            CacheError: a key could not be stored; some of the others are.
        """
        located = {key: self._locate(key) for key in items}
        encoded = {key: self._encode(value) for key, value in items.items()}
        seconds = _seconds(ttl, self._ttl)
        batches = self._by_owner(located)
        done = await self._batches(
            batches,
            [
                SetMany(
                    self._name,
                    [located[key][1] for key in batch],
                    [located[key][0] for key in batch],
                    [encoded[key] for key in batch],
                    seconds,
                    b"",
                )
                for _, batch in batches
            ],
        )
        for key, value in items.items():
            if key not in done:
                await self.set(key, value, ttl=ttl)

    async def delete_many(self, keys: Iterable[K]) -> int:
        """Remove `keys`; return how many were present."""
        located = {key: self._locate(key) for key in keys}
        batches = self._by_owner(located)
        codes = await self._batches(
            batches,
            [
                DeleteMany(
                    self._name,
                    [located[key][1] for key in batch],
                    [located[key][0] for key in batch],
                    self._operation_ids.next(),
                )
                for _, batch in batches
            ],
        )
        for key in located:
            if key not in codes:
                codes[key] = int(await self.delete(key))
        return sum(codes.values())

    async def _batches(
        self,
        batches: Sequence[tuple[MemberId | None, list[K]]],
        requests: Sequence[SetMany | DeleteMany],
    ) -> dict[K, int]:
        """Send the batches; return the codes of the keys dealt with. The rest goes one by one."""
        members = (member for member, _ in batches)
        replies = await self._router.to_members(list(zip(members, requests, strict=True)))
        codes: dict[K, int] = {}
        for (_, batch), reply in zip(batches, replies, strict=True):
            if not isinstance(reply, CacheError):
                assert isinstance(reply, Outcomes)
                pairs = zip(batch, reply.codes, strict=True)
                codes.update((key, code) for key, code in pairs if code >= 0)
        return codes

    def _by_owner(
        self, located: Mapping[K, tuple[bytes, int]]
    ) -> list[tuple[MemberId | None, list[K]]]:
        """Return the keys of each owner, in batches of at most `limits.batch_keys_max`."""
        limit = self._router.config.limits.batch_keys_max
        batches: list[tuple[MemberId | None, list[K]]] = []
        filling: dict[MemberId | None, list[K]] = {}
        for key, (_, partition) in located.items():
            member = self._router.owner(partition)
            batch = filling.get(member)
            if batch is None or len(batch) >= limit:
                batch = filling[member] = []
                batches.append((member, batch))
            batch.append(key)
        return batches

    # -- the whole map -----------------------------------------------------------------------

    async def size(self) -> int:
        """Return the number of keys: a sum over members, not a snapshot at one instant."""
        return await self._everywhere(
            lambda partitions: CountEntries(self._name, partitions), "size"
        )

    async def clear(self) -> int:
        """Remove every key that is present now; return how many. Later writes stay."""
        operation = self._operation_ids.next()
        return await self._everywhere(
            lambda partitions: ClearEntries(self._name, partitions, operation), "clear"
        )

    async def _everywhere(self, make: Any, what: str) -> int:  # Any: list[int] -> request
        deadline = self._router.deadline()
        todo = list(range(self._partition_count))
        total, backoff = 0, BACKOFF_FIRST
        while todo:
            by_owner: dict[MemberId | None, list[int]] = {}
            for partition in todo:
                by_owner.setdefault(self._router.owner(partition), []).append(partition)
            todo = []
            members = list(by_owner.items())
            replies = await self._router.to_members([(m, make(owned)) for m, owned in members])
            for (_, partitions), reply in zip(members, replies, strict=True):
                if isinstance(reply, CacheError):
                    self._router.replication.check_member_quorum()
                    todo.extend(partitions)
                    continue
                assert isinstance(reply, Counted)
                total += reply.count
                todo.extend(reply.refused)
            if todo:
                backoff = await self._router.pause(backoff, deadline, what)
        return total


class OperationIds:
    """Draws the ids that make retries of one operation recognisable."""

    def __init__(self, prefix: bytes) -> None:
        self._prefix = prefix
        self._count = 0

    def next(self) -> bytes:
        """Return an id never given before: 8 bytes of this life, 8 of a counter."""
        self._count += 1
        return self._prefix + self._count.to_bytes(8, "big")


def _seconds(ttl: Ttl, default: float) -> float:
    """Return `ttl` as the wire has it."""
    if isinstance(ttl, Default):
        return default
    seconds = parse_ttl(ttl)
    return NEVER if seconds is None else seconds
