"""The files by which the members of one application on one host find each other.

In a private folder (`private.py`), one folder per application:

    lock              held by the one process that starts or leaves at this moment
    secret            what members prove to each other that they belong together
    <id>.joining      a process that listens, and looks for the cluster
    <id>.member       the same file, once the process is in the cluster
    <id>.sock         the Unix socket on which it accepts streams

**Who lives.** Each process holds a lock (flock) on its own file for as long as it lives, and the system
releases it however the process ends. So a file that can be locked is a dead process's, and whoever sees it
removes it. The name is drawn at random and never used again, so what is removed is never a successor's file;
and a file has its name only once it is locked and complete, because it gets it by a rename.

**The last one out** removes everything. 1. A starts, opens `lock` and waits for it. 2. B, the last member,
leaves, removes the folder and lets go. 3. C makes a new folder with a new `lock`. 4. A has its lock, on a
file that nobody else will ever open. So who gets the lock looks whether the file still has that name.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import stat
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

if sys.platform != "win32":
    import fcntl

from cache.cluster.discovery.private import make_private_folder, read_private, write_private
from cache.cluster.ids import Address, parse_address
from cache.errors import CacheError, ConfigError

logger = logging.getLogger(__name__)

LOCK: Final = "lock"
SECRET: Final = "secret"  # noqa: S105  (the name of a file)
JOINING: Final = ".joining"
MEMBER: Final = ".member"
SOCKET: Final = ".sock"
UNFINISHED: Final = ".new"
SECRET_BYTES: Final = 32
ENTRIES_MAX: Final = 1024
"""Entries looked at; a host with more worker processes of one application is a mistake."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A live process of the application."""

    id: str
    """Random name of its files."""
    address: Address
    """Where other members reach it."""
    pid: int
    """Its process, for people; whether it lives is told by its lock."""
    started: float
    """When it came, seconds since 1970; for people, too."""
    has_joined: bool
    """Whether others may join the cluster through it."""


