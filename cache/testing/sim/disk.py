"""A disk on virtual time, and a `Storage` on it: what is not synced may be lost, and everything can fail.

A `SimDisk` belongs to a host and outlives its processes; a `SimStorage` is one process's open store.
What is written is a journal of commits, each with a checksum: first in the system's cache, then, when
a sync has taken its time, on the platter. A crash of the process loses what was not handed to the
system; a loss of power keeps some of the unsynced bytes, from the start up to anywhere, so that the
last commit may be torn in the middle.

```python
disk = SimDisk(world.kernel, "host1")
disk.faults = DiskFaults(lie=0.1)          # one sync in ten only says that it happened
storage = SimStorage(disk, Identity("c", "n"))
...
process.kill()
disk.crash(power_loss=True)                # then open another SimStorage on it
```
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final, TypeVar

import msgpack
from xxhash import xxh3_64_digest

from cache.errors import StorageFailedError, StorageFullError, StorageInUseError
from cache.storage import records
from cache.storage.base import PENDING_BYTES_MAX, Identity
from cache.storage.memory import SortedRecords
from cache.storage.recorded import Found, Reader, RecordedStorage
from cache.storage.records import Change, Cut, Record
from cache.testing.sim.kernel import Kernel

T = TypeVar("T")

HEADER_BYTES: Final = 12
"""Length (4) and checksum (8) before each commit in the journal."""


@dataclass(slots=True)
class DiskFaults:
    """What may go wrong, as a part of the occasions (0 to 1) where nothing else is said."""

    latency: tuple[float, float] = (0.0005, 0.002)
    """Seconds that a sync takes: at least, at most."""
    eio: float = 0.0
    """Syncs that fail; what they were to make durable may be or not."""
    lie: float = 0.0
    """Syncs that make nothing durable and do not say so."""
    flip: float = 0.0
    """Reads of a record that get one bit wrong; the disk itself has it right."""
    torn: float = 0.0
    """Losses of power that end inside a commit that was not synced, if there is one."""
    full: bool = False
    """There is no room at all."""


@dataclass(slots=True)
class SimDisk:
    """One disk. `happened` counts the faults by name: a test asserts that its fault did happen."""

    kernel: Kernel
    name: str
    capacity_bytes: int | None = None
    faults: DiskFaults = field(default_factory=DiskFaults)
    happened: Counter[str] = field(default_factory=Counter)
    sync_count: int = 0
    user: object = None
    """Who has it open."""
    name_kept: str | None = None
    """Name of the member whose disk it is."""
    rng: Random = field(init=False)
    _journal: bytearray = field(default_factory=bytearray)
    _synced_bytes: int = 0
    content: SortedRecords = field(default_factory=SortedRecords)
    """What the system shows to processes: everything that was written, durable or not."""

    def __post_init__(self) -> None:
        self.rng = self.kernel.random(f"disk/{self.name}")

    # -- what a process does ---------------------------------------------------------------------

    def has_room(self, size_bytes: int) -> bool:
        """Return whether so much more can be written."""
        is_full = self.capacity_bytes is not None and (
            len(self._journal) + size_bytes > self.capacity_bytes
        )
        if self.faults.full or is_full:
            self.happened["full"] += 1
            return False
        return True

    def write(self, frame: bytes) -> None:
        """Hand bytes to the system."""
        self._journal += frame

    def sync(self) -> bool:
        """Make durable what was written; return False when the device says that it failed."""
        self.sync_count += 1
        if self._happens("eio", self.faults.eio):
            return False
        if not self._happens("lie", self.faults.lie):
            self._synced_bytes = len(self._journal)
        return True

    def keep_name(self, proposed: str) -> str:
        """Return the name that is kept; keep the proposed one when there is none."""
        if self.name_kept is None:
            self.name_kept = proposed
        return self.name_kept

    def recover(self) -> None:
        """Read the journal up to the first commit that is not whole; begin a new one with what it says."""
        self.content = SortedRecords()
        data, position = bytes(self._journal), 0
        while changes := _parse(data, position):
            self.content.apply(changes[1])
            position = changes[0]
        if position < len(data):
            self.happened["torn"] += 1
        everything: list[Change] = [Record(*item) for item in self.content.content.items()]
        self._journal = bytearray(_frame(everything))
        self._synced_bytes = len(self._journal)

    def reads(self, sealed: bytes) -> bytes:
        """Return what a read of a record gets."""
        if not self._happens("flip", self.faults.flip):
            return sealed
        return _flipped(sealed, self.rng.randrange(8 * len(sealed)))

    # -- what happens to it ----------------------------------------------------------------------

    def crash(self, *, power_loss: bool) -> None:
        """The process that used it is dead; with `power_loss`, so is the machine."""
        self.user = None
        unsynced = len(self._journal) - self._synced_bytes
        if power_loss and unsynced:
            kept = self.rng.randrange(unsynced + 1)
            if self.rng.random() < self.faults.torn:
                kept = self.rng.randrange(1, self._commit_bytes(self._synced_bytes))
            if kept < unsynced:
                self.happened["lost"] += 1
            del self._journal[self._synced_bytes + kept :]

    def _commit_bytes(self, position: int) -> int:
        """Return the length of the commit that begins there."""
        return HEADER_BYTES + int.from_bytes(self._journal[position : position + 4], "big")

    def rot(self, position: bytes) -> None:
        """Damage one record for good.

        Raises:
            KeyError: there is no such record.
        """
        sealed = self.content.content[position]
        damaged = _flipped(sealed, self.rng.randrange(8 * len(sealed)))
        self.happened["rot"] += 1
        change = Record(position, damaged)
        self.content.apply([change])
        self._journal += _frame([change])
        self._synced_bytes = len(self._journal)

    def _happens(self, fault: str, part: float) -> bool:
        # Drawn even when the part is 0, so that changing one fault does not shift the others.
        happens = self.rng.random() < part
        self.happened[fault] += happens
        return happens


def _flipped(data: bytes, bit: int) -> bytes:
    flipped = bytearray(data)
    flipped[bit // 8] ^= 1 << bit % 8
    return bytes(flipped)


def _frame(changes: Sequence[Change]) -> bytes:
    rows = [
        (0, c.position, c.sealed) if isinstance(c, Record) else (1, c.first, c.end) for c in changes
    ]
    payload: bytes = msgpack.packb(rows)
    return len(payload).to_bytes(4, "big") + xxh3_64_digest(payload) + payload


def _parse(data: bytes, position: int) -> tuple[int, list[Change]] | None:
    """Return where the next commit begins, and this one's changes; None when it is not whole."""
    start = position + HEADER_BYTES
    end = start + int.from_bytes(data[position : position + 4], "big")
    payload = data[start:end]
    if start > len(data) or end > len(data):
        return None
    if xxh3_64_digest(payload) != data[position + 4 : start]:
        return None
    rows = msgpack.unpackb(payload)
    return end, [Cut(one, two) if is_cut else Record(one, two) for is_cut, one, two in rows]


