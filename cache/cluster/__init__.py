"""The clustered part: an embedded node and the structures it shares with other members."""

from cache.cluster.config import ClusterConfig, GossipConfig, LimitsConfig, TlsConfig
from cache.cluster.inspection import NodeStats
from cache.cluster.membership.members import Member, MemberState
from cache.cluster.node import DrainReceipt, Node
from cache.cluster.partitions.table import Row, Table
from cache.cluster.replication.merges import MergeReport
from cache.cluster.structures.map import DistributedMap

__all__ = [
    "ClusterConfig",
    "DistributedMap",
    "DrainReceipt",
    "GossipConfig",
    "LimitsConfig",
    "Member",
    "MemberState",
    "MergeReport",
    "Node",
    "NodeStats",
    "Row",
    "Table",
    "TlsConfig",
]
