"""Stored logs: what was acknowledged comes back whole, what is damaged does not come back at all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import ClassVar, Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.cluster.raft import stored
from cache.cluster.raft.messages import Entry, GroupId, Kind, Members, Snapshot
from cache.cluster.raft.outputs import HardState, Persist, Persisted
from cache.cluster.raft.status import bootstrap
from cache.cluster.raft.stored import NAMESPACE, StoredLog, StoredLogs
from cache.errors import (
    CorruptStorageError,
    OverloadedError,
    StorageFullError,
    StorageMismatchError,
)
from cache.storage import Append, Identity, MemoryStorage, Put, SqliteStorage, Storage, records
from cache.storage import Entry as Kept
from cache.storage.memory import SortedRecords
from cache.storage.records import Cut
from cache.testing.raft.campaign import run_seed
from cache.testing.raft.parts import Disk
from cache.testing.sim.disk import SimDisk, SimStorage
from cache.testing.sim.world import World, run_simulation
from tests.unit.cluster.raft.histories import STEPS, History

IDENTITY: Final = Identity("cluster", "m1")
MAIN: Final = GroupId("main")
OTHER: Final = GroupId("main-1")
UUID: Final = b"u" * 16
SEEDS: Final = range(40)


async def opened(content: SortedRecords) -> Storage:
    storage = MemoryStorage(IDENTITY, content)
    await storage.open()
    return storage


async def loaded(storage: Storage, group: GroupId = MAIN) -> Persisted:
    """Return what a fresh adapter reads."""
    found = await StoredLogs(storage).load(group)
    assert found is not None
    return found.persisted


# -- what comes back ---------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 4)), max_size=30))
def test_any_history_comes_back_as_the_twin_holds_it(steps: list[tuple[str, int]]) -> None:
    """After each write, by another adapter on another store on the same medium."""
    history = History()

    async def run() -> None:
        content = SortedRecords()
        logs = StoredLogs(await opened(content), chunk_bytes=200)
        await logs.create(MAIN, Persisted(), uuid=UUID, log_id="log")
        for kind, size in steps:
            await logs.write(MAIN, history.step(kind, size))
            assert history.states[-1] == await loaded(await opened(content))
        assert [] == await (await opened(content)).verify()

    asyncio.run(run())


class Recorder(Disk):
    """The disk of a campaign's replica, with every write and what it came to."""

    made: ClassVar[list[Recorder]] = []

    def __init__(self, persisted: Persisted) -> None:
        super().__init__(persisted)
        self.begun = persisted
        self.history: list[tuple[Persist, Persisted]] = []
        self.made.append(self)

    def write(self, persist: Persist) -> None:
        super().write(persist)
        self.history.append((persist, self.read()))


def test_what_real_replicas_write_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every write of a few campaigns, with elections, conflicts, snapshots and restarts."""
    monkeypatch.setattr("cache.testing.raft.world.Disk", Recorder)
    monkeypatch.setattr(Recorder, "made", [])
    for seed in range(4):
        run_seed(seed)

    async def replay(disk: Recorder) -> None:
        storage = await opened(SortedRecords())
        logs = StoredLogs(storage, chunk_bytes=64)
        await logs.create(MAIN, disk.begun, uuid=UUID, log_id="log")
        for persist, expected in disk.history:
            await logs.write(MAIN, persist)
            assert expected == await loaded(storage)

    for disk in Recorder.made:
        asyncio.run(replay(disk))
    written = [persist for disk in Recorder.made for persist, _ in disk.history]
    assert len(written) > 300
    for field in ("hard_state", "snapshot", "delete_below", "delete_above"):
        assert sum(getattr(persist, field) is not None for persist in written) > 1


async def test_which_log_it_is_comes_back(tmp_path: Path) -> None:
    """Its id and the group's uuid are as durable as its vote; a forgotten one is gone."""
    storage = SqliteStorage(tmp_path, IDENTITY)
    await storage.open()
    logs = StoredLogs(storage)
    founded = bootstrap(("m1/abc", "m2/def"))
    assert await logs.load(MAIN) is None

    await logs.create(MAIN, founded, uuid=UUID, log_id="abc")
    await logs.create(OTHER, Persisted(), uuid=b"v", log_id="ghi")
    await storage.close()
    await storage.open()
    logs = StoredLogs(storage)

    assert [MAIN, OTHER] == await logs.groups()
    expected = StoredLog(uuid=UUID, log_id="abc", persisted=founded)
    assert expected == await logs.load(MAIN)
    assert StoredLog(uuid=b"v", log_id="ghi", persisted=Persisted()) == await logs.load(OTHER)
    with pytest.raises(ValueError, match="has a log"):
        await logs.create(MAIN, Persisted(), uuid=UUID, log_id="new")
    await logs.forget(MAIN)
    assert await logs.load(MAIN) is None
    assert [OTHER] == await logs.groups()
    with pytest.raises(ValueError, match="has no log"):
        await logs.write(MAIN, Persist(hard_state=HardState(9, "")))
    await storage.close()


