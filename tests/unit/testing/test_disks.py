"""Disks of a test cluster: kept or not, with faults that must have happened, and gone afterwards."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, Final, cast

import pytest

from cache.cluster.config import ClusterConfig
from cache.cluster.raft.messages import GroupId
from cache.cluster.raft.outputs import HardState, Persist, Persisted
from cache.cluster.raft.status import bootstrap
from cache.cluster.raft.stored import StoredLogs
from cache.errors import CorruptStorageError, StorageFailedError, StorageFullError
from cache.storage import Put, Storage
from cache.testing.cluster import TestCluster
from cache.testing.running import cluster_test, run_cluster
from cache.testing.worlds.processes import ProcessesWorld
from cache.testing.worlds.simulated import SimulatedBackend
from cache.testing.worlds.sockets import NodeBackend, SocketsWorld

GROUP: Final = GroupId("of this test")
LOG: Final = bootstrap(("m0/log",))

Work = Callable[[Storage], Coroutine[Any, Any, Any]]  # Any: what it returns


def simulate(scenario: Callable[[TestCluster], Awaitable[None]], seed: int = 0) -> None:
    run_cluster(scenario, size=1, seed=seed, partition_count=16, data_dir="asked for")


async def on(cluster: TestCluster, work: Work, index: int = 0) -> Any:  # Any: as `work`
    """Run something with the store of a member, on the member's own loop."""
    backend = cast("SimulatedBackend | NodeBackend", cluster.member(index)._backend)
    storage = backend.node._storage
    assert storage is not None
    if isinstance(backend, SimulatedBackend):
        return await backend.process.run(work(storage))
    return await work(storage)


async def put(storage: Storage, value: bytes = b"kept") -> None:
    await storage.commit(Put("of this test", b"k", value))


async def get(storage: Storage) -> bytes | None:
    return await storage.get("of this test", b"k")


async def begin_log(storage: Storage) -> None:
    await StoredLogs(storage).create(GROUP, LOG, uuid=b"u", log_id="log")


async def load_log(storage: Storage) -> Persisted | None:
    found = await StoredLogs(storage).load(GROUP)
    return None if found is None else found.persisted


# -- kept or not -------------------------------------------------------------------------------------


@cluster_test("simulated", "sockets", size=2, data_dir="asked for")
async def test_a_restarted_member_finds_its_disk(cluster: TestCluster) -> None:
    """After a crash, unless the test says otherwise; each member has its own."""
    await on(cluster, put)
    assert await on(cluster, get, 1) is None

    await cluster.kill(0)
    await cluster.restart(0)
    assert b"kept" == await on(cluster, get)
    await cluster.kill(0)
    await cluster.restart(0, keep_disk=True)
    assert b"kept" == await on(cluster, get)
    await cluster.kill(0)
    await cluster.restart(0, keep_disk=False)

    assert await on(cluster, get) is None


@cluster_test("simulated", size=1)
async def test_a_member_without_a_disk_has_none_to_keep(cluster: TestCluster) -> None:
    """A test that says `keep_disk=True` is not to pass for another reason."""
    await cluster.kill(0)

    with pytest.raises(AssertionError, match="start it with a data_dir"):
        await cluster.restart(0, keep_disk=True)
    with pytest.raises(AssertionError, match="no data_dir"):
        cluster.disk(0, full=True)


@cluster_test("simulated", size=1, data_dir="asked for")
async def test_a_member_that_left_has_let_go_of_its_disk(cluster: TestCluster) -> None:
    """It closed its store; the next life opens it."""
    await on(cluster, put)
    await cluster.add_member()
    await cluster.wait_for_convergence()

    await cluster.remove_member(0)
    await cluster.restart(0)

    assert b"kept" == await on(cluster, get)


