"""One machine, stepped by hand: what it answers to messages that the transcripts cannot make."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import TypeVar

import pytest

from cache.cluster.config.raft import RaftConfig
from cache.cluster.raft.consensus import Consensus
from cache.cluster.raft.messages import (
    AnyMessage,
    Append,
    AppendReply,
    Entry,
    GroupId,
    Heartbeat,
    HeartbeatReply,
    Kind,
    Members,
    ReplicaId,
    TimeoutNow,
    Vote,
    VoteReply,
    encode,
)
from cache.cluster.raft.outputs import (
    Apply,
    Cancel,
    Failed,
    HardState,
    Output,
    Persist,
    Persisted,
    Propose,
    Read,
    ReadReady,
    Reason,
    Received,
    Role,
    RoleChanged,
    Send,
)
from cache.cluster.raft.status import bootstrap

GROUP, ME, OTHER, THIRD = GroupId("g"), ReplicaId("a"), ReplicaId("b"), ReplicaId("c")
LATER = 10.0
OutputT = TypeVar("OutputT")


def machine(*terms: int, term: int = 1, vote: str = "") -> Consensus:
    """Return a follower of three with a log of these terms; the first entry names the voters."""
    first = bootstrap((ME, OTHER, THIRD)).entries
    rest = tuple(Entry(index, term) for index, term in enumerate(terms, 2))
    persisted = Persisted(HardState(term, vote), entries=first + rest)
    return Consensus(GROUP, ME, RaftConfig(), persisted, rng=Random(1), now=0.0)


def step(consensus: Consensus, message: AnyMessage, now: float = LATER) -> list[Output]:
    """Return what a machine does about a message."""
    consensus.handle(Received(message), now)
    return consensus.take_outputs()


def only(outputs: list[Output], kind: type[OutputT]) -> OutputT:
    """Return the one output of a kind."""
    found = [output for output in outputs if isinstance(output, kind)]
    assert 1 == len(found), outputs
    return found[0]


def lead(consensus: Consensus) -> list[Output]:
    """Make a machine the leader of its next term."""
    outputs = step(consensus, Heartbeat(GROUP, OTHER, consensus.term, 0, 1), now=LATER - 1)
    outputs = step(consensus, TimeoutNow(GROUP, OTHER, consensus.term))
    outputs += step(consensus, VoteReply(GROUP, OTHER, consensus.term, True))
    assert consensus.role is Role.LEADER
    return outputs


def append(prev: tuple[int, int], entries: tuple[Entry, ...] = (), *, commit: int = 0) -> Append:
    """Return an Append of b, leader of term 5."""
    return Append(GROUP, OTHER, 5, *prev, commit, entries)


def test_starts_as_a_follower_of_its_saved_term() -> None:
    """Paper §5.1, §5.2: nothing is known but what was saved."""
    status = machine(1, term=4, vote="b").status()

    assert (Role.FOLLOWER, 4, None, 0) == (status.role, status.term, status.leader, status.commit)


def test_reports_only_what_the_message_proved_equal() -> None:
    """Paper §5.3: entries after those of the message may be another leader's (seed A6)."""
    outputs = step(machine(2, 2, 2), append((1, 1), (Entry(2, 2),)))

    assert AppendReply(GROUP, ME, 5, True, 2) == only(outputs, Send).message


def test_commits_no_further_than_the_message_proved() -> None:
    """Paper §5.3, Figure 2: min(leaderCommit, index of last new entry)."""
    consensus = machine(2, 2, 2)

    step(consensus, append((1, 1), (Entry(2, 2),), commit=4))

    assert 2 == consensus.status().commit


def test_refuses_entries_after_a_gap() -> None:
    """Paper §5.3, Figure 2, rule 2; and says where to go on."""
    outputs = step(machine(2), append((7, 5), (Entry(8, 5),)))

    assert AppendReply(GROUP, ME, 5, False, 7, 2, 2) == only(outputs, Send).message


