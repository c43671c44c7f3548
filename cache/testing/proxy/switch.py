"""Packets among the members of a test cluster: one UDP socket they all send to, which passes them on.

A packet on its way names the other end in front of the payload: to the switch, whom it is for; from the
switch, whom it is from. So members see the addresses that members have, and need to know one address more.
```
1 byte   length of the address
n bytes  the address, ASCII
         payload
```
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, cast

from cache.cluster.ids import Address, format_address, parse_address
from cache.testing.proxy.links import Links
from cache.testing.proxy.packets import Later


def wrap(other_end: Address, payload: bytes) -> bytes:
    """Put an address in front of a payload."""
    name = other_end.encode()
    return bytes((len(name),)) + name + payload


def unwrap(packet: bytes) -> tuple[Address, bytes] | None:
    """Return the address and the payload; None for what was not wrapped."""
    if not packet or len(packet) < 1 + packet[0]:
        return None
    name = packet[1 : 1 + packet[0]]
    if not name.isascii():
        return None
    return Address(name.decode()), packet[1 + packet[0] :]


class Switch(asyncio.DatagramProtocol):
    """Passes packets on, under the faults of `Links`."""

    def __init__(self, links: Links) -> None:
        self._links = links
        self._transport: asyncio.DatagramTransport | None = None
        self._later = Later()
        self.dropped_count = 0
        """Packets of strangers, to strangers, or without an address."""

    async def open(self) -> Address:
        """Listen; return where."""
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(
            lambda: self, local_addr=("127.0.0.1", 0)
        )
        return format_address(*transport.get_extra_info("sockname")[:2])

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the socket."""
        self._transport = cast("asyncio.DatagramTransport", transport)  # event loops have their own

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        """Pass a packet on, now or later, once or more, or not at all."""
        # Any: as of the socket module.
        unwrapped, origin = unwrap(data), format_address(addr[0], addr[1])
        source = self._links.index_of(origin)
        target = None if unwrapped is None else self._links.index_of(unwrapped[0])
        if unwrapped is None or source is None or target is None:
            self.dropped_count += 1
            return
        to, payload = unwrapped
        now = asyncio.get_running_loop().time()
        packet = wrap(origin, payload)
        for at in self._links.arrivals(source, target, len(payload), now):
            self._later.at(at, partial(self._send, packet, to))

    def _send(self, packet: bytes, to: Address) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(packet, parse_address(to))

    async def close(self) -> None:
        """Stop; what waits is lost. Idempotent."""
        self._later.close()
        if self._transport is not None:
            self._transport.abort()
            self._transport = None
        await asyncio.sleep(0)  # One turn of the loop, in which the socket is really closed.
