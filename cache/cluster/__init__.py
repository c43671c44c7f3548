"""The clustered part: an embedded node and the structures it shares with other members."""

from cache.cluster.config import (
    ClusterConfig,
    GossipConfig,
    LimitsConfig,
    MapPolicy,
    MapStore,
    StoreConfig,
    TlsConfig,
)
from cache.cluster.discovery.base import Discovery, Presence
from cache.cluster.discovery.finder import StaticPeers
from cache.cluster.discovery.siblings import Siblings, siblings_config
from cache.cluster.inspection import NodeStats
from cache.cluster.leaving import DrainReceipt
from cache.cluster.membership.members import Member, MemberState
from cache.cluster.node import Node
from cache.cluster.partitions.table import Row, Table
from cache.cluster.replication.merges import MergeReport
from cache.cluster.structures.map import DistributedMap
from cache.cluster.structures.near import MapStats, NearCache
from cache.cluster.structures.processors import MutableEntry

__all__ = [
    "ClusterConfig",
    "Discovery",
    "DistributedMap",
    "DrainReceipt",
    "GossipConfig",
    "LimitsConfig",
    "MapPolicy",
    "MapStats",
    "MapStore",
    "Member",
    "MemberState",
    "MergeReport",
    "MutableEntry",
    "NearCache",
    "Node",
    "NodeStats",
    "Presence",
    "Row",
    "Siblings",
    "StaticPeers",
    "StoreConfig",
    "Table",
    "TlsConfig",
    "siblings_config",
]
