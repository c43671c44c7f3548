"""Messages that bring members to the latest table, each made once for all that come from the same one."""

from __future__ import annotations

from cache.cluster.partitions.table import Table, TableVersion
from cache.cluster.wire.messages import PushTable, TableChanges


class Updates:
    """Remembers the messages that lead to one table."""

    def __init__(self) -> None:
        self._target: Table | None = None
        self._made: dict[TableVersion | None, PushTable | TableChanges] = {}

    def message(self, table: Table, base: Table | None) -> PushTable | TableChanges:
        """Return `table` for a member that has `base`: what changed; all of it if that is not known."""
        if self._target is not table:
            self._target = table
            self._made.clear()
        known = None if base is None else base.id
        message = self._made.get(known)
        if message is None:
            message = PushTable(table.to_record()) if base is None else table.changes_record(base)
            self._made[known] = message
        return message
