"""The record targets: partition tables and stored entries as a peer sends them."""

from __future__ import annotations

import math
from random import Random
from typing import Final, TypeVar

import msgspec

from cache.cluster.partitions.table import EPOCH_MAX, VERSION_MAX, Table
from cache.cluster.replication.entries import from_record, to_record
from cache.cluster.replication.replica import PartitionReplica
from cache.cluster.wire.encoding import encode_message
from cache.cluster.wire.messages import EntryRecord, PushTable, TableChanges, TableRecord
from cache.errors import RemoteProtocolError
from tests.fuzz import seeds
from tests.fuzz.base import Target, expect
from tests.fuzz.mutate import mutate_body

PARTITIONS: Final = 8
LIFETIME: Final = 600.0
TABLES: Final = msgspec.msgpack.Decoder(TableRecord)
CHANGES: Final = msgspec.msgpack.Decoder(TableChanges)
ENTRIES: Final = msgspec.msgpack.Decoder(EntryRecord)

R = TypeVar("R")


class TableTarget(Target):
    """A table is refused, or is whole and can be sent on."""

    name = "tables"
    mutation = staticmethod(mutate_body)

    def seeds(self, rng: Random) -> list[bytes]:
        return seeds.tables(rng)

    def feed(self, data: bytes) -> str:
        record = _decoded(TABLES, data)
        if record is None:
            return "not a table"
        try:
            table = Table.from_record(record, PARTITIONS)
        except RemoteProtocolError as error:
            return str(error)[:40]
        _check_table(table)
        return "table"


class ChangesTarget(Target):
    """Changes to a table are refused, or make one that is whole; the table itself stays as it was."""

    name = "table-changes"
    mutation = staticmethod(mutate_body)

    def __init__(self) -> None:
        self._base = Table.from_record(seeds.a_table(), PARTITIONS)
        self._before = self._base.to_record()

    def seeds(self, rng: Random) -> list[bytes]:
        return seeds.table_changes(rng)

    def feed(self, data: bytes) -> str:
        record = _decoded(CHANGES, data)
        if record is None:
            return "not changes"
        try:
            table = self._base.with_changes(record)
        except RemoteProtocolError as error:
            return str(error)[:40]
        finally:
            expect(
                self._base.to_record() == self._before, "the table that changes were to is another"
            )
        _check_table(table)
        touched = table.changed_since(self._base)
        expect(set(touched) <= set(record.places), "a row changed that was not sent")
        again = self._base.with_changes(table.changes_record(self._base))
        expect(again == table, "changes changed on the wire")
        return "changes"


def _check_table(table: Table) -> None:
    """A table that was taken from a peer is whole, and can be sent on."""
    expect(len(table.rows) == PARTITIONS, "a table of another size")
    expect(0 <= table.id.version <= VERSION_MAX, "a version out of range")
    for row in table.rows:
        expect(0 <= row.epoch <= EPOCH_MAX, "an epoch out of range")
        expect(len(set(row.holders)) == len(row.holders), "a holder twice")
        expect(set(row.holders) <= set(table.addresses), "a holder without an address")
    encode_message(PushTable(table.to_record()))
    again = Table.from_record(table.to_record(), PARTITIONS)
    expect(again == table, "a table changed on the wire")
    table.owner_counts(), table.copy_counts(), table.held_by(table.id.coordinator)


class ReplicaTarget(Target):
    """An entry is refused, or is stored, expires and can be sent on."""

    name = "replica"
    mutation = staticmethod(mutate_body)

    def __init__(self) -> None:
        self._now = 1000.0
        self._replica = PartitionReplica(operation_memory=8, tombstone_lifetime=LIFETIME)

    def seeds(self, rng: Random) -> list[bytes]:
        return seeds.entries(rng)

    async def reset(self) -> None:
        self.__init__()  # type: ignore[misc]  # a replica is cheap to make anew

    def feed(self, data: bytes) -> str:
        record = _decoded(ENTRIES, data)
        if record is None:
            return "not an entry"
        entry = from_record(record, self._now, tombstone_lifetime=LIFETIME)
        expect(not math.isnan(entry.expires_at), "an entry that ends at no instant")
        replica, name, key = self._replica, record.map, record.key
        stored = replica.apply(name, key, entry)
        expect(not replica.apply(name, key, entry), "a replayed entry was applied again")
        held = replica.entry(name, key)
        assert held is not None, "what was applied is held"
        expect(held.version >= entry.version, "an older version won")
        msgspec.msgpack.encode(to_record(name, key, held, self._now))
        self._now += 0.3
        replica.sweep(self._now, 100)
        replica.versions(range(64))
        expect(replica.size_bytes >= 0 <= replica.entry_count, "a negative size")
        return f"{stored} {held.value is None} {held.expires_at == math.inf}"


def _decoded(decoder: msgspec.msgpack.Decoder[R], data: bytes) -> R | None:
    """Return the record, checked as it is inside a message; None when that is refused."""
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
