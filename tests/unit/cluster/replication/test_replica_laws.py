"""One copy of a partition: versions decide, deletes stay, and nothing lives longer by merging."""

from __future__ import annotations

import math
from collections.abc import Iterable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.cluster.config.maps import QUEUE
from cache.cluster.replication.differences import difference
from cache.cluster.replication.digest import BUCKET_COUNT, bucket_of, entry_digest
from cache.cluster.replication.entries import Entry, from_record, to_record
from cache.cluster.replication.replica import PartitionReplica
from cache.cluster.wire.messages import NEVER, EntryRecord, KeyVersion, OperationRecord

LIFETIME = 60.0
ALL_BUCKETS = range(BUCKET_COUNT)

Update = tuple[str, bytes, Entry]
Content = dict[tuple[str, bytes], Entry]


def replica_of(updates: Iterable[Update] = (), operation_memory: int = 3) -> PartitionReplica:
    replica = PartitionReplica(operation_memory=operation_memory, tombstone_lifetime=LIFETIME)
    for update in updates:
        replica.apply(*update)
    return replica


def live(value: bytes, hlc: int, origin: int = 1, expires_at: float = math.inf) -> Entry:
    return Entry(value, hlc, origin, expires_at)


def deleted(hlc: int, origin: int = 1, forget_at: float = 100.0) -> Entry:
    return Entry(None, hlc, origin, forget_at)


def update_of(map_name: str, key: bytes, hlc: int, origin: int, expires_at: float) -> Update:
    """Some versions are deletes; one of a value may arrive with any life, or as expired (0)."""
    if (hlc + origin + len(key)) % 3 == 0:
        return map_name, key, deleted(hlc, origin, 500.0)
    if expires_at == 0:
        return map_name, key, deleted(hlc, origin, 600.0)
    return map_name, key, live(b"%d/%d" % (hlc, origin), hlc, origin, expires_at)


UPDATES = st.lists(
    st.builds(
        update_of,
        st.sampled_from(["m", "other"]),
        st.sampled_from([b"k", b"key"]),
        st.integers(1, 4),
        st.integers(1, 2),
        st.sampled_from([0, 20.0, 40.0, math.inf]),
    ),
    max_size=12,
)


def dumb(updates: Iterable[Update]) -> Content:
    """The latest version of each key; of its copies a tombstone, else the one that ends first."""
    by_key: dict[tuple[str, bytes], list[Entry]] = {}
    for map_name, key, entry in updates:
        by_key.setdefault((map_name, key), []).append(entry)
    return {
        where: min(
            (entry for entry in entries if entry.version == max(e.version for e in entries)),
            key=lambda entry: (entry.value is not None, entry.expires_at),
        )
        for where, entries in by_key.items()
    }


def content(replica: PartitionReplica) -> Content:
    found = {(v.map, v.key): replica.entry(v.map, v.key) for v in replica.versions(ALL_BUCKETS)}
    return {where: entry for where, entry in found.items() if entry is not None}


def merged(*replicas: PartitionReplica) -> PartitionReplica:
    return replica_of((*where, entry) for r in replicas for where, entry in content(r).items())


def summary(replica: PartitionReplica) -> tuple[object, ...]:
    return (
        content(replica),
        replica.digest(),
        replica.bucket_digests(),
        replica.entry_count,
        replica.size_bytes,
    )


# -- merge laws ------------------------------------------------------------------------------


@given(UPDATES)
def test_a_copy_holds_what_the_dumb_twin_holds(updates: list[Update]) -> None:
    """The later (hlc, origin) wins; see the module."""
    replica = replica_of(updates)

    assert dumb(updates) == content(replica)


@given(UPDATES, st.randoms(use_true_random=False))
def test_order_and_repeats_make_no_difference(updates: list[Update], random: Random) -> None:
    """Commutative and idempotent: equal content, digests and counts."""
    shuffled = updates + updates
    random.shuffle(shuffled)

    assert summary(replica_of(updates)) == summary(replica_of(shuffled))


