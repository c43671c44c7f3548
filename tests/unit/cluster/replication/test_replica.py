"""One copy of a partition: the later version wins, whatever the order."""

from __future__ import annotations

import math
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from cache.cluster.config.maps import HIDDEN
from cache.cluster.replication.entries import (
    CHANGED,
    EVICTED,
    EXPIRED,
    Entry,
    from_record,
    to_record,
)
from cache.cluster.replication.replica import PartitionReplica
from cache.cluster.wire.messages import KeyVersion

LIFETIME = 100.0

VERSIONED = st.tuples(st.integers(1, 6), st.integers(1, 3))
UPDATES = st.lists(
    st.tuples(st.sampled_from("abc"), VERSIONED, st.booleans()).map(
        lambda t: (t[0].encode(), _entry(*t[1], deleted=t[2]))
    ),
    max_size=12,
)


def _entry(hlc: int, origin: int, *, deleted: bool = False) -> Entry:
    # A version is given once: it decides what it carries.
    gone = (hlc + origin) % 3 == 0
    value = None if gone else f"{hlc}/{origin}".encode()
    return Entry(value, hlc, origin, LIFETIME if gone else math.inf)


def replica() -> PartitionReplica:
    return PartitionReplica(operation_memory=4, tombstone_lifetime=LIFETIME)


def content(copy: PartitionReplica) -> dict[bytes, Entry | None]:
    return {key: copy.entry("m", key) for key in (b"a", b"b", b"c")}


@given(UPDATES, st.integers(0, 99))
def test_any_order_and_any_repeats_give_the_same_copy(
    updates: list[tuple[bytes, Entry]], seed: int
) -> None:
    """Merge laws: commutative, associative, idempotent. A dumb twin takes the maximum."""
    one, other = replica(), replica()
    shuffled = updates + updates[: len(updates) // 2]
    Random(seed).shuffle(shuffled)
    for key, entry in updates:
        one.apply("m", key, entry)
    for key, entry in shuffled:
        other.apply("m", key, entry)

    twin: dict[bytes, Entry | None] = dict.fromkeys((b"a", b"b", b"c"))
    for key, entry in updates:
        held = twin[key]
        twin[key] = entry if held is None or held.version < entry.version else held
    assert twin == content(one) == content(other)
    assert one.digest() == other.digest()
    assert one.size_bytes == other.size_bytes


def test_an_older_version_changes_nothing() -> None:
    """Reordered messages are harmless."""
    copy = replica()
    copy.apply("m", b"k", Entry(b"new", 5, 1, math.inf))

    assert not copy.apply("m", b"k", Entry(b"old", 4, 9, math.inf))
    assert b"new" == copy.get("m", b"k", 0.0)


def test_a_delete_is_remembered_and_beats_what_it_deleted() -> None:
    """Invariant 3."""
    copy = replica()
    copy.apply("m", b"k", Entry(None, 5, 1, LIFETIME))

    assert not copy.apply("m", b"k", Entry(b"old", 4, 1, math.inf))
    assert copy.get("m", b"k", 0.0) is None
    assert 1 == copy.entry_count


def test_an_equal_version_shortens_a_life_but_never_extends_it() -> None:
    """Copies that travelled count their seconds anew; the earlier instant is the true one."""
    copy = replica()
    copy.apply("m", b"k", Entry(b"v", 5, 1, 10.0))

    copy.apply("m", b"k", Entry(b"v", 5, 1, 12.0))
    assert b"v" == copy.get("m", b"k", 9.9)
    assert copy.get("m", b"k", 10.0) is None
    copy.apply("m", b"k", Entry(b"v", 5, 1, 8.0))
    assert copy.get("m", b"k", 8.0) is None


def test_an_expired_entry_becomes_a_tombstone_of_the_same_version_and_is_forgotten_later() -> None:
    """An older copy elsewhere cannot bring it back meanwhile."""
    copy = replica()
    copy.apply("m", b"k", Entry(b"v", 5, 1, 10.0))
    digest = copy.digest()

    assert (1, 0) == copy.sweep(11.0, 10)[:2]
    assert Entry(None, 5, 1, 10.0 + LIFETIME) == copy.entry("m", b"k")
    assert digest == copy.digest()
    assert (0, 1) == copy.sweep(10.0 + LIFETIME + 1, 10)[:2]
    assert (0, 0, 0) == (copy.digest(), copy.entry_count, copy.size_bytes)


def test_a_digest_tells_a_tombstone_from_nothing() -> None:
    """A copy that lacks a delete differs."""
    copy = replica()
    copy.apply("m", b"k", Entry(None, 5, 1, LIFETIME))

    assert 0 != copy.digest()


def test_the_wire_carries_seconds_remaining() -> None:
    """Instants never leave the member: each has a clock of its own."""
    record = to_record("m", b"k", Entry(b"v", 5, 1, 30.0), 10.0)

    assert 20.0 == record.ttl
    assert Entry(b"v", 5, 1, 1020.0) == from_record(record, 1000.0, tombstone_lifetime=LIFETIME)


def test_what_has_no_time_left_arrives_as_a_tombstone() -> None:
    """It expired on the way."""
    record = to_record("m", b"k", Entry(b"v", 5, 1, 10.0), 10.0)

    assert from_record(record, 0.0, tombstone_lifetime=LIFETIME).value is None


def test_putting_back_an_entry_ignores_versions() -> None:
    """What a fenced owner undoes is older than what it wrote."""
    copy = replica()
    copy.apply("m", b"k", Entry(b"old", 4, 1, math.inf))
    before = (copy.digest(), copy.size_bytes, copy.entry_count)
    copy.apply("m", b"k", Entry(b"new", 5, 1, math.inf))

    copy.restore("m", b"k", Entry(b"old", 4, 1, math.inf))

    assert b"old" == copy.get("m", b"k", 0.0)
    assert before == (copy.digest(), copy.size_bytes, copy.entry_count)


def test_every_change_is_heard_in_the_turn_it_is_made() -> None:
    """With its cause: near copies and listeners depend on it. What changes nothing is not said."""
    copy, heard = replica(), list[tuple[bytes, int]]()
    copy.listener = lambda map_name, key, before, after, cause: heard.append((key, cause))

    copy.apply("m", b"written", Entry(b"v", 2, 1, math.inf))
    copy.apply("m", b"written", Entry(b"older", 1, 1, math.inf))
    copy.apply("m", b"written", Entry(b"v", 2, 1, 50.0))  # A shorter life of the same version.
    copy.apply("m", b"evicted", Entry(b"v", 3, 1, math.inf))
    copy.drop(KeyVersion("m", b"evicted", 3, 1))
    copy.restore("m", b"written", None)
    copy.apply("m", b"ended", Entry(b"v", 4, 1, 10.0))
    copy.sweep(20.0, 100)

    assert [
        (b"written", CHANGED),
        (b"written", CHANGED),
        (b"evicted", CHANGED),
        (b"evicted", EVICTED),
        (b"written", CHANGED),
        (b"ended", CHANGED),
        (b"ended", EXPIRED),
    ] == heard


def test_what_is_the_librarys_own_makes_no_room() -> None:
    """A lock that was evicted would be held twice; not even when there is nothing else."""
    copy = replica()
    for number in range(3):
        copy.apply(HIDDEN + "locks", b"k%d" % number, _entry(number, 1))
    assert copy.largest_map() is None
    copy.apply("users", b"k", _entry(9, 1))

    assert "users" == copy.largest_map()
