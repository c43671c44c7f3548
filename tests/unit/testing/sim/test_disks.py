"""Disks of simulated hosts: one for each path, which outlives the processes that use it."""

from __future__ import annotations

import pytest

from cache.cluster.config import ClusterConfig
from cache.cluster.node import Node
from cache.errors import StorageInUseError, StorageMismatchError
from cache.storage import Identity, Put, Storage
from cache.testing.sim.disk import SimStorage
from cache.testing.sim.world import SimProcess, World, run_simulation

IDENTITY = Identity("cluster", "a")


async def opened(process: SimProcess, data_dir: str, who: Identity = IDENTITY) -> Storage:
    storage = process.environment().storage(data_dir, who)
    await process.run(storage.open())
    return storage


def test_a_path_of_a_host_is_one_disk() -> None:
    """Other paths and other hosts have others."""

    async def scenario(world: World) -> None:
        a, b = world.process("a"), world.process("b")
        first = await opened(a, "/data")
        assert isinstance(first, SimStorage)
        with pytest.raises(StorageInUseError):
            await opened(a, "/data")
        elsewhere = [await opened(a, "/other"), await opened(b, "/data")]

        assert all(isinstance(storage, SimStorage) for storage in elsewhere)

    run_simulation(0, scenario)


def test_a_disk_outlives_its_process_until_it_is_dropped() -> None:
    """It knows whose it is."""

    async def scenario(world: World) -> None:
        first = world.process("a")
        storage = await opened(first, "/data")

        async def put() -> None:
            await storage.commit(Put("n", b"k", b"v"))

        await first.run(put())
        first.kill()
        world.disk(first.host, "/data").crash(power_loss=True)
        second = world.process("a", first.host)
        with pytest.raises(StorageMismatchError, match="belongs to node 'a', not to 'b'"):
            await opened(second, "/data", Identity("cluster", "b"))
        again = await opened(second, "/data")
        assert b"v" == await second.run(again.get("n", b"k"))
        second.kill()
        world.drop_disk(first.host, "/data")

        third = world.process("a", first.host)
        empty = await opened(third, "/data")
        assert await third.run(empty.get("n", b"k")) is None

    run_simulation(0, scenario)


def test_a_name_is_kept_on_the_disk() -> None:
    """A node without one is the same member after a restart, and another one on another disk."""

    async def scenario(world: World) -> None:
        config = ClusterConfig.local(data_dir="/data")
        names = []
        for process in (
            world.process("a", "127.0.1.1"),
            world.process("b", "127.0.1.1"),
            world.process("c"),
        ):

            async def build(process: SimProcess = process) -> str:
                return Node(config, environment=process.environment()).name

            names.append(await process.run(build()))

        assert names[0] == names[1] != names[2]

    run_simulation(0, scenario)