@given(UPDATES, UPDATES, UPDATES)
def test_it_does_not_matter_which_copies_merge_first(
    one: list[Update], two: list[Update], three: list[Update]
) -> None:
    """Associative and commutative, copy by copy."""
    a, b, c = replica_of(one), replica_of(two), replica_of(three)

    left = merged(merged(a, b), c)
    right = merged(merged(c, b), a)

    assert summary(left) == summary(merged(a, merged(b, c))) == summary(right)


@given(UPDATES)
def test_merging_a_copy_with_itself_changes_nothing(updates: list[Update]) -> None:
    """Idempotent."""
    replica = replica_of(updates)

    assert summary(replica) == summary(merged(replica, replica))


@given(UPDATES)
def test_apply_says_yes_only_to_a_later_version(updates: list[Update]) -> None:
    """What is answered yes is what was new."""
    replica = replica_of()
    latest: dict[tuple[str, bytes], tuple[int, int]] = {}

    for map_name, key, entry in updates:
        later = entry.version > latest.get((map_name, key), (0, 0))
        latest[map_name, key] = max(entry.version, latest.get((map_name, key), (0, 0)))

        assert later == replica.apply(map_name, key, entry)


@given(UPDATES)
def test_counts_are_those_of_a_recount(updates: list[Update]) -> None:
    """Kept up to date with every change, tombstones included."""
    replica = replica_of(updates)
    held = content(replica)

    assert len(held) == replica.entry_count
    assert sum(len(key) + len(e.value or b"") for (_, key), e in held.items()) == replica.size_bytes


@given(UPDATES)
def test_the_digest_is_that_of_all_entries_tombstones_included(updates: list[Update]) -> None:
    """A delete that one copy misses shows."""
    replica = replica_of(updates)
    total = 0
    for (map_name, key), entry in content(replica).items():
        total ^= entry_digest(map_name, key, entry.hlc, entry.origin)

    assert total == replica.digest()


def test_an_older_version_is_refused() -> None:
    """A late message does not undo a later write."""
    replica = replica_of([("m", b"k", live(b"new", 2))])

    assert not replica.apply("m", b"k", live(b"old", 1, origin=9))
    assert b"new" == replica.get("m", b"k", 0.0)


def test_equal_stamps_are_decided_by_origin() -> None:
    """Two members may stamp alike; all copies choose the same."""
    low, high = live(b"low", 5, origin=1), live(b"high", 5, origin=2)

    first = replica_of([("m", b"k", low), ("m", b"k", high)])
    second = replica_of([("m", b"k", high), ("m", b"k", low)])

    assert high == first.entry("m", b"k") == second.entry("m", b"k")


# -- deletes ---------------------------------------------------------------------------------


def test_a_delete_stays_when_an_older_write_comes_late() -> None:
    """The tombstone remembers the version of the delete."""
    replica = replica_of([("m", b"k", deleted(2))])

    replica.apply("m", b"k", live(b"old", 1))

    assert replica.get("m", b"k", 0.0) is None
    assert deleted(2) == replica.entry("m", b"k")


def test_a_write_later_than_a_delete_counts() -> None:
    """A tombstone is a version like any other."""
    replica = replica_of([("m", b"k", deleted(2))])

    assert replica.apply("m", b"k", live(b"again", 3))
    assert b"again" == replica.get("m", b"k", 0.0)


def test_a_copy_that_missed_a_delete_has_another_digest() -> None:
    """Else repair would never find it."""
    before = replica_of([("m", b"k", live(b"v", 1))])

    after = replica_of([("m", b"k", live(b"v", 1)), ("m", b"k", deleted(2))])

    assert before.digest() != after.digest()
    assert replica_of().digest() != after.digest()


def test_a_copy_that_missed_an_end_of_the_same_version_has_another_digest() -> None:
    """A store's word ends what waited in a queue without a new version; a copy that missed it is repaired."""
    waits, done = live(b"v", 7), deleted(7)
    queue = QUEUE + "m"
    before, after = replica_of([(queue, b"k", waits)]), replica_of([(queue, b"k", done)])

    assert before.digest() != after.digest()
    assert ([], [(queue, b"k")]) == difference(
        before.versions(ALL_BUCKETS), after.versions(ALL_BUCKETS)
    )
    assert before.prevails(queue, b"k", done)
    assert not after.prevails(queue, b"k", waits)

    before.apply(queue, b"k", done)

    assert before.digest() == after.digest()


