"""Worker processes of one application on one host, which find each other with no configuration.

`Register` holds the files; this is what a node does with them. One process at a time looks for the cluster or
begins one, so that of workers that start at the same instant the first begins it and the others join: the
lock is taken before a node listens, and given back when it is in the cluster.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import re
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cache.cluster.config import ClusterConfig
from cache.cluster.discovery.base import Discovery, Presence
from cache.cluster.discovery.private import runtime_folder
from cache.cluster.discovery.register import Entry, Register, is_socket
from cache.cluster.ids import Address
from cache.cluster.transport.base import StreamPaths
from cache.cluster.wire.messages import PROTOCOL_VERSION
from cache.errors import ConfigError
from cache.forks import watch

logger = logging.getLogger(__name__)

APP_PATTERN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
LOCK_INTERVAL: Final = 0.01
"""Seconds between two tries to get the lock; starting takes about this long."""

TIDY_TIMEOUT: Final = 1.0
"""Seconds that leaving waits for the lock, to see whether it was the last one."""

SOCKET_PATH_BYTES_MAX: Final = 107 if sys.platform == "linux" else 103
"""The system's limit for a Unix socket's path, without the zero byte at its end."""


@dataclass(frozen=True, slots=True)
class Siblings(Discovery):
    """The other processes of this application on this host, of the same user.

    It also provides `secret` and `host` where the configuration says nothing: a secret known to this user's
    processes alone, and one name for this machine, so that copies go to other machines where there are any.
    """

    app: str
    """Name of the application: 1 to 64 letters, digits, dots, dashes or underscores."""

    directory: str | Path | None = None
    """Folder for the files by which processes find each other; made with mode 0700 if it is not there.
    None, the default: the user's own, in XDG_RUNTIME_DIR or the temporary directory. Say it where processes
    of one application see different ones (containers, PrivateTmp)."""

    def __post_init__(self) -> None:
        if sys.platform == "win32":
            raise ConfigError(
                "discovery=Siblings(…): needs flock and Unix sockets; give peers instead"
            )
        if not isinstance(self.app, str) or not APP_PATTERN.fullmatch(self.app):
            raise ConfigError(
                f"Siblings app={self.app!r}: must be 1 to 64 letters, digits, dots, dashes or"
                " underscores, and start with a letter or digit"
            )
        given = self.directory
        if given is not None and not (isinstance(given, (str, Path)) and Path(given).is_absolute()):
            raise ConfigError(f"Siblings directory={given!r}: must be an absolute path")

    def presence(self) -> Presence:
        """Return one node's part; no file is touched yet."""
        return SiblingsPresence(self)

    def folder(self) -> Path:
        """Return where this application's files are.

        Versions that cannot speak with each other, and network namespaces that cannot reach each other, do
        not meet: an upgrade that restarts workers one by one begins a new cluster beside the old one.
        """
        root = runtime_folder() if self.directory is None else Path(self.directory)
        return root / f"{self.app}.v{PROTOCOL_VERSION}{_network_namespace()}"


def siblings_config(app: str, **overrides: Any) -> ClusterConfig:  # Any: field values
    """Return the settings of a worker that shares a cache with its siblings; `local()` and nothing else.

    Raises:
        ConfigError: a bad name, or a bad field among `overrides`.
    """
    return ClusterConfig.local(**{"discovery": Siblings(app), **overrides})


class SiblingsPresence(Presence, StreamPaths):
    """One node among its siblings."""

    def __init__(self, siblings: Siblings) -> None:
        self._siblings = siblings
        self._register: Register | None = None
        self._paths: dict[Address, Path] = {}

    def __repr__(self) -> str:
        return f"<SiblingsPresence {self._siblings.app} {self._register}>"

    # -- life ------------------------------------------------------------------------------------

    async def enter(self, config: ClusterConfig) -> ClusterConfig:
        """Wait until no other sibling is starting; provide the secret and the host.

        Raises:
            ConfigError: the folder, or a file in it, could have been made by another user.
        """
        register = Register(self._siblings.folder())
        try:
            if await self._locked(register, config.join_timeout):
                register.sweep()
            else:
                # Somebody who stands still has it. Should two begin a cluster now, they find each other.
                logger.warning("siblings.lock_busy folder=%s: starting without it", register.folder)
            provided = {"secret": register.secret(), "host": host_label()}
        except BaseException:
            register.unlock()
            raise
        self._register = register
        watch(self, SiblingsPresence._forked)
        missing = {key: value for key, value in provided.items() if getattr(config, key) is None}
        return config.with_changes(**missing)

    async def _locked(self, register: Register, timeout: float) -> bool:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while not register.try_lock():
            if loop.time() >= deadline:
                return False
            await asyncio.sleep(LOCK_INTERVAL)
        return True

    async def listening(self, address: Address) -> None:
        """Show siblings where this node is, for streams to it; they do not join through it yet."""
        assert self._register is not None, "enter comes first"
        self._register.enrol(address)

    async def find(self) -> Sequence[Address]:
        """Return the siblings that are in the cluster."""
        if self._register is None:
            return ()
        self._register.refresh()
        return [entry.address for entry in self._scan(self._register) if entry.has_joined]

    async def announce(self) -> None:
        """Let siblings join through this node, and let the next one start."""
        assert self._register is not None, "enter comes first"
        self._register.promote()
        self._register.unlock()

    async def withdraw(self) -> None:
        """Remove this node's files, and all of them if it was the last."""
        register, self._register = self._register, None
        if register is None:
            return
        try:
            register.withdraw()
            if register.is_locked or await self._locked(register, TIDY_TIMEOUT):
                register.remove_if_deserted()
        finally:
            register.unlock()

    def _forked(self) -> None:
        register, self._register = self._register, None
        if register is not None:
            register.forget()

    # -- streams ---------------------------------------------------------------------------------

    @property
    def stream_paths(self) -> StreamPaths:
        """Unix sockets in the siblings' folder."""
        return self

    def own(self) -> str | None:
        """Return where this node should accept streams, or None if the path is too long for a socket."""
        if self._register is None:
            return None
        path = str(self._register.socket_path())
        if len(os.fsencode(path)) <= SOCKET_PATH_BYTES_MAX:
            return path
        logger.warning(
            "siblings.path_too_long path=%s limit=%d: streams use TCP; give Siblings(directory=…) a"
            " shorter one",
            path,
            SOCKET_PATH_BYTES_MAX,
        )
        return None

    def of(self, address: Address) -> str | None:
        """Return the socket of the sibling at `address`, if it has one."""
        if self._register is None:
            return None
        path = self._paths.get(address)
        if path is None or not is_socket(path):
            self._scan(self._register)
            path = self._paths.get(address)
        return str(path) if path is not None and is_socket(path) else None

    def _scan(self, register: Register) -> list[Entry]:
        entries = register.entries()
        self._paths = {entry.address: register.socket_path_of(entry) for entry in entries}
        return entries


def host_label() -> str:
    """Return one name for this machine, the same in every process and container on it.

    The boot id, because a container has a host name of its own, but dies with its machine.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except (OSError, ValueError):
        boot = socket.gethostname()
    return f"host-{hashlib.blake2b(boot.encode(), digest_size=6).hexdigest()}"


def _network_namespace() -> str:
    """Return a mark of what loopback is here: containers may share a folder, but not a network."""
    try:
        return f".{Path('/proc/self/ns/net').stat().st_ino}"
    except OSError:
        return ""
