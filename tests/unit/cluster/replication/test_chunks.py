"""Cutting a copy into messages: nothing is left out, and none is much larger than it should be."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from cache.cluster.replication.chunks import OVERHEAD_BYTES, Cutter
from cache.cluster.replication.entries import Entry, entries_of, from_record, to_record
from cache.cluster.replication.replica import PartitionReplica
from cache.cluster.replication.transit import mortal
from cache.cluster.wire.messages import NEVER, CopyEntries

LIFETIME = 60.0
CHUNK = 1024

Content = dict[tuple[str, bytes], Entry]

CONTENTS = st.dictionaries(
    st.tuples(st.sampled_from(["m", "n", "o"]), st.binary(min_size=1, max_size=2)),
    st.one_of(
        st.builds(
            Entry,
            st.one_of(st.integers(0, 3 * CHUNK).map(bytes), st.just(b"v")),
            st.integers(1, 9),
            st.integers(1, 2),
            st.sampled_from([20.0, math.inf]),
        ),
        st.builds(Entry, st.none(), st.integers(1, 9), st.integers(1, 2), st.just(LIFETIME)),
    ),
    max_size=60,
)


def copy_of(content: Content) -> PartitionReplica:
    replica = PartitionReplica(operation_memory=3, tombstone_lifetime=LIFETIME)
    for (name, key), entry in content.items():
        replica.apply(name, key, entry)
    return replica


def messages_of(cutter: Cutter, now: float = 0.0) -> list[CopyEntries]:
    return list(iter(lambda: cutter.cut(1, 2, now), None))


def entries_in(message: CopyEntries, now: float = 0.0) -> list[tuple[str, bytes, Entry]]:
    names = [n for n, count in zip(message.maps, message.counts, strict=True) for _ in range(count)]
    entries = entries_of(
        message.values,
        message.hlcs,
        message.origins,
        message.ttls,
        now=now,
        tombstone_lifetime=LIFETIME,
    )
    return list(zip(names, message.keys, entries, strict=True))


@given(CONTENTS)
def test_every_entry_is_in_one_message(content: Content) -> None:
    """Whole and once, with what is left of its life."""
    replica = copy_of(content)

    messages = messages_of(Cutter(replica, replica.everything(), CHUNK))

    sent = [((name, key), entry) for m in messages for name, key, entry in entries_in(m)]
    assert content == dict(sent)
    assert len(content) == len(sent)


@given(CONTENTS)
def test_messages_have_about_the_size_they_should(content: Content) -> None:
    """Twice as much at most, besides one entry that is large by itself; others wait behind each."""
    replica = copy_of(content)

    messages = messages_of(Cutter(replica, replica.everything(), CHUNK))

    for message in messages:
        columns = zip(message.keys, message.values, strict=True)
        sizes = [OVERHEAD_BYTES + len(key) + len(value or b"") for key, value in columns]
        assert sum(sizes) - max(sizes) <= 2 * CHUNK
    total = sum(len(key) + len(e.value or b"") + OVERHEAD_BYTES for (_, key), e in content.items())
    assert len(messages) <= total // CHUNK + 1


def test_equal_origins_and_lives_without_end_are_said_once() -> None:
    """Most copies have one owner's writes, and no times to live."""
    replica = copy_of({("m", b"%d" % n): Entry(b"v", n, 7, math.inf) for n in range(9)})

    (message,) = messages_of(Cutter(replica, replica.everything(), CHUNK))

    assert ([7], [NEVER]) == (message.origins, message.ttls)


def test_an_entry_is_sent_as_it_is_when_its_message_is_made() -> None:
    """It may have been overwritten, or be gone, since its key was noted."""
    replica = copy_of({("m", b"%d" % n): Entry(bytes(CHUNK), 1, 7, math.inf) for n in range(4)})
    cutter = Cutter(replica, replica.everything(), CHUNK)
    cutter.cut(1, 2, 0.0)

    later = Entry(b"later", 2, 7, math.inf)
    replica.apply("m", b"2", later)
    replica.restore("m", b"1", None)

    rest = [pair for message in messages_of(cutter) for pair in entries_in(message)]
    assert [("m", b"2", later), ("m", b"3", Entry(bytes(CHUNK), 1, 7, math.inf))] == rest


def test_lives_count_from_the_instant_given() -> None:
    """So that the way can be taken off."""
    replica = copy_of({("m", b"k"): Entry(b"v", 1, 7, 20.0), ("m", b"l"): Entry(None, 1, 7, 50.0)})

    (message,) = messages_of(Cutter(replica, replica.everything(), CHUNK), now=4.0)

    assert [16.0, 46.0] == message.ttls


def test_only_entries_that_live_and_end_may_end_too_late() -> None:
    """Those are noted when it is not known how long their message was on the way."""
    each = CopyEntries(
        1,
        2,
        ["m", "n"],
        [2, 1],
        [b"a", b"b", b"c"],
        [b"v", None, b"v"],
        [1] * 3,
        [1],
        [NEVER, 9, 9],
    )
    one_for_all = CopyEntries(1, 2, ["m"], [2], [b"a", b"b"], [b"v", None], [1, 1], [1], [9])

    assert [("n", b"c")] == mortal(each)
    assert [("m", b"a")] == mortal(one_for_all)


ENTRIES = st.lists(
    st.builds(
        Entry,
        st.sampled_from([None, b"", b"v"]),
        st.integers(0, 9),
        st.integers(0, 9),
        st.sampled_from([-1.0, 3.0, 20.0, 500.0, math.inf]),
    ),
    min_size=1,
    max_size=5,
)


@given(ENTRIES)
def test_columns_make_the_entries_that_records_make(entries: list[Entry]) -> None:
    """Tombstones, lives that are over, and those without end."""
    records = [to_record("m", b"k", entry, 2.0) for entry in entries]

    made = entries_of(
        [record.value for record in records],
        [record.hlc for record in records],
        [record.origin for record in records],
        [record.ttl for record in records],
        now=5.0,
        tombstone_lifetime=LIFETIME,
    )

    assert [from_record(record, 5.0, tombstone_lifetime=LIFETIME) for record in records] == made


@given(st.lists(st.sampled_from([None, b"", b"v"]), min_size=1), st.sampled_from([NEVER, 0.0, 3.0]))
def test_one_for_all_is_as_one_for_each(values: list[bytes | None], ttl: float) -> None:
    """A single column entry stands for the others."""
    count = len(values)
    hlcs = list(range(count))

    each = entries_of(
        values, hlcs, [7] * count, [ttl] * count, now=5.0, tombstone_lifetime=LIFETIME
    )

    assert each == entries_of(values, hlcs, [7], [ttl], now=5.0, tombstone_lifetime=LIFETIME)
