"""One member of the cluster, inside the application's process: builds the services and starts and stops them.

Order of start: store, network, groups of consensus, membership, table, copies, then the node counts as ready.
Order of stop: hand everything over, say goodbye, end tasks, close network and store. `services` constructs
the services.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import asdict
from types import TracebackType
from typing import Any, Final, Self

from cache.cluster.config import ClusterConfig
from cache.cluster.consistent.consistent import Consistent
from cache.cluster.discovery.finder import Finder
from cache.cluster.environment import Environment, member_name, store_of
from cache.cluster.home import Home
from cache.cluster.ids import Address, MemberId, new_member_id, parse_address
from cache.cluster.inspection import NodeStats
from cache.cluster.leaving import DrainReceipt
from cache.cluster.membership.members import Member
from cache.cluster.messaging import Messaging
from cache.cluster.partitions.table import Table
from cache.cluster.replication.merges import MergeReport
from cache.cluster.resp.client import Shared
from cache.cluster.resp.dispatch import TABLE
from cache.cluster.resp.processors import PROCESSORS
from cache.cluster.resp.server import RespServer
from cache.cluster.scope import Scope
from cache.cluster.services import Surroundings, build_services
from cache.cluster.setup import run_setup
from cache.cluster.structures.builtin import BUILTIN
from cache.cluster.structures.map import DistributedMap
from cache.cluster.structures.near import NearCache
from cache.cluster.structures.processors import Processor, Processors
from cache.cluster.system import system_environment
from cache.cluster.transport.rpc import RpcEndpoint
from cache.durations import DEFAULT
from cache.errors import ClosedError, ConfigError
from cache.forks import watch
from cache.keys import Ttl
from cache.metrics import Metrics
from cache.serializers import Serializer

logger = logging.getLogger(__name__)

FAREWELL_INTERVAL: Final = 0.25
"""Seconds for the receipt of a remote drain to reach its caller before the node closes."""


class Node(Messaging):
    """An embedded cluster member. Use as `async with Node(config) as node:`.

    Entering returns only when the node can serve, or raises: `JoinRefusedError` when a peer refuses it,
    `OSError` when the address cannot be bound, `ConfigError` when a TLS file is bad. With a `data_dir` and no
    `name`, making one reads its name there, and raises `StorageError` when it cannot. Leaving drains: the
    data moves to the other members first, within `config.leave_timeout`.
    """

    def __init__(
        self, config: ClusterConfig | None = None, *, environment: Environment | None = None
    ) -> None:
        self.config = config if config is not None else ClusterConfig.local()
        self._metrics = Metrics()
        self._finder = Finder(self.config, self._metrics)
        value_limit = self.config.limits.value_bytes_max
        self._processors = Processors({**BUILTIN, **PROCESSORS}, value_limit=value_limit)
        if environment is None:
            environment = system_environment(
                tls=self.config.tls, metrics=self._metrics, paths=self._finder.stream_paths
            )
        self._environment = environment
        self._name = member_name(self.config, environment)
        self._id = new_member_id(self._name, environment.seed("generation"))
        self._scope = Scope(self._name)
        self._metrics.gauge("node.tasks", lambda: self._scope.task_count)
        self._farewell = Scope(f"{self._name}.farewell")
        self._state = "new"
        self._closed = asyncio.Event()
        self._draining: asyncio.Future[DrainReceipt] | None = None
        self._transport = environment.transport(self.config.bind)
        self._storage = store_of(self.config, environment, self._name)
        self._address: Address = self.config.bind
        self._resp: RespServer | None = None
        self._resp_address: Address | None = None

    # -- identity ----------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """Name of this member."""
        return self._name

    @property
    def id(self) -> MemberId:
        """Id of this life of the member."""
        return self._id

    @property
    def address(self) -> Address:
        """Where other members reach this node; usable as a peer once started."""
        return self._address

    @property
    def resp_address(self) -> Address | None:
        """Where Redis clients reach this node once it has started; None without `config.resp_bind`."""
        return self._resp_address

    def __repr__(self) -> str:
        return f"<Node {self._name} at {self._address} {self._state}>"

    # -- life --------------------------------------------------------------------------------

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
        """Bind, join and get ready to serve.

        Raises:
            JoinRefusedError: a peer refused this node; both sides log the reason.
            OSError: the address cannot be bound.
            ConfigError: a file of `config.tls` cannot be read or used; names the field. Or
                `config.discovery` or `config.setup` cannot be used.
            StorageError: `config.data_dir` is another member's, in use, damaged, or cannot be written.
        """
        if self._state != "new":
            raise ClosedError(f"node {self._name} was started before; make a new one")
        self._state = "starting"
        self._home = Home(self._name)
        watch(self, Node._forked)
        try:
            if self.config.setup is not None:
                run_setup(self.config.setup, self)
            if self._storage is not None:
                await self._storage.open()
            self.config = await self._finder.enter(self.config)
            await self._listen()
            self._build()
            await self._finder.listening(self._address)
            await self._consensus.open()
            await self._membership.join()
            self._consensus.start()
            await self._finder.announce()
            self._partitions.start()
            self._replication.start()
            self._repair.start()
            self._behind.start()
            await self._partitions.wait_ready()
            await self._open_front_door()
        except BaseException:
            await self.abort()
            raise
        self._state = "serving"
        logger.info("node.serving name=%s address=%s", self._name, self._address)

    async def _listen(self) -> None:
        environment = self._environment
        self._rpc = RpcEndpoint(
            transport=self._transport,
            config=self.config,
            member=self._id,
            clock=environment.clock,
            rng=environment.seed("rpc"),
            metrics=self._metrics,
            scope=self._scope,
        )
        self._rpc.home = self._home
        bound = await self._transport.listen(self._on_packet, self._rpc.accept)
        self._address = self.config.advertise or _reachable(bound)
        self._rpc.address = self._address

    def _on_packet(self, source: Address, payload: bytes) -> None:
        if hasattr(self, "_membership"):
            self._membership.receive_packet(source, payload)

    def _build(self) -> None:
        services = build_services(
            Surroundings(
                config=self.config,
                environment=self._environment,
                metrics=self._metrics,
                scope=self._scope,
                home=self._home,
                finder=self._finder,
                storage=self._storage,
                member=self._id,
                address=self._address,
                transport=self._transport,
                rpc=self._rpc,
                processors=self._processors,
                map_of=self.map,
                inspect=self.inspect,
                drain=self._drain_remotely,
            )
        )
        self._membership = services.membership
        self._partitions = services.partitions
        self._replication = services.replication
        self._repair = services.repair
        self._structures = services.structures
        self._behind = services.structures.behind
        self._consensus = services.consensus
        self._consistent = services.consistent
        self._maps = services.maps
        self._messaging = services.messaging
        self._leaving = services.leaving
        self._inspection = services.inspection
        self._rpc.on_refused = self._membership.report_refused
        self._rpc.on_lost = self._membership.report_lost
        self._known: dict[MemberId, Address] = {}
        self._membership.subscribe(self._on_members)
        self._on_members()

    async def _open_front_door(self) -> None:
        """Serve Redis clients, where that is asked for."""
        if self.config.resp_bind is None:
            return
        self._state = "serving"  # Clients are let in at once.
        shared = Shared(
            config=self.config,
            clock=self._environment.clock,
            metrics=self._metrics,
            map_of=self.map,
            stats=self.stats,
            topics=self._messaging.topics,
            table=TABLE,
        )
        self._resp = RespServer(shared)
        self._resp_address = await self._resp.start(self.config.resp_bind)

    def _on_members(self) -> None:
        """Follow membership: drop links to members that are gone, and watch the member quorum."""
        current = {member.id: member.address for member in self._membership.members()}
        addresses = dict.fromkeys(current.values())
        for member, address in self._known.items():
            if member not in current and address not in addresses:
                self._rpc.disconnect(address)
        self._known = current
        self._replication.set_quorum(reached=len(current) >= self.config.member_quorum)

    async def drain(self) -> DrainReceipt:
        """Hand every copy over to other members, leave the cluster and close.

        Returns within `config.leave_timeout` and a little; operations go on meanwhile. Calling it again
        gives the same receipt.

        Raises:
            ClosedError: the node is not running.
        """
        receipt = await self._hand_over()
        await self.abort()
        return receipt

    async def close(self) -> None:
        """Drain, then stop; idempotent."""
        if self._state == "serving":
            await self.drain()
        else:
            await self.abort()

    async def abort(self) -> None:
        """Stop at once, without handing anything over or saying goodbye; idempotent."""
        if self._state in ("closed", "forked"):
            return
        if hasattr(self, "_home"):
            self._home.check()
        self._state = "closed"
        if self._resp is not None:
            await self._resp.close()
        if hasattr(self, "_maps"):
            self._membership.close()
            self._consensus.stop()
            self._maps.stop()
            self._messaging.close()
            self._replication.set_quorum(reached=False)
            await self._maps.close()
        await self._finder.withdraw()
        await self._scope.close()
        if hasattr(self, "_rpc"):
            await self._rpc.close()
        await self._transport.close()
        if self._storage is not None:
            await self._storage.close()
        self._closed.set()
        await self._farewell.close()
        logger.info("node.closed name=%s", self._name)

    def _forked(self) -> None:
        """Refuse everything: this process is a child, and the member is its parent.

        The transport has let go of its sockets by itself.
        """
        if self._state == "closed":
            return
        self._state = "forked"
        self._home.forked()
        if hasattr(self, "_maps"):
            self._membership.close()
            self._maps.near.close()
            # Nobody follows a child, nor has it a loop to tell.
            self._replication.on_serving = None
            self._replication.set_quorum(reached=False)

    async def wait_closed(self) -> None:
        """Return when the node has closed, for whatever reason (for example a remote drain)."""
        await self._closed.wait()

    async def _hand_over(self) -> DrainReceipt:
        if self._draining is not None:
            return await asyncio.shield(self._draining)
        self._require_serving()
        self._home.check()
        draining = self._draining = asyncio.get_running_loop().create_future()
        try:
            receipt = await self._leaving.hand_over()
            draining.set_result(receipt)
        finally:
            if not draining.done():
                draining.cancel()
        logger.info("node.drained name=%s receipt=%s", self._name, receipt)
        return receipt

    async def _drain_remotely(self) -> dict[str, Any]:  # Any: MessagePack values
        receipt = await self._hand_over()
        asyncio.get_running_loop().call_later(FAREWELL_INTERVAL, self._close_soon)
        return asdict(receipt)

    def _close_soon(self) -> None:
        if self._state == "serving":
            self._farewell.spawn(self.abort(), name="abort")

    # -- use ---------------------------------------------------------------------------------

    def map(
        self,
        name: str,
        *,
        ttl: Ttl = DEFAULT,
        serializer: Serializer | None = None,
        near_cache: NearCache | None = None,
    ) -> DistributedMap[Any]:
        """Return the cluster's map of that name; the options are those of this handle.

        Args:
            name: the same on every member.
            ttl: default for writes.
            serializer: how values become bytes; MessagePack by default, see `SignedPickle`.
            near_cache: keep copies of entries that other members own, see `NearCache`; handles of one
                map on this node share them.

        Raises:
            ClosedError: the node is not running.
            ConfigError: the name is empty or over 128 characters, or `near_cache` cannot be had.
        """
        # Any: the caller annotates the value type, `users: DistributedMap[User] = node.map("users")`.
        self._require_serving()
        return self._maps.open(name, ttl=ttl, serializer=serializer, near_cache=near_cache)

    @property
    def consistent(self) -> Consistent:
        """Structures that stay consistent whatever fails, see `Consistent`.

        Raises:
            ClosedError: the node is not running.
        """
        self._require_serving()
        return self._consistent

    def register_processor(self, name: str, function: Processor) -> None:
        """Let `DistributedMap.execute` run `function` on keys that this member owns.

        Register the same functions on every member, before it starts: any of them may come to own a key.

        Args:
            name: by which `execute` calls it.
            function: called with a `MutableEntry` and the arguments of `execute`, in the node's event loop:
                quick, without input or output, and it must not await.

        Raises:
            ConfigError: a bad name, one that another function has, or an async function.
        """
        self._processors.register(name, function)

    def members(self) -> list[Member]:
        """Return the live members, oldest first, this one included."""
        self._require_serving()
        return self._membership.members()

    def partition_table(self) -> Table:
        """Return the partition table this member goes by."""
        self._require_serving()
        return self._partitions.table

    def stats(self) -> NodeStats:
        """Return a snapshot of this node."""
        self._require_serving()
        return self._inspection.stats()

    def merge_reports(self) -> list[MergeReport]:
        """Return what this member, as owner, merged after splits; the latest 16, oldest first."""
        self._require_serving()
        return self._repair.merges.reports()

    def inspect(self, what: str) -> Any:  # Any: MessagePack values
        """Answer a question about this node.

        `what` is one of "status", "members", "table", "stats", "digests", "lost" (partitions), "merges",
        "consensus", "consensus:states" (digests), "consensus:members" (voters), "copies:<map>:<hex key>",
        "keys:<map>".
        """
        self._require_serving()
        return self._inspection.answer(what)

    def _require_serving(self) -> None:
        if self._state == "forked":
            self._home.check()
        if self._state != "serving":
            raise ClosedError(f"node {self._name} is {self._state}; start it (or make a new one)")


def _reachable(bound: Address) -> Address:
    """Return where others reach a bound address.

    Raises:
        ConfigError: it is a wildcard, which nobody can connect to.
    """
    host, _ = parse_address(bound)
    if host in ("0.0.0.0", "::"):  # noqa: S104  (compared, not bound)
        raise ConfigError(f"bind={bound!r}: set advertise, others cannot reach a wildcard address")
    return bound
