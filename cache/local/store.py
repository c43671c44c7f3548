"""Entries of one cache: bounded, expiring, weighed. Pure: every method takes `now`.

Entries are tuples (`eviction.Entry`) in a dict that the policy made, because the policy's own notes on a key
are part of its entry. Invariants, between two calls: len(entries) <= max_entries; size_bytes = Σ weight <=
max_bytes; the policy knows of exactly the keys of `entries`.

Accounting: the weight of an entry is the bytes of its key (UTF-8 for text, decimal digits for a number) plus
what the caller passes as `value_bytes`, or what `weigh(value)` returns when the value is stored. It is
not looked at again: a list that grows later still weighs what it did. The default `weigh` is
`sys.getsizeof`, which is shallow. What the store itself needs per entry is not part of it.

Expiry: a key ends when it is looked at after its time, or when the sweep comes to it. The sweep takes a
bounded number of keys at a time from a wheel of one-second buckets; places of overwritten keys are skipped
there, and thrown out once they are the majority.
"""

from __future__ import annotations

import heapq
import math
import sys
from collections.abc import Callable, Iterator
from random import Random
from typing import Final, Generic, TypeVar

from cache.codec import encode_key
from cache.keys import Key
from cache.local.eviction import Entry, Policy

V = TypeVar("V")

SWEEP_MAX: Final = 256
"""Keys looked at in one slice of the sweep: about 0.1 ms."""
SHARED_WEIGHTS_MAX: Final = 1024
"""Different weights whose `int` is shared between entries; saves 32 bytes an entry."""
STALE_MIN: Final = 1024
"""Places of overwritten keys in the wheel that are always tolerated."""


def key_bytes(key: Key) -> int:
    """Return the bytes a key counts for.

    Raises:
        CodecError: text that is not valid Unicode, or a number with too many digits.
    """
    if isinstance(key, str) and key.isascii():
        return len(key)
    return len(encode_key(key)) - 1  # without the tag


class Wheel:
    """Keys by the second in which they are due."""

    __slots__ = ("_buckets", "_seconds", "count")

    def __init__(self) -> None:
        self._buckets: dict[int, list[Key]] = {}
        self._seconds: list[int] = []  # a heap of the keys of `_buckets`
        self.count = 0

    def push(self, key: Key, second: int) -> None:
        """Remember a key until `second`."""
        bucket = self._buckets.get(second)
        if bucket is None:
            bucket = self._buckets[second] = []
            heapq.heappush(self._seconds, second)
        bucket.append(key)
        self.count += 1

    def pop(self, now: float) -> tuple[Key, int] | None:
        """Take out one key whose second has come, with that second."""
        if not self.is_due(now):
            return None
        second = self._seconds[0]
        bucket = self._buckets[second]
        key = bucket.pop()
        self.count -= 1
        if not bucket:
            heapq.heappop(self._seconds)
            del self._buckets[second]
        return key, second

    def is_due(self, now: float) -> bool:
        """Return whether `pop` would find something."""
        return bool(self._seconds) and self._seconds[0] <= now

    def within(self, second: int) -> tuple[Key, ...]:
        """Return the keys of one bucket; they stay there."""
        return tuple(self._buckets.get(second, ()))


