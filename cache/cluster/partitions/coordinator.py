"""The coordinator's decisions: which table comes next. Pure; `service.py` does the talking.

Every member holds one `Coordinator`, but only the one that `elect` gives makes tables. The rules:

* Copies first, roles second: a member is listed as a replica only when its copy is complete (`caught_up`),
  and an owner that lives gives up a partition only after it has stopped serving it (`released`).
* A dead owner is replaced at once by the first complete copy.
* Tables form a tree. A member adopts a table only when it descends from its own; two sides of a split fork
  the tree, and `absorb` joins the branches: the side that more live members own partitions on is kept, the
  other branch becomes an ancestor. Its data comes in as offers from the members that hold it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from cache.cluster.ids import Address, MemberId
from cache.cluster.membership.members import Member
from cache.cluster.partitions.assignment import Candidate, assign
from cache.cluster.partitions.table import (
    ANCESTORS_MAX,
    Row,
    Table,
    TableVersion,
    empty_table,
    epoch_of,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What the coordinator wants done now."""

    table: Table | None
    """The table to adopt and push, or None when nothing changes."""

    releases: dict[MemberId, list[int]] = field(default_factory=dict)
    """Partitions that each owner is to stop serving, because another complete copy is to own them."""

    lost: tuple[int, ...] = ()
    """Partitions of which every complete copy died."""


