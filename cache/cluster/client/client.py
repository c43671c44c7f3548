"""`ClusterClient`: the maps of a cluster, used by a process that is no member of it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, NoReturn, Self

from cache.cluster.client.site import ClientSite
from cache.cluster.config import ClusterConfig
from cache.cluster.discovery.finder import Finder
from cache.cluster.discovery.siblings import Siblings
from cache.cluster.environment import Environment
from cache.cluster.home import Home
from cache.cluster.ids import Address
from cache.cluster.scope import Scope
from cache.cluster.structures.map import DistributedMap
from cache.cluster.structures.maps import Maps
from cache.cluster.structures.near import NearCache
from cache.cluster.structures.near_reader import NearReader
from cache.cluster.structures.router import Router
from cache.cluster.structures.state import OperationIds
from cache.cluster.system import system_environment
from cache.cluster.transport.rpc import RpcEndpoint
from cache.cluster.transport.sockets import SocketTransport
from cache.durations import DEFAULT
from cache.errors import ClosedError, ConfigError, RemoteProtocolError
from cache.forks import watch
from cache.keys import Ttl
from cache.metrics import Metrics
from cache.serializers import Serializer

NOWHERE: Final = Address("127.0.0.1:0")
"""A client does not listen."""

SETTINGS: Final = (
    "cluster_name",
    "secret",
    "tls",
    "operation_timeout",
    "join_timeout",
    "discovery",
    "limits",
)
"""Fields of `ClusterConfig` that a client has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientStats:
    """A snapshot of one client."""

    members: int
    """Members of the table that it goes by."""
    table_version: int
    readings: dict[str, float]
    """Every counter and gauge by name."""