async def test_a_log_is_begun_with_a_snapshot(tmp_path: Path) -> None:
    """As for a replica whose state is known beforehand."""
    storage = await opened(SortedRecords())
    whole = Persisted(
        HardState(4, "m1/abc"),
        Snapshot(7, 3, 1.5, Members(("m1/abc",)), b"x" * (stored.CHUNK_BYTES + 1)),
        (Entry(8, 4, kind=Kind.NOOP),),
    )

    await StoredLogs(storage).create(MAIN, whole, uuid=UUID, log_id="abc")

    assert whole == await loaded(storage)
    snapshot = storage.group(MAIN).snapshot
    assert snapshot is not None
    assert 2 == snapshot.chunk_count


async def test_a_write_that_leaves_a_gap_is_refused(tmp_path: Path) -> None:
    """It is a defect of the caller; nothing of it is stored."""
    storage = await opened(SortedRecords())
    logs = StoredLogs(storage)
    await logs.create(MAIN, bootstrap(("m1/abc",)), uuid=UUID, log_id="abc")

    with pytest.raises(ValueError, match="entry 3 cannot follow 1"):
        await logs.write(MAIN, Persist(hard_state=HardState(9, "me"), entries=(Entry(3, 9),)))

    assert bootstrap(("m1/abc",)) == await loaded(storage)


async def test_groups_wait_for_each_other_when_much_is_under_way(tmp_path: Path) -> None:
    """A store refuses what passes `pending_bytes_max`; no replica has to stop for it."""
    storage = SqliteStorage(tmp_path, IDENTITY, pending_bytes_max=1000)
    await storage.open()
    logs = StoredLogs(storage)
    names = [GroupId(f"main-{n}") for n in range(8)]
    for name in names:
        await logs.create(name, Persisted(), uuid=UUID, log_id="abc")
    entries = tuple(Entry(n, 1, data=b"x" * 700) for n in range(1, 4))

    await asyncio.gather(*(logs.write(name, Persist(entries=entries)) for name in names))

    assert [entries] * 8 == [(await loaded(storage, name)).entries for name in names]
    storage.commit(Put("another feature", b"k", b"v" * 900))
    with pytest.raises(OverloadedError, match="pending_bytes_max"):
        await logs.write(names[0], Persist(entries=(Entry(4, 1, data=b"x" * 700),)))
    await storage.close()


# -- crashes -----------------------------------------------------------------------------------------