def test_folders_of_real_members_end_with_the_cluster() -> None:
    """Also when the scenario fails; a member started later has one, too."""
    folders: list[Path] = []

    async def scenario(cluster: TestCluster) -> None:
        await cluster.add_member()
        for index in (0, 1):
            folder = Path(cluster._configs[index].data_dir or "")
            assert (folder / "records.sqlite").exists()
            folders.append(folder)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_cluster(scenario, world="sockets", size=1, data_dir="asked for")

    assert 2 == len({*folders})
    assert not any(folder.parent.exists() for folder in folders)
    assert not Path("asked for").exists()


def test_folders_of_processes_outlive_them_and_end_with_the_cluster() -> None:
    """Killed and started again, each on its own; nothing is left."""
    folders: list[Path] = []

    async def scenario(cluster: TestCluster) -> None:
        folder = Path(cluster._configs[0].data_dir or "")
        folders.append(folder)
        lock = (folder / "lock").read_text()
        await cluster.kill(0)
        assert (folder / "records.sqlite").exists()
        await cluster.restart(0)
        assert lock != (folder / "lock").read_text()
        assert str(os.getpid()) != lock.strip()
        await cluster.kill(0)
        (folder / "mark").touch()
        await cluster.restart(0, keep_disk=False)
        assert not (folder / "mark").exists()

    run_cluster(scenario, world="processes", size=1, data_dir="asked for")

    assert not folders[0].parent.exists()


@pytest.mark.parametrize("world", [SocketsWorld, ProcessesWorld])
def test_a_cluster_that_cannot_begin_leaves_no_folder(
    world: type[SocketsWorld | ProcessesWorld],
) -> None:
    """The member finds something else where its folder is to be."""
    made = world()
    folder = Path(made.data_dir(0))
    folder.write_text("in the way")
    config = ClusterConfig.local(data_dir="asked for")

    async def begin() -> None:
        async with TestCluster(1, world=made, config=config):
            raise ZeroDivisionError

    with pytest.raises((StorageFailedError, AssertionError), match="m0"):
        asyncio.run(begin())

    assert not folder.parent.exists()


# -- faults ------------------------------------------------------------------------------------------


def test_a_full_disk_stops_the_store_until_the_member_is_restarted() -> None:
    """What was acknowledged before is there."""

    async def scenario(cluster: TestCluster) -> None:
        await on(cluster, put)
        cluster.disk(0, full=True)
        with pytest.raises(StorageFullError):
            await on(cluster, lambda storage: put(storage, b"more"))
        assert {"full": 1} == cluster.mend_disk(0)
        with pytest.raises(StorageFullError):
            await on(cluster, lambda storage: put(storage, b"more"))

        await cluster.kill(0)
        await cluster.restart(0)

        assert b"kept" == await on(cluster, get)

    simulate(scenario)


def test_a_sync_that_fails_stops_the_store() -> None:
    """It may be there or not; nothing after it is acknowledged."""

    async def scenario(cluster: TestCluster) -> None:
        cluster.disk(0, eio=1.0)
        with pytest.raises(StorageFailedError):
            await on(cluster, put)
        assert {"eio": 1} == cluster.mend_disk(0)
        with pytest.raises(StorageFailedError):
            await on(cluster, put)

    simulate(scenario)


def test_a_read_with_a_wrong_bit_is_noticed() -> None:
    """For as long as the fault lasts: the disk itself has it right."""

    async def scenario(cluster: TestCluster) -> None:
        await on(cluster, begin_log)
        cluster.disk(0, flip=1.0)
        with pytest.raises(CorruptStorageError):
            await on(cluster, load_log)
        assert 1 == cluster.mend_disk(0)["flip"]

        assert LOG == await on(cluster, load_log)

    simulate(scenario)


