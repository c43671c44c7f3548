"""Keys in order, made a slice at a time while keys come and go."""

from __future__ import annotations

import math
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st

from cache.cluster.replication.entries import Entry
from cache.cluster.replication.replica import PartitionReplica
from cache.cluster.replication.usage import Usage
from cache.cluster.structures import key_order
from cache.cluster.structures.key_order import IDLE_SECONDS, SLICE, KeyOrder

KEYS = [prefix + b"%d" % number for prefix in (b"s", b"b", b"i") for number in range(12)]


def replica_of(keys: list[bytes]) -> PartitionReplica:
    replica = PartitionReplica(operation_memory=1, tombstone_lifetime=10.0, usage=Usage())
    for number, key in enumerate(keys):
        replica.apply("m", key, entry(number + 1))
    return replica


def entry(version: int) -> Entry:
    return Entry(b"\x00v", version, 1, math.inf)


def attached(replica: PartitionReplica) -> KeyOrder:
    order = KeyOrder(replica.entries("m"), 0.0)
    replica.attach("m", order)
    return order


changes = st.lists(st.tuples(st.sampled_from(["write", "forget", "grow"]), st.sampled_from(KEYS)))


@given(st.lists(st.sampled_from(KEYS), unique=True, min_size=1), changes)
def test_it_has_the_keys_there_are_in_order(
    keys: list[bytes], steps: list[tuple[str, bytes]]
) -> None:
    """Whatever comes and goes while it is made, and afterwards."""
    replica = replica_of(keys)
    order = attached(replica)
    with mock.patch.object(key_order, "SLICE", 5):
        for version, (what, key) in enumerate(steps, start=100):
            if what == "write":
                replica.apply("m", key, entry(version))
            elif what == "forget":
                replica.restore("m", key, None)
            else:
                order.grow()
    while not order.is_complete:
        order.grow()

    there = sorted(replica.entries("m"))
    assert there == list(order.after(b"", b""))
    for after in (b"b5", b"s10", b"z"):
        assert [key for key in there if key > after] == list(order.after(after, b""))
        with_prefix = [k for k in there if k > after and k.startswith((b"s1", b"b1"))]
        assert with_prefix == list(order.after(after, b"1"))


def test_it_is_made_in_slices() -> None:
    """No turn puts more than a slice in order, and the whole takes one look at each key."""
    replica = replica_of([b"s%05d" % n for n in range(10 * SLICE)])
    order = attached(replica)
    turns = 0
    while not order.is_complete:
        before = order.sorted_count
        order.grow()
        turns += 1
        assert SLICE >= order.sorted_count - before

    assert 10 == turns
    assert 10 * SLICE == order.sorted_count


def test_its_memory_counts_until_it_is_idle() -> None:
    """Then it is given up, and the member's memory is what it was."""
    usage = Usage()
    replica = PartitionReplica(operation_memory=1, tombstone_lifetime=10.0, usage=usage)
    replica.apply("m", b"sa", entry(1))
    before = usage.bytes
    order = attached(replica)
    order.grow()
    replica.count_view(order.size_bytes)
    replica.apply("m", b"sb", entry(2))
    replica.restore("m", b"sb", None)

    assert before + order.size_bytes == usage.bytes
    replica.drop_views(IDLE_SECONDS - 1)
    assert replica.view("m", KeyOrder) is order
    replica.drop_views(IDLE_SECONDS)
    assert replica.view("m", KeyOrder) is None
    assert before == usage.bytes == replica.memory_bytes
