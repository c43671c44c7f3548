"""`OlricCache`: a cache on a map of an Olric cluster; `cache.open("olric://host:3320/users")` makes one.

Olric has no scripts, tags or times to live that can be read: `olric_map.py` says how a value carries them,
`olric_loads.py` how one process loads for all. What reads before it writes is a loop around a swap.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import NamedTuple, TypeVar, cast, overload

from cache.adapters.attached import AttachedCache
from cache.adapters.layout import key_of, milliseconds, name_of, seconds_left
from cache.adapters.life import Life, Target
from cache.adapters.loads import Load
from cache.adapters.olric_loads import OlricLoad, invalidate_lease, is_lease, outdate_lease
from cache.adapters.olric_map import BATCH_MAX, NAME_BYTES_MAX, Held, OlricMap
from cache.adapters.routing import Router
from cache.clock import Clock, SystemClock
from cache.codec import tags_of
from cache.durations import DEFAULT
from cache.errors import CodecError, OverloadedError, WrongTypeError
from cache.interface import CacheEntry, CacheStats
from cache.keys import K, Key, Ttl, add_whole, check_keys, check_tags, has_prefix
from cache.serializers import Serializer

V = TypeVar("V")
D = TypeVar("D")


class Change(NamedTuple):
    """What is to be stored, and for how long."""

    value: bytes
    ttl_ms: int | None


class OlricCache(AttachedCache[V]):
    """A cache whose data is in a map (DMap) of an Olric cluster, version 0.7 or later.

    This was written from Olric's source and documentation and tested against a server that does as they say,
    never against Olric itself.

    Guarantees:
        Consistency: what Olric gives. Steps that read and write (add, replace, incr, touch, pop, loads) are
            one step among callers that ask the same member, because Olric locks there.
        An ack means: as Olric's `writeQuorum` and `replicationMode` say.
        Tags: found by looking at every key; complete among callers that ask the same member.
        Clocks: what `ttl` and `get_entry` tell depends on the wall clocks of the processes; expiry does not.
        Loss is reported by: nothing.
        Tested by: tests/contract.

    Args:
        target: one member.
        name: the map.
        ttl: default time to live.
        serializer: how values become bytes, see `Node.map`.
        clock: the wall clock.
    """

    def __init__(
        self,
        target: Target,
        *,
        name: str,
        ttl: Ttl = None,
        serializer: Serializer | None = None,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(target, name=name, ttl=ttl, serializer=serializer)
        self._clock = clock or SystemClock()
        self._entries = 0  # when they were last counted

    def _router(self) -> Router:
        target = self.target
        return Router(target.places, target.access, slots=None, timeout=target.operation_timeout)

    async def _begin(self, life: Life) -> None:
        """Nothing must be known before."""

    def _map(self) -> OlricMap:
        return OlricMap(self._here(), self.name, self._clock)

    def _new_load(self, life: Life, key: Key, tags: tuple[str, ...]) -> Load:
        return OlricLoad(OlricMap(life, self.name, self._clock), _name(key), tags)

    # -- one key, read ---------------------------------------------------------------------------

    async def _get(self, key: Key) -> bytes | None:
        held = await self._map().held(_name(key))
        return None if held is None else held.value

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

    async def get_entry(self, key: Key) -> CacheEntry[V] | None:
        """Return the value of `key` with the seconds it has left, None if it is absent."""
        olric = self._map()
        held = await olric.held(_name(key))
        if held is None:
            self._misses += 1
            return None
        self._hits += 1
        return CacheEntry(cast(V, self._values.decode(held.value)), _seconds(olric, held))

    async def exists(self, key: Key) -> bool:
        """Return whether `key` is present (also when its value is None)."""
        return await self._get(key) is not None

    async def ttl(self, key: Key) -> float | None:
        """Return the seconds `key` has left, `math.inf` if it does not expire, None if absent."""
        olric = self._map()
        held = await olric.held(_name(key))
        return None if held is None else _seconds(olric, held)

    # -- one key, write --------------------------------------------------------------------------

    async def set(
        self, key: Key, value: V, *, ttl: Ttl = DEFAULT, tags: Iterable[str] = ()
    ) -> bool:
        """Store `value`, replacing what was there, its time to live and its tags included; return True."""
        olric, name = self._map(), _name(key)
        encoded = self._values.encode(value, check_tags(tags))
        left = milliseconds(ttl, self._ttl)
        olric.life.flights.outdate(key)
        await outdate_lease(olric, name)
        await olric.life.router.one(*olric.put(name, encoded, left))
        self._sets += 1
        return True

    async def _change(
        self, key: Key, change: Callable[[OlricMap, Held | None], Change | None]
    ) -> Held | Change | None:
        """Store what `change` makes of what is there; return that, or None if nothing is to be done."""
        olric, name = self._map(), _name(key)
        deadline = olric.life.router.deadline()
        while olric.life.loop.time() < deadline:
            held = await olric.held(name)
            made = change(olric, held)
            if made is None:
                return None
            if await olric.swap(name, held, *made):
                return made
        raise OverloadedError("the key was written by others all the while; nothing was changed")

    async def _store(
        self, key: Key, value: V, ttl: Ttl, tags: Iterable[str], *, present: bool
    ) -> bool:
        made = Change(self._values.encode(value, check_tags(tags)), milliseconds(ttl, self._ttl))

        def change(_: OlricMap, held: Held | None) -> Change | None:
            return made if (held is not None) is present else None

        if await self._change(key, change) is None:
            return False
        await self._outdate(key)
        self._sets += 1
        return True

    async def _outdate(self, key: Key) -> None:
        olric = self._map()
        olric.life.flights.outdate(key)
        await outdate_lease(olric, _name(key))

    async def add(
        self, key: Key, value: V, *, ttl: Ttl = DEFAULT, tags: Iterable[str] = ()
    ) -> bool:
        """Store `value` only if `key` is absent; return whether it was."""
        return await self._store(key, value, ttl, tags, present=False)

    async def replace(
        self, key: Key, value: V, *, ttl: Ttl = DEFAULT, tags: Iterable[str] = ()
    ) -> bool:
        """Store `value` only if `key` is present; return whether it was."""
        return await self._store(key, value, ttl, tags, present=True)

    async def _remove(self, key: Key) -> bytes | None:
        olric, name = self._map(), _name(key)
        await self._outdate(key)
        while (held := await olric.held(name)) is not None:
            if await olric.remove(name, held):
                self._deletes += 1
                return held.value
        return None

    async def delete(self, key: Key) -> bool:
        """Remove `key`; return whether it was present."""
        return await self._remove(key) is not None

    @overload
    async def pop(self, key: Key) -> V | None: ...
    @overload
    async def pop(self, key: Key, default: D) -> V | D: ...
    async def pop(self, key: Key, default: object = None) -> object:
        """Remove `key` and return its value, or `default`."""
        raw = await self._remove(key)
        return default if raw is None else self._values.decode(raw)

    async def touch(self, key: Key, ttl: Ttl = DEFAULT) -> bool:
        """Give `key` a new time to live; return whether it is present."""
        left = milliseconds(ttl, self._ttl)

        def change(_: OlricMap, held: Held | None) -> Change | None:
            return None if held is None else Change(held.value, left)

        return await self._change(key, change) is not None

    async def persist(self, key: Key) -> bool:
        """Let `key` never expire; return whether it is present."""
        return await self.touch(key, None)

    async def incr(self, key: Key, delta: int = 1, *, initial: int = 0, ttl: Ttl = DEFAULT) -> int:
        """Add `delta` to a whole number and return the sum; an absent key starts at `initial`.

        The time to live is set when the key is made and kept afterwards.

        Raises:
            WrongTypeError: the key holds something else, or the sum would leave 64 bits.
        """
        left = milliseconds(ttl, self._ttl)
        if isinstance(delta, bool) or not isinstance(delta, int):
            raise WrongTypeError(f"delta={delta!r}: incr needs whole numbers")

        def change(olric: OlricMap, held: Held | None) -> Change:
            start = initial if held is None else self._values.decode(held.value)
            tags = () if held is None else tags_of(held.value)
            total = self._values.encode(add_whole(start, delta), tags)
            return Change(total, left if held is None else olric.remaining_ms(held))

        made = await self._change(key, change)
        assert made is not None
        await self._outdate(key)
        self._sets += 1
        return cast(int, self._values.decode(made.value))  # as it was encoded

    # -- many keys -------------------------------------------------------------------------------

    async def get_many(self, keys: Iterable[K]) -> dict[K, V]:
        """Return the values of those `keys` that are present; 256 at a time."""
        asked = list(dict.fromkeys(check_keys(keys)))
        held = await self._map().many([_name(key) for key in asked])
        found = {
            key: cast(V, self._values.decode(each.value))
            for key, each in zip(asked, held, strict=True)
            if each is not None
        }
        self._hits += len(found)
        self._misses += len(asked) - len(found)
        return found

    async def set_many(
        self, items: Mapping[K, V], *, ttl: Ttl = DEFAULT, tags: Iterable[str] = ()
    ) -> None:
        """Store all `items`.

        Raises:
            IndeterminateError: some may be stored.
        """
        olric, bears, left = self._map(), check_tags(tags), milliseconds(ttl, self._ttl)
        encoded = [(_name(key), self._values.encode(value, bears)) for key, value in items.items()]
        for key in items:
            await self._outdate(key)
        for start in range(0, len(encoded), BATCH_MAX):
            calls = [olric.put(*each, left) for each in encoded[start : start + BATCH_MAX]]
            await olric.life.router.many(calls)
            self._sets += len(calls)

    async def delete_many(self, keys: Iterable[K]) -> int:
        """Remove `keys`, one after the other; return how many were present."""
        asked = dict.fromkeys(check_keys(keys))
        return sum([await self._remove(key) is not None for key in asked])

    # -- all of it -------------------------------------------------------------------------------

    async def _pages(self, prefix: str) -> AsyncIterator[list[tuple[Key, Held]]]:
        """Yield the keys that begin with `prefix`, each once, with what they hold."""
        olric = self._map()
        seen: set[Key] = set()
        async for names in olric.names():
            found = {key_of(name): name for name in names}
            wanted = {
                key: name
                for key, name in found.items()
                if key is not None and key not in seen and has_prefix(key, prefix)
            }
            held = await olric.many(list(wanted.values()))
            page = [(key, each) for key, each in zip(wanted, held, strict=True) if each is not None]
            seen.update(key for key, _ in page)
            yield page

    async def scan(self, prefix: str = "") -> AsyncIterator[Key]:
        """Yield the keys that begin with `prefix`, each once, in no order.

        A key that is present all the while is yielded, unless its partition moves meanwhile.
        """
        async for page in self._pages(prefix):
            for key, _ in page:
                yield key

    async def size(self) -> int:
        """Return the number of keys; reads all of them."""
        self._entries = sum([len(page) async for page in self._pages("")])
        return self._entries

    async def clear(self) -> int:
        """Remove every key that is present now; return how many."""
        olric = self._map()
        olric.life.flights.outdate_all()
        for name in [name async for names in olric.names() for name in names if is_lease(name)]:
            await outdate_lease(olric, name[2:])
        return sum(
            [await self.delete_many([key for key, _ in page]) async for page in self._pages("")]
        )

    async def invalidate_tags(self, *tags: str) -> int:
        """Remove every key that bears one of `tags`; return how many. Reads all of them."""
        gone, olric = check_tags(tags), self._map()
        olric.life.flights.invalidate(gone)
        for name in [name async for names in olric.names() for name in names if is_lease(name)]:
            await invalidate_lease(olric, name, gone)
        removed = 0
        async for page in self._pages(""):
            for key, held in page:
                if set(gone) & set(tags_of(held.value)):
                    removed += await self._remove(key) is not None
        return removed

    def stats(self) -> CacheStats:
        """Return what this object did; `entries` is what `size` counted last, the rest is unknown."""
        return self._counted(entries=self._entries)


def _name(key: Key) -> bytes:
    name = name_of(key)
    if len(name) > NAME_BYTES_MAX:
        raise CodecError(f"key of {len(name)} bytes; Olric takes at most {NAME_BYTES_MAX}")
    return name


def _seconds(olric: OlricMap, held: Held) -> float:
    left = olric.remaining_ms(held)
    return seconds_left(-1 if left is None else left)