class Store(Generic[V]):
    """The entries of a cache, without a clock and without a loop."""

    __slots__ = (
        "_armed",
        "_deadline",
        "_jitter",
        "_max_bytes",
        "_max_entries",
        "_max_idle",
        "_policy",
        "_rng",
        "_shared_weights",
        "_tagged",
        "_tags",
        "_used_at",
        "_weigh",
        "_wheel",
        "deletes",
        "entries",
        "evictions",
        "expired",
        "hits",
        "misses",
        "sets",
        "size_bytes",
    )

    def __init__(
        self,
        policy: Policy,
        *,
        rng: Random,
        max_entries: int | None = None,
        max_bytes: int | None = None,
        max_idle: float | None = None,
        jitter: float = 0.0,
        weigh: Callable[[V], int] = sys.getsizeof,
    ) -> None:
        self._policy = policy
        self._rng = rng
        self._max_entries: float = math.inf if max_entries is None else max_entries
        self._max_bytes: float = math.inf if max_bytes is None else max_bytes
        self._max_idle = max_idle
        self._jitter = jitter
        self._weigh = weigh
        self._shared_weights: dict[int, int] = {}
        self._deadline = (-math.inf, math.inf, math.inf)  # (now, ttl, their sum) of the last call
        self.hits = self.misses = self.sets = self.deletes = self.evictions = self.expired = 0
        self.entries: dict[Key, Entry[V]] = policy.entries
        self._forget()

    def _forget(self) -> None:
        self._policy.clear()
        self.size_bytes = 0
        self._wheel = Wheel()
        self._tags: dict[Key, tuple[str, ...]] = {}  # of the keys that have some
        self._tagged: dict[str, dict[Key, None]] = {}  # the other way round
        self._used_at: dict[Key, float] = {}  # only with max_idle
        self._armed: dict[Key, int] = {}  # only with max_idle: the bucket that counts

    # -- reading -----------------------------------------------------------------------------

    def peek(self, key: Key, now: float) -> Entry[V] | None:
        """Return the entry of a key, or None; not a use, and not counted."""
        entry = self.entries.get(key)
        if entry is None or self._ends_at(key, entry) > now:
            return entry
        self._expire(key, entry)
        return None

    def get(self, key: Key, now: float) -> Entry[V] | None:
        """Return the entry of a key, or None; a use, and counted."""
        entry = self.peek(key, now)
        if entry is None:
            self.misses += 1
            return None
        self.hits += 1
        self._policy.record(key)
        if self._max_idle is not None:
            self._used_at[key] = now
        return entry

    def ends_at(self, key: Key, now: float) -> float | None:
        """Return the instant at which a key ends if nobody uses it, None if it is absent."""
        entry = self.peek(key, now)
        return None if entry is None else self._ends_at(key, entry)

    def _ends_at(self, key: Key, entry: Entry[V]) -> float:
        if self._max_idle is None:
            return entry[1]
        return min(entry[1], self._used_at[key] + self._max_idle)

    # -- writing -----------------------------------------------------------------------------

    def expires_at(self, ttl: float | None, now: float) -> float:
        """Return the instant at which `ttl` seconds end: up to `jitter` of them sooner; None is never."""
        if ttl is None:
            return math.inf
        if self._jitter:
            return now + ttl * (1 - self._jitter * self._rng.random())
        if self._deadline[0] != now or self._deadline[1] != ttl:
            self._deadline = (now, ttl, now + ttl)  # One object for all that is stored in a tick.
        return self._deadline[2]

    def put(
        self,
        key: Key,
        value: V,
        *,
        expires_at: float,
        now: float,
        tags: tuple[str, ...] = (),
        value_bytes: int | None = None,
    ) -> None:
        """Store a value, making room for it; one that is over `max_bytes` alone is not kept.

        Raises:
            CodecError: the key has no bytes, see `key_bytes`.
        """
        weight = key_bytes(key) + (self._weigh(value) if value_bytes is None else value_bytes)
        entries = self.entries
        old = entries.get(key)
        if old is not None and (old[1] <= now or self._max_idle is not None):
            old = self.peek(key, now)
        self.sets += 1
        if weight > self._max_bytes:
            if old is not None:
                self._remove(key, old)
            self.evictions += 1
            return
        shared = self._shared_weights.get(weight) or self._shared(weight)
        if old is None:
            entries[key] = (value, expires_at, shared, 0, False)
            self.size_bytes += weight
            self._policy.added(key)
        else:
            entries[key] = (value, expires_at, shared, old[3], old[4])
            self.size_bytes += weight - old[2]
            self._policy.record(key)
        if tags or self._tags:
            self._tag(key, tags)
        if expires_at != math.inf or self._max_idle is not None:
            self._arm(key, expires_at, None if old is None else old[1], now)
        if len(entries) > self._max_entries or self.size_bytes > self._max_bytes:
            self._make_room()

    def _shared(self, weight: int) -> int:
        if len(self._shared_weights) < SHARED_WEIGHTS_MAX:
            self._shared_weights[weight] = weight
        return weight

    def _make_room(self) -> None:
        while len(self.entries) > self._max_entries or self.size_bytes > self._max_bytes:
            key = self._policy.evict()
            self._drop(key, self.entries[key])
            self.evictions += 1

    def touch(self, key: Key, *, expires_at: float, now: float) -> bool:
        """Let a key end at `expires_at`; return whether it is present. A use for `max_idle`."""
        entry = self.peek(key, now)
        if entry is None:
            return False
        self.entries[key] = (entry[0], expires_at, *entry[2:])
        self._arm(key, expires_at, entry[1], now)
        return True

    def _tag(self, key: Key, tags: tuple[str, ...]) -> None:
        """Give a key these tags instead of those it had."""
        for tag in self._tags.pop(key, ()):
            keys = self._tagged[tag]
            del keys[key]
            if not keys:
                del self._tagged[tag]
        if tags:
            self._tags[key] = tags
            for tag in tags:
                self._tagged.setdefault(tag, {})[key] = None

    def tags(self, key: Key) -> tuple[str, ...]:
        """Return the tags of a key."""
        return self._tags.get(key, ())

    def tagged(self, tag: str) -> tuple[Key, ...]:
        """Return the keys that bear a tag, ended ones included."""
        return tuple(self._tagged.get(tag, ()))

    def delete(self, key: Key, now: float) -> Entry[V] | None:
        """Remove a key; return what it held, or None."""
        entry = self.peek(key, now)
        if entry is not None:
            self._remove(key, entry)
            self.deletes += 1
        return entry

    def clear(self, now: float) -> int:
        """Remove everything; return how many keys were there."""
        self.purge(now)
        count = len(self.entries)
        self.deletes += count
        self._forget()
        return count

    def _expire(self, key: Key, entry: Entry[V]) -> None:
        self._remove(key, entry)
        self.expired += 1

    def _remove(self, key: Key, entry: Entry[V]) -> None:
        self._policy.removed(key)
        self._drop(key, entry)

    def _drop(self, key: Key, entry: Entry[V]) -> None:
        del self.entries[key]
        self.size_bytes -= entry[2]
        if self._tags:
            self._tag(key, ())
        if self._max_idle is not None:
            del self._used_at[key]
            del self._armed[key]

    # -- expiry ------------------------------------------------------------------------------

    def _arm(self, key: Key, expires_at: float, expired_at: float | None, now: float) -> None:
        """Put a key that was just used into the wheel, unless it is in the right bucket already."""
        if self._max_idle is not None:
            self._used_at[key] = now
            expires_at = min(expires_at, now + self._max_idle)
            self._push_armed(key, expires_at)
        elif expires_at != math.inf:
            second = int(expires_at) + 1
            if expired_at is None or expired_at == math.inf or int(expired_at) + 1 != second:
                self._wheel.push(key, second)
        if self._wheel.count > 2 * len(self.entries) + STALE_MIN:
            self._rebuild_wheel()

    def _push_armed(self, key: Key, ends_at: float) -> None:
        second = int(ends_at) + 1
        if self._armed.get(key) != second:
            self._armed[key] = second
            self._wheel.push(key, second)

    def _rebuild_wheel(self) -> None:
        self._wheel = Wheel()
        self._armed.clear()
        for key, entry in self.entries.items():
            ends_at = self._ends_at(key, entry)
            if self._max_idle is not None:
                self._push_armed(key, ends_at)
            elif ends_at != math.inf:
                self._wheel.push(key, int(ends_at) + 1)

    def is_due(self, now: float) -> bool:
        """Return whether `sweep` has something to do."""
        return self._wheel.is_due(now)

    @property
    def is_expiring(self) -> bool:
        """Whether some key may end by time alone."""
        return self._wheel.count > 0

    def sweep(self, now: float, limit: float = SWEEP_MAX) -> None:
        """Remove keys that have ended; looks at no more than `limit`."""
        while limit > 0 and (due := self._wheel.pop(now)) is not None:
            limit -= 1
            key, second = due
            entry = self.entries.get(key)
            if entry is None:
                continue
            ends_at = self._ends_at(key, entry)
            if ends_at <= now:
                self._expire(key, entry)
            elif self._max_idle is not None and self._armed[key] == second:
                self._push_armed(key, ends_at)  # It was used meanwhile.

    def purge(self, now: float) -> None:
        """Remove every key that has ended, also those of the second that runs; for exact counts."""
        self.sweep(now, math.inf)
        for key in self._wheel.within(int(now) + 1):
            self.peek(key, now)

    def snapshot(self) -> Iterator[Key]:
        """Iterate over the keys as they are now, ended ones included; writes may go on meanwhile."""
        return iter(tuple(self.entries))
