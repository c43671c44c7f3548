"""What all stores share: the `Storage` of `base` over a store of records.

An implementation says how it starts and ends, how changes of records become durable (`_submit`) and
how records are read (`_read`). States of groups are kept in memory; `commit` changes them at once, so
that the next one is planned against what this one leaves.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Final, Protocol, TypeVar

from cache.errors import ClosedError, CorruptStorageError, OverloadedError, WrongLoopError
from cache.storage import records
from cache.storage.base import (
    PENDING_BYTES_MAX,
    READ_BYTES_MAX,
    Entry,
    GroupState,
    Identity,
    StorageState,
    Write,
)
from cache.storage.records import Change, Record

T = TypeVar("T")

PAGE: Final = 256
"""Records that are read at a time."""

Found = list[tuple[bytes, bytes]]


class Reader(Protocol):
    """How records are found."""

    def find(self, position: bytes) -> bytes | None:
        """Return what is stored there."""
        ...

    def find_from(self, first: bytes, end: bytes, limit: int) -> Found:
        """Return positions from `first` up to, not including, `end`, in order, and what is stored there."""
        ...


class RecordedStorage(ABC):
    """A `Storage` made of records."""

    def __init__(self, identity: Identity, *, pending_bytes_max: int = PENDING_BYTES_MAX) -> None:
        self.identity = identity
        self._pending_bytes_max = pending_bytes_max
        self._pending_bytes = 0
        self._state = StorageState.NEW
        self._failure: Exception | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._groups: dict[str, GroupState | CorruptStorageError] = {}
        self._incoming: dict[str, tuple[int, int, int] | None] = {}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.identity.node}: {self._state.value}>"

    # -- what an implementation does -------------------------------------------------------------

    @abstractmethod
    async def _start(self) -> None:
        """Make records readable; make a new store if there is none; refuse another's."""

    @abstractmethod
    async def _end(self) -> None:
        """Make durable what was submitted and let go; idempotent."""

    @abstractmethod
    def _submit(self, changes: Sequence[Change]) -> asyncio.Future[None]:
        """Store all changes or none, in the order of the calls; the future is done when they are durable."""

    @abstractmethod
    def _read(self, job: Callable[[Reader], T]) -> Awaitable[T]:
        """Run `job` where it sees the changes submitted before, and none submitted later."""

    # -- life ------------------------------------------------------------------------------------

    @property
    def state(self) -> StorageState:
        """Whether it can be used."""
        return self._state

    @property
    def failure(self) -> Exception | None:
        """Why it stopped."""
        return self._failure

    async def open(self) -> None:
        """See `Storage.open`."""
        if self._state is StorageState.OPEN:
            return
        if self._state is StorageState.STOPPED:
            await self._end()
        self._loop = asyncio.get_running_loop()
        self._failure, self._pending_bytes = None, 0
        self._groups, self._incoming = {}, {}
        try:
            await self._start()
            found = await self._read(lambda reader: list(_pages(reader, *records.GROUPS)))
        except BaseException:
            await self._end()
            raise
        for position, sealed in found:
            name = records.group_name(position)
            try:
                self._groups[name] = records.unseal_group(position, sealed)
            except CorruptStorageError as error:
                self._groups[name] = error
        self._state = StorageState.OPEN

    async def close(self) -> None:
        """See `Storage.close`."""
        if self._state in (StorageState.OPEN, StorageState.STOPPED):
            self._state = StorageState.CLOSED
            await self._end()

    def _stop(self, error: Exception) -> None:
        """Nothing can be promised any more."""
        if self._state is StorageState.OPEN:
            self._state = StorageState.STOPPED
            self._failure = error

    def _check(self) -> None:
        if self._state is StorageState.STOPPED and self._failure is not None:
            raise type(self._failure)(f"{self!r} has stopped: {self._failure}")
        if self._state is not StorageState.OPEN:
            raise ClosedError(f"{self!r} is not open; `await storage.open()` first")
        if asyncio.get_running_loop() is not self._loop:
            raise WrongLoopError(f"{self!r} lives on another event loop")

    # -- groups and writes -----------------------------------------------------------------------

    def groups(self) -> list[str]:
        """See `Storage.groups`."""
        self._check()
        return sorted(self._groups)

    def group(self, name: str) -> GroupState:
        """See `Storage.group`."""
        self._check()
        state = self._groups.get(name, GroupState())
        if isinstance(state, CorruptStorageError):
            raise CorruptStorageError(f"{state}; Forget({name!r}) makes room", state.record)
        return state

    def commit(self, *writes: Write) -> asyncio.Future[None]:
        """See `Storage.commit`."""
        self._check()
        made = records.plan(writes, self.group, self._incoming.get)
        size_bytes = sum(len(c.sealed) for c in made.changes if isinstance(c, Record))
        if self._pending_bytes and self._pending_bytes + size_bytes > self._pending_bytes_max:
            raise OverloadedError(
                f"{self!r}: {self._pending_bytes} bytes are not durable yet, {size_bytes} more pass "
                f"pending_bytes_max={self._pending_bytes_max}; wait for earlier commits"
            )
        self._incoming |= made.incoming
        for name, state in made.groups.items():
            if state is None:
                self._groups.pop(name, None)
            else:
                self._groups[name] = state
        self._pending_bytes += size_bytes
        future = self._submit(made.changes)
        future.add_done_callback(lambda _: self._settled(size_bytes))
        return future

    def _settled(self, size_bytes: int) -> None:
        self._pending_bytes -= size_bytes

    # -- reads -----------------------------------------------------------------------------------

    async def entries(
        self, group: str, first: int, last: int, *, size_bytes_max: int = READ_BYTES_MAX
    ) -> list[Entry]:
        """See `Storage.entries`."""
        state = self.group(group)
        if not state.base_index < first <= last <= state.last_index:
            raise ValueError(
                f"group {group!r}: entries {first} to {last} are not in the log, which has "
                f"{state.base_index + 1} to {state.last_index}"
            )

        def job(reader: Reader) -> list[Entry]:
            return _entries(reader, group, first, last, size_bytes_max)

        return await self._read(job)

    async def chunk(self, group: str, number: int) -> bytes:
        """See `Storage.chunk`."""
        snapshot = self.group(group).snapshot
        if snapshot is None or not 0 <= number < snapshot.chunk_count:
            raise ValueError(f"group {group!r}: no chunk {number}; the snapshot is {snapshot}")
        position = records.chunk_position(group, snapshot.index, snapshot.term, number)
        return await self._read(lambda reader: records.unseal(position, reader.find(position)))

    async def get(self, namespace: str, key: bytes) -> bytes | None:
        """See `Storage.get`."""
        self._check()
        position = records.key_position(namespace, key)
        sealed = await self._read(lambda reader: reader.find(position))
        return None if sealed is None else records.unseal(position, sealed)

    async def scan(
        self, namespace: str, *, prefix: bytes = b"", after: bytes | None = None, limit: int = 1000
    ) -> list[tuple[bytes, bytes]]:
        """See `Storage.scan`."""
        self._check()
        first, end = records.key_range(namespace, prefix, after)
        skipped = len(records.key_position(namespace, b""))
        found = await self._read(lambda reader: reader.find_from(first, end, limit))
        return [
            (position[skipped:], records.unseal(position, sealed)) for position, sealed in found
        ]

    async def verify(self) -> list[str]:
        """See `Storage.verify`."""
        self._check()
        return await self._read(_verify)


