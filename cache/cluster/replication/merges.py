"""What came together after a split: one report per merge, kept by each member as owner. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

from cache.cluster.partitions.table import Table

REPORTS_MAX: Final = 16
"""Reports kept; the oldest goes first."""


@dataclass(slots=True)
class MergeReport:
    """Versions that this member, as owner, compared while one split healed."""

    table: str
    """The first table that knew of both sides."""
    compared: int = 0
    """Entries that the other side's members offered or were asked for."""
    won: int = 0
    """Of these, the ones that were later than what this side had: they stand now."""
    lost: int = 0
    """Of these, the ones that were not."""
    tombstones: int = 0
    """Of the winners, deletes."""
    complete: bool = False
    """Whether all copies were made since."""


class Merges:
    """Begins a report with each merge of two branches, and ends it when no copy is missing any more."""

    def __init__(self) -> None:
        self._reports: deque[MergeReport] = deque(maxlen=REPORTS_MAX)

    def reports(self) -> list[MergeReport]:
        """Return the reports, oldest first."""
        return list(self._reports)

    def follow(self, old: Table, new: Table) -> MergeReport | None:
        """Take note of an adopted table; return the report that is complete with it."""
        current = self._reports[-1] if self._reports else None
        if current is not None and not current.complete:
            if any(row.joining for row in new.rows):
                return None
            current.complete = True
            if current.compared:
                return current
            self._reports.pop()  # Every partition changed hands, but there was nothing to merge.
        elif _may_join_branches(old, new):
            self._reports.append(MergeReport(str(new.id)))
        return None

    def count(self, *, won: int, lost: int, tombstones: int) -> None:
        """Add to the report of the merge that goes on, if any does."""
        if self._reports and not self._reports[-1].complete:
            report = self._reports[-1]
            report.compared += won + lost
            report.won += won
            report.lost += lost
            report.tombstones += tombstones


def _may_join_branches(old: Table, new: Table) -> bool:
    """Return whether every epoch began anew, as it does in the table that joins two branches."""
    latest = max((row.epoch for row in old.rows), default=0)
    return old.id.version > 0 and all(row.epoch > latest for row in new.rows)
