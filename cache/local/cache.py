"""`LocalCache`: a cache in this process, the asyncio shell around `Store`.

It adds what the store must not know: the clock, the loop, and loads that several callers share. The clock is
read once per turn of the loop (an instant is as fine as that); outside a loop, at every call. One
loop, or one thread, at a time: there are no locks.
"""

from __future__ import annotations

import asyncio
import math
import sys
import weakref
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from copy import deepcopy
from random import Random
from typing import Any, Final, Literal, TypeVar, cast, overload

from cache.clock import Clock, FrozenClock, SystemClock
from cache.durations import DEFAULT, Default, parse_ttl
from cache.errors import ClosedError, ConfigError
from cache.flights import Factory, Flight, Loaded, SingleFlight
from cache.interface import Cache, CacheEntry, CacheStats
from cache.keys import (
    K,
    Key,
    Ttl,
    add_whole,
    check_keys,
    check_plain_key,
    check_tags,
    has_prefix,
)
from cache.local.eviction import POLICIES, USES_MAX, Entry
from cache.local.store import Store

V = TypeVar("V")
D = TypeVar("D")

PolicyName = Literal["s3fifo", "lru", "wtinylfu"]

SWEEP_INTERVAL: Final = 1.0
"""Seconds between two looks at the wheel while nobody uses the cache: the width of its buckets."""


