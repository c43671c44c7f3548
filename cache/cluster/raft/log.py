"""The log of one replica: a base, the entries above it, and how far each is known to be safe. Pure.

    base ≤ applied ≤ commit ≤ last,  stable ≤ last

Entries up to `base` were compacted away; its term is kept, to check what follows it. Entries up to `stable`
were handed out to be persisted. A conflict truncates, never at or below `commit`: if it had to, two leaders
would have committed different entries, and stopping is the only answer.

Source: Ongaro & Ousterhout, In Search of an Understandable Consensus Algorithm, 2014, §5.3, §5.4, §7.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from cache.cluster.raft.messages import Entry, Snapshot

ENTRY_BYTES: Final = 64
"""Counted for an entry besides its data, so that entries without any are limited, too."""


def size_of(entry: Entry) -> int:
    """Return roughly the bytes that an entry takes in a message."""
    return len(entry.data) + ENTRY_BYTES


class Log:
    """Entries in memory. `take_unstable` says what of them is to be written."""

    def __init__(self, snapshot: Snapshot, entries: Sequence[Entry]) -> None:
        """Take over what storage held.

        The oldest entry may become the base: of it, only the term is needed.
        """
        self.base_index, self.base_term = snapshot.index, snapshot.term
        if entries and entries[0].index <= snapshot.index:
            self.base_index, self.base_term = entries[0].index, entries[0].term
            entries = entries[1:]
        self._entries = list(entries)
        assert all(
            entry.index == self.base_index + place for place, entry in enumerate(entries, 1)
        ), "storage gave back a log with a gap"
        assert self.last_index >= snapshot.index, "the log ends below its snapshot"
        self.commit = self.applied = snapshot.index
        self._base_time = snapshot.time
        self._stable = self.last_index
        self._delete_below: int | None = None
        self._delete_above: int | None = None
        self.uncommitted_bytes = sum(size_of(e) for e in self._after(self.commit))

    # -- looking ---------------------------------------------------------------------------------

    @property
    def first_index(self) -> int:
        """Index of the first entry that is still here."""
        return self.base_index + 1

    @property
    def last_index(self) -> int:
        """Index of the last entry, or of the base."""
        return self.base_index + len(self._entries)

    @property
    def last_term(self) -> int:
        """Term of the last entry, or of the base."""
        return self._entries[-1].term if self._entries else self.base_term

    @property
    def last_time(self) -> float:
        """The group's clock at the last entry."""
        return self._entries[-1].time if self._entries else self._base_time

    def term_at(self, index: int) -> int | None:
        """Return the term of the entry at `index`, or None where nothing is known."""
        if index == self.base_index:
            return self.base_term
        if self.base_index < index <= self.last_index:
            return self._entries[index - self.base_index - 1].term
        return None

    def entry_at(self, index: int) -> Entry:
        """Return the entry at `index`, which must be here."""
        assert self.base_index < index <= self.last_index, "no such entry"
        return self._entries[index - self.base_index - 1]

    def _after(self, index: int) -> list[Entry]:
        return self._entries[index - self.base_index :]

    def slice(self, start: int, bytes_max: int) -> tuple[Entry, ...]:
        """Return entries from `start` on, as many as fit in `bytes_max`, but at least one if there is."""
        chosen: list[Entry] = []
        size = 0
        for place in range(start - self.base_index - 1, len(self._entries)):
            entry = self._entries[place]
            size += size_of(entry)
            if chosen and size > bytes_max:
                break
            chosen.append(entry)
        return tuple(chosen)

    def is_up_to_date(self, last_index: int, last_term: int) -> bool:
        """Return whether a log that ends there holds all that this one may have committed (§5.4.1)."""
        return (last_term, last_index) >= (self.last_term, self.last_index)

    def find_conflict(self, index: int, term: int) -> tuple[int, int]:
        """Return the last position at or below `index` whose term is not above `term`.

        Nothing above it can be equal in two logs of which one has `term` at `index`: terms only rise.
        """
        index = min(index, self.last_index)
        while index > self.base_index:
            known = self.entry_at(index).term
            if known <= term:
                return index, known
            index -= 1
        return self.base_index, self.base_term

    # -- growing ---------------------------------------------------------------------------------

    def append(self, entry: Entry) -> None:
        """Append one entry of this leader's own."""
        assert entry.index == self.last_index + 1, "an entry out of order"
        assert entry.term >= self.last_term, "terms fall in the log"
        self._entries.append(entry)
        self.uncommitted_bytes += size_of(entry)

    def merge(self, entries: Sequence[Entry]) -> int | None:
        """Take in entries that follow a position found equal; return the lowest index that changed.

        What is here already is not touched: a message that was late must not undo a later one (§5.3).
        """
        for place, entry in enumerate(entries):
            if self.term_at(entry.index) != entry.term:
                self._truncate(entry.index - 1)
                for new in entries[place:]:
                    self.append(new)
                return entry.index
        return None

    def _truncate(self, last: int) -> None:
        if last >= self.last_index:
            return
        assert last >= self.commit, "a committed entry would be overwritten"
        self.uncommitted_bytes -= sum(size_of(entry) for entry in self._after(last))
        del self._entries[last - self.base_index :]
        if last < self._stable:
            self._stable = self._delete_above = last

    def commit_to(self, index: int) -> None:
        """Know that everything up to `index` is committed; never goes back."""
        assert index <= self.last_index, "commit beyond the log"
        if index > self.commit:
            newly = self._entries[self.commit - self.base_index : index - self.base_index]
            self.uncommitted_bytes -= sum(size_of(entry) for entry in newly)
            self.commit = index

    def take_committed(self) -> tuple[Entry, ...]:
        """Return the entries to be applied now, each once."""
        first, last = self.applied - self.base_index, self.commit - self.base_index
        self.applied = self.commit
        return tuple(self._entries[first:last])

    # -- shrinking, saving -----------------------------------------------------------------------

    def compact(self, through: int) -> None:
        """Forget the entries up to `through`, which a snapshot covers."""
        assert through <= self.applied, "compacted before it was applied"
        if through <= self.base_index:
            return
        last = self.entry_at(through)
        del self._entries[: through - self.base_index]
        self.base_index, self.base_term, self._base_time = through, last.term, last.time
        self._stable = max(self._stable, through)
        self._delete_below = through  # The base itself stays on disk: its term is needed.

    def restore(self, snapshot: Snapshot) -> None:
        """Become the log that begins after a leader's snapshot; what was here is of no use."""
        assert snapshot.index > self.commit, "a snapshot of the past"
        self._entries.clear()
        self.base_index, self.base_term = snapshot.index, snapshot.term
        self._base_time = snapshot.time
        self.commit = self.applied = self._stable = snapshot.index
        self.uncommitted_bytes = 0
        self._delete_below, self._delete_above = snapshot.index + 1, snapshot.index

    def take_unstable(self) -> tuple[int | None, int | None, tuple[Entry, ...]]:
        """Return (delete below, delete above, entries to write), and take them as durable from now on."""
        below, above = self._delete_below, self._delete_above
        entries = tuple(self._after(self._stable))
        self._delete_below = self._delete_above = None
        self._stable = self.last_index
        return below, above, entries

    @property
    def stable(self) -> int:
        """Index of the last entry that was handed out to be persisted."""
        return self._stable
