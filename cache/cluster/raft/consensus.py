"""One replica of one Raft group, as a machine: messages, requests and time in, outputs out. Pure.

This module is the frame: it compares terms, changes roles, and puts the outputs in order. The protocols are
in `election` and `campaign` (who leads), `leadership` (what a leader does), `following` (what the others
do), `changes` (who takes part), `reads` and `log`. A machine knows only what it was given at its start, which
is what storage had; everything else it learns from its leader.

The order of outputs is the promise. `Persist` comes before everything that rests on what it makes durable.
Only what a leader sends to its followers goes out before it, while it is being written (dissertation
§10.2.1): a leader counts its own log after that, and its term was durable when it became one.
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Final

from cache.cluster.config.raft import RaftConfig
from cache.cluster.raft.campaign import Campaign
from cache.cluster.raft.changes import Changes, Outcome
from cache.cluster.raft.election import Election
from cache.cluster.raft.following import Following
from cache.cluster.raft.leadership import Leadership
from cache.cluster.raft.log import Log
from cache.cluster.raft.messages import (
    AnyMessage,
    Append,
    AppendReply,
    Chunk,
    ChunkReply,
    Entry,
    Forward,
    ForwardRefused,
    GroupId,
    Heartbeat,
    HeartbeatReply,
    PreVote,
    PreVoteReply,
    ReadIndex,
    ReadIndexReply,
    ReplicaId,
    TimeoutNow,
    Vote,
    VoteReply,
)
from cache.cluster.raft.outputs import (
    Apply,
    Cancel,
    ChangeMembers,
    Event,
    Failed,
    HardState,
    MakeSnapshot,
    Output,
    Persist,
    Persisted,
    Propose,
    Read,
    ReadReady,
    Reason,
    Received,
    Restore,
    Role,
    RoleChanged,
    SnapshotMade,
    Transfer,
)
from cache.cluster.raft.reads import PendingRead
from cache.cluster.raft.replica import Replica
from cache.cluster.raft.status import Status
from cache.cluster.raft.waiting import Waiting

NOTHING: Final = Persist()


class Consensus:
    """The machine. Its shell is to carry out the outputs in order, and to stop it when it cannot."""

    def __init__(
        self,
        group: GroupId,
        me: ReplicaId,
        config: RaftConfig,
        persisted: Persisted,
        *,
        rng: Random,
        now: float,
    ) -> None:
        snapshot = persisted.snapshot
        self._replica = Replica(
            group, me, config, Log(snapshot, persisted.entries), Changes(snapshot), snapshot
        )
        for entry in persisted.entries:
            if entry.index > snapshot.index:
                self._replica.changes.take(entry)
        self._replica.restore_due = snapshot.index > 0
        self._log = self._replica.log
        self._election = Election(config, rng, persisted.hard_state, now)
        self._campaign = Campaign(self._replica, self._election)
        self._following = Following(self._replica)
        self._leadership: Leadership | None = None
        self._proposals = Waiting(rng, config.waiting_max)
        self._reads = Waiting(rng, config.waiting_max)
        self._readable: list[tuple[int, int]] = []
        """(index, request): reads to be answered once that index is applied."""
        self._results: list[ReadReady | Failed] = []
        self._snapshot_asked_at = snapshot.index
        self._now = now
        self._told = self._role_now()

    # -- machine contract ------------------------------------------------------------------------

    def handle(self, event: Event, now: float) -> None:
        """Apply one event."""
        self._now = now
        match event:
            case Received(message):
                self._on_message(message, now)
            case Propose():
                self._on_propose(event, now)
            case Read(request=request, lease=lease):
                self._on_read(request, now, lease=lease)
            case ChangeMembers():
                self._on_change(event, now)
            case Transfer(target):
                if self._leadership is not None:
                    self._leadership.transfer(target, now)
            case SnapshotMade(index, data):
                self._replica.save(index, data)
            case Cancel(request):
                self._proposals.cancel(request)
                self._reads.cancel(request)
                self._readable = [read for read in self._readable if read[1] != request]

    def tick(self, now: float) -> None:
        """Send heartbeats, or campaign, when it is time."""
        self._now = now
        if self._leadership is not None:
            if now >= self._leadership.heartbeat_at:
                self._lead_on(self._leadership, now)
        elif self._campaign.may_stand and now >= self._election.due_at:
            self._ask_first(now)

    def next_deadline(self) -> float | None:
        """Return the instant of the next heartbeat or campaign; None for who may not stand."""
        if self._leadership is not None:
            return self._leadership.heartbeat_at
        return self._election.due_at if self._campaign.may_stand else None

    def take_outputs(self) -> list[Output]:
        """Return what is to be done, in order."""
        outputs: list[Output] = []
        self._collect(outputs)
        while self._log.stable < self._log.last_index:  # Committing a change appended another.
            self._collect(outputs)
        role = self._role_now()
        if role != self._told:
            self._told = role
            outputs.append(role)
        return outputs

    def _role_now(self) -> RoleChanged:
        election = self._election
        return RoleChanged(election.role, election.term, election.leader, self._campaign.votes)

    @property
    def role(self) -> Role:
        """What this replica is at present."""
        return self._election.role

    @property
    def term(self) -> int:
        """The latest term that this replica heard of."""
        return self._election.term

    @property
    def leader(self) -> ReplicaId | None:
        """Who leads the present term, if that is known."""
        return self._election.leader

    def status(self) -> Status:
        """Return a replica's state, for its operator."""
        replica, log, election = self._replica, self._log, self._election
        return Status(
            group=replica.group,
            replica=replica.me,
            role=election.role,
            term=election.term,
            leader=election.leader,
            members=replica.members,
            commit=log.commit,
            applied=log.applied,
            first_index=log.first_index,
            last_index=log.last_index,
            snapshot_index=replica.snapshot.index,
            lag={} if self._leadership is None else self._leadership.lag(),
        )

    # -- outputs in order ------------------------------------------------------------------------

    def _collect(self, outputs: list[Output]) -> None:
        leadership = self._leadership
        if leadership is not None:
            self._confirm(leadership.flush(self._now))
        hard_state = self._election.take_hard_state()
        if leadership is not None and hard_state is None:
            self._take_sends(outputs)
        persist = self._take_persist(hard_state)
        if persist != NOTHING:
            outputs.append(persist)
        if leadership is not None and leadership.wrote():
            self._confirm(leadership.flush(self._now))
        self._take_sends(outputs)
        self._take_applied(outputs)
        if leadership is not None and leadership is self._leadership and leadership.is_removed:
            leadership.transfer(None, self._now)  # Somebody who stays goes on at once.
            self._follow(None, self._now)
            self._take_sends(outputs)
        outputs += self._results
        self._results = []

    def _take_sends(self, outputs: list[Output]) -> None:
        outputs += self._replica.outbox
        self._replica.outbox.clear()

    def _take_persist(self, hard_state: HardState | None) -> Persist:
        below, above, entries = self._log.take_unstable()
        snapshot = self._replica.snapshot if self._replica.snapshot_unsaved else None
        self._replica.snapshot_unsaved = False
        return Persist(
            hard_state=hard_state,
            snapshot=snapshot,
            delete_below=below,
            delete_above=above,
            entries=entries,
        )

    def _take_applied(self, outputs: list[Output]) -> None:
        if self._replica.restore_due:
            self._replica.restore_due = False
            outputs.append(Restore(self._replica.snapshot))
        if entries := self._log.take_committed():
            outputs.append(Apply(entries, self._requests_of(entries)))
        if self._readable:
            ready = [read for read in self._readable if read[0] <= self._log.applied]
            self._readable = [read for read in self._readable if read[0] > self._log.applied]
            outputs += [ReadReady(request) for _, request in ready]
        applied, interval = self._log.applied, self._replica.config.snapshot_interval
        if applied - max(self._snapshot_asked_at, self._replica.snapshot.index) >= interval:
            self._snapshot_asked_at = applied
            outputs.append(MakeSnapshot(applied))

    def _requests_of(self, entries: tuple[Entry, ...]) -> Mapping[int, int]:
        requests: dict[int, int] = {}
        for entry in entries:
            if entry.origin == self._replica.me:
                request = self._proposals.take(entry.request)
                if request is not None:
                    requests[entry.index] = request
        return requests

    # -- requests of this replica ----------------------------------------------------------------

    def _on_propose(self, event: Propose, now: float) -> None:
        leader = self._election.leader
        if leader is None:
            return self._fail(event.request, Reason.NOT_LEADER)
        name = self._proposals.add(event.request)
        if name is None:
            return self._fail(event.request, Reason.OVERLOADED)
        entry = Entry(
            index=0,
            term=0,
            kind=event.kind,
            data=event.data,
            session=event.session,
            sequence=event.sequence,
            answered=event.answered,
            origin=self._replica.me,
            request=name,
        )
        if self._leadership is None:
            self._replica.send(leader, Forward(*self._head, entry))
        elif reason := self._leadership.propose(entry, now):
            self._proposals.cancel(event.request)
            self._fail(event.request, reason)
        return None

    def _on_change(self, event: ChangeMembers, now: float) -> None:
        if self._leadership is None:
            return self._fail(event.request, Reason.NOT_LEADER)
        name = self._proposals.add(event.request)
        if name is None:
            return self._fail(event.request, Reason.OVERLOADED)
        if reason := self._leadership.change(name, event.voters, event.learners, now):
            self._proposals.cancel(event.request)
            self._fail(event.request, reason)
        return None

    def _on_read(self, request: int, now: float, *, lease: bool) -> None:
        leader = self._election.leader
        if leader is None:
            return self._fail(request, Reason.NOT_LEADER)
        if len(self._readable) >= self._replica.config.waiting_max:
            return self._fail(request, Reason.OVERLOADED)
        name = self._reads.add(request)
        if name is None:
            return self._fail(request, Reason.OVERLOADED)
        if self._leadership is None:
            self._replica.send(leader, ReadIndex(*self._head, name, lease))
        else:
            self._serve_read(self._leadership, self._replica.me, name, now, lease=lease)
        return None

    def _fail(self, request: int, reason: Reason) -> None:
        self._results.append(Failed(request, reason, self._election.leader))

    # -- reads -----------------------------------------------------------------------------------

    def _serve_read(
        self, leadership: Leadership, origin: ReplicaId, name: int, now: float, *, lease: bool
    ) -> None:
        index = leadership.read(origin, name, now, lease=lease)
        if index is not None:
            self._confirm([PendingRead(index, origin, name)])

    def _confirm(self, reads: list[PendingRead]) -> None:
        for read in reads:
            if read.origin == self._replica.me:
                self._await_applied(read.request, read.index)
            else:
                reply = ReadIndexReply(*self._head, read.request, read.index)
                self._replica.send(read.origin, reply)

    def _await_applied(self, name: int, index: int) -> None:
        request = self._reads.take(name)
        if request is not None:
            self._readable.append((index, request))

    # -- messages --------------------------------------------------------------------------------

    @property
    def _head(self) -> tuple[GroupId, ReplicaId, int]:
        return self._replica.group, self._replica.me, self._election.term

    def _on_message(self, message: AnyMessage, now: float) -> None:
        """Compare terms first (§5.1); what is left belongs to the present one."""
        if message.group != self._replica.group or message.sender == self._replica.me:
            return None
        match message:
            case PreVote():
                return self._campaign.answer_pre_vote(message, now)
            case PreVoteReply(granted=True):
                return self._count(message, now)
            case Vote() if self._election.ignores(message, now):
                return None
        if message.term < self._election.term:
            return self._answer_stale(message)
        if message.term > self._election.term:
            self._leave_term(message.term, now)
        self._on_current(message, now)
        return None

    def _answer_stale(self, message: AnyMessage) -> None:
        """Tell whoever leads or campaigns in a term that is over; the rest is without meaning."""
        match message:
            case Vote():
                self._replica.send(message.sender, VoteReply(*self._head, False))
            case Append() | Heartbeat() | Chunk():
                self._replica.send(message.sender, AppendReply(*self._head, False, 0))
            case _:
                pass

    def _on_current(self, message: AnyMessage, now: float) -> None:
        match message:
            case Append() | Heartbeat() | Chunk():
                self._hear_leader(message, now)
            case AppendReply() | HeartbeatReply() | ChunkReply():
                if self._leadership is not None:
                    self._confirm(self._leadership.on_reply(message, now))
            case Vote():
                self._campaign.answer_vote(message, now)
            case VoteReply() | PreVoteReply():
                self._count(message, now)
            case TimeoutNow():
                if message.sender == self._election.leader and self._campaign.votes:
                    self._stand(now, transfer=True)
            case Forward():
                self._on_forward(message, now)
            case ForwardRefused():
                request = self._proposals.take(message.request)
                if request is not None:
                    self._fail(request, Reason(message.reason))
            case ReadIndex():
                self._on_read_index(message, now)
            case ReadIndexReply():
                self._on_read_index_reply(message)
            case PreVote():
                raise AssertionError("answered before terms are compared")

    def _hear_leader(self, message: Append | Heartbeat | Chunk, now: float) -> None:
        if self._leadership is not None:
            return  # Two leaders in one term cannot be; whoever claims it is not believed.
        if self._election.leader != message.sender:
            self._follow(message.sender, now)
        self._election.hear(now)
        self._following.hear(message)

    def _on_forward(self, message: Forward, now: float) -> None:
        # It was sent to the leader of this term, which this replica was, even if it restarted since. So a
        # copy of it may have been appended before: nobody may be told that it was not.
        reason: Reason | None = Reason.LOST
        if self._leadership is not None:
            reason = self._leadership.propose_forwarded(message, now)
        if reason is not None:
            reply = ForwardRefused(*self._head, message.entry.request, reason)
            self._replica.send(message.sender, reply)

    def _on_read_index(self, message: ReadIndex, now: float) -> None:
        leadership = self._leadership
        if leadership is None or len(leadership.reads) >= self._replica.config.waiting_max:
            reply = ReadIndexReply(*self._head, message.request, 0, refused=True)
            self._replica.send(message.sender, reply)
        else:
            self._serve_read(leadership, message.sender, message.request, now, lease=message.lease)

    def _on_read_index_reply(self, message: ReadIndexReply) -> None:
        if not message.refused:
            self._await_applied(message.request, message.index)
        elif (request := self._reads.take(message.request)) is not None:
            self._fail(request, Reason.NOT_LEADER)

    # -- roles -----------------------------------------------------------------------------------

    def _leave_term(self, term: int, now: float) -> None:
        self._end_leadership(now)
        self._election.adopt_term(term, now)

    def _follow(self, leader: ReplicaId | None, now: float) -> None:
        self._end_leadership(now)
        self._election.follow(leader, now)

    def _end_leadership(self, now: float) -> None:
        """Give up what was asked of the leader that was: whether it will be committed is unknown."""
        if self._leadership is not None:
            self._election.heard_at = self._leadership.heard_at(now)
        self._leadership = None
        self._election.leader = None
        for request in self._proposals.take_all():
            self._fail(request, Reason.LOST)
        for request in self._reads.take_all():
            self._fail(request, Reason.NOT_LEADER)

    def _lead_on(self, leadership: Leadership, now: float) -> None:
        """Send heartbeats, unless a majority is silent: then somebody else may lead (§6.2)."""
        heard_at = leadership.heard_at(now)
        self._election.heard_at = heard_at
        if now - heard_at >= self._replica.config.election_timeout_max:
            self._follow(None, now)
        else:
            leadership.heartbeat(now)

    def _ask_first(self, now: float) -> None:
        self._end_leadership(now)
        self._campaign.ask_pre_votes(now)
        self._decide(now)

    def _stand(self, now: float, *, transfer: bool = False) -> None:
        self._end_leadership(now)
        self._campaign.ask_votes(now, transfer=transfer)
        self._decide(now)

    def _count(self, message: PreVoteReply | VoteReply, now: float) -> None:
        self._campaign.take(message)
        self._decide(now)

    def _decide(self, now: float) -> None:
        """Go on when the answers decide the campaign, if there is one."""
        role, outcome = self._election.role, self._campaign.outcome()
        if role not in (Role.PRE_CANDIDATE, Role.CANDIDATE) or outcome is Outcome.OPEN:
            return
        if outcome is Outcome.LOST:
            self._election.follow(None, now)
        elif role is Role.PRE_CANDIDATE:
            self._stand(now)
        else:
            self._election.win(self._replica.me)
            self._leadership = Leadership(self._replica, self._election.term, now)
            self._leadership.heartbeat(now)
