"""The seam to what persists: what a replicated log needs, and keys with values for everything else.

A store holds *groups*, each with a hard state (term and vote, always together), a log of entries with
consecutive indexes, and at most one finished snapshot; and *namespaces* of keys with values.
Everything is plain bytes and numbers: a store knows nothing of what they mean.

There is one way to change it: `commit(*writes)`. All of them are stored or none, also across a crash,
and they are durable before the future is done. Commits become durable in the order of the calls. What
a store cannot promise (the device failed, the disk is full) ends it: the commits under way and all
later calls raise the same error until the store is opened again.

Implementations: `memory`, `sqlite`, and for tests `cache.testing.sim.disk`. They share `records`,
which says how all of this becomes checked records by position; an implementation stores records.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, Protocol

FORMAT: Final = 1
"""Version of the layout of records; a store of a later one is refused."""

PENDING_BYTES_MAX: Final = 64 * 1024 * 1024
"""Bytes of commits that are not durable yet, unless a store is told otherwise."""

READ_BYTES_MAX: Final = 8 * 1024 * 1024
"""Bytes of entries that one call returns, unless told otherwise."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose data it is."""

    cluster: str
    node: str


@dataclass(frozen=True, slots=True)
class HardState:
    """What a replica may not forget before it answers."""

    term: int = 0
    vote: str = ""
    """For whom it voted in that term; empty for nobody."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a log."""

    index: int
    """From 1."""
    term: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A finished snapshot: the state after the entry of that index and term."""

    index: int
    term: int
    chunk_count: int
    data: bytes = b""
    """Whatever belongs to it and is small, such as the voters then."""


@dataclass(frozen=True, slots=True)
class GroupState:
    """All about a group but its entries and chunks."""

    hard_state: HardState = HardState()
    base_index: int = 0
    """The log begins after this entry: 0, or what it was last compacted to."""
    base_term: int = 0
    last_index: int = 0
    """Index of the last entry; `base_index` when the log is empty."""
    last_term: int = 0
    snapshot: Snapshot | None = None


@dataclass(frozen=True, slots=True)
class SetHardState:
    """Store term and vote."""

    group: str
    state: HardState


@dataclass(frozen=True, slots=True)
class Append:
    """Add entries; the first follows the last one that is there."""

    group: str
    entries: Sequence[Entry]


@dataclass(frozen=True, slots=True)
class Truncate:
    """Remove the entries from `first_index` on; `last_term` is the term of the entry before it."""

    group: str
    first_index: int
    last_term: int


@dataclass(frozen=True, slots=True)
class Compact:
    """Remove the entries up to `index`, of term `term`. Beyond the end of the log: it begins anew there."""

    group: str
    index: int
    term: int


@dataclass(frozen=True, slots=True)
class SnapshotChunk:
    """Store a part of a snapshot that is being made or received; numbers go up from 0, and 0 begins anew."""

    group: str
    index: int
    term: int
    number: int
    data: bytes


@dataclass(frozen=True, slots=True)
class FinishSnapshot:
    """Make a snapshot, all chunks of which were stored, the group's only one. The log stays as it is."""

    group: str
    snapshot: Snapshot


@dataclass(frozen=True, slots=True)
class Forget:
    """Remove all of a group, as a replica that is to be fetched anew needs it."""

    group: str


@dataclass(frozen=True, slots=True)
class Put:
    """Store a value."""

    namespace: str
    key: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove a value; nothing happens if there is none."""

    namespace: str
    key: bytes


Write = (
    SetHardState
    | Append
    | Truncate
    | Compact
    | SnapshotChunk
    | FinishSnapshot
    | Forget
    | Put
    | Delete
)


class StorageState(Enum):
    """How a store is."""

    NEW = "new"
    OPEN = "open"
    STOPPED = "stopped"
    """It failed; `failure` says how. It has to be opened again."""
    CLOSED = "closed"


class Storage(Protocol):
    """A store. It lives on the event loop that opened it.

    Raises, besides what is said at each method:
        ClosedError: it is not open.
        StorageError: it has stopped; the error with which it did.
    """

    @property
    def state(self) -> StorageState:
        """Whether it can be used."""
        ...

    @property
    def failure(self) -> Exception | None:
        """Why it stopped."""
        ...

    async def open(self) -> None:
        """Make it usable; after a crash, with all that was acknowledged.

        Raises:
            StorageMismatchError: it is another cluster's, another node's, or of a newer format.
            StorageInUseError: somebody else has it open.
            CorruptStorageError: it cannot be read at all.
        """
        ...

    async def close(self) -> None:
        """Finish the commits under way and let go of it; idempotent."""
        ...

    def groups(self) -> list[str]:
        """Return the names of all groups, sorted, those included whose state is corrupt."""
        ...

    def group(self, name: str) -> GroupState:
        """Return the state of a group after all commits so far; one that is new has the initial state.

        Raises:
            CorruptStorageError: its record is damaged. `Forget` makes the group usable again.
        """
        ...

    def commit(self, *writes: Write) -> asyncio.Future[None]:
        """Store all of `writes` or none; the future is done when they are durable.

        Cancelling the future does not take them back.

        Raises:
            ValueError: a write does not fit what is there (a gap in the log, a missing chunk); nothing
            is stored. CorruptStorageError: a group it is about is damaged; nothing is stored.
            OverloadedError: too much is under way; nothing is stored.
            StorageFullError: from the future; there is no room.
            StorageFailedError: from the future; the device failed.
        """
        ...

    async def entries(
        self, group: str, first: int, last: int, *, size_bytes_max: int = READ_BYTES_MAX
    ) -> list[Entry]:
        """Return the entries `first` to `last`, both included: fewer if they are too large, but at least one.

        Raises:
            ValueError: the log does not have them.
            CorruptStorageError: one is damaged or missing.
        """
        ...

    async def chunk(self, group: str, number: int) -> bytes:
        """Return a part of the finished snapshot.

        Raises:
            ValueError: there is no such part.
            CorruptStorageError: it is damaged or missing.
        """
        ...

    async def get(self, namespace: str, key: bytes) -> bytes | None:
        """Return a value, or None.

        Raises:
            CorruptStorageError: it is damaged.
        """
        ...

    async def scan(
        self, namespace: str, *, prefix: bytes = b"", after: bytes | None = None, limit: int = 1000
    ) -> list[tuple[bytes, bytes]]:
        """Return keys with their values, in order: those with the prefix, beyond `after`, at most `limit`.

        Raises:
            CorruptStorageError: one is damaged.
        """
        ...

    async def verify(self) -> list[str]:
        """Read everything; return the names of the records that are damaged or missing."""
        ...
