"""What every store promises, in memory, on SQLite and on a simulated disk."""

from __future__ import annotations

import asyncio

import pytest

from cache.errors import ClosedError, CorruptStorageError, OverloadedError, StorageMismatchError
from cache.storage import (
    Compact,
    Delete,
    FinishSnapshot,
    Forget,
    GroupState,
    HardState,
    Identity,
    Put,
    SetHardState,
    Snapshot,
    SnapshotChunk,
    Truncate,
    records,
)
from cache.storage.base import StorageState
from cache.storage.recorded import RecordedStorage
from tests.unit.storage.support import IDENTITY, Make, append, contract, damage, entries


async def opened(make: Make) -> RecordedStorage:
    storage = make(IDENTITY)
    await storage.open()
    return storage


async def reopened(make: Make, storage: RecordedStorage) -> RecordedStorage:
    await storage.close()
    return await opened(make)


@contract
async def test_what_was_committed_is_there_after_opening_again(make: Make) -> None:
    """Hard state, entries and values, each as it was."""
    storage = await opened(make)
    await storage.commit(SetHardState("g", HardState(3, "b")), append(1, 4, term=3))
    await storage.commit(Put("n", b"key", b"value"))

    storage = await reopened(make, storage)

    expected = GroupState(HardState(3, "b"), last_index=4, last_term=3)
    assert expected == storage.group("g")
    assert entries(1, 4, term=3) == await storage.entries("g", 1, 4)
    assert b"value" == await storage.get("n", b"key")
    assert ["g"] == storage.groups()


@contract
async def test_truncating_and_appending_replaces_a_suffix_in_one_commit(make: Make) -> None:
    """Raft §5.3: conflicting entries go, the leader's come."""
    storage = await opened(make)
    await storage.commit(append(1, 5))

    await storage.commit(Truncate("g", 3, 1), append(3, 3, term=2))

    storage = await reopened(make, storage)
    assert (3, 2) == (storage.group("g").last_index, storage.group("g").last_term)
    assert [*entries(1, 2), *entries(3, 3, term=2)] == await storage.entries("g", 1, 3)
    assert [] == await storage.verify()


@contract
async def test_compacting_drops_a_prefix_and_remembers_its_term(make: Make) -> None:
    """Raft §7: what a snapshot covers; the term before the first entry is still needed."""
    storage = await opened(make)
    await storage.commit(append(1, 5, term=2))

    await storage.commit(Compact("g", 3, 2))

    storage = await reopened(make, storage)
    state = storage.group("g")
    assert (3, 2, 5) == (state.base_index, state.base_term, state.last_index)
    assert entries(4, 5, term=2) == await storage.entries("g", 4, 5)
    with pytest.raises(ValueError, match="entries 3 to 5 are not in the log, which has 4 to 5"):
        await storage.entries("g", 3, 5)
    assert [] == await storage.verify()


@contract
async def test_compacting_beyond_the_end_begins_the_log_anew(make: Make) -> None:
    """A follower that installs a snapshot of what it never had."""
    storage = await opened(make)
    await storage.commit(append(1, 2))

    await storage.commit(Compact("g", 10, 4), append(11, 12, term=4))

    storage = await reopened(make, storage)
    assert entries(11, 12, term=4) == await storage.entries("g", 11, 12)
    assert [] == await storage.verify()


@contract
async def test_a_snapshot_counts_when_it_is_finished_and_replaces_the_one_before(
    make: Make,
) -> None:
    """Chunks of a transfer that broke off are no snapshot."""
    storage = await opened(make)
    first, second = Snapshot(5, 1, 2, b"voters"), Snapshot(9, 2, 1)
    await storage.commit(SnapshotChunk("g", 5, 1, 0, b"a"))
    await storage.commit(SnapshotChunk("g", 5, 1, 1, b"b"))
    assert storage.group("g").snapshot is None

    await storage.commit(FinishSnapshot("g", first))

    storage = await reopened(make, storage)
    assert first == storage.group("g").snapshot
    assert [b"a", b"b"] == [await storage.chunk("g", number) for number in range(2)]
    await storage.commit(SnapshotChunk("g", 9, 2, 0, b"c"), FinishSnapshot("g", second))
    assert second == storage.group("g").snapshot
    assert b"c" == await storage.chunk("g", 0)
    with pytest.raises(ValueError, match="no chunk 1"):
        await storage.chunk("g", 1)
    assert [] == await storage.verify()


