"""Results of finished operations, kept with a copy so that a retry takes effect once. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from cache.cluster.wire.messages import EntryRecord, OperationRecord


class Operations:
    """The latest operations on one partition.

    Args:
        limit: how many are remembered; the oldest go first.
    """

    __slots__ = ("_limit", "_records")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._records: dict[bytes, OperationRecord] = {}

    def remember(self, operation: OperationRecord) -> None:
        """Keep the result of an operation."""
        self._records.pop(operation.id, None)
        self._records[operation.id] = operation
        while len(self._records) > self._limit:
            del self._records[next(iter(self._records))]

    def forget(self, operation: bytes) -> None:
        """The operation's effect was undone: a retry is to have it again."""
        self._records.pop(operation, None)

    def get(self, operation: bytes) -> OperationRecord | None:
        """Return what is remembered of an operation done before, or None."""
        return self._records.get(operation)

    def all(self) -> list[OperationRecord]:
        """Return every remembered operation, oldest first."""
        return list(self._records.values())

    def about(self, records: Iterable[EntryRecord]) -> list[OperationRecord]:
        """Return the remembered operations on the keys of these entries, oldest first."""
        keys = {(record.map, record.key): None for record in records}
        return [op for op in self._records.values() if (op.map, op.key) in keys]
