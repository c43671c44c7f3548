"""Test helpers for applications: a cluster to grow and break, and the simulator it can run in."""

from cache.testing.cluster import TestCluster
from cache.testing.members import MapHandle, MemberHandle
from cache.testing.running import cluster_test, run_cluster
from cache.testing.sim import World, run_simulation
from cache.testing.store import RecordingStore

__all__ = [
    "MapHandle",
    "MemberHandle",
    "RecordingStore",
    "TestCluster",
    "World",
    "cluster_test",
    "run_cluster",
    "run_simulation",
]
