"""What is special about the store in a directory: one owner, real crashes, full disks, forks."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any, Final

import pytest

from cache.errors import (
    CorruptStorageError,
    StorageFullError,
    StorageInUseError,
    StorageMismatchError,
)
from cache.storage import Append, Entry, Put, SqliteStorage, records
from cache.storage.base import StorageState
from tests.unit.storage.support import IDENTITY, append, entries, swap

BATCH: Final = 3
"""Entries in one commit of the writer below."""

PRELUDE: Final = """
import asyncio, gc, json, os, resource, signal, sys
from cache.storage import *
signal.alarm(60)
folder = sys.argv[1]
identity = Identity("cluster", "node1")
"""

WRITER: Final = """
async def write(storage, group):
    while True:
        first = storage.group(group).last_index + 1
        batch = [Entry(i, 1, b"%s %d" % (group.encode(), i)) for i in range(first, first + 3)]
        number = batch[-1].index // 3
        await storage.commit(Append(group, batch), Put("done", group.encode(), b"%d" % number))
        os.write(1, json.dumps([group, number]).encode() + b"\\n")

async def main():
    storage = SqliteStorage(folder, identity)
    await storage.open()
    async with asyncio.TaskGroup() as group:
        for name in ("a", "b", "c", "d"):
            group.create_task(write(storage, name))

asyncio.run(main())
"""


def start(program: str, folder: Path, *, before: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    command = [*before, sys.executable, "-c", PRELUDE + program, str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(program: str, folder: Path, *, before: tuple[str, ...] = ()) -> Any:  # Any: JSON
    with start(program, folder, before=before) as process:
        output, errors = process.communicate(timeout=60)
    assert (0, "") == (process.returncode, errors)
    return json.loads(output)


def test_no_kill_loses_an_acknowledged_commit_or_tears_one(tmp_path: Path) -> None:
    """A real process, killed again and again between and inside of commits of four writers."""
    rng = Random(5)
    acknowledged = dict.fromkeys("abcd", 0)
    for _ in range(12):
        with start(WRITER, tmp_path) as process:
            assert process.stdout is not None
            for _ in range(rng.randrange(1, 60)):
                group, number = json.loads(process.stdout.readline())
                acknowledged[group] = number
            process.kill()
            for line in process.stdout.readlines():
                group, number = json.loads(line)
                acknowledged[group] = number
        assert -9 == process.returncode

        found = asyncio.run(_contents(tmp_path))

        for group, (stored, done, problems) in found.items():
            assert stored == [b"%s %d" % (group.encode(), i + 1) for i in range(len(stored))]
            assert len(stored) >= BATCH * acknowledged[group]
            assert len(stored) == BATCH * done
            assert [] == problems
    assert min(acknowledged.values()) > 12


async def _contents(folder: Path) -> dict[str, tuple[list[bytes], int, list[str]]]:
    storage = SqliteStorage(folder, IDENTITY)
    await storage.open()
    found = {}
    for group in "abcd":
        last = storage.group(group).last_index
        stored = await storage.entries(group, 1, last) if last else []
        done = int(await storage.get("done", group.encode()) or b"0")
        found[group] = [entry.data for entry in stored], done, await storage.verify()
    await storage.close()
    return found


async def test_a_second_store_is_refused_until_the_first_is_closed(tmp_path: Path) -> None:
    """Two processes with one vote; the message says who has it."""
    first, second = SqliteStorage(tmp_path, IDENTITY), SqliteStorage(tmp_path, IDENTITY)
    await first.open()

    with pytest.raises(StorageInUseError, match=f"is open in process {os.getpid()}"):
        await second.open()

    await first.close()
    await second.open()
    await second.close()


async def test_a_killed_process_lets_go_of_its_lock(tmp_path: Path) -> None:
    """The system unlocks what a dead process had locked."""
    storage = SqliteStorage(tmp_path, IDENTITY)
    with start(WRITER, tmp_path) as process:
        assert process.stdout is not None
        process.stdout.readline()

        with pytest.raises(StorageInUseError, match=f"is open in process {process.pid}"):
            await storage.open()
        process.kill()

    await storage.open()
    await storage.close()


async def test_commits_that_wait_share_one_transaction(tmp_path: Path) -> None:
    """Group commit: 64 writers do not pay for 64 fsyncs."""
    storage = SqliteStorage(tmp_path, IDENTITY)
    await storage.open()

    await asyncio.gather(*(storage.commit(Put("n", b"%d" % i, b"v")) for i in range(64)))

    assert storage.transaction_count < 32
    await storage.close()


async def test_a_full_store_stops_and_nothing_of_the_commit_is_there(tmp_path: Path) -> None:
    """SQLITE_FULL, here by a limit of its own; later calls say the same until it is opened again."""
    storage = SqliteStorage(tmp_path, IDENTITY, size_bytes_max=256 * 1024)
    await storage.open()
    await storage.commit(append(1, 3))

    with pytest.raises(StorageFullError, match="free some room"):
        await storage.commit(Append("g", [Entry(4, 1, bytes(1_000_000))]), Put("n", b"k", b"v"))

    assert StorageState.STOPPED is storage.state
    assert isinstance(storage.failure, StorageFullError)
    with pytest.raises(StorageFullError, match="has stopped"):
        storage.commit(append(4, 4))
    with pytest.raises(StorageFullError, match="has stopped"):
        await storage.get("n", b"k")
    await storage.open()
    assert 3 == storage.group("g").last_index
    assert await storage.get("n", b"k") is None
    await storage.commit(append(4, 4))
    await storage.close()


FILL: Final = """
async def main():
    {before}
    storage = SqliteStorage(folder, identity)
    await storage.open()
    done = 0
    try:
        for number in range(1, 1000):
            await storage.commit(Append("g", [Entry(number, 1, bytes(20_000))]))
            done = number
    except Exception as error:
        names = [type(error).__name__, storage.state.value]
    await storage.close()
    {after}
    storage = SqliteStorage(folder, identity)
    await storage.open()
    last = storage.group("g").last_index
    problems = await storage.verify()
    await storage.close()
    print(json.dumps([*names, last - done, problems, done > 3]))

