"""Many entries at once: the copy is what it would be, had they come one after the other."""

from __future__ import annotations

import gc
import math
import sys
from dataclasses import dataclass, field
from functools import reduce
from operator import xor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.cluster.config.maps import QUEUE, MapPolicy, Policies
from cache.cluster.replication.digest import BUCKET_COUNT
from cache.cluster.replication.entries import Entry
from cache.cluster.replication.recent import RecentReads
from cache.cluster.replication.replica import PartitionReplica
from cache.cluster.replication.usage import Usage

LIFETIME = 60.0
MANY = 400

PLAIN = "plain"
BOUNDED = "bounded"
MAPS = (PLAIN, BOUNDED, QUEUE + PLAIN)
KEYS = [b"%d" % number for number in range(6)]

ENTRIES = st.builds(
    Entry,
    st.sampled_from([None, b"", b"value", b"another"]),
    st.integers(1, 4),
    st.integers(1, 2),
    st.sampled_from([20.0, 40.0, math.inf]),
)
BATCHES = st.lists(
    st.tuples(
        st.sampled_from(MAPS),
        st.lists(st.tuples(st.sampled_from(KEYS), ENTRIES), min_size=1, max_size=8),
    ),
    max_size=5,
)

Event = tuple[str, bytes, Entry | None, Entry | None, int]


@dataclass
class Seen:
    """A view that remembers what it was told."""

    idle_at: float = math.inf
    size_bytes: int = 0
    changes: list[tuple[bytes, Entry | None, Entry | None]] = field(default_factory=list)

    def changed(self, key: bytes, old: Entry | None, new: Entry | None) -> None:
        self.changes.append((key, old, new))
        self.size_bytes += 7


def copy(*, limit: int | None = None) -> PartitionReplica:
    policies = Policies({BOUNDED: MapPolicy(max_entries=100, max_idle=9.0)})
    usage = Usage(limit, policies)
    return PartitionReplica(operation_memory=3, tombstone_lifetime=LIFETIME, usage=usage)


def summary(replica: PartitionReplica) -> tuple[object, ...]:
    """Everything about a copy but the order of its entries."""
    return (
        {name: dict(replica.entries(name)) for name in replica.map_names()},
        replica.digest(),
        replica.bucket_digests(),
        replica.entry_count,
        replica.memory_bytes,
        replica._usage.bytes,
        {name: replica._usage.of(name).pending for name in MAPS},
        {
            name: (kept.live, kept.size_bytes, kept.pending, kept._fresh)
            for name, kept in replica.kept.items()
        },
    )


def one_by_one(
    replica: PartitionReplica, name: str, pairs: list[tuple[bytes, Entry]]
) -> list[tuple[bytes, Entry]]:
    return [pair for pair in pairs if not replica.apply(name, *pair)]


def at_once(
    replica: PartitionReplica, name: str, pairs: list[tuple[bytes, Entry]]
) -> list[tuple[bytes, Entry]]:
    return replica.fill(name, [key for key, _ in pairs], [entry for _, entry in pairs])


@given(BATCHES, st.sampled_from([None, 10**6]))
def test_it_is_as_if_they_had_come_one_after_the_other(
    batches: list[tuple[str, list[tuple[bytes, Entry]]]], limit: int | None
) -> None:
    """Versions, digests, counts, books, what ends when, and which ones were not stored."""
    one, two = copy(limit=limit), copy(limit=limit)

    for name, pairs in batches:
        assert one_by_one(one, name, pairs) == at_once(two, name, pairs)

    assert summary(one) == summary(two)
    assert reduce(xor, two.bucket_digests()) == two.digest()
    for now in (20.5, 40.5, 20.5 + LIFETIME, 40.5 + LIFETIME):
        assert one.sweep(now, 99) == two.sweep(now, 99)
        assert summary(one) == summary(two)


@given(BATCHES)
def test_a_listener_is_told_of_the_same_changes(
    batches: list[tuple[str, list[tuple[bytes, Entry]]]],
) -> None:
    """In the same order: entry events and near copies live on them."""
    one, two = copy(), copy()
    told: list[Event] = []
    told_at_once: list[Event] = []
    one.listener = lambda *event: told.append(event)
    two.listener = lambda *event: told_at_once.append(event)

    for name, pairs in batches:
        one_by_one(one, name, pairs)
        at_once(two, name, pairs)

    assert told == told_at_once


@given(BATCHES)
def test_a_view_is_told_of_the_same_changes(
    batches: list[tuple[str, list[tuple[bytes, Entry]]]],
) -> None:
    """In the same order: indexes and key orders are views."""
    one, two = copy(), copy()
    view, view_at_once = Seen(), Seen()
    one.attach(PLAIN, view)
    two.attach(PLAIN, view_at_once)

    for name, pairs in batches:
        one_by_one(one, name, pairs)
        at_once(two, name, pairs)

    assert view == view_at_once
    assert one.view_bytes == two.view_bytes


def test_what_was_read_lately_is_forgotten_when_a_later_version_comes() -> None:
    """A remembered value is the one that the copy holds."""
    replica, recent = copy(), RecentReads(10**6)
    values = recent.of(PLAIN)
    key, entry = b"sname", Entry(b"v", 1, 1, math.inf)
    replica.apply(PLAIN, key, entry)
    replica.recent = recent
    recent.note(replica, PLAIN, key, "v", entry)
    assert {"name": "v"} == values

    replica.fill(PLAIN, [b"sother", key], [entry, Entry(b"w", 2, 1, math.inf)])

    assert {} == values


def test_a_later_version_that_is_here_stays_and_is_named() -> None:
    """A live write overtook the copy of an older one."""
    replica = copy()
    later, older = Entry(b"later", 2, 1, math.inf), Entry(b"older", 1, 1, math.inf)
    replica.apply(PLAIN, b"k", later)

    refused = replica.fill(PLAIN, [b"j", b"k"], [older, older])

    assert [(b"k", older)] == refused
    assert {b"j": older, b"k": later} == replica.entries(PLAIN)


def test_many_in_one_go_have_the_digest_of_each() -> None:
    """All buckets, and origins that differ."""
    keys = [b"%d" % number for number in range(MANY)]
    entries = [Entry(b"v", number, number % 3, math.inf) for number in range(MANY)]
    one, two = copy(), copy()

    one_by_one(one, PLAIN, list(zip(keys, entries, strict=True)))
    two.fill(PLAIN, keys, entries)

    assert 0 not in one.bucket_digests()
    assert BUCKET_COUNT == len(set(one.bucket_digests()))
    assert summary(one) == summary(two)


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="all dictionaries are tracked there")
def test_the_collector_does_not_track_a_map_that_is_filled() -> None:
    """As one that is written to, see test_entries."""
    replica = copy()

    for first in (0, MANY):
        keys = [b"%d" % number for number in range(first, first + MANY)]
        replica.fill(PLAIN, keys, [Entry(b"v", 1, 1, 5.0)] * MANY)

    assert (2 * MANY, False) == (replica.entry_count, gc.is_tracked(replica.entries(PLAIN)))
