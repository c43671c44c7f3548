"""Simulated streams: ordered and reliable like TCP, and as slow to notice that the other end is gone.

A segment that meets a cut is sent again after 0.2 s, then 0.4 s, 0.8 s … like a kernel's, so that
data flows again only at the next retransmission after a heal. A connection to a stopped process
succeeds. A killed process resets its connections; a host that is cut off does nothing at all.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Final

from cache.cluster.ids import Address, parse_address
from cache.cluster.transport.base import PacketHandler, ProtocolFactory
from cache.testing.sim.loop import SimLoop
from cache.testing.sim.network import Delivery, SimNetwork

RETRANSMIT_FIRST: Final = 0.2
RETRANSMIT_MAX: Final = 120.0
CONNECT_FIRST: Final = 1.0
CONNECT_TIME: Final = 127.0
"""Seconds after which a connect to a silent host fails."""

WINDOW_BYTES: Final = 256 * 1024
"""Bytes on the way or unread by the other process."""

HIGH_WATER: Final = 64 * 1024

FIN: Final = "fin"
RESET: Final = "reset"


class SimStream(asyncio.Transport):
    """One end of a simulated connection."""

    def __init__(self, network: SimNetwork, loop: SimLoop, local: Address, remote: Address) -> None:
        super().__init__()
        self._network = network
        self._loop = loop
        self._local, self._remote = local, remote
        self._protocol: asyncio.Protocol | None = None
        self.peer: SimStream | None = None
        self._outbox: deque[bytes | str] = deque()
        self._outbox_bytes = 0
        self._unread_bytes = 0
        self._retry = RETRANSMIT_FIRST
        self._waiting = False
        self._arrives_at = 0.0
        self._line_free_at = 0.0
        """When the last byte put on a line of limited bandwidth has left."""
        self._inbox: deque[bytes | str] = deque()
        self._reading = True
        self._closing = False
        self._lost = False
        self._write_paused = False
        self._high, self._low = HIGH_WATER, HIGH_WATER // 4

    def attach(self, protocol: asyncio.Protocol) -> None:
        """Give this end its protocol and hand over what arrived before."""
        self._protocol = protocol
        protocol.connection_made(self)
        self._drain_inbox()

    # -- asyncio.Transport -------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send bytes."""
        if self._closing or self._lost or not data:
            return
        self._outbox.append(bytes(data))
        self._outbox_bytes += len(data)
        self._pump()
        if self._outbox_bytes > self._high and not self._write_paused:
            self._write_paused = True
            if self._protocol is not None:
                self._protocol.pause_writing()

    def writelines(self, list_of_data: Any) -> None:
        """Send several pieces as one.  # Any: asyncio's iterable of buffers."""
        self.write(b"".join(list_of_data))

    def close(self) -> None:
        """Close after everything written has been sent."""
        if not self._closing:
            self._closing = True
            self._outbox.append(FIN)
            self._pump()
            self._loop.call_soon(self._lose, None)

    def abort(self) -> None:
        """Close at once; the other end is reset."""
        if self._lost:
            return
        self.reset()
        self._closing = True
        self._loop.call_soon(self._lose, None)

    def reset(self) -> None:
        """Drop what was not sent and reset the other end."""
        self._outbox.clear()
        self._outbox_bytes = 0
        self._outbox.append(RESET)
        self._pump()

    def is_closing(self) -> bool:
        """Return whether this end is closed or closing."""
        return self._closing or self._lost

    def get_write_buffer_size(self) -> int:
        """Return the bytes written but not on the way."""
        return self._outbox_bytes

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set when `pause_writing` and `resume_writing` are called."""
        self._high = HIGH_WATER if high is None else high
        self._low = self._high // 4 if low is None else low

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Return (low, high)."""
        return self._low, self._high

    def pause_reading(self) -> None:
        """Keep what arrives."""
        self._reading = False

    def resume_reading(self) -> None:
        """Hand over what was kept."""
        self._reading = True
        self._loop.call_soon(self._drain_inbox)

    def is_reading(self) -> bool:
        """Return whether data is handed over."""
        return self._reading

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return "peername" or "sockname".  # Any: as asyncio has it."""
        match name:
            case "peername":
                return parse_address(self._remote)
            case "sockname":
                return parse_address(self._local)
            case _:
                return default

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Change the protocol."""
        assert isinstance(protocol, asyncio.Protocol), "streams carry bytes"
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return the protocol."""
        assert self._protocol is not None, "attached at the start"
        return self._protocol

    # -- the wire ----------------------------------------------------------------------------

    def _pump(self) -> None:
        """Put segments on the way, as far as the link and the window let them."""
        network, kernel = self._network, self._network.kernel
        here, there = parse_address(self._local)[0], parse_address(self._remote)[0]
        while self._outbox and not self._waiting and self._unread_bytes < WINDOW_BYTES:
            if network.blocked(here, there):
                self._waiting = True
                delay, self._retry = self._retry, min(2 * self._retry, RETRANSMIT_MAX)
                kernel.at(kernel.now + delay, self._loop_lane(), Delivery(self._pump_again))
                return
            self._retry = RETRANSMIT_FIRST
            segment = self._outbox.popleft()
            self._put_on_the_way(segment, here, there)
        if self._write_paused and self._outbox_bytes <= self._low:
            self._write_paused = False
            if self._protocol is not None and not self._lost:
                self._protocol.resume_writing()

    def _put_on_the_way(self, segment: bytes | str, here: str, there: str) -> None:
        network, kernel = self._network, self._network.kernel
        link = network.link(here, there)
        delay = network.delay(link)
        size = len(segment) if isinstance(segment, bytes) else 0
        if size:
            self._outbox_bytes -= size
            self._unread_bytes += size
        if link.loss and network.rng.random() < link.loss:
            network.count("segment_delay")
            delay += RETRANSMIT_FIRST
        begins_at = max(kernel.now, self._line_free_at) if link.bandwidth else kernel.now
        if link.bandwidth:
            begins_at += size / link.bandwidth
            self._line_free_at = begins_at
        self._arrives_at = max(self._arrives_at, begins_at + delay)
        peer = self.peer
        assert peer is not None, "both ends are made together"
        kernel.at(self._arrives_at, peer.lane(), Delivery(lambda: peer.arrive(segment)))

    def lane(self) -> Any:
        """The lane on which this end's data arrives.  # Any: Lane, kept by the loop."""
        return self._loop.lane

    def _loop_lane(self) -> Any:  # Any: Lane
        """Where retransmissions run: the kernel's work, also when the process is paused or dead."""
        return self._network.kernel_lane

    def _pump_again(self) -> None:
        self._waiting = False
        self._pump()

    def arrive(self, segment: bytes | str) -> None:
        """Take in what the other end sent."""
        if self._lost:
            if segment != RESET and self.peer is not None:
                self.reset()  # Nobody is here any more.
            return
        self._inbox.append(segment)
        if self._protocol is not None:
            self._drain_inbox()

    def _drain_inbox(self) -> None:
        while self._inbox and self._reading and not self._lost and self._protocol is not None:
            segment = self._inbox.popleft()
            if segment == RESET:
                self._lose(ConnectionResetError(104, "connection reset by peer"))
            elif segment == FIN:
                self._protocol.eof_received()
                self.close()
            else:
                assert isinstance(segment, bytes), "markers were dealt with above"
                if self.peer is not None:
                    self.peer.consumed(len(segment))
                if not self._closing:
                    self._protocol.data_received(segment)

    def consumed(self, size: int) -> None:
        """The other process read bytes: the window opens."""
        self._unread_bytes -= size
        if self._outbox and not self._waiting:
            kernel = self._network.kernel
            kernel.at(kernel.now, self._network.kernel_lane, Delivery(self._pump))

    def _lose(self, error: Exception | None) -> None:
        if not self._lost:
            self._lost = self._closing = True
            self._network.streams.pop(self, None)
            if self._protocol is not None:
                self._protocol.connection_lost(error)

    def die(self) -> None:
        """The process of this end was killed: its kernel resets the other end."""
        self._lost = self._closing = True
        self.reset()


