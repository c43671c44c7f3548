"""The calling end of a stream: one link per peer address, shared by every call to it.

A link lives once: connecting, then open, then ended; the next call makes a new one. Calls made while it is
connecting wait for the handshake. Whether a call was *sent* decides what it raises at the end, because
only a call that never left this process is known not to have been applied.

A connection to a process that is stopped or unplugged looks alive to the kernel for minutes. So while calls
wait, silence is answered with a PING, and silence after that ends the link. Nothing answers a notice, so a
PING also carries the number of notices sent before it: until its PONG comes back the link is watched, too.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Final

from cache.cluster.ids import Address
from cache.cluster.transport.base import Transport
from cache.cluster.transport.connection import Connection, Ending, Surroundings
from cache.cluster.transport.failures import failure_to_exception
from cache.cluster.transport.handshake import Handshake
from cache.cluster.wire import frames
from cache.cluster.wire.detached import DETACHED_BYTES, Detached, bytes_of
from cache.cluster.wire.encoding import decode_reply, encode_message
from cache.cluster.wire.messages import Failure, Hello, Notice, Reply, Request
from cache.errors import (
    CacheError,
    CodecError,
    OperationTimeoutError,
    OverloadedError,
    RemoteProtocolError,
    UnavailableError,
)

SILENCE_BEFORE_PING: Final = 0.5
"""Seconds without a byte from the peer, while calls wait, after which it is asked for a sign of life."""

SILENCE_AFTER_PING: Final = 3.0
"""Seconds without a byte after that ping, after which the link is given up."""

CONNECT_TIMEOUT: Final = 2.0
"""Seconds for the stream itself to open. The kernel repeats a lost SYN after 1, 3, 7 … s: after a cut a new
attempt is much sooner through than an old one."""

CONGESTION_BYTES: Final = 1024 * 1024
"""Below this many bytes in the transport's buffer their exact number is not asked for."""


