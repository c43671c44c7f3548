"""Logs of replicas in a `Storage`: what a `Persist` says becomes one commit, and `Persisted` comes back.

| of a replica | in the store |
| --- | --- |
| term and vote | hard state of the group, in the record that also says where its log begins and ends |
| entry | entry of the same index and term; `data` is the whole of it, in MessagePack |
| snapshot | chunks, then its other fields in MessagePack, which make it valid |
| which log this is | value of the group in `NAMESPACE`: format, id of the log, uuid of the group |

A `Persist` is durable wholly or not at all. Chunks of a snapshot go ahead in commits of their own: they are
invisible until the one commit with everything else says that they are complete.

What is damaged or missing raises `CorruptStorageError` while loading, and is never a part of what is
returned. Such a log is of no use: `forget` it and join anew, as another log, without its vote.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, TypeVar

import msgspec

from cache.cluster.raft.messages import Entry, GroupId, Snapshot, encode
from cache.cluster.raft.outputs import HardState, Persist, Persisted
from cache.errors import CorruptStorageError, OverloadedError, StorageMismatchError
from cache.storage import base as store
from cache.storage.base import GroupState, Storage, Write

T = TypeVar("T")

NAMESPACE: Final = "raft.logs"
FORMAT: Final = 1
"""Version of what is written here; a later one is refused."""

CHUNK_BYTES: Final = 1024 * 1024
"""Bytes of a snapshot in one record: several commits, so that other groups' ones are not held up for long."""

_ENTRIES: Final = msgspec.msgpack.Decoder(Entry)
_SNAPSHOTS: Final = msgspec.msgpack.Decoder(Snapshot)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredLog:
    """One log, as it was kept."""

    uuid: bytes
    """Of the group."""
    log_id: str
    persisted: Persisted


class StoredLogs:
    """The `LogStorage` of all replicas of a node, in one open store.

    Calls for one group come one at a time; those for several share the store's syncs. When the store
    stops, every call raises its error.
    """

    def __init__(self, storage: Storage, *, chunk_bytes: int = CHUNK_BYTES) -> None:
        self._storage = storage
        self._chunk_bytes = chunk_bytes
        self._known: set[GroupId] = set()
        """Groups whose log was created here, or loaded without a fault."""
        self._under_way: dict[asyncio.Future[None], None] = {}

    # -- whole logs ------------------------------------------------------------------------------

    async def groups(self) -> list[GroupId]:
        """Return the groups that have a log here, sorted, damaged ones included."""
        names = set(self._storage.groups())
        with suppress(CorruptStorageError):  # `load` says of which group.
            names |= {key.decode() for key, _ in await self._storage.scan(NAMESPACE)}
        return [GroupId(name) for name in sorted(names)]

    async def load(self, group: GroupId) -> StoredLog | None:
        """Return the log of a group, with all that was acknowledged, or None if there is none.

        Raises:
            CorruptStorageError: some of it is damaged or missing; it names the record.
            StorageMismatchError: a newer version of this library wrote it.
        """
        kept = await self._storage.get(NAMESPACE, group.encode())
        if kept is None and group not in self._storage.groups():
            return None
        if kept is None or group not in self._storage.groups():
            record = f"{'id' if kept is None else 'state'} of the log of group {group!r}"
            raise CorruptStorageError(f"{record} is missing; Forget({group!r}) makes room", record)
        log_id, uuid = _read_kept(kept, group)
        state = self._storage.group(group)
        snapshot = await self._load_snapshot(group, state.snapshot)
        if not state.base_index <= snapshot.index <= state.last_index:
            record = f"state of group {group!r}"
            raise CorruptStorageError(f"{record}: its log does not meet its snapshot", record)
        hard_state = HardState(state.hard_state.term, state.hard_state.vote)
        entries = await self._load_entries(group, state)
        persisted = Persisted(hard_state, snapshot, tuple(entries))
        self._known.add(group)
        return StoredLog(uuid=uuid, log_id=log_id, persisted=persisted)

    async def create(
        self, group: GroupId, persisted: Persisted, *, uuid: bytes, log_id: str
    ) -> None:
        """Begin a log; returns when it is durable.

        Raises:
            ValueError: there is a log of that group, which has to be forgotten first.
        """
        kept = await self._storage.get(NAMESPACE, group.encode())
        if kept is not None or group in self._storage.groups():
            raise ValueError(f"group {group!r} has a log; forget it first")
        whole = Persist(
            hard_state=persisted.hard_state,
            snapshot=persisted.snapshot if persisted.snapshot.index else None,
            entries=persisted.entries,
        )
        which = msgspec.msgpack.encode((FORMAT, log_id, uuid))
        await self._persist(group, whole, [store.Put(NAMESPACE, group.encode(), which)])
        self._known.add(group)

    async def forget(self, group: GroupId) -> None:
        """Remove the log of a group, damaged or not; returns when that is durable."""
        self._known.discard(group)
        await self._commit(store.Forget(group), store.Delete(NAMESPACE, group.encode()))

    async def write(self, group: GroupId, persist: Persist) -> None:
        """See `LogStorage.write`.

        Raises:
            StorageError: the store has stopped; the replica has to, too.
            ValueError: it would leave a gap in the log, or there is no log of that group.
        """
        if group not in self._known:
            raise ValueError(f"group {group!r} has no log here; load it, or create it")
        await self._persist(group, persist, [])

    # -- writing ---------------------------------------------------------------------------------

    async def _persist(self, group: GroupId, persist: Persist, beside: list[Write]) -> None:
        writes = list(beside)
        if (hard := persist.hard_state) is not None:
            writes.append(store.SetHardState(group, store.HardState(hard.term, hard.vote)))
        if (snapshot := persist.snapshot) is not None:
            writes.append(await self._write_chunks(group, snapshot))
        writes += await self._plan_log(group, persist)
        if writes:
            await self._commit(*writes)

    async def _write_chunks(self, group: GroupId, snapshot: Snapshot) -> Write:
        """Store the data of a snapshot; return the write that makes it the group's."""
        count = 0
        for number, data in enumerate(_chunks(snapshot.data, self._chunk_bytes)):
            chunk = store.SnapshotChunk(group, snapshot.index, snapshot.term, number, data)
            await self._commit(chunk)
            count = number + 1
        rest = encode(msgspec.structs.replace(snapshot, data=b""))
        finished = store.Snapshot(snapshot.index, snapshot.term, count, rest)
        return store.FinishSnapshot(group, finished)

    async def _plan_log(self, group: GroupId, persist: Persist) -> list[Write]:
        """Return the writes that do to the stored log what `persist` says."""
        state, new = self._storage.group(group), persist.entries
        first, last = state.base_index + 1, state.last_index
        if persist.delete_below is not None:
            first = max(first, persist.delete_below)
        if persist.delete_above is not None:
            last = min(last, persist.delete_above)
        if new and new[-1].index >= last:
            last = min(last, new[0].index - 1)
        writes: list[Write] = []
        if first > last:
            base = new[0].index - 1 if new else max(first - 1, state.base_index)
            writes += _begin_anew(group, state, base, persist.snapshot)
        else:
            if last < state.last_index:
                writes.append(store.Truncate(group, last + 1, await self._term(group, last)))
            if first - 1 > state.base_index:
                writes.append(store.Compact(group, first - 1, await self._term(group, first - 1)))
        if new:
            writes.append(
                store.Append(group, [store.Entry(e.index, e.term, encode(e)) for e in new])
            )
        return writes

    async def _term(self, group: GroupId, index: int) -> int:
        return (await self._storage.entries(group, index, index))[0].term

    async def _commit(self, *writes: Write) -> None:
        """Commit, once there is room; what has to drain first are commits of other groups."""
        while True:
            try:
                future = self._storage.commit(*writes)
                break
            except OverloadedError:
                if not self._under_way:
                    raise
                await asyncio.wait([next(iter(self._under_way))])
        self._under_way[future] = None
        future.add_done_callback(lambda done: self._under_way.pop(done, None))
        await future

    # -- reading ---------------------------------------------------------------------------------

    async def _load_snapshot(self, group: GroupId, kept: store.Snapshot | None) -> Snapshot:
        if kept is None:
            return Snapshot()
        chunks = [await self._storage.chunk(group, number) for number in range(kept.chunk_count)]
        record = f"snapshot {kept.index} of group {group!r}"
        snapshot = _decode(_SNAPSHOTS, kept.data, record)
        _check_place((snapshot.index, snapshot.term), (kept.index, kept.term), record)
        return msgspec.structs.replace(snapshot, data=b"".join(chunks))

    async def _load_entries(self, group: GroupId, state: GroupState) -> list[Entry]:
        entries: list[Entry] = []
        while (first := state.base_index + 1 + len(entries)) <= state.last_index:
            for kept in await self._storage.entries(group, first, state.last_index):
                record = f"entry {kept.index} of group {group!r}"
                entry = _decode(_ENTRIES, kept.data, record)
                _check_place((entry.index, entry.term), (kept.index, kept.term), record)
                entries.append(entry)
        return entries


