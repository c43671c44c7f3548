"""What a replica does while it leads: one object per leadership, gone when it ends. Pure.

Nothing of an old leadership can survive into a new one, because nothing is kept. Messages are made by
`flush`, once for all events of a turn: proposals that came together travel, and are written, together.

Source: Ongaro & Ousterhout 2014, §5.3, §5.4.2, §6, §8; dissertation §3.10, §4, §6.4, §10.2.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

import msgspec

from cache.cluster.raft.changes import agreed, is_voter, joint, settled
from cache.cluster.raft.messages import (
    Append,
    AppendReply,
    Chunk,
    ChunkReply,
    Entry,
    Forward,
    GroupId,
    Heartbeat,
    HeartbeatReply,
    Kind,
    Members,
    ReplicaId,
    TimeoutNow,
    encode,
)
from cache.cluster.raft.outputs import Reason
from cache.cluster.raft.progress import Followers, Progress, State
from cache.cluster.raft.reads import PendingRead, Reads
from cache.cluster.raft.replica import Replica

FORWARDS_KNOWN_MAX: Final = 4096
"""Forwarded proposals remembered, so that one that the network repeats is appended once. Commands that must
not take effect twice belong to a session."""


class Leadership:
    """The leader of one term."""

    def __init__(self, replica: Replica, term: int, now: float) -> None:
        self.term = term
        self.reads = Reads(replica.config.lease_duration)
        self.transfer_to: ReplicaId | None = None
        self.heartbeat_at = now
        self._replica = replica
        self._log = replica.log
        self._now = now
        self._began_at = now
        self._clock_base = replica.log.last_time
        self._durable = 0
        self._transfer_ends_at = 0.0
        self._farewell_ends_at: float | None = None
        """Until then, who left with the latest change is told that it is committed, so that it rests."""
        self._change_request: tuple[str, int] = ("", 0)
        self._forwards: OrderedDict[tuple[str, int], None] = OrderedDict()
        self._made: dict[int, Append] = {}
        """Messages of the present flush, by their first entry."""
        self._followers = Followers(replica.me)
        self._followers.include(replica.members, replica.log.last_index + 1, now)
        self.first_index = self.append(Entry(0, 0, kind=Kind.NOOP), now)
        """Of this term: once it is committed, so is everything before it (§8)."""

    # -- proposals -------------------------------------------------------------------------------

    def append(self, entry: Entry, now: float) -> int:
        """Give an entry its place, term and time; return its index."""
        place = self._log.last_index + 1
        time = self._clock_base + max(0.0, now - self._began_at)
        self._replica.append(msgspec.structs.replace(entry, index=place, term=self.term, time=time))
        return place

    def propose(self, entry: Entry, now: float) -> Reason | None:
        """Append a proposal, or say why not."""
        if self.transfer_to is not None:
            return Reason.TRANSFERRING
        if self._log.uncommitted_bytes + len(entry.data) > self._limit(entry):
            return Reason.OVERLOADED
        self.append(entry, now)
        return None

    def _limit(self, entry: Entry) -> int:
        """Return the bytes that may be uncommitted; a single entry may be larger than that."""
        return max(self._replica.config.uncommitted_bytes_max, len(entry.data))

    def propose_forwarded(self, message: Forward, now: float) -> Reason | None:
        """Append a follower's proposal. One seen before gets no second answer, whatever the first was."""
        key = (message.entry.origin, message.entry.request)
        if key in self._forwards:
            return None
        self._forwards[key] = None
        if len(self._forwards) > FORWARDS_KNOWN_MAX:
            self._forwards.popitem(last=False)
        if message.entry.kind in (Kind.NOOP, Kind.MEMBERS):
            return Reason.BAD_MEMBERS
        return self.propose(message.entry, now)

    # -- members ---------------------------------------------------------------------------------

    def change(
        self, request: int, voters: tuple[str, ...], learners: tuple[str, ...], now: float
    ) -> Reason | None:
        """Begin a change of members, or say why not."""
        members, log = self._replica.members, self._log
        under_way = members.outgoing or self._replica.changes.index > log.commit
        if under_way or log.commit < self.first_index:
            return Reason.CHANGING
        named = (*voters, *learners)
        added = [voter for voter in voters if voter not in members.voters]
        if not voters or len(set(named)) < len(named) or not all(map(self._is_ready, added)):
            return Reason.BAD_MEMBERS
        if self.transfer_to is not None:
            return Reason.TRANSFERRING
        step = joint(members, voters, learners)
        self._change_request = (self._replica.me, request)
        self._append_members(step, now, last=not step.outgoing)
        return None

    def _is_ready(self, replica: str) -> bool:
        """Return whether a replica may vote: one without the log would only stand in the way."""
        progress = self._followers.get(replica)
        lag_max = self._replica.config.promotion_lag_max
        return progress is not None and progress.match + lag_max >= self._log.last_index

    def _append_members(self, members: Members, now: float, *, last: bool) -> None:
        origin, request = self._change_request if last else ("", 0)
        entry = Entry(0, 0, kind=Kind.MEMBERS, data=encode(members), origin=origin, request=request)
        self.append(entry, now)
        self._followers.include(members, self._log.last_index, now)

    def _members_committed(self) -> None:
        """Go on with a change, whoever began it: the second step follows the first by itself."""
        members = self._replica.members
        if self._replica.changes.index > self._log.commit:
            return
        if members.outgoing:
            self._append_members(settled(members), self._now, last=True)
        else:
            self._farewell_ends_at = self._now + self._replica.config.election_timeout_max

    def _forget_who_left(self) -> None:
        ends_at, committed = self._farewell_ends_at, self._replica.changes.index <= self._log.commit
        if ends_at is not None and self._now >= ends_at and committed:
            self._followers.keep_only(self._replica.members)
            self._farewell_ends_at = None

    @property
    def is_removed(self) -> bool:
        """Whether this leader is no voter any more, by committed members: it has to go (§6)."""
        replica = self._replica
        committed = replica.changes.index <= self._log.commit
        return committed and not is_voter(replica.members, replica.me)

    # -- answers of followers --------------------------------------------------------------------

    def on_reply(
        self, message: AppendReply | HeartbeatReply | ChunkReply, now: float
    ) -> list[PendingRead]:
        """Take in what a follower says; return the reads that may be answered now."""
        progress = self._followers.get(message.sender)
        if progress is None:
            return []
        progress.heard_at = self._now = now
        match message:
            case AppendReply(accepted=True):
                if message.index <= self._log.last_index:
                    progress.accept(message.index, self._log, now)
                    self.advance()
                    self._continue_transfer()
            case AppendReply():
                progress.refuse(message, self._log)
            case ChunkReply():
                progress.chunk_arrived(message.index, message.offset, now)
            case HeartbeatReply():
                patience = self._replica.config.election_timeout_min
                progress.answered_heartbeat(min(message.round, self.reads.round), now, patience)
                return self.reads.take_confirmed(self._replica.members, self._round_of)
        return []

    def wrote(self) -> bool:
        """Count this leader's own log, which is durable before what comes after; return `advance`."""
        self._durable = self._log.stable
        return self.advance()

    def advance(self) -> bool:
        """Commit what a majority holds, and return whether there was any.

        Only an entry of this term commits by counting; older ones come with it (§5.4.2, Figure 8).
        """
        index = agreed(self._replica.members, self._match_of)
        if index <= self._log.commit or self._log.term_at(int(index)) != self.term:
            return False
        self._log.commit_to(int(index))
        self._members_committed()
        return True

    def _match_of(self, replica: str) -> int:
        if replica == self._replica.me:
            return self._durable
        progress = self._followers.get(replica)
        return 0 if progress is None else progress.match

    def lag(self) -> dict[str, int]:
        """Return how many entries of the log each other replica is not known to hold, by replica."""
        last = self._log.last_index
        return {replica: last - progress.match for replica, progress in self._followers}

    def _round_of(self, replica: str) -> int:
        if replica == self._replica.me:
            return self.reads.round
        progress = self._followers.get(replica)
        return 0 if progress is None else progress.round

    # -- reads -----------------------------------------------------------------------------------

    def read(self, origin: ReplicaId, request: int, now: float, *, lease: bool) -> int | None:
        """Return the index that has to be applied, or None: the read waits for a round.

        All that former leaders acknowledged lies below this leader's first entry.
        """
        index = max(self._log.commit, self.first_index)
        if lease and self.reads.has_lease(self._replica.members, self._round_of, now):
            return index
        self.reads.add(PendingRead(index, origin, request))
        return None

    # -- leaving ---------------------------------------------------------------------------------

    def transfer(self, target: ReplicaId | None, now: float) -> None:
        """Stop taking proposals, bring a voter up to date, and ask it to campaign (§3.10)."""
        voters = [v for v in self._replica.members.voters if v != self._replica.me]
        if target is None:
            target = ReplicaId(max(voters, key=lambda v: (self._match_of(v), v), default=""))
        if target not in voters:
            return
        self.transfer_to = target
        self._transfer_ends_at = now + self._replica.config.election_timeout_max
        self._continue_transfer()

    def _continue_transfer(self) -> None:
        target = self.transfer_to
        if target is not None and self._match_of(target) == self._log.last_index:
            self.reads.lease_broken = True
            self._replica.send(target, TimeoutNow(*self._head))

    # -- time ------------------------------------------------------------------------------------

    def heard_at(self, now: float) -> float:
        """Return when a majority of voters had been heard of, as far back as that is."""

        def last_heard(replica: str) -> float:
            progress = self._followers.get(replica)
            return now if progress is None else progress.heard_at

        return agreed(self._replica.members, last_heard)

    def heartbeat(self, now: float) -> None:
        """Tell everybody that this leader lives; give up a transfer that takes too long."""
        config = self._replica.config
        self._now = now
        self.heartbeat_at = now + config.heartbeat_interval
        if self.transfer_to is not None and now >= self._transfer_ends_at:
            self.transfer_to = None
        self._continue_transfer()
        self._forget_who_left()
        self._begin_round()

    def _begin_round(self) -> None:
        round_ = self.reads.begin_round(self._now)
        for replica, progress in self._followers:
            commit = min(progress.match, self._log.commit)
            self._replica.send(replica, Heartbeat(*self._head, commit, round_))

    # -- sending ---------------------------------------------------------------------------------

    @property
    def _head(self) -> tuple[GroupId, ReplicaId, int]:
        return self._replica.group, self._replica.me, self.term

    def flush(self, now: float) -> list[PendingRead]:
        """Make the messages that are due; return the reads that need none, in a group of one."""
        self._now = now
        if self.reads.round_wanted:
            self._begin_round()  # Not `heartbeat`: reads must not put off what is timed.
        self._made.clear()
        for replica, progress in self._followers:
            self._send_entries(replica, progress)
        return self.reads.take_confirmed(self._replica.members, self._round_of)

    def _send_entries(self, to: ReplicaId, progress: Progress) -> None:
        if progress.state is not State.SNAPSHOT and progress.next <= self._log.base_index:
            progress.send_snapshot(self._replica.snapshot, self._now)
        match progress.state:
            case State.SNAPSHOT:
                self._send_chunk(to, progress)
            case State.PROBE:
                if not progress.waiting:
                    progress.waiting = True
                    self._send(to, progress, self._append_from(progress.next))
            case State.REPLICATE:
                self._pipeline(to, progress)

    def _pipeline(self, to: ReplicaId, progress: Progress) -> None:
        inflight_max = self._replica.config.inflight_max
        while progress.next <= self._log.last_index and len(progress.inflight) < inflight_max:
            message = self._append_from(progress.next)
            progress.sent(message.entries[-1].index, self._now)
            self._send(to, progress, message)
        if not progress.inflight and progress.commit_sent < min(self._log.commit, progress.match):
            # While entries are on their way, what follows their answer tells: more entries.
            self._send(to, progress, self._append_from(progress.next))

    def _append_from(self, start: int) -> Append:
        """Return one message for all that are equally far: it is encoded once."""
        made = self._made.get(start)
        if made is None:
            prev_term = self._log.term_at(start - 1)
            assert prev_term is not None, "the entry before is known, or a snapshot is sent"
            entries = self._log.slice(start, self._replica.config.append_bytes_max)
            made = Append(*self._head, start - 1, prev_term, self._log.commit, entries)
            self._made[start] = made
        return made

    def _send(self, to: ReplicaId, progress: Progress, message: Append) -> None:
        known = message.prev_index + len(message.entries)
        progress.commit_sent = max(progress.commit_sent, min(message.commit, known))
        self._replica.send(to, message)

    def _send_chunk(self, to: ReplicaId, progress: Progress) -> None:
        snapshot = progress.snapshot
        if progress.waiting or snapshot is None:
            return
        progress.waiting = True
        end = progress.offset + self._replica.config.snapshot_chunk_bytes
        part, size = snapshot.data[progress.offset : end], len(snapshot.data)
        bare = msgspec.structs.replace(snapshot, data=b"")
        self._replica.send(to, Chunk(*self._head, bare, size, progress.offset, part))