def test_answers_a_leader_of_the_past_with_the_present_term() -> None:
    """Paper §5.1, Figure 2, rule 1."""
    outputs = step(machine(term=9), append((1, 1), (Entry(2, 5),)))

    assert AppendReply(GROUP, ME, 9, False, 0) == only(outputs, Send).message


def test_writes_term_and_vote_as_one_record_before_the_answer() -> None:
    """Paper §5.1; hashicorp/raft#661."""
    outputs = step(machine(), Vote(GROUP, OTHER, 5, 9, 4))

    persist, send = outputs[:2]
    assert Persist(hard_state=HardState(5, "b")) == persist
    assert Send(OTHER, VoteReply(GROUP, ME, 5, True)) == send


def test_a_repeated_vote_request_is_granted_again() -> None:
    """Paper §5.2: the answer may have been lost."""
    consensus = machine(term=5, vote="b")

    outputs = step(consensus, Vote(GROUP, OTHER, 5, 9, 4))

    assert VoteReply(GROUP, ME, 5, True) == only(outputs, Send).message


def test_a_new_leader_appends_an_entry_of_its_term() -> None:
    """Paper §8: so that it can commit what was before."""
    consensus = machine(1)
    lead(consensus)

    assert 3 == consensus.status().last_index
    assert 0 == consensus.status().commit


def test_a_leader_sends_entries_while_it_writes_them() -> None:
    """Dissertation §10.2.1."""
    consensus = machine()
    lead(consensus)
    step(consensus, AppendReply(GROUP, OTHER, consensus.term, True, 2))

    consensus.handle(Propose(request=1, data=b"x"), LATER)
    outputs = consensus.take_outputs()

    kinds = [type(output) for output in outputs]
    assert kinds.index(Send) < kinds.index(Persist)


def test_a_request_resolves_when_it_is_committed() -> None:
    """Not when it was sent, and not when it was written."""
    consensus = machine()
    lead(consensus)
    consensus.handle(Propose(request=7, data=b"x"), LATER)
    assert not [one for one in consensus.take_outputs() if isinstance(one, Apply)]

    outputs = step(consensus, AppendReply(GROUP, OTHER, consensus.term, True, 3))

    assert {3: 7} == only(outputs, Apply).requests


def test_a_request_of_an_earlier_life_resolves_nothing() -> None:
    """A restarted shell counts its requests from 1 again."""
    before = machine()
    lead(before)
    before.handle(Propose(request=1, data=b"old"), LATER)
    persists = [one for one in before.take_outputs() if isinstance(one, Persist)]
    old = persists[0].entries[-1]
    after = Consensus(
        GROUP, ME, RaftConfig(), bootstrap((ME, OTHER, THIRD)), rng=Random(2), now=0.0
    )
    step(after, append((1, 1), (Entry(2, 2),)))
    after.handle(Propose(request=1, data=b"new"), LATER)

    outputs = step(after, append((2, 2), (old,), commit=3))

    assert {} == only(outputs, Apply).requests


def test_a_cancelled_request_is_not_answered() -> None:
    """Its caller is gone; the entry is applied nevertheless."""
    consensus = machine()
    lead(consensus)
    consensus.handle(Propose(request=7, data=b"x"), LATER)
    consensus.handle(Cancel(7), LATER)
    consensus.take_outputs()

    outputs = step(consensus, AppendReply(GROUP, OTHER, consensus.term, True, 3))

    assert {} == only(outputs, Apply).requests


def test_waiting_requests_are_bounded() -> None:
    """Everything has a limit; the answer is definite."""
    persisted = bootstrap((ME, OTHER, THIRD))
    config = RaftConfig(waiting_max=1)
    consensus = Consensus(GROUP, ME, config, persisted, rng=Random(1), now=0.0)
    lead(consensus)
    consensus.handle(Propose(request=1, data=b"x"), LATER)
    consensus.handle(Propose(request=2, data=b"x"), LATER)

    assert Failed(2, Reason.OVERLOADED, ME) == only(consensus.take_outputs(), Failed)