@contract
async def test_writes_that_do_not_fit_are_refused_and_nothing_of_their_commit_is_stored(
    make: Make,
) -> None:
    """A gap in a log is a fault of the caller; it must not reach the disk."""
    storage = await opened(make)
    await storage.commit(append(1, 2))
    wrong = (
        append(4, 4),
        append(2, 2),
        Truncate("g", 4, 1),
        Truncate("g", 0, 1),
        SnapshotChunk("g", 5, 1, 1, b""),
        FinishSnapshot("g", Snapshot(5, 1, 1)),
        Put("", b"k", b"v"),
        Put("a\0b", b"k", b"v"),
    )

    for write in wrong:
        with pytest.raises(ValueError, match=r"^(group )?'"):
            storage.commit(Put("n", b"with it", b"v"), SetHardState("g", HardState(9)), write)

    assert GroupState(last_index=2, last_term=1) == storage.group("g")
    assert await storage.get("n", b"with it") is None


@contract
async def test_groups_and_namespaces_do_not_touch_each_other(make: Make) -> None:
    """Names that are prefixes of each other included."""
    storage = await opened(make)
    await storage.commit(append(1, 2), Put("n", b"k", b"1"), Put("nn", b"k", b"2"))
    other = type(append(1, 1))("gg", entries(1, 3))
    await storage.commit(other)

    await storage.commit(Forget("g"), Delete("n", b"k"))

    storage = await reopened(make, storage)
    assert ["gg"] == storage.groups()
    assert GroupState() == storage.group("g")
    assert 3 == len(await storage.entries("gg", 1, 3))
    assert (None, b"2") == (await storage.get("n", b"k"), await storage.get("nn", b"k"))
    assert [] == await storage.verify()


@contract
async def test_a_scan_gives_the_keys_of_a_prefix_in_order_and_goes_on_where_it_ended(
    make: Make,
) -> None:
    """Keys are bytes of any kind, the highest included."""
    storage = await opened(make)
    keys = [b"", b"\0", b"a", b"a\0", b"ab", b"b", b"\xff", b"\xff\xff"]
    await storage.commit(*(Put("n", key, b"v" + key) for key in reversed(keys)))
    await storage.commit(Put("m", b"a", b""), Put("o", b"a", b""))

    assert [(key, b"v" + key) for key in keys] == await storage.scan("n")
    assert [b"a", b"a\0", b"ab"] == [key for key, _ in await storage.scan("n", prefix=b"a")]
    assert keys[6:] == [key for key, _ in await storage.scan("n", prefix=b"\xff")]
    assert keys[2:4] == [key for key, _ in await storage.scan("n", after=b"\0", limit=2)]


@contract
async def test_entries_come_in_parts_when_they_are_large(make: Make) -> None:
    """At least one, and no more than fit."""
    storage = await opened(make)
    await storage.commit(append(1, 600))

    assert entries(1, 1) == await storage.entries("g", 1, 9, size_bytes_max=1)
    assert entries(1, 2) == await storage.entries("g", 1, 9, size_bytes_max=len(b"entry 1") * 2)
    assert entries(1, 600) == await storage.entries("g", 1, 600)


@contract
async def test_commits_are_durable_in_their_order_and_reads_see_those_before(make: Make) -> None:
    """Nobody has to await one before the next."""
    storage = await opened(make)
    done: list[int] = []
    futures = [storage.commit(append(index, index)) for index in range(1, 41)]
    for index, future in enumerate(futures):
        future.add_done_callback(lambda _, index=index: done.append(index))  # type: ignore[misc]

    read = asyncio.ensure_future(storage.entries("g", 1, 40))
    await asyncio.sleep(0)
    storage.commit(Compact("g", 40, 1))

    assert entries(1, 40) == await read
    await storage.close()
    assert list(range(40)) == done