def _pages(reader: Reader, first: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield all records of a range, reading a page at a time."""
    while page := reader.find_from(first, end, PAGE):
        yield from page
        first = page[-1][0] + b"\0"


def _entries(reader: Reader, group: str, first: int, last: int, size_bytes_max: int) -> list[Entry]:
    end = records.entry_position(group, last + 1)
    entries: list[Entry] = []
    size_bytes = 0
    for position, sealed in _pages(reader, records.entry_position(group, first), end):
        index = first + len(entries)
        if position != records.entry_position(group, index):
            break  # It is missing: said below.
        entry = records.unseal_entry(group, index, sealed)
        size_bytes += len(entry.data)
        if entries and size_bytes > size_bytes_max:
            return entries
        entries.append(entry)
    if len(entries) != last - first + 1:
        records.unseal_entry(group, first + len(entries), None)
    return entries


def _verify(reader: Reader) -> list[str]:
    problems: dict[str, None] = {}
    present: dict[bytes, None] = {}
    for position, sealed in _pages(reader, b"", b"\xff"):
        present[position] = None
        try:
            records.unseal(position, sealed)
        except CorruptStorageError as error:
            problems[error.record] = None
    for position in [position for position in present if position[:1] == records.GROUPS[0]]:
        try:
            state = records.unseal_group(position, reader.find(position) or b"")
        except CorruptStorageError:
            continue  # Named above; what should be there is unknown.
        for expected in records.expected_positions(records.group_name(position), state):
            if expected not in present:
                problems[records.describe(expected)] = None
    return list(problems)
