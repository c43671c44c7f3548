"""What a replica does with what its leader sends: entries, heartbeats, snapshots. Pure.

Source: Ongaro & Ousterhout 2014, §5.3 and Figure 2 (AppendEntries), §7 (InstallSnapshot).
"""

from __future__ import annotations

from cache.cluster.raft.messages import (
    Append,
    AppendReply,
    Chunk,
    ChunkReply,
    GroupId,
    Heartbeat,
    HeartbeatReply,
    ReplicaId,
)
from cache.cluster.raft.replica import Replica
from cache.cluster.raft.snapshots import Incoming


class Following:
    """Keeps one replica's log equal to its leader's. The caller has compared the terms."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._incoming = Incoming()

    def hear(self, message: Append | Heartbeat | Chunk) -> None:
        """Do what the leader asks, and answer."""
        match message:
            case Append():
                self._replica.send(message.sender, self._append(message))
            case Heartbeat():
                # The leader knows that entries up to here are equal, so this needs no comparison.
                self._replica.log.commit_to(min(message.commit, self._replica.log.last_index))
                reply = HeartbeatReply(*self._head(message.term), message.round)
                self._replica.send(message.sender, reply)
            case Chunk():
                self._replica.send(message.sender, self._take_chunk(message))

    def _head(self, term: int) -> tuple[GroupId, ReplicaId, int]:
        return self._replica.group, self._replica.me, term

    def _append(self, message: Append) -> AppendReply:
        """Take in entries. What is reported as held is only what this message proved to be equal."""
        log, head = self._replica.log, self._head(message.term)
        last = message.prev_index + len(message.entries)
        if last <= log.commit:
            return AppendReply(*head, True, log.commit)  # Committed, so every leader has it.
        entries, prev_index, prev_term = message.entries, message.prev_index, message.prev_term
        if prev_index < log.commit:
            entries = entries[log.commit - prev_index :]  # The rest is committed, and maybe gone.
        elif log.term_at(prev_index) != prev_term:
            return AppendReply(*head, False, prev_index, *log.find_conflict(prev_index, prev_term))
        self._replica.merge(entries)
        log.commit_to(min(message.commit, last))
        return AppendReply(*head, True, last)

    def _take_chunk(self, message: Chunk) -> AppendReply | ChunkReply:
        log, head = self._replica.log, self._head(message.term)
        if message.snapshot.index <= log.commit:
            return AppendReply(*head, True, log.commit)  # Entries were faster.
        held, snapshot = self._incoming.take(message)
        if snapshot is None:
            return ChunkReply(*head, message.snapshot.index, held)
        self._replica.install(snapshot)
        return AppendReply(*head, True, snapshot.index)