@contract
async def test_what_is_too_much_under_way_is_refused(make: Make) -> None:
    """A limit, not a queue without end; the group is as if it had not been asked."""
    storage = make(IDENTITY)
    storage._pending_bytes_max = 1000
    await storage.open()

    first = storage.commit(Put("n", b"1", bytes(900)))
    refusal = pytest.raises(OverloadedError, match="pending_bytes_max=1000")
    with refusal:
        storage.commit(Put("n", b"2", bytes(900)), append(1, 1))
    assert 0 == storage.group("g").last_index

    await first
    await asyncio.sleep(0)  # The future's callbacks.
    await storage.commit(Put("n", b"2", bytes(900)))
    assert bytes(900) == await storage.get("n", b"2")


@contract
async def test_a_damaged_record_is_named_and_not_returned(make: Make) -> None:
    """NATS lost half its data to one flipped bit; here it is one record, and it is known."""
    storage = await opened(make)
    await storage.commit(append(1, 5), Put("n", b"k", b"value"))
    await storage.commit(
        SnapshotChunk("g", 2, 1, 0, b"data"), FinishSnapshot("g", Snapshot(2, 1, 1))
    )
    await storage.close()
    for position in (
        records.entry_position("g", 3),
        records.key_position("n", b"k"),
        records.chunk_position("g", 2, 1, 0),
    ):
        damage(storage, position)

    storage = await opened(make)

    assert entries(1, 2) == await storage.entries("g", 1, 2)
    with pytest.raises(CorruptStorageError, match="entry 3 of group 'g' is damaged") as caught:
        await storage.entries("g", 1, 5)
    assert "entry 3 of group 'g'" == caught.value.record
    with pytest.raises(CorruptStorageError, match="key b'k' of namespace 'n' is damaged"):
        await storage.get("n", b"k")
    with pytest.raises(CorruptStorageError, match="key b'k' of namespace 'n' is damaged"):
        await storage.scan("n")
    with pytest.raises(CorruptStorageError, match="chunk 0 of snapshot 2 of group 'g' is damaged"):
        await storage.chunk("g", 0)
    assert 3 == len(await storage.verify())
    assert StorageState.OPEN is storage.state


@contract
async def test_a_damaged_group_is_refused_until_it_is_forgotten_and_others_go_on(
    make: Make,
) -> None:
    """A replica never votes with a term and vote that may be wrong; it is fetched anew."""
    storage = await opened(make)
    await storage.commit(SetHardState("g", HardState(7, "a")), append(1, 2))
    await storage.commit(SetHardState("h", HardState(8, "a")))
    await storage.close()
    damage(storage, records.group_position("g"))

    storage = await opened(make)

    assert ["g", "h"] == storage.groups()
    assert 8 == storage.group("h").hard_state.term
    with pytest.raises(CorruptStorageError, match="state of group 'g' is damaged"):
        storage.group("g")
    with pytest.raises(CorruptStorageError):
        storage.commit(append(3, 3))
    await storage.commit(Forget("g"), append(1, 1))
    assert 1 == storage.group("g").last_index
    assert [] == await storage.verify()


@contract
async def test_another_owner_is_refused(make: Make) -> None:
    """A directory copied, or mounted in the wrong place, would make two nodes of one vote."""
    storage = await opened(make)
    await storage.close()

    with pytest.raises(StorageMismatchError, match="belongs to cluster 'cluster', not to 'other'"):
        await make(Identity("other", "node1")).open()
    with pytest.raises(StorageMismatchError, match="belongs to node 'node1', not to 'node2'"):
        await make(Identity("cluster", "node2")).open()
    await opened(make)


@contract
async def test_a_store_that_is_not_open_says_so(make: Make) -> None:
    """Before opening and after closing; both can be repeated."""
    storage = make(IDENTITY)
    with pytest.raises(ClosedError, match="is not open"):
        storage.group("g")

    await storage.open()
    await storage.open()
    await storage.close()
    await storage.close()

    with pytest.raises(ClosedError, match="is not open"):
        storage.commit(append(1, 1))
    with pytest.raises(ClosedError):
        await storage.get("n", b"k")


@contract
async def test_cancelling_the_wait_takes_nothing_back(make: Make) -> None:
    """The write was handed over."""
    storage = await opened(make)

    storage.commit(append(1, 2)).cancel()

    storage = await reopened(make, storage)
    assert entries(1, 2) == await storage.entries("g", 1, 2)
