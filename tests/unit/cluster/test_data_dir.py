"""A member's folder: a name chosen once, a store of its own, and refusals that say what to do."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from typing import Final

import msgspec
import pytest

from cache.cluster.config import ClusterConfig
from cache.cluster.data_dir import NAME, _write_once, kept_name
from cache.cluster.node import Node
from cache.errors import (
    CorruptStorageError,
    StorageFailedError,
    StorageInUseError,
    StorageMismatchError,
)
from cache.storage import Identity, Put, SqliteStorage, records
from cache.storage.base import FORMAT
from cache.storage.sqlite import DATABASE

IDENTITY: Final = Identity("cluster", "node1")

HOLDER: Final = """
import asyncio, sys
from cache.storage import Identity, SqliteStorage

async def main():
    await SqliteStorage(sys.argv[1], Identity("cluster", "node1")).open()
    print("open", flush=True)
    sys.stdin.read()

asyncio.run(main())
"""


# -- the name ----------------------------------------------------------------------------------------


def test_a_name_is_chosen_once(tmp_path: Path) -> None:
    """The first one proposed stays, in a folder that is made; nothing else is left behind."""
    folder = tmp_path / "deep" / "data"

    assert "node-1" == kept_name(str(folder), "node-1")
    assert "node-1" == kept_name(str(folder), "node-2")

    assert {NAME: "node-1\n"} == {path.name: path.read_text() for path in folder.iterdir()}


def test_a_name_that_came_meanwhile_stays(tmp_path: Path) -> None:
    """1. Both see that there is none. 2. The other one's is there. 3. This one's comes too late."""
    _write_once(tmp_path / NAME, "node-1")

    _write_once(tmp_path / NAME, "node-2")

    assert {NAME: "node-1\n"} == {path.name: path.read_text() for path in tmp_path.iterdir()}


def test_those_who_begin_at_once_agree_on_one_name(tmp_path: Path) -> None:
    """Whoever it is whose name is linked first."""
    found: list[str] = []
    barrier = threading.Barrier(8)

    def begin(number: int) -> None:
        barrier.wait()
        found.append(kept_name(str(tmp_path), f"node-{number}"))

    threads = [threading.Thread(target=begin, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert 8 == len(found)
    assert 1 == len(set(found))
    assert [NAME] == [path.name for path in tmp_path.iterdir()]


@pytest.mark.parametrize("content", [b"", b"\n", b"a b\n", b"\xff\n", b"a\nb\n", b"a" * 5000])
def test_a_damaged_name_is_refused(tmp_path: Path, content: bytes) -> None:
    """A member does not become another one by a bad sector."""
    (tmp_path / NAME).write_bytes(content)

    with pytest.raises(CorruptStorageError, match="set `name` to the one it had"):
        kept_name(str(tmp_path), "node-1")


async def test_no_name_is_chosen_beside_the_data_of_a_named_member(tmp_path: Path) -> None:
    """It would not fit the store, for ever."""
    storage = SqliteStorage(str(tmp_path), IDENTITY)
    await storage.open()
    await storage.close()

    with pytest.raises(StorageMismatchError, match="set `name` to it again"):
        kept_name(str(tmp_path), "node-1")

    assert not (tmp_path / NAME).exists()


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    """A file is in its place."""
    (tmp_path / "file").write_text("")

    with pytest.raises(StorageFailedError, match=r"file.*Not a directory"):
        kept_name(str(tmp_path / "file" / "data"), "node-1")


def test_a_node_has_the_name_of_its_folder(tmp_path: Path) -> None:
    """Unless its configuration has one; without a folder each node has another name."""
    kept = ClusterConfig.local(data_dir=str(tmp_path))

    assert Node(kept).name == Node(kept).name == (tmp_path / NAME).read_text().strip()
    assert Node(ClusterConfig.local()).name != Node(ClusterConfig.local()).name
    assert "a" == Node(ClusterConfig.local(name="a", data_dir=str(tmp_path))).name


# -- the store ---------------------------------------------------------------------------------------


def test_without_a_folder_there_is_none() -> None:
    """Nor is anything of it imported."""
    program = (
        "import sys; from cache.cluster import ClusterConfig, Node; "
        "print(Node(ClusterConfig.local())._storage, *({'sqlite3', 'cache.storage'} & {*sys.modules}))"
    )

    shown = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert shown.stdout == "None\n"


async def test_a_folder_keeps_what_was_committed(tmp_path: Path) -> None:
    """Nothing is touched before it is opened."""
    folder = tmp_path / "data"
    first = SqliteStorage(str(folder), IDENTITY)
    assert isinstance(first, SqliteStorage)
    assert not folder.exists()

    await first.open()
    await first.commit(Put("n", b"k", b"v"))
    await first.close()
    second = SqliteStorage(str(folder), IDENTITY)
    await second.open()

    assert b"v" == await second.get("n", b"k")
    await second.close()


@pytest.mark.parametrize(
    ("identity", "said"),
    [
        (
            Identity("other", "node1"),
            "belongs to cluster 'cluster', not to 'other'; give each node",
        ),
        (Identity("cluster", "node2"), "belongs to node 'node1', not to 'node2'; give each node"),
    ],
)
async def test_the_folder_of_another_is_refused(
    tmp_path: Path, identity: Identity, said: str
) -> None:
    """With whose it is; its owner can open it afterwards."""
    own = SqliteStorage(str(tmp_path), IDENTITY)
    await own.open()
    await own.close()

    with pytest.raises(StorageMismatchError, match=said):
        await SqliteStorage(str(tmp_path), identity).open()

    await own.open()
    await own.close()


async def test_the_folder_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    """In the database's own version, and in the record of whose it is."""
    own = SqliteStorage(str(tmp_path), IDENTITY)
    await own.open()
    newer = msgspec.msgpack.encode((FORMAT + 1, "whatever"))
    record = records.seal(records.IDENTITY_POSITION, newer)
    await own.close()
    with sqlite3.connect(tmp_path / DATABASE) as connection:
        connection.execute("UPDATE records SET sealed = ? WHERE position = x'69'", (record.sealed,))
    connection.close()

    with pytest.raises(StorageMismatchError, match=r"has format 2.*update it"):
        await SqliteStorage(str(tmp_path), IDENTITY).open()


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    """Until the first one has ended, however that was."""

    async def use() -> None:
        storage = SqliteStorage(str(tmp_path), IDENTITY)
        await storage.open()
        await storage.close()

    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ},
    ) as holder:
        assert holder.stdout is not None
        assert b"open\n" == holder.stdout.readline()
        with pytest.raises(StorageInUseError, match=f"process {holder.pid}; give each node"):
            asyncio.run(use())
        holder.kill()
        holder.wait()

    asyncio.run(use())


