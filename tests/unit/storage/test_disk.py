"""The simulated disk: each fault happens, is seen, and the same seed gives the same run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from cache.errors import (
    CorruptStorageError,
    StorageFailedError,
    StorageFullError,
    StorageInUseError,
)
from cache.storage import Put
from cache.storage.base import StorageState
from cache.testing.sim.disk import SimDisk, SimStorage
from cache.testing.sim.world import World, run_simulation
from tests.unit.storage.support import IDENTITY, append, entries

SEEDS = range(40)


def simulate(seed: int, scenario: Callable[[SimDisk], Awaitable[None]]) -> SimDisk:
    """Run `scenario` with a disk of a fresh world; return the disk."""
    disks: list[SimDisk] = []

    async def run(world: World) -> None:
        disks.append(SimDisk(world.kernel, "host"))
        await scenario(disks[0])

    run_simulation(seed, run)
    return disks[0]


async def opened(disk: SimDisk) -> SimStorage:
    storage = SimStorage(disk, IDENTITY)
    await storage.open()
    return storage


def test_a_loss_of_power_keeps_what_was_acknowledged_and_whole_commits_only() -> None:
    """Over seeds: nothing more, something more, and a torn commit all happen."""
    counts: dict[str, int] = {"torn": 0, "lost": 0}
    extra: dict[int, None] = {}

    async def scenario(disk: SimDisk) -> None:
        storage = await opened(disk)
        await storage.commit(append(1, 4))
        for first in (5, 7, 9):
            storage.commit(append(first, first + 1), Put("n", b"last", b"%d" % (first + 1)))
        disk.crash(power_loss=True)

        storage = await opened(disk)
        last = storage.group("g").last_index
        assert last in (4, 6, 8, 10)
        assert entries(1, last) == await storage.entries("g", 1, last)
        assert (None if last == 4 else b"%d" % last) == await storage.get("n", b"last")
        assert [] == await storage.verify()
        extra[last] = None

    for seed in SEEDS:
        disk = simulate(seed, scenario)
        for name in counts:
            counts[name] += disk.happened[name]

    assert min(counts.values()) > 3
    assert {4, 6} <= set(extra)


def test_a_crash_of_the_process_keeps_what_the_system_was_given() -> None:
    """SIGKILL loses no byte of the system's cache."""

    async def scenario(disk: SimDisk) -> None:
        storage = await opened(disk)
        storage.commit(append(1, 2))
        storage.commit(append(3, 4))  # Waits behind the first, in the process.
        disk.crash(power_loss=False)

        storage = await opened(disk)
        assert 2 == storage.group("g").last_index

    for seed in SEEDS:
        simulate(seed, scenario)


def test_a_disk_that_lies_about_a_sync_loses_what_was_acknowledged() -> None:
    """No store can help here; a replicated log on it has to survive with the others' copies."""
    lost = []

    async def scenario(disk: SimDisk) -> None:
        storage = await opened(disk)
        await storage.commit(append(1, 1))
        disk.faults.lie = 1.0
        await storage.commit(append(2, 2))
        disk.crash(power_loss=True)

        disk.faults.lie = 0.0
        storage = await opened(disk)
        assert storage.group("g").last_index in (1, 2)
        lost.append(storage.group("g").last_index == 1)

    for seed in SEEDS:
        assert 1 <= simulate(seed, scenario).happened["lie"]
    assert any(lost)


def test_an_honest_sync_after_a_lie_makes_all_of_it_durable() -> None:
    """A sync is of the whole file."""

    async def scenario(disk: SimDisk) -> None:
        storage = await opened(disk)
        disk.faults.lie = 1.0
        await storage.commit(append(1, 1))
        disk.faults.lie = 0.0
        await storage.commit(append(2, 2))
        disk.crash(power_loss=True)

        assert 2 == (await opened(disk)).group("g").last_index

    for seed in SEEDS:
        simulate(seed, scenario)


def test_a_failed_sync_stops_the_store_for_all_who_wait() -> None:
    """EIO: nobody is told that it worked, and nothing is tried again."""

    async def scenario(disk: SimDisk) -> None:
        storage = await opened(disk)
        await storage.commit(append(1, 1))
        disk.faults.eio = 1.0
        futures = [storage.commit(append(index, index)) for index in (2, 3)]
        for future in futures:
            with pytest.raises(StorageFailedError, match="input/output error"):
                await future
        assert StorageState.STOPPED is storage.state
        with pytest.raises(StorageFailedError, match="has stopped"):
            storage.commit(append(4, 4))
        disk.faults.eio = 0.0
        await storage.open()
        assert entries(1, 1) == await storage.entries("g", 1, 1)

    assert 1 == simulate(0, scenario).happened["eio"]


def test_a_full_disk_stops_the_store() -> None:
    """ENOSPC, by a switch and by the size of the disk."""

    async def scenario(disk: SimDisk) -> None:
        storage = await opened(disk)
        await storage.commit(append(1, 1))
        disk.capacity_bytes = 1000
        with pytest.raises(StorageFullError, match="is full"):
            await storage.commit(Put("n", b"k", bytes(1000)))
        await storage.open()
        assert await storage.get("n", b"k") is None
        disk.faults.full = True
        with pytest.raises(StorageFullError):
            await storage.commit(append(2, 2))
        assert StorageState.STOPPED is storage.state

    assert 2 == simulate(0, scenario).happened["full"]


def test_a_bit_flipped_on_the_way_is_found_by_the_checksum() -> None:
    """The next read is right again: the disk itself is sound."""

    async def scenario(disk: SimDisk) -> None:
        storage = await opened(disk)
        await storage.commit(append(1, 3))
        disk.faults.flip = 1.0
        with pytest.raises(CorruptStorageError, match="entry 1 of group 'g' is damaged"):
            await storage.entries("g", 1, 3)
        disk.faults.flip = 0.0
        assert entries(1, 3) == await storage.entries("g", 1, 3)

    assert 3 == simulate(0, scenario).happened["flip"]


def test_commits_that_wait_for_a_sync_share_the_next() -> None:
    """Two syncs for many commits, and a sync takes time."""

    async def scenario(disk: SimDisk) -> None:
        disk.faults.latency = (0.25, 0.25)
        storage = await opened(disk)
        started_at, synced = disk.kernel.now, disk.sync_count
        await asyncio.gather(*(storage.commit(append(i, i)) for i in range(1, 65)))
        assert synced + 2 == disk.sync_count
        assert pytest.approx(0.5) == disk.kernel.now - started_at

    simulate(0, scenario)


def test_two_processes_cannot_have_it_open() -> None:
    """As on a real one, until the first is dead."""

    async def scenario(disk: SimDisk) -> None:
        await opened(disk)
        with pytest.raises(StorageInUseError):
            await opened(disk)
        disk.crash(power_loss=False)
        await opened(disk)

    simulate(0, scenario)


def test_the_same_seed_gives_the_same_disk() -> None:
    """And another seed another."""

    def journal(seed: int) -> bytes:
        async def scenario(disk: SimDisk) -> None:
            storage = await opened(disk)
            for index in range(1, 20):
                storage.commit(append(index, index))
            disk.crash(power_loss=True)

        disk = simulate(seed, scenario)
        return bytes(disk._journal)

    assert journal(3) == journal(3)
    assert 1 < len({journal(seed) for seed in range(8)})