class Register:
    """The folder of one application, as one node uses it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.id = secrets.token_hex(6)
        self._lock: int | None = None
        self._entry: int | None = None
        self._text = ""
        self._suffix = JOINING
        self._secret = ""

    def __repr__(self) -> str:
        return f"<Register {self.id} in {self.folder}>"

    # -- one at a time ---------------------------------------------------------------------------

    def try_lock(self) -> bool:
        """Become the one that starts or leaves, unless somebody else is; also makes the folder.

        Raises:
            ConfigError: the folder is not safe to use.
        """
        path = self.folder / LOCK
        try:
            make_private_folder(self.folder.parent)
            make_private_folder(self.folder)
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(path, flags, 0o600)
        except FileNotFoundError:
            return False  # The last member is just removing it all.
        if not _flock(descriptor, fcntl.LOCK_EX):
            os.close(descriptor)
            return False
        self._lock = descriptor
        if _is_at(descriptor, path):
            return True
        self.unlock()
        return False

    def unlock(self) -> None:
        """Let the next one start or leave; idempotent."""
        descriptor, self._lock = self._lock, None
        if descriptor is not None:
            # In so many words: a process forked meanwhile has a copy of the descriptor.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)

    @property
    def is_locked(self) -> bool:
        """Whether this node is the one that starts or leaves."""
        return self._lock is not None

    # -- the secret ------------------------------------------------------------------------------

    def secret(self) -> str:
        """Return the application's secret; the first one to ask draws it.

        Raises:
            ConfigError: somebody else could have written it, or it is damaged.
        """
        path = self.folder / SECRET
        try:
            text = read_private(path)
        except FileNotFoundError:
            self._offer_secret(secrets.token_hex(SECRET_BYTES))
            text = read_private(path)
        if len(text) != 2 * SECRET_BYTES:
            raise ConfigError(
                f"siblings file {str(path)!r} is damaged; stop all members, remove it"
            )
        self._secret = text
        return text

    def _offer_secret(self, text: str) -> None:
        """Put a secret there unless there is one. A link appears whole, and never replaces a file."""
        draft = self.folder / f"{secrets.token_hex(6)}{UNFINISHED}"
        os.close(write_private(draft, text))
        try:
            os.link(draft, self.folder / SECRET)
        except FileExistsError:
            pass
        finally:
            draft.unlink()

    # -- this process ----------------------------------------------------------------------------

    def socket_path(self) -> Path:
        """Return where this process accepts streams."""
        return self.folder / f"{self.id}{SOCKET}"

    def socket_path_of(self, entry: Entry) -> Path:
        """Return where the process of that entry accepts streams, if it does."""
        return self.folder / f"{entry.id}{SOCKET}"

    def enrol(self, address: Address) -> None:
        """Make this process's entry, as one that has not joined yet."""
        entry = {"address": address, "pid": os.getpid(), "started": time.time()}
        self._text = json.dumps(entry) + "\n"
        self._suffix = JOINING
        self._write_entry()

    def _write_entry(self) -> None:
        draft = self.folder / f"{self.id}{UNFINISHED}"
        descriptor = write_private(draft, self._text)
        locked = _flock(descriptor, fcntl.LOCK_EX)
        assert locked, "nobody else knows this name"
        draft.rename(self._entry_path())
        self.release()
        self._entry = descriptor

    def _entry_path(self) -> Path:
        return self.folder / f"{self.id}{self._suffix}"

    def promote(self) -> None:
        """Say that this process has joined: others may join through it."""
        before = self._entry_path()
        self._suffix = MEMBER
        before.rename(self._entry_path())

    def refresh(self) -> None:
        """Keep what is ours from looking old, or put it back: cleaners remove old temporary files."""
        if self._entry is None:
            return
        try:
            os.utime(self._entry_path())
            os.utime(self.folder / SECRET)
            os.utime(self.folder / LOCK)
        except FileNotFoundError:
            logger.warning("siblings.files_removed folder=%s: put back", self.folder)
            make_private_folder(self.folder.parent)
            make_private_folder(self.folder)
            self._offer_secret(self._secret)
            if not self._entry_path().exists():
                self._write_entry()
            (self.folder / LOCK).touch(mode=0o600)
            if read_private(self.folder / SECRET) != self._secret:
                # A process that started in between found nothing, and drew another.
                logger.error("siblings.secret_differs folder=%s: restart this process", self.folder)

    def withdraw(self) -> None:
        """Remove this process's files; idempotent."""
        if self._entry is not None:
            self._entry_path().unlink(missing_ok=True)
            self.release()
        self.socket_path().unlink(missing_ok=True)

    def release(self) -> None:
        """Close the entry's file, by which its lock goes, and leave the file where it is."""
        descriptor, self._entry = self._entry, None
        if descriptor is not None:
            os.close(descriptor)

    def forget(self) -> None:
        """In a forked child: close the parent's descriptors, so that its locks end with it alone."""
        self.release()
        descriptor, self._lock = self._lock, None
        if descriptor is not None:
            os.close(descriptor)

    # -- the others ------------------------------------------------------------------------------

    def entries(self) -> list[Entry]:
        """Return the live processes, this one included; remove what dead ones left."""
        try:
            names = sorted(os.listdir(self.folder))  # noqa: PTH208  (names are what is wanted)
        except FileNotFoundError:
            return []
        ours = [name for name in names if name.endswith((JOINING, MEMBER))]
        found = [self._look_at(self.folder / name) for name in ours[:ENTRIES_MAX]]
        return [entry for entry in found if entry is not None]

    def _look_at(self, path: Path) -> Entry | None:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return None  # Removed or renamed meanwhile, or not ours.
        try:
            if _flock(descriptor, fcntl.LOCK_SH):
                self._remove_dead(path)
                return None
            content = os.read(descriptor, 4096)
        finally:
            os.close(descriptor)
        return _parse(path, content)

    def _remove_dead(self, path: Path) -> None:
        logger.info("siblings.removed_dead entry=%s", path.name)
        path.unlink(missing_ok=True)
        path.with_suffix(SOCKET).unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove what belongs to no live process. Only under the lock: starters have a socket first."""
        assert self.is_locked, "somebody may be between making a socket and making its entry"
        alive = {entry.id for entry in self.entries()} | {self.id}
        for path in list(self.folder.iterdir()):
            if path.suffix in (SOCKET, UNFINISHED) and path.stem not in alive:
                path.unlink(missing_ok=True)

    def remove_if_deserted(self) -> None:
        """Remove everything, the folder too, if no process is left; only under the lock.

        Not the folder around it, which is every application's: its removal would be one more race.
        """
        assert self.is_locked, "somebody may be starting"
        if self.entries():
            return
        self.sweep()
        for name in (SECRET, LOCK):
            (self.folder / name).unlink(missing_ok=True)
        with suppress(OSError):  # There are other files in it, or it is gone.
            self.folder.rmdir()


def _flock(descriptor: int, how: int) -> bool:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def _parse(path: Path, content: bytes) -> Entry | None:
    """Return the entry, or None if it was not written by this version of the library."""
    try:
        data = json.loads(content)
        parse_address(data["address"])
        return Entry(
            id=path.stem,
            address=Address(data["address"]),
            pid=int(data["pid"]),
            started=float(data["started"]),
            has_joined=path.suffix == MEMBER,
        )
    except (CacheError, ValueError, KeyError, TypeError) as error:
        logger.warning("siblings.bad_entry path=%s error=%r", path, error)
        return None


def is_socket(path: Path) -> bool:
    """Return whether a Unix socket is there, whoever listens to it."""
    try:
        return stat.S_ISSOCK(path.lstat().st_mode)
    except OSError:
        return False
