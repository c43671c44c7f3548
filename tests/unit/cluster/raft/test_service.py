"""Groups on an event loop, in virtual time: writes that take a while, fail, or never end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random

import pytest

from cache.clock import Clock
from cache.cluster.config.raft import RaftConfig
from cache.cluster.raft.messages import AnyMessage, GroupId, ReplicaId
from cache.cluster.raft.outputs import Persist, Persisted, Role, RoleChanged
from cache.cluster.raft.service import RaftGroup
from cache.cluster.raft.sessions import Effect
from cache.cluster.raft.status import bootstrap
from cache.cluster.scope import Scope
from cache.errors import (
    CacheError,
    ClosedError,
    IndeterminateError,
    NoQuorumError,
    NotLeaderError,
    OperationTimeoutError,
    RejectedError,
)
from cache.testing.raft.parts import Disk, Registers
from cache.testing.sim import World, run_simulation

NAMES = ("a", "b", "c")
GROUP = GroupId("g")


class SlowDisk(Disk):
    """Storage that takes 3 ms, or fails."""

    def __init__(self, persisted: Persisted) -> None:
        super().__init__(persisted)
        self.error: OSError | None = None

    async def write_later(self, persist: Persist) -> None:
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        loop.call_later(0.003, done.set_result, None)
        await done
        if self.error is not None:
            raise self.error
        self.write(persist)


class Trio:
    """Three replicas on one loop."""

    def __init__(self, clock: Clock) -> None:
        self.scope = Scope("test")
        self.disks = {name: SlowDisk(bootstrap(NAMES)) for name in NAMES}
        self.groups: dict[str, RaftGroup] = {}
        self.registers: dict[str, Registers] = {}
        self.roles: list[tuple[str, RoleChanged]] = []
        self.cut: set[str] = set()
        self._clock = clock
        self._changed = asyncio.Event()
        for name in NAMES:
            self.start(name)

    def start(self, name: str) -> None:
        self.registers[name] = Registers()
        self.groups[name] = RaftGroup(
            GROUP,
            ReplicaId(name),
            config=RaftConfig(snapshot_interval=5, snapshot_trailing=1, waiting_max=3),
            persisted=self.disks[name].read(),
            storage=Storage(self.disks[name]),
            state=self.registers[name],
            send=lambda to, message: self.send(name, to, message),
            on_role=lambda change: self.note(name, change),
            clock=self._clock,
            rng=Random(name),
            scope=self.scope,
        )
        self.groups[name].start()

    def note(self, name: str, change: RoleChanged) -> None:
        self.roles.append((name, change))
        self._changed.set()

    def send(self, source: str, to: str, message: AnyMessage) -> None:
        def arrive() -> None:
            if source not in self.cut and to not in self.cut:
                self.groups[to].receive(message)

        asyncio.get_running_loop().call_later(0.001, arrive)

    async def leader(self) -> RaftGroup:
        await self.until(lambda: any(map(leads, self.groups.values())))
        return next(filter(leads, self.groups.values()))

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition that changes with a role."""
        async with asyncio.timeout(10.0):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def close(self) -> None:
        for group in self.groups.values():
            group.close()
        await self.scope.close()


def leads(group: RaftGroup) -> bool:
    """Return whether a replica takes part, and leads."""
    return group.halted is None and group.status().role is Role.LEADER


class Storage:
    """The seam."""

    def __init__(self, disk: SlowDisk) -> None:
        self._disk = disk

    async def write(self, group: GroupId, persist: Persist) -> None:
        assert group == GROUP
        await self._disk.write_later(persist)


def play(scene: Callable[[Trio], Awaitable[None]]) -> None:
    """Run a scene in virtual time."""

    async def inside(clock: Clock) -> None:
        trio = Trio(clock)
        try:
            await scene(trio)
        finally:
            await trio.close()

    async def scenario(world: World) -> None:
        process = world.process("p")
        await process.run(inside(process.environment().clock))

    run_simulation(1, scenario)


def test_a_command_is_answered_when_it_is_applied() -> None:
    """Through the leader, and through a follower, which forwards it."""

    async def scene(trio: Trio) -> None:
        leader = await trio.leader()
        first = await leader.propose(b"x=1", timeout=1.0)
        follower = next(group for group in trio.groups.values() if group is not leader)
        second = await follower.propose(b"x=2", timeout=1.0)
        assert (Effect.APPLIED, b"") == (first.effect, first.answer)
        assert (Effect.APPLIED, b"1") == (second.effect, second.answer)

    play(scene)


