"""What both ends of a stream share: framing, one write per loop tick, the handshake, and ending once.

`link.py` (the calling end) and `inbound.py` (the serving end) build on it. A connection lives once: it ends
by `end`, whoever causes it, and is never opened again.
"""

from __future__ import annotations

import asyncio
import logging
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, cast

from cache.clock import Clock
from cache.cluster.config import LimitsConfig
from cache.cluster.scope import Scope
from cache.cluster.transport.handshake import Handshake, HandshakeState, quote
from cache.cluster.transport.in_place import InPlace
from cache.cluster.wire import frames
from cache.cluster.wire.detached import DETACHED_BYTES_MIN, Detached, M, attach
from cache.cluster.wire.encoding import encode_apart
from cache.cluster.wire.messages import Hello, Reply, Request
from cache.errors import (
    CacheError,
    ConnectionLostError,
    JoinRefusedError,
    RemoteProtocolError,
    UnavailableError,
)
from cache.metrics import Metrics

logger = logging.getLogger(__name__)

JOIN_BYTES_MAX: Final = 64 * 1024
"""A larger body, or batch, is handed to the transport in pieces rather than copied once more."""

LOOKED_AT: Final = 64
"""Messages that are looked at for large values before they are encoded, after one that had some."""

FREED_BYTES: Final = 4 * 1024 * 1024
"""Allocated and freed, untouched, when a stream brings its first large body. The C library gives free memory
back to the system beyond twice the largest block that was freed so far, at first beyond 128 KiB. Large
values would then be faulted in anew, each one, and that costs more than to receive them. Source: mallopt(3)
of glibc, on M_MMAP_THRESHOLD; elsewhere this does nothing."""

WARNING_INTERVAL: Final = 1.0
"""Seconds between two warnings about what strangers send; the ones between are logged as debug."""


class Surroundings:
    """What every connection of an endpoint is given: limits, counters, clock, scope, and a quiet log."""

    def __init__(self, limits: LimitsConfig, clock: Clock, scope: Scope, metrics: Metrics) -> None:
        self.limits = limits
        self.clock = clock
        self.scope = scope
        self.calls = metrics.counter("rpc.calls")
        self.requests = metrics.counter("rpc.requests")
        self.notices = metrics.counter("rpc.notices")
        self.notices_dropped = metrics.counter("rpc.notices_dropped")
        self.notices_served = metrics.counter("rpc.notices_served")
        self.notices_unserved = metrics.counter("rpc.notices_unserved")
        self.failures = metrics.counter("rpc.failures")
        self.late_replies = metrics.counter("rpc.late_replies")
        self.timeouts = metrics.counter("rpc.timeouts")
        self.overloads = metrics.counter("rpc.overloads")
        self.malformed = metrics.counter("rpc.malformed")
        self.refused_handshakes = metrics.counter("rpc.refused_handshakes")
        self.handshake_timeouts = metrics.counter("rpc.handshake_timeouts")
        self.connections_rejected = metrics.counter("rpc.connections_rejected")
        self.links_opened = metrics.counter("rpc.links_opened")
        self.links_lost = metrics.counter("rpc.links_lost")
        self.links_silent = metrics.counter("rpc.links_silent")
        self._warned_at: float | None = None

    def complain(self, event: str, *arguments: object) -> None:
        """Log as a warning, but at most one per `WARNING_INTERVAL`: a stranger cannot fill the log."""
        now = self.clock.monotonic()
        quiet = self._warned_at is not None and now - self._warned_at < WARNING_INTERVAL
        if not quiet:
            self._warned_at = now
        logger.log(logging.DEBUG if quiet else logging.WARNING, event, *arguments)


@dataclass(frozen=True, slots=True)
class Ending:
    """Why a connection ended, and what its unanswered calls raise."""

    text: str
    sent: type[CacheError] = ConnectionLostError
    """For calls that were written to the stream, wholly or in part."""
    unsent: type[CacheError] = UnavailableError
    """For calls that never left this process."""


