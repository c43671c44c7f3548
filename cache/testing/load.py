"""The load of a campaign: clients that write, read, count, let keys expire, and note every answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any, Final

from cache.errors import CacheError, RejectedError
from cache.testing.checkers import check_history
from cache.testing.clients import place_of
from cache.testing.cluster import TestCluster
from cache.testing.history import DELETE, GET, INCR, SET, History, Operation, Outcome
from cache.testing.members import MapHandle, MemberHandle
from cache.testing.sim.world import ProcessKilledError

MAP: Final = "load"
WRITERS: Final = 3
READERS: Final = 2
KEYS_PER_WRITER: Final = 12
COUNTERS: Final = ("c0", "c1", "c2")
FINAL_READ_TIMEOUT: Final = 30.0


class Load:
    """Clients of a cluster, and the history of what they did."""

    def __init__(
        self,
        cluster: TestCluster,
        history: History,
        seed: int,
        *,
        pace: float,
    ) -> None:
        self._cluster = cluster
        self._history = history
        self._seed = seed
        self._pace = pace
        self.targets: Callable[[], list[MemberHandle]] = lambda: cluster.members
        """Members that clients may use now."""
        self._stopped = False
        self._expiring: list[str] = []

    def aim(self, targets: Callable[[], list[MemberHandle]]) -> None:
        """Let the clients use only these members from now on."""
        self.targets = targets

    async def run(self) -> None:
        """Let the clients work until `stop`."""
        async with asyncio.TaskGroup() as group:
            for number in range(WRITERS):
                group.create_task(self._write(number), name=f"writer{number}")
            for number in range(READERS):
                group.create_task(self._read(number), name=f"reader{number}")

    def stop(self) -> None:
        """Let each client end after its present operation."""
        self._stopped = True

    def keys(self) -> list[str]:
        """Return every key that lives for ever, counters included."""
        plain = [f"w{w}-{n}" for w in range(WRITERS) for n in range(KEYS_PER_WRITER)]
        return [*plain, *COUNTERS]

    def partition_of(self, key: str, partition_count: int) -> int:
        """Return where a key is kept."""
        return place_of(MAP, key, partition_count)

    # -- clients -----------------------------------------------------------------------------

    async def _write(self, number: int) -> None:
        rng = Random(f"writer/{number}/{self._seed}")
        value = 0
        while not self._stopped:
            value += 1
            member = self._choose(rng)
            if member is not None:
                await self._one_write(rng, number, value, member)
            await self._cluster.sleep(rng.uniform(0, self._pace))

    async def _one_write(self, rng: Random, number: int, value: int, member: MemberHandle) -> None:
        entries = member.map(MAP)
        key = f"w{number}-{rng.randrange(KEYS_PER_WRITER)}"
        action = rng.random()
        if action < 0.55:
            await self._record(key, value, entries.set(key, value), member.index)
        elif action < 0.7:
            await self._delete(key, entries, member.index)
        elif action < 0.85:
            await self._count(rng.choice(COUNTERS), member)
        else:
            ttl = round(rng.uniform(0.5, 10.0), 3)
            key = f"t{number}-{value}"
            self._expiring.append(key)
            call = entries.set(key, value, ttl=ttl)
            await self._record(key, value, call, member.index, ttl=ttl)

    async def _record(
        self,
        key: str,
        value: int,
        call: Awaitable[Any],
        member: int,
        *,
        ttl: float | None = None,
    ) -> None:
        # Any: the answer does not matter.
        await self._note(Operation(SET, key, value, member=member, ttl=ttl), call)

    async def _delete(self, key: str, entries: MapHandle, member: int) -> None:
        await self._note(Operation(DELETE, key, member=member), entries.delete(key))

    async def _count(self, key: str, member: MemberHandle) -> None:
        operation = Operation(INCR, key, 1, member=member.index)
        await self._note(operation, member.map(MAP).incr(key))

    async def _note(self, operation: Operation, call: Awaitable[Any]) -> None:
        """Make the call and note how it ended; until then it counts as under way.  # Any: its answer."""
        operation.started_at = self._cluster.now()
        self._history.operations.append(operation)
        operation.outcome, operation.result = await outcome_of(call)
        operation.ended_at = self._cluster.now()

    async def _read(self, number: int) -> None:
        rng = Random(f"reader/{number}/{self._seed}")
        while not self._stopped:
            member = self._choose(rng)
            recent = self._expiring[-40:]
            if recent and rng.random() < 0.3:
                key = rng.choice(recent)
            else:
                key = f"w{rng.randrange(WRITERS)}-{rng.randrange(KEYS_PER_WRITER)}"
            if member is not None:
                await self.read(key, member)
            await self._cluster.sleep(rng.uniform(0, self._pace / 2))

    async def read(self, key: str, member: MemberHandle) -> bool:
        """Read one key through one member; return whether there was an answer."""
        operation = Operation(GET, key, member=member.index)
        await self._note(operation, member.map(MAP).get(key))
        return operation.outcome is Outcome.OK

    def _choose(self, rng: Random) -> MemberHandle | None:
        members = self.targets()
        return rng.choice(members) if members else None

    # -- the end -----------------------------------------------------------------------------

    async def check(self) -> list[str]:
        """Read every key through every member, once faults are over; return what breaks a promise."""
        await self._read_everything()
        return check_history(self._history)

    def counts(self) -> dict[str, int]:
        """Return how many operations ended how."""
        return self._history.counts()

    async def _read_everything(self) -> None:
        for member in self.targets():
            for key in (*self.keys(), *self._expiring):
                if key not in COUNTERS:
                    answered = await self.read(key, member)
                    assert answered, f"{key} cannot be read through {member} after all faults"
        for key in COUNTERS:
            final = await self.targets()[0].map(MAP).get(key, 0)
            self._history.final_counters[key] = final


async def outcome_of(call: Awaitable[Any]) -> tuple[Outcome, Any]:
    """Await a call; return how it ended, and its answer.  # Any: what the call returns."""
    try:
        return Outcome.OK, await call
    except RejectedError:
        return Outcome.FAIL, None
    except (CacheError, ProcessKilledError):
        return Outcome.UNKNOWN, None
