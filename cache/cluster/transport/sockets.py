"""Real sockets: UDP packets and TCP streams on one port number, on whatever event loop runs.

Between processes of one host, streams may use Unix sockets instead (`StreamPaths`): the same bytes, TLS
included, by a shorter way. Whenever that fails, TCP is tried, and what TCP says counts. Packets stay on UDP.

With TLS (`tls.py`) a stream is handed on once its certificates are verified; packets stay as they are.
Names of hosts are resolved by the loop. A packet to a name that is not resolved yet waits in a short
queue; beyond that it is dropped, as packets may be.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import logging
import os
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final, cast

from cache.cluster.config import TlsConfig
from cache.cluster.ids import Address, format_address, parse_address
from cache.cluster.transport.base import PacketHandler, ProtocolFactory, StreamPaths
from cache.cluster.transport.inherited import HasDescriptor, let_go
from cache.cluster.transport.tls import TlsContexts
from cache.forks import watch
from cache.metrics import Metrics

logger = logging.getLogger(__name__)

CLOSING_TURNS: Final = 5
"""Turns of the event loop until all is closed. A stream that was accepted in the turn of `close` takes three
more: its transport is made, its protocol is told and aborts it, and its socket is closed."""

BIND_ATTEMPTS: Final = 32
"""With port 0: how often another port is tried when its UDP twin is taken."""

RESOLVED_SECONDS: Final = 30.0
"""Seconds for which a host name's address is believed."""

RESOLVED_MAX: Final = 4096
"""Destinations remembered."""

WAITING_PACKETS_MAX: Final = 8
"""Packets kept per name while it is being resolved."""

RESOLVING_NAMES_MAX: Final = 64
"""Names being resolved at once; packets to further ones are dropped. Rumours bring names, and each costs a
thread of the loop's executor, where the addresses of streams are resolved, too."""

PACKET_BUFFER_BYTES_MAX: Final = 1024 * 1024
"""Bytes of packets the operating system has not taken yet; further ones are dropped."""

KEEPALIVE_SECONDS: Final = 60
"""An idle stream is probed by the kernel, so that those of vanished hosts do not pile up."""

TLS_HANDSHAKE_TIMEOUT: Final = 5.0
"""Seconds for a stream's TLS handshake, as for the members' own one that follows it."""

TLS_CLOSE_TIMEOUT: Final = 1.0
"""Seconds for the other end to confirm the end of TLS; asyncio's 30 would hold sockets for nothing."""

SocketAddress = tuple[Any, ...]
"""Any: what the socket module uses, (host, port) or (host, port, flow, scope)."""