class LocalCache(Cache[V]):
    """A bounded cache of Python objects in this process.

    Values are kept as they are, not encoded: who changes a list after storing it changes what others get.
    `copy=True` makes deep copies on the way in and out, for about 5 µs per small dict. Where DistributedMap
    would refuse a value, this does not.

    Guarantees:
        Bounds hold after every call: at most `max_entries` keys and `max_bytes` bytes (see `store.py` for
        what is counted). A value over `max_bytes` alone is not kept; that is no error.
        Expiry: an ended key is never returned; its memory is freed within about a second.

    Args:
        max_entries: keys held at most; None for no bound, then `max_bytes` is needed.
        max_bytes: bytes held at most.
        ttl: default time to live.
        max_idle: a key not read or written for so long ends.
        policy: what goes when there is no room: "s3fifo" follows change and is cheap; "wtinylfu" is better
            where scans repeat; "lru" is what everybody knows.
        jitter: share of each time to live, 0 to 1, by which it is cut at random, so that keys
            stored together do not end together.
        weigh: bytes of a value; `sys.getsizeof` by default, which does not look into containers.
        clock: where instants come from.
        rng: where `jitter` comes from.
        copy: see above.

    Raises:
        ConfigError: an argument is out of range; names it.
    """

    def __init__(
        self,
        *,
        max_entries: int | None = 10_000,
        max_bytes: int | None = None,
        ttl: Ttl = None,
        max_idle: Ttl = None,
        policy: PolicyName = "s3fifo",
        jitter: float = 0.0,
        weigh: Callable[[V], int] = sys.getsizeof,
        clock: Clock | None = None,
        rng: Random | None = None,
        copy: bool = False,
    ) -> None:
        _check_bounds(max_entries, max_bytes)
        if policy not in POLICIES:
            raise ConfigError(f"policy={policy!r}: must be one of {', '.join(POLICIES)}")
        if not 0 <= jitter <= 1:
            raise ConfigError(f"jitter={jitter!r}: must be a share from 0 to 1")
        idle = _check_ttl("max_idle", max_idle)
        chosen = POLICIES[policy]()
        self._store: Store[V] = Store(
            chosen,
            rng=rng or Random(),
            max_entries=max_entries,
            max_bytes=max_bytes,
            max_idle=idle,
            jitter=jitter,
            weigh=weigh,
        )
        self._ttl = _check_ttl("ttl", ttl)
        self._clock: Clock = clock or SystemClock()
        self._copy = copy
        self._flights: SingleFlight[V] = SingleFlight()
        self._closed = False
        self._reading: float | None = None  # of the clock, in this turn of the loop
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        # The fast path of reading. `_fast_now` is the reading where it may be used, else infinity:
        # then every entry looks ended, and the slow path finds out what is the matter.
        if isinstance(self._clock, FrozenClock):
            self._clock.on_advance(self._end_turn)
        self._is_fast = idle is None and not copy
        self._fast_now = math.inf
        self._fast_hits = 0
        self._lookup = self._store.entries.get
        self._record = chosen.record

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{len(self._store.entries)} entries"
        return f"<LocalCache {state}>"

    # -- time --------------------------------------------------------------------------------

    def _now(self) -> float:
        """Return the instant of this turn of the loop; the first call in a turn sweeps a slice.

        Raises:
            ClosedError: the cache was closed.
        """
        if self._reading is not None:
            assert self._loop is not None, "a reading belongs to a turn of a loop"
            if not self._loop.is_closed():
                return self._reading
            self._end_turn()  # The loop was torn down before it could say so.
        if self._closed:
            raise ClosedError("this cache was closed")
        now = self._clock.monotonic()
        self._store.sweep(now)
        loop = asyncio._get_running_loop()  # `get_running_loop` raises: 0.5 µs for sync code
        if loop is None:
            return now  # No turns, no timers.
        if self._loop is not loop:
            self._loop, self._timer = loop, None
        self._reading = now
        if self._is_fast:
            self._fast_now = now
        loop.call_soon(self._end_turn)
        if self._timer is None and self._store.is_expiring:
            delay = 0.0 if self._store.is_due(now) else SWEEP_INTERVAL
            # Weak: a cache that is dropped without `close` does not live on in its timer.
            self._timer = loop.call_later(delay, _sweep, weakref.ref(self))
        return now

    def _end_turn(self) -> None:
        self._reading = None
        self._fast_now = math.inf

    def _on_timer(self) -> None:
        self._timer = None
        if not self._closed:
            self._end_turn()
            self._now()

    # -- one key, read -----------------------------------------------------------------------

    @overload
    def get_nowait(self, key: Key) -> V | None: ...
    @overload
    def get_nowait(self, key: Key, default: D) -> V | D: ...
    def get_nowait(self, key: Key, default: object = None) -> object:
        """Return the value of `key`, or `default`, without a coroutine: `get` is this."""
        entry = self._lookup(key)
        # Only text is fast: 1, 1.0 and True find the same entry, but two of them are no keys.
        if entry is None or entry[1] <= self._fast_now or type(key) is not str:
            return self._get(key, default)
        if entry[3] != USES_MAX:
            self._record(key)
        self._fast_hits += 1
        return entry[0]

    def _get(self, key: Key, default: object) -> object:
        now = self._now()
        entry = self._store.get(check_plain_key(key), now)
        return default if entry is None else self._out(entry)

    def _out(self, entry: Entry[V]) -> V:
        return deepcopy(entry[0]) if self._copy else entry[0]

    @overload
    async def get(self, key: Key) -> V | None: ...
    @overload
    async def get(self, key: Key, default: D) -> V | D: ...
    async def get(self, key: Key, default: object = None) -> object:
        """Return the value of `key`, or `default`; never waits."""
        return self.get_nowait(key, default)

    def get_entry_nowait(self, key: Key) -> CacheEntry[V] | None:
        """Return the value of `key` with the seconds it has left, without a coroutine."""
        now = self._fast_now
        entry = self._lookup(key)
        if entry is None or entry[1] <= now or type(key) is not str:
            return self._get_entry(key)
        if entry[3] != USES_MAX:
            self._record(key)
        self._fast_hits += 1
        return CacheEntry(entry[0], entry[1] - now)

    def _get_entry(self, key: Key) -> CacheEntry[V] | None:
        now = self._now()
        key = check_plain_key(key)
        ends_at = self._store.ends_at(key, now)  # Before the use moves it.
        entry = self._store.get(key, now)
        if entry is None or ends_at is None:
            return None
        return CacheEntry(self._out(entry), ends_at - now)

    async def get_entry(self, key: Key) -> CacheEntry[V] | None:
        """Return the value of `key` with the seconds it has left; a use of it."""
        return self.get_entry_nowait(key)

    async def exists(self, key: Key) -> bool:
        """Return whether `key` is present; not a use of it."""
        now = self._now()
        return self._store.peek(check_plain_key(key), now) is not None

    async def ttl(self, key: Key) -> float | None:
        """Return the seconds `key` has left, by its time to live and its idle time."""
        now = self._now()
        ends_at = self._store.ends_at(check_plain_key(key), now)
        return None if ends_at is None else ends_at - now

    # -- one key, write ----------------------------------------------------------------------

    def _expires_at(self, ttl: Ttl, now: float) -> float:
        seconds = self._ttl if isinstance(ttl, Default) else parse_ttl(ttl)
        return self._store.expires_at(seconds, now)

    def _put(
        self, key: Key, value: V, expires_at: float, now: float, tags: tuple[str, ...] = ()
    ) -> None:
        """Store under a plain key; every value comes in through here."""
        if self._flights.loading:
            self._flights.outdate(key)
        kept = deepcopy(value) if self._copy else value
        self._store.put(key, kept, expires_at=expires_at, now=now, tags=tags)

    async def set(
        self, key: Key, value: V, *, ttl: Ttl = DEFAULT, tags: Iterable[str] = ()
    ) -> bool:
        """Store `value`, replacing what was there, its time to live and its tags included; return True."""
        now = self._now()
        bears = check_tags(tags) if tags else ()
        self._put(check_plain_key(key), value, self._expires_at(ttl, now), now, bears)
        return True

    async def add(
        self, key: Key, value: V, *, ttl: Ttl = DEFAULT, tags: Iterable[str] = ()
    ) -> bool:
        """Store `value` only if `key` is absent; return whether it was."""
        return self._put_if(key, value, ttl, tags, present=False)

    async def replace(
        self, key: Key, value: V, *, ttl: Ttl = DEFAULT, tags: Iterable[str] = ()
    ) -> bool:
        """Store `value` only if `key` is present; return whether it was."""
        return self._put_if(key, value, ttl, tags, present=True)

    def _put_if(self, key: Key, value: V, ttl: Ttl, tags: Iterable[str], *, present: bool) -> bool:
        now = self._now()
        bears = check_tags(tags)
        key = check_plain_key(key)
        expires_at = self._expires_at(ttl, now)
        if (self._store.peek(key, now) is not None) is not present:
            return False
        self._put(key, value, expires_at, now, bears)
        return True

    async def delete(self, key: Key) -> bool:
        """Remove `key`; return whether it was present."""
        return self._delete(key) is not None

    @overload
    async def pop(self, key: Key) -> V | None: ...
    @overload
    async def pop(self, key: Key, default: D) -> V | D: ...
    async def pop(self, key: Key, default: object = None) -> object:
        """Remove `key` and return its value, or `default`."""
        entry = self._delete(key)
        return default if entry is None else entry[0]

    def _delete(self, key: Key) -> Entry[V] | None:
        now = self._now()
        key = check_plain_key(key)
        self._flights.outdate(key)
        return self._store.delete(key, now)

    async def touch(self, key: Key, ttl: Ttl = DEFAULT) -> bool:
        """Give `key` a new time to live; return whether it is present."""
        now = self._now()
        expires_at = self._expires_at(ttl, now)
        return self._store.touch(check_plain_key(key), expires_at=expires_at, now=now)

    async def persist(self, key: Key) -> bool:
        """Let `key` never expire; return whether it is present. `max_idle` still holds."""
        return await self.touch(key, None)

    async def incr(self, key: Key, delta: int = 1, *, initial: int = 0, ttl: Ttl = DEFAULT) -> int:
        """Add `delta` to a whole number and return the sum; an absent key starts at `initial`."""
        now = self._now()
        key = check_plain_key(key)
        fresh_expires_at = self._expires_at(ttl, now)
        entry = self._store.peek(key, now)
        total = add_whole(initial if entry is None else entry[0], delta)
        expires_at = fresh_expires_at if entry is None else entry[1]
        # V of a cache of counters has int.
        self._put(key, cast(V, total), expires_at, now, self._store.tags(key))
        return total

    async def get_or_set(
        self,
        key: Key,
        factory: Factory[V],
        *,
        ttl: Ttl = DEFAULT,
        tags: Iterable[str] = (),
        min_ttl: float = 0.0,
    ) -> V:
        """Return the value of `key`; if it is absent, what `factory` makes, and store that."""
        now = self._now()
        key = check_plain_key(key)
        bears = check_tags(tags)
        seconds = self._ttl if isinstance(ttl, Default) else parse_ttl(ttl)
        if min_ttl <= 0 or self._lasts(key, min_ttl, now):
            entry = self._store.get(key, now)
            if entry is not None:
                return self._out(entry)

        def keep(loaded: Loaded[V], flight: Flight[V]) -> None:
            now = self._now()  # The load took a while.
            own = seconds if isinstance(loaded.ttl, Default) else parse_ttl(loaded.ttl)
            all_tags = check_tags((*bears, *loaded.tags))
            if loaded.store and flight.may_keep(all_tags):
                self._put(key, loaded.value, self._store.expires_at(own, now), now, all_tags)

        value = await self._flights.run(key, factory, keep, bears)
        return deepcopy(value) if self._copy else value

    def _lasts(self, key: Key, min_ttl: float, now: float) -> bool:
        """Whether a key need not be loaded anew; for `math.inf` no end is late enough."""
        ends_at = self._store.ends_at(key, now)
        return ends_at is not None and ends_at - now >= min_ttl and min_ttl != math.inf

    # -- many keys ---------------------------------------------------------------------------

    async def get_many(self, keys: Iterable[K]) -> dict[K, V]:
        """Return the values of those `keys` that are present."""
        missing: Any = object()  # Any: stands in for a V
        found = ((key, self.get_nowait(key, missing)) for key in check_keys(keys))
        return {key: value for key, value in found if value is not missing}

    async def set_many(
        self, items: Mapping[K, V], *, ttl: Ttl = DEFAULT, tags: Iterable[str] = ()
    ) -> None:
        """Store all `items`, or none if a key or the time to live is refused."""
        now = self._now()
        plain = [(check_plain_key(key), value) for key, value in items.items()]
        seconds = self._ttl if isinstance(ttl, Default) else parse_ttl(ttl)
        bears = check_tags(tags)
        for key, value in plain:
            self._put(key, value, self._store.expires_at(seconds, now), now, bears)

    async def delete_many(self, keys: Iterable[K]) -> int:
        """Remove `keys`; return how many were present."""
        return sum([self._delete(key) is not None for key in check_keys(keys)])

    # -- all of it ---------------------------------------------------------------------------

    async def scan(self, prefix: str = "") -> AsyncIterator[Key]:
        """Yield the keys that begin with `prefix`: those of the first step that are still there."""
        self._now()
        for key in self._store.snapshot():
            if has_prefix(key, prefix) and self._store.peek(key, self._now()) is not None:
                yield key

    async def size(self) -> int:
        """Return the number of keys, ended ones not included."""
        self._store.purge(self._now())
        return len(self._store.entries)

    async def clear(self) -> int:
        """Remove every key that is present now; return how many."""
        now = self._now()
        self._flights.outdate_all()
        return self._store.clear(now)

    async def invalidate_tags(self, *tags: str) -> int:
        """Remove every key that bears one of `tags`; return how many."""
        now = self._now()
        bears = check_tags(tags)
        self._flights.invalidate(bears)
        keys = [key for tag in bears for key in self._store.tagged(tag)]
        return sum([self._store.delete(key, now) is not None for key in keys])

    def _outdate_loads(self, prefix: str) -> None:
        self._flights.outdate_all(prefix)

    def stats(self) -> CacheStats:
        """Return counts since the cache was made, and what it holds now."""
        store = self._store
        return CacheStats(
            hits=store.hits + self._fast_hits,
            misses=store.misses,
            sets=store.sets,
            deletes=store.deletes,
            evictions=store.evictions,
            expired=store.expired,
            entries=len(store.entries),
            bytes=store.size_bytes,
        )

    async def close(self) -> None:
        """End loads and forget everything; idempotent. Later calls raise `ClosedError`."""
        if not self._closed:
            self._store.clear(self._now())
        self._closed = True
        self._end_turn()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        await self._flights.close()


def _sweep(reference: weakref.ref[LocalCache[Any]]) -> None:  # Any: values are not looked at
    cache = reference()
    if cache is not None:
        cache._on_timer()


def _check_bounds(max_entries: int | None, max_bytes: int | None) -> None:
    if max_entries is None and max_bytes is None:
        raise ConfigError("max_entries: one of max_entries and max_bytes is needed")
    if max_entries is not None and max_entries < 1:
        raise ConfigError(f"max_entries={max_entries!r}: must be 1 or more, or None")
    if max_bytes is not None and max_bytes < 1:
        raise ConfigError(f"max_bytes={max_bytes!r}: must be 1 or more, or None")


def _check_ttl(name: str, ttl: Ttl) -> float | None:
    if isinstance(ttl, Default):
        return None
    try:
        return parse_ttl(ttl)
    except ValueError as error:
        raise ConfigError(f"{name}: {error}") from error
