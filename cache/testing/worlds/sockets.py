"""Several nodes in this process, on real loopback sockets. Network faults cannot be injected here."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cache.cluster.client.client import ClusterClient
from cache.cluster.config import ClusterConfig
from cache.cluster.node import Node
from cache.cluster.structures.gateway import call_method
from cache.testing.members import LoopClient
from cache.testing.worlds.base import ClientMaker, UnsupportedFaultError


class NodeBackend:
    """Calls a node that runs on this very event loop."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.id = node.id
        self.address = node.address

    async def call(self, map_name: str, method: str, arguments: Mapping[str, Any]) -> Any:
        """Run a map method.  # Any: as the map's method."""
        return await call_method(self.node.map(map_name), method, arguments)

    async def inspect(self, what: str) -> Any:
        """Ask the node about itself.  # Any: MessagePack values."""
        return self.node.inspect(what)

    async def drain(self) -> Mapping[str, Any]:
        """Let the node leave gracefully.  # Any: MessagePack values."""
        return asdict(await self.node.drain())


class SocketsWorld:
    """Real sockets, real time, one event loop."""

    def __init__(self) -> None:
        self._nodes: dict[int, Node] = {}
        self._clients: list[ClusterClient] = []
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    async def start(self, index: int, config: ClusterConfig) -> NodeBackend:
        """Start a node on this loop."""
        node = Node(config)
        await node.start()
        self._nodes[index] = node
        return NodeBackend(node)

    async def client(self, index: int, client: ClientMaker) -> LoopClient:
        """Start a client on this loop."""
        made = client(None)
        await made.start()
        self._clients.append(made)
        return LoopClient(made)

    async def kill(self, index: int, *, power_loss: bool = False) -> None:
        """Close the node's sockets without a goodbye."""
        if power_loss:
            raise UnsupportedFaultError("power_loss: nodes in one process")
        await self._nodes.pop(index).abort()

    async def forget(self, index: int) -> None:
        """Drop a node that closed by itself."""
        await self._nodes.pop(index).abort()

    async def pause(self, index: int) -> None:
        """Not possible: the nodes share one event loop."""
        raise UnsupportedFaultError("pause: nodes in one process share its event loop")

    async def resume(self, index: int) -> None:
        """Not possible, see `pause`."""
        raise UnsupportedFaultError("resume: nodes in one process share its event loop")

    def set_cuts(self, cuts: Sequence[tuple[int, int]]) -> None:
        """Not possible: the kernel's loopback has no faults."""
        raise UnsupportedFaultError("cut: real loopback sockets")

    def heal(self) -> int:
        """Not possible, see `set_cuts`."""
        raise UnsupportedFaultError("heal: real loopback sockets")

    def link(self, source: int, target: int, **conditions: float) -> None:
        """Not possible, see `set_cuts`."""
        raise UnsupportedFaultError("link: real loopback sockets")

    def mend(self, source: int, target: int) -> None:
        """Not possible, see `set_cuts`."""
        raise UnsupportedFaultError("mend: real sockets on loopback")

    def slow(self, index: int, seconds: float) -> None:
        """Not possible without limiting the processor."""
        raise UnsupportedFaultError("slow: real sockets on loopback")

    def clock(self, index: int, **shifts: float) -> None:
        """Not possible: nodes in one process share its clocks."""
        raise UnsupportedFaultError("clock: real clocks")

    def data_dir(self, index: int) -> str:
        """Return a folder that ends with this world."""
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="cache-test-")
        return str(Path(self._folder.name) / f"m{index}")

    def drop_disk(self, index: int) -> None:
        """Remove that folder."""
        shutil.rmtree(self.data_dir(index), ignore_errors=True)

    def disk(self, index: int, **faults: object) -> None:
        """Not possible: the disk is the machine's."""
        raise UnsupportedFaultError("disk: a real one")

    def mend_disk(self, index: int) -> Mapping[str, int]:
        """Not possible, see `disk`."""
        raise UnsupportedFaultError("mend_disk: a real one")

    def rot(self, index: int, text: str) -> str:
        """Not possible, see `disk`."""
        raise UnsupportedFaultError("rot: a real disk")

    def now(self) -> float:
        """Seconds of the event loop."""
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        """Let real time pass."""
        await asyncio.sleep(seconds)

    async def close(self) -> None:
        """Stop every node, and remove what they kept."""
        try:
            for client in self._clients:
                await client.close()
            for index in sorted(self._nodes):
                await self._nodes[index].abort()
            self._nodes.clear()
        finally:
            if self._folder is not None:
                self._folder.cleanup()
