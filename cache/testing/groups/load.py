"""Clients of `node.consistent` through all members, and what they were told: one history for each structure.

A call that raised `RejectedError` was not applied, one that raised anything else may have been, and so may
one whose member died under it. The models of `cache.testing.models` say what one client at a time would see.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from random import Random
from types import MappingProxyType
from typing import Any, Final

from cache.cluster.node import Node
from cache.errors import CacheError, RejectedError
from cache.testing.cluster import TestCluster
from cache.testing.groups.locks import LockCallers
from cache.testing.history import History, Operation, Outcome, Recorder
from cache.testing.linearizability import Verdict, check
from cache.testing.members import MemberHandle
from cache.testing.models import CasMap, Counter, Log, Model, Register
from cache.testing.sim.world import ProcessKilledError

CLIENTS: Final = 4
OPERATION_TIMEOUT: Final = 2.0
"""Seconds; short, so that some calls end before the group has a leader again."""

ANSWER_SLACK: Final = 0.5
"""Seconds by which an answer may come after the time for it is over."""

LEASE_PART: Final = 0.3
"""Part of the reads that go by the leader's lease."""

KEYS: Final = ("a", "b", "c")
STEPS_MAX: Final = 300_000
"""Of the check of one key; more is undecided."""

MODELS: Final[Mapping[str, Callable[[], Model]]] = MappingProxyType(
    {"register": Register, "map": CasMap, "counter": Counter, "log": Log}
)


async def _add(node: Node) -> int:
    return await node.consistent.counter("n").add(1)


async def _get(node: Node) -> int:
    return await node.consistent.counter("n").get()


_FINALLY: Final[Mapping[str, Callable[[Node], Coroutine[Any, Any, int]]]] = MappingProxyType(
    {"add": _add, "get": _get}
)
"""What has to be done by every member in the end.  Any: what coroutines send and yield."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a structure."""

    structure: str
    name: str
    argument: Any  # Any: as the models take it
    run: Callable[[Node], Awaitable[Any]]  # Any: as the models know it


class GroupClients:
    """The clients of one run; see `Clients` for the methods."""

    def __init__(self, cluster: TestCluster, history: History, seed: int, pace: float) -> None:
        self.cluster = cluster
        self.history = history
        self.seed = seed
        self.pace = pace
        self.locks = LockCallers(cluster, history)
        self._targets: Callable[[], list[MemberHandle]] = lambda: cluster.members
        self._stopped = False
        self._recorders: dict[str, list[Recorder]] = {name: [] for name in MODELS}
        self._undecided_count = 0

    def aim(self, targets: Callable[[], list[MemberHandle]]) -> None:
        """Let the clients use only these members from now on."""
        self._targets = targets

    async def run(self) -> None:
        """Let the clients work until `stop`."""
        async with asyncio.TaskGroup() as group:
            for number in range(CLIENTS):
                group.create_task(self._client(number), name=f"client{number}")
                group.create_task(self._caller(number), name=f"caller{number}")

    def stop(self) -> None:
        """Let each client end after its present operation."""
        self._stopped = True

    def keys(self) -> list[str]:
        """See `Clients`: nothing is in partitions."""
        return []

    def partition_of(self, key: str, partition_count: int) -> int:
        """See `Clients`: nothing is in partitions."""
        raise NotImplementedError("groups have no partitions")

    # -- work --------------------------------------------------------------------------------

    async def _client(self, number: int) -> None:
        rng = Random(f"consistent/{number}/{self.seed}")
        recorders = {name: Recorder(f"c{number}", clock=self.cluster.now) for name in MODELS}
        for name, recorder in recorders.items():
            self._recorders[name].append(recorder)
        caller = _Caller(rng, number)
        while not self._stopped:
            await self.cluster.sleep(rng.uniform(0, 2 * self.pace))
            if members := self._targets():
                call = caller.draw()
                await self._note(rng.choice(members), call, recorders[call.structure], caller)

    async def _caller(self, number: int) -> None:
        rng = Random(f"locks/{number}/{self.seed}")
        while not self._stopped:
            await self.cluster.sleep(rng.uniform(0, 4 * self.pace))
            if members := self._targets():
                await self.locks.call(rng.choice(members), rng)

    async def _note(
        self, member: MemberHandle, call: Call, recorder: Recorder, caller: _Caller
    ) -> None:
        key = "" if call.structure in ("counter", "log") else caller.key
        operation = recorder.begin(call.name, key, call.argument)
        operation.member = member.index

        async def run(node: Node) -> Any:  # Any: as the model knows it
            return await call.run(node)

        try:
            result = await member.run(run)
        except RejectedError:
            recorder.end(operation, Outcome.FAIL)
        except (CacheError, ProcessKilledError):
            operation.argument = call.argument
        else:
            recorder.end(operation, Outcome.OK, result)
            caller.told(call, result)

    # -- the end -----------------------------------------------------------------------------

    async def finish(self) -> None:
        """Write, read and lock through every member, once faults are over; each has to be done.

        Raises:
            CacheError: something is not.
        """
        for member in self.cluster.members:
            client = f"end{member.index}"
            recorder = Recorder(client, clock=self.cluster.now)
            self._recorders["counter"].append(recorder)
            for name, argument in (("add", 1), ("get", None)):
                operation = recorder.begin(name, "", argument)
                recorder.end(operation, Outcome.OK, await member.run(_FINALLY[name]))
            await self.locks.finish(member)

    def operations(self, structure: str) -> list[Operation]:
        """Return what was called of one structure."""
        return [one for recorder in self._recorders[structure] for one in recorder.operations]

    async def check(self) -> list[str]:
        """Return what breaks a promise of the structures."""
        violations = self.locks.check()
        for name, model in MODELS.items():
            report = check(
                self.operations(name), model(), steps_max=STEPS_MAX, timeout=math.inf, shrink=True
            )
            violations += [f"{name}: {wrong}" for wrong in report.of(Verdict.VIOLATION)]
            self._undecided_count += len(report.of(Verdict.UNDECIDED))
        return [*violations, *self._check_times()]

    def _check_times(self) -> list[str]:
        """Whoever calls is answered in time, unless its own member stalled."""
        latest = OPERATION_TIMEOUT + ANSWER_SLACK
        return [
            f"{one} through member {one.member}: answered after {one.ended_at - one.started_at:.2f} s"
            for name in MODELS
            for one in self.operations(name)
            if latest < one.ended_at - one.started_at < math.inf
            and not self.history.was_stalled(one.member, one.started_at, one.ended_at)
        ]

    def counts(self) -> dict[str, int]:
        """Return how many operations ended how, and how many keys nobody could decide about."""
        counts = self.locks.counts()
        keys = 0
        for name in MODELS:
            operations = self.operations(name)
            keys += len({one.key for one in operations})
            for outcome in Outcome:
                told = sum(one.outcome is outcome for one in operations)
                counts[f"{name} {outcome.value}"] = told
        return {**counts, "histories": keys, "histories undecided": self._undecided_count}


