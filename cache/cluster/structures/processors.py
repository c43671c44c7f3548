"""Entry processors: functions that run on a key's owner, next to the data. Pure.

A function is known by its name on every member; only the name and its arguments travel. It gets the entry,
may change it, and returns a value. It runs in one turn of the owner's event loop, so nothing comes between
its reading and its writing; if it raises, nothing was changed.
"""

from __future__ import annotations

import enum
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, Final

from cache.cluster.replication.entries import Entry
from cache.cluster.structures.operations import Outcome, Stamper
from cache.cluster.structures.raised import pack_error
from cache.codec import (
    check_value,
    decode_key,
    decode_value,
    encode_value,
    untagged,
    with_tags_of,
)
from cache.durations import Default, parse_ttl
from cache.errors import CodecError, ConfigError, UnknownProcessorError
from cache.keys import Key, Ttl

Processor = Callable[..., Any]  # Any: MessagePack values in and out
"""Called with a `MutableEntry` and the arguments of `execute`."""

RESERVED: Final = "cache."
"""What the names of the library's own functions begin with."""
NAME_MAX: Final = 128
"""Characters of a name."""


class Kept(enum.Enum):
    """Type of `KEPT`."""

    KEPT = "kept"


KEPT: Final = Kept.KEPT
"""Stands for the time to live that the key has; a key that is made gets the map's own."""


class MutableEntry:
    """One key as a function run by `DistributedMap.execute` sees it, and changes it.

    Changes show at once in `value`, `exists` and `ttl`, and take effect when the function returns.
    """

    __slots__ = ("_changed", "_default_ttl", "_held", "_key", "_now", "_outcome", "_stamper")

    def __init__(
        self, key: bytes, held: Entry | None, stamper: Stamper, *, default_ttl: float
    ) -> None:
        alive = held is not None and held.value is not None and stamper.now < held.expires_at
        self._key = key
        self._held = self._outcome = held if alive else None
        self._now = stamper.now
        self._stamper = stamper
        self._default_ttl = default_ttl
        self._changed = False

    @property
    def key(self) -> Key:
        """The key."""
        return decode_key(self._key)

    @property
    def exists(self) -> bool:
        """Whether the key is present (also when its value is None)."""
        return self._outcome is not None

    @property
    def raw(self) -> bytes | None:
        """The encoded value without its tags, None if the key is absent."""
        if self._outcome is None:
            return None
        assert self._outcome.value is not None, "a live entry has a value"
        return untagged(self._outcome.value)

    @property
    def value(self) -> Any:  # Any: a MessagePack value
        """The value, None if the key is absent: see `exists`. To change what is stored, call `set`."""
        raw = self.raw
        return None if raw is None else decode_value(raw)

    @property
    def ttl(self) -> float | None:
        """Seconds left, `math.inf` without end, None if the key is absent."""
        return None if self._outcome is None else self._outcome.expires_at - self._now

    @property
    def version(self) -> tuple[int, int] | None:
        """Version that was stored when the function began, None if the key was absent."""
        return None if self._held is None else self._held.version

    def set(self, value: Any, ttl: Ttl | Kept = KEPT) -> None:  # Any: a MessagePack value
        """Store a value; tags stay.

        Args:
            value: what to store.
            ttl: its time to live; without it the key keeps the one it has.

        Raises:
            CodecError: the value cannot be stored.
        """
        self.set_raw(encode_value(value), self._ends_at(ttl), keep_tags=True)

    def set_raw(self, raw: bytes, expires_at: float, *, keep_tags: bool) -> None:
        """Store an encoded value that ends at an instant."""
        if keep_tags and self._outcome is not None and self._outcome.value is not None:
            raw = with_tags_of(self._outcome.value, raw)
        self._outcome = self._stamper.live(raw, expires_at)
        self._changed = True

    def touch(self, ttl: Ttl) -> None:
        """Give the key a new time to live; an absent one stays so."""
        if self._outcome is not None:
            assert self._outcome.value is not None, "a live entry has a value"
            self.set_raw(self._outcome.value, self._ends_at(ttl), keep_tags=False)

    def delete(self) -> None:
        """Remove the key."""
        if self._outcome is not None:
            self._outcome = None
            self._changed = self._changed or self._held is not None

    @property
    def default_ends_at(self) -> float:
        """Instant at which a value with the map's own time to live ends."""
        return self._stamper.expires_at(self._default_ttl)

    @property
    def kept_ends_at(self) -> float:
        """Instant at which the key ends as it is; one that is absent gets the map's own time to live."""
        return self.default_ends_at if self._outcome is None else self._outcome.expires_at

    def _ends_at(self, ttl: Ttl | Kept) -> float:
        if isinstance(ttl, Kept):
            return self.kept_ends_at
        if isinstance(ttl, Default):
            return self.default_ends_at
        seconds = parse_ttl(ttl)
        return math.inf if seconds is None else self._now + seconds

    def take(self) -> Entry | None:
        """Return the entry to store, None if nothing is to change."""
        if not self._changed:
            return None
        if self._outcome is not None:
            return self._outcome
        return None if self._held is None else self._stamper.tombstone()


class ExecutionError(Exception):
    """A function raised; the exception as data."""

    def __init__(self, packed: bytes) -> None:
        super().__init__("a processor raised")
        self.packed = packed


class Processors:
    """The functions a member knows."""

    def __init__(self, builtin: Mapping[str, Processor], *, value_limit: int) -> None:
        self._functions: dict[str, Processor] = dict(builtin)
        self._value_limit = value_limit

    def register(self, name: str, function: Processor) -> None:
        """Let `function` be run by this name.

        Raises:
            ConfigError: a bad or reserved name, one that another function has, or a function that cannot be
                called or is asynchronous.
        """
        if not isinstance(name, str) or not 1 <= len(name) <= NAME_MAX:
            raise ConfigError(f"processor name {name!r}: must be 1 to {NAME_MAX} characters")
        if name.startswith(RESERVED):
            raise ConfigError(f"processor name {name!r}: names with {RESERVED!r} are the library's")
        if not callable(function):
            raise ConfigError(f"processor {name!r}: {function!r} cannot be called")
        if inspect.iscoroutinefunction(function):
            raise ConfigError(
                f"processor {name!r}: an async function cannot be atomic; read what it needs first "
                "and pass it as an argument"
            )
        known = self._functions.setdefault(name, function)
        if known is not function:
            raise ConfigError(f"processor {name!r}: another function has this name")

    def run(self, name: str, entry: MutableEntry, arguments: bytes) -> Outcome:
        """Run a function on an entry; return the entry to store (None for no change) and the encoded result.

        Raises:
            ExecutionError: it is not known, it raised, or what it made cannot be stored.
        """
        try:
            function = self._functions.get(name)
            if function is None:
                raise UnknownProcessorError(
                    f"no processor {name!r} here; call node.register_processor on every member"
                )
            given = decode_value(arguments)
            if not isinstance(given, list):
                raise CodecError("arguments of a processor must be a list")
            result = encode_value(function(entry, *given))
            stored = entry.take()
            check_value(result, self._value_limit)
            if stored is not None and stored.value is not None:
                check_value(stored.value, self._value_limit)
        except Exception as error:
            raise ExecutionError(pack_error(error)) from error
        return stored, result
