"""Maps: keys with values, each with the version of its latest change. Pure.

A version is the index of the entry that made the change, so that it rises for ever, also across a delete.
"""

from __future__ import annotations

from typing import Final

from sortedcontainers import SortedDict

from cache.cluster.consistent.state.commands import (
    BATCH_BYTES_MAX,
    BATCH_MAX,
    KEY_BYTES_MAX,
    VALUE_BYTES_MAX,
    Code,
    Entry,
    Failure,
    Kind,
    MapDelete,
    MapExchange,
    MapExchangeVersion,
    MapGet,
    MapPage,
    MapPutIfAbsent,
    MapSet,
    Outcome,
    Page,
)
from cache.cluster.consistent.state.room import Room

ABSENT: Final = Entry(None, 0)

MapCommand = MapSet | MapDelete | MapPutIfAbsent | MapExchange | MapExchangeVersion
State = list[tuple[bytes, list[tuple[bytes, bytes, int]]]]


class Maps:
    """All maps of a group."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._maps: dict[bytes, SortedDict[bytes, Entry]] = {}

    def apply(self, command: MapCommand, index: int) -> Outcome | Failure:
        """Apply a command; the answer's number is the version that the key has then, or had when removed."""
        if len(command.key) > KEY_BYTES_MAX:
            return Failure(Code.TOO_LARGE, KEY_BYTES_MAX)
        held = self._get(command.name, command.key)
        match command:
            case MapSet():
                return self._put(command.name, command.key, command.value, index)
            case MapDelete():
                self._remove(command.name, command.key)
                return Outcome(held.version > 0, held.version)
            case MapPutIfAbsent():
                replaces = held.version == 0
            case MapExchange(expected=expected):
                replaces = held.value == expected
            case MapExchangeVersion(expected=version):
                replaces = held.version == version
        if not replaces:
            return Outcome(False, held.version)
        if command.value is None:
            self._remove(command.name, command.key)
            return Outcome(True, 0)
        return self._put(command.name, command.key, command.value, index)

    def get(self, query: MapGet) -> Entry | None:
        """Return an entry; None while its version is the one that the caller knows."""
        entry = self._get(query.name, query.key)
        return None if entry.version == query.unless else entry

    def page(self, query: MapPage) -> Page:
        """Return some entries, in the order of their keys."""
        entries = self._maps.get(query.name)
        if entries is None:
            return Page([], False)
        found: list[tuple[bytes, bytes, int]] = []
        size = 0
        limit = min(max(1, query.limit), BATCH_MAX)
        for key in entries.irange(minimum=query.after, inclusive=(False, True)):
            if len(found) >= limit or size >= BATCH_BYTES_MAX:
                return Page(found, True)
            entry = entries[key]
            found.append((key, entry.value or b"", entry.version))
            size += len(entry.value or b"")
        return Page(found, False)

    def destroy(self, name: bytes) -> bool:
        """Remove all entries of a map; return whether there were any."""
        keys = list(self._maps.get(name, ()))
        for key in keys:
            self._remove(name, key)
        return bool(keys)

    def state(self) -> State:
        """Return everything, in one order."""
        return [
            (name, [(key, entry.value or b"", entry.version) for key, entry in entries.items()])
            for name, entries in sorted(self._maps.items())
        ]

    def restore(self, state: State) -> None:
        """Add what `state` returned to what is empty."""
        for name, entries in state:
            for key, value, version in entries:
                self._store(name, key, Entry(value, version))

    def _get(self, name: bytes, key: bytes) -> Entry:
        entries = self._maps.get(name)
        return ABSENT if entries is None else entries.get(key, ABSENT)

    def _put(self, name: bytes, key: bytes, value: bytes, index: int) -> Outcome | Failure:
        if len(value) > VALUE_BYTES_MAX:
            return Failure(Code.TOO_LARGE, VALUE_BYTES_MAX)
        if not self._room.has(_size(name, key, value) - self._size_of(name, key)):
            return Failure(Code.FULL, self._room.limit)
        self._store(name, key, Entry(value, index))
        return Outcome(True, index)

    def _size_of(self, name: bytes, key: bytes) -> int:
        held = self._get(name, key)
        return 0 if held.value is None else _size(name, key, held.value)

    def _store(self, name: bytes, key: bytes, entry: Entry) -> None:
        entries = self._maps.get(name)
        if entries is None:
            entries = self._maps[name] = SortedDict()
        if (held := entries.get(key)) is not None:
            self._room.give(_size(name, key, held.value or b""))
        entries[key] = entry
        self._room.take(_size(name, key, entry.value or b""))
        self._room.changed(Kind.MAP, name, key)

    def _remove(self, name: bytes, key: bytes) -> None:
        entries = self._maps.get(name)
        entry = None if entries is None else entries.pop(key, None)
        if entries is None or entry is None:
            return
        if not entries:
            del self._maps[name]
        self._room.give(_size(name, key, entry.value or b""))
        self._room.changed(Kind.MAP, name, key)


def _size(name: bytes, key: bytes, value: bytes) -> int:
    return len(name) + len(key) + len(value)
