"""The serving end of a stream: requests and notices in, replies out.

A handler runs inside `data_received`. When it returns a reply, that leaves with this tick's batch and no task
or future is made; when it returns a future, a callback answers; only a coroutine costs a task.
Replies that the peer does not read stop the reading of its requests, so a slow reader stops itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgspec

from cache.cluster.ids import Address, MemberId
from cache.cluster.transport.connection import Connection, Ending, Surroundings
from cache.cluster.transport.failures import exception_to_failure
from cache.cluster.transport.handshake import Handshake
from cache.cluster.wire import frames
from cache.cluster.wire.detached import DETACHED_BYTES, Detached, bytes_of
from cache.cluster.wire.encoding import decode_notice, decode_request, encode_message
from cache.cluster.wire.messages import (
    CODE_BAD_REQUEST,
    CODE_CLOSED,
    CODE_INTERNAL,
    CODE_OVERLOADED,
    Failure,
    Hello,
    Reply,
)
from cache.errors import CacheError, CodecError, RemoteProtocolError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is on the other end of an inbound connection."""

    member: MemberId | None
    """None: a client, not a member."""

    address: Address | None
    """Advertised address of the member."""

    nonce: bytes = field(default=b"", compare=False, repr=False)
    """What the caller drew for this connection."""

    @property
    def key(self) -> str:
        """What tells this caller from all others: a member's id, else that of the connection."""
        return self.member or self.nonce.hex()


Handler = Callable[[Any, Peer], Reply | Awaitable[Reply]]
"""Any: each handler takes its own request type; `RpcEndpoint.register` ties the two together."""

NoticeHandler = Callable[[Any, Peer], None]
"""Any: each handler takes its own type, see `RpcEndpoint.register_notice`."""


