"""The transport seam: best-effort packets and reliable ordered streams between addresses.

Two implementations exist: real sockets (`sockets.py`) and the simulated network
(`cache.testing.sim.network`). Framing, RPC and every service run unchanged on both. Streams are handed
out as ordinary asyncio protocols and transports, so that the data path costs nothing extra.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from cache.cluster.ids import Address

PacketHandler = Callable[[Address, bytes], None]
"""Called with (source address, payload) for each packet received."""

ProtocolFactory = Callable[[], asyncio.Protocol]
"""Called once per accepted stream; the same contract as `loop.create_server`."""


class StreamPaths(Protocol):
    """Unix sockets on which members of this host accept streams, besides their addresses."""

    def own(self) -> str | None:
        """Return the path to listen on, or None for none."""
        ...

    def of(self, address: Address) -> str | None:
        """Return the path on which the member at `address` listens, or None when it has none here."""
        ...


class Transport(Protocol):
    """What a node needs from the network."""

    async def listen(self, on_packet: PacketHandler, on_stream: ProtocolFactory) -> Address:
        """Bind packets and streams on one port and return the bound address.

        Raises:
            OSError: when the address cannot be bound.
        """
        ...

    def send_packet(self, to: Address, payload: bytes) -> None:
        """Send one packet, best effort: never blocks, never raises for an unreachable peer."""
        ...

    async def connect(self, to: Address, protocol_factory: ProtocolFactory) -> asyncio.Transport:
        """Open a stream to `to`.

        Raises:
            ConnectionRefusedError: nobody listens there (evidence that the process is gone).
            OSError: any other failure. There is no time limit here; the caller sets one.
        """
        ...

    async def close(self) -> None:
        """Stop listening and abort every stream; idempotent."""
        ...