def test_a_deleted_key_is_not_listed_but_its_version_is() -> None:
    """Repair compares tombstones; users never see them."""
    replica = replica_of([("m", b"k", deleted(2)), ("m", b"x", live(b"v", 1))])

    assert [b"x"] == replica.keys("m", 0.0)
    assert 1 == replica.live_count("m", 0.0)
    assert KeyVersion("m", b"k", 2, 1) in replica.versions(ALL_BUCKETS)
    assert [None, b"v"] == [
        r.value for r in replica.records_for([("m", b"k"), ("m", b"x"), ("m", b"no")], 0.0)
    ]


# -- expiry ----------------------------------------------------------------------------------


def test_a_value_is_gone_at_its_instant() -> None:
    """Not only when swept."""
    replica = replica_of([("m", b"k", live(b"v", 1, expires_at=10.0))])

    assert b"v" == replica.get("m", b"k", 9.9)
    assert replica.get("m", b"k", 10.0) is None
    assert [] == replica.keys("m", 10.0)
    assert 0 == replica.live_count("m", 10.0)


def test_a_repeat_shortens_a_life_but_never_extends_it() -> None:
    """Merging an equal version keeps the earlier instant, whatever the order."""
    replica = replica_of([("m", b"k", live(b"v", 1, expires_at=20.0))])

    replica.apply("m", b"k", live(b"v", 1, expires_at=30.0))
    replica.apply("m", b"k", live(b"v", 1))
    replica.apply("m", b"k", live(b"v", 1, expires_at=15.0))

    assert live(b"v", 1, expires_at=15.0) == replica.entry("m", b"k")


@given(UPDATES)
def test_no_instant_of_a_version_is_ever_moved_later(updates: list[Update]) -> None:
    """Expiry is never extended by a merge, and a tombstone never becomes a value again."""
    replica = replica_of()

    for map_name, key, entry in updates:
        before = replica.entry(map_name, key) or entry
        replica.apply(map_name, key, entry)
        after = replica.entry(map_name, key) or entry

        assert (
            after.version != before.version
            or after.value is None
            or after.expires_at <= before.expires_at
        )
        assert after.version != before.version or after.value is None or before.value is not None


def test_a_shortened_life_is_swept_at_the_earlier_instant() -> None:
    """The wheel learns the new instant."""
    replica = replica_of([("m", b"k", live(b"v", 1, expires_at=50.0))])
    replica.apply("m", b"k", live(b"v", 1, expires_at=10.0))

    assert (1, 0) == replica.sweep(11.0, 10)[:2]


def test_an_expired_value_becomes_a_tombstone_of_its_version() -> None:
    """An older copy elsewhere cannot bring it back; the digest stays the same."""
    replica = replica_of([("m", b"k", live(b"v", 7, expires_at=10.0))])
    digest = replica.digest()

    assert (1, 0) == replica.sweep(11.0, 10)[:2]
    assert deleted(7, forget_at=10.0 + LIFETIME) == replica.entry("m", b"k")
    assert digest == replica.digest()
    assert not replica.apply("m", b"k", live(b"older", 6))


def test_an_expired_value_does_not_come_back_from_a_copy_of_its_version() -> None:
    """The tombstone beats the value it was made from, even one with time left."""
    replica = replica_of([("m", b"k", live(b"v", 7, expires_at=10.0))])
    replica.sweep(11.0, 10)

    replica.apply("m", b"k", live(b"v", 7, expires_at=99.0))

    assert replica.get("m", b"k", 12.0) is None
    assert len(b"k") == replica.size_bytes


def test_a_tombstone_is_kept_for_its_whole_lifetime() -> None:
    """Forgotten too early, an older copy would bring the value back."""
    replica = replica_of([("m", b"k", live(b"v", 1, expires_at=10.0))])
    replica.sweep(11.0, 10)

    assert (0, 0) == replica.sweep(10.0 + LIFETIME - 0.1, 10)[:2]
    assert replica.entry("m", b"k") is not None
    assert (0, 1) == replica.sweep(11.0 + LIFETIME, 10)[:2]
    assert replica.entry("m", b"k") is None