# -- the node ----------------------------------------------------------------------------------------


async def test_a_node_that_is_refused_its_folder_listens_nowhere(tmp_path: Path) -> None:
    """One of two with one folder: nobody hears of it, and the other one is not disturbed."""
    config = ClusterConfig.local(name="a", data_dir=str(tmp_path))
    async with Node(config) as first:
        second = Node(config)
        with pytest.raises(StorageInUseError, match=f"process {os.getpid()}"):
            await second.start()

        assert not hasattr(second, "_rpc")
        await first.map("m").set("k", 1)
        assert 1 == await first.map("m").get("k")


async def test_a_node_lets_go_of_its_folder(tmp_path: Path) -> None:
    """By leaving, by ending at once, and by a start that fails: the next one can have it."""
    config = ClusterConfig.local(name="a", data_dir=str(tmp_path))
    async with Node(config):
        pass
    ended = Node(config)
    await ended.start()
    await ended.abort()
    with pytest.raises(OSError, match="address"):
        await Node(config.with_changes(bind="192.0.2.1:1", allow_insecure_bind=True)).start()
    with pytest.raises(StorageMismatchError, match="belongs to node 'a', not to 'b'"):
        await Node(config.with_changes(name="b")).start()

    async with Node(config) as last:
        assert "a" == last.name
