"""`Cache`: what every cache of this library can do, whether it is in this process or a whole cluster.

Names, arguments and results are those of `DistributedMap`, so code written against `Cache` runs on either.
Keys are `str`, `bytes` or `int`; a stored None is a value; `ttl` is seconds, a `timedelta`, text such as
"1h30m", None for never, or `DEFAULT` for the cache's own. A cache may forget any key at any time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Self, TypeVar, Unpack, overload

from cache.durations import DEFAULT, Default, parse_ttl
from cache.errors import ConfigError
from cache.flights import Factory
from cache.keys import K, Key, Ttl, check_keys, check_plain_key, has_prefix

if TYPE_CHECKING:
    from cache.decorator import AsyncDecorator, CachedOptions

V = TypeVar("V")
D = TypeVar("D")


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheStats:
    """Counts since the cache was made, and what it holds now."""

    hits: int
    """Keys found by get, get_many and get_or_set."""
    misses: int
    """Keys not found by them."""
    sets: int
    """Values stored, by whatever operation."""
    deletes: int
    """Keys removed by delete, delete_many, pop and clear."""
    evictions: int
    """Keys removed to make room; a value too large to be stored at all counts too."""
    expired: int
    """Keys removed because their time to live or idle time had passed."""
    entries: int
    """Keys held, ended ones that were not swept yet included."""
    bytes: int
    """Bytes held, as the cache weighs them."""


class CacheEntry(NamedTuple, Generic[V]):
    """A value and how long it lives on; a tuple, because decorated calls make one each."""

    value: V
    ttl: float
    """Seconds left; `math.inf` without end."""
    version: str | None = None
    """Of a map: which write stored it, for `set(…, if_version=…)`."""
    age: float | None = None
    """Of a map: seconds since it was written, by the clocks of two members."""
    size: int | None = None
    """Of a map: bytes of the encoded value, tags included."""


class Cache(ABC, Generic[V]):
    """A cache with keys of type `str | bytes | int`; `async with` closes it."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    # -- one key, read -----------------------------------------------------------------------

    @overload
    async def get(self, key: Key) -> V | None: ...
    @overload
    async def get(self, key: Key, default: D) -> V | D: ...
    @abstractmethod
    async def get(self, key: Key, default: object = None) -> object:
        """Return the value of `key`, or `default`. A stored None is a value: see `exists`."""

    @abstractmethod
    async def get_entry(self, key: Key) -> CacheEntry[V] | None:
        """Return the value of `key` with the seconds it has left, None if it is absent."""

    @abstractmethod
    async def exists(self, key: Key) -> bool:
        """Return whether `key` is present (also when its value is None)."""

    @abstractmethod
    async def ttl(self, key: Key) -> float | None:
        """Return the seconds `key` has left, `math.inf` if it does not expire, None if absent."""

    # -- one key, write ----------------------------------------------------------------------

    @abstractmethod
    async def set(
        self, key: Key, value: V, *, ttl: Ttl = DEFAULT, tags: Iterable[str] = ()
    ) -> bool:
        """Store `value`, replacing what was there, its time to live and its tags included; return True.

        Caches whose `set` has conditions as well return whether they held.
        """

    @abstractmethod
    async def add(
        self, key: Key, value: V, *, ttl: Ttl = DEFAULT, tags: Iterable[str] = ()
    ) -> bool:
        """Store `value` only if `key` is absent; return whether it was."""

    @abstractmethod
    async def replace(
        self, key: Key, value: V, *, ttl: Ttl = DEFAULT, tags: Iterable[str] = ()
    ) -> bool:
        """Store `value` only if `key` is present; return whether it was."""

    @abstractmethod
    async def delete(self, key: Key) -> bool:
        """Remove `key`; return whether it was present."""

    @overload
    async def pop(self, key: Key) -> V | None: ...
    @overload
    async def pop(self, key: Key, default: D) -> V | D: ...
    @abstractmethod
    async def pop(self, key: Key, default: object = None) -> object:
        """Remove `key` and return its value, or `default`."""

    @abstractmethod
    async def touch(self, key: Key, ttl: Ttl = DEFAULT) -> bool:
        """Give `key` a new time to live; return whether it is present."""

    @abstractmethod
    async def persist(self, key: Key) -> bool:
        """Let `key` never expire; return whether it is present."""

    @abstractmethod
    async def incr(self, key: Key, delta: int = 1, *, initial: int = 0, ttl: Ttl = DEFAULT) -> int:
        """Add `delta` to a whole number and return the sum; an absent key starts at `initial`.

        The time to live is set when the key is made and kept afterwards.

        Raises:
            WrongTypeError: the key holds something else, or the sum would leave 64 bits.
        """

    async def decr(self, key: Key, delta: int = 1, *, initial: int = 0, ttl: Ttl = DEFAULT) -> int:
        """Subtract `delta`; otherwise as `incr`."""
        return await self.incr(key, -delta, initial=initial, ttl=ttl)

    @abstractmethod
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

        Of many callers one runs `factory` (sync or async), in a task of its own. A caller that is cancelled
        leaves the others waiting; the last one to leave cancels the load. An error reaches every waiting
        caller and is not stored. A write of the key while it is loaded wins, and so does an
        invalidation of one of the tags: the loaded value is returned to those who wait, not stored.

        Args:
            key: what to look up.
            factory: makes the value; it may return `Loaded` to say how to keep it.
            ttl: time to live of what was made.
            tags: its tags, see `invalidate_tags`.
            min_ttl: a value with fewer seconds left counts as absent, and is replaced. With `math.inf`
                every value does, also one without end: what is returned comes from a load, this caller's
                or the one it found running.
        """

    # -- many keys ---------------------------------------------------------------------------

    @abstractmethod
    async def get_many(self, keys: Iterable[K]) -> dict[K, V]:
        """Return the values of those `keys` that are present."""

    @abstractmethod
    async def set_many(
        self, items: Mapping[K, V], *, ttl: Ttl = DEFAULT, tags: Iterable[str] = ()
    ) -> None:
        """Store all `items`."""

    @abstractmethod
    async def delete_many(self, keys: Iterable[K]) -> int:
        """Remove `keys`; return how many were present."""

    # -- all of it ---------------------------------------------------------------------------

    @abstractmethod
    def scan(self, prefix: str = "") -> AsyncIterator[Key]:
        """Yield the keys that begin with `prefix`, each once, in no order.

        A key that is present all the while is yielded; one that comes or goes meanwhile may be.
        """

    @abstractmethod
    async def size(self) -> int:
        """Return the number of keys."""

    @abstractmethod
    async def clear(self) -> int:
        """Remove every key that is present now; return how many."""

    @abstractmethod
    async def invalidate_tags(self, *tags: str) -> int:
        """Remove every key that bears one of `tags`; return how many.

        Complete: a value that is being loaded meanwhile with such a tag is not stored. Namespaces of a
        cache share its tags.
        """

    @abstractmethod
    def stats(self) -> CacheStats:
        """Return counts since the cache was made, and what it holds now."""

    @abstractmethod
    async def close(self) -> None:
        """End loads and forget everything; idempotent. Later calls raise `ClosedError`."""

    def _outdate_loads(self, prefix: str) -> None:  # most have none here
        """Keep what is being loaded for keys with this prefix from being stored, for `clear` of a view."""

    def namespace(self, prefix: str, *, ttl: Ttl = DEFAULT) -> Cache[V]:
        """Return a view of this cache whose keys begin with `prefix` and a colon.

        Args:
            prefix: not empty; `namespace("a").namespace("b")` is `namespace("a:b")`.
            ttl: the view's own default.
        """
        return NamespacedCache(self, prefix, ttl=ttl)

    def cached(self, **options: Unpack[CachedOptions]) -> AsyncDecorator:
        """Return a decorator that keeps what functions return in this cache; see `cache.cached`."""
        from cache.decorator import cached  # noqa: PLC0415  # it stands on this module

        return cached(self, **options)


class NamespacedCache(Cache[V]):
    """A view of another cache: `prefix:` stands before every key, `scan`, `size` and `clear` see those only.

    Text and bytes get the prefix as it is, so the other cache shows "users:ann". A whole number n becomes
    text, the prefix followed by NUL and its digits; a text key of that very form would be the same key.
    Closing a view does nothing: it owns nothing. `stats` are those of the whole cache.
    """

    def __init__(self, cache: Cache[V], prefix: str, *, ttl: Ttl = DEFAULT) -> None:
        if not prefix:
            raise ConfigError("prefix: a namespace needs a name; use the cache itself")
        if not isinstance(ttl, Default):
            ttl = parse_ttl(ttl)
        self._cache = cache
        self._prefix = prefix + ":"
        self._prefix_bytes = self._prefix.encode()
        self._ttl: float | Default | None = ttl

    def __repr__(self) -> str:
        return f"<namespace {self._prefix!r} of {self._cache!r}>"

    def _outer(self, key: Key) -> Key:
        key = check_plain_key(key)
        if isinstance(key, str):
            return self._prefix + key
        if isinstance(key, bytes):
            return self._prefix_bytes + key
        return f"{self._prefix}\x00{key}"

    def _inner(self, key: Key) -> Key:
        if isinstance(key, bytes):
            return key[len(self._prefix_bytes) :]
        assert isinstance(key, str), "a number begins with no prefix"
        name = key[len(self._prefix) :]
        digits = name[1:].removeprefix("-")
        is_number = name.startswith("\x00") and digits.isascii() and digits.isdigit()
        return int(name[1:]) if is_number else name

    def _or_own(self, ttl: Ttl) -> Ttl:
        return self._ttl if isinstance(ttl, Default) else ttl

    @overload
    async def get(self, key: Key) -> V | None: ...
    @overload
    async def get(self, key: Key, default: D) -> V | D: ...
    async def get(self, key: Key, default: object = None) -> object:
        """Return the value of `key`, or `default`."""
        return await self._cache.get(self._outer(key), default)

    async def get_entry(self, key: Key) -> CacheEntry[V] | None:
        """Return the value of `key` with the seconds it has left."""
        return await self._cache.get_entry(self._outer(key))

    async def exists(self, key: Key) -> bool:
        """Return whether `key` is present."""
        return await self._cache.exists(self._outer(key))

    async def ttl(self, key: Key) -> float | None:
        """Return the seconds `key` has left."""
        return await self._cache.ttl(self._outer(key))

    async def set(
        self, key: Key, value: V, *, ttl: Ttl = DEFAULT, tags: Iterable[str] = ()
    ) -> bool:
        """Store `value`."""
        return await self._cache.set(self._outer(key), value, ttl=self._or_own(ttl), tags=tags)

    async def add(
        self, key: Key, value: V, *, ttl: Ttl = DEFAULT, tags: Iterable[str] = ()
    ) -> bool:
        """Store `value` only if `key` is absent."""
        return await self._cache.add(self._outer(key), value, ttl=self._or_own(ttl), tags=tags)

    async def replace(
        self, key: Key, value: V, *, ttl: Ttl = DEFAULT, tags: Iterable[str] = ()
    ) -> bool:
        """Store `value` only if `key` is present."""
        return await self._cache.replace(self._outer(key), value, ttl=self._or_own(ttl), tags=tags)

    async def delete(self, key: Key) -> bool:
        """Remove `key`."""
        return await self._cache.delete(self._outer(key))

    @overload
    async def pop(self, key: Key) -> V | None: ...
    @overload
    async def pop(self, key: Key, default: D) -> V | D: ...
    async def pop(self, key: Key, default: object = None) -> object:
        """Remove `key` and return its value, or `default`."""
        return await self._cache.pop(self._outer(key), default)

    async def touch(self, key: Key, ttl: Ttl = DEFAULT) -> bool:
        """Give `key` a new time to live."""
        return await self._cache.touch(self._outer(key), self._or_own(ttl))

    async def persist(self, key: Key) -> bool:
        """Let `key` never expire."""
        return await self._cache.persist(self._outer(key))

    async def incr(self, key: Key, delta: int = 1, *, initial: int = 0, ttl: Ttl = DEFAULT) -> int:
        """Add `delta` to a whole number."""
        own = self._or_own(ttl)
        return await self._cache.incr(self._outer(key), delta, initial=initial, ttl=own)

    async def get_or_set(
        self,
        key: Key,
        factory: Factory[V],
        *,
        ttl: Ttl = DEFAULT,
        tags: Iterable[str] = (),
        min_ttl: float = 0.0,
    ) -> V:
        """Return the value of `key`, or make and store it."""
        outer, own = self._outer(key), self._or_own(ttl)
        return await self._cache.get_or_set(outer, factory, ttl=own, tags=tags, min_ttl=min_ttl)

    async def get_many(self, keys: Iterable[K]) -> dict[K, V]:
        """Return the values of those `keys` that are present."""
        outer = {self._outer(key): key for key in check_keys(keys)}
        found: dict[Any, V] = await self._cache.get_many(outer)  # Any: K does not fit K here
        return {outer[key]: value for key, value in found.items()}

    async def set_many(
        self, items: Mapping[K, V], *, ttl: Ttl = DEFAULT, tags: Iterable[str] = ()
    ) -> None:
        """Store all `items`."""
        outer = {self._outer(key): value for key, value in items.items()}
        await self._cache.set_many(outer, ttl=self._or_own(ttl), tags=tags)

    async def delete_many(self, keys: Iterable[K]) -> int:
        """Remove `keys`; return how many were present."""
        return await self._cache.delete_many([self._outer(key) for key in check_keys(keys)])

    async def scan(self, prefix: str = "") -> AsyncIterator[Key]:
        """Yield the keys of this namespace that begin with `prefix`."""
        async for key in self._cache.scan(self._prefix + prefix):
            inner = self._inner(key)
            if has_prefix(inner, prefix):  # Not so for a number, when the prefix begins with NUL.
                yield inner

    async def size(self) -> int:
        """Return the number of keys of this namespace; takes a scan."""
        return sum([1 async for _ in self.scan()])

    async def clear(self) -> int:
        """Remove every key of this namespace; takes a scan."""
        self._outdate_loads("")
        return await self.delete_many([key async for key in self.scan()])

    async def invalidate_tags(self, *tags: str) -> int:
        """Remove every key of the whole cache that bears one of `tags`."""
        return await self._cache.invalidate_tags(*tags)

    def _outdate_loads(self, prefix: str) -> None:
        self._cache._outdate_loads(self._prefix + prefix)

    def stats(self) -> CacheStats:
        """Return the counts of the whole cache."""
        return self._cache.stats()

    async def close(self) -> None:
        """Do nothing: the cache belongs to whoever made it."""
