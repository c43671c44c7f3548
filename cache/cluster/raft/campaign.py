"""The messages of elections: asking for votes, giving them, counting them. Pure.

Source: Ongaro & Ousterhout 2014, §5.2; Ongaro's dissertation, 2014, §4.2.2, §9.6.
"""

from __future__ import annotations

from cache.cluster.raft.changes import Outcome, count, is_voter
from cache.cluster.raft.election import Election
from cache.cluster.raft.messages import PreVote, PreVoteReply, ReplicaId, Vote, VoteReply
from cache.cluster.raft.outputs import Role
from cache.cluster.raft.replica import Replica


class Campaign:
    """How one replica takes part in elections, as a candidate and as a voter."""

    def __init__(self, replica: Replica, election: Election) -> None:
        self._replica = replica
        self._election = election

    @property
    def votes(self) -> bool:
        """Whether this replica is a voter, by the members in force: learners and who was removed are not."""
        return is_voter(self._replica.members, self._replica.me)

    @property
    def may_stand(self) -> bool:
        """Whether this replica may campaign: as a voter, or until its removal is known to be committed.

        Who has not heard of that removal may need its vote, which its longer log refuses: so it has to lead
        the others there itself, although its own vote does not count (dissertation §4.2.2).
        """
        replica = self._replica
        possible = replica.changes.since(replica.log.commit)
        return any(is_voter(members, replica.me) for members in possible)

    # -- as a candidate --------------------------------------------------------------------------

    def ask_pre_votes(self, now: float) -> None:
        """Ask whether a vote would be won; nothing durable changes."""
        replica, log = self._replica, self._replica.log
        self._election.begin_pre_vote(replica.me, now)
        for voter in self._others():
            term = self._election.term + 1
            request = PreVote(replica.group, replica.me, term, log.last_index, log.last_term)
            replica.send(voter, request)

    def ask_votes(self, now: float, *, transfer: bool) -> None:
        """Enter a new term, and ask to lead it."""
        replica, log = self._replica, self._replica.log
        self._election.begin_vote(replica.me, now)
        for voter in self._others():
            term = self._election.term
            request = Vote(replica.group, replica.me, term, log.last_index, log.last_term, transfer)
            replica.send(voter, request)

    def _others(self) -> list[ReplicaId]:
        members = self._replica.members
        voters = dict.fromkeys((*members.voters, *members.outgoing))
        return [ReplicaId(voter) for voter in voters if voter != self._replica.me]

    def take(self, message: PreVoteReply | VoteReply) -> None:
        """Count an answer, if it belongs to the present campaign."""
        election = self._election
        match message:
            case PreVoteReply(granted=True):
                belongs = election.role is Role.PRE_CANDIDATE and message.term == election.term + 1
            case PreVoteReply():
                belongs = election.role is Role.PRE_CANDIDATE and message.term == election.term
            case VoteReply():
                belongs = election.role is Role.CANDIDATE and message.term == election.term
        if belongs:
            election.votes[message.sender] = message.granted

    def outcome(self) -> Outcome:
        """Return what the answers so far decide."""
        return count(self._replica.members, self._election.votes)

    # -- as a voter ------------------------------------------------------------------------------

    def answer_pre_vote(self, message: PreVote, now: float) -> None:
        """Say whether the sender would win a vote; if not, in which term it lags behind."""
        replica = self._replica
        granted = self._election.would_grant(message, replica.log, now)
        term = message.term if granted else self._election.term
        replica.send(message.sender, PreVoteReply(replica.group, replica.me, term, granted))

    def answer_vote(self, message: Vote, now: float) -> None:
        """Vote, or not; the answer goes out when the vote is durable."""
        replica = self._replica
        granted = self._election.grant(message, replica.log, now)
        reply = VoteReply(replica.group, replica.me, self._election.term, granted)
        replica.send(message.sender, reply)
