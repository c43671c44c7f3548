"""Several nodes in this process, on real loopback sockets; network faults by the proxy, if asked for."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from cache.cluster.client.client import ClusterClient
from cache.cluster.config import ClusterConfig
from cache.cluster.node import Node
from cache.cluster.structures.gateway import call_method
from cache.testing.members import LoopClient
from cache.testing.worlds.base import ClientMaker, UnsupportedFaultError
from cache.testing.worlds.relayed import NetworkFaults

R = TypeVar("R")


class NodeBackend:
    """Calls a node that runs on this very event loop."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.id = node.id
        self.address = node.address

    async def call(self, map_name: str, method: str, arguments: Mapping[str, Any]) -> Any:
        """Run a map method.  # Any: as the map's method."""
        return await call_method(self.node.map(map_name), method, arguments)

    async def run(self, function: Callable[[Node], Coroutine[Any, Any, R]]) -> R:
        """Run `function(node)`.  # Any: what coroutines send and yield."""
        return await function(self.node)

    async def inspect(self, what: str) -> Any:
        """Ask the node about itself.  # Any: MessagePack values."""
        return self.node.inspect(what)

    async def drain(self) -> Mapping[str, Any]:
        """Let the node leave gracefully.  # Any: MessagePack values."""
        return asdict(await self.node.drain())


class SocketsWorld(NetworkFaults):
    """Real sockets, real time, one event loop. `faults` puts the fault-injecting proxy between members."""

    def __init__(self, *, faults: bool = False) -> None:
        super().__init__(faults=faults)
        self._nodes: dict[int, Node] = {}
        self._clients: list[ClusterClient] = []
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    async def start(self, index: int, config: ClusterConfig) -> NodeBackend:
        """Start a node on this loop."""
        environment = None
        if self._relays is not None:
            await self._relays.open()
            environment = self._relays.environment(index, config.tls)
        node = Node(config, environment=environment)
        await node.start()
        self._nodes[index] = node
        return NodeBackend(node)

    async def client(self, index: int, client: ClientMaker) -> LoopClient:
        """Start a client on this loop."""
        made = client(None if self._relays is None else self._relays.environment(index, None))
        await made.start()
        self._clients.append(made)
        return LoopClient(made)

    async def kill(self, index: int, *, power_loss: bool = False) -> None:
        """Close the node's sockets without a goodbye."""
        if power_loss:
            raise UnsupportedFaultError("power_loss: nodes in one process")
        await self._ended(index)

    async def forget(self, index: int) -> None:
        """Drop a node that closed by itself."""
        await self._ended(index)

    async def _ended(self, index: int) -> None:
        await self._nodes.pop(index).abort()
        if self._relays is not None:
            self._relays.links.left(index)

    async def pause(self, index: int) -> None:
        """Not possible: the nodes share one event loop."""
        raise UnsupportedFaultError("pause: nodes in one process share its event loop")

    async def resume(self, index: int) -> None:
        """Not possible, see `pause`."""
        raise UnsupportedFaultError("resume: nodes in one process share its event loop")

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
        """Stop every node, then what is between them, and remove what they kept."""
        try:
            for client in self._clients:
                await client.close()
            for index in sorted(self._nodes):
                await self._nodes[index].abort()
            self._nodes.clear()
        finally:
            if self._relays is not None:
                await self._relays.close()
            if self._folder is not None:
                self._folder.cleanup()
