"""Proxies by name: what Toxiproxy's API creates, changes, lists and resets."""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Iterator, Mapping
from random import Random
from typing import Any, Final, Self

from cache.cluster.ids import format_address, parse_address
from cache.cluster.scope import Scope
from cache.testing.proxy.packets import PacketRelay
from cache.testing.proxy.relay import Connection
from cache.testing.proxy.toxics import STREAMS, PacketPath, ProxyError, Toxic, changed_toxic

logger = logging.getLogger(__name__)

CONNECTIONS_MAX: Final = 1024
"""Streams of one proxy at a time; further ones are refused by a reset."""

BIND_ATTEMPTS: Final = 32
"""With port 0: how often another port is tried when its UDP twin is taken."""

TOXICS_MAX: Final = 100
PROXIES_MAX: Final = 4096


class Proxy:
    """One listener, its upstream, and the toxics on the way between them."""

    def __init__(
        self, name: str, listen: str, upstream: str, *, rng: Random, has_packets: bool = False
    ) -> None:
        self.name = name
        self.listen = listen
        self.upstream = upstream
        self.has_packets = has_packets
        self.refused_count = 0
        self._rng = rng
        self._toxics: dict[str, Toxic] = {}
        self._server: asyncio.Server | None = None
        self._connections: dict[Connection, None] = {}
        self._scope: Scope | None = None
        self._paths = {stream: PacketPath(rng) for stream in STREAMS}
        self._packets: PacketRelay | None = None

    def __repr__(self) -> str:
        return f"<Proxy {self.name} {self.listen} -> {self.upstream}>"

    @property
    def is_enabled(self) -> bool:
        """Whether it listens."""
        return self._server is not None

    @property
    def connection_count(self) -> int:
        """Streams that are open through it."""
        return len(self._connections)

    def to_json(self) -> dict[str, Any]:  # Any: JSON
        """Return it as Toxiproxy's API shows it."""
        shown = {
            "name": self.name,
            "listen": self.listen,
            "upstream": self.upstream,
            "enabled": self.is_enabled,
            "toxics": [toxic.to_json() for toxic in self.toxics()],
        }
        return {**shown, "packets": True} if self.has_packets else shown

    # -- listening ---------------------------------------------------------------------------

    async def start(self) -> None:
        """Listen; port 0 becomes one that is free, and is kept.

        Raises:
            ProxyError: 500, the address is bad or cannot be bound.
        """
        if self._server is not None:
            return
        try:
            host, port = parse_address(self.listen)
            parse_address(self.upstream)
            bound = await self._bind(host, port)
        except (OSError, ValueError) as error:
            raise ProxyError(500, f"listen on {self.listen!r}: {error}") from error
        self._scope = Scope(f"proxy {self.name}")
        self.listen = format_address(host, bound)

    async def _bind(self, host: str, port: int) -> int:
        """Listen on one port for streams and, if asked for, packets; return it."""
        for attempt in range(BIND_ATTEMPTS):
            server = await asyncio.get_running_loop().create_server(self._accept, host, port)
            bound: int = server.sockets[0].getsockname()[1]
            try:
                if self.has_packets:
                    relay = PacketRelay(*(self._paths[stream] for stream in STREAMS))
                    await relay.open(host, bound, parse_address(self.upstream))
                    self._packets = relay
            except OSError as error:
                server.close()
                taken = error.errno == errno.EADDRINUSE and port == 0
                if not taken or attempt == BIND_ATTEMPTS - 1:
                    raise
            else:
                self._server = server
                return bound
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _accept(self) -> asyncio.Protocol:
        scope = self._scope
        if scope is None or len(self._connections) >= CONNECTIONS_MAX:
            self.refused_count += 1
            return _Refusing()
        connection = Connection(self, self._rng)
        self._connections[connection] = None
        host, port = parse_address(self.upstream)
        scope.spawn(connection.connect(host, port), name="connect")
        return connection.client()

    async def stop(self) -> None:
        """Stop listening and end every stream; idempotent."""
        server, self._server = self._server, None
        scope, self._scope = self._scope, None
        if server is not None:
            server.close()
        if self._packets is not None:
            self._packets.close()
            self._packets = None
        for connection in list(self._connections):
            connection.close(reset=False)
        if scope is not None:
            await scope.close()
        await asyncio.sleep(0)  # One turn of the loop, in which the sockets are really closed.

    def ended(self, connection: Connection) -> None:
        """Forget a connection that is over."""
        self._connections.pop(connection, None)

    # -- toxics ------------------------------------------------------------------------------

    def toxics(self) -> list[Toxic]:
        """Return the toxics, those of the way up first."""
        return sorted(self._toxics.values(), key=lambda toxic: toxic.stream == "downstream")

    def toxic(self, name: str) -> Toxic:
        """Return one toxic.

        Raises:
            ProxyError: 404, there is none of that name.
        """
        try:
            return self._toxics[name]
        except KeyError:
            raise ProxyError(404, "toxic not found") from None

    def add_toxic(self, toxic: Toxic) -> Toxic:
        """Let a toxic work on all streams, those that are open too.

        Raises:
            ProxyError: 409, there is one of that name; 400, there are too many.
        """
        if toxic.name in self._toxics:
            raise ProxyError(409, "toxic already exists")
        if len(self._toxics) >= TOXICS_MAX:
            raise ProxyError(400, f"proxy {self.name} has {TOXICS_MAX} toxics; remove one")
        return self.put_toxic(toxic)

    def change_toxic(self, name: str, given: Mapping[str, Any]) -> Toxic:  # Any: JSON
        """Give a toxic other attributes, or another toxicity.

        Raises:
            ProxyError: 404, there is none of that name; 400, an attribute is bad.
        """
        return self.put_toxic(changed_toxic(self.toxic(name), given))

    def put_toxic(self, toxic: Toxic) -> Toxic:
        """Let a toxic work on all streams, in the place of the one of its name."""
        self._toxics[toxic.name] = toxic
        self._paths[toxic.stream].add(toxic)
        for connection in list(self._connections):
            connection.add(toxic)
        return toxic

    def remove_toxic(self, name: str) -> Toxic:
        """Let a toxic work no longer.

        Raises:
            ProxyError: 404, there is none of that name.
        """
        toxic = self.toxic(name)
        del self._toxics[name]
        self._paths[toxic.stream].remove(name)
        for connection in list(self._connections):
            connection.remove(toxic)
        return toxic