class Connection(asyncio.Protocol):
    """One end of one stream.

    Args:
        high_water: bytes in the transport's buffer from which on `congested` is True.
    """

    def __init__(self, around: Surroundings, handshake: Handshake, high_water: int) -> None:
        self.around = around
        self.loop = asyncio.get_running_loop()
        """To ask for it costs a system call before Python 3.12."""
        self.ended = False
        self.congested = False
        self.heard = False
        """Something was received since this was last set to False."""
        self.batch_bytes = 0
        self.looks_at = 0
        """How many of the next messages are looked at for large values before they are encoded."""
        self.stream: asyncio.Transport | None = None
        self.gone: asyncio.Future[None] | None = None
        """Set when the stream is closed for good."""
        self._handshake = handshake
        self._high_water = high_water
        self._parser = frames.FrameParser(frames.GREETING_BYTES_MAX)
        self._dispatch: Callable[[int, int, bytes], None] = self._greet
        self._in_place: InPlace | None = None
        self._had_large = False
        self._detached: list[tuple[int, bytes]] = []
        """Values of the message that comes next."""
        self._detached_bytes = 0
        self._batch: list[bytes] = []
        self._flush_is_due = False
        self._was_alone = True
        """Whether the last batch was a single frame."""

    # -- what the two ends add ---------------------------------------------------------------------

    @abstractmethod
    def established(self, peer: Hello) -> None:
        """Called once, when the handshake is done."""

    @abstractmethod
    def receive(self, kind: int, request_id: int, body: bytes) -> None:
        """Take one frame that came after the handshake; raise `RemoteProtocolError` to end it all."""

    @abstractmethod
    def on_end(self, ending: Ending) -> None:
        """Called once, when the connection has ended for whatever reason."""

    # -- asyncio.Protocol --------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the handshake."""
        # A cast, because event loops need not derive their transports from asyncio's class.
        self.stream = stream = cast("asyncio.Transport", transport)
        self.gone = self.loop.create_future()
        if self.ended:
            stream.abort()
            return
        stream.set_write_buffer_limits(high=self._high_water)
        is_socket = stream.get_extra_info("socket") is not None
        if is_socket and stream.get_extra_info("ssl_object") is None:
            self._in_place = InPlace(self, self._parser, stream)
        for greeting in self._handshake.start():
            self.send(frames.GREETING, 0, greeting)

    def data_received(self, data: bytes) -> None:
        """Handle every frame that is complete now, then write all answers at once."""
        if self.ended:
            return
        self.heard = True
        # Marked as due, so that `send` does not schedule what happens at the end of this method.
        self._flush_is_due = True
        try:
            self.handle(self._parser.feed(data))
        except RemoteProtocolError as error:
            self._break_off(error)
        finally:
            if self._batch:
                self._flush()
            else:
                self._flush_is_due = False
        if self._parser.body is not None and not self.ended:
            self._begin_large()

    def handle(self, received: list[frames.Frame]) -> None:
        """Handle frames in order."""
        for kind, request_id, body in received:
            if self.ended:
                return
            self._dispatch(kind, request_id, body)

    def _begin_large(self) -> None:
        """A large body has begun: have it received in place, where the stream can."""
        if not self._had_large:
            self._had_large = True
            bytes(FREED_BYTES)
        if self._in_place is not None:
            self._in_place.begin()

    def take_detached(self, index: int, value: bytes) -> None:
        """Keep a value for its message, which comes next.

        As many bytes as one frame may have are kept, besides the frame that is being received.
        """
        if len(value) < DETACHED_BYTES_MIN:
            raise RemoteProtocolError(f"a detached value of {len(value)} bytes")
        self._detached_bytes += frames.HEADER_BYTES + len(value)
        if self._detached_bytes > self.around.limits.frame_bytes_max:
            raise RemoteProtocolError(
                f"a message with {self._detached_bytes} bytes of values (limits.frame_bytes_max)"
            )
        self._detached.append((index, value))

    def attached(self, message: M) -> M:
        """Return a message with the values that came before it."""
        detached, self._detached = self._detached, []
        self._detached_bytes = 0
        return attach(message, detached)

    def eof_received(self) -> None:
        """The peer closed its side: nothing more can be answered, so this is the end."""
        self.end(Ending("the peer closed the connection"))

    def connection_lost(self, exc: Exception | None) -> None:
        """The stream is gone."""
        self.end(Ending(f"connection lost ({exc})" if exc else "connection closed"))
        if self.gone is not None and not self.gone.done():
            self.gone.set_result(None)

    def pause_writing(self) -> None:
        """The transport's buffer rose above the high-water mark."""
        self.congested = True

    def resume_writing(self) -> None:
        """The transport's buffer has drained."""
        self.congested = False

    # -- sending -----------------------------------------------------------------------------------

    def send(self, kind: int, request_id: int, body: bytes) -> None:
        """Add one frame to the batch that is written once in this tick."""
        size = len(body)
        if size <= JOIN_BYTES_MAX:
            self._batch.append(frames.encode_frame(kind, request_id, body))
        else:
            self._batch += (frames.encode_header(kind, request_id, size), body)
        self.batch_bytes += size + frames.HEADER_BYTES
        if not self._flush_is_due:
            self._flush_is_due = True
            self.loop.call_soon(self._flush)

    def send_apart(self, kind: int, request_id: int, body: bytes, detached: Detached) -> None:
        """As `send`, for a message whose large values were detached: they go before it."""
        for index, value in detached:
            self._batch.append(frames.encode_header(frames.DETACHED, index, len(value)))
            self._batch.append(value)
            self.batch_bytes += frames.HEADER_BYTES + len(value)
        self.send(kind, request_id, body)

    def encode_apart(self, message: Request | Reply, whole: bytes | None) -> tuple[bytes, Detached]:
        """Return the bytes of a message without its large values, and those; `whole` has them in it.

        To look for them costs small messages time. So it is done only for what turned out to be large when
        it was encoded whole, and from then on for the next `LOOKED_AT` messages before they are encoded.
        """
        body, detached = encode_apart(message, whole)
        self.looks_at = LOOKED_AT if detached else max(self.looks_at - 1, 0)
        return body, detached

    def send_soon(self, kind: int, request_id: int, body: bytes) -> None:
        """Write one frame at once, if it is likely to be the only one of this tick; else as `send`.

        The caller knows of nothing else under way. One that finds company was the last to be so hasty:
        until a batch is a single frame again, all wait for each other.
        """
        if self._flush_is_due or not self._was_alone or len(body) > JOIN_BYTES_MAX:
            self.send(kind, request_id, body)
        elif self.stream is not None and not self.stream.is_closing():
            self.stream.write(frames.encode_frame(kind, request_id, body))

    def buffered_bytes(self) -> int:
        """Return how many bytes wait to be written."""
        if self.stream is None:
            return self.batch_bytes
        return self.batch_bytes + self.stream.get_write_buffer_size()

    def flush(self) -> None:
        """Write the batch now."""
        due = self._flush_is_due
        self._flush()
        self._flush_is_due = due

    def _flush(self) -> None:
        self._flush_is_due = False
        batch = self._batch
        if not batch or self.stream is None:
            return
        joined = self.batch_bytes <= JOIN_BYTES_MAX
        self._was_alone = len(batch) == 1
        self._batch = []
        self.batch_bytes = 0
        if self.stream.is_closing():
            return
        if len(batch) == 1:
            self.stream.write(batch[0])
        elif joined:
            self.stream.write(b"".join(batch))
        else:
            write_apart(self.stream, batch)

    # -- handshake ---------------------------------------------------------------------------------

    def _greet(self, kind: int, request_id: int, body: bytes) -> None:
        if kind != frames.GREETING:
            raise RemoteProtocolError(f"frame of kind {kind} before the handshake was complete")
        for greeting in self._handshake.receive(body):
            self.send(frames.GREETING, 0, greeting)
        if self._handshake.state is HandshakeState.REFUSED:
            self._end_refused()
        elif self._handshake.state is HandshakeState.DONE:
            assert self._handshake.peer is not None
            self._parser.limit = self.around.limits.frame_bytes_max
            self._dispatch = self.receive
            self.established(self._handshake.peer)

    def _end_refused(self) -> None:
        handshake = self._handshake
        self.around.refused_handshakes.add()
        self.around.complain(
            "rpc.refused peer=%s by=%s reason=%s",
            self.peer_name(),
            "peer" if handshake.refused_by_peer else "us",
            quote(handshake.reason),
        )
        self.end(Ending(handshake.reason, unsent=JoinRefusedError), flushing=True)

    # -- the end -----------------------------------------------------------------------------------

    def end(self, ending: Ending, *, flushing: bool = False) -> None:
        """End this connection: at once, or after what was written has been sent. Idempotent."""
        if self.ended:
            return
        if self.stream is not None and flushing:
            self._flush()
            self.stream.close()
        elif self.stream is not None:
            self.stream.abort()
        self.ended = True
        self._batch.clear()
        self.batch_bytes = 0
        self._detached.clear()
        self._parser.body = None
        self.on_end(ending)

    def _break_off(self, error: RemoteProtocolError) -> None:
        self.around.malformed.add()
        self.around.complain("rpc.malformed peer=%s error=%s", self.peer_name(), quote(str(error)))
        self.end(Ending(f"the peer broke the protocol: {error}"))

    def peer_name(self) -> str:
        """Return how to name the peer in a log line."""
        peer = self._handshake.peer
        if peer is not None and peer.member:
            return quote(peer.member)
        name = self.stream.get_extra_info("peername") if self.stream is not None else None
        return repr(name)


def write_apart(stream: asyncio.Transport, pieces: Sequence[bytes]) -> None:
    """Write pieces in order without joining large ones.

    Transports that inherit `writelines` (asyncio's sockets before Python 3.12) would join them all. Theirs
    are written one by one, as views: of those only what the socket does not take at once is copied.
    """
    if type(stream).writelines is not asyncio.WriteTransport.writelines:
        stream.writelines(pieces)
        return
    small: list[bytes] = []
    for piece in pieces:
        if len(piece) <= JOIN_BYTES_MAX:
            small.append(piece)
            continue
        stream.write(b"".join(small))
        stream.write(memoryview(piece))
        small.clear()
    stream.write(b"".join(small))
