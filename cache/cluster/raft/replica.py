"""What all sub-protocols of one replica share: who it is, its log, its members, its outbox. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from cache.cluster.config.raft import RaftConfig
from cache.cluster.raft.changes import Changes
from cache.cluster.raft.log import Log
from cache.cluster.raft.messages import AnyMessage, Entry, GroupId, Members, ReplicaId, Snapshot
from cache.cluster.raft.outputs import Send


@dataclass(slots=True)
class Replica:
    """One log of one group, whatever its role. Log and members change together, here."""

    group: GroupId
    me: ReplicaId
    config: RaftConfig
    log: Log
    changes: Changes
    snapshot: Snapshot
    """The latest one, with its data."""
    outbox: list[Send] = field(default_factory=list)
    snapshot_unsaved: bool = False
    restore_due: bool = False
    """The applied state is to be replaced by `snapshot`."""

    @property
    def members(self) -> Members:
        """The members in force."""
        return self.changes.current

    def send(self, to: ReplicaId, message: AnyMessage) -> None:
        """Put a message into the outbox."""
        self.outbox.append(Send(to, message))

    def append(self, entry: Entry) -> None:
        """Append a leader's own entry."""
        self.log.append(entry)
        self.changes.take(entry)

    def merge(self, entries: tuple[Entry, ...]) -> None:
        """Take in a leader's entries."""
        changed = self.log.merge(entries)
        if changed is None:
            return
        self.changes.truncate(changed - 1)
        for entry in entries:
            if entry.index >= changed:
                self.changes.take(entry)

    def save(self, index: int, data: bytes) -> None:
        """Take over a snapshot of the applied state at `index`, and shorten the log."""
        term = self.log.term_at(index)
        if index <= self.snapshot.index or term is None:
            return  # Answered late: a leader's snapshot came first.
        time = self.log.entry_at(index).time
        self.snapshot = Snapshot(index, term, time, self.changes.at(index), data)
        self.snapshot_unsaved = True
        self.changes.compact(index)
        self.log.compact(max(self.log.base_index, index - self.config.snapshot_trailing))

    def install(self, snapshot: Snapshot) -> None:
        """Take over a leader's snapshot.

        Where the log has that very position, nothing that follows it is thrown away (§7, rule 6):
        it may be part of a majority already.
        """
        if self.log.term_at(snapshot.index) == snapshot.term:
            self.log.commit_to(snapshot.index)
            return
        self.log.restore(snapshot)
        self.changes.restore(snapshot)
        self.snapshot = snapshot
        self.snapshot_unsaved = self.restore_due = True
