"""Join, drain, promotion and merge are cut into their messages, and a member dies at each one.

First a run without a crash lists the steps: every kind of message between every two members, its first
and its last occurrence. Then, for each step, the same seed runs again and the sender, the receiver or
the coordinator (where that is a third member) is killed the moment the message arrives; the receiver
before it acts on it. Nothing acknowledged may be missing afterwards.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

import pytest

from cache.cluster.transport.inbound import InboundConnection
from cache.cluster.wire import frames
from cache.cluster.wire.encoding import decode_request
from cache.errors import CacheError
from cache.testing.cluster import TestCluster
from cache.testing.nemesis import is_settled
from cache.testing.running import run_cluster
from cache.testing.sim.world import ProcessKilledError

KEYS: Final = 60
SEED: Final = 5
STEPS: Final = (
    "PushTable",
    "TableChanges",
    "FetchTable",
    "CaughtUp",
    "Release",
    "Replicate",
    "CopyEntries",
    "FetchDigests",
    "FetchBuckets",
    "FetchVersions",
    "FetchEntries",
    "Offer",
)
"""Kinds of messages that make up the work; the rest is gossip and operations of the application."""

Act = Callable[[TestCluster], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Step:
    """The `number`-th message of this kind from one member to another."""

    kind: str
    source: str
    target: str
    number: int

    def concerns(self, victim: str, coordinator: str) -> bool:
        """Return whether killing the member in this role is another run than killing the two others."""
        return victim != "coordinator" or coordinator not in (self.source, self.target)


@dataclass(slots=True)
class Watch:
    """Sees every request arrive; at one step it kills somebody."""

    cluster: TestCluster | None = None
    watching: bool = False
    at: Step | None = None
    victim: str = ""
    counts: dict[tuple[str, str, str], int] = field(default_factory=dict)
    coordinators: dict[Step, str] = field(default_factory=dict)
    """Who made the tables when a step came, as its receiver saw it."""
    killed: str = ""

    def arrived(self, connection: InboundConnection, body: bytes) -> bool:
        """Note a request; return whether its receiver still lives."""
        if not self.watching or self.cluster is None:
            return True
        kind = type(decode_request(body)).__name__
        source = str(connection._peer.member or "").split("#")[0]
        target = _here()
        if kind not in STEPS or not source:
            return True
        place = (kind, source, target)
        number = self.counts[place] = self.counts.get(place, 0) + 1
        step = Step(kind, source, target, number)
        coordinator = self.coordinators[step] = self._coordinator(target)
        if self.at != step or self.killed:
            return True
        names = {"source": source, "target": target, "coordinator": coordinator}
        self.killed = names[self.victim]
        self._kill(self.killed)
        return self.killed != target

    def _coordinator(self, target: str) -> str:
        assert self.cluster is not None, "watching a cluster"
        world: Any = self.cluster._world  # Any: the simulated world
        nodes = [backend.node for backend in world._members.values()]
        # A member that still starts is not listed yet: ask another one.
        seen = next((node for node in nodes if node.name == target), nodes[0])
        return str(seen.inspect("status")["coordinator"]).split("#")[0]

    def _kill(self, name: str) -> None:
        assert self.cluster is not None, "watching a cluster"
        world: Any = self.cluster._world  # Any: the simulated world
        for index, backend in list(world._members.items()):
            if backend.node.name == name:
                self.cluster._members.pop(index, None)
                world._members.pop(index).process.kill()


def _here() -> str:
    loop: Any = asyncio.get_running_loop()  # Any: the simulator's loop knows its process
    return str(loop.lane.name).split(".")[0]


async def _fill(cluster: TestCluster) -> None:
    await cluster.member(0).map("users").set_many({f"k{n}": n for n in range(KEYS)})


async def _join(cluster: TestCluster) -> None:
    await cluster.add_member()


async def _drain(cluster: TestCluster) -> None:
    await cluster.remove_member(1)


async def _promote(cluster: TestCluster) -> None:
    await cluster.kill(0)


async def _split(cluster: TestCluster) -> None:
    cluster.partition([0, 1], [2, 3])

    async def divided() -> bool:
        for member in cluster.members:
            if len(await member.members()) != 2:
                return False
        settled = [await member.inspect("status") for member in cluster.members]
        return not any(status["under_replicated"] for status in settled)

    await cluster.eventually(divided, what="two sides")
    for index in (0, 2):
        side = {f"side{index}-{n}": n for n in range(KEYS)}
        await cluster.member(index).map("users").set_many(side)
    await cluster.eventually(divided, what="two sides with two copies each")


async def _merge(cluster: TestCluster) -> None:
    cluster.heal()


async def _nothing(cluster: TestCluster) -> None:
    """Nothing to prepare."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """What happens, to how many members."""

    act: Act
    size: int
    copies: int
    expected: tuple[str, ...] = ("k",)
    prepare: Act = _nothing


SCENARIOS: Final = {
    "join": Scenario(_join, 3, 2),
    "drain": Scenario(_drain, 4, 2),
    "promotion": Scenario(_promote, 5, 3),
    "merge": Scenario(_merge, 4, 2, ("k", "side0-", "side2-"), _split),
}


def _run(scenario: Scenario, watch: Watch) -> list[str]:
    """Run a scenario; return what is missing in the end."""
    missing: list[str] = []

    async def body(cluster: TestCluster) -> None:
        watch.cluster = cluster
        await _fill(cluster)
        await cluster.wait_for_convergence()
        await scenario.prepare(cluster)
        watch.watching = True
        try:
            await scenario.act(cluster)
        except (CacheError, ProcessKilledError, KeyError):
            assert watch.killed, "only the crash may make it fail"
        # Who is still there is known only once the step has come.
        await cluster.eventually(lambda: is_settled(cluster.members), what="one cluster")
        watch.watching = False
        for member in cluster.members:
            for prefix in scenario.expected:
                wanted = {f"{prefix}{n}": n for n in range(KEYS)}
                found = await member.map("users").get_many(list(wanted))
                missing.extend(f"{k} through {member.name}" for k in wanted if k not in found)

    run_cluster(
        body,
        world="simulated",
        size=scenario.size,
        seed=SEED,
        replica_count=scenario.copies,
        partition_count=8,
    )
    return missing


def _steps_of(scenario: Scenario, victim: str) -> list[Step]:
    watch = Watch()
    with pytest.MonkeyPatch.context() as patch:
        _install(patch, watch)
        assert [] == _run(scenario, watch)
    first = [Step(*place, 1) for place in watch.counts]
    last = [Step(*place, count) for place, count in watch.counts.items() if count > 1]
    assert len(first) >= 8
    return [s for s in (*first, *last) if s.concerns(victim, watch.coordinators[s])]


def _install(patch: pytest.MonkeyPatch, watch: Watch) -> None:
    receive = InboundConnection.receive

    def watched(connection: InboundConnection, kind: int, request_id: int, body: bytes) -> None:
        if kind != frames.REQUEST or watch.arrived(connection, body):
            receive(connection, kind, request_id, body)

    patch.setattr(InboundConnection, "receive", watched)


@pytest.mark.sim
@pytest.mark.parametrize("victim", ["source", "target", "coordinator"])
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_crash_at_any_step_loses_nothing(
    name: str, victim: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every step of the work, and each of the members it concerns: 100 % of the cells."""
    scenario = SCENARIOS[name]
    steps = _steps_of(scenario, victim)
    lost: list[str] = []
    killed = 0
    for step in steps:
        watch = Watch(at=step, victim=victim)
        with monkeypatch.context() as patch:
            _install(patch, watch)
            missing = _run(scenario, watch)
        killed += bool(watch.killed)
        lost += [f"{step} {victim}: {what}" for what in missing[:3]]

    assert [] == lost
    assert len(steps) == killed > 0