asyncio.run(main())
"""


@pytest.mark.skipif(
    not (hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("unshare")),
    reason="takes root and unshare to mount a small file system",
)
def test_a_full_disk_stops_the_store_and_keeps_what_was_acknowledged(tmp_path: Path) -> None:
    """ENOSPC on a real file system of one megabyte, mounted where only the child sees it."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = f'mount -t tmpfs -o size=1m tmpfs {folder} && exec "$0" "$@"'
    before = ("unshare", "-m", "sh", "-c", mount)
    mounted = subprocess.run([*before, "true"], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"mounting is not permitted here: {mounted.stderr.decode()}")
    after = 'os.system(f"mount -o remount,size=4m {folder}")'

    kind, state, more, problems, wrote = run(
        FILL.format(before="pass", after=after), folder, before=before
    )

    assert ("StorageFullError", "stopped", 0, [], True) == (kind, state, more, problems, wrote)


def test_an_error_of_the_device_stops_the_store(tmp_path: Path) -> None:
    """A write that fails otherwise (here EFBIG, by a limit on the size of files) is no full disk."""
    limit = "resource.setrlimit(resource.RLIMIT_FSIZE, ({}, resource.RLIM_INFINITY))"
    program = FILL.format(before=limit.format(200_000), after=limit.format(10**9))

    kind, state, more, problems, wrote = run(program, tmp_path)

    assert ("StorageFailedError", "stopped", 0, [], True) == (kind, state, more, problems, wrote)


