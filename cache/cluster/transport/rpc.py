"""Requests, replies and notices between members: the endpoint that owns every stream of a node.

Outgoing: one multiplexed link per peer address, opened by the first call or notice and reopened by the first
one after it broke. Incoming: requests and notices of registered types only. Deadlines are kept by one sweep
over all calls, never by a timer per call.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from random import Random
from typing import Final, TypeVar

import msgspec

from cache.clock import Clock
from cache.cluster.config import ClusterConfig
from cache.cluster.home import Home
from cache.cluster.ids import Address, MemberId
from cache.cluster.scope import Scope
from cache.cluster.transport.base import Transport
from cache.cluster.transport.connection import Connection, Ending, Surroundings
from cache.cluster.transport.handshake import NONCE_BYTES, Handshake, Role, derive_key, new_hello
from cache.cluster.transport.inbound import Handler, InboundConnection, NoticeHandler, Peer
from cache.cluster.transport.link import Link
from cache.cluster.wire.messages import Notice, Reply, Request
from cache.errors import CacheError, ClosedError
from cache.metrics import Metrics

__all__ = ["Handler", "Peer", "RpcEndpoint"]

SWEEP_INTERVAL: Final = 0.05
"""Seconds between two sweeps while calls are unanswered."""

SWEEP_DELAY_MIN: Final = 0.001
SWEEP_LATENESS_MAX: Final = 0.1
"""Seconds a sweep may be late before it lets the loop read its sockets first, see `_sweep`."""

CLOSE_TIME: Final = 0.25
"""Seconds that `close` gives to bytes still to be written."""

M = TypeVar("M", bound=msgspec.Struct)


class RpcEndpoint:
    """Calls other members and serves their calls.

    Args:
        member: this member's id; None for a client that only calls.
        rng: draws the nonces of handshakes.
    """

    def __init__(
        self,
        *,
        transport: Transport,
        config: ClusterConfig,
        member: MemberId | None,
        clock: Clock,
        rng: Random,
        metrics: Metrics,
        scope: Scope,
    ) -> None:
        self.address: Address | None = None
        """Advertised address, set by the node once it is bound."""
        self.home: Home | None = None
        """Where calls may come from, set by the node; a client is not so particular."""
        self.on_refused: Callable[[Address], None] | None = None
        self.on_lost: Callable[[Address], None] | None = None
        """Called with the address when an open link to it broke: a hint, not a proof."""
        """Called with an address when a connection to it is refused by the operating system."""
        self._transport = transport
        self._config = config
        self._member = member
        self._key = derive_key(config.secret)
        self._clock = clock
        self._rng = rng
        self._around = Surroundings(config.limits, clock, scope, metrics)
        self._handlers: dict[type, Handler] = {}
        self._notice_handlers: dict[type, NoticeHandler] = {}
        self._links: dict[Address, Link] = {}
        self._inbound: dict[InboundConnection, None] = {}
        self._closed = False
        self._sweep_timer: asyncio.TimerHandle | None = None
        self._sweep_at = math.inf
        self._sweep_was_late = False
        metrics.gauge("rpc.links", lambda: len(self._links))
        metrics.gauge("rpc.inbound_connections", lambda: len(self._inbound))

    # -- serving -----------------------------------------------------------------------------------

    def register(
        self, message_type: type[M], handler: Callable[[M, Peer], Reply | Awaitable[Reply]]
    ) -> None:
        """Serve requests of that type. The handler runs on the loop; what it raises is the answer."""
        assert message_type not in self._handlers, f"{message_type.__name__} has a handler already"
        self._handlers[message_type] = handler

    def register_notice(self, message_type: type[M], handler: Callable[[M, Peer], None]) -> None:
        """Take notices of that type. The handler runs on the loop; what it raises is only logged.

        The peer may be a client: a notice that only members may send is the handler's to ignore.
        """
        name = message_type.__name__
        assert message_type not in self._notice_handlers, f"{name} has a handler already"
        self._notice_handlers[message_type] = handler

    def accept(self) -> asyncio.Protocol:
        """Return the protocol for one accepted stream: the factory for `Transport.listen`."""
        connection = InboundConnection(
            self._around,
            self._handshake(Role.ACCEPTOR),
            self._handlers,
            self._notice_handlers,
            self._forget_inbound,
        )
        if self._closed:
            connection.end(Ending("this member is closed"))
        elif len(self._inbound) >= self._config.limits.connections_max:
            self._around.connections_rejected.add()
            self._around.complain("rpc.connection_rejected count=%d", len(self._inbound))
            connection.end(Ending("too many connections (limits.connections_max)"))
        else:
            self._inbound[connection] = None
        return connection

    # -- calling -----------------------------------------------------------------------------------

    def call(self, to: Address, request: Request, *, timeout: float) -> asyncio.Future[Reply]:
        """Send `request` to the member at `to`; the future settles within about `timeout` seconds.

        The future's result is never a `Failure`; it raises what the handler raised, or
            UnavailableError: not sent (no connection, refused, or not in time).
            JoinRefusedError: one side refused the other during the handshake.
            OverloadedError: not sent, too many calls or bytes wait for this peer.
            CodecError: not sent, the request is over the frame limit.
            ClosedError: this endpoint is closed.
            OperationTimeoutError, ConnectionLostError: sent, outcome unknown.

        Raises:
            WrongLoopError, ForkedProcessError: not at home; these are raised at once.
        """
        if self.home is not None:
            self.home.check()
        now = self._clock.monotonic()
        deadline = now + timeout
        self._around.calls.value += 1
        try:
            link = self._links.get(to)
            if link is None:
                link = self._connect(to)
            future = link.call(request, deadline, now)
        except CacheError as error:
            future = asyncio.get_running_loop().create_future()
            future.set_exception(error)
            return future
        if deadline < self._sweep_at:
            self._arm_sweep(now, deadline)
        return future

    def notify(self, to: Address, notice: Notice) -> bool:
        """Tell the member at `to`, best effort: no answer, no retry, no error.

        Notices of one tick leave in one write, in order, as long as the link lives; what the peer's system
        accepted may still be lost with it. A notice opens the link when there is none, and waits for it:
        `limits.in_flight_max` of them at most, and `limits.send_buffer_bytes_max` bytes.

        Returns:
            False: dropped here, and counted in `rpc.notices_dropped`. True says little: it may be lost.

        Raises:
            WrongLoopError, ForkedProcessError: not at home.
        """
        if self.home is not None:
            self.home.check()
        now = self._clock.monotonic()
        self._around.notices.add()
        try:
            link = self._links.get(to)
            if link is None:
                link = self._connect(to)
            link.notify(notice, now)
        except CacheError as error:
            self._around.notices_dropped.add()
            self._around.complain("rpc.notice_dropped to=%s error=%s", to, error)
            return False
        self._arm_sweep(now, now + SWEEP_INTERVAL)
        return True

    def disconnect(self, to: Address) -> None:
        """End the link to a peer that is known to be dead; its calls fail at once."""
        link = self._links.get(to)
        if link is not None:
            link.end(Ending("the member is dead"))

    async def close(self) -> None:
        """Fail every call with `ClosedError`, write out what was answered, end every stream; idempotent."""
        self._closed = True
        self._stop_sweep()
        connections: list[Connection] = [*self._links.values(), *self._inbound]
        ending = Ending("this endpoint was closed", sent=ClosedError, unsent=ClosedError)
        for connection in connections:
            connection.end(ending, flushing=True)
        if writing := [c.gone for c in connections if c.gone is not None]:
            await asyncio.wait(writing, timeout=CLOSE_TIME)
        for connection in connections:
            if connection.stream is not None:
                connection.stream.abort()

    def _connect(self, to: Address) -> Link:
        if self._closed:
            raise ClosedError("this endpoint was closed")
        handshake = self._handshake(Role.INITIATOR)
        link = Link(self._around, handshake, to, self._forget_link, self._refused)
        try:
            link.start(self._transport)
        except RuntimeError as error:
            raise ClosedError("this endpoint's scope was closed") from error
        self._links[to] = link
        return link

    def _handshake(self, role: Role) -> Handshake:
        hello = new_hello(
            cluster_name=self._config.cluster_name,
            partition_count=self._config.partition_count,
            member=self._member or "",
            address=self.address or "",
            nonce=self._rng.randbytes(NONCE_BYTES),
        )
        return Handshake(role, hello, self._key)

    def _forget_inbound(self, connection: InboundConnection) -> None:
        self._inbound.pop(connection, None)

    def _forget_link(self, link: Link) -> None:
        if self._links.get(link.address) is link:
            del self._links[link.address]
        if link.is_open and self.on_lost is not None and not self._closed:
            self.on_lost(link.address)

    def _refused(self, address: Address) -> None:
        if self.on_refused is not None and not self._closed:
            self.on_refused(address)

    # -- deadlines ---------------------------------------------------------------------------------

    def _arm_sweep(self, now: float, deadline: float) -> None:
        at = min(max(deadline, now + SWEEP_DELAY_MIN), now + SWEEP_INTERVAL)
        if at >= self._sweep_at:
            return
        self._stop_sweep()
        self._sweep_at = at
        self._sweep_timer = asyncio.get_running_loop().call_later(at - now, self._sweep)

    def _stop_sweep(self) -> None:
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()
            self._sweep_timer = None
        self._sweep_at = math.inf

    def _sweep(self) -> None:
        """Time out calls on every link.

        1. The loop is held up (a long callback, a stopped process). 2. Replies arrive meanwhile.
        3. The loop runs timers before it reads sockets. So a sweep that is late lets the loop read
        once before it judges; only once, lest a loop that is always late never times anything out.
        """
        now = self._clock.monotonic()
        late = now - self._sweep_at > SWEEP_LATENESS_MAX
        self._sweep_timer = None
        self._sweep_at = math.inf
        if late and not self._sweep_was_late:
            self._sweep_was_late = True
            self._arm_sweep(now, now)
            return
        self._sweep_was_late = False
        soonest = math.inf
        for link in list(self._links.values()):
            soonest = min(soonest, link.sweep(now))
        if soonest < math.inf:
            self._arm_sweep(now, soonest)
