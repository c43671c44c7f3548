"""Terms, votes and the timer of one replica: who may lead. Pure.

* *Pre-vote*: a replica asks first whether it could win, so that one that was cut off does not raise the term
  of those who were not (dissertation §9.6).
* *Quiet after a leader*: nobody helps to elect another one within `election_timeout_min` of hearing from a
  leader (§4.2.3). That keeps out removed replicas, and it is what a leader's lease rests on; a replica that
  restarts may have promised it just before, and keeps quiet, too.
* Term and vote are one record, durable before any message that follows from them.

Source: Ongaro & Ousterhout 2014, §5.2, §5.4.1; Ongaro's dissertation, 2014, §3.10, §4.2.3, §9.6.
"""

from __future__ import annotations

from random import Random

from cache.cluster.config.raft import RaftConfig
from cache.cluster.raft.log import Log
from cache.cluster.raft.messages import PreVote, ReplicaId, Vote
from cache.cluster.raft.outputs import HardState, Role


class Election:
    """Term, vote, role, leader, and when to campaign."""

    def __init__(self, config: RaftConfig, rng: Random, saved: HardState, now: float) -> None:
        self.term = saved.term
        self.vote = ReplicaId(saved.vote)
        self.role = Role.FOLLOWER
        self.leader: ReplicaId | None = None
        self.votes: dict[ReplicaId, bool] = {}
        """Answers in the present campaign."""
        self.heard_at = now
        """When a leader was last heard of; at a start this is not known, so: now."""
        self._config = config
        self._rng = rng
        self._saved = saved
        self.due_at = 0.0
        self.restart_timer(now)

    def take_hard_state(self) -> HardState | None:
        """Return term and vote if they are to be written."""
        state = HardState(self.term, self.vote)
        if state == self._saved:
            return None
        self._saved = state
        return state

    # -- time ------------------------------------------------------------------------------------

    def restart_timer(self, now: float) -> None:
        """Campaign after another random time, if nothing happens before."""
        config = self._config
        self.due_at = now + self._rng.uniform(
            config.election_timeout_min, config.election_timeout_max
        )

    def is_quiet(self, now: float) -> bool:
        """Return whether a leader may still be counting on this replica."""
        return now < self.heard_at + self._config.election_timeout_min

    # -- roles -----------------------------------------------------------------------------------

    def adopt_term(self, term: int, now: float) -> None:
        """Enter a later term as a follower that has not voted (§5.1)."""
        assert term > self.term, "terms only rise"
        self.term = term
        self.vote = ReplicaId("")
        self.follow(None, now)

    def follow(self, leader: ReplicaId | None, now: float) -> None:
        """Be a follower; the vote stays, for it belongs to the term."""
        if self.role is not Role.FOLLOWER or leader is None:
            self.restart_timer(now)
        self.role, self.leader, self.votes = Role.FOLLOWER, leader, {}

    def hear(self, now: float) -> None:
        """Note a sign of life of this term's leader."""
        self.heard_at = now
        self.restart_timer(now)

    def begin_pre_vote(self, me: ReplicaId, now: float) -> None:
        """Ask whether a campaign would be won; nothing durable changes."""
        self.role, self.leader = Role.PRE_CANDIDATE, None
        self.votes = {me: True}
        self.restart_timer(now)

    def begin_vote(self, me: ReplicaId, now: float) -> None:
        """Enter a new term as its candidate, with one's own vote."""
        self.term += 1
        self.vote = me
        self.role, self.leader = Role.CANDIDATE, None
        self.votes = {me: True}
        self.restart_timer(now)

    def win(self, me: ReplicaId) -> None:
        """Lead the present term."""
        assert self.role is Role.CANDIDATE, "only a candidate wins"
        self.role, self.leader = Role.LEADER, me

    # -- judging others --------------------------------------------------------------------------

    def ignores(self, request: Vote, now: float) -> bool:
        """Return whether a request is not even heard, term and all: a leader lives (§4.2.3)."""
        return not request.transfer and self.is_quiet(now)

    def would_grant(self, request: PreVote, log: Log, now: float) -> bool:
        """Return whether the sender could have this vote, in that later term."""
        return (
            request.term > self.term
            and not self.is_quiet(now)
            and log.is_up_to_date(request.last_index, request.last_term)
        )

    def grant(self, request: Vote, log: Log, now: float) -> bool:
        """Vote for the sender if it may be voted for; a repeated request gets the same answer."""
        assert request.term == self.term, "terms were compared before"
        free = self.vote in ("", request.sender)
        if not free or not log.is_up_to_date(request.last_index, request.last_term):
            return False
        self.vote = request.sender
        self.restart_timer(now)
        return True
