"""How far one follower is, as its leader knows it, and what may be sent to it. Pure.

    PROBE      where the logs part is unknown: one message at a time, until one is accepted
    REPLICATE  they are equal up to `match`: messages follow each other without waiting, `inflight` of them
    SNAPSHOT   what the follower needs was compacted away: a snapshot goes out, chunk by chunk

A follower that is heard of but accepts nothing for a while lost a message: the leader probes again.

Source: Ongaro's dissertation, 2014, §10.2.1 (pipelining); the three states are those of etcd's raft.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

from cache.cluster.raft.changes import everyone
from cache.cluster.raft.log import Log
from cache.cluster.raft.messages import AppendReply, Members, ReplicaId, Snapshot


class State(Enum):
    """What the leader may send."""

    PROBE = "probe"
    REPLICATE = "replicate"
    SNAPSHOT = "snapshot"


@dataclass(slots=True)
class Progress:
    """One follower."""

    next: int
    """Index of the entry to send next."""
    heard_at: float
    """When anything of this term came from it; the leader needs a majority of these."""
    acked_at: float
    """When it last accepted something, or was first sent something to accept."""
    match: int = 0
    """Its log is durable, and equal to the leader's, up to here."""
    round: int = 0
    """The latest heartbeat round that it answered."""
    commit_sent: int = 0
    state: State = State.PROBE
    waiting: bool = False
    """A probe or a chunk is on its way."""
    inflight: deque[int] = field(default_factory=deque)
    """Index of the last entry of each message on its way."""
    snapshot: Snapshot | None = None
    """The one that goes out, even if a later one was made meanwhile."""
    offset: int = 0
    """Bytes of it that arrived."""

    def probe(self) -> None:
        """Find out anew where the logs part, beginning at what is certain."""
        self.state, self.waiting, self.snapshot = State.PROBE, False, None
        self.next = self.match + 1
        self.inflight.clear()

    def send_snapshot(self, snapshot: Snapshot, now: float) -> None:
        """Begin to send a snapshot."""
        self.state, self.waiting = State.SNAPSHOT, False
        self.snapshot, self.offset, self.acked_at = snapshot, 0, now
        self.inflight.clear()

    def sent(self, last: int, now: float) -> None:
        """Note that entries up to `last` are on their way."""
        if not self.inflight:
            self.acked_at = now
        self.inflight.append(last)
        self.next = last + 1

    def accept(self, index: int, log: Log, now: float) -> bool:
        """Note that the follower's log is equal up to `index`; return whether that is news."""
        news = index > self.match
        self.match = max(self.match, index)
        self.next = max(self.next, self.match + 1)
        self.acked_at = now
        while self.inflight and self.inflight[0] <= self.match:
            self.inflight.popleft()
        if self.state is State.PROBE or self._is_past_snapshot(log):
            self.probe()
            self.state = State.REPLICATE
        return news

    def _is_past_snapshot(self, log: Log) -> bool:
        """Return whether entries can follow; after a snapshot that took long, a newer one may have to."""
        if self.snapshot is None:
            return False
        return self.match >= min(self.snapshot.index, log.base_index)

    def refuse(self, reply: AppendReply, log: Log) -> None:
        """Step back: the follower has no such entry; late refusals say nothing."""
        if reply.index <= self.match or self.state is State.SNAPSHOT:
            return
        if self.state is State.REPLICATE:
            self.probe()
        elif reply.index == self.next - 1:
            common, _ = log.find_conflict(reply.hint_index, reply.hint_term)
            self.next = max(self.match + 1, min(reply.index, common + 1))
            self.waiting = False

    def chunk_arrived(self, index: int, offset: int, now: float) -> None:
        """Go on with the snapshot after `offset` bytes.

        Only once for each: were every answer answered by a chunk, those that the network repeats would
        multiply for ever.
        """
        if self.snapshot is None or self.snapshot.index != index:
            return
        if self.offset < offset <= len(self.snapshot.data):
            self.offset = offset
            self.acked_at = now
            self.waiting = False

    def answered_heartbeat(self, round_: int, now: float, patience: float) -> None:
        """Note an answer, and send again what seems to be lost."""
        self.round = max(self.round, round_)
        late = now - self.acked_at >= patience
        if self.state is State.PROBE:
            self.waiting = False
        elif self.state is State.SNAPSHOT and late:
            self.waiting = False
            self.offset = 0  # The follower says how much of it it has.
            self.acked_at = now
        elif self.state is State.REPLICATE and self.inflight and late:
            self.probe()


class Followers:
    """The progress of every replica but the leader."""

    def __init__(self, me: ReplicaId) -> None:
        self._me = me
        self._all: dict[ReplicaId, Progress] = {}

    def __iter__(self) -> Iterator[tuple[ReplicaId, Progress]]:
        return iter(tuple(self._all.items()))

    def get(self, replica: str) -> Progress | None:
        """Return the progress of a follower, or None for who is none."""
        return self._all.get(ReplicaId(replica))

    def include(self, members: Members, next_index: int, now: float) -> None:
        """Take in new members. Those that left are kept until `keep_only`: they should learn of it."""
        for replica in everyone(members):
            if replica != self._me and replica not in self._all:
                self._all[replica] = Progress(next_index, now, now)

    def keep_only(self, members: Members) -> None:
        """Forget those that are no members."""
        named = everyone(members)
        self._all = {replica: one for replica, one in self._all.items() if replica in named}
