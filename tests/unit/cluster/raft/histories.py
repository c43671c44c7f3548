"""Histories of `Persist`s as a machine makes them, and the dumb twin that holds what they come to."""

from __future__ import annotations

from random import Random
from typing import Final

from cache.cluster.raft.messages import Entry, Kind, Members, Snapshot
from cache.cluster.raft.outputs import HardState, Persist, Persisted
from cache.testing.raft.parts import Disk

STEPS: Final = ("vote", "append", "conflict", "compact", "restore", "restore and append")


class History:
    """Makes one `Persist` after the other and keeps what each comes to in `states`."""

    def __init__(self) -> None:
        self.twin = Disk(Persisted())
        self.states = [self.twin.read()]
        self.term = 1
        self.first = 1
        self.last = 0

    def step(self, kind: str, size: int) -> Persist:
        """Return the next one; `size` is how many entries it is about."""
        match kind:
            case "vote":
                self.term += 1
                persist = Persist(hard_state=self._hard_state(f"m{size}/log"))
            case "append":
                persist = Persist(entries=self._append(size))
            case "conflict":
                persist = self._conflict(size)
            case "compact":
                persist = self._compact(size)
            case _:
                persist = self._restore(size, followed=kind != "restore")
        self.twin.write(persist)
        self.states.append(self.twin.read())
        return persist

    def random_step(self, rng: Random) -> Persist:
        """Return the next one, drawn."""
        return self.step(rng.choice(STEPS), rng.randrange(5))

    def _hard_state(self, vote: str = "") -> HardState:
        return HardState(self.term, vote)

    def _append(self, size: int) -> tuple[Entry, ...]:
        new = tuple(
            Entry(
                index,
                self.term,
                time=index / 8,
                kind=Kind.COMMAND,
                data=b"%d of %d" % (index, self.term) * (index % 4),
                session=size,
                sequence=index,
                origin=f"m{size}/log",
                request=7,
            )
            for index in range(self.last + 1, self.last + 1 + size)
        )
        self.last += size
        return new

    def _conflict(self, size: int) -> Persist:
        """Another leader's entries: some go, others come, in a newer term, in one write."""
        self.term += 1
        lowest = max(self.twin.snapshot.index, self.first - 1)
        above = max(self.last - size, lowest)
        if above < self.last:
            self.last = above
            entries = self._append(size + 1)
            return Persist(hard_state=self._hard_state(), delete_above=above, entries=entries)
        return Persist(hard_state=self._hard_state(), entries=self._append(size))

    def _snapshot(self, index: int, term: int) -> Snapshot:
        voters = tuple(f"m{n}/log" for n in range(index % 4))
        data = b"state at %d;" % index * (index % 3 * 40)
        return Snapshot(index, term, index / 8, Members(voters), data)

    def _compact(self, size: int) -> Persist:
        """An own snapshot of what was applied; some entries below it stay."""
        index = self.last
        if index <= self.twin.snapshot.index:
            return Persist(entries=self._append(size))
        through = max(self.first, index - size)
        self.first = through
        snapshot = self._snapshot(index, self.twin.entries[index].term)
        return Persist(snapshot=snapshot, delete_below=through)

    def _restore(self, size: int, *, followed: bool) -> Persist:
        """A leader's snapshot above everything here."""
        self.term += 1
        index = max(self.last, self.twin.snapshot.index) + 1 + size
        self.first, self.last = index + 1, index
        return Persist(
            hard_state=self._hard_state(),
            snapshot=self._snapshot(index, self.term),
            delete_below=index + 1,
            delete_above=index,
            entries=self._append(size) if followed else (),
        )