class SocketTransport:
    """`base.Transport` over the operating system's sockets.

    Args:
        bind: where to listen, `host:port`; port 0 lets the system choose one that is free for both.
        tls: certificates for streams; None for plain ones.
        metrics: where `tls.refused` counts streams whose other end did not pass, and `streams.unix` those
            opened to Unix sockets.
        paths: Unix sockets of members on this host; None for none.
    """

    def __init__(
        self,
        bind: Address,
        *,
        tls: TlsConfig | None = None,
        metrics: Metrics | None = None,
        paths: StreamPaths | None = None,
    ) -> None:
        self._bind = bind
        self._tls_config = tls
        self._tls: TlsContexts | None = None
        self._metrics = metrics if metrics is not None else Metrics()
        self._paths = paths
        self._own_path: str | None = None
        self._server: asyncio.Server | None = None
        self._unix_server: asyncio.Server | None = None
        self._packets: _Packets | None = None
        self._streams: dict[asyncio.Transport, None] = {}
        watch(self, SocketTransport._forked)
        self._prune_at = 64
        self._closed = False

    async def listen(self, on_packet: PacketHandler, on_stream: ProtocolFactory) -> Address:
        """Bind packets and streams on one port and return the bound address.

        Raises:
            OSError: when the address cannot be bound.
            ConfigError: a file of `tls` is bad.
        """
        self.load_tls()
        host, port = parse_address(self._bind)
        where = (await _resolve(host, port, socket.SOCK_STREAM, passive=True))[0]
        for attempt in range(BIND_ATTEMPTS):
            try:
                return await self._bind_both(where[0], port, on_packet, on_stream)
            except OSError as error:
                clash = error.errno == errno.EADDRINUSE and port == 0
                if not clash or attempt == BIND_ATTEMPTS - 1:
                    raise
        raise AssertionError("unreachable: the last attempt returns or raises")

    def load_tls(self) -> TlsContexts | None:
        """Read the files of `tls`, once; None without. `listen` and `connect` do it by themselves.

        Raises:
            ConfigError: a file cannot be read or used; names the field.
        """
        if self._tls is None and self._tls_config is not None:
            self._tls = TlsContexts(self._tls_config, self._metrics.counter("tls.refused"))
        return self._tls

    async def _bind_both(
        self, host: str, port: int, on_packet: PacketHandler, on_stream: ProtocolFactory
    ) -> Address:
        loop = asyncio.get_running_loop()
        secured = {} if self._tls is None else _secured(self._tls.server)
        factory = partial(_Tracker, self._track, on_stream)
        server = await loop.create_server(factory, host, port, **secured)
        bound: int = server.sockets[0].getsockname()[1]
        try:
            _, self._packets = await loop.create_datagram_endpoint(
                partial(_Packets, on_packet), local_addr=(host, bound)
            )
        except BaseException:
            server.close()
            raise
        self._server = server
        await self._bind_path(on_stream)
        return format_address(host, bound)

    async def _bind_path(self, on_stream: ProtocolFactory) -> None:
        """Accept streams on a Unix socket too; without one, TCP does it all."""
        path = self._paths.own() if self._paths is not None else None
        if path is None:
            return
        secured = {} if self._tls is None else _secured(self._tls.server)
        factory = partial(_Tracker, self._track, on_stream)
        loop = asyncio.get_running_loop()
        try:
            self._unix_server = await loop.create_unix_server(factory, path, **secured)
            os.chmod(path, 0o600)  # noqa: PTH101  (its folder is private already)
        except OSError as error:
            logger.warning("transport.no_unix_socket path=%s error=%s", path, error)
            return
        self._own_path = path

    def send_packet(self, to: Address, payload: bytes) -> None:
        """Send one packet, best effort: never blocks, never raises for an unreachable peer."""
        if self._packets is not None:
            self._packets.send(to, payload)

    async def connect(self, to: Address, protocol_factory: ProtocolFactory) -> asyncio.Transport:
        """Open a stream to `to`: to its Unix socket, or else to each address of its host in turn.

        Raises:
            ConnectionRefusedError: nobody listens there, at any address of the host.
            OSError: any other failure, `ssl.SSLError` for one of TLS among them.
            ConfigError: a file of `tls` is bad.
        """
        if self._closed:
            raise ConnectionAbortedError("this transport is closed")
        host, port = parse_address(to)
        loop = asyncio.get_running_loop()
        tls = self.load_tls()
        secured = {} if tls is None else {**_secured(tls.client), "server_hostname": host}
        factory = partial(_Tracker, self._track, protocol_factory)
        near = await self._connect_by_path(to, factory, secured)
        if near is not None:
            return near
        other_error: OSError | None = None
        for where in await _resolve(host, port, socket.SOCK_STREAM):
            try:
                transport, _ = await loop.create_connection(factory, where[0], where[1], **secured)
            except ConnectionRefusedError as error:
                refused = error
            except OSError as error:
                other_error = error
            else:
                return transport
        raise other_error or refused

    async def _connect_by_path(
        self,
        to: Address,
        factory: ProtocolFactory,
        secured: dict[str, Any],  # Any: arguments of the event loop
    ) -> asyncio.Transport | None:
        path = self._paths.of(to) if self._paths is not None else None
        if path is None:
            return None
        loop = asyncio.get_running_loop()
        try:
            transport, _ = await loop.create_unix_connection(factory, path, **secured)
        except OSError as error:
            logger.debug("transport.unix_failed path=%s error=%s", path, error)
            return None
        self._metrics.counter("streams.unix").add()
        return transport

    async def close(self) -> None:
        """Stop listening and abort every stream; idempotent."""
        self._closed = True
        servers = [server for server in (self._server, self._unix_server) if server is not None]
        self._server = self._unix_server = None
        packets, self._packets = self._packets, None
        if self._own_path is not None:
            _remove(self._own_path)
        if packets is not None:
            packets.close()
        for listening in [one for server in servers for one in server.sockets]:
            asyncio.get_running_loop().remove_reader(listening)
        try:  # asyncio leaves open what was accepted in this turn, if its server is gone in the next.
            await asyncio.sleep(0)
        finally:
            for server in servers:
                server.close()
        for stream in list(self._streams):
            stream.abort()
        self._streams.clear()
        for _ in range(CLOSING_TURNS):
            await asyncio.sleep(0)

    def _forked(self) -> None:
        """This process is a child: what is open belongs to its parent alone."""
        self._closed = True
        held: list[HasDescriptor] = []
        for server in (self._server, self._unix_server):
            if server is not None:
                held.extend(server.sockets)
        if self._packets is not None:
            held.extend(self._packets.sockets())
        held.extend(stream.get_extra_info("socket") for stream in self._streams)
        let_go(held)
        self._server = self._unix_server = self._packets = self._own_path = None
        self._streams.clear()

    def _track(self, stream: asyncio.Transport) -> None:
        if self._closed:
            stream.abort()
            return
        self._streams[stream] = None
        if len(self._streams) >= self._prune_at:
            self._streams = {s: None for s in self._streams if not s.is_closing()}
            self._prune_at = max(64, 2 * len(self._streams))


