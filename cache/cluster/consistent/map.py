"""`ConsistentMap` and `ConsistentRegister`: values that all members agree on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final, Generic, TypeVar, cast

from cache.cluster.consistent.access import Access
from cache.cluster.consistent.state.commands import (
    BATCH_MAX,
    Destroy,
    Entry,
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
from cache.codec import decode_key, encode_key
from cache.keys import Key

V = TypeVar("V")

REGISTERS: Final = b"\0registers"
"""The hidden map that a group's registers are entries of."""


@dataclass(frozen=True, slots=True)
class Versioned(Generic[V]):
    """A value with its version."""

    value: V | None
    """None also for an absent one."""
    version: int
    """Rises with each change, across deletes, too; 0: there is no value."""


class _Cell(Generic[V]):
    """One key of one map."""

    def __init__(self, access: Access, name: bytes, key: bytes) -> None:
        self._access = access
        self._name = name
        self._key = key

    async def get(self, *, lease: bool) -> Versioned[V]:
        entry = await self._access.ask(MapGet(self._name, self._key), Entry, lease=lease)
        return self._versioned(entry)

    async def set(self, value: V) -> int:
        command = MapSet(self._name, self._key, self._access.encode(value))
        return (await self._access.tell(command, Outcome)).number

    async def delete(self) -> bool:
        return (await self._access.tell(MapDelete(self._name, self._key), Outcome)).done

    async def put_if_absent(self, value: V) -> bool:
        command = MapPutIfAbsent(self._name, self._key, self._access.encode(value))
        return (await self._access.tell(command, Outcome)).done

    async def compare_and_set(self, expected: V | None, value: V | None) -> bool:
        command = MapExchange(
            self._name, self._key, self._or_absent(expected), self._or_absent(value)
        )
        return (await self._access.tell(command, Outcome)).done

    async def set_if_version(self, version: int, value: V | None) -> int | None:
        new = self._or_absent(value)
        command = MapExchangeVersion(self._name, self._key, version, new)
        outcome = await self._access.tell(command, Outcome)
        return outcome.number if outcome.done else None

    async def watch(self, known: int) -> AsyncIterator[Versioned[V]]:
        while True:
            entry = await self._access.next(MapGet(self._name, self._key, known), Entry)
            known = entry.version
            yield self._versioned(entry)

    def _or_absent(self, value: V | None) -> bytes | None:
        return None if value is None else self._access.encode(value)

    def _versioned(self, entry: Entry) -> Versioned[V]:
        if entry.value is None:
            return Versioned(None, 0)
        return Versioned(cast(V, self._access.decode(entry.value)), entry.version)


class ConsistentRegister(Generic[V]):
    """One value of the whole cluster; get one from `Consistent.register`.

    Guarantees:
        Consistency: linearizable.
        An ack means: a Raft majority has the write, fsynced with `data_dir`, else in memory.
        Under partition: the side with a majority of the voters serves; the other raises `NoQuorumError` or
            `OperationTimeoutError` within the deadline.
        Under pause: a paused member answers nothing; what it was asked is asked of others.
        Clocks: none. Reads with `lease=True` are right while no clock is off by more than
            `RaftConfig.clock_drift_max`.
        Loss is reported by: errors only. `IndeterminateError`: the write may be applied, once.
        Tested by: tests/unit/cluster/consistent (test_structures, test_map, test_linearizability).

    Values as in `DistributedMap`, 256 KiB at most. None stands for "no value": it cannot be stored.
    """

    def __init__(self, access: Access) -> None:
        self._access = access
        self._cell: _Cell[V] = _Cell(access, REGISTERS, access.name)

    def __repr__(self) -> str:
        return f"<ConsistentRegister {self._access.label}>"

    async def get(self, *, lease: bool = False) -> V | None:
        """Return the value, None if there is none; `lease` reads by the leader's lease."""
        return (await self._cell.get(lease=lease)).value

    async def get_entry(self, *, lease: bool = False) -> Versioned[V]:
        """Return the value with its version."""
        return await self._cell.get(lease=lease)

    async def set(self, value: V) -> int:
        """Store a value; return its version."""
        return await self._cell.set(value)

    async def delete(self) -> bool:
        """Remove the value; return whether there was one."""
        return await self._cell.delete()

    async def put_if_absent(self, value: V) -> bool:
        """Store a value if there is none; return whether it was stored."""
        return await self._cell.put_if_absent(value)

    async def compare_and_set(self, expected: V | None, value: V | None) -> bool:
        """Store `value` if the present one is `expected`; None is "no value" in both. Return whether it did.

        Values are compared as they are stored, types included: 1 is neither 1.0 nor True, and dictionaries
        are equal in the same order only.
        """
        return await self._cell.compare_and_set(expected, value)

    async def set_if_version(self, version: int, value: V | None) -> int | None:
        """Store `value` if the version is still this one (0: no value); return the new version, or None."""
        return await self._cell.set_if_version(version, value)

    def watch(self, version: int = -1) -> AsyncIterator[Versioned[V]]:
        """Yield the value when its version is not `version`, and then after each change.

        States that last are seen, in order; those that were overwritten meanwhile may be skipped.

        Raises:
            RejectedError: the group cannot be asked; watch again from the version that was seen last.
        """
        return self._cell.watch(version)


