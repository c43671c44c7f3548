"""The partition table: which members hold which partition. Immutable; checked on arrival.

A key belongs to one partition for ever; only the holders of a partition change. Tables form a tree: each
one names the tables it descends from, so that a member can tell a newer table of its own line from one
that was made on the other side of a split. Not here: how holders are chosen (`assignment.py`) and when
(`coordinator.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from xxhash import xxh3_64_intdigest, xxh32_intdigest

from cache.cluster.ids import Address, MemberId, parse_address
from cache.cluster.wire.messages import RowRecord, TableChanges, TableId, TableRecord
from cache.errors import RemoteProtocolError

ANCESTORS_MAX: Final = 64
"""Ancestors a table lists; one entry vouches for all earlier tables of the same coordinator."""

EPOCH_BITS: Final = 20
"""Low bits of an epoch: a hash of the coordinator that began it."""

EPOCH_MAX: Final = 2**62
VERSION_MAX: Final = EPOCH_MAX >> EPOCH_BITS
"""No honest cluster gets here; it keeps a hostile version from overflowing the wire's integers."""


@dataclass(frozen=True, slots=True, order=True)
class TableVersion:
    """Identity of one table: no two tables share it. Ordered by version, then coordinator."""

    version: int
    coordinator: MemberId

    def __str__(self) -> str:
        return f"{self.version}@{self.coordinator}"


@dataclass(frozen=True, slots=True)
class Row:
    """The holders of one partition.

    `epoch` rises whenever the owner changes and is never used by two owners, see `epoch_of`.
    """

    epoch: int
    replicas: tuple[MemberId, ...]
    """Complete copies; the first is the owner."""
    joining: tuple[MemberId, ...]
    """Copies that are being made: they receive every write, but cannot be relied on yet."""
    lost: int = 0
    """Version of the table that found every complete copy dead, the last time; 0 for never."""

    @property
    def owner(self) -> MemberId | None:
        """The member that serves this partition, or None while nobody does."""
        return self.replicas[0] if self.replicas else None

    @property
    def holders(self) -> tuple[MemberId, ...]:
        """Everybody who receives writes: complete copies first."""
        return self.replicas + self.joining


