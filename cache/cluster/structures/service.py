"""Map operations on the member that owns the key: one handler per request, local calls and remote alike.

A handler answers at once, or returns a future that resolves when enough copies confirmed the write. It never
awaits between reading and writing.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from random import Random
from typing import Any, Final

from cache.cluster.replication.entries import Entry
from cache.cluster.replication.ownership import Ownership
from cache.cluster.replication.replica import PartitionReplica
from cache.cluster.replication.service import ReplicationService
from cache.cluster.structures.answers import Answer, after, after_each, outcomes, settle_each
from cache.cluster.structures.behind import Behind
from cache.cluster.structures.changes import Changes
from cache.cluster.structures.event_owner import EventOwner
from cache.cluster.structures.loading import Loading
from cache.cluster.structures.loads import LoadService
from cache.cluster.structures.locks import LockService
from cache.cluster.structures.near_owner import NearOwner
from cache.cluster.structures.operations import (
    Outcome,
    Stamper,
    modify,
    pack_result,
    unpack_result,
)
from cache.cluster.structures.processors import ExecutionError, MutableEntry, Processors
from cache.cluster.structures.queries import QueryService
from cache.cluster.structures.quorum import read_quorum
from cache.cluster.structures.stores import Stores
from cache.cluster.structures.through import Decision, Through
from cache.cluster.structures.writes import Writes
from cache.cluster.transport.failures import failure_to_exception
from cache.cluster.transport.rpc import Peer
from cache.cluster.wire.encoding import decode_request, encode_message
from cache.cluster.wire.messages import (
    MODIFY_DELETE,
    MODIFY_POP,
    NEVER,
    ClearEntries,
    Counted,
    CountEntries,
    DeleteMany,
    Done,
    Execute,
    Failure,
    Found,
    Get,
    GetEntry,
    GetMany,
    InvalidateTags,
    Many,
    Modify,
    OperationRecord,
    Pipelined,
    PipelineReplies,
    Raised,
    Remaining,
    Reply,
    Set,
    SetMany,
    TimeToLive,
    Value,
    part_of,
)
from cache.errors import (
    CacheError,
    NotOwnerError,
    RejectedError,
    RemoteProtocolError,
    UnavailableError,
)
from cache.metrics import Metrics

CLEAR_BATCH: Final = 256
"""Keys deleted by one write while a map is cleared."""

PIPELINED: Final = (Get, Set, Modify, Execute, TimeToLive, GetEntry)
"""What may be part of a pipeline."""

ABSENT: Final = Entry(None, 0, 0, -math.inf)

SLICE_KEYS: Final = 2_000
"""Keys looked at for their tags before others get their turn."""


class StructureService:
    """Runs map operations on partitions this member owns."""

    def __init__(
        self,
        *,
        replication: ReplicationService,
        processors: Processors,
        metrics: Metrics,
        rng: Random,
    ) -> None:
        self._replication = replication
        self._processors = processors
        self._writes = Writes(replication)
        loads = LoadService(replication, self._writes, metrics)
        self._leases = loads.leases
        self.changes = Changes(replication)
        self.near = NearOwner(replication, self.changes, metrics, rng)
        self.events = EventOwner(replication, self.changes, metrics, rng)
        self._stores = Stores(replication, self._writes, self._leases, metrics)
        self._through = Through(replication, self._stores, self._writes, self._leases)
        self.behind = Behind(replication, self._stores, rng, metrics)
        self._config = replication.config
        self._clock = replication.clock
        self._now = replication.clock.monotonic
        self._serving = replication.serving
        self._handlers: dict[type, Callable[[Any, Peer | None], Answer]] = {  # Any: by its key
            Get: self._on_get,
            GetMany: self._on_get_many,
            Set: self._on_set,
            Modify: self._on_modify,
            Execute: self._on_execute,
            Pipelined: self._on_pipelined,
            SetMany: self._on_set_many,
            DeleteMany: self._on_delete_many,
            TimeToLive: self._on_time_to_live,
            CountEntries: self._on_count,
            ClearEntries: self._on_clear,
            GetEntry: self._on_get_entry,
            InvalidateTags: self._on_invalidate,
            **loads.handlers,
            **QueryService(replication, metrics).handlers,
            **LockService(replication, self._writes, metrics).handlers,
            **self.near.handlers,
            **self.events.handlers,
        }
        Loading(replication, self._stores).wrap(self._handlers)
        for message_type, handler in self._handlers.items():
            replication.rpc.register(message_type, handler)

    def serve(self, handlers: Mapping[type, Callable[[Any, Peer | None], Answer]]) -> None:
        """Answer further requests, made here or elsewhere."""
        # Any: by its key
        for message_type, handler in handlers.items():
            self._handlers[message_type] = handler
            self._replication.rpc.register(message_type, handler)

    def dispatch(self, request: Any) -> Answer:  # Any: one of the requests registered above
        """Run a request that was made on this member."""
        return self._handlers[type(request)](request, None)

    # -- reads -------------------------------------------------------------------------------

    def _on_get(self, message: Get, peer: Peer | None) -> Answer:
        if self._config.read_quorum > 1 and not message.backup:
            return read_quorum(self._replication, message)
        partition, now = message.partition, self._now()
        if (  # The common case, as `_read` has it. Calls made here have to show that they are at home.
            peer is not None
            and 0 <= partition < len(self._serving)
            and now <= self._replication.validity.until
            and (replica := self._serving[partition]) is not None
        ):
            return Value(replica.get(message.map, message.key, now))
        return Value(self._read(message.map, partition, message.key, message.backup))

    def _read(self, map_name: str, partition: int, key: bytes, backup: bool) -> bytes | None:
        replication = self._replication
        if backup and partition not in replication.owned and self._complete(partition):
            return replication.copy_of(partition).get(map_name, key, self._clock.monotonic())
        replica = replication.serve(partition).replica
        return replica.get(map_name, key, self._clock.monotonic())

    def _complete(self, partition: int) -> bool:
        rows = self._replication.partitions.table.rows
        return 0 <= partition < len(rows) and self._replication.member in rows[partition].replicas

    def _on_get_many(self, message: GetMany, peer: Peer | None) -> Answer:
        replication, now = self._replication, self._clock.monotonic()
        name, serving = message.map, replication.serving
        replication.check_member_quorum()
        if not message.keys:
            return Many([])
        if min(message.partitions) < 0 or max(message.partitions) >= len(serving):
            raise NotOwnerError("a partition is outside the table")
        places = zip(message.partitions, message.keys, strict=True)
        if now > replication.validity.until:
            return Many([self._read(name, *place, message.backup) for place in places])
        # What is not served `_read` refuses; it also keeps the books of maps that have some of their reads.
        return Many(
            [
                (entry.value if now < (entry := entries.get(key, ABSENT)).expires_at else None)
                if (replica := serving[partition]) is not None
                and (entries := replica.readable.get(name)) is not None
                else self._read(name, partition, key, message.backup)
                for partition, key in places
            ]
        )

    def _on_time_to_live(self, message: TimeToLive, peer: Peer | None) -> Answer:
        replica = self._replication.serve(message.partition).replica
        now = self._clock.monotonic()
        if replica.get(message.map, message.key, now) is None:
            return Remaining(exists=False, ttl=NEVER)
        remaining = replica.remaining(message.map, message.key, now)
        return Remaining(exists=True, ttl=NEVER if remaining is None else remaining)

    def _on_get_entry(self, message: GetEntry, peer: Peer | None) -> Answer:
        replica = self._replication.serve(message.partition).replica
        now = self._clock.monotonic()
        value = replica.get(message.map, message.key, now)
        remaining = replica.remaining(message.map, message.key, now)
        hlc, origin = (0, 0) if value is None else replica.version(message.map, message.key)
        return Found(value, NEVER if remaining is None else remaining, hlc, origin)

    def _on_count(self, message: CountEntries, peer: Peer | None) -> Answer:
        count, refused, now = 0, [], self._clock.monotonic()
        for partition in message.partitions:
            try:
                replica = self._replication.serve(partition).replica
            except NotOwnerError:
                refused.append(partition)
            else:
                count += replica.live_count(message.map, now)
        return Counted(count=count, refused=refused)

    # -- writes ------------------------------------------------------------------------------

    def _on_set(self, message: Set, peer: Peer | None) -> Answer:
        self._writes.check_size(message.key, message.value)
        if message.map in self._stores.through:
            return self._through.write(message, partial(self._decide_set, message))
        ownership = self._stores.admit(message.map, message.partition)
        decision = self._decide_set(message, ownership)
        if message.map in self._stores.behind:
            return self._apply(message, ownership, decision)
        entry, reply, _ = decision
        assert entry is not None, "a write is made of something"
        pending = self._replication.put(ownership, message.map, message.key, entry)
        if self._leases:
            self._leases.outdate((message.partition, message.map, message.key))
        return reply if pending is None else after(pending, reply)

    def _decide_set(self, message: Set, _: Ownership) -> Decision:
        stamper = self._writes.stamper(message.map)
        entry = stamper.live(message.value, stamper.expires_at(message.ttl))
        return entry, Done(), ()

    def _apply(
        self, message: Set | Modify | Execute, ownership: Ownership, decision: Decision
    ) -> Answer:
        """Commit what was decided; answer when the copies have it."""
        entry, reply, records = decision
        if entry is None:
            return reply
        changes = self._stores.changes(message.map, message.key, entry)
        pending = self._replication.commit(ownership, changes, records)
        if self._leases:
            self._leases.outdate((message.partition, message.map, message.key))
        return reply if pending is None else after(pending, reply)

    def _on_modify(self, message: Modify, peer: Peer | None) -> Answer:
        self._writes.check_size(message.key, message.value)
        removes = message.name in (MODIFY_DELETE, MODIFY_POP)
        return self._once(message, partial(modify, message), outdates=removes)

    def _on_execute(self, message: Execute, peer: Peer | None) -> Answer:
        try:
            return self._once(message, partial(self._execution, message))
        except ExecutionError as error:
            return Raised(error.packed)

    def _execution(self, message: Execute, replica: PartitionReplica, stamper: Stamper) -> Outcome:
        held = replica.use(message.map, message.key, stamper.now)
        entry = MutableEntry(message.key, held, stamper, default_ttl=message.ttl)
        return self._processors.run(message.function, entry, message.arguments)

    def _once(
        self,
        message: Modify | Execute,
        decide: Callable[[PartitionReplica, Stamper], Outcome],
        *,
        outdates: bool = False,
    ) -> Answer:
        """Do what is decided to a key, or answer as before if this operation was done already."""
        if message.map in self._stores.through:
            return self._through.write(
                message, partial(self._decide, message, decide, outdates), self._remembered
            )
        ownership = self._stores.admit(message.map, message.partition)
        if (repeated := self._remembered(message, ownership)) is not None:
            return repeated
        return self._apply(message, ownership, self._decide(message, decide, outdates, ownership))

    def _remembered(self, message: Modify | Execute, ownership: Ownership) -> Answer | None:
        remembered = ownership.replica.operations.get(message.operation)
        if remembered is not None:
            return self._repeat(message, ownership, remembered)
        return None

    def _decide(
        self,
        message: Modify | Execute,
        decide: Callable[[PartitionReplica, Stamper], Outcome],
        outdates: bool,
        ownership: Ownership,
    ) -> Decision:
        stamper = self._writes.stamper(message.map)
        entry, result = decide(ownership.replica, stamper)
        if self._leases and outdates:
            self._leases.outdate((message.partition, message.map, message.key))
        if entry is None and outdates and message.map in self._stores.writing:
            entry = stamper.tombstone()  # It is absent here; the store may have it.
        if entry is None:
            return None, Value(value=result), ()
        record = OperationRecord(message.operation, message.map, message.key, pack_result(result))
        return entry, Value(value=result), (record,)

    def _repeat(
        self, message: Modify | Execute, ownership: Ownership, remembered: OperationRecord
    ) -> Answer:
        """Answer a retry: the effect stands, but the copies must have it before it is confirmed."""
        reply = Value(value=unpack_result(remembered.result))
        held = ownership.replica.entry(message.map, message.key)
        changes = [] if held is None else [(message.map, message.key, held)]
        pending = self._replication.commit(ownership, changes, [remembered], merging=True)
        return reply if pending is None else after(pending, reply)

    def _on_set_many(self, message: SetMany, peer: Peer | None) -> Answer:
        name = message.map
        if name in self._stores.through:
            return self._set_many_through(message)
        if name in self._stores.behind:
            return settle_each([self._try(self._on_set, each) for each in _sets_of(message)])
        self._writes.check_size(
            max(message.keys, key=len, default=b""), max(message.values, key=len, default=b"")
        )
        expires_at = self._writes.stamper(name).expires_at(message.ttl)
        written = self._replication.put_each(
            name, message.partitions, message.keys, message.values, expires_at
        )
        if self._leases:
            for partition, key in zip(message.partitions, message.keys, strict=True):
                self._leases.outdate((partition, name, key))
        return after_each(written)

    async def _on_delete_many(self, message: DeleteMany, peer: Peer | None) -> Reply:
        answers: list[Answer | CacheError] = []
        columns = enumerate(zip(message.partitions, message.keys, strict=True))
        for index, (partition, key) in columns:
            operation = part_of(message.operation, index)
            request = Modify(message.map, partition, key, operation, MODIFY_DELETE, b"", NEVER, 0)
            answers.append(self._try(self._handlers[Modify], request))
        return await settle_each(answers)

    def _try(self, handler: Callable[[Any, None], Answer], request: Any) -> Answer | CacheError:
        # Any: the request type that belongs to the handler.
        try:
            return handler(request, None)
        except CacheError as error:
            return error

    async def _set_many_through(self, message: SetMany) -> Reply:
        requests = _sets_of(message)
        for request in requests:
            self._writes.check_size(request.key, request.value)
        return await settle_each(await self._through.write_many(requests, self._decide_set))

    async def _on_pipelined(self, message: Pipelined, peer: Peer | None) -> Reply:
        broken: dict[tuple[str, bytes], None] = {}
        answers: list[Answer | CacheError] = []
        for body in message.requests:
            request = decode_request(body)
            if not isinstance(request, PIPELINED):
                raise RemoteProtocolError(f"{type(request).__name__} cannot be in a pipeline")
            place = (request.map, request.key)
            if place in broken:  # It would overtake the one before, which is sent again.
                answers.append(UnavailableError("an earlier operation on the key was refused"))
                continue
            answer = self._try(self._handlers[type(request)], request)
            if asyncio.iscoroutine(answer):
                answer = await answer
            if isinstance(answer, RejectedError):
                broken[place] = None
            answers.append(answer)
        return PipelineReplies([encode_message(reply) for reply in await outcomes(answers)])

    async def _on_clear(self, message: ClearEntries, peer: Peer | None) -> Reply:
        count = 0
        refused: list[int] = []
        confirmations: list[asyncio.Future[None]] = []
        for ownership in self._admitted(message.partitions, refused):
            keys = ownership.replica.keys(message.map, self._clock.monotonic())
            count += len(keys)
            self._leases.outdate_map(ownership.partition, message.map)
            if message.map in self._stores.writing:
                await self._clear_stored(ownership, message, keys)
                continue
            confirmations.extend(self._clear(ownership, message.map, keys))
        await asyncio.gather(*confirmations)
        return Counted(count=count, refused=refused)

    async def _on_invalidate(self, message: InvalidateTags, peer: Peer | None) -> Reply:
        count, looked = 0, 0
        refused: list[int] = []
        tags = frozenset(message.tags)
        confirmations: list[asyncio.Future[None]] = []
        for ownership in self._admitted(message.partitions, refused):
            self._leases.invalidate(ownership.partition, message.map, message.tags)
            keys = ownership.replica.tagged(message.map, tags, self._clock.monotonic())
            count += len(keys)
            with self.events.invalidating():
                confirmations.extend(self._clear(ownership, message.map, keys))
            looked += ownership.replica.entry_count
            if looked > SLICE_KEYS:
                looked = 0
                await asyncio.sleep(0)
        await asyncio.gather(*confirmations)
        return Counted(count=count, refused=refused)

    def _admitted(self, partitions: Sequence[int], refused: list[int]) -> Iterator[Ownership]:
        """Yield those of `partitions` that take writes here; the others are added to `refused`."""
        for partition in partitions:
            try:
                ownership = self._writes.admit(partition)
            except NotOwnerError:
                refused.append(partition)
            else:
                yield ownership

    async def _clear_stored(
        self, ownership: Ownership, message: ClearEntries, keys: Sequence[bytes]
    ) -> None:
        """Delete keys here and in the store."""
        answers: list[Answer | CacheError] = []
        for index, key in enumerate(keys):
            id_ = part_of(part_of(message.operation, ownership.partition), index)
            place = (message.map, ownership.partition, key)
            request = Modify(*place, id_, MODIFY_DELETE, b"", NEVER, 0)
            answers.append(self._try(self._on_modify, request))
        for reply in await outcomes(answers):
            if isinstance(reply, Failure):
                raise failure_to_exception(reply)

    def _clear(
        self, ownership: Ownership, map_name: str, keys: Sequence[bytes]
    ) -> list[asyncio.Future[None]]:
        stamper = self._writes.stamper(map_name)
        confirmations = []
        for start in range(0, len(keys), CLEAR_BATCH):
            batch = keys[start : start + CLEAR_BATCH]
            changes = [(map_name, key, stamper.tombstone()) for key in batch]
            pending = self._replication.commit(ownership, changes)
            if pending is not None:
                confirmations.append(pending.future)
        return confirmations


def _sets_of(message: SetMany) -> list[Set]:
    columns = zip(message.partitions, message.keys, message.values, strict=True)
    return [Set(message.map, *place, message.ttl, message.operation) for place in columns]