async def test_a_record_in_anothers_place_is_found(tmp_path: Path) -> None:
    """A misdirected write: the record is whole, but of another position."""
    storage = SqliteStorage(tmp_path, IDENTITY)
    await storage.open()
    await storage.commit(append(1, 3))
    await storage.close()
    other = records.seal_entry("g", entries(2, 2)[0]).sealed
    swap(storage, records.entry_position("g", 3), lambda _: other)

    await storage.open()

    with pytest.raises(CorruptStorageError, match="entry 3 of group 'g' is damaged"):
        await storage.entries("g", 1, 3)
    assert ["entry 3 of group 'g'"] == await storage.verify()
    await storage.close()


@pytest.mark.parametrize("index", [1, 3, 5])
async def test_a_missing_record_is_found(tmp_path: Path, index: int) -> None:
    """First, last or in between: the group's state says what must be there."""
    storage = SqliteStorage(tmp_path, IDENTITY)
    await storage.open()
    await storage.commit(append(1, 5))
    await storage.close()
    connection = sqlite3.connect(tmp_path / "records.sqlite", isolation_level=None)
    position = records.entry_position("g", index)
    connection.execute("DELETE FROM records WHERE position = ?", (position,))
    connection.close()

    await storage.open()

    with pytest.raises(CorruptStorageError, match=f"entry {index} of group 'g' is missing"):
        await storage.entries("g", 1, 5)
    assert [f"entry {index} of group 'g'"] == await storage.verify()
    await storage.close()


async def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    """An older version of the library does not guess."""
    storage = SqliteStorage(tmp_path, IDENTITY)
    await storage.open()
    await storage.close()
    connection = sqlite3.connect(tmp_path / "records.sqlite")
    connection.execute("PRAGMA user_version = 2")
    connection.close()

    with pytest.raises(StorageMismatchError, match=r"has format 2; .* reads up to 1: update it"):
        await storage.open()


async def test_what_is_no_store_is_refused(tmp_path: Path) -> None:
    """Another application's database, and a file that is none."""
    database = tmp_path / "records.sqlite"
    connection = sqlite3.connect(database)
    connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    with pytest.raises(StorageMismatchError, match="another application's database"):
        await SqliteStorage(tmp_path, IDENTITY).open()

    database.write_bytes(b"not a database at all" * 100)
    with pytest.raises(CorruptStorageError, match="not a database"):
        await SqliteStorage(tmp_path, IDENTITY).open()


async def test_a_refused_store_holds_no_lock(tmp_path: Path) -> None:
    """Whoever comes next finds the same error, not a lock."""
    (tmp_path / "records.sqlite").write_bytes(b"not a database at all" * 100)
    storage = SqliteStorage(tmp_path, IDENTITY)

    for _ in range(2):
        with pytest.raises(CorruptStorageError):
            await storage.open()

    assert StorageState.NEW is storage.state


FORK: Final = """
async def main():
    storage = SqliteStorage(folder, identity)
    await storage.open()
    await storage.commit(Put("n", b"k", b"1"))
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            storage.commit(Put("n", b"k", b"2"))
        except Exception as error:
            os.write(writing, type(error).__name__.encode())
        storage = None
        gc.collect()
        os._exit(0)   # An ordinary end would close asyncio's loop, which is the parent's as well.
    os.close(writing)
    said = os.read(reading, 100).decode()
    code = os.waitpid(pid, 0)[1]
    await storage.commit(Put("n", b"l", b"3"))
    values = [(await storage.get("n", key)).decode() for key in (b"k", b"l")]
    other = SqliteStorage(folder, identity)
    try:
        await other.open()
    except Exception as error:
        refused = type(error).__name__
    problems = await storage.verify()
    await storage.close()
    print(json.dumps([said, code, values, refused, problems]))

asyncio.run(main())
"""


def test_a_forked_child_is_refused_and_does_not_disturb_its_parent(tmp_path: Path) -> None:
    """Neither the lock nor the connection of the parent ends with the child."""
    expected = ["ForkedProcessError", 0, ["1", "3"], "StorageInUseError", []]

    assert expected == run(FORK, tmp_path)