class _DiskReader:
    """Reads records as the disk gives them."""

    def __init__(self, disk: SimDisk) -> None:
        self._disk = disk

    def find(self, position: bytes) -> bytes | None:
        """Return what is stored there."""
        sealed = self._disk.content.find(position)
        return None if sealed is None else self._disk.reads(sealed)

    def find_from(self, first: bytes, end: bytes, limit: int) -> Found:
        """Return the records of a range."""
        found = self._disk.content.find_from(first, end, limit)
        return [(position, self._disk.reads(sealed)) for position, sealed in found]


class SimStorage(RecordedStorage):
    """A `Storage` on a simulated disk. As in `SqliteStorage`, all commits that wait are synced at once."""

    def __init__(
        self, disk: SimDisk, identity: Identity, *, pending_bytes_max: int = PENDING_BYTES_MAX
    ) -> None:
        super().__init__(identity, pending_bytes_max=pending_bytes_max)
        self.disk = disk
        self._waiting: deque[tuple[bytes, asyncio.Future[None]]] = deque()
        self._syncing: list[asyncio.Future[None]] = []
        self._idle: asyncio.Future[None] | None = None

    async def _start(self) -> None:
        if self.disk.user is not None:
            raise StorageInUseError(f"disk {self.disk.name} is open in {self.disk.user!r}")
        self.disk.user = self
        self.disk.recover()
        reader = _DiskReader(self.disk)
        if self.disk.content.content:
            sealed = reader.find(records.IDENTITY_POSITION)
            records.check_identity(sealed, self.identity, f"disk {self.disk.name}")
        else:
            await self._submit([records.seal_identity(self.identity)])

    async def _end(self) -> None:
        while self._syncing or self._waiting:
            self._idle = asyncio.get_running_loop().create_future()
            await self._idle
        if self.disk.user is self:
            self.disk.user = None

    def _submit(self, changes: Sequence[Change]) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.disk.content.apply(changes)
        self._waiting.append((_frame(changes), future))
        if not self._syncing:
            self._write()
        return future

    async def _read(self, job: Callable[[Reader], T]) -> T:
        return job(_DiskReader(self.disk))

    def _write(self) -> None:
        """Hand everything that waits to the system, and have it synced."""
        works = list(self._waiting)
        if not self.disk.has_room(sum(len(frame) for frame, _ in works)):
            self._fail(StorageFullError(f"disk {self.disk.name} is full"))
            return
        self._waiting.clear()
        for frame, _ in works:
            self.disk.write(frame)
        self._syncing = [future for _, future in works]
        seconds = self.disk.rng.uniform(*self.disk.faults.latency)
        asyncio.get_running_loop().call_later(seconds, self._synced)

    def _synced(self) -> None:
        if not self.disk.sync():
            self._fail(StorageFailedError(f"disk {self.disk.name}: input/output error"))
            return
        done, self._syncing = self._syncing, []
        for future in done:
            _resolve(future, None)
        if self._waiting:
            self._write()
        else:
            _resolve(self._idle, None)

    def _fail(self, error: Exception) -> None:
        """Stop: none of those under way is acknowledged."""
        futures = [*self._syncing, *(future for _, future in self._waiting)]
        self._syncing = []
        self._waiting.clear()
        self._stop(error)
        for future in futures:
            _resolve(future, error)
        _resolve(self._idle, None)


def _resolve(
    future: asyncio.Future[Any] | None, error: Exception | None
) -> None:  # Any: its result
    if future is None or future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
        future.exception()  # Looked at: a store that stops says so, without its callers.
