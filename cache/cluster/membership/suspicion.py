"""Lifeguard: suspicion that shortens as others confirm it, doubt of one's own health. Pure.

Source: Dadgar, Phillips, Currey, Lifeguard: Local Health Awareness for More Accurate Failure
Detection, DSN 2018.
"""

from __future__ import annotations

import math

from cache.cluster.ids import MemberId


def suspicion_timeout(multiplier: int, member_count: int, probe_interval: float) -> float:
    """Return the shortest suspicion, seconds."""
    return multiplier * max(1.0, math.log10(max(1, member_count))) * probe_interval


def remaining_suspicion(
    *, confirmations: int, needed: int, elapsed: float, shortest: float, longest: float
) -> float:
    """Return the seconds until a suspect is declared dead; negative when it is overdue."""
    if needed < 1:
        return shortest - elapsed
    share = math.log(confirmations + 1) / math.log(needed + 1)
    return max(shortest, longest - share * (longest - shortest)) - elapsed


class Suspicion:
    """One suspected member: since when, by whom, until when."""

    __slots__ = ("_accusers", "_longest", "_needed", "_shortest", "_started_at", "deadline")

    def __init__(
        self, accuser: MemberId, *, needed: int, shortest: float, longest: float, now: float
    ) -> None:
        self._accusers: dict[MemberId, None] = {accuser: None}
        self._needed = needed
        self._shortest = shortest
        self._longest = longest
        self._started_at = now
        self.deadline = now + self._remaining(now)

    def _remaining(self, now: float) -> float:
        return remaining_suspicion(
            confirmations=len(self._accusers) - 1,
            needed=self._needed,
            elapsed=now - self._started_at,
            shortest=self._shortest,
            longest=self._longest,
        )

    def confirm(self, accuser: MemberId, now: float, *, hearing: float = 0.0) -> bool:
        """Another member suspects it too; return whether that was news.

        The suspect is left `hearing` seconds from now on to be heard, however overdue it is.
        """
        if accuser in self._accusers or len(self._accusers) > self._needed:
            return False
        self._accusers[accuser] = None
        self.deadline = min(self.deadline, now + max(hearing, self._remaining(now)))
        return True


class Awareness:
    """Score of this member's own health: 0 is well, each point makes it more patient."""

    __slots__ = ("_max", "score")

    def __init__(self, score_max: int) -> None:
        self._max = score_max
        self.score = 0

    def add(self, delta: int) -> None:
        """Change the score within 0 .. max - 1."""
        self.score = min(max(self.score + delta, 0), self._max - 1)

    def scale(self, seconds: float) -> float:
        """Return `seconds` stretched by the score."""
        return seconds * (self.score + 1)