class ConsistentMap(Generic[V]):
    """A map that all members agree on; get one from `Consistent.map`. For configuration, not for bulk.

    Guarantees:
        Consistency: linearizable, key by key and across keys. `entries` reads pages, each of them at one
            instant, not all at the same.
        An ack means: a Raft majority has the write, fsynced with `data_dir`, else in memory.
        Under partition, under pause, clocks, loss: as `ConsistentRegister`.
        Tested by: tests/unit/cluster/consistent (test_structures, test_map, test_linearizability).

    Keys as in `DistributedMap`, 1 KiB at most; values 256 KiB at most, None cannot be stored. The whole state
    of a group, 128 MiB at most, is in the memory of each of its replicas.
    """

    def __init__(self, access: Access) -> None:
        self._access = access

    def __repr__(self) -> str:
        return f"<ConsistentMap {self._access.label}>"

    def _cell(self, key: Key) -> _Cell[V]:
        return _Cell(self._access, self._access.name, encode_key(key))

    async def get(self, key: Key, *, lease: bool = False) -> V | None:
        """Return the value of a key, None if it is absent; `lease` reads by the leader's lease."""
        return (await self._cell(key).get(lease=lease)).value

    async def get_entry(self, key: Key, *, lease: bool = False) -> Versioned[V]:
        """Return the value of a key with its version."""
        return await self._cell(key).get(lease=lease)

    async def set(self, key: Key, value: V) -> int:
        """Store a value; return its version."""
        return await self._cell(key).set(value)

    async def delete(self, key: Key) -> bool:
        """Remove a key; return whether it was there."""
        return await self._cell(key).delete()

    async def put_if_absent(self, key: Key, value: V) -> bool:
        """Store a value if the key is absent; return whether it was stored."""
        return await self._cell(key).put_if_absent(value)

    async def compare_and_set(self, key: Key, expected: V | None, value: V | None) -> bool:
        """Store `value` if the key holds `expected`; see `ConsistentRegister.compare_and_set`."""
        return await self._cell(key).compare_and_set(expected, value)

    async def set_if_version(self, key: Key, version: int, value: V | None) -> int | None:
        """Store `value` if the version is still this one (0: absent); return the new version, or None."""
        return await self._cell(key).set_if_version(version, value)

    def watch(self, key: Key, version: int = -1) -> AsyncIterator[Versioned[V]]:
        """Yield the value of a key, and then each change; see `ConsistentRegister.watch`."""
        return self._cell(key).watch(version)

    async def entries(self) -> AsyncIterator[tuple[Key, V]]:
        """Yield all entries, page by page, in the order of their encoded keys."""
        after, more = b"", True
        while more:
            query = MapPage(self._access.name, after, BATCH_MAX)
            page = await self._access.ask(query, Page)
            for key, value, _ in page.entries:
                yield decode_key(key), cast(V, self._access.decode(value))
                after = key
            more = page.more

    async def destroy(self) -> bool:
        """Remove all entries at once; return whether there were any."""
        return (await self._access.tell(Destroy(self._access.name, Kind.MAP), Outcome)).done