class Run:
    """Writes histories of six groups, whose commits share syncs, and knows what was acknowledged."""

    def __init__(self, disk: SimDisk, seed: int) -> None:
        self.disk = disk
        self.histories = {GroupId(f"main-{n}"): History() for n in range(6)}
        self.acknowledged = dict.fromkeys(self.histories, 0)
        self.rng = Random(seed)

    async def write(self) -> None:
        """Write until somebody kills this process."""
        storage = SimStorage(self.disk, IDENTITY)
        await storage.open()
        logs = StoredLogs(storage, chunk_bytes=200)
        for group in self.histories:
            if await logs.load(group) is None:
                await logs.create(group, Persisted(), uuid=UUID, log_id="abc")
        await asyncio.gather(*(self._write(logs, group) for group in self.histories))

    async def _write(self, logs: StoredLogs, group: GroupId) -> None:
        history = self.histories[group]
        while True:
            persist = history.random_step(self.rng)
            await logs.write(group, persist)
            self.acknowledged[group] = len(history.states) - 1

    async def survivors(self) -> dict[GroupId, Persisted]:
        """Return what is there after the crash."""
        storage = SimStorage(self.disk, IDENTITY)
        await storage.open()
        found = {
            group: await loaded(storage, group) for group in await StoredLogs(storage).groups()
        }
        await storage.close()
        return found


async def advance(seconds: float) -> None:
    """Let virtual time pass."""
    loop = asyncio.get_running_loop()
    later = loop.create_future()
    loop.call_later(seconds, later.set_result, None)
    await later


def crash(
    seed: int, judge: Callable[[Run, dict[GroupId, Persisted]], None], **faults: float
) -> Run:
    """Let a process write for a while, cut the power in the middle, and look at what is there."""
    runs: list[Run] = []

    async def scenario(world: World) -> None:
        runs.append(Run(SimDisk(world.kernel, "host"), seed))
        process = world.process("writer")
        process.loop.call_soon(lambda: process.loop.create_task(runs[0].write()))
        await advance(0.05)
        for name, part in faults.items():
            setattr(runs[0].disk.faults, name, part)
        await advance(world.rng.uniform(0.02, 0.1))
        process.kill()
        runs[0].disk.crash(power_loss=True)
        runs[0].disk.faults.lie = 0.0
        judge(runs[0], await runs[0].survivors())

    run_simulation(seed, scenario)
    return runs[0]


def test_a_loss_of_power_keeps_what_was_acknowledged_and_whole_writes_only() -> None:
    """What was acknowledged, and the one write under way wholly or not: over seeds, both, and torn ones."""
    extra: list[bool] = []

    def judge(run: Run, found: dict[GroupId, Persisted]) -> None:
        for group, history in run.histories.items():
            acknowledged = run.acknowledged[group]
            assert acknowledged > 5
            assert found[group] in history.states[acknowledged : acknowledged + 2]
            extra.append(found[group] != history.states[acknowledged])

    torn = sum(crash(seed, judge).disk.happened["torn"] for seed in SEEDS)

    assert torn > 5
    assert 5 < sum(extra) < len(extra) - 5


def test_a_disk_that_lies_gives_back_an_older_state_but_a_whole_one() -> None:
    """Nothing can keep what the disk did not; term, vote and log are of one and the same moment."""
    lost: list[bool] = []

    def judge(run: Run, found: dict[GroupId, Persisted]) -> None:
        assert run.disk.happened["lie"] > 1
        for group, history in run.histories.items():
            assert found[group] in history.states
            lost.append(found[group] not in history.states[run.acknowledged[group] :])

    for seed in SEEDS:
        crash(seed, judge, lie=1.0)

    assert sum(lost) > 20


async def test_a_store_that_stopped_acknowledges_nothing(tmp_path: Path) -> None:
    """`RaftGroup` halts on its error; what was acknowledged before is there after the next start."""
    storage = SqliteStorage(tmp_path, IDENTITY, size_bytes_max=64 * 1024)
    await storage.open()
    logs = StoredLogs(storage)
    await logs.create(MAIN, bootstrap(("m1/abc",)), uuid=UUID, log_id="abc")

    with pytest.raises(StorageFullError):
        await logs.write(MAIN, Persist(entries=(Entry(2, 1, data=b"x" * 100_000),)))
    with pytest.raises(StorageFullError):
        await logs.write(MAIN, Persist(hard_state=HardState(2, "m1/abc")))
    await storage.close()
    storage = SqliteStorage(tmp_path, IDENTITY)
    await storage.open()

    assert bootstrap(("m1/abc",)) == await loaded(storage)
    await storage.close()


