"""Clients that take locks, hold them, renew them or not, and give them back; and what their cards promise.

While members can reach each other, and a copy of a lock lives:

* no two clients take themselves for its holder at once, whatever dies or moves; one that stood still may
  believe it until it goes on;
* its numbers rise from holder to holder, and none is given twice, also after a split that has healed;
* whoever asks is answered within the time it was ready to wait and the one that an operation may take.

In a split each side has a holder; once it has healed one of the two is told. At the end, when all faults are
over, every lock is to be had, a lock that was given back is free, and those who wait get it in the
order in which they began to.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Final

from cache.cluster.node import Node
from cache.cluster.structures.lock import DistributedLock, LockToken
from cache.errors import CacheError, RejectedError
from cache.testing.clients import place_of
from cache.testing.cluster import TestCluster
from cache.testing.features.base import Act, Feature, Violations, Wiped, tally
from cache.testing.history import History, Outcome
from cache.testing.members import MemberHandle
from cache.testing.sim.world import ProcessKilledError

MAP: Final = "locks"
KEYS: Final = tuple(f"lock-{number}" for number in range(4))
CALLERS: Final = 5
LEASES: Final = (0.3, 1.0, 3.0)
WAITS: Final = (0.0, 0.2, 2.0, 5.0)
HOLDS_MAX: Final = 2.0
"""Seconds that a lock is held, at most; more than the shorter leases, so that some are lost."""

RENEW_INTERVAL: Final = 0.1
OPERATION_TIMEOUT: Final = 5.0
ANSWER_SLACK: Final = 0.5
"""Seconds by which an answer may come after the time for it is over."""

RESUME_SLACK: Final = 0.05
"""Seconds within which one that stood still knows that its lease is over."""

QUEUE_GAP: Final = 0.2
"""Seconds between two that begin to wait in the last check: longer than a request is on its way."""

FINAL_WAIT: Final = 10.0
"""Seconds within which every lock is to be had once faults are over: longer than any lease."""


@dataclass(slots=True)
class Hold:
    """One attempt to hold a lock."""

    key: str
    member: int
    lease: float
    wait: float
    started_at: float = 0.0
    ended_at: float = math.inf
    """When the answer came."""
    outcome: Outcome = Outcome.UNKNOWN
    token: int = 0
    leased_at: float = 0.0
    """When the request was sent that got the lock, or renewed it last."""
    until: float = math.inf
    """When the client no longer took itself for the holder: it was told, or began to give it back."""

    def __str__(self) -> str:
        when = f"{self.ended_at:.3f} to {self.until:.3f}"
        return f"{self.key} number {self.token} through member {self.member}, {when}"


class Locks(Feature):
    """The clients, and what they were told."""

    def __init__(self, cluster: TestCluster, history: History, seed: int, pace: float) -> None:
        super().__init__(cluster, history, seed, pace)
        self.holds: list[Hold] = []

    def clients(self) -> Mapping[str, Act]:
        """See `Feature`."""
        return {f"caller{number}": self._call for number in range(CALLERS)}

    def names(self) -> list[str]:
        """See `Feature`."""
        return list(KEYS)

    def partition_of(self, key: str, partition_count: int) -> int:
        """See `Feature`."""
        return place_of(MAP, key, partition_count)

    def counts(self) -> dict[str, int]:
        """See `Feature`."""
        return tally("locks", [hold.outcome.value for hold in self.holds])

    async def _call(self, rng: Random) -> None:
        key, lease, wait = rng.choice(KEYS), rng.choice(LEASES), rng.choice(WAITS)
        seconds, renews = rng.uniform(0.0, HOLDS_MAX), rng.random() < 0.6
        if rng.random() < 0.5:
            seconds = 0.0
        member = self.choose(rng)
        if member is None:
            return
        hold = Hold(key, member.index, lease, wait, started_at=self.cluster.now())
        self.holds.append(hold)
        try:
            await member.run(lambda node: self._hold(node, hold, seconds, renews=renews))
        except ProcessKilledError:
            # Nobody else may have it before its lease is over: that its member is dead is no proof.
            hold.until = min(hold.until, hold.leased_at + lease)

    async def _hold(self, node: Node, hold: Hold, seconds: float, *, renews: bool) -> None:
        """Get a lock, keep it for a while, give it back; runs on a member."""
        now = self.cluster.now
        hold.started_at = hold.leased_at = now()
        lock = node.map(MAP).lock(hold.key, lease=hold.lease, wait=hold.wait)
        try:
            token = await lock.acquire()
        except RejectedError:
            hold.outcome = Outcome.FAIL
        except CacheError:
            hold.outcome = Outcome.UNKNOWN
        else:
            hold.token, hold.outcome = int(token), Outcome.OK
        hold.ended_at = now()
        if hold.outcome is not Outcome.OK:
            return
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(self._watch(hold, token), name="watch")
            await self._keep(lock, hold, token, now() + seconds, renews=renews)
            watching.cancel()
        hold.until = min(hold.until, now())
        try:
            await lock.release()
        except CacheError:
            return

    async def _watch(self, hold: Hold, token: LockToken) -> None:
        await token.lost.wait()
        hold.until = self.cluster.now()

    async def _keep(
        self, lock: DistributedLock, hold: Hold, token: LockToken, end_at: float, *, renews: bool
    ) -> None:
        while not token.lost.is_set() and self.cluster.now() < end_at:
            try:
                async with asyncio.timeout(RENEW_INTERVAL):
                    await token.lost.wait()
            except TimeoutError:
                pass
            sent_at = self.cluster.now()
            if not renews or token.lost.is_set():
                continue
            try:
                await lock.renew()
            except CacheError:
                continue
            hold.leased_at = sent_at

    # -- the end -----------------------------------------------------------------------------

    async def check(self) -> Violations:
        """See `Feature`."""
        before = list(self.holds)
        violations = await self._check_free()
        violations += await self._check_turns()
        return [
            *violations,
            *check_one_holder(before, self.history, self.was_wiped),
            *check_numbers(self.holds, self.history, self.was_wiped),
            *check_waits(before, self.history),
        ]

    async def _check_free(self) -> Violations:
        """Every lock is to be had through every member; once given back it is free."""
        violations: Violations = []
        for key in KEYS:
            for number, member in enumerate(self.targets()):
                wait = 0.0 if number else FINAL_WAIT
                hold = await self._take(member, key, wait)
                if hold.outcome is not Outcome.OK:
                    violations.append(f"{key} is not to be had through {member} within {wait} s")
        return violations

    async def _take(self, member: MemberHandle, key: str, wait: float) -> Hold:
        hold = Hold(key, member.index, 3.0, wait)
        self.holds.append(hold)
        await member.run(lambda node: self._hold(node, hold, 0.0, renews=False))
        return hold

    async def _check_turns(self) -> Violations:
        """Those who wait get a lock in the order in which they began to."""
        members, key = self.targets(), KEYS[0]
        waiting = [Hold(key, member.index, 3.0, FINAL_WAIT) for member in members]
        first = Hold(key, members[0].index, 3.0, 0.0)

        async def wait(number: int, member: MemberHandle) -> None:
            await self.cluster.sleep(QUEUE_GAP * (number + 1))
            await member.run(lambda node: self._hold(node, waiting[number], 0.0, renews=False))

        async with asyncio.TaskGroup() as group:
            # Held until the last one waits.
            seconds = QUEUE_GAP * (len(members) + 1)
            group.create_task(
                members[0].run(lambda node: self._hold(node, first, seconds, renews=False))
            )
            for number, member in enumerate(members):
                group.create_task(wait(number, member))
        self.holds += [first, *waiting]
        tokens = [hold.token for hold in (first, *waiting)]
        if tokens == sorted(tokens) and all(tokens):
            return []
        return [f"{key} was given in the order {tokens} to those who waited one after the other"]


def _granted(holds: list[Hold], key: str) -> list[Hold]:
    granted = [hold for hold in holds if hold.key == key and hold.outcome is Outcome.OK]
    return sorted(granted, key=lambda hold: hold.ended_at)


def check_one_holder(holds: list[Hold], history: History, was_wiped: Wiped) -> Violations:
    """No two clients take themselves for the holder of a lock at one instant."""
    violations: Violations = []
    for key in KEYS:
        granted = _granted(holds, key)
        for number, later in enumerate(granted):
            for earlier in granted[:number]:
                if earlier.until > later.ended_at and not _may_overlap(
                    earlier, later, history, was_wiped
                ):
                    violations.append(f"two holders at once: {earlier}; {later}")
    return violations


def _may_overlap(earlier: Hold, later: Hold, history: History, was_wiped: Wiped) -> bool:
    at = later.ended_at
    if was_wiped(earlier.key, earlier.started_at, at):
        return True
    if history.was_stalled(earlier.member, at - RESUME_SLACK, at):
        return True  # Only its number protects.
    spans = [span for span in history.divided if span.overlaps(earlier.started_at, at)]
    if not spans:
        return False
    told_by = max(span.end for span in spans) + max(LEASES) + ANSWER_SLACK
    return min(earlier.until, later.until) <= told_by


def check_numbers(holds: list[Hold], history: History, was_wiped: Wiped) -> Violations:
    """Numbers of a lock rise from holder to holder; none is given twice."""
    violations: Violations = []
    for key in KEYS:
        granted = _granted(holds, key)
        for number, later in enumerate(granted):
            if history.was_divided(later.started_at, later.ended_at):
                continue  # Clocks decide which side's numbers are higher.
            before = [
                hold
                for hold in granted[:number]
                if hold.token >= later.token and not was_wiped(key, hold.started_at, later.ended_at)
            ]
            if before:
                violations.append(f"numbers go back: {before[-1]}; {later}")
    return violations


def check_waits(holds: list[Hold], history: History) -> Violations:
    """Whoever asks is answered in time, unless its own member stalled."""
    violations: Violations = []
    for hold in holds:
        latest = hold.started_at + hold.wait + OPERATION_TIMEOUT + ANSWER_SLACK
        stalled = history.was_stalled(hold.member, hold.started_at, hold.ended_at)
        if latest < hold.ended_at < math.inf and not stalled:
            violations.append(
                f"{hold}: asked at {hold.started_at:.3f}, answered after {latest:.3f}"
            )
    return violations
