"""The values that one indexed field has in one partition, in order, each with its key. Pure.

With the default of 1024 partitions most hold few keys, and what counts for the garbage collector is how many
objects it looks at, not their size: those of a `SortedList` are made only where there are many keys.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Sequence
from typing import Any, Final

from sortedcontainers import SortedList

Posting = tuple[int, Any, bytes]
"""(number of the value's type, value, key). Any: a value of that type."""

FEW: Final = 1_000
"""Postings up to which a plain list is as fast: moving so many pointers takes less than a microsecond."""


class Postings:
    """One index of one partition."""

    __slots__ = ("_few", "_many", "names", "pending")

    def __init__(self, names: tuple[str, ...], keys: Iterable[bytes]) -> None:
        self.names = names
        """The path to the field."""
        self.pending: list[bytes] | None = list(keys)
        """Keys to look at before the index is complete; None when it is."""
        self._few: list[Posting] = []
        self._many: SortedList[Posting] | None = None
        """All of them, once they are many; `_few` is empty then."""

    def take(self, count: int) -> Sequence[bytes]:
        """Take some keys out of those to look at; none when the index is complete."""
        if self.pending is None:
            return ()
        taken = self.pending[-count:]
        del self.pending[-count:]
        if not self.pending:
            self.pending = None
        return taken

    def __contains__(self, posting: Posting) -> bool:
        if self._many is not None:
            return posting in self._many
        at = bisect_left(self._few, posting)
        return at < len(self._few) and self._few[at] == posting

    def add(self, posting: Posting) -> None:
        """Add one that is not there."""
        if self._many is None:
            insort(self._few, posting)
            self._divide()
        else:
            self._many.add(posting)

    def update(self, postings: Iterable[Posting]) -> None:
        """Add some that are not there."""
        if self._many is None:
            self._few.extend(postings)
            self._few.sort()
            self._divide()
        else:
            self._many.update(postings)

    def _divide(self) -> None:
        if len(self._few) > FEW:
            self._many, self._few = SortedList(self._few), []

    def remove(self, posting: Posting) -> None:
        """Remove one that is there."""
        if self._many is None:
            del self._few[bisect_left(self._few, posting)]
        else:
            self._many.remove(posting)

    def before(self, least: tuple[Any, ...]) -> int:
        """Return how many are less than this beginning of a posting. Any: as in `Posting`."""
        if self._many is None:
            return bisect_left(self._few, least)
        return self._many.bisect_left(least)

    def up_to(self, last: Posting) -> int:
        """Return how many are this one or less."""
        return (
            bisect_right(self._few, last) if self._many is None else self._many.bisect_right(last)
        )

    def between(self, start: int, end: int) -> Iterable[Posting]:
        """Return those from one place to before another."""
        return self._few[start:end] if self._many is None else self._many.islice(start, end)
