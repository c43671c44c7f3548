"""Every setting of a node: frozen, validated at construction, one preset per situation.

Durations are float seconds. A bad value raises `ConfigError` naming the field, the value and the remedy.
"""

from cache.cluster.config.cluster import ClusterConfig, Secret
from cache.cluster.config.consistent import ConsistentConfig
from cache.cluster.config.gossip import GossipConfig
from cache.cluster.config.limits import KIB, MIB, LimitsConfig
from cache.cluster.config.maps import MapPolicy
from cache.cluster.config.raft import RaftConfig
from cache.cluster.config.stores import MapStore, StoreConfig
from cache.cluster.config.tls import TlsConfig

__all__ = [
    "KIB",
    "MIB",
    "ClusterConfig",
    "ConsistentConfig",
    "GossipConfig",
    "LimitsConfig",
    "MapPolicy",
    "MapStore",
    "RaftConfig",
    "Secret",
    "StoreConfig",
    "TlsConfig",
]
