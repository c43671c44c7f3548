"""Several nodes in this process, on real loopback sockets; network faults by the proxy, if asked for."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import asdict
from typing import Any, TypeVar

from cache.cluster.config import ClusterConfig
from cache.cluster.node import Node
from cache.cluster.structures.gateway import call_method
from cache.testing.worlds.base import UnsupportedFaultError
from cache.testing.worlds.machine import RealMachine

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


class SocketsWorld(RealMachine):
    """Real sockets, real time, one event loop. `faults` puts the fault-injecting proxy between members."""

    def __init__(self, *, faults: bool = False) -> None:
        super().__init__(faults=faults)
        self._nodes: dict[int, Node] = {}

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
        self._left(index)

    async def pause(self, index: int) -> None:
        """Not possible: the nodes share one event loop."""
        raise UnsupportedFaultError("pause: nodes in one process share its event loop")

    async def resume(self, index: int) -> None:
        """Not possible, see `pause`."""
        raise UnsupportedFaultError("resume: nodes in one process share its event loop")

    async def close(self) -> None:
        """Stop every node, then what is between them, and remove what they kept."""
        try:
            await self._close_clients()
            for index in sorted(self._nodes):
                await self._nodes[index].abort()
            self._nodes.clear()
        finally:
            await self._close_rest()