def _remove(path: str) -> None:
    with suppress(OSError):
        os.unlink(path)  # noqa: PTH108


def _secured(context: ssl.SSLContext) -> dict[str, Any]:  # Any: arguments of the event loop
    return {
        "ssl": context,
        "ssl_handshake_timeout": TLS_HANDSHAKE_TIMEOUT,
        "ssl_shutdown_timeout": TLS_CLOSE_TIMEOUT,
    }


class _Tracker(asyncio.Protocol):
    """Sees a stream open, then steps aside, so that the data path costs nothing extra."""

    def __init__(
        self, track: Callable[[asyncio.Transport], None], factory: ProtocolFactory
    ) -> None:
        self._track = track
        self._factory = factory

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, because event loops need not derive their transports from asyncio's class.
        stream = cast("asyncio.Transport", transport)
        tune(stream.get_extra_info("socket"))
        protocol = self._factory()
        secured = stream.get_extra_info("ssl_object") is not None
        stream.set_protocol(_Secured(protocol, stream) if secured else protocol)
        self._track(stream)
        protocol.connection_made(stream)


class _Secured(asyncio.Protocol):
    """Gives the protocol of a TLS stream what it is promised: nothing arrives once it has closed.

    1. The protocol closes the stream inside `data_received`. 2. To do so, asyncio's TLS first reads what
    is there already, 3. and calls the protocol in the middle of its own call to close. An end of file
    needs no word: TLS closes both directions, and `connection_lost` follows.
    """

    def __init__(self, protocol: asyncio.Protocol, stream: asyncio.Transport) -> None:
        self._protocol = protocol
        self._stream = stream
        self.connection_lost = protocol.connection_lost  # type: ignore[method-assign]  # no detour
        self.pause_writing = protocol.pause_writing  # type: ignore[method-assign]
        self.resume_writing = protocol.resume_writing  # type: ignore[method-assign]

    def data_received(self, data: bytes) -> None:
        if not self._stream.is_closing():
            self._protocol.data_received(data)


def tune(tcp: socket.socket) -> None:
    """Send small frames at once, and notice in a few minutes that a host is gone."""
    if tcp.family not in (socket.AF_INET, socket.AF_INET6):
        return  # A Unix socket does both by itself.
    tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_KEEPIDLE"):
        tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_SECONDS)
        tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_SECONDS // 4)


