"""What is in a member's `data_dir`: the store, and the file `name` with the name that was chosen once.

    name             one line: the member's name, if no configuration says it
    lock             held while the store is open
    records.sqlite   the store, with the cluster's and the member's name in it

The name is there before the store is, and never changes: two processes that begin at the same time agree on
one of their names, and then one of them is refused by the lock.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import Final

from cache.cluster.config.cluster import NAME_PATTERN
from cache.errors import CorruptStorageError, StorageFailedError, StorageMismatchError
from cache.storage.sqlite import DATABASE

NAME: Final = "name"
NAME_BYTES_MAX: Final = 256


def kept_name(data_dir: str, proposed: str) -> str:
    """Return the name that is kept in a folder; when there is none, keep the proposed one, durably.

    Raises:
        StorageMismatchError: a member with a configured name left its data there.
        CorruptStorageError: the file does not hold a name.
        StorageFailedError: it cannot be read or written.
    """
    folder = Path(data_dir)
    path = folder / NAME
    try:
        if not path.exists():
            _refuse_named(folder)
            _write_once(path, proposed)
        text = path.read_bytes()[: NAME_BYTES_MAX + 1].decode("utf-8", "replace")
    except OSError as error:
        raise StorageFailedError(f"{path}: {error}") from error
    name = text.removesuffix("\n")
    if not NAME_PATTERN.fullmatch(name):
        raise CorruptStorageError(
            f"{path} does not hold the name of a member; set `name` to the one it had, or give the "
            "member an empty folder, so that it joins as a new one",
            str(path),
        )
    return name


def _refuse_named(folder: Path) -> None:
    if (folder / DATABASE).exists():
        raise StorageMismatchError(
            f"{folder} has the data of a member whose `name` was configured; set `name` to it again, "
            "or give this member a folder of its own"
        )


def _write_once(path: Path, name: str) -> None:
    """Make the file, whole and durable, unless another process was faster: then that one stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{NAME}.{os.getpid()}.{threading.get_ident()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        os.write(descriptor, f"{name}\n".encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    try:
        with suppress(FileExistsError):  # Unlike a rename, a link does not replace what is there.
            os.link(draft, path)
    finally:
        draft.unlink()
    for folder in (path.parent, path.parent.parent):  # The names of new files last, too.
        _sync(folder)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