def test_a_delete_is_kept_until_its_instant_of_forgetting() -> None:
    """Its entry says until when."""
    replica = replica_of([("m", b"k", deleted(1, forget_at=100.0))])

    assert (0, 0) == replica.sweep(99.9, 10)[:2]
    assert (0, 1) == replica.sweep(101.0, 10)[:2]
    assert (0, 0, 0) == (replica.digest(), replica.entry_count, replica.size_bytes)


def test_an_overwritten_key_outlives_its_old_instant() -> None:
    """The wheel still knows the old instant, which means nothing now."""
    replica = replica_of(
        [("m", b"k", live(b"v", 1, expires_at=10.0)), ("m", b"k", live(b"w", 2, expires_at=90.0))]
    )

    assert (0, 0) == replica.sweep(50.0, 10)[:2]
    assert b"w" == replica.get("m", b"k", 50.0)
    assert (1, 0) == replica.sweep(90.25, 10)[:2]


@pytest.mark.parametrize("expires_at", [10.0, 1_000.0, 100_000.0])
def test_an_entry_that_was_looked_at_early_ends_in_time(expires_at: float) -> None:
    """Far ends are looked at now and then before they come; the last look is not missed."""
    replica = replica_of([("m", b"k", live(b"v", 1, expires_at=expires_at))])

    looks = [replica.sweep(n * expires_at / 1000, 10) for n in range(1000)]

    assert {(0, 0)} == {look[:2] for look in looks}
    assert (1, 0, 1) == replica.sweep(expires_at + 0.25, 10)


@pytest.mark.parametrize("limit", [1, 2])
def test_a_sweep_does_no_more_than_its_limit(limit: int) -> None:
    """A sweep runs between other work."""
    replica = replica_of(("m", b"%d" % n, live(b"v", 1, expires_at=10.0)) for n in range(3))

    assert (limit, 0) == replica.sweep(11.0, limit)[:2]
    assert (3 - limit, 0) == replica.sweep(11.0, 10)[:2]


@given(UPDATES, st.lists(st.floats(0.0, 499.0), max_size=4))
def test_sweeping_before_tombstones_end_changes_no_digest(
    updates: list[Update], instants: list[float]
) -> None:
    """Copies that sweep at different times still agree; values end no later than they would."""
    swept, never_swept = replica_of(updates), replica_of(updates)
    moment = min(instants, default=0.0) % LIFETIME

    swept.sweep(moment, 100)

    assert never_swept.bucket_digests() == swept.bucket_digests()
    assert never_swept.keys("m", moment) == swept.keys("m", moment)


def test_remaining_seconds_are_counted_from_now() -> None:
    """None when absent or endless, never negative."""
    replica = replica_of([("m", b"k", live(b"v", 1, expires_at=10.0)), ("m", b"x", live(b"v", 1))])

    assert 4.0 == replica.remaining("m", b"k", 6.0)
    assert 0.0 == replica.remaining("m", b"k", 11.0)
    assert replica.remaining("m", b"x", 6.0) is None
    assert replica.remaining("no", b"x", 6.0) is None


# -- wire ------------------------------------------------------------------------------------


@given(st.sampled_from([None, b"", b"v"]), st.integers(1, 50), st.integers(0, 9))
def test_an_entry_keeps_its_seconds_between_clocks(
    value: bytes | None, seconds: int, elsewhere: int
) -> None:
    """Instants are local; on the wire are seconds remaining."""
    entry = Entry(value, 3, 4, 100.0 + seconds)

    record = to_record("m", b"k", entry, 100.0)

    assert EntryRecord("m", b"k", value, 3, 4, float(seconds)) == record
    assert Entry(value, 3, 4, float(elsewhere + seconds)) == from_record(
        record, float(elsewhere), tombstone_lifetime=LIFETIME
    )


def test_an_endless_entry_stays_endless_on_the_wire() -> None:
    """NEVER stands for infinity."""
    record = to_record("m", b"k", live(b"v", 1), 5.0)

    assert NEVER == record.ttl
    assert live(b"v", 1) == from_record(record, 9.0, tombstone_lifetime=LIFETIME)