class Coordinator:
    """Holds the current table and computes the next one."""

    def __init__(self, me: MemberId, *, partition_count: int, replica_count: int) -> None:
        self.table: Table = empty_table(partition_count)
        self._me = me
        self._replica_count = replica_count
        self._candidates: tuple[Candidate, ...] = ()
        self._targets: list[tuple[MemberId, ...]] = []
        self._caught_up: dict[tuple[int, MemberId], None] = {}
        self._joining_since: dict[tuple[int, MemberId], int] = {}
        """Version of the table that first listed a copy as joining; older reports are of an earlier try."""
        self._struck: dict[tuple[int, MemberId], None] = {}
        self._released: dict[int, MemberId] = {}
        self._renewed: dict[int, None] = {}
        self._merged: list[TableVersion] = []
        self._reported: dict[int, None] = {}
        """Partitions of which something was reported since the last table was computed."""
        self._still: dict[int, tuple[Row, MemberId | None]] = {}
        """Rows that came out as they were, and the owner that is to release the partition: as long as nothing
        is reported of it, the same of its holders live and its target is the same, so they will again."""
        self._still_for: tuple[frozenset[MemberId], list[tuple[MemberId, ...]]] = (frozenset(), [])
        """Live members and targets for which `_still` was found."""

    def adopt(self, table: Table) -> None:
        """Take over a table that descends from the current one."""
        assert table.descends_from(self.table.id), "only a descendant may replace a table"
        if table.id.coordinator != self._me:
            self._forget_reports()
        self.table = table

    def _forget_reports(self) -> None:
        """Another coordinator's table begins: what was reported about mine says nothing about it."""
        self._targets = []
        self._caught_up.clear()
        self._joining_since.clear()
        self._struck.clear()
        self._released.clear()
        self._renewed.clear()

    def absorb(self, other: Table, live: Iterable[MemberId], *, yielding: bool = False) -> bool:
        """Take in a table that another member holds; return True when something changed.

        Of two branches the one with more live owners is kept; the other one if this member is `yielding`.
        """
        mine = self.table
        if mine.descends_from(other.id) or other.id in self._merged:
            return False
        if other.descends_from(mine.id):
            self._forget_reports()
            self.table = other
            return True
        living = dict.fromkeys(live)
        if yielding or _owners(other, living) > _owners(mine, living):
            self._merged.extend((mine.id, *mine.ancestors))
            self._forget_reports()
            self.table = other
        else:
            self._merged.extend((other.id, *other.ancestors))
            self._caught_up.clear()  # With the owner of one branch, not with what is merged now.
        return True

    def caught_up(self, pairs: Iterable[tuple[int, MemberId]], by: TableVersion) -> None:
        """Owners report that these joining members hold complete copies.

        `by` is the table that the owner went by. A report of an earlier attempt, before the copy was
        struck and began anew, does not count; owners repeat their reports.
        """
        if self.table.descends_from(by):
            for pair in pairs:
                if by.version >= self._joining_since.get(pair, 0):
                    self._caught_up[pair] = None
                    self._reported[pair[0]] = None

    def released(self, owner: MemberId, partitions: Iterable[int]) -> None:
        """`owner` stopped serving these partitions."""
        for partition in partitions:
            self._released[partition] = owner
            self._reported[partition] = None

    def renew(self, partitions: Iterable[int]) -> None:
        """Copies refuse the epoch of these partitions' owners: they need a later one.

        So it is after a split whose other side gave up its table before this one saw it.
        """
        for partition in partitions:
            self._renewed[partition] = None
            self._reported[partition] = None

    def strike(self, partitions: Iterable[int], replica: MemberId) -> None:
        """Owners cannot reach `replica`: its copies must catch up again before they count."""
        for partition in partitions:
            self._struck[partition, replica] = None
            self._reported[partition] = None
            self._caught_up.pop((partition, replica), None)

    def advance(self, members: Sequence[Member]) -> Plan:
        """Compute what follows from the live `members` and everything reported so far."""
        live = {member.id: member for member in members}
        self._retarget(members)
        version = max(
            [self.table.id.version, *(merged.version for merged in self._merged)], default=0
        )
        releases: dict[MemberId, list[int]] = {}
        lost: list[int] = []
        rows = self._next_rows(live, version + 1, releases, lost)
        addresses = {member.id: member.address for member in members}
        table = self._publish(rows, addresses, version + 1)
        return Plan(table=table, releases=releases, lost=tuple(lost))

    def unsettled(self) -> int:
        """Count the partitions whose holders are not yet those this coordinator aims at."""
        return sum(
            bool(target) and (row.replicas != target or bool(row.joining))
            for target, row in zip(self._targets, self.table.rows, strict=False)
        )

    def _retarget(self, members: Sequence[Member]) -> None:
        candidates = tuple(
            Candidate(id=member.id, weight=member.weight, host=member.host, zone=member.zone)
            for member in members
            if not member.leaving and member.holds_data
        )
        if candidates == self._candidates and self._targets:
            return
        previous = self._targets or [row.replicas + row.joining for row in self.table.rows]
        self._candidates = candidates
        if candidates:
            self._targets = assign(previous, candidates, self._replica_count)
        else:  # Everybody is leaving: data stays where it is.
            self._targets = [() for _ in self.table.rows]

    def _next_rows(
        self,
        live: dict[MemberId, Member],
        version: int,
        releases: dict[MemberId, list[int]],
        lost: list[int],
    ) -> tuple[Row, ...]:
        """Return the next rows; only those are computed that can be other ones than before.

        Tables follow each other quickly while data moves, and each changes a few rows of a thousand.
        """
        self._forget_moving(live)
        rows = []
        for partition, row in enumerate(self.table.rows):
            still = self._still.get(partition)
            if still is None or still[0] is not row or partition in self._reported:
                self._still.pop(partition, None)
                after, releasing = self._next_row(partition, row, live, version, lost)
                if after == row:
                    after = row
                    if partition not in self._reported and not self._merged:
                        self._still[partition] = (row, releasing)
            else:
                after, releasing = still
            rows.append(after)
            if releasing is not None:
                releases.setdefault(releasing, []).append(partition)
        self._reported.clear()
        return tuple(rows)

    def _forget_moving(self, live: dict[MemberId, Member]) -> None:
        """Forget the rows in which a member has come or gone, and those that are to have other holders."""
        members, aims = self._still_for
        targets = self._targets
        if self._merged or len(aims) != len(targets):
            self._still.clear()
        elif aims is not targets or members != live.keys():
            changed = members ^ live.keys()
            self._still = {
                partition: still
                for partition, still in self._still.items()
                if targets[partition] == aims[partition] and changed.isdisjoint(still[0].holders)
            }
        self._still_for = (frozenset(live), targets)

    def _next_row(
        self,
        partition: int,
        row: Row,
        live: dict[MemberId, Member],
        version: int,
        lost: list[int],
    ) -> tuple[Row, MemberId | None]:
        """Return the next row, and the owner that is to release the partition before it moves, if any."""
        target = self._targets[partition]
        releasing: MemberId | None = None
        replicas = self._complete_copies(partition, row, live)
        lost_at = row.lost
        if not replicas:
            if row.replicas:
                lost.append(partition)
                lost_at = version
            partial = [member for member in row.joining if member in live]
            replicas = partial[:1] or list(target)
        if self._merged:  # After a fork a copy may have gone the other way: it catches up anew.
            del replicas[1:]
        missing = tuple(member for member in target if member not in replicas)
        if target and not missing:
            owner, serving = replicas[0], row.owner
            if owner in (target[0], self._released.get(partition)) or owner != serving:
                replicas = list(target)
            else:
                releasing = owner
        if not replicas:
            return Row(row.epoch, (), (), lost_at), None
        # After a fork both branches used the same epoch numbers: all start anew above both.
        same = replicas[0] == row.owner and not self._merged and partition not in self._renewed
        epoch = row.epoch if same else epoch_of(TableVersion(version, self._me))
        return Row(epoch, tuple(replicas), missing, lost_at), releasing

    def _complete_copies(
        self, partition: int, row: Row, live: dict[MemberId, Member]
    ) -> list[MemberId]:
        replicas = [
            member
            for index, member in enumerate(row.replicas)
            if member in live and (index == 0 or (partition, member) not in self._struck)
        ]
        replicas.extend(
            member
            for member in row.joining
            if member in live and (partition, member) in self._caught_up
        )
        return replicas

    def _publish(
        self, rows: tuple[Row, ...], addresses: dict[MemberId, Address], version: int
    ) -> Table | None:
        thaw = bool(self._released)  # An owner that stopped serving waits for a newer table.
        previous = self.table
        changed = rows != previous.rows or addresses != dict(previous.addresses)
        self._released.clear()
        self._struck.clear()
        self._renewed.clear()
        if not (changed or thaw or self._merged):
            return None
        ancestors = _newest_per_coordinator((previous.id, *self._merged, *previous.ancestors))
        self._merged.clear()
        joining = [(p, member) for p, row in enumerate(rows) for member in row.joining]
        self._joining_since = {
            pair: self._joining_since.get(pair, version)
            if pair[1] in previous.rows[pair[0]].joining
            else version
            for pair in joining
        }
        self._caught_up = {pair: None for pair in joining if pair in self._caught_up}
        self.table = Table(
            id=TableVersion(version, self._me),
            ancestors=ancestors[:ANCESTORS_MAX],
            rows=rows,
            addresses=addresses,
        )
        return self.table


def elect(members: Sequence[Member]) -> Member | None:
    """Return who coordinates, of the live members, oldest first; None if there are none.

    The oldest that is not leaving; one that holds data before one that does not.
    """
    staying = [member for member in members if not member.leaving]
    holding = [member for member in staying if member.holds_data]
    return next(iter(holding or staying or members), None)


def _newest_per_coordinator(versions: Iterable[TableVersion]) -> tuple[TableVersion, ...]:
    """Keep one version per coordinator, which vouches for its earlier ones; newest first."""
    newest: dict[MemberId, TableVersion] = {}
    for version in versions:
        known = newest.get(version.coordinator)
        if version.version > 0 and (known is None or known < version):
            newest[version.coordinator] = version
    return tuple(sorted(newest.values(), reverse=True))


def _owners(table: Table, live: dict[MemberId, None]) -> tuple[int, TableVersion]:
    """How much of a cluster stands behind a table; ties go to the later table."""
    owners = dict.fromkeys(row.owner for row in table.rows if row.owner in live)
    return len(owners), table.id
