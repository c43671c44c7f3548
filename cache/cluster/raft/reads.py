"""When a leader may answer a read: after a round of heartbeats, or within its lease. Pure.

A read is answered from a state that contains everything acknowledged before it was asked for. The leader
notes an index that covers all of that, makes sure that it still led *after* the read came, and answers
once that index is applied.

* *Round*: a majority answered a heartbeat that was sent after the read came. No clock plays a part.
* *Lease*: a majority answered a heartbeat sent less than `lease_duration` ago, and so elects nobody else
  yet. Correct while no clock is off by more than `clock_drift_max`. A leader that asked another replica to
  campaign has no lease any more, in all of its term: such an election waits for nobody, and the request may
  still be on its way after the leader gave it up.

Source: Ongaro's dissertation, 2014, §6.4, §6.4.1, §3.10.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from cache.cluster.raft.changes import agreed
from cache.cluster.raft.messages import Members, ReplicaId


@dataclass(frozen=True, slots=True)
class PendingRead:
    """A read that waits for its round."""

    index: int
    origin: ReplicaId
    request: int


class Reads:
    """The rounds of one leader, and the reads that wait for them."""

    def __init__(self, lease_duration: float) -> None:
        self.round = 0
        """The latest round that began."""
        self.lease_broken = False
        self._lease_duration = lease_duration
        self._began_at: dict[int, float] = {}
        self._new: list[PendingRead] = []
        self._waiting: deque[tuple[int, PendingRead]] = deque()

    def __len__(self) -> int:
        return len(self._new) + len(self._waiting)

    @property
    def round_wanted(self) -> bool:
        """Whether reads came that no round was begun for."""
        return bool(self._new)

    def add(self, read: PendingRead) -> None:
        """Let a read wait for the next round: one that is under way began too early."""
        self._new.append(read)

    def begin_round(self, now: float) -> int:
        """Begin a round of heartbeats, at `now`, for all reads that came before."""
        self.round += 1
        self._began_at = {
            round_: at for round_, at in self._began_at.items() if now - at < self._lease_duration
        }
        self._began_at[self.round] = now
        self._waiting.extend((self.round, read) for read in self._new)
        self._new.clear()
        return self.round

    def take_confirmed(self, members: Members, round_of: Callable[[str], int]) -> list[PendingRead]:
        """Return the reads whose round a majority has answered."""
        confirmed: list[PendingRead] = []
        answered = agreed(members, round_of) if self._waiting else 0
        while self._waiting and self._waiting[0][0] <= answered:
            confirmed.append(self._waiting.popleft()[1])
        return confirmed

    def has_lease(self, members: Members, round_of: Callable[[str], int], now: float) -> bool:
        """Return whether nobody else can have been elected yet."""
        if self.lease_broken:
            return False
        began_at = self._began_at.get(int(max(0, agreed(members, round_of))))
        return began_at is not None and now < began_at + self._lease_duration
