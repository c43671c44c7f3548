"""The operations of `DistributedMap` on one key."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable
from datetime import datetime
from typing import Any, TypeVar, cast, overload

from cache.cluster.hlc import made_at
from cache.cluster.replication.owned import OwnedReads
from cache.cluster.structures.access import MapAccess
from cache.cluster.structures.loader import Loader
from cache.cluster.structures.router import RETRIED
from cache.cluster.structures.state import MapState
from cache.cluster.structures.updates import Updates, condition_of, format_version, if_equal
from cache.cluster.wire.messages import (
    MODIFY_ADD,
    MODIFY_DELETE,
    MODIFY_INCREMENT,
    MODIFY_PERSIST,
    MODIFY_POP,
    MODIFY_REPLACE,
    MODIFY_TOUCH,
    NEVER,
    Found,
    GetEntry,
    Remaining,
    Set,
    TimeToLive,
)
from cache.codec import decode_value
from cache.durations import DEFAULT
from cache.flights import Factory
from cache.interface import CacheEntry
from cache.keys import Key, Ttl, check_tags

V = TypeVar("V")
D = TypeVar("D")


class KeyOperations(OwnedReads[V]):
    """Each reads or writes one key; a pipeline records those that ask its owner once."""

    def __init__(self, access: MapAccess, state: MapState) -> None:
        OwnedReads.__init__(self, access, state.counts)
        self._access = access
        self._flights = state.flights
        self._loader = Loader(access, state)
        self._updates = Updates(access)

    # -- one key, read -----------------------------------------------------------------------

    async def get_entry(self, key: Key) -> CacheEntry[V] | None:
        """Return the value of `key` with its time left, version, age and size, None if it is absent."""
        encoded, partition = self._access.locate(key)
        reply = await self._access.router.write(
            partition, GetEntry(self._access.name, partition, encoded)
        )
        assert isinstance(reply, Found)
        if reply.value is None:
            self._counts.misses += 1
            return None
        self._counts.hits += 1
        return CacheEntry(
            cast(V, self._access.decode(reply.value)),
            math.inf if reply.ttl == NEVER else reply.ttl,
            format_version(reply.hlc, reply.origin),
            max(0.0, self._access.router.clock.wall() - made_at(reply.hlc, reply.origin)),
            len(reply.value),
        )

    async def exists(self, key: Key) -> bool:
        """Return whether `key` is present (also when its value is None)."""
        return await self._access.read(key) is not None

    async def ttl(self, key: Key) -> float | None:
        """Return the seconds `key` has left, `math.inf` if it does not expire, None if absent."""
        encoded, partition = self._access.locate(key)
        request = TimeToLive(self._access.name, partition, encoded)
        reply = await self._access.router.write(partition, request)
        assert isinstance(reply, Remaining)
        if not reply.exists:
            return None
        return math.inf if reply.ttl == NEVER else reply.ttl

    # -- one key, write ----------------------------------------------------------------------

    async def set(
        self,
        key: Key,
        value: V,
        *,
        ttl: Ttl = DEFAULT,
        tags: Iterable[str] = (),
        expire_at: float | datetime | None = None,
        keep_ttl: bool = False,
        if_absent: bool = False,
        if_present: bool = False,
        if_version: str | None = None,
    ) -> bool:
        """Store `value`, replacing what was there, its time to live and its tags included.

        Args:
            key: where.
            value: what.
            ttl: how long it lives.
            tags: see `invalidate_tags`.
            expire_at: the instant at which it ends instead, seconds since 1970 or a `datetime` with a zone;
                one that has passed removes the key.
            keep_ttl: the key keeps the time to live it has.
            if_absent: only if the key is absent.
            if_present: only if it is present.
            if_version: only if it holds what `get_entry` returned with this `version`.

        Returns:
            Whether the condition held; always True without one.
        """
        raw = self._access.encode(value, check_tags(tags)) if tags else self._access.encode(value)
        if self._flights.loading:
            self._flights.outdate(key)
        if keep_ttl or if_absent or if_present or if_version is not None:
            condition = condition_of(
                if_absent=if_absent, if_present=if_present, if_version=if_version
            )
            seconds = self._updates.lifetime(ttl, expire_at, keep_ttl=keep_ttl)
            stored = await self._updates.set(key, raw, condition, seconds, keep_ttl=keep_ttl)
            self._counts.sets += stored
            return stored
        access, writing = self._access, None
        encoded, partition = access.locate(key)
        seconds = access.seconds(ttl)
        if expire_at is not None:
            seconds = self._updates.lifetime(ttl, expire_at, keep_ttl=False)
        began_at = access.now()
        try:
            writing = access.router.begin_set(access.name, partition, encoded, raw, seconds)
            if writing is not None:
                await writing
        except RETRIED as error:
            if asyncio.iscoroutine(writing):  # It has tried again.
                raise
            request = Set(access.name, partition, encoded, raw, seconds, b"")
            await access.router.set_again(request, began_at, error)
        self._counts.sets += 1
        return True

    async def compare_and_set(
        self,
        key: Key,
        expected: V,
        value: V,
        *,
        ttl: Ttl = DEFAULT,
        tags: Iterable[str] = (),
        keep_ttl: bool = False,
    ) -> bool:
        """Store `value` only if the key holds `expected`; return whether it did.

        Values are compared as they are stored, types included: 1 is neither 1.0 nor True.
        """
        raw = self._access.encode(value, check_tags(tags))
        condition = if_equal(self._access.encode(expected))
        seconds = self._updates.lifetime(ttl, None, keep_ttl=keep_ttl)
        self._flights.outdate(key)
        stored = await self._updates.set(key, raw, condition, seconds, keep_ttl=keep_ttl)
        self._counts.sets += stored
        return stored

    async def get_and_set(
        self,
        key: Key,
        value: V,
        *,
        ttl: Ttl = DEFAULT,
        tags: Iterable[str] = (),
        keep_ttl: bool = False,
    ) -> V | None:
        """Store `value` and return what was there before, None if the key was absent."""
        raw = self._access.encode(value, check_tags(tags))
        seconds = self._updates.lifetime(ttl, None, keep_ttl=keep_ttl)
        self._flights.outdate(key)
        before = await self._updates.exchange(key, raw, seconds, keep_ttl=keep_ttl)
        self._counts.sets += 1
        return None if before is None else cast(V, self._access.decode(before))

    async def execute(self, key: Key, function: str, *arguments: Any) -> Any:
        """Run a function on the member that owns `key`, next to the data; return what it returns.

        The function is registered under its name on every member, see `Node.register_processor`. It is called
        with a `MutableEntry` and the arguments, and nothing else happens to the key meanwhile. A retry after
        a failover takes effect once, and returns what the first run returned. An exception of the
        function changes nothing and reaches the caller as the same exception where its class is known,
        else as `ProcessorError`.

        Raises:
            UnknownProcessorError: the owner knows no such function.
            CodecError: the arguments or the result cannot be encoded.
        """
        # Any: MessagePack values.
        self._flights.outdate(key)
        return await self._updates.execute(key, function, arguments, self._access.seconds(DEFAULT))

    async def add(
        self, key: Key, value: V, *, ttl: Ttl = DEFAULT, tags: Iterable[str] = ()
    ) -> bool:
        """Store `value` only if `key` is absent; return whether it was."""
        raw = self._access.encode(value, check_tags(tags))
        stored = await self._access.modify(MODIFY_ADD, key, raw, ttl) is not None
        self._counts.sets += stored
        return stored

    async def replace(
        self, key: Key, value: V, *, ttl: Ttl = DEFAULT, tags: Iterable[str] = ()
    ) -> bool:
        """Store `value` only if `key` is present; return whether it was."""
        raw = self._access.encode(value, check_tags(tags))
        stored = await self._access.modify(MODIFY_REPLACE, key, raw, ttl) is not None
        self._counts.sets += stored
        return stored

    async def delete(self, key: Key) -> bool:
        """Remove `key`; return whether it was present."""
        self._flights.outdate(key)
        removed = await self._access.modify(MODIFY_DELETE, key) is not None
        self._counts.deletes += removed
        return removed

    @overload
    async def pop(self, key: Key) -> V | None: ...
    @overload
    async def pop(self, key: Key, default: D) -> V | D: ...
    async def pop(self, key: Key, default: object = None) -> object:
        """Remove `key` and return its value, or `default`."""
        self._flights.outdate(key)
        raw = await self._access.modify(MODIFY_POP, key)
        if raw is None:
            return default
        self._counts.deletes += 1
        return self._access.decode(raw)

    async def touch(self, key: Key, ttl: Ttl = DEFAULT) -> bool:
        """Give `key` a new time to live; return whether it is present."""
        return await self._access.modify(MODIFY_TOUCH, key, b"", ttl) is not None

    async def persist(self, key: Key) -> bool:
        """Let `key` never expire; return whether it is present."""
        return await self._access.modify(MODIFY_PERSIST, key) is not None

    @overload
    async def incr(
        self, key: Key, delta: int = 1, *, initial: int = 0, ttl: Ttl = DEFAULT
    ) -> int: ...
    @overload
    async def incr(
        self, key: Key, delta: float, *, initial: float = 0, ttl: Ttl = DEFAULT
    ) -> float: ...
    async def incr(
        self, key: Key, delta: float = 1, *, initial: float = 0, ttl: Ttl = DEFAULT
    ) -> float:
        """Add `delta` to a number and return the sum; an absent key starts at `initial`.

        A whole `delta` needs a whole number, and the sum is one; a `float` takes any number, and the sum is a
        `float`. The time to live is set when the key is made and kept afterwards. A retry after a
        failover takes effect once.

        Raises:
            WrongTypeError: the key holds something else, or the sum would leave 64 bits.
        """
        if not (isinstance(delta, int) and isinstance(initial, int)):
            self._flights.outdate(key)
            total = await self._updates.add_float(key, delta, initial, self._access.seconds(ttl))
            self._counts.sets += 1
            return total
        start = self._access.encode(initial)
        raw = await self._access.modify(MODIFY_INCREMENT, key, start, ttl, number=delta)
        assert raw is not None, "an increment always has a result"
        self._counts.sets += 1
        return cast(int, decode_value(raw))  # The owner stores only whole numbers here.

    @overload
    async def decr(
        self, key: Key, delta: int = 1, *, initial: int = 0, ttl: Ttl = DEFAULT
    ) -> int: ...
    @overload
    async def decr(
        self, key: Key, delta: float, *, initial: float = 0, ttl: Ttl = DEFAULT
    ) -> float: ...
    async def decr(
        self, key: Key, delta: float = 1, *, initial: float = 0, ttl: Ttl = DEFAULT
    ) -> float:
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
        made = await self._loader.get_or_set(
            key, factory, self._access.seconds(ttl), check_tags(tags), min_ttl
        )
        return cast(V, made)