class InboundConnection(Connection):
    """One accepted stream.

    Args:
        handlers: by request type; other requests are answered with a failure.
        notice_handlers: by type; other notices are ignored and counted.
        on_ended: called with this connection when it has ended.
    """

    def __init__(
        self,
        around: Surroundings,
        handshake: Handshake,
        handlers: Mapping[type, Handler],
        notice_handlers: Mapping[type, NoticeHandler],
        on_ended: Callable[[InboundConnection], None],
    ) -> None:
        self._reply_bytes_max = around.limits.send_buffer_bytes_max
        super().__init__(around, handshake, high_water=self._reply_bytes_max)
        self._body_bytes_max = around.limits.frame_bytes_max - frames.ENVELOPE_BYTES
        self._handlers = handlers
        self._notice_handlers = notice_handlers
        self._on_ended = on_ended
        self._peer = Peer(None, None)
        self._waiting_count = 0
        self._held: list[frames.Frame] = []
        self._handshake_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the caller's hello, but not for ever."""
        super().connection_made(transport)
        if self.ended:
            return
        delay = self.around.limits.handshake_timeout
        loop = asyncio.get_running_loop()
        self._handshake_timer = loop.call_later(delay, self._handshake_timed_out)

    def established(self, peer: Hello) -> None:
        """Remember who calls."""
        self._stop_timer()
        self._peer = Peer(MemberId(peer.member) or None, Address(peer.address) or None, peer.nonce)

    def receive(self, kind: int, request_id: int, body: bytes) -> None:
        """Serve a request, a notice or a heartbeat."""
        if kind != frames.REQUEST:
            self._receive_rare(kind, request_id, body)
            return
        request = decode_request(body)
        if self._detached:
            request = self.attached(request)
        self.around.requests.value += 1
        handler = self._handlers.get(type(request))
        if handler is None:
            text = f"{type(request).__name__} is not served here"
            self._fail(request_id, Failure(CODE_BAD_REQUEST, text))
            return
        if self._waiting_count >= self.around.limits.in_flight_max:
            self.around.overloads.add()
            text = f"{self._waiting_count} requests of this peer wait here (limits.in_flight_max)"
            self._fail(request_id, Failure(CODE_OVERLOADED, text))
            return
        try:
            result = handler(request, self._peer)
        except Exception as error:  # noqa: BLE001 - the root of a request: this is its answer
            self._fail(request_id, self._describe(request, error))
            return
        if isinstance(result, msgspec.Struct):
            self._reply(request_id, result)
        else:
            self._await(request_id, request, result)

    def on_end(self, ending: Ending) -> None:
        """Forget this connection; handlers that still run finish unheard."""
        self._held.clear()
        self._on_ended(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """The stream is gone."""
        self._stop_timer()
        super().connection_lost(exc)

    def _handshake_timed_out(self) -> None:
        """Also the limit for a refusal that the peer does not read."""
        self._handshake_timer = None
        self.around.handshake_timeouts.add()
        self.end(Ending("no handshake in time"))
        if self.stream is not None:
            self.stream.abort()

    def _stop_timer(self) -> None:
        if self._handshake_timer is not None:
            self._handshake_timer.cancel()
            self._handshake_timer = None

    # -- back-pressure -----------------------------------------------------------------------------

    def handle(self, received: list[frames.Frame]) -> None:
        """Handle frames in order until the replies fill the buffer; the rest waits for it to drain."""
        if self._held:
            self._held += received
            return
        for index, (kind, request_id, body) in enumerate(received):
            if self.ended:
                return
            self._dispatch(kind, request_id, body)
            if self.batch_bytes > self._reply_bytes_max:
                self.flush()
            if self.congested:
                self._held = received[index + 1 :]
                return

    def pause_writing(self) -> None:
        """The peer does not read its replies: stop reading its requests."""
        super().pause_writing()
        if self.stream is not None and not self.stream.is_closing():
            self.stream.pause_reading()

    def resume_writing(self) -> None:
        """The peer reads again."""
        super().resume_writing()
        held, self._held = self._held, []
        try:
            self.handle(held)
        except RemoteProtocolError as error:
            self._break_off(error)
        if self.stream is not None and not self.congested and not self.stream.is_closing():
            self.stream.resume_reading()

    # -- serving -----------------------------------------------------------------------------------

    def _receive_rare(self, kind: int, request_id: int, body: bytes) -> None:
        if kind == frames.NOTICE:
            self._take_notice(request_id, body)
        elif kind == frames.PING:
            self.send(frames.PONG, request_id, b"")
        elif kind == frames.DETACHED:
            self.take_detached(request_id, body)
        else:
            raise RemoteProtocolError(f"frame of kind {kind} from the calling side")

    def _take_notice(self, request_id: int, body: bytes) -> None:
        if request_id:
            raise RemoteProtocolError(f"a notice with the id {request_id}, as if it were a request")
        notice = decode_notice(body)
        if self._detached:
            notice = self.attached(notice)
        handler = self._notice_handlers.get(type(notice))
        if handler is None:
            self.around.notices_unserved.add()
            return
        self.around.notices_served.add()
        try:
            handler(notice, self._peer)
        except Exception:
            logger.exception("rpc.notice_failed notice=%s", type(notice).__name__)

    def _await(self, request_id: int, request: object, result: Awaitable[Reply]) -> None:
        self._waiting_count += 1
        if asyncio.isfuture(result):
            result.add_done_callback(partial(self._future_done, request_id, request))
            return
        try:
            self.around.scope.spawn(
                self._finish(request_id, request, result), name=f"rpc.{type(request).__name__}"
            )
        except RuntimeError:
            self._waiting_count -= 1
            if asyncio.iscoroutine(result):
                result.close()
            self._fail(request_id, Failure(CODE_CLOSED, "this member is closing"))

    def _future_done(self, request_id: int, request: object, future: asyncio.Future[Reply]) -> None:
        self._waiting_count -= 1
        error: BaseException | None
        if future.cancelled():
            error = asyncio.CancelledError()
        else:
            error = future.exception()
        if error is None:
            self._reply(request_id, future.result())
        else:
            self._fail(request_id, self._describe(request, error))

    async def _finish(self, request_id: int, request: object, result: Awaitable[Reply]) -> None:
        try:
            reply = await result
        except asyncio.CancelledError as error:
            self._fail(request_id, self._describe(request, error))
            raise
        except Exception as error:  # noqa: BLE001 - the root of a task
            self._fail(request_id, self._describe(request, error))
        else:
            self._reply(request_id, reply)
        finally:
            self._waiting_count -= 1

    def _describe(self, request: object, error: BaseException) -> Failure:
        if not isinstance(error, (CacheError, asyncio.CancelledError)):
            logger.error("rpc.handler_failed request=%s", type(request).__name__, exc_info=error)
        return exception_to_failure(error)

    def _reply(self, request_id: int, reply: Reply) -> None:
        if self.ended:
            return
        try:
            detached: Detached = ()
            body = None if self.looks_at else encode_message(reply)
            if body is None or len(body) >= DETACHED_BYTES:
                body, detached = self.encode_apart(reply, body)
            size = len(body) + bytes_of(detached) if detached else len(body)
            if size > self._body_bytes_max:
                limit = self._body_bytes_max
                raise CodecError(f"a reply is over limits.frame_bytes_max: {size} > {limit}")
        except CodecError as error:
            logger.exception("rpc.reply_failed reply=%s", type(reply).__name__)
            self._fail(request_id, Failure(CODE_INTERNAL, str(error)[:200]))
            return
        if detached:
            self.send_apart(frames.REPLY, request_id, body, detached)
        else:
            self.send(frames.REPLY, request_id, body)

    def _fail(self, request_id: int, failure: Failure) -> None:
        self.around.failures.add()
        if not self.ended:
            self.send(frames.REPLY, request_id, encode_message(failure))
