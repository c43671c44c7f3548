"""The clustered part: an embedded node and the structures it shares with other members."""

from cache.cluster.client.client import ClientStats, ClusterClient
from cache.cluster.cluster_events import (
    ClusterEvent,
    ClusterEvents,
    EventsMissed,
    MemberJoined,
    MemberLeft,
    MemberSuspect,
    PartitionLost,
    PartitionMoved,
    SplitMerged,
)
from cache.cluster.config import (
    ClusterConfig,
    ConsistentConfig,
    GossipConfig,
    LimitsConfig,
    MapPolicy,
    MapStore,
    StoreConfig,
    TlsConfig,
)
from cache.cluster.consistent.consistent import Consistent
from cache.cluster.consistent.election import ConsistentElection, Leader
from cache.cluster.consistent.lock import ConsistentLock
from cache.cluster.consistent.log import ConsistentLog, LogPage, LogRecord
from cache.cluster.consistent.map import ConsistentMap, ConsistentRegister, Versioned
from cache.cluster.consistent.numbers import ConsistentCounter, ConsistentIds, ConsistentLatch
from cache.cluster.consistent.semaphore import ConsistentSemaphore
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
from cache.cluster.raft.status import GroupInfo
from cache.cluster.replication.merges import MergeReport
from cache.cluster.structures.conditions import AtLeast, AtMost, Between, LessThan, MoreThan
from cache.cluster.structures.events import EntryEvent, EntryEvents
from cache.cluster.structures.lock import DistributedLock, LockToken
from cache.cluster.structures.map import DistributedMap
from cache.cluster.structures.near import MapStats, NearCache
from cache.cluster.structures.processors import MutableEntry
from cache.cluster.topics import (
    BEGINNING,
    ReliableMessage,
    ReliableSubscription,
    ReliableTopic,
    Subscription,
    Topic,
    TopicCounts,
    TopicMessage,
    TopicPattern,
)

__all__ = [
    "BEGINNING",
    "AtLeast",
    "AtMost",
    "Between",
    "ClientStats",
    "ClusterClient",
    "ClusterConfig",
    "ClusterEvent",
    "ClusterEvents",
    "Consistent",
    "ConsistentConfig",
    "ConsistentCounter",
    "ConsistentElection",
    "ConsistentIds",
    "ConsistentLatch",
    "ConsistentLock",
    "ConsistentLog",
    "ConsistentMap",
    "ConsistentRegister",
    "ConsistentSemaphore",
    "Discovery",
    "DistributedLock",
    "DistributedMap",
    "DnsPeers",
    "DrainReceipt",
    "EntryEvent",
    "EntryEvents",
    "EtcdPeers",
    "EventsMissed",
    "GossipConfig",
    "GroupInfo",
    "Leader",
    "LessThan",
    "LimitsConfig",
    "LockToken",
    "LogPage",
    "LogRecord",
    "MapPolicy",
    "MapStats",
    "MapStore",
    "Member",
    "MemberJoined",
    "MemberLeft",
    "MemberState",
    "MemberSuspect",
    "MergeReport",
    "MoreThan",
    "MutableEntry",
    "NearCache",
    "Node",
    "NodeStats",
    "PartitionLost",
    "PartitionMoved",
    "PeersFile",
    "PeersFunction",
    "Presence",
    "ReliableMessage",
    "ReliableSubscription",
    "ReliableTopic",
    "Row",
    "Siblings",
    "SplitMerged",
    "StaticPeers",
    "StoreConfig",
    "Subscription",
    "Table",
    "TlsConfig",
    "Topic",
    "TopicCounts",
    "TopicMessage",
    "TopicPattern",
    "Versioned",
    "siblings_config",
]
