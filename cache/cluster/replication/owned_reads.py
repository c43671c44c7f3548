"""Reads of one key on a member: what it remembers first, then its copy, then whoever owns the key.

The most frequent calls there are; the first steps of each are all that a read of a remembered key runs. This
module can be compiled (`cache.accelerator`), and is what runs when it was not. Both do the same because

* what a caller gives is `object` to the code: compiled code raises a `TypeError` for what is not of the type
  it is annotated with, before anything here could say what is wrong with a key;
* the compiler sees this file alone, so that nothing of another one is compiled in.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, cast, overload

from cache.cluster.replication.entries import Entry
from cache.cluster.replication.recent import SHARED
from cache.errors import CacheError

if TYPE_CHECKING:
    from cache.keys import Key

V = TypeVar("V")
D = TypeVar("D")


class Validity:
    """Until when what is served here may be read: a process that stood still may have been replaced."""

    __slots__ = ("until",)

    def __init__(self, until: float) -> None:
        self.until = until


class Counts:
    """Operations of one member on one map; see `CacheStats`."""

    __slots__ = ("deletes", "hits", "misses", "sets")

    def __init__(self) -> None:
        self.hits = 0
        self.misses = 0
        self.sets = 0
        self.deletes = 0


class Access(Protocol):
    """What reads of one map are done with."""

    recent: dict[str, Any]  # Any: values, or pairs of one and the instant at which it ends.
    recent_bytes_max: int
    validity: Validity
    now: Callable[[], float]
    decode: Callable[[bytes], object]

    def begin_read(
        self, key: Key, max_staleness: float | None, *, is_attempt: bool
    ) -> Entry | asyncio.Future[Any] | Awaitable[bytes | None] | None:
        """Return the live entry of a key that is served here, None if absent; else what to await.

        A future is a first attempt: what it resolves with is for `value_of`, unless it is bytes or None, and
        if it fails, `read_again`.
        """
        # Any: what a member answered
        ...

    def value_of(self, answer: Any) -> bytes | None:
        """Return the encoded value that a first attempt resolved with, None if absent."""
        # Any: what a member answered
        ...

    async def read_again(self, key: Key, began_at: float, error: CacheError) -> bytes | None:
        """Return what a read found whose first attempt failed with `error`, or raise it."""
        ...

    def read_here(self, key: Key) -> Entry | bytes | None:
        """Return the live entry of a key that is served here, the bytes of a near copy, or None."""
        ...

    def remember(self, key: str, entry: Entry, value: object) -> None:
        """Keep the value of an entry that was read in this turn of the loop."""
        ...


class OwnedReads(Generic[V]):
    """`get` of a map, awaited and not."""

    def __init__(self, access: Access, counts: Counts) -> None:
        self._counts = counts
        self._recent: dict[str, Any] = access.recent  # Any: see `Access`.
        self._recent_bytes_max = access.recent_bytes_max
        self._validity = access.validity
        self._now = access.now
        self._reads_from: Access = access

    @overload
    async def get(self, key: Key, *, max_staleness: float | None = None) -> V | None: ...
    @overload
    async def get(self, key: Key, default: D, *, max_staleness: float | None = None) -> V | D: ...
    async def get(
        self, key: object, default: object = None, max_staleness: object = None
    ) -> object:
        """Return the value of `key`, or `default`. A stored None is a value: see `exists`.

        `max_staleness` is by how many seconds this read may be behind the owner: less than the bound of
        the near cache, 0 to ask the owner. It also keeps backups from answering for a silent owner.
        """
        if type(key) is str and (value := self._recent.get(key)) is not None:
            now = self._now()
            if now <= self._validity.until:
                if type(value) is not tuple:
                    self._counts.hits += 1
                    return value
                if now < value[1]:
                    self._counts.hits += 1
                    return value[0]
        source = self._reads_from
        found = source.begin_read(key, max_staleness, is_attempt=True)  # type: ignore[arg-type]
        if isinstance(found, asyncio.Future):
            began_at = self._now()
            try:
                raw = await found
                if type(raw) is not bytes:
                    raw = source.value_of(raw)
            except CacheError as error:
                raw = await source.read_again(key, began_at, error)  # type: ignore[arg-type]
        elif isinstance(found, Entry):
            self._counts.hits += 1
            return self._value_of(key, found)
        else:
            raw = None if found is None else await found
        if raw is None:
            self._counts.misses += 1
            return default
        self._counts.hits += 1
        return source.decode(raw)

    @overload
    def read_here(self, key: Key, missing: None) -> V | None: ...
    @overload
    def read_here(self, key: Key, missing: D) -> V | D: ...
    def read_here(self, key: object, missing: object) -> object:
        """Return the value of `key` if this member has it, as owner or near, else `missing`; no await."""
        if type(key) is str and (value := self._recent.get(key)) is not None:
            now = self._now()
            if now <= self._validity.until:
                if type(value) is not tuple:
                    self._counts.hits += 1
                    return value
                if now < value[1]:
                    self._counts.hits += 1
                    return value[0]
        found = self._reads_from.read_here(cast("Key", key))
        if found is None:
            return missing
        self._counts.hits += 1
        return self._value_of(key, found)

    def _value_of(self, key: object, found: Entry | bytes) -> object:
        """Return the value of what was found here: an entry, which is remembered, or a near copy."""
        raw = found.value if isinstance(found, Entry) else found
        assert raw is not None, "an entry that was found lives"
        value: object = self._reads_from.decode(raw)
        if len(raw) <= self._recent_bytes_max and type(value) in SHARED:
            if type(key) is str and isinstance(found, Entry):
                self._reads_from.remember(key, found, value)
        return value
