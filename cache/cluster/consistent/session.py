"""The session of one node with one group: numbers of commands, and until when it certainly lives. Pure.

A command keeps its number however often it is sent, and is *over* when its caller has an answer or has
given up. Each command tells the group up to which number all are over: what comes late with such a number
is not applied any more.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Session:
    """A session that a group opened."""

    number: int
    confirmed_at: float
    """When the last command or sign of life that was confirmed had been *sent*."""
    sequence: int = 0
    pending: dict[int, None] = field(default_factory=dict)
    """Commands that are not over, in order."""
    group: bytes = b""
    """Which of all groups of that name opened it: another one may give the same number."""
    is_kept: bool = False
    """Whether something depends on it."""

    def begin(self) -> int:
        """Return the number of a new command."""
        self.sequence += 1
        self.pending[self.sequence] = None
        return self.sequence

    def end(self, sequence: int) -> None:
        """The command is over."""
        del self.pending[sequence]

    @property
    def answered(self) -> int:
        """All commands up to this one are over."""
        return next(iter(self.pending), self.sequence + 1) - 1

    def confirm(self, sent_at: float) -> None:
        """The group took in what was sent then; the session lives on from there, or longer."""
        self.confirmed_at = max(self.confirmed_at, sent_at)