class _Refusing(asyncio.Protocol):
    """A stream too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


class Proxies:
    """All proxies of one server. Leaving it stops them."""

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._proxies: dict[str, Proxy] = {}
        self._changing = asyncio.Lock()  # Guards what stands in `_proxies` while listeners open.

    def __iter__(self) -> Iterator[Proxy]:
        return iter(list(self._proxies.values()))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    def get(self, name: str) -> Proxy:
        """Return one proxy.

        Raises:
            ProxyError: 404, there is none of that name.
        """
        try:
            return self._proxies[name]
        except KeyError:
            raise ProxyError(404, "proxy not found") from None

    async def create(
        self,
        name: str,
        upstream: str,
        *,
        listen: str = "127.0.0.1:0",
        enabled: bool = True,
        packets: bool = False,
    ) -> Proxy:
        """Make a proxy and, unless it is not `enabled`, let it listen; for `packets`, too, if asked for.

        Raises:
            ProxyError: 400, the name or the upstream is missing; 409, the name is taken; 500, it cannot
                listen, or there are too many.
        """
        async with self._changing:
            return await self._create(name, upstream, listen, enabled=enabled, packets=packets)

    async def _create(
        self, name: str, upstream: str, listen: str, *, enabled: bool, packets: bool
    ) -> Proxy:
        for field, value in (("name", name), ("upstream", upstream)):
            if not value:
                raise ProxyError(400, f"missing required field: {field}")
        if name in self._proxies:
            raise ProxyError(409, "proxy already exists")
        if len(self._proxies) >= PROXIES_MAX:
            raise ProxyError(500, f"there are {PROXIES_MAX} proxies; delete one")
        rng = Random(f"{self._seed} {name}")
        proxy = Proxy(name, listen, upstream, rng=rng, has_packets=packets)
        if enabled:
            await proxy.start()
        self._proxies[name] = proxy
        return proxy

    async def change(
        self, name: str, *, listen: str | None, upstream: str | None, enabled: bool | None
    ) -> Proxy:
        """Change fields of a proxy; other addresses end its streams.

        Raises:
            ProxyError: 404, there is none of that name; 500, it cannot listen.
        """
        async with self._changing:
            proxy = self.get(name)
            wanted = proxy.is_enabled if enabled is None else enabled
            addresses = (listen or proxy.listen, upstream or proxy.upstream)
            if addresses != (proxy.listen, proxy.upstream) or not wanted:
                await proxy.stop()
            proxy.listen, proxy.upstream = addresses
            if wanted:
                await proxy.start()
            return proxy

    async def delete(self, name: str) -> None:
        """Stop a proxy and forget it.

        Raises:
            ProxyError: 404, there is none of that name.
        """
        async with self._changing:
            await self.get(name).stop()
            del self._proxies[name]

    async def populate(self, wanted: list[Mapping[str, Any]]) -> list[Proxy]:  # Any: JSON
        """Create proxies; those of the same name with other addresses are replaced.

        Raises:
            ProxyError: 400, a name or an upstream is missing (nothing was done); 500, one cannot listen.
        """
        async with self._changing:
            return [await self._populated(one) for one in wanted]

    async def _populated(self, wanted: Mapping[str, Any]) -> Proxy:  # Any: JSON
        name, upstream = wanted["name"], wanted["upstream"]
        listen, enabled = wanted.get("listen") or "127.0.0.1:0", wanted.get("enabled", True)
        packets, present = wanted.get("packets", False), self._proxies.get(name)
        same = (listen, upstream, packets)
        if present is not None and same == (present.listen, present.upstream, present.has_packets):
            await (present.start() if enabled else present.stop())
            return present
        if present is not None:
            await present.stop()
            del self._proxies[name]
        return await self._create(name, upstream, listen, enabled=enabled, packets=packets)

    async def reset(self) -> None:
        """Let every proxy listen, and remove all toxics.

        Raises:
            ProxyError: 500, one cannot listen.
        """
        async with self._changing:
            for proxy in self:
                await proxy.start()
                for toxic in proxy.toxics():
                    proxy.remove_toxic(toxic.name)

    async def close(self) -> None:
        """Stop and forget every proxy; idempotent."""
        for proxy in self:
            await proxy.stop()
        self._proxies.clear()
