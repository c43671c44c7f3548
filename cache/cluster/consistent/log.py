"""`ConsistentLog`: records in one order for all members."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar, cast

from cache.cluster.consistent.access import Access
from cache.cluster.consistent.state.commands import (
    BATCH_MAX,
    LOG_BYTES_MAX,
    LOG_ENTRIES_MAX,
    Append,
    Destroy,
    Kind,
    LogRead,
    Outcome,
    Records,
)
from cache.errors import ConfigError

V = TypeVar("V")

ENTRIES_MAX: Final = 10_000
BYTES_MAX: Final = 8 * 1024 * 1024
"""What a log keeps unless told otherwise."""


@dataclass(frozen=True, slots=True)
class LogRecord(Generic[V]):
    """A record and its place."""

    offset: int
    value: V


@dataclass(frozen=True, slots=True)
class LogPage(Generic[V]):
    """Some records, and what there is."""

    records: list[LogRecord[V]]
    first: int
    """Offset of the oldest record that is kept: asked for an earlier one, the page begins here."""
    end: int
    """Offset that the next record will have."""


class ConsistentLog(Generic[V]):
    """An ordered log of the whole cluster; get one from `Consistent.log`.

    Guarantees:
        Consistency: linearizable. Offsets have no gaps; all readers see the same records in the same order.
        An ack means: a Raft majority has the record, fsynced with `data_dir`, else in memory.
        Under partition, under pause, clocks: as `ConsistentRegister`. An append that ended as indeterminate
            may be in the log, once; calling again may append it twice.
        Retention: the oldest records go when an append finds more than its `entries_max` or `bytes_max`; the
            records of the latest append are always kept.
        Loss is reported by: `LogPage.first` above the offset that was asked for; in `subscribe`, an offset
            that is not the next one.
        Tested by: tests/unit/cluster/consistent (test_structures, test_log, test_linearizability).
    """

    def __init__(
        self, access: Access, *, entries_max: int = ENTRIES_MAX, bytes_max: int = BYTES_MAX
    ) -> None:
        for name, value, limit in (
            ("entries_max", entries_max, LOG_ENTRIES_MAX),
            ("bytes_max", bytes_max, LOG_BYTES_MAX),
        ):
            if type(value) is not int or not 1 <= value <= limit:
                raise ConfigError(f"{access.label}: {name}={value!r}: must be 1 to {limit}")
        self._access = access
        self._entries_max = entries_max
        self._bytes_max = bytes_max

    def __repr__(self) -> str:
        return f"<ConsistentLog {self._access.label}>"

    async def append(self, value: V) -> int:
        """Append a record; return its offset, from 0.

        Raises:
            CodecError: it cannot be stored, or is over 256 KiB.
        """
        return await self.append_many([value])

    async def append_many(self, values: Sequence[V]) -> int:
        """Append up to 1000 records, 1 MiB, with nothing in between; return the first one's offset."""
        encoded = [self._access.encode(value) for value in values]
        command = Append(self._access.name, encoded, self._entries_max, self._bytes_max)
        return (await self._access.tell(command, Outcome)).number

    async def read(self, offset: int = 0, limit: int = 100, *, lease: bool = False) -> LogPage[V]:
        """Return up to `limit` records (1000 at most, about 1 MiB) from an offset on.

        `lease` reads by the leader's lease.
        """
        query = self._query(offset, limit)
        return self._page(await self._access.ask(query, Records, lease=lease))

    async def subscribe(self, offset: int = 0) -> AsyncIterator[LogRecord[V]]:
        """Yield the records from an offset on, and each new one when it is there.

        Raises:
            RejectedError: the group cannot be asked; subscribe again from the offset after the last one seen.
        """
        while True:
            query = self._query(offset, BATCH_MAX, until_some=True)
            page = self._page(await self._access.next(query, Records))
            for record in page.records:
                yield record
                offset = record.offset + 1

    async def destroy(self) -> bool:
        """Forget the log, which begins again at offset 0; return whether there was one."""
        return (await self._access.tell(Destroy(self._access.name, Kind.LOG), Outcome)).done

    def _query(self, offset: int, limit: int, *, until_some: bool = False) -> LogRead:
        for name, value in (("offset", offset), ("limit", limit)):
            if type(value) is not int or not 0 <= value < 2**63:
                raise ConfigError(f"{self._access.label}: {name}={value!r}: must be 0 or more")
        return LogRead(self._access.name, offset, limit, until_some)

    def _page(self, answer: Records) -> LogPage[V]:
        records = [
            LogRecord(answer.offset + place, cast(V, self._access.decode(value)))
            for place, value in enumerate(answer.values)
        ]
        return LogPage(records, answer.first, answer.end)
