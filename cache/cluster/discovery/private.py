"""Files that nobody but this user can have made: where they are, and how that is checked.

A temporary directory is everybody's, so another user may have put a folder, a link or a file where ours are
expected, to read what we write or to feed us theirs. A folder is used only if it is a folder and no link, is
ours, and is closed to others; and nobody can exchange it later, because its parent is either closed to others
too, or sticky. What is in such a folder, we have put there.
"""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

from cache.errors import ConfigError

FOLDER: Final = "peercache"
OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
TEXT_BYTES_MAX: Final = 4096


def runtime_folder() -> Path:
    """Return this user's folder for what running processes share.

    It is in XDG_RUNTIME_DIR if that is private and ours (it is not after `sudo -E`, for example), else in the
    temporary directory.
    """
    # The one place beside the command line that looks at the environment: where the system keeps such
    # files is no setting of ours.
    given = os.environ.get("XDG_RUNTIME_DIR", "")
    if given and Path(given).is_absolute():
        with suppress(FileNotFoundError):
            if _why_not_private(Path(given)) is None:
                return Path(given) / FOLDER
    return Path(tempfile.gettempdir()) / f"{FOLDER}-{os.geteuid()}"


def make_private_folder(path: Path) -> None:
    """Make the folder, or check the one that is there.

    Raises:
        ConfigError: it cannot be made, or others could have made or could change it.
        FileNotFoundError: it was there, and was removed at this moment; try again.
    """
    try:
        _check_parent(path.parent)
        path.mkdir(mode=0o700)
    except FileExistsError:
        reason = _why_not_private(path)
        if reason is not None:
            raise ConfigError(
                f"siblings folder {str(path)!r} {reason}; it is not used, because another user could"
                " read or forge what is in it. Remove it, or give Siblings(directory=…) another place"
            ) from None
    except FileNotFoundError:
        if path.parent.is_dir():
            raise
        raise ConfigError(f"siblings folder {str(path)!r}: {path.parent} is no folder") from None
    except OSError as error:
        raise ConfigError(f"siblings folder {str(path)!r} cannot be made: {error}") from error


def _why_not_private(path: Path) -> str | None:
    try:
        status = path.lstat()
    except FileNotFoundError:
        raise
    except OSError as error:
        return f"cannot be looked at ({error.strerror})"
    return _why_not_ours(status, stat.S_ISDIR(status.st_mode), "folder")


def _why_not_ours(status: os.stat_result, right_kind: bool, kind: str) -> str | None:
    if not right_kind:
        return f"is not a {kind}" + (", but a link" if stat.S_ISLNK(status.st_mode) else "")
    if status.st_uid != os.geteuid():
        return f"belongs to user {status.st_uid}, not to user {os.geteuid()} of this process"
    if status.st_mode & OTHERS:
        return f"is open to others (mode {stat.S_IMODE(status.st_mode):04o})"
    return None


def _check_parent(parent: Path) -> None:
    mode = parent.stat().st_mode
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        raise ConfigError(
            f"siblings folder in {str(parent)!r}: anyone may exchange files there (mode"
            f" {stat.S_IMODE(mode):04o}); set the sticky bit, or give Siblings(directory=…) another place"
        )


def write_private(path: Path, text: str) -> int:
    """Write a new file that only this user can read; return its descriptor, still open.

    Raises:
        FileExistsError: it is there already.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    try:
        os.write(descriptor, text.encode())
    except BaseException:
        os.close(descriptor)
        path.unlink()
        raise
    return descriptor


def read_private(path: Path) -> str:
    """Return the text of a file that only this user could have written.

    Raises:
        ConfigError: others could have written it, or it holds no text.
        FileNotFoundError: it is not there.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ConfigError(f"siblings file {str(path)!r} cannot be read: {error}") from error
    try:
        status = os.fstat(descriptor)
        reason = _why_not_ours(status, stat.S_ISREG(status.st_mode), "file")
        if reason is not None:
            raise ConfigError(f"siblings file {str(path)!r} {reason}; it is not used, remove it")
        content = os.read(descriptor, TEXT_BYTES_MAX)
    finally:
        os.close(descriptor)
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(f"siblings file {str(path)!r} holds no text; remove it") from error