async def _resolve(
    host: str, port: int, kind: socket.SocketKind, *, passive: bool = False
) -> list[SocketAddress]:
    """Return the host's socket addresses, IPv4 first: what "localhost" is expected to mean.

    A numeric address needs no resolver, whose threads are gone before a program's last words are.
    """
    with contextlib.suppress(ValueError):
        return [(str(ipaddress.ip_address(host)), port)]
    found = await asyncio.get_running_loop().getaddrinfo(
        host, port, type=kind, flags=socket.AI_PASSIVE if passive else 0
    )
    found.sort(key=lambda entry: entry[0] != socket.AF_INET)
    return [entry[4] for entry in found]


class _Packets(asyncio.DatagramProtocol):
    """The UDP side."""

    def __init__(self, on_packet: PacketHandler) -> None:
        self._on_packet = on_packet
        self._transport: asyncio.DatagramTransport | None = None
        self._sources: dict[SocketAddress, Address] = {}
        self._resolved: dict[Address, tuple[SocketAddress, float]] = {}
        self._waiting: dict[Address, list[bytes]] = {}
        self._family = socket.AF_INET

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)  # as in `_Tracker`
        self._family = transport.get_extra_info("socket").family

    def datagram_received(self, data: bytes, addr: SocketAddress) -> None:
        source = self._sources.get(addr)
        if source is None:
            if len(self._sources) >= RESOLVED_MAX:
                self._sources.clear()
            source = self._sources[addr] = format_address(addr[0], addr[1])
        self._on_packet(source, data)

    def error_received(self, exc: Exception) -> None:
        """An earlier packet could not be delivered; packets may be lost."""

    def send(self, to: Address, payload: bytes) -> None:
        now = asyncio.get_running_loop().time()
        known = self._resolved.get(to)
        if known is not None and known[1] > now:
            self._send_resolved(known[0], payload)
            return
        waiting = self._waiting.get(to)
        if waiting is not None:
            if len(waiting) < WAITING_PACKETS_MAX:
                waiting.append(payload)
            return
        self._look_up(to, payload)

    def _look_up(self, to: Address, payload: bytes) -> None:
        loop = asyncio.get_running_loop()
        numeric = socket.AI_NUMERICHOST
        try:
            host, port = parse_address(to)
            found = socket.getaddrinfo(host, port, self._family, socket.SOCK_DGRAM, 0, numeric)
        except ValueError:
            # No address, or a host that no resolver takes (UnicodeError): a rumour may name any text.
            return
        except OSError:
            # Not a number: ask the system's resolver in a thread. A future, not a task.
            if len(self._waiting) >= RESOLVING_NAMES_MAX:
                return
            self._waiting[to] = [payload]
            ask = partial(socket.getaddrinfo, host, port, self._family, socket.SOCK_DGRAM)
            loop.run_in_executor(None, ask).add_done_callback(partial(self._looked_up, to))
            return
        self._remember(to, found[0][4])
        self._send_resolved(found[0][4], payload)

    def _looked_up(self, to: Address, future: asyncio.Future[list[Any]]) -> None:  # Any: addrinfo
        packets = self._waiting.pop(to, [])
        if future.cancelled() or future.exception() is not None:
            return
        where = future.result()[0][4]
        self._remember(to, where)
        for payload in packets:
            self._send_resolved(where, payload)

    def _remember(self, to: Address, where: SocketAddress) -> None:
        if len(self._resolved) >= RESOLVED_MAX:
            self._resolved.clear()
        until = asyncio.get_running_loop().time() + RESOLVED_SECONDS
        self._resolved[to] = (where, until)

    def _send_resolved(self, where: SocketAddress, payload: bytes) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        # asyncio and uvloop both have this method; only the type stubs lack it.
        buffered: int = transport.get_write_buffer_size()  # type: ignore[attr-defined]
        if buffered > PACKET_BUFFER_BYTES_MAX:
            return
        try:
            transport.sendto(payload, where)
        except (OSError, ValueError):
            # No route, too large, another address family: lost, as packets may be.
            return

    def sockets(self) -> list[HasDescriptor]:
        """Return the socket, if it is open."""
        return [] if self._transport is None else [self._transport.get_extra_info("socket")]

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()
            self._transport = None