class _Caller:
    """What one client calls, and what it remembers of the answers."""

    def __init__(self, rng: Random, number: int) -> None:
        self.key = KEYS[0]
        self._rng = rng
        self._client = number
        self._count = 0
        self._seen: dict[tuple[str, str], Any] = {}  # Any: values
        self._end = 0
        """Of the log, as far as known."""

    def told(self, call: Call, result: Any) -> None:  # Any: the answer
        """Remember what a key held last, for the next exchange."""
        if call.name in ("read", "get"):
            self._seen[call.structure, self.key] = result
        if call.structure == "log" and call.name in ("append", "length"):
            self._end = result

    def draw(self) -> Call:
        """Return the next call."""
        self._count += 1
        self.key = self._rng.choice(KEYS)
        value = f"{self._client}.{self._count}"
        match self._rng.choice(tuple(MODELS)):
            case "register":
                return self._register(value)
            case "map":
                return self._map(value)
            case "counter":
                return self._counter()
            case _:
                return self._log(value)

    def _register(self, value: str) -> Call:
        name, key = f"r-{self.key}", ("register", self.key)
        lease = self._rng.random() < LEASE_PART
        match self._rng.choice(("read", "read", "write", "cas")):
            case "read":
                return Call(
                    "register",
                    "read",
                    None,
                    lambda node: node.consistent.register(name).get(lease=lease),
                )
            case "write":
                return Call(
                    "register",
                    "write",
                    value,
                    lambda node: node.consistent.register(name).set(value),
                )
            case _:
                old = self._seen.get(key)
                return Call(
                    "register",
                    "cas",
                    (old, value),
                    lambda node: node.consistent.register(name).compare_and_set(old, value),
                )

    def _map(self, value: str) -> Call:
        key = self.key
        lease = self._rng.random() < LEASE_PART
        name = self._rng.choice(("get", "get", "set", "delete", "put_if_absent", "compare_and_set"))
        match name:
            case "get":
                return Call(
                    "map", name, None, lambda node: node.consistent.map("m").get(key, lease=lease)
                )
            case "set":
                return Call(
                    "map", name, value, lambda node: node.consistent.map("m").set(key, value)
                )
            case "delete":
                return Call("map", name, None, lambda node: node.consistent.map("m").delete(key))
            case "put_if_absent":
                return Call(
                    "map",
                    name,
                    value,
                    lambda node: node.consistent.map("m").put_if_absent(key, value),
                )
            case _:
                old = self._seen.get(("map", key))
                return Call(
                    "map",
                    name,
                    (old, value),
                    lambda node: node.consistent.map("m").compare_and_set(key, old, value),
                )

    def _counter(self) -> Call:
        if self._rng.random() < 0.5:
            amount = self._rng.choice((1, 2, 3))
            return Call(
                "counter", "add", amount, lambda node: node.consistent.counter("n").add(amount)
            )
        lease = self._rng.random() < LEASE_PART
        return Call(
            "counter", "get", None, lambda node: node.consistent.counter("n").get(lease=lease)
        )

    def _log(self, value: str) -> Call:
        offset = self._rng.randint(0, self._end + 1)
        lease = self._rng.random() < LEASE_PART

        async def read(node: Node) -> Any:  # Any: the record
            page = await node.consistent.log("l").read(offset, 1, lease=lease)
            return page.records[0].value if page.records else None

        async def length(node: Node) -> int:
            return (await node.consistent.log("l").read(0, 1)).end

        match self._rng.choice(("append", "append", "read", "length")):
            case "append":
                return Call(
                    "log", "append", value, lambda node: node.consistent.log("l").append(value)
                )
            case "read":
                return Call("log", "read", offset, read)
            case _:
                return Call("log", "length", None, length)
