"""Members in the simulator: virtual time, every fault, the same run for the same seed."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any, TypeVar

from cache.cluster.client.client import ClusterClient
from cache.cluster.config import ClusterConfig
from cache.cluster.node import Node
from cache.cluster.structures.gateway import call_method
from cache.storage.records import describe
from cache.testing.members import LoopClient
from cache.testing.sim.disk import DiskFaults, SimDisk
from cache.testing.sim.world import SimProcess, World
from cache.testing.worlds.base import ClientMaker

R = TypeVar("R")


class SimulatedBackend:
    """Calls a node on its own simulated process."""

    def __init__(self, process: SimProcess, node: Node) -> None:
        self.process = process
        self.node = node
        self.id = node.id
        self.address = node.address

    async def call(self, map_name: str, method: str, arguments: Mapping[str, Any]) -> Any:
        """Run a map method on the node's loop.  # Any: as the map's method."""

        async def call() -> Any:  # Any: as above
            return await call_method(self.node.map(map_name), method, arguments)

        return await self.process.run(call())

    async def run(self, function: Callable[[Node], Coroutine[Any, Any, R]]) -> R:
        """Run `function(node)` on the node's loop.  # Any: what coroutines send and yield."""
        return await self.process.run(function(self.node))

    async def inspect(self, what: str) -> Any:
        """Look into the node; takes no virtual time.  # Any: MessagePack values."""
        return self.node.inspect(what)

    async def drain(self) -> Mapping[str, Any]:
        """Let the node leave gracefully.  # Any: MessagePack values."""
        return asdict(await self.process.run(self.node.drain()))


class SimulatedWorld:
    """Nodes on simulated hosts, one each."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._members: dict[int, SimulatedBackend] = {}
        self._hosts: dict[int, str] = {}
        self._clients: dict[int, SimProcess] = {}
        self._disks: dict[int, SimDisk] = {}
        self._faulty: dict[int, tuple[list[str], Counter[str]]] = {}
        """By member: the faults that were set, and how often each had happened before."""
        self._lives = 0
        self._affected_before = 0

    async def start(self, index: int, config: ClusterConfig) -> SimulatedBackend:
        """Start a process with a node; a restarted member keeps its host."""
        self._lives += 1
        process = self.world.process(f"{config.name}.{self._lives}", self._hosts.get(index))
        self._hosts[index] = process.host
        if config.data_dir is not None:
            self._disks[index] = self.world.disk(process.host, config.data_dir)

        async def build() -> Node:
            return Node(config, environment=process.environment())

        try:
            node = await process.run(build())
            await process.run(node.start())
        except BaseException:
            process.kill()
            self._release(index)
            raise
        backend = self._members[index] = SimulatedBackend(process, node)
        return backend

    async def client(self, index: int, client: ClientMaker) -> LoopClient:
        """Start a process with a client, on a host of its own."""
        process = self._clients[index] = self.world.process(f"client{index}")
        self._hosts[index] = process.host

        async def build() -> ClusterClient:
            made = client(process.environment())
            await made.start()
            return made

        return LoopClient(await process.run(build()), process.run)

    async def kill(self, index: int, *, power_loss: bool = False) -> None:
        """Kill the process, and what its disk did not sync if the power is lost, too."""
        self._members.pop(index).process.kill()
        self._release(index, power_loss=power_loss)

    async def forget(self, index: int) -> None:
        """End the process of a member that left."""
        self._members.pop(index).process.kill()
        self._release(index)

    def _release(self, index: int, *, power_loss: bool = False) -> None:
        if index in self._disks:
            self._disks[index].crash(power_loss=power_loss)

    async def pause(self, index: int) -> None:
        """Stop the process."""
        self._members[index].process.pause()

    async def resume(self, index: int) -> None:
        """Let the process run on."""
        self._members[index].process.resume()

    def set_cuts(self, cuts: Sequence[tuple[int, int]]) -> None:
        """Cut these directions."""
        self.world.network.heal()
        for source, target in cuts:
            self.world.network.cut(self._hosts[source], self._hosts[target])

    def heal(self) -> int:
        """Undo all cuts; return what they stopped."""
        self.world.network.heal()
        total = self.world.network.affected.get("cut", 0)
        affected, self._affected_before = total - self._affected_before, total
        return affected

    def link(self, source: int, target: int, **conditions: float) -> None:
        """Change the conditions of one direction."""
        self.world.network.set_link(self._hosts[source], self._hosts[target], **conditions)

    def mend(self, source: int, target: int) -> int | None:
        """Give one direction the conditions of any other."""
        self.world.network.reset_link(self._hosts[source], self._hosts[target])
        return None

    def slow(self, index: int, seconds: float) -> None:
        """Slow one process down."""
        self._members[index].process.loop.lane.slowness = seconds

    def clock(self, index: int, **shifts: float) -> None:
        """Change a member's clocks: `skew` or `jump` (wall, seconds), `drift` (part)."""
        process = self._members[index].process
        process.clock.skew = shifts.get("skew", process.clock.skew) + shifts.get("jump", 0.0)
        if "drift" in shifts:
            process.loop.set_drift(shifts["drift"])

    def data_dir(self, index: int) -> str:
        """Return the path of a disk; it is on the member's simulated host."""
        return f"/m{index}"

    def drop_disk(self, index: int) -> None:
        """Give the member's host a new disk there."""
        if self._disks.pop(index, None) is not None:
            self.world.drop_disk(self._hosts[index], self.data_dir(index))

    def disk(self, index: int, **faults: Any) -> None:  # Any: fields of DiskFaults
        """Set faults; those that were set before stay."""
        disk = self._disks[index]
        known = [field.name for field in fields(DiskFaults)]
        for name, value in faults.items():
            assert name in known, f"{name}: no such fault of a disk; there are {', '.join(known)}"
            setattr(disk.faults, name, value)
        names = self._faulty.setdefault(index, ([], Counter(disk.happened)))[0]
        names += [name for name in faults if name != "latency" and name not in names]

    def mend_disk(self, index: int) -> Mapping[str, int]:
        """Let the disk work as a new one; what is on it stays as it is."""
        names, before = self._faulty.pop(index, ([], Counter()))
        disk = self._disks[index]
        disk.faults = DiskFaults()
        return {name: disk.happened[name] - before[name] for name in names}

    def rot(self, index: int, text: str) -> str:
        """Damage the first of the records whose name has this text."""
        disk = self._disks[index]
        found = [position for position in disk.content.content if text in describe(position)]
        assert found, f"disk {disk.name} has no record with {text!r} in its name"
        disk.rot(found[0])
        return describe(found[0])

    def now(self) -> float:
        """Virtual seconds."""
        return self.world.now

    async def sleep(self, seconds: float) -> None:
        """Let virtual time pass."""
        await asyncio.sleep(seconds)

    async def close(self) -> None:
        """End every process; ports are free again."""
        for index in sorted(self._members):
            self._members[index].process.kill()
        self._members.clear()
        for index in sorted(self._clients):
            self._clients[index].kill()
        self._clients.clear()