class SimTransport:
    """`cache.cluster.transport.base.Transport` on the simulated network."""

    def __init__(self, network: SimNetwork, loop: SimLoop, bind: Address) -> None:
        self._network = network
        self.loop = loop
        self._address = bind
        self._on_packet: PacketHandler | None = None
        self._on_stream: ProtocolFactory | None = None
        self._listening = False

    async def listen(self, on_packet: PacketHandler, on_stream: ProtocolFactory) -> Address:
        """Bind packets and streams."""
        self._address = self._network.bind(self._address, self)
        self._on_packet, self._on_stream = on_packet, on_stream
        self._listening = True
        return self._address

    def send_packet(self, to: Address, payload: bytes) -> None:
        """Send one packet, best effort."""
        if self._listening:
            self._network.send_packet(self._address, to, payload)

    def receive_packet(self, source: Address, payload: bytes) -> None:
        """A packet arrived."""
        if self._on_packet is not None and self._listening:
            self._on_packet(source, payload)

    async def connect(self, to: Address, protocol_factory: ProtocolFactory) -> SimStream:
        """Open a stream."""
        network = self._network
        here, there = parse_address(self._address)[0], parse_address(to)[0]
        wait, waited = CONNECT_FIRST, 0.0
        while network.blocked(here, there) or network.blocked(there, here):
            if waited >= CONNECT_TIME:
                raise TimeoutError(110, f"connect to {to} timed out")
            await asyncio.sleep(wait)
            waited, wait = waited + wait, 2 * wait
        forth = network.delay(network.link(here, there))
        back = network.delay(network.link(there, here))
        await asyncio.sleep(forth)
        listener = network.listening.get(to)
        if listener is None:
            await asyncio.sleep(back)
            raise ConnectionRefusedError(111, f"connection to {to} refused")
        network.next_ephemeral += 1
        local = Address(f"{here}:{network.next_ephemeral}")
        mine = SimStream(network, self.loop, local, to)
        theirs = SimStream(network, listener.loop, to, local)
        mine.peer, theirs.peer = theirs, mine
        network.streams.update({mine: None, theirs: None})
        listener.accept(theirs)
        await asyncio.sleep(back)
        mine.attach(protocol_factory())
        return mine

    def accept(self, stream: SimStream) -> None:
        """Somebody connected; a paused process will see it when it runs again."""
        on_stream = self._on_stream
        assert on_stream is not None, "only a listening transport is connected to"
        kernel = self._network.kernel
        kernel.at(kernel.now, self.loop.lane, Delivery(lambda: stream.attach(on_stream())))

    async def close(self) -> None:
        """Stop listening and abort every stream."""
        self.unbind()
        for stream in [s for s in self._network.streams if s.lane() is self.loop.lane]:
            stream.abort()

    def unbind(self) -> None:
        """Stop listening."""
        if self._network.listening.get(self._address) is self:
            del self._network.listening[self._address]
        self._listening = False
