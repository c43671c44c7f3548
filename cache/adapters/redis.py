"""`RedisCache`: a cache on Redis or Valkey, one server or a cluster; `cache.open("redis://…")` makes one.

Reads are the server's own commands. Every write is one script that also outdates a load of the key and
keeps the records of its tags; see `scripts.py` for what is kept, `layout.py` for where, `loads.py` for
`get_or_set`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, TypeVar, cast, overload

import msgpack

from cache.adapters.attached import AttachedCache
from cache.adapters.batches import Batch, batches_of
from cache.adapters.connection import Command, Server, Word
from cache.adapters.layout import LEASE, REGISTER, Layout, milliseconds, seconds_left
from cache.adapters.life import Life, Target
from cache.adapters.loads import Load, RedisLoad
from cache.adapters.looks import Look, parse_info, total
from cache.adapters.routing import Call, Router
from cache.adapters.scripts import (
    DELETE,
    ENTRY,
    FORGET_LOADS,
    INCREMENT,
    INVALIDATE,
    POP,
    READ,
    STORE,
    TOUCH,
    Script,
)
from cache.cluster.structures.outcomes import raise_failed
from cache.codec import TAGGED
from cache.durations import DEFAULT
from cache.errors import CacheError, ConfigError, UnavailableError, WrongTypeError
from cache.interface import CacheEntry, CacheStats
from cache.keys import INT64_MAX, INT64_MIN, K, Key, Ttl, check_keys, check_tags, has_prefix
from cache.serializers import Serializer

V = TypeVar("V")
D = TypeVar("D")

SCAN_COUNT: Final = 1000
"""Keys that a server looks at for one page of a scan."""
TAG_NAMES_MAX: Final = 500
"""Keys of a tag that are removed in one step."""


class RedisCache(AttachedCache[V]):
    """A cache whose data is on Redis (6.2 or later) or Valkey, shared by all who use the same prefix there.

    Guarantees:
        Consistency: per key, operations run one after the other on its primary; every process reads its own
            acknowledged writes and everybody else's. A failover to a replica may lose acknowledged
            writes, invalidations among them: Redis replicates asynchronously.
        An ack means: the write is in the memory of the key's primary.
        Under partition: as the servers do; whoever cannot reach the primary gets `UnavailableError`.
        Tags: complete, also against loads that run anywhere. On a server that may evict, tagged values are
            read with a script that makes sure that their tags still know them.
        Clocks: the server's alone.
        Loss is reported by: nothing; what a server evicts or forgets is absent.
        Tested by: tests/contract, tests/integration/test_redis.py.

    Values are those of a cluster (MessagePack types, None, `bytes`), or what the serializer takes. Whole
    numbers are kept as digits, also with a serializer, so that the server counts.

    Args:
        target: the servers.
        prefix: the cache's name on the server; no prefix may begin with another one and a colon.
        ttl: default time to live.
        serializer: how values become bytes, see `Node.map`.
    """

    def __init__(
        self,
        target: Target,
        *,
        prefix: str = "cache",
        ttl: Ttl = None,
        serializer: Serializer | None = None,
    ) -> None:
        super().__init__(target, name=prefix, ttl=ttl, serializer=serializer)
        self._layout = Layout(prefix, is_spread=target.is_cluster)
        self._first: Look | None = None
        self._last = Look()
        self._entries = 0  # when they were last counted

    # -- the server ------------------------------------------------------------------------------

    def _router(self) -> Router:
        target = self.target
        return Router(
            target.places,
            target.access,
            slots=self._layout.slots if target.is_cluster else None,
            timeout=target.operation_timeout,
        )

    async def _begin(self, life: Life) -> None:
        looks: list[Look] = []
        for server in await life.router.reachable():
            try:
                looks.append(await self._look_at(life, server))
            except UnavailableError:
                if not self.target.is_cluster:
                    raise  # Of a cluster the others will do.
        self._adopt(looks)
        self._first = self._first or self._last

    async def _look(self, life: Life) -> None:
        """Ask the servers what they hold."""
        self._adopt([await self._look_at(life, each) for each in await life.router.primaries()])

    async def _look_at(self, life: Life, server: Server) -> Look:
        try:
            info = await life.router.ask(server, (("INFO", "stats"), ("INFO", "memory")))
        except ConfigError as error:
            if "NOPERM" not in str(error):
                raise
            return Look()  # An ACL without INFO: be careful, and count nothing.
        return parse_info(b"".join(info).decode())

    def _adopt(self, looks: Sequence[Look]) -> None:
        # While a cluster moves a slot, records may be lost: as if they were evicted.
        look = total(looks)
        self._last = replace(look, may_evict=look.may_evict or self.target.is_cluster)

    def _place(self, key: Key) -> tuple[int, bytes, bytes]:
        """Return the bucket of a key, its base, and what the server calls the key."""
        bucket, name = self._layout.locate(key)
        base = self._layout.bases[bucket]
        return bucket, base, base + name

    async def _run(self, key: Key, script: Script, *arguments: Word) -> Any:  # Any: as `Reply`
        """Run a script on a key and its lease."""
        life = self._here()
        if not life.is_begun:
            await self._begun(life)
        bucket, base, data = self._place(key)
        lease = base + LEASE + data[len(base) :]
        command = ("EVALSHA", script.digest, 2, data, lease, base, *arguments)
        return await life.router.one(bucket, command)

    def _ttl_word(self, ttl: Ttl) -> Word:
        left = milliseconds(ttl, self._ttl)
        return "" if left is None else left

    # -- one key, read ---------------------------------------------------------------------------

    async def _get(self, key: Key) -> bytes | None:
        life = self._here()
        if not life.is_begun:
            await self._begun(life)
        bucket, base, data = self._place(key)
        raw: bytes | None = await life.router.one(bucket, ("GET", data), is_read=True)
        if raw is not None and raw[:1] == TAGGED and self._last.may_evict:
            command = ("EVALSHA", READ.digest, 1, data, base)
            raw = (await life.router.one(bucket, command, is_read=True))[0]
        return raw

    @overload
    async def get(self, key: Key) -> V | None: ...
    @overload
    async def get(self, key: Key, default: D) -> V | D: ...
    async def get(self, key: Key, default: object = None) -> object:
        """Return the value of `key`, or `default`. A stored None is a value: see `exists`."""
        raw = await self._get(key)
        if raw is None:
            self._misses += 1
            return default
        self._hits += 1
        return self._values.decode(raw)

    async def _entry(self, key: Key, *, with_value: bool) -> tuple[bytes, float] | None:
        life = await self._begun(self._here())
        bucket, base, data = self._place(key)
        command = ("EVALSHA", ENTRY.digest, 1, data, base, int(with_value))
        found = await life.router.one(bucket, command, is_read=True)
        return None if found is None else (found[0], seconds_left(found[1]))

    async def get_entry(self, key: Key) -> CacheEntry[V] | None:
        """Return the value of `key` with the seconds it has left, None if it is absent."""
        found = await self._entry(key, with_value=True)
        if found is None:
            self._misses += 1
            return None
        self._hits += 1
        return CacheEntry(cast(V, self._values.decode(found[0])), found[1])

    async def exists(self, key: Key) -> bool:
        """Return whether `key` is present (also when its value is None)."""
        return await self._entry(key, with_value=False) is not None

    async def ttl(self, key: Key) -> float | None:
        """Return the seconds `key` has left, `math.inf` if it does not expire, None if absent."""
        found = await self._entry(key, with_value=False)
        return None if found is None else found[1]

    # -- one key, write --------------------------------------------------------------------------

    async def _store(
        self, key: Key, value: V, ttl: Ttl, tags: Iterable[str], condition: str
    ) -> bool:
        bears = check_tags(tags) if tags else ()
        encoded = self._values.encode(value, bears)
        left = self._ttl_word(ttl)
        life = self._here()
        if not condition:
            life.flights.outdate(key)
        packed = msgpack.packb(bears) if bears else b""
        stored = await self._run(key, STORE, condition, left, packed, encoded)
        if stored and condition:
            life.flights.outdate(key)
        self._sets += stored
        return bool(stored)

    async def set(
        self, key: Key, value: V, *, ttl: Ttl = DEFAULT, tags: Iterable[str] = ()
    ) -> bool:
        """Store `value`, replacing what was there, its time to live and its tags included; return True."""
        return await self._store(key, value, ttl, tags, "")

    async def add(
        self, key: Key, value: V, *, ttl: Ttl = DEFAULT, tags: Iterable[str] = ()
    ) -> bool:
        """Store `value` only if `key` is absent; return whether it was."""
        return await self._store(key, value, ttl, tags, "NX")

    async def replace(
        self, key: Key, value: V, *, ttl: Ttl = DEFAULT, tags: Iterable[str] = ()
    ) -> bool:
        """Store `value` only if `key` is present; return whether it was."""
        return await self._store(key, value, ttl, tags, "XX")

    async def delete(self, key: Key) -> bool:
        """Remove `key`; return whether it was present."""
        self._here().flights.outdate(key)
        removed: int = await self._run(key, DELETE)
        self._deletes += removed
        return bool(removed)

    @overload
    async def pop(self, key: Key) -> V | None: ...
    @overload
    async def pop(self, key: Key, default: D) -> V | D: ...
    async def pop(self, key: Key, default: object = None) -> object:
        """Remove `key` and return its value, or `default`."""
        self._here().flights.outdate(key)
        raw = await self._run(key, POP)
        if raw is None:
            return default
        self._deletes += 1
        return self._values.decode(raw)

    async def touch(self, key: Key, ttl: Ttl = DEFAULT) -> bool:
        """Give `key` a new time to live; return whether it is present."""
        return bool(await self._run(key, TOUCH, self._ttl_word(ttl)))

    async def persist(self, key: Key) -> bool:
        """Let `key` never expire; return whether it is present."""
        return bool(await self._run(key, TOUCH, ""))

    async def incr(self, key: Key, delta: int = 1, *, initial: int = 0, ttl: Ttl = DEFAULT) -> int:
        """Add `delta` to a whole number and return the sum; an absent key starts at `initial`.

        The time to live is set when the key is made and kept afterwards.

        Raises:
            WrongTypeError: the key holds something else, or the sum would leave 64 bits.
        """
        for name, number in (("delta", delta), ("initial", initial)):
            if isinstance(number, bool) or not isinstance(number, int):
                raise WrongTypeError(f"{name}={number!r}: incr needs whole numbers")
            if not INT64_MIN <= number <= INT64_MAX:
                raise WrongTypeError(f"{name}={number}: incr would leave 64 bits; nothing changed")
        left = self._ttl_word(ttl)
        total = int(await self._run(key, INCREMENT, delta, initial, left))
        self._here().flights.outdate(key)
        self._sets += 1
        return total

    def _new_load(self, life: Life, key: Key, tags: tuple[str, ...]) -> Load:
        bucket, base, data = self._place(key)
        keys = (data, base + LEASE + data[len(base) :])
        return RedisLoad(life, tags, bucket=bucket, base=base, keys=keys)

    # -- many keys -------------------------------------------------------------------------------

    async def get_many(self, keys: Iterable[K]) -> dict[K, V]:
        """Return the values of those `keys` that are present: a message for each server and 256 keys."""
        asked = list(dict.fromkeys(check_keys(keys)))
        life = await self._begun(self._here())
        raws: list[bytes | None] = [None] * len(asked)
        for batches in batches_of(self._layout, asked):
            calls: list[Call] = [(batch.bucket, ("MGET", *batch.names)) for batch in batches]
            for batch, reply in zip(
                batches, await life.router.many(calls, is_read=True), strict=True
            ):
                for index, raw in zip(batch.indexes, reply, strict=True):
                    raws[index] = raw
        if self._last.may_evict:
            await self._verify(life, asked, raws)
        found = {
            key: cast(V, self._values.decode(raw))
            for key, raw in zip(asked, raws, strict=True)
            if raw is not None
        }
        self._hits += len(found)
        self._misses += len(asked) - len(found)
        return found

    async def _verify(self, life: Life, keys: Sequence[Key], raws: list[bytes | None]) -> None:
        """Read those with tags again, where tags may be forgotten."""
        tagged = [index for index, raw in enumerate(raws) if raw and raw[:1] == TAGGED]
        for batches in batches_of(self._layout, [keys[index] for index in tagged]):
            calls: list[Call] = [
                (each.bucket, ("EVALSHA", READ.digest, len(each.names), *each.names, each.base))
                for each in batches
            ]
            for batch, reply in zip(
                batches, await life.router.many(calls, is_read=True), strict=True
            ):
                for index, raw in zip(batch.indexes, reply, strict=True):
                    raws[tagged[index]] = raw

    async def set_many(
        self, items: Mapping[K, V], *, ttl: Ttl = DEFAULT, tags: Iterable[str] = ()
    ) -> None:
        """Store all `items`: a message for each server.

        Raises:
            BatchError: some failed, and which.
        """
        bears, left = check_tags(tags), self._ttl_word(ttl)
        packed = msgpack.packb(bears) if bears else b""
        keys = list(items)
        encoded = [self._values.encode(value, bears) for value in items.values()]
        life = await self._begun(self._here())
        parts = batches_of(self._layout, keys, [len(each) for each in encoded])
        for key in keys:
            life.flights.outdate(key)
        self._sets += await self._write(
            life,
            keys,
            parts,
            lambda each: each.run(STORE, "", left, packed, *[encoded[i] for i in each.indexes]),
        )

    async def delete_many(self, keys: Iterable[K]) -> int:
        """Remove `keys`; return how many were present.

        Raises:
            BatchError: some failed, and which.
        """
        asked = list(dict.fromkeys(check_keys(keys)))
        life = await self._begun(self._here())
        parts = batches_of(self._layout, asked)
        for key in asked:
            life.flights.outdate(key)
        removed = await self._write(life, asked, parts, lambda each: each.run(DELETE))
        self._deletes += removed
        return removed

    async def _write(
        self,
        life: Life,
        keys: Sequence[Key],
        parts: Sequence[Sequence[Batch]],
        command_of: Callable[[Batch], Command],
    ) -> int:
        """Carry out batches and return the sum of their answers; when all of a round fail, it is the last."""
        done = 0
        failed: dict[Key, Exception] = {}
        for number, batches in enumerate(parts):
            calls = [(batch.bucket, command_of(batch)) for batch in batches]
            outcomes = await life.router.outcomes(calls)
            errors = [outcome for outcome in outcomes if isinstance(outcome, CacheError)]
            for batch, outcome in zip(batches, outcomes, strict=True):
                if isinstance(outcome, CacheError):
                    failed |= dict.fromkeys((keys[index] for index in batch.indexes), outcome)
                else:
                    done += outcome
            if len(errors) == len(batches):
                rest = [
                    keys[i] for part in parts[number + 1 :] for each in part for i in each.indexes
                ]
                failed |= dict.fromkeys(rest, UnavailableError(f"not tried, after {errors[0]}"))
                break
        raise_failed(failed, len(failed), len(keys), "keys")
        return done

    # -- all of it -------------------------------------------------------------------------------

    async def _pages(self, prefix: str) -> AsyncIterator[list[Key]]:
        """Yield the keys that begin with `prefix`, each once, a page at a time."""
        life = await self._begun(self._here())
        pattern = self._layout.pattern(prefix)
        seen: set[Key] = set()  # A server may name a key twice.
        for server in await life.router.primaries():
            cursor = b"0"
            while True:
                command = ("SCAN", cursor, "MATCH", pattern, "COUNT", SCAN_COUNT)
                cursor, names = (await life.router.ask(server, (command,)))[0]
                found = (self._layout.key_of(name) for name in names)
                page = [key for key in found if key is not None and has_prefix(key, prefix)]
                fresh = [key for key in dict.fromkeys(page) if key not in seen]
                seen.update(fresh)
                if fresh:
                    yield fresh
                if cursor == b"0":
                    break

    async def scan(self, prefix: str = "") -> AsyncIterator[Key]:
        """Yield the keys that begin with `prefix`, each once, in no order.

        A key that is present all the while is yielded; one that comes or goes meanwhile may be. While a
        cluster moves hash slots, keys that move may be left out. The servers look at everything they hold,
        and the keys that were seen are remembered until the end.
        """
        async for page in self._pages(prefix):
            for key in page:
                yield key

    async def size(self) -> int:
        """Return the number of keys; takes a scan. `stats` tells what it found."""
        self._entries = sum([len(page) async for page in self._pages("")])
        await self._look(self._here())
        return self._entries

    async def clear(self) -> int:
        """Remove every key that is present now; return how many. Other prefixes are not touched."""
        life = await self._begun(self._here())
        life.flights.outdate_all()
        calls: list[Call] = [
            (bucket, ("EVALSHA", FORGET_LOADS.digest, 1, base + REGISTER, base))
            for bucket, base in enumerate(self._layout.bases)
        ]
        await life.router.many(calls)
        return sum([await self.delete_many(page) async for page in self._pages("")])

    async def invalidate_tags(self, *tags: str) -> int:
        """Remove every key that bears one of `tags`; return how many.

        Each bucket does it in one step: what is loaded meanwhile is either found or not stored.
        """
        gone = check_tags(tags)
        life = await self._begun(self._here())
        life.flights.invalidate(gone)
        removed, buckets = 0, list(range(len(self._layout.bases)))
        while buckets and gone:
            bases = [self._layout.bases[bucket] for bucket in buckets]
            calls: list[Call] = [
                (
                    bucket,
                    ("EVALSHA", INVALIDATE.digest, 1, base + REGISTER, base, TAG_NAMES_MAX, *gone),
                )
                for bucket, base in zip(buckets, bases, strict=True)
            ]
            replies = await life.router.many(calls)
            removed += sum(count for count, _ in replies)
            buckets = [each for each, (_, more) in zip(buckets, replies, strict=True) if more]
        self._deletes += removed
        return removed

    def stats(self) -> CacheStats:
        """Return what this object did, and what the servers said when `size` was last called.

        `entries` is what it counted. Evictions and expiries are those of the whole servers since this
        cache was opened, `bytes` what they hold in all: Redis does not count by prefix.
        """
        first = self._first or self._last
        return self._counted(
            evictions=max(0, self._last.evicted - first.evicted),
            expired=max(0, self._last.expired - first.expired),
            entries=self._entries,
            size=self._last.data_bytes,
        )
