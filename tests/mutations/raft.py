"""Planted mutations of Raft: each takes away one safeguard that one transcript guards."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from tests.mutations.catalogue import RAFT_CAMPAIGN, Mutation

ELECTION: Final = "cluster/raft/election.py"
VOTES: Final = "cluster/raft/campaign.py"
LEADERSHIP: Final = "cluster/raft/leadership.py"
CONSENSUS: Final = "cluster/raft/consensus.py"
LOG: Final = "cluster/raft/log.py"
FOLLOWING: Final = "cluster/raft/following.py"
PROGRESS: Final = "cluster/raft/progress.py"
READS: Final = "cluster/raft/reads.py"
CHANGES: Final = "cluster/raft/changes.py"
REPLICA: Final = "cluster/raft/replica.py"
SESSIONS: Final = "cluster/raft/sessions.py"
SNAPSHOTS: Final = "cluster/raft/snapshots.py"
CONFIG: Final = "cluster/config/raft.py"


def _of(transcript: str, name: str, file: str, old: str, new: str) -> Mutation:
    test = "tests/unit/cluster/raft/test_transcripts.py::test_transcript"
    return Mutation(f"raft: {name}", file, old, new, f"{test}[{transcript}]")


TRANSCRIPT_MUTATIONS: Final[tuple[Mutation, ...]] = (
    _of(
        "figure-8-old-term",
        "commit an entry of an old term by counting",
        LEADERSHIP,
        "or self._log.term_at(int(index)) != self.term:",
        "or self._log.term_at(int(index)) is None:",
    ),
    _of(
        "double-vote",
        "vote for whoever asks",
        ELECTION,
        'free = self.vote in ("", request.sender)',
        "free = True",
    ),
    _of(
        "double-vote-after-restart",
        "forget the vote in a restart",
        ELECTION,
        "self.vote = ReplicaId(saved.vote)",
        'self.vote = ReplicaId("")',
    ),
    _of(
        "vote-apart-from-term",
        "write the vote only with a new term",
        ELECTION,
        "if state == self._saved:",
        "if state.term == self._saved.term:",
    ),
    _of(
        "vote-before-disk",
        "answer before term and vote are on disk",
        CONSENSUS,
        "if leadership is not None and hard_state is None:",
        "if not isinstance(leadership, int):",
    ),
    _of(
        "append-before-disk",
        "acknowledge entries that are not on disk",
        CONSENSUS,
        "if leadership is not None and hard_state is None:",
        "if hard_state is None:",
    ),
    _of(
        "commit-ahead-of-the-disk",
        "count entries that the leader has not written",
        LEADERSHIP,
        "            return self._durable\n",
        "            return self._log.last_index\n",
    ),
    _of(
        "late-append",
        "truncate what a late message does not have",
        LOG,
        "            if self.term_at(entry.index) != entry.term:\n",
        "            if entry.index > self.commit:\n",
    ),
    _of(
        "duelling-candidates",
        "be a candidate without one's own vote",
        ELECTION,
        "        self.vote = me\n        self.role",
        '        self.vote = ReplicaId("")\n        self.role',
    ),
    _of(
        "split-vote-of-four",
        "take half of the voters for a majority",
        CHANGES,
        "return values[len(voters) // 2]",
        "return values[(len(voters) - 1) // 2]",
    ),
    _of(
        "half-of-six",
        "take one fewer than a majority for one",
        CHANGES,
        "return values[len(voters) // 2]",
        "return values[max(0, len(voters) // 2 - 1)]",
    ),
    _of(
        "candidate-hears-the-leader",
        "stay a candidate beside a leader",
        CONSENSUS,
        "            self._follow(message.sender, now)\n        self._election.hear",
        "            self._election.leader = message.sender\n        self._election.hear",
    ),
    _of(
        "deposed-leader",
        "stay leader in a later term",
        CONSENSUS,
        "        self._end_leadership(now)\n        self._election.adopt_term(term, now)",
        "        self._election.adopt_term(term, now)",
    ),
    _of(
        "unknown-is-not-refused",
        "report what a lost leadership leaves as not applied",
        CONSENSUS,
        "self._fail(request, Reason.LOST)",
        "self._fail(request, Reason.NOT_LEADER)",
    ),
    _of(
        "check-quorum",
        "lead on without a majority",
        CONSENSUS,
        "if now - heard_at >= self._replica.config.election_timeout_max:",
        "if heard_at < 0:",
    ),
    _of(
        "check-quorum-under-reads",
        "let reads put off heartbeats",
        LEADERSHIP,
        "self._begin_round()  # Not `heartbeat`: reads must not put off what is timed.",
        "self.heartbeat(now)",
    ),
    _of(
        "cut-off-replica-keeps-its-term",
        "campaign without a pre-vote",
        CONSENSUS,
        "            self._ask_first(now)\n",
        "            self._stand(now)\n",
    ),
    _of(
        "disruptive-server",
        "help to replace a leader that lives",
        ELECTION,
        "            and not self.is_quiet(now)\n",
        "",
    ),
    _of(
        "vote-asked-while-a-leader-lives",
        "hear a vote request while a leader lives",
        ELECTION,
        "return not request.transfer and self.is_quiet(now)",
        "return False",
    ),
    _of(
        "vote-for-a-shorter-log",
        "vote for a log that is behind",
        LOG,
        "return (last_term, last_index) >= (self.last_term, self.last_index)",
        "return last_term >= self.last_term",
    ),
    _of(
        "longer-is-not-later",
        "compare logs by length first",
        LOG,
        "return (last_term, last_index) >= (self.last_term, self.last_index)",
        "return (last_index, last_term) >= (self.last_index, self.last_term)",
    ),
    _of(
        "figure-7-repair",
        "append after a position that differs",
        FOLLOWING,
        "elif log.term_at(prev_index) != prev_term:",
        "elif log.term_at(prev_index) is None:",
    ),
    _of(
        "gap-is-refused",
        "never step back",
        PROGRESS,
        "elif reply.index == self.next - 1:",
        "elif reply.index == self.next:",
    ),
    _of(
        "heartbeat-commits-what-is-equal",
        "tell all followers the whole commit index",
        LEADERSHIP,
        "commit = min(progress.match, self._log.commit)",
        "commit = self._log.commit",
    ),
    _of(
        "commit-is-told-at-once",
        "tell of commits only by heartbeats",
        LEADERSHIP,
        "if not progress.inflight and progress.commit_sent < ",
        "if progress.commit_sent < 0 * ",
    ),
    _of(
        "late-ack-of-an-old-term",
        "count acknowledgements of an old term",
        CONSENSUS,
        "        if message.term < self._election.term:\n",
        "        if message.term < self._election.term and not isinstance(message, AppendReply):\n",
    ),
    _of(
        "stale-read-of-a-deposed-leader",
        "answer reads without a majority",
        READS,
        "answered = agreed(members, round_of) if self._waiting else 0",
        "answered = self.round",
    ),
    _of(
        "read-joins-no-earlier-round",
        "let a read join a round that began before",
        READS,
        "        self._new.append(read)\n",
        "        self._waiting.append((self.round, read))\n",
    ),
    _of(
        "read-before-the-first-commit",
        "read at the commit index of before the election",
        LEADERSHIP,
        "index = max(self._log.commit, self.first_index)",
        "index = self._log.commit",
    ),
    _of(
        "read-at-a-follower",
        "answer a follower's read before it applied enough",
        CONSENSUS,
        "ready = [read for read in self._readable if read[0] <= self._log.applied]",
        "ready = [read for read in self._readable if read[0] > 0]",
    ),
    _of(
        "lease-ends",
        "a lease without an end",
        READS,
        "return began_at is not None and now < began_at + self._lease_duration",
        "return began_at is not None",
    ),
    _of(
        "lease-and-drift",
        "a lease without regard to drift",
        CONFIG,
        "return self.election_timeout_min * (1 - drift) / (1 + drift)",
        "return self.election_timeout_min * (1 - 0 * drift)",
    ),
    _of(
        "lease-after-a-transfer",
        "keep the lease after asking somebody to campaign",
        LEADERSHIP,
        "            self.reads.lease_broken = True\n",
        "",
    ),
    _of(
        "restart-within-a-lease",
        "help a candidate right after a restart",
        ELECTION,
        'self.heard_at = now\n        """When',
        'self.heard_at = float("-inf")\n        """When',
    ),
    _of(
        "transfer",
        "keep quiet when a leader asks for its successor",
        ELECTION,
        "return not request.transfer and self.is_quiet(now)",
        "return self.is_quiet(now)",
    ),
    _of(
        "transfer-waits-for-the-log",
        "ask a follower that is behind to campaign",
        LEADERSHIP,
        "if target is not None and self._match_of(target) == self._log.last_index:",
        "if target is not None:",
    ),
    _of(
        "transfer-takes-no-proposals",
        "take proposals while leadership goes",
        LEADERSHIP,
        "            return Reason.TRANSFERRING\n        if self._log",
        "            pass\n        if self._log",
    ),
    _of(
        "transfer-to-a-learner",
        "hand leadership to a learner",
        LEADERSHIP,
        "        if target not in voters:\n",
        '        if target == "":\n',
    ),
    _of(
        "learner-does-not-count",
        "count learners",
        CHANGES,
        "else (members.voters,)",
        "else (members.voters + members.learners,)",
    ),
    _of(
        "learner-does-not-campaign",
        "let learners campaign",
        VOTES,
        "return any(is_voter(members, replica.me) for members in possible)",
        "return any(members.voters for members in possible)",
    ),
    _of(
        "removed-leader-is-needed",
        "let only voters by the latest members campaign",
        VOTES,
        "possible = replica.changes.since(replica.log.commit)",
        "possible = [replica.members]",
    ),
    _of(
        "removed-leader-needs-others",
        "count the vote of who is no voter",
        CHANGES,
        "granted = agreed(members, lambda voter: votes.get(ReplicaId(voter)) is True)",
        "granted = float(2 * sum(votes.values()) > len(members.voters))",
    ),
    _of(
        "lost-learner",
        "lose the learners of a joint change",
        CHANGES,
        "return Members(members.voters, (), members.learners)",
        "return Members(members.voters)",
    ),
    _of(
        "joint-needs-both",
        "let the new majority decide alone",
        CHANGES,
        "return (members.voters, members.outgoing) if",
        "return (members.voters,) if",
    ),
    _of(
        "joint-change-and-a-crash",
        "leave a change to the leader that began it",
        LEADERSHIP,
        "        if members.outgoing:\n            self._append",
        "        if members.outgoing and self._change_request[1]:\n            self._append",
    ),
    _of(
        "members-count-when-appended",
        "followers learn members only from snapshots",
        REPLICA,
        "            if entry.index >= changed:\n",
        "            if entry.index > self.log.last_index:\n",
    ),
    _of(
        "truncated-members",
        "keep members that were truncated",
        REPLICA,
        "        self.changes.truncate(changed - 1)\n",
        "",
    ),
    _of(
        "one-change-at-a-time",
        "begin a change during another one",
        LEADERSHIP,
        "under_way = members.outgoing or self._replica.changes.index > log.commit",
        "under_way = members.outgoing",
    ),
    _of(
        "change-by-a-new-leader",
        "let a new leader change members at once",
        LEADERSHIP,
        "if under_way or log.commit < self.first_index:",
        "if under_way:",
    ),
    _of(
        "voter-without-a-log",
        "make voters of replicas without the log",
        LEADERSHIP,
        "return progress is not None and progress.match + lag_max >= self._log.last_index",
        "return progress is None or progress.match + lag_max >= 0",
    ),
    _of(
        "removed-leader",
        "lead on after being removed",
        LEADERSHIP,
        "return committed and not is_voter(replica.members, replica.me)",
        "return False",
    ),
    _of(
        "removed-replica-is-told",
        "forget those that leave before they know",
        LEADERSHIP,
        "        self._followers.include(members, self._log.last_index, now)\n",
        "        self._followers.include(members, self._log.last_index, now)\n"
        "        self._followers.keep_only(members)\n",
    ),
    _of(
        "snapshot-catches-up",
        "add a repeated chunk twice",
        SNAPSHOTS,
        "if chunk.offset == len(self._parts):",
        "if chunk.offset >= 0:",
    ),
    _of(
        "lost-chunk",
        "send no chunk again",
        PROGRESS,
        "elif self.state is State.SNAPSHOT and late:",
        "elif self.state is State.SNAPSHOT and now < 0:",
    ),
    _of(
        "lost-probe",
        "send no probe again",
        PROGRESS,
        "        if self.state is State.PROBE:\n            self.waiting = False\n        elif",
        "        if",
    ),
    _of(
        "lost-append",
        "send nothing pipelined again",
        PROGRESS,
        "elif self.state is State.REPLICATE and self.inflight and late:",
        "elif self.state is State.REPLICATE and not self.inflight and late:",
    ),
    _of(
        "snapshot-overtaken",
        "install a snapshot of the past",
        FOLLOWING,
        "if message.snapshot.index <= log.commit:",
        "if message.snapshot.index < 0:",
    ),
    _of(
        "snapshot-keeps-what-follows",
        "throw away what follows a snapshot's position",
        REPLICA,
        "if self.log.term_at(snapshot.index) == snapshot.term:",
        "if snapshot.index < 0:",
    ),
    _of(
        "snapshot-made-twice",
        "wait for entries after an outdated snapshot",
        PROGRESS,
        "return self.match >= min(self.snapshot.index, log.base_index)",
        "return self.match >= log.base_index",
    ),
    _of(
        "restart-from-a-snapshot",
        "restart with an empty state",
        CONSENSUS,
        "self._replica.restore_due = snapshot.index > 0",
        "self._replica.restore_due = snapshot.index < 0",
    ),
    _of(
        "late-snapshot-members",
        "save a snapshot with later members",
        REPLICA,
        "self.changes.at(index), data)",
        "self.changes.current, data)",
    ),
    _of(
        "retry-takes-effect-once",
        "apply a repeated command",
        SESSIONS,
        "if entry.sequence in session.answers:",
        "if entry.sequence in ():",
    ),
    _of(
        "forward-with-all-fields",
        "forward without the number in the session",
        CONSENSUS,
        "            sequence=event.sequence,\n",
        "            sequence=event.request,\n",
    ),
    _of(
        "forward-repeated",
        "append a repeated message again",
        LEADERSHIP,
        "        if key in self._forwards:\n",
        "        if key in ():\n",
    ),
    _of(
        "window",
        "send without a window",
        LEADERSHIP,
        " and len(progress.inflight) < inflight_max:",
        " and inflight_max > 0:",
    ),
    _of(
        "batch",
        "one entry in a message",
        LOG,
        "            if chosen and size > bytes_max:\n",
        "            if chosen and size > 0:\n",
    ),
    _of(
        "pipeline",
        "wait for an answer to each message",
        LEADERSHIP,
        "            case State.REPLICATE:\n                self._pipeline(to, progress)",
        "            case State.REPLICATE if not progress.inflight:\n"
        "                self._pipeline(to, progress)",
    ),
    _of(
        "group-clock",
        "begin the group's clock anew",
        LEADERSHIP,
        "self._clock_base = replica.log.last_time",
        "self._clock_base = 0.0",
    ),
    _of(
        "overloaded-leader",
        "collect proposals without end",
        LEADERSHIP,
        "            return Reason.OVERLOADED\n",
        "            pass\n",
    ),
    _of(
        "no-leader",
        "hang when no leader is known",
        CONSENSUS,
        "        if leader is None:\n"
        "            return self._fail(event.request, Reason.NOT_LEADER)\n",
        "        if leader is None:\n            return None\n",
    ),
    _of(
        "compacted-on-the-way",
        "tell of a commit at a compacted position",
        LEADERSHIP,
        "not progress.inflight and progress.commit_sent < min(self._log.commit, progress.match):\n"
        "            # While entries are on their way, what follows their answer tells: more entries.\n"
        "            self._send(to, progress, self._append_from(progress.next))\n",
        "progress.commit_sent < min(self._log.commit, progress.match):\n"
        "            self._send(to, progress, self._append_from(progress.match + 1))\n",
    ),
    _of(
        "commit-travels-with-entries",
        "tell of each commit in a message of its own",
        LEADERSHIP,
        "if not progress.inflight and progress.commit_sent",
        "if progress.commit_sent",
    ),
    _of(
        "repeated-chunk-answers",
        "answer every answer to a chunk",
        PROGRESS,
        "if self.offset < offset <= len(self.snapshot.data):",
        "if offset <= len(self.snapshot.data):",
    ),
    _of(
        "forward-to-a-former-leader",
        "report a repeated command to a former leader as not applied",
        CONSENSUS,
        "reason: Reason | None = Reason.LOST",
        "reason: Reason | None = Reason.NOT_LEADER",
    ),
)

