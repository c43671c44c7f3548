"""A folder or file that another user could have made, or could change, is refused."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from cache.cluster.discovery import private
from cache.cluster.discovery.private import (
    make_private_folder,
    read_private,
    runtime_folder,
    write_private,
)
from cache.errors import ConfigError

STRANGER = 12345
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to another user: needs root")


def _refused(act: Callable[[], object], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        act()


def test_a_missing_folder_is_made_for_this_user_alone(place: Path) -> None:
    """Mode 0700, whatever the umask would leave."""
    before = os.umask(0)
    try:
        make_private_folder(place / "new")
    finally:
        os.umask(before)

    assert (place / "new").stat().st_mode & 0o777 == 0o700


def test_a_folder_of_ours_is_taken_as_it_is(place: Path) -> None:
    """The second process finds that of the first."""
    make_private_folder(place / "new")
    make_private_folder(place / "new")


@pytest.mark.parametrize("mode", [0o750, 0o701, 0o777])
def test_a_folder_open_to_others_is_refused(place: Path, mode: int) -> None:
    """Who may write there could put a socket where ours is expected."""
    (place / "open").mkdir()
    (place / "open").chmod(mode)

    _refused(lambda: make_private_folder(place / "open"), "open to others")


def test_a_link_is_refused(place: Path) -> None:
    """Even to a folder of ours: who made it can point it elsewhere at any time."""
    (place / "real").mkdir(mode=0o700)
    (place / "link").symlink_to(place / "real")

    _refused(lambda: make_private_folder(place / "link"), "but a link")


def test_a_file_in_place_of_the_folder_is_refused(place: Path) -> None:
    """The error names it, and what to do."""
    (place / "file").touch()

    _refused(lambda: make_private_folder(place / "file"), "not a folder.*Remove it, or give")


@as_root
def test_a_folder_of_another_user_is_refused(place: Path) -> None:
    """The classic: somebody made it first, in a directory that is everybody's."""
    (place / "theirs").mkdir(mode=0o700)
    os.chown(place / "theirs", STRANGER, STRANGER)

    _refused(lambda: make_private_folder(place / "theirs"), f"belongs to user {STRANGER}")


def test_a_place_where_anyone_may_exchange_files_is_refused(place: Path) -> None:
    """Without the sticky bit our folder could be renamed away; with it, as in /tmp, it cannot."""
    place.chmod(0o777)
    _refused(lambda: make_private_folder(place / "new"), "anyone may exchange files")

    place.chmod(0o1777)
    make_private_folder(place / "new")


def test_a_place_that_is_not_there_is_refused(place: Path) -> None:
    """No folders are made above the one that was named."""
    _refused(lambda: make_private_folder(place / "a" / "b"), "is no folder")


def test_the_runtime_directory_of_the_session_comes_first(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the XDG base directory specification has it."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(place))

    assert runtime_folder() == place / "peercache"


@pytest.mark.parametrize("given", ["", "relative", "/nowhere/at/all", "open"])
def test_a_bad_runtime_directory_is_passed_over(
    place: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    """Not set, not absolute, not there, or open to others: then the temporary directory."""
    (place / "open").mkdir()
    (place / "open").chmod(0o755)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(place / "open") if given == "open" else given)
    monkeypatch.setattr(tempfile, "tempdir", str(place))

    assert runtime_folder() == place / f"peercache-{os.geteuid()}"


def test_a_file_is_read_as_it_was_written(place: Path) -> None:
    """And cannot be written twice."""
    os.close(write_private(place / "file", "text"))

    assert read_private(place / "file") == "text"
    assert (place / "file").stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        write_private(place / "file", "other")


def test_a_file_open_to_others_is_refused(place: Path) -> None:
    """It may be known to them."""
    (place / "file").write_text("text")
    (place / "file").chmod(0o640)

    _refused(lambda: read_private(place / "file"), "open to others")


@as_root
def test_a_file_of_another_user_is_refused(place: Path) -> None:
    """It is known to them."""
    (place / "file").write_text("text")
    (place / "file").chmod(0o600)
    os.chown(place / "file", STRANGER, STRANGER)

    _refused(lambda: read_private(place / "file"), f"belongs to user {STRANGER}")


def test_what_is_no_file_is_refused(place: Path) -> None:
    """A link is not followed, a pipe is not waited for."""
    (place / "real").touch(mode=0o600)
    (place / "link").symlink_to(place / "real")
    os.mkfifo(place / "pipe", 0o600)

    _refused(lambda: read_private(place / "link"), "cannot be read")
    _refused(lambda: read_private(place / "pipe"), "not a file")


def test_a_file_without_text_is_refused(place: Path) -> None:
    """Damaged."""
    (place / "file").write_bytes(b"\xff\xfe")
    (place / "file").chmod(0o600)

    _refused(lambda: read_private(place / "file"), "holds no text")


def test_the_folder_name_is_ours_in_both_places() -> None:
    """Another library's folder is never taken for ours."""
    assert private.FOLDER == "peercache"
