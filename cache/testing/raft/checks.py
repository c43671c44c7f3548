"""What must hold at every step of every run; knows the outputs of replicas, and nothing of how they work.

* *Election safety*: at most one leader in a term (§5.2).
* *Log matching*: entries of equal index and term are equal, and so is what is before them (§5.3).
* *Leader completeness*: whoever becomes leader has every committed entry (§5.4).
* *State-machine safety*: all replicas apply the same entries, and come to the same bytes.
* *Linearizable registers*: the log is one order of all writes, so each read must show a place in it at or
  after all that was answered before the read began.
* *Definite errors*: what was reported as not applied is in no log that commits.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field

from cache.cluster.raft.consensus import Consensus
from cache.cluster.raft.messages import Entry

DIGEST_INTERVAL = 8
"""One applied index in so many has its state compared."""


class Violation(AssertionError):  # noqa: N818  (it is what the campaign reports)
    """A property of Raft does not hold."""


@dataclass(slots=True)
class Checks:
    """Everything seen in one run."""

    leaders: dict[int, str] = field(default_factory=dict)
    entries: dict[tuple[int, int], tuple[int, Entry]] = field(default_factory=dict)
    """By (index, term): the term before, and the entry."""
    committed: dict[int, Entry] = field(default_factory=dict)
    digests: dict[int, int] = field(default_factory=dict)
    last_committed: int = 0
    refused: set[bytes] = field(default_factory=set)
    """Commands that were definitely not applied."""
    answered: int = 0
    """The highest place in the log that any client has seen."""
    violations: list[str] = field(default_factory=list)

    def fail(self, text: str) -> None:
        """Note a violation, and end the run."""
        self.violations.append(text)
        raise Violation(text)

    def became_leader(self, name: str, term: int, machine: Consensus) -> None:
        """Election safety and leader completeness."""
        if self.leaders.setdefault(term, name) != name:
            self.fail(f"term {term} has two leaders: {self.leaders[term]} and {name}")
        log = machine._log
        for index in range(log.first_index, self.last_committed + 1):
            entry = self.committed[index]
            # What a later leader made concerns nobody who was elected before, and hears of it late.
            if entry.term <= term and log.term_at(index) != entry.term:
                self.fail(f"leader {name} of term {term} lacks the committed entry {index}")

    def persisted(self, name: str, entries: tuple[Entry, ...], machine: Consensus) -> None:
        """Log matching."""
        log = machine._log
        for entry in entries:
            if log.term_at(entry.index) != entry.term:
                return  # Overwritten meanwhile.
            before = log.term_at(entry.index - 1)
            if before is None:
                continue
            known = self.entries.setdefault((entry.index, entry.term), (before, entry))
            if known != (before, entry):
                self.fail(f"{name} has another entry {entry.index} of term {entry.term}")

    def applied(self, name: str, entry: Entry) -> None:
        """State-machine safety."""
        known = self.committed.setdefault(entry.index, entry)
        if known != entry:
            self.fail(f"{name} applied another entry at {entry.index}: {entry} and {known}")
        before = self.committed.get(entry.index - 1)
        if before is not None and before.time > entry.time:
            self.fail(f"the group's clock went back at {entry.index}")
        self.last_committed = max(self.last_committed, entry.index)
        if entry.data in self.refused:
            self.fail(f"{name} applied what was reported as not applied: {entry.data!r}")

    def state(self, name: str, index: int, state: bytes) -> None:
        """Replicas that applied the same entries are equal, byte for byte."""
        digest = zlib.crc32(state)
        if self.digests.setdefault(index, digest) != digest:
            self.fail(f"the state of {name} at {index} differs")

    def definite(self, command: bytes) -> None:
        """A client was told that its command was not applied."""
        if any(entry.data == command for entry in self.committed.values()):
            self.fail(f"reported as not applied, but it was: {command!r}")
        self.refused.add(command)

    def read(self, name: str, place: int, floor: int, *, how: str) -> None:
        """A read that began when `floor` had been answered showed the state at `place`."""
        if place < floor:
            self.fail(f"a {how} read at {name} shows {place}, after {floor} was answered")
        self.answered = max(self.answered, place)