CAMPAIGN_SEEDS: Final[tuple[tuple[str, int], ...]] = (
    ("vote for whoever asks", 3),
    ("answer before term and vote are on disk", 74),
    ("acknowledge entries that are not on disk", 79),
    ("truncate what a late message does not have", 55),
    ("take half of the voters for a majority", 65),
    ("stay leader in a later term", 1),
    ("report what a lost leadership leaves as not applied", 1),
    ("vote for a log that is behind", 3),
    ("compare logs by length first", 320),
    ("append after a position that differs", 3),
    ("tell all followers the whole commit index", 1),
    ("answer reads without a majority", 34),
    ("read at the commit index of before the election", 5),
    ("answer a follower's read before it applied enough", 1),
    ("count learners", 48),
    ("restart with an empty state", 2),
    ("apply a repeated command", 1),
    ("append a repeated message again", 5),
)
"""Those that random faults find, too, with a seed that does."""

RAFT_MUTATIONS: Final = (
    *TRANSCRIPT_MUTATIONS,
    *(
        replace(mutation, name=f"{mutation.name} (campaign)", killer=RAFT_CAMPAIGN, first=seed)
        for name, seed in CAMPAIGN_SEEDS
        for mutation in TRANSCRIPT_MUTATIONS
        if mutation.name == f"raft: {name}"
    ),
)