@pytest.mark.parametrize("ttl", [0.0, -0.5, -7.0, math.nan])
def test_a_value_without_time_left_arrives_as_a_tombstone(ttl: float) -> None:
    """It expired on the way; its version still counts."""
    record = EntryRecord("m", b"k", b"v", 3, 4, ttl)

    assert Entry(None, 3, 4, 9.0 + LIFETIME) == from_record(
        record, 9.0, tombstone_lifetime=LIFETIME
    )


def test_an_expired_entry_is_sent_with_no_time_left() -> None:
    """Never with NEVER, which would make it endless."""
    assert 0.0 == to_record("m", b"k", live(b"v", 1, expires_at=4.0), 5.0).ttl


@pytest.mark.parametrize(("ttl", "kept"), [(-1.0, 0.0), (5.0, 5.0), (1e9, LIFETIME)])
def test_a_tombstone_is_kept_for_what_remains_and_no_longer(ttl: float, kept: float) -> None:
    """A peer cannot make this member remember deletes for ever."""
    record = EntryRecord("m", b"k", None, 3, 4, ttl)

    assert Entry(None, 3, 4, 9.0 + kept) == from_record(record, 9.0, tombstone_lifetime=LIFETIME)


# -- undoing ---------------------------------------------------------------------------------


@given(UPDATES, UPDATES)
def test_restoring_puts_everything_back(before: list[Update], after: list[Update]) -> None:
    """Content, digests and counts, whatever the versions."""
    replica = replica_of(before)
    expected = summary(replica)
    undo = [(name, key, replica.entry(name, key)) for name, key, _ in after]
    for update in after:
        replica.apply(*update)

    for name, key, entry in undo:
        replica.restore(name, key, entry)

    assert expected == summary(replica)


# -- operations ------------------------------------------------------------------------------


def operation(name: bytes, key: bytes = b"k", map_name: str = "m") -> OperationRecord:
    return OperationRecord(name, map_name, key, b"result of " + name)


def test_an_operation_is_remembered_with_its_result() -> None:
    """A retry takes effect once."""
    replica = replica_of()

    replica.operations.remember(operation(b"1"))

    assert operation(b"1") == replica.operations.get(b"1")
    assert replica.operations.get(b"2") is None


def test_the_oldest_operations_over_the_limit_are_forgotten() -> None:
    """A repeat counts as new, so that a busy retry is not forgotten first."""
    replica = replica_of(operation_memory=2)

    for name in (b"1", b"2", b"1", b"3"):
        replica.operations.remember(operation(name))

    assert [operation(b"1"), operation(b"3")] == replica.operations.all()


def test_an_undone_operation_is_forgotten() -> None:
    """A retry is to have its effect; forgetting what is unknown is harmless."""
    replica = replica_of()
    replica.operations.remember(operation(b"1"))

    replica.operations.forget(b"1")
    replica.operations.forget(b"1")

    assert replica.operations.get(b"1") is None


def test_operations_travel_with_the_entries_of_their_keys() -> None:
    """A copy that has the effect also knows that it was had."""
    replica = replica_of([("m", b"k", live(b"v", 1))])
    replica.operations.remember(operation(b"1"))
    replica.operations.remember(operation(b"2", key=b"x"))
    replica.operations.remember(operation(b"3", map_name="other"))

    about = replica.operations.about(replica.records_for([("m", b"k")], 0.0))

    assert [operation(b"1")] == about


# -- listing ---------------------------------------------------------------------------------


def test_versions_are_listed_by_bucket_in_a_stable_order() -> None:
    """Repair asks for the buckets that differ; those out of range are nobody's."""
    keys = [b"%d" % n for n in range(20)]
    replica = replica_of(("m", key, live(b"v", 1)) for key in reversed(keys))
    bucket = bucket_of("m", b"3")

    listed = replica.versions([bucket, -1, BUCKET_COUNT])

    assert [k for k in sorted(keys) if bucket_of("m", k) == bucket] == [v.key for v in listed]
    assert sorted(keys) == [version.key for version in replica.versions(ALL_BUCKETS)]


def test_only_maps_with_entries_are_named() -> None:
    """A map whose last tombstone was forgotten is gone."""
    replica = replica_of([("b", b"k", live(b"v", 1)), ("a", b"k", deleted(1, forget_at=1.0))])

    assert ["a", "b"] == replica.map_names()

    replica.sweep(3.0, 10)

    assert ["b"] == replica.map_names()