class Link(Connection):
    """One outgoing stream and the calls that wait on it.

    Args:
        on_ended: called with this link when it has ended.
        on_refused: called with the address when the operating system there refuses the connection.
    """

    def __init__(
        self,
        around: Surroundings,
        handshake: Handshake,
        address: Address,
        on_ended: Callable[[Link], None],
        on_refused: Callable[[Address], None],
    ) -> None:
        limits = around.limits
        high_water = min(CONGESTION_BYTES, limits.send_buffer_bytes_max)
        super().__init__(around, handshake, high_water)
        self.address = address
        self._body_bytes_max = limits.frame_bytes_max - frames.ENVELOPE_BYTES
        self._in_flight_max = limits.in_flight_max
        self._buffer_bytes_max = limits.send_buffer_bytes_max
        self._on_ended = on_ended
        self._on_refused = on_refused
        self._open = False
        self._opened: asyncio.Future[None] | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._pending: dict[int, tuple[asyncio.Future[Reply], float]] = {}
        self._unsent: dict[int, tuple[bytes, Detached]] = {}
        self._unsent_notices: list[bytes] = []
        self._unsent_bytes = 0
        self._notice_count = 0
        self._arrived_count = 0
        """Notices that a PONG says have arrived."""
        self._last_id = 0
        self._heard_at = 0.0
        self._pinged_at: float | None = None
        self._unwritten_bytes = 0
        self._overdue = False
        """A call timed out, and nothing was heard since: the next one does not start the watch anew."""

    def start(self, transport: Transport) -> None:
        """Begin to connect.

        Raises:
            RuntimeError: the scope was closed.
        """
        name = f"rpc.connect.{self.address}"
        self._connecting = self.around.scope.spawn(self._connect(transport), name=name)

    async def _connect(self, transport: Transport) -> None:
        """Open the stream and complete the handshake, or end this link."""
        self._opened = asyncio.get_running_loop().create_future()
        ending = Ending("closed while connecting")
        try:
            async with asyncio.timeout(self.around.limits.handshake_timeout):
                async with asyncio.timeout(CONNECT_TIMEOUT):
                    await transport.connect(self.address, lambda: self)
                await self._opened
        except ConnectionRefusedError as error:
            self.end(Ending(f"connection refused ({error})"))
            self._on_refused(self.address)
        except TimeoutError:
            ending = Ending("no connection within the time for it, or no handshake")
        except (OSError, ValueError) as error:
            ending = Ending(f"cannot connect: {error}")
        finally:
            if not self._open:
                self.end(ending)

    # -- calls -------------------------------------------------------------------------------------

    @property
    def is_waiting(self) -> bool:
        """Whether any call is unanswered."""
        return bool(self._pending)

    def call(self, request: Request, deadline: float, now: float) -> asyncio.Future[Reply]:
        """Send a request, or keep it until the handshake is complete.

        Raises:
            OverloadedError: too many calls, or bytes, wait already.
            CodecError: the request cannot be encoded or is over the frame limit.
        """
        detached: Detached = ()
        body = None if self.looks_at else encode_message(request)
        if body is None or len(body) >= DETACHED_BYTES:
            body, detached = self.encode_apart(request, body)
        size = len(body) + bytes_of(detached) if detached else len(body)
        self._check_limits(size, len(self._pending))
        future: asyncio.Future[Reply] = self.loop.create_future()
        self._begin_watch(now)
        self._last_id += 1
        send = self.send if self._pending else self.send_soon
        self._pending[self._last_id] = (future, deadline)
        if not self._open:
            self._unsent[self._last_id] = body, detached
            self._unsent_bytes += size
        elif detached:
            self.send_apart(frames.REQUEST, self._last_id, body, detached)
        else:
            send(frames.REQUEST, self._last_id, body)
        return future

    def notify(self, notice: Notice, now: float) -> None:
        """Write a notice in this tick, or once the link is open; lost with the link.

        Raises:
            OverloadedError: too many notices wait for the link to open, or bytes to be written.
            CodecError: the notice cannot be encoded or is over the frame limit.
        """
        body = encode_message(notice)
        self._check_limits(len(body), len(self._unsent_notices))
        self._begin_watch(now)
        self._notice_count += 1
        if self._open:
            self.send(frames.NOTICE, 0, body)
        else:
            self._unsent_notices.append(body)
            self._unsent_bytes += len(body)

    def _begin_watch(self, now: float) -> None:
        """Count silence from now on, unless it counts already."""
        if not self._pending and not self._overdue and self._arrived_count == self._notice_count:
            self._heard_at = now
            self._pinged_at = None

    def _check_limits(self, size: int, waiting: int) -> None:
        if size > self._body_bytes_max:
            raise CodecError(
                f"message of {size} bytes is over limits.frame_bytes_max ({self._body_bytes_max})"
            )
        if waiting >= self._in_flight_max:
            self.around.overloads.add()
            raise OverloadedError(
                f"{self.address}: {waiting} calls, or notices, wait (limits.in_flight_max)"
            )
        buffered = self.buffered_bytes() if self.congested else self.batch_bytes
        buffered += self._unsent_bytes
        if buffered + size > self._buffer_bytes_max:
            self.around.overloads.add()
            raise OverloadedError(
                f"{self.address}: {buffered} bytes wait to be written "
                "(limits.send_buffer_bytes_max)"
            )

    def established(self, peer: Hello) -> None:
        """Send the calls and notices that waited for this."""
        self._open = True
        self.around.links_opened.add()
        self._heard_at = self.around.clock.monotonic()
        for request_id, (body, detached) in self._unsent.items():
            self.send_apart(frames.REQUEST, request_id, body, detached)
        for body in self._unsent_notices:
            self.send(frames.NOTICE, 0, body)
        self._unsent.clear()
        self._unsent_notices.clear()
        self._unsent_bytes = 0
        self._wake_connect()

    def receive(self, kind: int, request_id: int, body: bytes) -> None:
        """Settle the call that this reply answers."""
        if kind != frames.REPLY:
            self._receive_rare(kind, request_id, body)
            return
        reply = decode_reply(body)
        if self._detached:
            reply = self.attached(reply)
        entry = self._pending.pop(request_id, None)
        if entry is None or entry[0].done():
            self.around.late_replies.add()
        elif type(reply) is Failure:
            entry[0].set_exception(failure_to_exception(reply))
        else:
            entry[0].set_result(reply)

    def _receive_rare(self, kind: int, request_id: int, body: bytes) -> None:
        if kind == frames.PONG and request_id <= self._notice_count:
            self._arrived_count = max(self._arrived_count, request_id)
        elif kind == frames.DETACHED:
            self.take_detached(request_id, body)
        else:
            raise RemoteProtocolError(f"frame of kind {kind} from the serving side")

    # -- time --------------------------------------------------------------------------------------

    def sweep(self, now: float) -> float:
        """Time out calls and watch for silence; return when to come again at the latest (inf: never)."""
        soonest = math.inf
        over: list[int] = []
        for request_id, (future, deadline) in self._pending.items():
            if deadline <= now or future.done():
                over.append(request_id)
            elif deadline < soonest:
                soonest = deadline
        for request_id in over:
            self._time_out(request_id)
        is_noticed = self._arrived_count < self._notice_count
        if self._open and (self._pending or is_noticed):
            self._watch_silence(now)
        return min(soonest, now + SILENCE_BEFORE_PING) if is_noticed else soonest

    def _time_out(self, request_id: int) -> None:
        future, _ = self._pending.pop(request_id)
        unsent = self._unsent.pop(request_id, None)
        if unsent is not None:
            body, detached = unsent
            self._unsent_bytes -= len(body) + bytes_of(detached)
        if future.done():  # cancelled by its caller
            return
        self.around.timeouts.add()
        if unsent is None:
            self._overdue = True
            future.set_exception(OperationTimeoutError(f"{self.address}: no answer in time"))
        else:
            future.set_exception(UnavailableError(f"{self.address}: not connected in time"))

    def _watch_silence(self, now: float) -> None:
        # A shrinking buffer is a sign of life too: on a slow line a large request takes long to
        # leave, and the ping waits behind it.
        unwritten = self.buffered_bytes() if self.congested else 0
        if self.heard or unwritten < self._unwritten_bytes:
            self.heard = False
            self._overdue = False
            self._heard_at = now
            self._pinged_at = None
        elif self._pinged_at is None:
            if now - self._heard_at >= SILENCE_BEFORE_PING:
                self._pinged_at = now
                self.send(frames.PING, self._notice_count, b"")
        elif now - self._pinged_at >= SILENCE_AFTER_PING:
            self.around.links_silent.add()
            self.end(Ending(f"silent for {now - self._heard_at:.1f} s"))
        self._unwritten_bytes = unwritten

    @property
    def is_open(self) -> bool:
        """Whether the handshake was completed and the link has not ended."""
        return self._open

    # -- the end -----------------------------------------------------------------------------------

    def on_end(self, ending: Ending) -> None:
        """Fail every call that waits."""
        if self._open:
            self.around.links_lost.add()
        self._on_ended(self)
        pending, self._pending = self._pending, {}
        for request_id, (future, _) in pending.items():
            if not future.done():
                kind = ending.unsent if request_id in self._unsent else ending.sent
                future.set_exception(self._error(kind, ending.text))
        self.around.notices_dropped.add(len(self._unsent_notices))
        self._unsent.clear()
        self._unsent_notices.clear()
        self._unsent_bytes = 0
        self._open = False
        self._wake_connect()
        task = self._connecting
        if self.stream is None and task is not None and task is not asyncio.current_task():
            task.cancel()

    def _error(self, kind: type[CacheError], text: str) -> CacheError:
        return kind(f"{self.address}: {text}")

    def _wake_connect(self) -> None:
        if self._opened is not None and not self._opened.done():
            self._opened.set_result(None)
