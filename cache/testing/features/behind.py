"""Clients of a map that is written behind to a store that fails or is slow at times; what its card promises.

* A read through any member is answered as by any map; one of a row that only the store has gives that row or
  an error, never a miss.
* What was refused is never brought to the store.
* Versions of a key rise from write to write.
* No more waits on a member than `queue_max` for each member that takes writes.
* A member that left, and said that its leave was complete, left no write behind.

At the end, when all faults are over, the queues are empty soon, and the store's last value of each key is the
map's, which is the last that was acknowledged, or one of unknown end. A store that does not compare versions
is held to that only where nobody stood still and nothing was split.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from random import Random
from typing import Any, Final

from cache.cluster.config import StoreConfig
from cache.errors import CacheError
from cache.keys import Key
from cache.testing.checkers import check_reads
from cache.testing.clients import place_of
from cache.testing.cluster import TestCluster
from cache.testing.features.base import Act, Feature, Violations, tally
from cache.testing.history import DELETE, GET, SET, History, Operation, Outcome
from cache.testing.load import outcome_of
from cache.testing.sim.world import ProcessKilledError
from cache.testing.store import RecordingStore

MAP: Final = "behind"
WRITERS: Final = 3
READERS: Final = 2
KEYS_PER_WRITER: Final = 8
ROWS: Final = tuple(f"row-{number}" for number in range(10))
"""Keys that are in the store from the beginning, and that nobody writes."""

TROUBLE_MAX: Final = 3.0
"""Seconds that the store fails or is slow, at most, and that it is well."""

SAMPLE_INTERVAL: Final = 0.2
BACKOFF_MAX: Final = 1.0
EMPTY_BOUND: Final = 10.0
"""Seconds within which the queues are empty once faults are over."""


class Database(RecordingStore):
    """A store that remembers which version brought which value."""

    def __init__(self, *, compares: bool) -> None:
        super().__init__(compares=compares)
        self.rows.update(dict.fromkeys(ROWS, "constant"))
        self.brought: dict[Key, dict[Any, int]] = {}  # Any: values of the map
        """The lowest version under which each value of a key came."""

    async def store_many(self, items: Mapping[Key, Any], versions: Mapping[Key, int]) -> None:
        """See `MapStore`."""
        # Any: values of the map.
        await super().store_many(items, versions)
        for key, value in items.items():
            known = self.brought.setdefault(key, {})
            known[value] = min(versions[key], known.get(value, versions[key]))


def draw_store(seed: int) -> tuple[Database, StoreConfig]:
    """Draw how a map goes with its store."""
    rng = Random(f"store/{seed}")
    database = Database(compares=rng.random() < 0.7)
    config = StoreConfig(
        store=database,
        write="behind",
        timeout=1.0,
        delay=rng.choice((0.1, 0.5, 1.5)),
        batch_max=rng.choice((1, 4, 256)),
        queue_max=rng.choice((3, 6, 65_536)),
        backoff_max=BACKOFF_MAX,
    )
    return database, config


class Behind(Feature):
    """The clients, and what they were told."""

    def __init__(
        self,
        cluster: TestCluster,
        history: History,
        seed: int,
        pace: float,
        *,
        database: Database,
        config: StoreConfig,
    ) -> None:
        super().__init__(cluster, history, seed, pace)
        self.database = database
        self.config = config
        self.operations: list[Operation] = []
        self.violations: Violations = []
        self._value = 0
        self._members: dict[int, None] = {}
        """Who may have taken writes."""

    def clients(self) -> Mapping[str, Act]:
        """See `Feature`."""
        acts: dict[str, Act] = {f"behind writer{n}": self._writing(n) for n in range(WRITERS)}
        acts |= {f"behind reader{n}": self._read for n in range(READERS)}
        return acts | {"database": self._trouble, "queue": self._look}

    def names(self) -> list[str]:
        """See `Feature`."""
        return [key for number in range(WRITERS) for key in _keys_of(number)]

    def partition_of(self, key: str, partition_count: int) -> int:
        """See `Feature`."""
        return place_of(MAP, key, partition_count)

    def counts(self) -> dict[str, int]:
        """See `Feature`."""
        return {
            **tally("behind", [f"{o.name} {o.outcome.value}" for o in self.operations]),
            "writes brought to the store": sum(map(len, self.database.writes)),
        }

    # -- clients -----------------------------------------------------------------------------

    def _writing(self, number: int) -> Act:
        async def act(rng: Random) -> None:
            member = self.choose(rng)
            if member is None:
                return
            key, entries = rng.choice(_keys_of(number)), member.map(MAP)
            if rng.random() < 0.2:
                operation = Operation(DELETE, key, member=member.index)
                await self._note(operation, entries.delete(key))
                return
            self._value += 1
            operation = Operation(SET, key, self._value, member=member.index)
            await self._note(operation, entries.set(key, self._value))

        return act

    async def _note(self, operation: Operation, call: Any) -> None:  # Any: an awaitable
        operation.started_at = self.cluster.now()
        self.operations.append(operation)
        operation.outcome, operation.result = await outcome_of(call)
        operation.ended_at = self.cluster.now()

    async def _read(self, rng: Random) -> None:
        member = self.choose(rng)
        if member is None:
            return
        key = rng.choice((*self.names(), *ROWS))
        operation = Operation(GET, key, member=member.index)
        await self._note(operation, member.map(MAP).get(key))
        if key in ROWS and operation.outcome is Outcome.OK and operation.result != "constant":
            self.violations.append(
                f"{key}, which the store has, reads {operation.result} through {member} "
                f"at {operation.started_at:.3f}"
            )

    async def _trouble(self, rng: Random) -> None:
        database = self.database
        match rng.randrange(4):
            case 0:
                database.is_down = True
            case 1:
                database.before = rng.uniform(0.0, 0.3)
            case 2:
                database.after = rng.uniform(0.0, 0.3)
            case _:
                pass  # It is well.
        await self.cluster.sleep(rng.uniform(0.0, TROUBLE_MAX))
        database.is_down = False
        database.before = database.after = 0.0

    async def _look(self, rng: Random) -> None:
        await self.cluster.sleep(SAMPLE_INTERVAL)
        self._members.update(dict.fromkeys(member.index for member in self.cluster.members))
        for index, waiting in (await self._waiting()).items():
            if waiting > self.config.queue_max * len(self._members):
                self.violations.append(
                    f"{waiting:.0f} writes wait on member {index} (queue_max "
                    f"{self.config.queue_max}) at {self.cluster.now():.3f}"
                )

    async def _waiting(self) -> dict[int, float]:
        waiting = {}
        for member in list(self.cluster.members):
            try:
                waiting[member.index] = (await member.inspect("stats"))["stores.queued"]
            except (CacheError, ProcessKilledError):
                continue
        return waiting

    # -- the end -----------------------------------------------------------------------------

    async def check(self) -> Violations:
        """See `Feature`."""

        async def is_empty() -> bool:
            return not any((await self._waiting()).values())

        await self.cluster.eventually(is_empty, within=EMPTY_BOUND, what="empty queues")
        finals: dict[str, Any] = {}  # Any: values of the map
        for member in self.targets():
            for key in self.names():
                operation = Operation(GET, key, member=member.index)
                await self._note(operation, member.map(MAP).get(key))
                assert operation.outcome is Outcome.OK, f"{key} cannot be read through {member}"
                finals[key] = operation.result
        history = replace(self.history, operations=self.operations)
        violations = [*self.violations, *check_reads(history), *check_receipts(history)]
        calm = not self.history.stalls and not self.history.divided
        if self.database.compares or calm:
            violations += check_rows(finals, self.database.rows)
        return violations + check_brought(self.database.brought, history)


def _keys_of(writer: int) -> list[str]:
    return [f"behind-{writer}-{number}" for number in range(KEYS_PER_WRITER)]


def check_rows(finals: Mapping[str, Any], rows: Mapping[Key, Any]) -> Violations:
    """The store has what the map has.  # Any: values of the map."""
    return [
        f"the store ends with {rows.get(key)} for {key}, the map with {value}"
        for key, value in finals.items()
        if rows.get(key) != value
    ]


def check_brought(brought: Mapping[Key, Mapping[Any, int]], history: History) -> Violations:
    """What was refused was never brought to the store, and versions rise.  # Any: values of the map."""
    violations: Violations = []
    by_key: dict[Key, list[Operation]] = {}
    for write in history.writes:
        if write.name == SET:
            by_key.setdefault(write.key, []).append(write)
    for key, writes in by_key.items():
        came = brought.get(key, {})
        refused = [w for w in writes if w.argument in came and w.outcome is Outcome.FAIL]
        violations += [f"the store was brought {w.argument} for {key!r}, refused" for w in refused]
        sure = [w for w in writes if w.argument in came and w.outcome is Outcome.OK]
        for earlier, later in pairwise(sure):
            risen = came[earlier.argument] < came[later.argument]
            if not risen and not history.was_divided(earlier.started_at, later.ended_at):
                violations.append(
                    f"{later.argument} of {key!r} has a version that is not above {earlier.argument}'s"
                )
    return violations


def check_receipts(history: History) -> Violations:
    """Who left completely left no write behind."""
    return [
        f"a complete leave says that {receipt['queued']} writes wait"
        for receipt in history.receipts
        if receipt["complete"] and receipt["queued"]
    ]
