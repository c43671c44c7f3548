"""A store in a directory, on SQLite (WAL, `synchronous=FULL`), in a thread of its own.

*Group commit*: while one transaction is made durable, whatever is submitted waits; then all of it is
one transaction, with one fsync. So commits per second grow with the number of those who wait, and one
alone costs one fsync.

*One process*: the directory has a file `lock`, locked (flock) for as long as the store is open; the
system lets go of it when the process dies. A forked child has no part in the store: it closes its copy
of the lock, and every call raises
`ForkedProcessError`. The connection lives on the stack of the thread, which a child does not have, so
that a child never closes it (SQLite forbids that).

Any error of the device or of a full disk ends the store: the transaction is rolled back, those under
way and all later ones get that error, nothing is tried again. After a failed fsync nobody knows what
is on disk, and trying once more may succeed without writing anything (Rebello et al., "Can
applications recover from fsync failures?", 2020).
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import sqlite3
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from cache.errors import (
    CorruptStorageError,
    ForkedProcessError,
    StorageError,
    StorageFailedError,
    StorageFullError,
    StorageInUseError,
    StorageMismatchError,
)
from cache.forks import watch
from cache.storage import records
from cache.storage.base import FORMAT, PENDING_BYTES_MAX, Identity
from cache.storage.recorded import Found, Reader, RecordedStorage
from cache.storage.records import Change, Cut, Record

T = TypeVar("T")

DATABASE: Final = "records.sqlite"
LOCK: Final = "lock"
APPLICATION_ID: Final = 0x70656572
"""Says to `file` and to us that a database is one of these: "peer"."""

SCHEMA: Final = (
    "CREATE TABLE records (position BLOB PRIMARY KEY, sealed BLOB NOT NULL) WITHOUT ROWID, STRICT"
)


@dataclass(frozen=True, slots=True)
class _Commit:
    changes: Sequence[Change]
    future: asyncio.Future[None]


@dataclass(frozen=True, slots=True)
class _Job:
    run: Callable[[Reader], Any]  # Any: what the future gives
    future: asyncio.Future[Any]


class SqliteStorage(RecordedStorage):
    """A `Storage` in a directory.

    An ack means: written and fsynced; it survives a crash of the process, of the system, and the loss
    of power, as far as the device tells the truth about its cache.
    """

    def __init__(
        self,
        directory: Path | str,
        identity: Identity,
        *,
        pending_bytes_max: int = PENDING_BYTES_MAX,
        size_bytes_max: int | None = None,
    ) -> None:
        """Make a store; nothing is touched before `open`.

        Args:
            directory: made if missing. One for each node.
            identity: whose it is; a directory of somebody else is refused.
            pending_bytes_max: bytes of commits that are not durable yet; beyond it `commit` refuses.
            size_bytes_max: of the database; beyond it the disk counts as full. None: as large as the disk.
        """
        super().__init__(identity, pending_bytes_max=pending_bytes_max)
        self.directory = Path(directory)
        self.transaction_count = 0
        """Transactions so far: each one fsync, for as many commits as waited."""
        self._size_bytes_max = size_bytes_max
        self._lock_descriptor: int | None = None
        self._thread: threading.Thread | None = None
        self._ended: asyncio.Future[None] | None = None
        self._forked = False
        self._waiting: list[_Commit | _Job] = []
        self._closing = False
        self._changed = threading.Condition()  # guards _waiting and _closing, and wakes the thread

    # -- life ------------------------------------------------------------------------------------

    def _check(self) -> None:
        if self._forked:
            raise ForkedProcessError(f"{self!r} belongs to the parent process; open one here")
        super()._check()

    async def _start(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            self._take_lock()
        except OSError as error:
            raise StorageFailedError(f"{self.directory}: {error}") from error
        self._closing, self._waiting = False, []
        self._ended = loop.create_future()
        opened: asyncio.Future[None] = loop.create_future()
        thread = threading.Thread(
            target=self._run, args=(loop, opened, self._ended), name="cache.storage", daemon=True
        )
        watch(self, SqliteStorage._in_child)
        self._thread = thread
        thread.start()
        await asyncio.shield(opened)

    def _take_lock(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.directory / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
            os.close(descriptor)
            raise StorageInUseError(
                f"{self.directory} is open in process {owner or '(unknown)'}; give each node a "
                "directory of its own, or end that process"
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._lock_descriptor = descriptor

    async def _end(self) -> None:
        if self._thread is not None:
            with self._changed:
                self._closing = True
                self._changed.notify()
            assert self._ended is not None, "made with the thread"
            await asyncio.shield(self._ended)
            self._thread = None
        if self._lock_descriptor is not None:
            os.close(self._lock_descriptor)
            self._lock_descriptor = None

    def _in_child(self) -> None:
        self._forked = True
        if self._lock_descriptor is not None:
            os.close(self._lock_descriptor)  # The parent's lock stays: it has its own copy.
            self._lock_descriptor = None
        self._thread = None

    # -- on the loop -----------------------------------------------------------------------------

    def _submit(self, changes: Sequence[Change]) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._hand_over(_Commit(changes, future))
        return future

    async def _read(self, job: Callable[[Reader], T]) -> T:
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._hand_over(_Job(job, future))
        return await future

    def _hand_over(self, work: _Commit | _Job) -> None:
        with self._changed:
            self._waiting.append(work)
            self._changed.notify()

    def _done(self, results: Sequence[tuple[asyncio.Future[Any], Any]]) -> None:  # Any: results
        for future, result in results:
            if future.done():
                continue  # Cancelled; what it asked for happened.
            if isinstance(result, Exception):
                future.set_exception(result)
                future.exception()  # Looked at: a store that stops says so, without its callers.
            else:
                future.set_result(result)

    # -- on the thread ---------------------------------------------------------------------------

    def _run(
        self,
        loop: asyncio.AbstractEventLoop,
        opened: asyncio.Future[None],
        ended: asyncio.Future[None],
    ) -> None:
        def tell(call: Callable[..., None], *arguments: Any) -> None:  # Any: its arguments
            with contextlib.suppress(
                RuntimeError
            ):  # The loop was closed without closing the store.
                loop.call_soon_threadsafe(call, *arguments)

        try:
            connection = self._connect()
        except (sqlite3.Error, OSError, StorageError) as error:
            tell(self._done, [(opened, _translated(error, self.directory)), (ended, None)])
            return
        tell(self._done, [(opened, None)])
        failure: Exception | None = None
        while works := self._take():
            failure = self._work(connection, works, failure, tell)
        with contextlib.suppress(sqlite3.Error):
            connection.close()
        tell(self._done, [(ended, None)])

    def _take(self) -> list[_Commit | _Job]:
        with self._changed:
            while not self._waiting and not self._closing:
                self._changed.wait()
            works, self._waiting = self._waiting, []
            return works

    def _work(
        self,
        connection: sqlite3.Connection,
        works: list[_Commit | _Job],
        failure: Exception | None,
        tell: Callable[..., None],
    ) -> Exception | None:
        """Do all of it: commits next to each other are one transaction. Return why the store has to stop."""
        position = 0
        while position < len(works):
            work = works[position]
            position += 1
            if failure is not None:
                tell(self._done, [(work.future, failure)])
                continue
            group: list[_Commit | _Job] = [work]
            result: Any = None  # Any: what a job returns
            try:
                if isinstance(work, _Job):
                    result = work.run(_SqliteReader(connection))
                else:
                    while position < len(works) and isinstance(works[position], _Commit):
                        group.append(works[position])
                        position += 1
                    self._transact(connection, group)
            except (sqlite3.Error, StorageError) as error:
                result = _translated(error, self.directory)
                if isinstance(work, _Commit) or not isinstance(result, CorruptStorageError):
                    failure = result
                    tell(self._stop, failure)
            tell(self._done, [(one.future, result) for one in group])
        return failure

    def _transact(self, connection: sqlite3.Connection, group: Sequence[_Commit | _Job]) -> None:
        connection.execute("BEGIN IMMEDIATE")
        try:
            for commit in group:
                assert isinstance(commit, _Commit), "only commits are grouped"
                for change in commit.changes:
                    _apply(connection, change)
            connection.execute("COMMIT")
        except sqlite3.Error:
            with contextlib.suppress(sqlite3.Error):  # SQLite may have rolled back by itself.
                connection.execute("ROLLBACK")
            raise
        self.transaction_count += 1

    def _connect(self) -> sqlite3.Connection:
        """Open the database; make it if there is none; refuse another's."""
        path = self.directory / DATABASE
        connection = sqlite3.connect(path, isolation_level=None, timeout=0)
        try:
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            application = connection.execute("PRAGMA application_id").fetchone()[0]
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            is_new = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0
            if not is_new and application != APPLICATION_ID:
                raise StorageMismatchError(f"{path} is another application's database")
            records.check_format(version, str(path))
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            if self._size_bytes_max is not None:
                (page,) = connection.execute("PRAGMA page_size").fetchone()
                connection.execute(f"PRAGMA max_page_count = {self._size_bytes_max // page}")
            if is_new:
                self._make(connection)
            sealed = _SqliteReader(connection).find(records.IDENTITY_POSITION)
            records.check_identity(sealed, self.identity, str(self.directory))
        except BaseException:
            connection.close()
            raise
        return connection

    def _make(self, connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(SCHEMA)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {FORMAT}")
        _apply(connection, records.seal_identity(self.identity))
        connection.execute("COMMIT")
        for directory in (
            self.directory,
            self.directory.parent,
        ):  # The names of new files last, too.
            descriptor = os.open(directory, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


class _SqliteReader:
    """Finds records in the database."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def find(self, position: bytes) -> bytes | None:
        """Return what is stored there."""
        query = "SELECT sealed FROM records WHERE position = ?"
        row = self._connection.execute(query, (position,)).fetchone()
        return None if row is None else row[0]

    def find_from(self, first: bytes, end: bytes, limit: int) -> Found:
        """Return the records of a range."""
        query = (
            "SELECT position, sealed FROM records WHERE position >= ? AND position < ? "
            "ORDER BY position LIMIT ?"
        )
        return self._connection.execute(query, (first, end, limit)).fetchall()


def _apply(connection: sqlite3.Connection, change: Change) -> None:
    match change:
        case Record(position, sealed):
            connection.execute("INSERT OR REPLACE INTO records VALUES (?, ?)", (position, sealed))
        case Cut(first, end):
            query = "DELETE FROM records WHERE position >= ? AND position < ?"
            connection.execute(query, (first, end))


def _translated(error: Exception, directory: Path) -> Exception:
    """Return what the caller is told."""
    if isinstance(error, StorageError):
        return error
    text = f"{directory}: {error}"
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # Above are details.
    match code:
        case sqlite3.SQLITE_FULL:
            translated: StorageError = StorageFullError(
                f"{text}; free some room, then open it again"
            )
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            translated = CorruptStorageError(text, DATABASE)
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            translated = StorageInUseError(text)
        case _:
            translated = StorageFailedError(text)
    translated.__cause__ = error
    return translated
