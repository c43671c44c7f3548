"""The services of one node, and how they are put together: the only place that constructs them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cache.clock import Clock
from cache.cluster.config import ClusterConfig
from cache.cluster.consensus import Consensus
from cache.cluster.consistent.consistent import Consistent
from cache.cluster.consistent.machine import ConsistentMachine
from cache.cluster.discovery.finder import Finder
from cache.cluster.environment import Environment
from cache.cluster.home import Home
from cache.cluster.ids import Address, MemberId
from cache.cluster.inspection import Inspection
from cache.cluster.leaving import Leaving
from cache.cluster.membership.service import MembershipService
from cache.cluster.messaging import MessagingService
from cache.cluster.partitions.service import PartitionService
from cache.cluster.replication.repair import Repair
from cache.cluster.replication.service import ReplicationService
from cache.cluster.scope import Scope
from cache.cluster.structures.gateway import Gateway
from cache.cluster.structures.map import DistributedMap
from cache.cluster.structures.maps import Maps
from cache.cluster.structures.near_reader import NearReader
from cache.cluster.structures.processors import Processors
from cache.cluster.structures.router import Router
from cache.cluster.structures.service import StructureService
from cache.cluster.structures.state import OperationIds
from cache.cluster.transport.base import Transport
from cache.cluster.transport.rpc import RpcEndpoint
from cache.metrics import Metrics

if TYPE_CHECKING:
    from cache.storage.base import Storage


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a node gives to its services."""

    config: ClusterConfig
    environment: Environment
    metrics: Metrics
    scope: Scope
    home: Home
    finder: Finder
    storage: Storage | None
    """Where logs are kept; None: in memory."""
    member: MemberId
    address: Address
    transport: Transport
    rpc: RpcEndpoint
    processors: Processors
    map_of: Callable[[str], DistributedMap[Any]]
    inspect: Callable[[str], Any]
    drain: Callable[[], Awaitable[dict[str, Any]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What a node is made of."""

    membership: MembershipService
    partitions: PartitionService
    replication: ReplicationService
    repair: Repair
    structures: StructureService
    consensus: Consensus
    consistent: Consistent
    maps: Maps
    messaging: MessagingService
    leaving: Leaving
    inspection: Inspection


def build_services(around: Surroundings) -> Services:
    """Construct the services of one node; none of them runs yet."""
    config, rpc, metrics, scope = around.config, around.rpc, around.metrics, around.scope
    clock, seed = around.environment.clock, around.environment.seed
    membership = MembershipService(
        config=config,
        finder=around.finder,
        member=around.member,
        address=around.address,
        clock=clock,
        rng=seed("membership"),
        transport=around.transport,
        rpc=rpc,
        metrics=metrics,
        scope=scope,
    )
    partitions = PartitionService(
        config=config, membership=membership, rpc=rpc, metrics=metrics, scope=scope
    )
    replication = ReplicationService(
        config=config,
        member=around.member,
        partitions=partitions,
        rpc=rpc,
        clock=clock,
        metrics=metrics,
        scope=scope,
    )
    replication.home = around.home
    repair = Repair(replication=replication, rng=seed("repair"), metrics=metrics)
    consensus = Consensus(
        config=config,
        environment=around.environment,
        storage=around.storage,
        membership=membership,
        rpc=rpc,
        metrics=metrics,
        scope=scope,
        make_machine=ConsistentMachine,
    )
    inspection = Inspection(
        config=config,
        membership=membership,
        partitions=partitions,
        replication=replication,
        repair=repair,
        consensus=consensus,
        metrics=metrics,
    )
    return _build_structures(
        around, membership, partitions, replication, repair, consensus, inspection
    )


def _build_structures(
    around: Surroundings,
    membership: MembershipService,
    partitions: PartitionService,
    replication: ReplicationService,
    repair: Repair,
    consensus: Consensus,
    inspection: Inspection,
) -> Services:
    seed, metrics, scope = around.environment.seed, around.metrics, around.scope
    clock = around.environment.clock
    structures = StructureService(
        replication=replication,
        processors=around.processors,
        metrics=metrics,
        rng=seed("journal"),
    )
    leaving = Leaving(membership, replication, repair, around.finder, structures.behind, consensus)
    router = Router(
        config=around.config,
        tables=partitions,
        site=replication,
        dispatch=structures.dispatch,
        clock=clock,
        metrics=metrics,
    )
    operation_ids = OperationIds(seed("operations").randbytes(8))
    messaging = MessagingService(
        membership=membership,
        partitions=partitions,
        repair=repair,
        replication=replication,
        router=router,
        structures=structures,
        operation_ids=operation_ids,
        scope=scope,
        metrics=metrics,
    )
    Gateway(
        config=around.config,
        partitions=partitions,
        site=replication,
        rpc=around.rpc,
        map_of=around.map_of,
        inspect=around.inspect,
        drain=around.drain,
    )
    return Services(
        membership=membership,
        partitions=partitions,
        replication=replication,
        repair=repair,
        structures=structures,
        consensus=consensus,
        consistent=_consistent(consensus, clock, scope),
        maps=Maps(router, NearReader(router, scope, metrics), operation_ids),
        messaging=messaging,
        leaving=leaving,
        inspection=inspection,
    )


def _consistent(consensus: Consensus, clock: Clock, scope: Scope) -> Consistent:
    ask, give_up = consensus.info, consensus.give_up
    return Consistent(consensus.group, clock, scope, info=ask, give_up=give_up)