# -- damage ------------------------------------------------------------------------------------------


async def _kept() -> SortedRecords:
    """Return a medium with one log that has a snapshot of two chunks and some entries."""
    content = SortedRecords()
    logs = StoredLogs(await opened(content), chunk_bytes=200)
    data = bytes(range(256))
    snapshot = Snapshot(3, 2, 0.5, Members(("m1/abc",)), data)
    entries = tuple(Entry(n, 2, data=b"%d" % n) for n in range(2, 6))
    persisted = Persisted(HardState(3, "m2/def"), Snapshot(), (Entry(1, 1), *entries))
    await logs.create(MAIN, persisted, uuid=UUID, log_id="abc")
    await logs.write(MAIN, Persist(snapshot=snapshot, delete_below=2))
    return content


def _positions() -> list[bytes]:
    return [position for position in asyncio.run(_kept()).content if position != b"i"]


@pytest.mark.parametrize("position", _positions(), ids=records.describe)
async def test_each_damaged_bit_of_a_record_is_noticed(position: bytes) -> None:
    """In the checksum, at both ends and in the middle; a log that is damaged is not loaded at all."""
    content = await _kept()
    sealed = content.content[position]
    last = 8 * len(sealed) - 1
    for bit in (0, 63, 64, last // 2, last):
        damaged = bytearray(sealed)
        damaged[bit // 8] ^= 1 << bit % 8
        content.content[position] = bytes(damaged)

        with pytest.raises(CorruptStorageError, match=r"main|raft\.logs"):
            await StoredLogs(await opened(content)).load(MAIN)


@pytest.mark.parametrize("position", _positions(), ids=records.describe)
async def test_each_missing_record_is_noticed(position: bytes) -> None:
    """A log without its state would vote a second time; forgotten, it can be begun anew."""
    content = await _kept()
    content.apply([Cut(position, position + b"\0")])
    storage = await opened(content)
    logs = StoredLogs(storage)

    with pytest.raises(CorruptStorageError, match="missing"):
        await logs.load(MAIN)

    assert [MAIN] == await logs.groups()
    with pytest.raises(ValueError, match="has no log"):
        await logs.write(MAIN, Persist(hard_state=HardState(9, "")))
    await logs.forget(MAIN)
    await logs.create(MAIN, bootstrap(("m1/new",)), uuid=UUID, log_id="new")
    assert bootstrap(("m1/new",)) == await loaded(storage)


async def test_an_entry_in_the_place_of_another_is_noticed() -> None:
    """Its record is whole, what it says is not."""
    content = await _kept()
    storage = await opened(content)
    wrong = msgspec.msgpack.encode(Entry(9, 2))

    await storage.commit(Append(MAIN, [Kept(6, 2, wrong)]))

    with pytest.raises(CorruptStorageError, match="entry 6"):
        await StoredLogs(storage).load(MAIN)


async def test_what_a_newer_version_wrote_is_refused() -> None:
    """It is not damaged: it must not be forgotten. The message says what to do."""
    content = await _kept()
    storage = await opened(content)
    await storage.commit(Append(MAIN, [Kept(6, 2, msgspec.msgpack.encode([6, 2, "?"]))]))
    with pytest.raises(StorageMismatchError, match=r"entry 6 .* update it"):
        await StoredLogs(storage).load(MAIN)

    later = msgspec.msgpack.encode((stored.FORMAT + 1, "whatever"))
    await storage.commit(Put(NAMESPACE, MAIN.encode(), later))

    with pytest.raises(StorageMismatchError, match=r"format 2.* update it"):
        await StoredLogs(storage).load(MAIN)