def _begin_anew(
    group: GroupId, state: GroupState, base: int, snapshot: Snapshot | None
) -> Iterator[Write]:
    """Yield what empties a log and lets it go on after `base`."""
    if state.last_index > state.base_index:
        yield store.Truncate(group, state.base_index + 1, state.base_term)
    if base != state.base_index:
        # Only the term of a snapshot is known here; nobody asks for another one's.
        term = snapshot.term if snapshot is not None and snapshot.index == base else 0
        yield store.Compact(group, base, term)


def _chunks(data: bytes, size: int) -> Iterator[bytes]:
    """Yield the parts of a snapshot; one without data has one empty part."""
    yield data[:size]
    for offset in range(size, len(data), size):
        yield data[offset : offset + size]


def _read_kept(kept: bytes, group: GroupId) -> tuple[str, bytes]:
    record = f"id of the log of group {group!r}"
    version = msgspec.msgpack.decode(kept)[0]
    if version > FORMAT:
        raise StorageMismatchError(
            f"{record} has format {version}; this version of peercache reads up to {FORMAT}: update it"
        )
    _, log_id, uuid = _decode(msgspec.msgpack.Decoder(tuple[int, str, bytes]), kept, record)
    return log_id, uuid


def _decode(decoder: msgspec.msgpack.Decoder[T], data: bytes, record: str) -> T:
    """Return what was encoded; its checksum is right, so that other bytes are another version's."""
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, ValueError) as error:
        raise StorageMismatchError(
            f"{record} cannot be read by this version of peercache ({error}); update it"
        ) from error


def _check_place(found: tuple[int, int], expected: tuple[int, int], record: str) -> None:
    if found != expected:
        text = f"{record} says that it is {found}, in the place of {expected}; it was not used"
        raise CorruptStorageError(text, record)