@dataclass(frozen=True, slots=True)
class Table:
    """One version of the partition table."""

    id: TableVersion
    ancestors: tuple[TableVersion, ...]
    """Newest first: tables that this one descends from or has merged."""
    rows: tuple[Row, ...]
    addresses: Mapping[MemberId, Address]
    """Where the members of this table listen; every holder is in it."""
    owners: tuple[MemberId | None, ...] = field(init=False, repr=False, compare=False)
    """The owner of each partition: what every operation looks up."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "owners", tuple(row.owner for row in self.rows))

    def descends_from(self, other: TableVersion) -> bool:
        """Return whether this table is `other` or was made with knowledge of it.

        One coordinator never forks from itself, so that each table listed (this one included) vouches for
        all earlier ones of its coordinator. Everything descends from the empty table.
        """
        return other.version == 0 or any(
            known.coordinator == other.coordinator and known.version >= other.version
            for known in (self.id, *self.ancestors)
        )

    def owner(self, partition: int) -> MemberId | None:
        """Return the owner of a partition, or None while nobody owns it."""
        return self.owners[partition]

    def owned_by(self, member: MemberId) -> list[int]:
        """Return the partitions that `member` owns, ascending."""
        return [partition for partition, owner in enumerate(self.owners) if owner == member]

    def held_by(self, member: MemberId) -> list[int]:
        """Return the partitions that `member` holds or is joining, ascending."""
        return [
            partition
            for partition, row in enumerate(self.rows)
            if member in row.replicas or member in row.joining
        ]

    def changed_since(self, other: Table) -> list[int]:
        """Return the partitions whose rows may be others than in `other`, ascending.

        Rows that did not change are the same objects in tables that follow each other, so that this takes a
        fraction of the time of looking at each.
        """
        pairs = zip(other.rows, self.rows, strict=True)
        return [partition for partition, (before, row) in enumerate(pairs) if before is not row]

    def owner_counts(self) -> dict[MemberId, int]:
        """Return how many partitions each member of the table owns, by ascending id."""
        counts = dict.fromkeys(sorted(self.addresses), 0)
        for owner in self.owners:
            if owner is not None:
                counts[owner] = counts.get(owner, 0) + 1
        return counts

    def copy_counts(self) -> dict[MemberId, int]:
        """Return how many complete copies each member of the table holds, by ascending id."""
        counts = dict.fromkeys(sorted(self.addresses), 0)
        for row in self.rows:
            for member in row.replicas:
                counts[member] = counts.get(member, 0) + 1
        return counts

    def to_record(self) -> TableRecord:
        """Return the wire form, the same for equal tables."""
        return self._record(range(len(self.rows)))

    def changes_record(self, base: Table) -> TableChanges:
        """Return the wire form for a member that has `base`: only the rows that changed."""
        places = self.changed_since(base)
        return TableChanges(_version_to_record(base.id), places, self._record(places))

    def _record(self, places: Sequence[int]) -> TableRecord:
        members = sorted(self.addresses)
        index = {member: position for position, member in enumerate(members)}
        rows = [self.rows[place] for place in places]
        # Many rows have the same holders: to look each tuple of them up is faster than each holder.
        held = dict.fromkeys(holders for row in rows for holders in (row.replicas, row.joining))
        listed = {holders: [index[member] for member in holders] for holders in held}
        return TableRecord(
            id=_version_to_record(self.id),
            ancestors=[_version_to_record(ancestor) for ancestor in self.ancestors],
            members=[str(member) for member in members],
            addresses=[str(self.addresses[member]) for member in members],
            rows=[
                RowRecord(row.epoch, listed[row.replicas], listed[row.joining], row.lost)
                for row in rows
            ],
        )

    @staticmethod
    def from_record(record: TableRecord, partition_count: int) -> Table:
        """Return the table that a peer sent.

        Raises:
            RemoteProtocolError: when the record contradicts itself or this cluster's partition count.
        """
        _require(len(record.rows) == partition_count, f"has {len(record.rows)} rows")
        return Table._taken(record, ())

    def with_changes(self, record: TableChanges) -> Table:
        """Return the table that a peer sent as changes to this one.

        Raises:
            RemoteProtocolError: when the record contradicts itself or this table.
        """
        _require(record.base == _version_to_record(self.id), "changes another table")
        places = record.places
        _require(len(record.table.rows) == len(places), f"changes {len(places)} rows")
        _require(
            all(0 <= place < len(self.rows) for place in places), "changes a row that is not there"
        )
        table = Table._taken(record.table, self.rows, places)
        if not self.addresses.keys() <= table.addresses.keys():
            holders = (holder for row in table.rows for holder in row.holders)
            _require(all(holder in table.addresses for holder in holders), "has a holder it lacks")
        return table

    @staticmethod
    def _taken(record: TableRecord, rows: Sequence[Row], places: Sequence[int] = ()) -> Table:
        _require(len(record.ancestors) <= ANCESTORS_MAX, "lists too many ancestors")
        members = [MemberId(member) for member in record.members]
        _require(all(members), "has a member without an id")
        _require(len(dict.fromkeys(members)) == len(members), "lists a member twice")
        _require(len(record.addresses) == len(members), "has not one address per member")
        taken = _rows_from_records(record.rows, members)
        if rows:
            changed = list(rows)
            for place, row in zip(places, taken, strict=True):
                changed[place] = row
            taken = tuple(changed)
        table = Table(
            id=_version_from_record(record.id),
            ancestors=tuple(_version_from_record(ancestor) for ancestor in record.ancestors),
            rows=taken,
            addresses=dict(zip(members, map(_checked_address, record.addresses), strict=True)),
        )
        if table.id.version == 0:
            _require(not any(row.holders for row in table.rows), "is version 0 but has holders")
        return table


def empty_table(partition_count: int) -> Table:
    """Return the table that every line of tables starts from: version 0, nobody holds anything."""
    row = Row(epoch=0, replicas=(), joining=())
    return Table(
        id=TableVersion(0, MemberId("")),
        ancestors=(),
        rows=(row,) * partition_count,
        addresses={},
    )


def epoch_of(table: TableVersion) -> int:
    """Return the epoch of the owners that a table names for the first time.

    It rises with the version. Two coordinators that make the same version on two sides of a split
    begin different epochs, so that an epoch names one owner and can serve as a fencing token.
    """
    return table.version << EPOCH_BITS | xxh32_intdigest(table.coordinator.encode()) >> 12


def map_seed(name: str) -> int:
    """Return the hash seed of the map called `name`, so that maps spread equal keys differently."""
    return xxh3_64_intdigest(name.encode())


def partition_of(key: bytes, seed: int, partition_count: int) -> int:
    """Return the partition of an encoded key; `seed` is the `map_seed` of its map."""
    return xxh3_64_intdigest(key, seed) % partition_count


def partitions_of(keys: Iterable[bytes], seed: int, partition_count: int) -> list[int]:
    """Return the partition of each key, as `partition_of` would, without a call for each."""
    return [xxh3_64_intdigest(key, seed) % partition_count for key in keys]


def _version_to_record(version: TableVersion) -> TableId:
    return TableId(version=version.version, coordinator=version.coordinator)


def _version_from_record(record: TableId) -> TableVersion:
    _require(0 <= record.version <= VERSION_MAX, f"names version {record.version}")
    return TableVersion(record.version, MemberId(record.coordinator))


def _rows_from_records(records: list[RowRecord], members: list[MemberId]) -> tuple[Row, ...]:
    """Return the rows. Tables come often while data moves, and many of their rows are equal."""
    made: dict[tuple[int, int, tuple[int, ...], tuple[int, ...]], Row] = {}
    rows = []
    for record in records:
        key = (record.epoch, record.lost, tuple(record.replicas), tuple(record.joining))
        row = made.get(key)
        if row is None:
            row = made[key] = _row_from_record(record, members)
        rows.append(row)
    return tuple(rows)


def _row_from_record(record: RowRecord, members: list[MemberId]) -> Row:
    if not 0 <= record.epoch <= EPOCH_MAX:
        raise _refusal(f"has a row of epoch {record.epoch}")
    if not 0 <= record.lost <= VERSION_MAX:
        raise _refusal(f"has a row lost in version {record.lost}")
    holders = record.replicas + record.joining
    if len(set(holders)) != len(holders):
        raise _refusal("lists a holder twice in a row")
    if holders and not 0 <= min(holders) <= max(holders) < len(members):
        raise _refusal("has a holder that is no member")
    return Row(
        record.epoch,
        tuple([members[holder] for holder in record.replicas]),
        tuple([members[holder] for holder in record.joining]),
        record.lost,
    )


def _checked_address(text: str) -> Address:
    try:
        parse_address(text)
    except ValueError as error:
        raise RemoteProtocolError(f"partition table has a bad address: {error}") from error
    return Address(text)


def _require(condition: bool, complaint: str) -> None:
    if not condition:
        raise _refusal(complaint)


def _refusal(complaint: str) -> RemoteProtocolError:
    return RemoteProtocolError(f"partition table refused: it {complaint}")