class ClusterClient:
    """A process that uses a cluster and is no part of it. Use as `async with ClusterClient([…]) as client:`.

    It holds no data and takes no part in gossip: no member knows of it, and it may come and go at any time.
    It has the partition table, so that each call goes straight to the owner of its key, over one
    connection to each member that it needs. Its maps are those of `Node.map`, with the same guarantees; what
    a member reads from its own memory is one round trip here, unless a near cache has it.

    Args:
        seeds: addresses of some members, `host:port`; one that answers is enough. Members that come
            later are learnt from the table.
        environment: where clock, randomness and network come from; the real world by default.
        settings: fields of `ClusterConfig`: `cluster_name`, `secret`, `tls`, `discovery`, `limits`,
            `operation_timeout`; `join_timeout` is how long `start` tries to reach a member.

    Raises:
        ConfigError: a setting is bad, or one of members only; names it.
    """

    def __init__(
        self, seeds: Sequence[str] = (), *, environment: Environment | None = None, **settings: Any
    ) -> None:  # Any: field values, checked by ClusterConfig
        self.config = client_config(seeds, settings)
        self._metrics = Metrics()
        self._finder = Finder(self.config, self._metrics)
        self._name = f"client of {', '.join(self.config.peers) or self.config.discovery!r}"
        if environment is None:
            environment = system_environment(tls=self.config.tls, metrics=self._metrics)
        self._environment = environment
        self._transport = environment.transport(NOWHERE)
        if isinstance(self._transport, SocketTransport):
            self._transport.load_tls()  # Now: a bad file is an error of the settings, not of a call.
        self._scope = Scope("client")
        self._state = "new"
        self._closed = asyncio.Event()

    def __repr__(self) -> str:
        return f"<ClusterClient {self._name} {self._state}>"

    # -- life ------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def start(self) -> None:
        """Find a member, and learn the table.

        Raises:
            UnavailableError: no member answered within `join_timeout`.
            JoinRefusedError: the members that answered refuse this client: another cluster name, secret or
                version of the protocol; both sides log the reason.
            ConfigError: `discovery` cannot be used.
        """
        if self._state != "new":
            raise ClosedError(f"{self!r} was started before; make a new one")
        self._state = "starting"
        self._home = Home(self._name)
        watch(self, ClusterClient._forked)
        try:
            self.config = await self._finder.enter(self.config)
            await self._build()
        except BaseException:
            await self.close()
            raise
        self._state = "open"

    async def _build(self) -> None:
        clock, seed = self._environment.clock, self._environment.seed
        self._rpc = RpcEndpoint(
            transport=self._transport,
            config=self.config,
            member=None,
            clock=clock,
            rng=seed("rpc"),
            metrics=self._metrics,
            scope=self._scope,
        )
        self._rpc.home = self._home
        self._site = ClientSite(
            finder=self._finder,
            rpc=self._rpc,
            clock=clock,
            rng=seed("client"),
            metrics=self._metrics,
            scope=self._scope,
            home=self._home,
        )
        view = await self._site.connect(self.config.join_timeout)
        try:
            self.config = self.config.with_changes(
                partition_count=len(self._site.table.rows),
                replica_count=view.replica_count,
                read_quorum=view.read_quorum,
            )
        except ConfigError as error:
            raise RemoteProtocolError(f"a member described its cluster as {error}") from error
        router = Router(
            config=self.config,
            tables=self._site,
            site=self._site,
            dispatch=_owns_nothing,
            clock=clock,
            metrics=self._metrics,
        )
        near = NearReader(router, self._scope, self._metrics)
        self._maps = Maps(router, near, OperationIds(seed("operations").randbytes(8)))
        self._site.start()

    async def close(self) -> None:
        """Close all connections; calls under way fail with `ClosedError`. Idempotent."""
        if self._state in ("closed", "forked"):
            return
        if hasattr(self, "_home"):
            self._home.check()
        self._state = "closed"
        if hasattr(self, "_maps"):
            await self._maps.close()
        await self._finder.withdraw()
        await self._scope.close()
        if hasattr(self, "_rpc"):
            await self._rpc.close()
        await self._transport.close()
        self._closed.set()

    async def abort(self) -> None:
        """Close: a client has nothing to hand over."""
        await self.close()

    async def wait_closed(self) -> None:
        """Return when the client has closed."""
        await self._closed.wait()

    def _forked(self) -> None:
        """Refuse everything: this process is a child, and the client is its parent's."""
        if self._state != "closed":
            self._state = "forked"
            self._home.forked()

    # -- use -------------------------------------------------------------------------------------

    def map(
        self,
        name: str,
        *,
        ttl: Ttl = DEFAULT,
        serializer: Serializer | None = None,
        near_cache: NearCache | None = None,
    ) -> DistributedMap[Any]:
        """Return the cluster's map of that name; arguments and errors as of `Node.map`."""
        # Any: the caller annotates the value type, as with `Node.map`.
        self._require_open()
        return self._maps.open(name, ttl=ttl, serializer=serializer, near_cache=near_cache)

    def stats(self) -> ClientStats:
        """Return a snapshot."""
        self._require_open()
        table = self._site.table
        return ClientStats(
            members=len(table.addresses),
            table_version=table.id.version,
            readings=self._metrics.snapshot(),
        )

    def _require_open(self) -> None:
        if self._state == "forked":
            self._home.check()
        if self._state != "open":
            raise ClosedError(f"{self!r}: start it (or make a new one)")


def client_config(seeds: Sequence[str], settings: Mapping[str, Any]) -> ClusterConfig:
    """Return the settings of a client; arguments and errors as of `ClusterClient`. Any: see there."""
    for name in settings:
        if name not in SETTINGS:
            known = ", ".join(SETTINGS)
            raise ConfigError(f"{name}: no setting of a client; there are {known}")
    if isinstance(seeds, str):
        raise ConfigError(f"seeds={seeds!r}: must be a list of host:port")
    discovery = settings.get("discovery")
    if isinstance(discovery, Siblings):
        raise ConfigError(
            "discovery=Siblings(…): siblings are members; open cluster://siblings/APP"
        )
    if not seeds and discovery is None:
        raise ConfigError("a client needs seeds, the addresses of some members, or a discovery")
    return ClusterConfig(peers=tuple(Address(seed) for seed in seeds), **settings)


def _owns_nothing(request: object) -> NoReturn:
    raise AssertionError("a client owns no partition")
