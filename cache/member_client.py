"""`MemberClient`: a connection to one member, for those who look after it.

Each call goes to that member, which answers for itself and runs map calls as if they were made there: what it
sees is the point. The command line, the demo and the test cluster use it. An application uses a node, or a
`ClusterClient`, which goes to the owners of keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from random import SystemRandom
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import msgpack

from cache.clock import SystemClock
from cache.cluster.config import ClusterConfig, Secret, TlsConfig
from cache.cluster.ids import Address
from cache.cluster.scope import Scope
from cache.cluster.transport.base import Transport
from cache.cluster.transport.rpc import RpcEndpoint
from cache.cluster.transport.sockets import SocketTransport
from cache.cluster.wire.messages import Call, Called, Drain, Inspect, Inspected, Request
from cache.errors import CodecError, RemoteProtocolError
from cache.metrics import Metrics

CALL_TIMEOUT: Final = 10.0
"""Seconds a call may take: above a member's own `operation_timeout`, so that its answer arrives."""

DRAIN_MARGIN: Final = 15.0
"""Seconds on top of a member's `leave_timeout` to wait for its receipt."""

NOWHERE: Final = Address("127.0.0.1:0")

R = TypeVar("R")


class MemberClient:
    """Calls one member. Use as `async with MemberClient("127.0.0.1:7400") as client:`.

    Args:
        at: address of a member, `host:port`.
        cluster_name: the cluster's name; a member of another cluster refuses.
        secret: the cluster's secret, if it has one; a tuple while it changes, see `ClusterConfig`.
        tls: certificates, for a cluster whose members use TLS.
        timeout: seconds for each call.
        transport: the network; real sockets by default.

    Methods raise what the map raises at the member (`RejectedError`: not applied; `IndeterminateError`:
    may have been applied), and `UnavailableError` when the member cannot be reached.

    Raises:
        ConfigError: an argument is bad, or a file of `tls`; names the field.
    """

    def __init__(
        self,
        at: str,
        *,
        cluster_name: str = "cache",
        secret: Secret | None = None,
        tls: TlsConfig | None = None,
        timeout: float = CALL_TIMEOUT,
        transport: Transport | None = None,
    ) -> None:
        self.at = Address(at)
        self._timeout = timeout
        # The peer is only checked here: a client does not join, it has no seeds.
        self._config = ClusterConfig(
            peers=(self.at,), cluster_name=cluster_name, secret=secret, tls=tls
        )
        self._transport = transport if transport is not None else _sockets(tls)
        self._scope = Scope(f"client of {at}")
        self._rpc = RpcEndpoint(
            transport=self._transport,
            config=self._config,
            member=None,
            clock=SystemClock(),
            rng=SystemRandom(),  # Nonces of the handshake must not be guessable.
            metrics=Metrics(),
            scope=self._scope,
        )

    def __repr__(self) -> str:
        return f"<MemberClient of {self.at}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; calls under way fail with `ClosedError`. Idempotent."""
        await self._rpc.close()
        await self._scope.close()
        await self._transport.close()

    async def connect(self) -> dict[str, Any]:
        """Make sure that the member answers; return its status.

        Raises:
            UnavailableError: nobody answers at the address.
            JoinRefusedError: the member refuses this client (cluster name, secret, protocol version).
        """
        # Any: MessagePack values, see `cache.cluster.inspection`.
        status: dict[str, Any] = await self.inspect("status")
        return status

    async def call(self, map_name: str, method: str, **arguments: object) -> Any:
        """Run a method of `DistributedMap` on the member; arguments left out have its defaults."""
        # Any: what the map's method returns.
        if "items" in arguments:
            arguments["items"] = _pairs(arguments["items"])
        request = Call(map_name, method, _pack(arguments))
        reply = await self._ask(request, Called, self._timeout)
        result = _unpack(reply.result)
        return dict(result) if method == "get_many" else result

    async def inspect(self, what: str) -> Any:
        """Ask the member about itself: see `Node.inspect` for what there is to ask."""
        # Any: MessagePack values.
        return _unpack((await self._ask(Inspect(what), Inspected, self._timeout)).result)

    async def drain(self, *, timeout: float | None = None) -> dict[str, Any]:
        """Let the member hand over its data and leave; return its receipt.

        Args:
            timeout: seconds to wait, by default those a member with default settings may take.
        """
        # Any: the fields of `DrainReceipt`.
        limit = self._config.leave_timeout + DRAIN_MARGIN if timeout is None else timeout
        receipt: dict[str, Any] = _unpack((await self._ask(Drain(), Inspected, limit)).result)
        return receipt

    async def _ask(self, request: Request, expected: type[R], timeout: float) -> R:
        reply = await self._rpc.call(self.at, request, timeout=timeout)
        if not isinstance(reply, expected):
            raise RemoteProtocolError(
                f"{self.at} answered {type(request).__name__} with {type(reply).__name__}"
            )
        return reply


def _sockets(tls: TlsConfig | None) -> SocketTransport:
    transport = SocketTransport(NOWHERE, tls=tls)
    transport.load_tls()  # Now, so that a bad file is an error of the settings, not of a call.
    return transport


def _pairs(items: object) -> object:
    """Return a mapping as the pairs in which it travels, so that its keys keep their types."""
    return [list(item) for item in items.items()] if isinstance(items, Mapping) else items


def _pack(arguments: Mapping[str, object]) -> bytes:
    try:
        packed: bytes = msgpack.packb(arguments, use_bin_type=True, default=_convert)
    except (TypeError, ValueError, OverflowError) as error:
        raise CodecError(f"arguments cannot be encoded as MessagePack: {error}") from error
    return packed


def _convert(value: object) -> object:
    if isinstance(value, timedelta):
        return value.total_seconds()
    raise TypeError(f"{type(value).__name__} is not a MessagePack type")


def _unpack(packed: bytes) -> Any:  # Any: MessagePack values
    try:
        return msgpack.unpackb(packed, raw=False, strict_map_key=False)
    except (ValueError, msgpack.exceptions.UnpackException) as error:
        raise RemoteProtocolError(f"the answer is not MessagePack: {error}") from error
