"""What the loads of features have in common: clients with their own randomness, that work until stopped."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from random import Random
from typing import Final

from cache.testing.cluster import TestCluster
from cache.testing.history import History
from cache.testing.members import MemberHandle

Act = Callable[[Random], Awaitable[None]]
"""One thing that a client does, from beginning to end."""

LEAVE_BOUND: Final = 30.0
"""Seconds by which the news that a leave was incomplete may come after what it destroyed."""

Violations = list[str]

Wiped = Callable[[str, float, float], bool]
"""Whether every copy of a key may have been destroyed between two instants."""


class Feature(ABC):
    """Clients of one feature, and the history of what they were told. See `Clients` for the methods."""

    def __init__(self, cluster: TestCluster, history: History, seed: int, pace: float) -> None:
        self.cluster = cluster
        self.history = history
        self.seed = seed
        self.pace = pace
        self.targets: Callable[[], list[MemberHandle]] = lambda: cluster.members
        self.stopped = False

    @abstractmethod
    def clients(self) -> Mapping[str, Act]:
        """Return what each client does, again and again, by its name."""

    @abstractmethod
    def names(self) -> list[str]:
        """Return the names of everything that may be lost with a partition."""

    @abstractmethod
    def partition_of(self, key: str, partition_count: int) -> int:
        """Return where one of them is kept."""

    @abstractmethod
    async def check(self) -> Violations:
        """Look at the end, once faults are over; return what breaks a promise."""

    @abstractmethod
    def counts(self) -> dict[str, int]:
        """Return how many operations ended how."""

    async def run(self) -> None:
        """Let the clients work until `stop`."""
        async with asyncio.TaskGroup() as group:
            for name, act in self.clients().items():
                group.create_task(self._work(name, act), name=name)

    def stop(self) -> None:
        """Let each client end after its present operation."""
        self.stopped = True

    async def _work(self, name: str, act: Act) -> None:
        rng = Random(f"{name}/{self.seed}")
        while not self.stopped:
            await act(rng)
            await self.cluster.sleep(rng.uniform(0, self.pace))

    def choose(self, rng: Random) -> MemberHandle | None:
        """Return a member for a client to go through, if there is one."""
        members = self.targets()
        return rng.choice(members) if members else None

    def was_wiped(self, key: str, start: float, end: float) -> bool:
        """Return whether every copy of a key may have been destroyed between start and end."""
        return self.history.was_wiped(key, start, end + LEAVE_BOUND)


def tally(prefix: str, names: list[str]) -> dict[str, int]:
    """Count names, each after a prefix."""
    return {f"{prefix} {name}": count for name, count in sorted(Counter(names).items())}
