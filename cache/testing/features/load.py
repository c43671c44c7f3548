"""The load of a campaign that uses features: locks, reliable topics, events of entries, a store behind a map.

Which of them a run uses is drawn from its seed, so that some runs have one thing to fear, others all of them.

Source: Groce et al., Swarm Testing, ISSTA 2012.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Final

from cache.testing.cluster import TestCluster
from cache.testing.features.base import Feature
from cache.testing.features.behind import MAP as BEHIND_MAP
from cache.testing.features.behind import Behind, draw_store
from cache.testing.features.events import Events
from cache.testing.features.locks import Locks
from cache.testing.features.topics import Topics
from cache.testing.history import History
from cache.testing.members import MemberHandle

NAMES: Final = ("locks", "topics", "events", "behind")


class Features:
    """The clients of some features; see `Clients` for the methods.

    Args:
        names: which features.
    """

    def __init__(self, names: Sequence[str], seed: int) -> None:
        self._names = names
        self._seed = seed
        self._database, self._store = draw_store(seed)
        self._features: dict[str, Feature] = {}
        self._targets: Callable[[], list[MemberHandle]] = list

    def settings(self) -> dict[str, Any]:
        """Return the settings of members.  # Any: fields of ClusterConfig."""
        return {"stores": {BEHIND_MAP: self._store}} if "behind" in self._names else {}

    def bind(self, cluster: TestCluster, history: History, pace: float) -> Features:
        """Use this cluster, and this history."""
        self._targets = lambda: cluster.members
        given = (cluster, history, self._seed, pace)
        for name in self._names:
            feature = self._features[name] = self._make(name, given)
            feature.targets = self._choose_from
        return self

    def aim(self, targets: Callable[[], list[MemberHandle]]) -> None:
        """Let the clients use only these members from now on."""
        self._targets = targets

    def _choose_from(self) -> list[MemberHandle]:
        return self._targets()

    def _make(self, name: str, given: tuple[TestCluster, History, int, float]) -> Feature:
        match name:
            case "locks":
                return Locks(*given)
            case "topics":
                return Topics(*given)
            case "events":
                return Events(*given)
            case _:
                return Behind(*given, database=self._database, config=self._store)

    async def run(self) -> None:
        """Let the clients work until `stop`."""
        async with asyncio.TaskGroup() as group:
            for name, feature in self._features.items():
                group.create_task(feature.run(), name=name)

    def stop(self) -> None:
        """Let each client end after its present operation."""
        for feature in self._features.values():
            feature.stop()

    def keys(self) -> list[str]:
        """Return the names of everything that may be lost with a partition."""
        return [key for feature in self._features.values() for key in feature.names()]

    def partition_of(self, key: str, partition_count: int) -> int:
        """Return where one of them is kept."""
        name = next(name for name, f in self._features.items() if key in f.names())
        return self._features[name].partition_of(key, partition_count)

    async def check(self) -> list[str]:
        """Look at the end, once faults are over; return what breaks a promise."""
        violations = []
        for feature in self._features.values():
            violations += await feature.check()
        return violations

    def counts(self) -> dict[str, int]:
        """Return how many operations ended how."""
        return {
            name: count
            for feature in self._features.values()
            for name, count in feature.counts().items()
        }


def draw_features(seed: int) -> tuple[str, ...]:
    """Draw which features a run uses: one at least."""
    rng = Random(f"features/{seed}")
    names = tuple(name for name in NAMES if rng.random() < 0.5)
    return names or (rng.choice(NAMES),)