def test_a_record_that_rots_is_noticed_after_a_restart() -> None:
    """It stays damaged; `forget` makes room. A record that is not there cannot rot."""

    async def scenario(cluster: TestCluster) -> None:
        await on(cluster, begin_log)
        with pytest.raises(AssertionError, match=r"no record with .entry 2 of"):
            cluster.rot(0, f"entry 2 of group {GROUP!r}")

        assert f"entry 1 of group {GROUP!r}" == cluster.rot(0, f"entry 1 of group {GROUP!r}")
        await cluster.kill(0)
        await cluster.restart(0)

        with pytest.raises(CorruptStorageError, match="entry 1 of group"):
            await on(cluster, load_log)
        await on(cluster, lambda storage: StoredLogs(storage).forget(GROUP))
        assert await on(cluster, load_log) is None

    simulate(scenario)


def test_a_lying_disk_loses_what_was_acknowledged_when_the_power_goes() -> None:
    """And only then: a crash of the process loses nothing."""

    async def scenario(cluster: TestCluster) -> None:
        await on(cluster, begin_log)
        cluster.disk(0, lie=1.0)
        await on(cluster, _vote)
        await cluster.kill(0)
        await cluster.restart(0)
        loaded = await on(cluster, load_log)
        assert HardState(2, "m0/log") == loaded.hard_state
        cluster.disk(0, lie=1.0, torn=1.0)
        await on(cluster, lambda storage: put(storage, b"not there"))

        await cluster.kill(0, power_loss=True)
        await cluster.restart(0)

        assert await on(cluster, get) is None
        assert {"lie", "torn"} == set(cluster.mend_disk(0))

    simulate(scenario)


async def _vote(storage: Storage) -> None:
    logs = StoredLogs(storage)
    await logs.load(GROUP)
    await logs.write(GROUP, Persist(hard_state=HardState(2, "m0/log")))


@pytest.mark.parametrize("seed", range(5))
def test_a_torn_write_is_as_if_it_had_not_begun(seed: int) -> None:
    """The power goes while a commit is on its way to the disk: nothing of it is there."""

    async def scenario(cluster: TestCluster) -> None:
        await on(cluster, begin_log)
        cluster.disk(0, torn=1.0, latency=(1.0, 1.0))
        voting = asyncio.ensure_future(on(cluster, _vote))
        await cluster.sleep(0.5)
        assert not voting.done()
        await cluster.kill(0, power_loss=True)
        voting.cancel()
        await cluster.restart(0)

        assert LOG == await on(cluster, load_log)
        assert {"torn": 1} == cluster.mend_disk(0)

    simulate(scenario, seed)


def test_a_fault_that_never_happened_fails_the_test() -> None:
    """When it is mended, and at the end at the latest, and when the disk is replaced."""

    async def mended(cluster: TestCluster) -> None:
        cluster.disk(0, torn=1.0, latency=(0.1, 0.2))
        cluster.mend_disk(0)

    async def forgotten(cluster: TestCluster) -> None:
        cluster.disk(0, eio=0.5)

    async def replaced(cluster: TestCluster) -> None:
        cluster.disk(0, full=True)
        await cluster.kill(0)
        await cluster.restart(0, keep_disk=False)

    for scenario, fault in ((mended, "torn"), (forgotten, "eio"), (replaced, "full")):
        with pytest.raises(AssertionError, match=f"never happened.*{fault}"):
            simulate(scenario)


def test_an_unknown_fault_is_named() -> None:
    """With those that there are."""

    async def scenario(cluster: TestCluster) -> None:
        with pytest.raises(
            AssertionError, match="fire: no such fault of a disk; there are latency"
        ):
            cluster.disk(0, fire=1.0)

    simulate(scenario)


@cluster_test("sockets", size=1, data_dir="asked for")
async def test_real_disks_have_no_faults(cluster: TestCluster) -> None:
    """A world that cannot inject a fault skips the test."""
    for fault in (lambda: cluster.disk(0, full=True), lambda: cluster.rot(0, "entry")):
        with pytest.raises(pytest.skip.Exception, match="real"):
            fault()
    with pytest.raises(pytest.skip.Exception, match="power_loss"):
        await cluster.kill(0, power_loss=True)
