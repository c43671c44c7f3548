"""Another load for a campaign: functions that run on owners, compare-and-set, and scans, with their checks.

A ledger is a list that clients append to, each item once, by an entry processor; a ladder is a number that
they climb by compare-and-set; the constants are keys that nobody writes, so that every scan has to list each
of them once.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from cache.cluster.node import Node
from cache.cluster.structures.processors import MutableEntry
from cache.testing.clients import place_of
from cache.testing.cluster import TestCluster
from cache.testing.history import History, Outcome
from cache.testing.load import MAP, outcome_of
from cache.testing.members import MemberHandle

APPENDERS: Final = 3
CLIMBERS: Final = 2
SCANNERS: Final = 1
LEDGERS: Final = tuple(f"ledger{number}" for number in range(6))
LADDERS: Final = tuple(f"ladder{number}" for number in range(3))
CONSTANTS: Final = tuple(f"constant{number}" for number in range(120))
CONSTANT_PREFIX: Final = "constant"
APPEND: Final = "ledgers.append"
SETUP: Final = "cache.testing.ledgers:setup"


def append(entry: MutableEntry, item: str) -> int:
    """Add an item to a list; return its new length."""
    items = [*(entry.value or ()), item]
    entry.set(items)
    return len(items)


def setup(node: Node) -> None:
    """Let a node run `append`."""
    node.register_processor(APPEND, append)


@dataclass(slots=True)
class Scan:
    """One scan of the constants that came to its end."""

    started_at: float
    ended_at: float
    member: int
    keys: list[str]


@dataclass(slots=True)
class Ledgers:
    """The clients, and what they were told."""

    cluster: TestCluster
    history: History
    seed: int
    pace: float
    targets: Callable[[], list[MemberHandle]] = field(init=False)
    """Members that clients may use now."""
    appended: dict[str, dict[str, Outcome]] = field(default_factory=dict)
    """How each append ended, by ledger and item."""
    climbed: dict[str, Counter[Outcome]] = field(default_factory=dict)
    scans: list[Scan] = field(default_factory=list)
    _stopped: bool = False

    def __post_init__(self) -> None:
        self.targets = lambda: self.cluster.members
        self.appended = {key: {} for key in LEDGERS}
        self.climbed = {key: Counter() for key in LADDERS}

    def aim(self, targets: Callable[[], list[MemberHandle]]) -> None:
        """Let the clients use only these members from now on."""
        self.targets = targets

    async def run(self) -> None:
        """Let the clients work until `stop`."""
        await self.cluster.members[0].map(MAP).set_many(dict.fromkeys(CONSTANTS, 1))
        await self.cluster.members[0].map(MAP).set_many(dict.fromkeys(LADDERS, 0))
        async with asyncio.TaskGroup() as group:
            for number in range(APPENDERS):
                group.create_task(self._work(f"appender{number}", self._append))
            for number in range(CLIMBERS):
                group.create_task(self._work(f"climber{number}", self._climb))
            for number in range(SCANNERS):
                group.create_task(self._work(f"scanner{number}", self._scan))

    def stop(self) -> None:
        """Let each client end after its present operation."""
        self._stopped = True

    def keys(self) -> list[str]:
        """Return every key."""
        return [*LEDGERS, *LADDERS, *CONSTANTS]

    def partition_of(self, key: str, partition_count: int) -> int:
        """Return where a key is kept."""
        return place_of(MAP, key, partition_count)

    async def _work(
        self, name: str, act: Callable[[Random, str, MemberHandle], Awaitable[None]]
    ) -> None:
        rng = Random(f"{name}/{self.seed}")
        number = 0
        while not self._stopped:
            if members := self.targets():
                number += 1
                await act(rng, f"{name}-{number}", rng.choice(members))
            await self.cluster.sleep(rng.uniform(0, self.pace))

    async def _append(self, rng: Random, item: str, member: MemberHandle) -> None:
        key = rng.choice(LEDGERS)
        self.appended[key][item] = Outcome.UNKNOWN
        call = member.map(MAP).execute(key, APPEND, item)
        self.appended[key][item], _ = await outcome_of(call)

    async def _climb(self, rng: Random, item: str, member: MemberHandle) -> None:
        key, entries = rng.choice(LADDERS), member.map(MAP)
        outcome, seen = await outcome_of(entries.get(key))
        if outcome is Outcome.OK and seen is not None:
            outcome, took = await outcome_of(entries.compare_and_set(key, seen, seen + 1))
            self.climbed[key][outcome if took is not False else Outcome.FAIL] += 1

    async def _scan(self, rng: Random, item: str, member: MemberHandle) -> None:
        started_at = self.cluster.now()
        outcome, keys = await outcome_of(member.map(MAP).scan(CONSTANT_PREFIX))
        if outcome is Outcome.OK:
            self.scans.append(Scan(started_at, self.cluster.now(), member.index, keys))

    # -- the end -----------------------------------------------------------------------------

    async def check(self) -> list[str]:
        """Read everything, once faults are over; return what breaks a promise."""
        violations = self._check_scans()
        if self.history.divided or self.history.wipes:
            return violations  # Two sides of a split cannot be merged by "last writer wins".
        entries = self.targets()[0].map(MAP)
        for key, appended in self.appended.items():
            violations += check_ledger(key, appended, await entries.get(key) or [])
        for key, counts in self.climbed.items():
            violations += check_ladder(key, counts, await entries.get(key))
        return violations

    def _check_scans(self) -> list[str]:
        violations = []
        for scan in self.scans:
            spans = self.history.divided
            excused = any(span.overlaps(scan.started_at, scan.ended_at) for span in spans)
            wiped = {k for w in self.history.wipes if w.at <= scan.ended_at for k in w.keys}
            if not excused:
                violations += check_scan(scan, wiped)
        return violations

    def counts(self) -> dict[str, int]:
        """Return how many operations ended how."""
        outcomes = [outcome for appended in self.appended.values() for outcome in appended.values()]
        outcomes += [one for counts in self.climbed.values() for one in counts.elements()]
        named = Counter(outcome.name.lower() for outcome in outcomes)
        return {**named, "scans": len(self.scans)}


def check_ledger(key: str, appended: dict[str, Outcome], items: list[Any]) -> list[str]:
    """Acknowledged items are there once, unknown ones once or not at all, and no others."""
    violations = []
    for item, count in sorted(Counter(items).items()):
        outcome = appended.get(item)
        if outcome not in (Outcome.OK, Outcome.UNKNOWN):
            violations.append(f"{key} holds {item!r}, whose append was {outcome}")
        if count > 1:
            violations.append(f"{key} holds {item!r} {count} times")
    present = dict.fromkeys(items)
    lost = [i for i, o in appended.items() if o is Outcome.OK and i not in present]
    return [*violations, *(f"{key} lost {item!r}, which was acknowledged" for item in lost)]


def check_ladder(key: str, counts: Counter[Outcome], final: Any) -> list[str]:
    """Each acknowledged step counts once, each unknown one at most once."""
    certain, unknown = counts[Outcome.OK], counts[Outcome.UNKNOWN]
    if isinstance(final, int) and certain <= final <= certain + unknown:
        return []
    return [f"{key} ends at {final}: {certain} steps were acknowledged, {unknown} unknown"]


def check_scan(scan: Scan, wiped: set[str]) -> list[str]:
    """Each constant is listed exactly once; those that were destroyed may be missing."""
    listed = Counter(scan.keys)
    where = (
        f"the scan through member {scan.member} from {scan.started_at:.3f} to {scan.ended_at:.3f}"
    )
    missing = [key for key in CONSTANTS if not listed[key] and key not in wiped]
    repeated = sorted(key for key, count in listed.items() if count > 1)
    violations = [f"{where} misses {missing[:5]}"] if missing else []
    return violations + ([f"{where} repeats {repeated[:5]}"] if repeated else [])
