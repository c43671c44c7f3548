"""The clustered part: an embedded node and the structures it shares with other members."""

from cache.cluster.client.client import ClientStats, ClusterClient
from cache.cluster.config import ClusterConfig, GossipConfig, LimitsConfig, TlsConfig
from cache.cluster.discovery.base import Discovery, Presence
from cache.cluster.discovery.callback import PeersFunction
from cache.cluster.discovery.dns import DnsPeers
from cache.cluster.discovery.etcd import EtcdPeers
from cache.cluster.discovery.file import PeersFile
from cache.cluster.discovery.finder import StaticPeers
from cache.cluster.discovery.siblings import Siblings, siblings_config
from cache.cluster.inspection import NodeStats
from cache.cluster.leaving import DrainReceipt
from cache.cluster.membership.members import Member, MemberState
from cache.cluster.node import Node
from cache.cluster.partitions.table import Row, Table
from cache.cluster.replication.merges import MergeReport
from cache.cluster.structures.conditions import AtLeast, AtMost, Between, LessThan, MoreThan
from cache.cluster.structures.lock import DistributedLock, LockToken
from cache.cluster.structures.map import DistributedMap
from cache.cluster.structures.near import MapStats, NearCache
from cache.cluster.structures.processors import MutableEntry

__all__ = [
    "AtLeast",
    "AtMost",
    "Between",
    "ClientStats",
    "ClusterClient",
    "ClusterConfig",
    "Discovery",
    "DistributedLock",
    "DistributedMap",
    "DnsPeers",
    "DrainReceipt",
    "EtcdPeers",
    "GossipConfig",
    "LessThan",
    "LimitsConfig",
    "LockToken",
    "MapStats",
    "Member",
    "MemberState",
    "MergeReport",
    "MoreThan",
    "MutableEntry",
    "NearCache",
    "Node",
    "NodeStats",
    "PeersFile",
    "PeersFunction",
    "Presence",
    "Row",
    "Siblings",
    "StaticPeers",
    "Table",
    "TlsConfig",
    "siblings_config",
]
