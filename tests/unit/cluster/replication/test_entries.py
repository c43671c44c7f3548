"""Entries cost the garbage collector nothing."""

from __future__ import annotations

import gc
import math
import sys

import pytest

from cache.cluster.replication.entries import Entry
from cache.cluster.replication.replica import PartitionReplica


def test_the_collector_does_not_track_an_entry() -> None:
    """It is made of atoms, so that it cannot be part of a cycle."""
    assert not gc.is_tracked(Entry(b"v", 1, 1, math.inf))


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="all dictionaries are tracked there")
def test_the_collector_does_not_track_a_map_that_is_written_to() -> None:
    """A full collection looks into what is tracked: into each of a million entries."""
    replica = PartitionReplica(operation_memory=1, tombstone_lifetime=60.0)

    for hlc in range(3):
        replica.apply("m", b"k", Entry(b"v", hlc, 1, 5.0))
    replica.sweep(5.0, 1)

    assert (1, False) == (replica.entry_count, gc.is_tracked(replica.entries("m")))


def test_the_version_is_the_stamp_and_then_the_origin() -> None:
    """Of two writes with one stamp, that of the greater origin wins on every copy."""
    assert (3, 1) == Entry(b"v", 3, 1, math.inf).version
