"""The log by hand, and against a dumb twin: two lists and a few counters."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cache.cluster.raft.log import Log
from cache.cluster.raft.messages import Entry, Snapshot
from cache.cluster.raft.outputs import Persist, Persisted
from cache.testing.raft.parts import Disk


def entries(*terms: int, after: int = 0) -> tuple[Entry, ...]:
    """Return entries of these terms."""
    return tuple(Entry(index, term) for index, term in enumerate(terms, after + 1))


def log_of(*terms: int) -> Log:
    """Return a log of these terms, all durable."""
    return Log(Snapshot(), entries(*terms))


def terms_of(log: Log) -> list[int | None]:
    """Return the terms in a log."""
    return [log.term_at(index) for index in range(log.first_index, log.last_index + 1)]


@pytest.mark.parametrize(
    ("last_index", "last_term", "expected"),
    [(3, 2, True), (2, 2, False), (1, 3, True), (9, 1, False), (4, 2, True)],
)
def test_up_to_date_compares_terms_then_lengths(
    last_index: int, last_term: int, expected: bool
) -> None:
    """Paper §5.4.1: the later last term wins, then the longer log."""
    assert expected is log_of(1, 1, 2).is_up_to_date(last_index, last_term)


def test_merge_keeps_what_is_equal_and_replaces_what_differs() -> None:
    """Paper §5.3, Figure 2, AppendEntries 3 and 4."""
    log = log_of(1, 1, 1, 1)

    assert 3 == log.merge(entries(1, 2, after=1))

    assert [1, 1, 2] == terms_of(log)
    assert (None, 2, entries(2, after=2)) == log.take_unstable()


def test_merge_of_known_entries_changes_nothing() -> None:
    """Paper §5.3: a late message with fewer entries truncates nothing."""
    log = log_of(1, 1, 2)

    assert log.merge(entries(1, after=1)) is None

    assert [1, 1, 2] == terms_of(log)


def test_a_committed_entry_is_never_truncated() -> None:
    """Paper §5.4.3: if it had to be, stopping is the only answer."""
    log = log_of(1, 1)
    log.commit_to(2)

    with pytest.raises(AssertionError, match="committed"):
        log.merge(entries(2, after=1))


@pytest.mark.parametrize(
    ("index", "term", "expected"), [(9, 3, (5, 3)), (5, 2, (3, 2)), (4, 1, (2, 1)), (2, 0, (0, 0))]
)
def test_a_conflict_skips_whole_terms(index: int, term: int, expected: tuple[int, int]) -> None:
    """Paper §5.3: one refusal for each conflicting term, not for each entry."""
    assert expected == log_of(1, 1, 2, 3, 3).find_conflict(index, term)


def test_a_slice_has_one_entry_at_least() -> None:
    """An entry above the limit travels alone; else nothing would ever follow it."""
    log = Log(Snapshot(), (Entry(1, 1, data=b"x" * 500), Entry(2, 1)))

    assert [1] == [entry.index for entry in log.slice(1, 100)]
    assert [1, 2] == [entry.index for entry in log.slice(1, 1_000)]


def test_compaction_keeps_the_term_of_the_last_compacted_entry() -> None:
    """Paper §7: it is needed to check the entry that follows."""
    log = log_of(1, 2, 3)
    log.commit_to(3)
    log.take_committed()

    log.compact(2)

    assert 2 == log.term_at(2)
    assert log.term_at(1) is None
    assert (2, None, ()) == log.take_unstable()


def test_a_log_with_a_gap_is_refused() -> None:
    """Storage that lost a part of the log must not be voted with."""
    with pytest.raises(AssertionError, match="gap"):
        Log(Snapshot(), (Entry(1, 1), Entry(3, 1)))


class LogMachine(RuleBasedStateMachine):
    """A log and its disk, against a list of all terms that were ever its content."""

    def __init__(self) -> None:
        super().__init__()
        self.log = Log(Snapshot(), ())
        self.disk = Disk(Persisted())
        self.terms: list[int] = []
        self.commit = self.applied = self.base = 0
        self.term = 1

    @rule()
    def new_term(self) -> None:
        self.term += 1

    @rule(count=st.integers(1, 4))
    def append(self, count: int) -> None:
        for _ in range(count):
            self.terms.append(self.term)
            self.log.append(Entry(len(self.terms), self.term))

    @rule(back=st.integers(0, 5), terms=st.lists(st.integers(0, 2), max_size=4))
    def merge(self, back: int, terms: list[int]) -> None:
        start = max(self.commit, len(self.terms) - back)
        self.term += 2
        last = self.terms[start - 1] if start else 0
        rising = sorted(max(last, self.term - step) for step in terms)
        keep = self.terms[start : start + len(rising)] == rising
        self.log.merge(entries(*rising, after=start))
        if not keep:
            self.terms = [*self.terms[:start], *rising]

    @rule(part=st.floats(0, 1))
    def commit_some(self, part: float) -> None:
        self.commit += int(part * (len(self.terms) - self.commit))
        self.log.commit_to(self.commit)

    @rule()
    def apply(self) -> None:
        expected = list(range(self.applied + 1, self.commit + 1))
        assert expected == [entry.index for entry in self.log.take_committed()]
        self.applied = self.commit

    @precondition(lambda self: self.applied > self.base)
    @rule(part=st.floats(0, 1))
    def compact(self, part: float) -> None:
        self.persist()
        self.base += int(part * (self.applied - self.base))
        self.disk.write(Persist(snapshot=self.snapshot(self.applied)))
        self.log.compact(self.base)

    @rule(beyond=st.integers(1, 3))
    def restore(self, beyond: int) -> None:
        self.terms = [*self.terms[: self.commit], *[self.term] * beyond]
        self.commit = self.applied = self.base = len(self.terms)
        snapshot = self.snapshot(self.commit)
        self.log.restore(snapshot)
        self.disk.write(Persist(snapshot=snapshot))
        self.persist()

    @rule()
    def persist(self) -> None:
        below, above, new = self.log.take_unstable()
        self.disk.write(Persist(delete_below=below, delete_above=above, entries=new))

    @rule()
    def restart(self) -> None:
        self.persist()
        persisted = self.disk.read()
        self.log = Log(persisted.snapshot, persisted.entries)
        self.commit = self.applied = persisted.snapshot.index
        self.base = self.log.base_index

    def snapshot(self, index: int) -> Snapshot:
        return Snapshot(index, self.terms[index - 1])

    @invariant()
    def equals_the_twin(self) -> None:
        assert len(self.terms) == self.log.last_index
        assert self.terms[self.log.base_index :] == terms_of(self.log)
        assert self.commit == self.log.commit
        uncommitted = len(self.terms) - self.commit
        assert 64 * uncommitted == self.log.uncommitted_bytes


TestLogAgainstItsTwin = LogMachine.TestCase
TestLogAgainstItsTwin.settings = settings(max_examples=60, deadline=None)