def test_a_read_waits_until_the_state_is_fresh() -> None:
    """On every replica."""

    async def scene(trio: Trio) -> None:
        await (await trio.leader()).propose(b"x=1", timeout=1.0)
        for name, group in trio.groups.items():
            await group.read(timeout=1.0)
            assert "1" == trio.registers[name].values["x"]
            await group.read(timeout=1.0, lease=True)

    play(scene)


def test_a_failed_write_halts_the_replica() -> None:
    """It votes and acknowledges no more; the others go on (LogCabin, etcd: a full disk is no crash)."""

    async def scene(trio: Trio) -> None:
        leader = await trio.leader()
        name = leader.status().replica
        trio.disks[name].error = OSError("no space left on device")
        with pytest.raises(IndeterminateError, match="no space left"):
            await leader.propose(b"x=1", timeout=1.0)
        assert leader.halted is not None
        with pytest.raises(ClosedError, match="no space left"):
            await leader.propose(b"x=2", timeout=1.0)
        other = await trio.leader()
        assert other is not leader
        assert Effect.APPLIED is (await other.propose(b"x=3", timeout=1.0)).effect

    play(scene)


def test_without_a_majority_a_write_is_unknown_and_a_read_refused() -> None:
    """Within the deadline, and not before it is known."""

    async def scene(trio: Trio) -> None:
        leader = await trio.leader()
        trio.cut = {name for name in NAMES if name != leader.status().replica}
        with pytest.raises(NoQuorumError, match=r"0\.1 s"):
            await leader.read(timeout=0.1)
        with pytest.raises(OperationTimeoutError, match=r"0\.1 s"):
            await leader.propose(b"x=1", timeout=0.1)
        with pytest.raises(IndeterminateError, match="lost"):
            await leader.propose(b"x=2", timeout=5.0)
        with pytest.raises(NotLeaderError, match="not known"):
            await leader.propose(b"x=3", timeout=5.0)
        trio.cut = set()
        assert Effect.APPLIED is (await (await trio.leader()).propose(b"y=1", timeout=2.0)).effect

    play(scene)


def test_a_request_that_timed_out_takes_no_room() -> None:
    """As many may wait as `waiting_max` says, however many waited in vain before."""

    async def scene(trio: Trio) -> None:
        leader = await trio.leader()
        trio.cut = {name for name in NAMES if name != leader.status().replica}
        for _ in range(8):
            with pytest.raises(NoQuorumError, match="no majority"):
                await leader.read(timeout=0.01)
        for number in range(8):
            with pytest.raises(OperationTimeoutError, match="no majority"):
                await leader.propose(f"x={number}".encode(), timeout=0.01)

    play(scene)


def test_all_replicas_restart_with_what_they_had() -> None:
    """From snapshot and log; the disks are all that is left."""

    async def scene(trio: Trio) -> None:
        leader = await trio.leader()
        for value in range(12):
            await leader.propose(f"x={value}".encode(), timeout=1.0)
        term = leader.status().term
        assert leader.status().snapshot_index > 0
        for name in NAMES:
            trio.groups[name].close()
            trio.start(name)
        again = await trio.leader()
        await again.read(timeout=2.0)
        assert "11" == trio.registers[again.status().replica].values["x"]
        assert again.status().term > term

    play(scene)


def test_members_change_through_the_leader_only() -> None:
    """A definite answer in each case."""

    async def scene(trio: Trio) -> None:
        leader = await trio.leader()
        me = leader.status().replica
        gone = next(name for name in NAMES if name != me)
        rest = tuple(name for name in NAMES if name != gone)
        with pytest.raises(NotLeaderError):
            await trio.groups[gone].change_members(rest, timeout=1.0)
        await leader.propose(b"x=1", timeout=1.0)
        with pytest.raises(RejectedError, match="learn first"):
            await leader.change_members((*NAMES, "z"), timeout=1.0)
        await leader.change_members(rest, timeout=1.0)
        assert rest == leader.status().members.voters

    play(scene)


def test_leadership_is_handed_on() -> None:
    """And whoever watches is told."""

    async def scene(trio: Trio) -> None:
        leader = await trio.leader()
        await leader.propose(b"x=1", timeout=1.0)
        target = ReplicaId(next(name for name in NAMES if name != leader.status().replica))
        leader.transfer(target)
        await trio.until(lambda: leads(trio.groups[target]))
        assert (target, Role.LEADER) in [(name, one.role) for name, one in trio.roles]

    play(scene)


def test_a_closed_group_ends_what_waits() -> None:
    """No caller hangs."""

    async def scene(trio: Trio) -> None:
        leader = await trio.leader()
        trio.cut = set(NAMES)
        call = asyncio.ensure_future(leader.propose(b"x=1", timeout=5.0))
        await asyncio.sleep(0)
        leader.close()
        with pytest.raises(CacheError, match="closed"):
            await call

    play(scene)
