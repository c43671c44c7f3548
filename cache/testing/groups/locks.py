"""Clients that take consistent locks and give them back: at most one holder, and tokens that only rise.

A holder counts as one until it is told that its session is lost, begins to give the lock back, or its
process is dead. One that stands still may believe it until it goes on: only the token protects then.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from random import Random
from typing import Final

from cache.cluster.node import Node
from cache.cluster.structures.lock import LockToken
from cache.errors import CacheError, RejectedError
from cache.testing.cluster import TestCluster
from cache.testing.history import History, Outcome
from cache.testing.members import MemberHandle
from cache.testing.sim.world import ProcessKilledError

LOCKS: Final = ("x", "y")
WAITS: Final = (0.0, 0.3, 3.0)
HOLDS_MAX: Final = 1.5
"""Seconds that a lock is held, at most."""

FINAL_WAIT: Final = 15.0
"""Seconds within which every lock is to be had once faults are over: longer than a session lives."""

RESUME_SLACK: Final = 0.05
"""Seconds within which one that stood still knows what it lost."""

DRIFT_SLACK: Final = 0.02
"""Seconds by which a holder may learn of its loss too late when clocks run unequally fast."""


@dataclass(slots=True)
class Hold:
    """One attempt to hold a lock."""

    key: str
    member: int
    started_at: float
    ended_at: float = math.inf
    """When the answer came."""
    outcome: Outcome = Outcome.UNKNOWN
    token: int = 0
    until: float = math.inf
    """When its client no longer took itself for the holder."""

    def __str__(self) -> str:
        when = f"{self.ended_at:.3f} to {self.until:.3f}"
        return f"{self.key} token {self.token} through member {self.member}, {when}"


class LockCallers:
    """What the clients of the locks do, and what they were told."""

    def __init__(self, cluster: TestCluster, history: History) -> None:
        self._cluster = cluster
        self._history = history
        self.holds: list[Hold] = []

    async def call(self, member: MemberHandle, rng: Random) -> None:
        """Take a lock through a member, hold it for a while, give it back."""
        key, wait = rng.choice(LOCKS), rng.choice(WAITS)
        seconds = rng.uniform(0.0, HOLDS_MAX) if rng.random() < 0.5 else 0.0
        hold = Hold(key, member.index, self._cluster.now())
        self.holds.append(hold)
        try:
            await member.run(lambda node: self._hold(node, hold, wait, seconds))
        except ProcessKilledError:
            hold.until = min(hold.until, self._cluster.now())

    async def finish(self, member: MemberHandle) -> None:
        """Take every lock through a member: what the dead held is free once their sessions are over.

        Raises:
            CacheError: it is not to be had.
        """

        async def take(node: Node) -> None:
            for key in LOCKS:
                hold = Hold(key, member.index, self._cluster.now())
                self.holds.append(hold)
                lock = node.consistent.lock(key)
                token = await lock.acquire(wait=FINAL_WAIT)
                hold.ended_at, hold.token, hold.outcome = (
                    self._cluster.now(),
                    int(token),
                    Outcome.OK,
                )
                hold.until = self._cluster.now()
                await lock.release(token)

        await member.run(take)

    async def _hold(self, node: Node, hold: Hold, wait: float, seconds: float) -> None:
        """Get a lock, keep it, give it back; runs on a member."""
        now = self._cluster.now
        lock = node.consistent.lock(hold.key)
        try:
            token = await lock.acquire(wait=wait)
        except RejectedError:
            hold.outcome = Outcome.FAIL
            return
        except CacheError:
            return
        finally:
            hold.ended_at = now()
        hold.token, hold.outcome = int(token), Outcome.OK
        await self._keep(token, hold, seconds)
        hold.until = min(hold.until, now())
        try:
            await lock.release(token)
        except CacheError:
            return

    async def _keep(self, token: LockToken, hold: Hold, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await token.lost.wait()
        except TimeoutError:
            return
        hold.until = self._cluster.now()

    def counts(self) -> dict[str, int]:
        """Return how many attempts ended how."""
        told = Counter(hold.outcome.value for hold in self.holds)
        return {f"lock {name}": count for name, count in sorted(told.items())}

    def check(self) -> list[str]:
        """Return what breaks the promise of a lock."""
        violations: list[str] = []
        for key in LOCKS:
            granted = [h for h in self.holds if h.key == key and h.outcome is Outcome.OK]
            granted.sort(key=lambda hold: hold.token)
            for earlier, later in pairwise(granted):
                violations += self._compare(earlier, later)
        return violations

    def _compare(self, earlier: Hold, later: Hold) -> list[str]:
        """Look at two holds whose tokens follow each other."""
        if earlier.token == later.token:
            return [f"one token for two: {earlier}; {later}"]
        if later.ended_at < earlier.started_at:
            return [f"tokens go back: {later}; {earlier}"]
        slack = DRIFT_SLACK if self._history.clocks_disagree else 0.0
        at = later.ended_at
        if earlier.until <= at + slack:
            return []
        if self._history.was_stalled(earlier.member, at - RESUME_SLACK, at):
            return []
        return [f"two holders at once: {earlier}; {later}"]
