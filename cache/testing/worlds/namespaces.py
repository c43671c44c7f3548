"""Each member its own process on a network of its own (`lan.py`): the processes world, and real cuts.

Members listen on addresses that are not loopback, so that the cluster has a secret, as users' clusters do.
The test reaches each member over that member's own loopback: no fault comes between the two, and what the
cuts stop is what members sent each other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from cache.cluster.config import ClusterConfig
from cache.cluster.ids import Address, format_address, parse_address
from cache.cluster.transport.base import PacketHandler, ProtocolFactory
from cache.testing.members import LoopClient
from cache.testing.worlds.base import ClientMaker, UnsupportedFaultError
from cache.testing.worlds.lan import DELAYING, Lan
from cache.testing.worlds.processes import ProcessBackend, ProcessesWorld

SECRET: Final = "of a test cluster"  # noqa: S105  (it guards nothing)


class NamespacesWorld(ProcessesWorld):
    """Real processes, real time, a real network that can be cut."""

    def __init__(self) -> None:
        super().__init__()
        self._lan = Lan()
        self._opened = False
        self._hosts: dict[int, str] = {}
        self._links: dict[tuple[int, int], dict[str, float]] = {}
        self._stopped_before = 0

    async def start(self, index: int, config: ClusterConfig) -> ProcessBackend:
        """Start a process on a host of its own; a restarted member, or a full address, keeps the host.

        Raises:
            LanError: there can be no such network here.
        """
        if not self._opened:
            self._lan.open()
            self._opened = True
        named, port = parse_address(config.bind)
        host = named if named in self._hosts.values() else self._lan.add_host()
        self._hosts[index] = host
        config = config.with_changes(bind=format_address(host, port))
        return await self._launch(index, config, self._lan.command(host), _OnHost(self._lan, host))

    def set_cuts(self, cuts: Sequence[tuple[int, int]]) -> None:
        """Let nftables drop what members send each other in these directions."""
        self._lan.set_cuts((self._hosts[source], self._hosts[target]) for source, target in cuts)

    def heal(self) -> int:
        """Undo all cuts; return how many packets they stopped since the last time."""
        self._lan.set_cuts(())
        total = self._lan.stopped()
        affected, self._stopped_before = total - self._stopped_before, total
        return affected

    def link(self, source: int, target: int, **conditions: float) -> None:
        """Change the conditions of one direction; those of time need a kernel with netem."""
        if any(name in conditions for name in DELAYING) and not self._lan.has_netem():
            raise UnsupportedFaultError(f"{', '.join(conditions)}: this kernel has no netem")
        link = self._links.setdefault((source, target), {})
        link.update(conditions)
        self._lan.set_link((self._hosts[source], self._hosts[target]), link)

    def mend(self, source: int, target: int) -> int | None:
        """Give one direction the conditions of any other."""
        if self._links.pop((source, target), None) is not None:
            self._lan.set_link((self._hosts[source], self._hosts[target]), {})
        return None

    async def client(self, index: int, client: ClientMaker) -> LoopClient:
        """Not possible: this process is on none of its hosts."""
        raise UnsupportedFaultError("client: the test is outside of the network of its members")

    async def close(self) -> None:
        """Kill every process by its id, and remove the network."""
        try:
            await super().close()
        finally:
            self._lan.close()


class _OnHost:
    """The client's side of `base.Transport`: streams that begin on a member's own host."""

    def __init__(self, lan: Lan, host: str) -> None:
        self._lan = lan
        self._host = host
        self._streams: list[asyncio.Transport] = []

    async def listen(self, on_packet: PacketHandler, on_stream: ProtocolFactory) -> Address:
        """A client does not listen."""
        raise NotImplementedError("a client does not listen")

    def send_packet(self, to: Address, payload: bytes) -> None:
        """A client sends no packets."""

    async def connect(self, to: Address, protocol_factory: ProtocolFactory) -> asyncio.Transport:
        """Open a stream to the member."""
        loop = asyncio.get_running_loop()
        opened = self._lan.open_socket(self._host)
        try:
            opened.setblocking(False)
            await loop.sock_connect(opened, parse_address(to))
            stream, _ = await loop.create_connection(protocol_factory, sock=opened)
        except BaseException:
            opened.close()
            raise
        self._streams = [one for one in self._streams if not one.is_closing()]
        self._streams.append(stream)
        return stream

    async def close(self) -> None:
        """Abort every stream; idempotent."""
        for stream in self._streams:
            stream.abort()
        self._streams.clear()
        await asyncio.sleep(0)  # One turn of the loop, in which the sockets are really closed.