def test_a_single_voter_needs_nobody() -> None:
    """Election, commit and read in one turn each, all behind the disk."""
    consensus = Consensus(GROUP, ME, RaftConfig(), bootstrap((ME,)), rng=Random(1), now=0.0)
    consensus.tick(LATER)
    kinds = [type(output) for output in consensus.take_outputs()]
    assert kinds.index(Persist) < kinds.index(Apply)

    consensus.handle(Read(request=1), LATER)

    assert ReadReady(1) == only(consensus.take_outputs(), ReadReady)


def test_a_late_heartbeat_answer_counts_for_its_own_round_only() -> None:
    """Dissertation §6.4: an answer to a round that began before the read proves nothing for it."""
    consensus = machine()
    lead(consensus)
    step(consensus, AppendReply(GROUP, OTHER, consensus.term, True, 2))
    consensus.handle(Read(request=1), LATER)
    sends = [one for one in consensus.take_outputs() if isinstance(one, Send)]
    beats = [one.message for one in sends if isinstance(one.message, Heartbeat)]
    round_ = beats[0].round

    early = step(consensus, HeartbeatReply(GROUP, OTHER, consensus.term, round_ - 1))
    due = step(consensus, HeartbeatReply(GROUP, OTHER, consensus.term, round_))

    assert ReadReady(1) not in early
    assert ReadReady(1) == only(due, ReadReady)


def test_a_round_from_the_future_is_taken_for_the_latest() -> None:
    """A peer cannot confirm reads that were not asked for yet."""
    consensus = machine()
    lead(consensus)
    step(consensus, HeartbeatReply(GROUP, OTHER, consensus.term, 2**60))

    consensus.handle(Read(request=1), LATER)

    assert not [one for one in consensus.take_outputs() if isinstance(one, ReadReady)]


def test_a_message_of_another_group_is_ignored() -> None:
    """Many groups share one connection."""
    consensus = machine()

    outputs = step(consensus, Vote(GroupId("other"), OTHER, 5, 9, 4))

    assert [] == outputs
    assert 1 == consensus.term


def test_an_answer_beyond_the_log_is_ignored() -> None:
    """A peer that acknowledges what nobody sent commits nothing."""
    consensus = machine()
    lead(consensus)

    step(consensus, AppendReply(GROUP, OTHER, consensus.term, True, 99))

    assert 0 == consensus.status().commit


@pytest.mark.parametrize("seed", range(20))
def test_election_timeouts_are_random_within_their_range(seed: int) -> None:
    """Paper §5.2, §9.3: so that candidates rarely meet."""
    config = RaftConfig()
    consensus = Consensus(GROUP, ME, config, bootstrap((ME, OTHER)), rng=Random(seed), now=100.0)
    deadline = consensus.next_deadline()

    assert deadline is not None
    assert config.election_timeout_min <= deadline - 100.0 <= config.election_timeout_max


def test_a_learner_has_no_timer() -> None:
    """Dissertation §4.2.1."""
    consensus = Consensus(GROUP, ME, RaftConfig(), Persisted(), rng=Random(1), now=0.0)

    assert consensus.next_deadline() is None


def test_a_replica_that_loses_its_vote_is_told() -> None:
    """Term and leader are as they were: without it, nobody would ask whether it may go."""
    consensus = machine()
    before = step(consensus, Append(GROUP, OTHER, 2, 1, 1, 1))
    without_it = Entry(2, 2, kind=Kind.MEMBERS, data=encode(Members((OTHER, THIRD))))

    outputs = step(consensus, Append(GROUP, OTHER, 2, 1, 1, 1, (without_it,)))

    told = RoleChanged(Role.FOLLOWER, 2, OTHER, votes=True)
    assert told == only(before, RoleChanged)
    assert replace(told, votes=False) == only(outputs, RoleChanged)
