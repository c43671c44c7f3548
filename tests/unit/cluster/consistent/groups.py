"""A group of replicas on one simulated loop, and clients that reach it as a node does.

Replicas are killed and restarted from what their disks have, messages are lost and late, clients retry under
their session. `Client` is a `Group`, as simple as one can be that keeps the promises of that seam.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from random import Random
from typing import Final

from cache.clock import Clock
from cache.cluster.config.raft import RaftConfig
from cache.cluster.consistent.consistent import Consistent
from cache.cluster.consistent.machine import ConsistentMachine
from cache.cluster.raft.messages import AnyMessage, GroupId, Kind, ReplicaId
from cache.cluster.raft.outputs import Persist, Role
from cache.cluster.raft.service import RaftGroup
from cache.cluster.raft.sessions import Applied, Effect
from cache.cluster.raft.status import bootstrap
from cache.cluster.scope import Scope
from cache.errors import (
    CacheError,
    ClosedError,
    IndeterminateError,
    NoQuorumError,
    OperationTimeoutError,
    RejectedError,
    SessionLostError,
)
from cache.testing.raft.parts import Disk
from cache.testing.sim import World, run_simulation

GROUP: Final = GroupId("g")
NAMES: Final = ("a", "b", "c")
TRY: Final = 0.4
"""Seconds for one attempt to reach one replica."""


async def pause(seconds: float) -> None:
    """Let virtual time pass."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    loop.call_later(seconds, _finish, done)
    await done


def _finish(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)


class Watched(ConsistentMachine):
    """A machine that wakes held queries."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: dict[bytes, list[asyncio.Future[None]]] = {}

    def apply(self, command: bytes, *, index: int, time: float, session: int) -> bytes:
        answer = super().apply(command, index=index, time=time, session=session)
        self.wake(self.take_changed())
        return answer

    def session_ended(self, session: int, *, index: int, time: float) -> None:
        super().session_ended(session, index=index, time=time)
        self.wake(self.take_changed())

    def restore(self, data: bytes) -> None:
        super().restore(data)
        self.wake(self.take_changed())

    def wake(self, topics: list[bytes]) -> None:
        """Ask again what is held about these."""
        for topic in topics:
            for future in self.waiting.pop(topic, []):
                _finish(future)

    async def changed(self, topic: bytes, seconds: float) -> None:
        """Return when an object was changed, or the time is over."""
        future = asyncio.get_running_loop().create_future()
        self.waiting.setdefault(topic, []).append(future)
        await asyncio.wait((future,), timeout=seconds)


class Storage:
    """The seam; each write takes a millisecond."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    async def write(self, group: GroupId, persist: Persist) -> None:
        await pause(0.001)
        self._disk.write(persist)


class Replicas:
    """Some replicas on one loop, and the links between them."""

    def __init__(self, clock: Clock, seed: int, names: tuple[str, ...] = NAMES) -> None:
        self.clock = clock
        self.rng = Random(seed)
        self.scope = Scope("test")
        self.names = names
        self.disks = {name: Disk(bootstrap(names)) for name in names}
        self.groups: dict[str, RaftGroup] = {}
        self.machines: dict[str, Watched] = {}
        self.loss = 0.0
        self.cut: set[str] = set()
        self.counts: Counter[str] = Counter()
        for name in names:
            self.start(name)

    def start(self, name: str) -> None:
        """Begin from what the disk has."""
        machine = self.machines[name] = Watched()
        group = self.groups[name] = RaftGroup(
            GROUP,
            ReplicaId(name),
            config=RaftConfig(snapshot_interval=40, snapshot_trailing=5),
            persisted=self.disks[name].read(),
            storage=Storage(self.disks[name]),
            state=machine,
            send=lambda to, message: self.send(name, to, message),
            clock=self.clock,
            rng=Random(f"{name}{self.rng.random()}"),
            scope=self.scope,
        )
        group.start()

    def kill(self, name: str) -> None:
        """Stop at once; requests under way end as unknown."""
        self.counts["killed"] += 1
        self.groups[name].close()
        self.machines[name].wake(list(self.machines[name].waiting))

    def leader(self) -> str | None:
        """Return the name of a replica that leads."""
        live = [name for name in self.names if self.groups[name].halted is None]
        leading = [name for name in live if self.groups[name].status().role is Role.LEADER]
        terms = {name: self.groups[name].status().term for name in leading}
        return max(leading, key=lambda name: terms[name], default=None)

    def send(self, source: str, to: str, message: AnyMessage) -> None:
        if self.rng.random() < self.loss:
            self.counts["lost"] += 1
            return

        def arrive() -> None:
            if source not in self.cut and to not in self.cut:
                self.groups[to].receive(message)

        delay = self.rng.choice((0.001, 0.002, 0.003, 0.03))
        asyncio.get_running_loop().call_later(delay, arrive)

    async def close(self) -> None:
        """End everything."""
        for group in self.groups.values():
            group.close()
        await self.scope.close()


class Client:
    """One node's way to the group."""

    def __init__(self, replicas: Replicas, *, ttl: float = 5.0, timeout: float = 3.0) -> None:
        self.name = "g"
        self.replicas = replicas
        self.ttl = ttl
        self.timeout = timeout
        self.is_cut = False
        """Whether it reaches nobody."""
        self.is_closed = False
        self.command_count = 0
        self.lose_answers = 0
        """Answers to commands that shall not arrive."""
        self.lose_session = False
        """Whether the next command finds the session lost, and opens another."""
        self._session = 0
        self._sequence = 0
        self._open: dict[int, None] = {}
        self._good_until = 0.0
        self._hooks: dict[Callable[[int], None], None] = {}
        self._tasks: list[asyncio.Task[None]] = []

    # -- the seam --------------------------------------------------------------------------------

    async def command(self, data: bytes, *, deadline: float | None = None) -> bytes:
        self.command_count += 1
        if self.lose_session:
            self.lose_session = False
            self._lose(self._session)
        session = await self._open_session()
        self._sequence += 1
        sequence = self._sequence
        self._open[sequence] = None
        try:
            applied = await self._propose(
                Kind.COMMAND, data, session, sequence, self._deadline(deadline)
            )
        finally:
            self._open.pop(sequence)
        if self.lose_answers:
            self.lose_answers -= 1
            raise OperationTimeoutError("the answer was lost")
        return applied.answer

    async def query(
        self,
        data: bytes,
        *,
        wait: float = 0.0,
        lease: bool = False,
        deadline: float | None = None,
    ) -> bytes | None:
        clock = self.replicas.clock
        give_up_at = self._deadline(deadline) + wait
        wait_until = clock.monotonic() + wait
        while True:
            name = self._some_replica()
            machine, group = self.replicas.machines[name], self.replicas.groups[name]
            try:
                self._reach()
                await group.read(timeout=TRY, lease=lease)
                while True:
                    answer = machine.query(data)
                    left = wait_until - clock.monotonic()
                    if answer is not None or left <= 0:
                        return answer
                    await machine.changed(machine.topic(data), left)
                    if group.halted is not None:
                        raise ClosedError("the replica was killed")
            except CacheError as error:
                if clock.monotonic() >= give_up_at:
                    raise NoQuorumError("nobody answered the query") from error
                await pause(0.05)

    async def session(self) -> int:
        session = await self._open_session()
        if not self._tasks:
            spawn = self.replicas.scope.spawn
            self._tasks = [spawn(self._keep(), name="keep"), spawn(self._end(), name="end")]
        return session

    def on_session_lost(self, hook: Callable[[int], None]) -> Callable[[], None]:
        self._hooks[hook] = None

        def take_off() -> None:
            self._hooks.pop(hook, None)

        return take_off

    # -- how -------------------------------------------------------------------------------------

    async def close(self) -> None:
        """Leave without a word, as a crash does."""
        self.is_closed = True
        for task in self._tasks:
            task.cancel()

    async def _open_session(self) -> int:
        """Return the session; one that is opened for a command is not kept alive."""
        if self._session == 0:
            began_at = self.replicas.clock.monotonic()
            data = str(self.ttl).encode()
            applied = await self._propose(Kind.OPEN_SESSION, data, 0, 0, began_at + self.timeout)
            if self._session == 0:  # Two may have asked; the other session ends by itself.
                self._session, self._sequence = int(applied.answer), 0
                self._good_until = began_at + self.ttl
                self._tasks = []
        return self._session

    def _deadline(self, deadline: float | None) -> float:
        return self.replicas.clock.monotonic() + self.timeout if deadline is None else deadline

    def _reach(self) -> None:
        if self.is_closed:
            raise ClosedError("the client was closed")
        if self.is_cut:
            raise NoQuorumError("the client is cut off")

    def _some_replica(self) -> str:
        leader = self.replicas.leader()
        use = leader is not None and self.replicas.rng.random() < 0.7
        return leader if use and leader else self.replicas.rng.choice(self.replicas.names)

    async def _propose(
        self, kind: Kind, data: bytes, session: int, sequence: int, deadline: float
    ) -> Applied:
        clock, is_unknown = self.replicas.clock, False
        while True:
            began_at = clock.monotonic()
            try:
                self._reach()
                group = self.replicas.groups[self._some_replica()]
                applied = await group.propose(
                    data,
                    timeout=TRY,
                    kind=kind,
                    session=session,
                    sequence=sequence,
                    answered=min(self._open, default=self._sequence + 1) - 1,
                )
            except (RejectedError, ClosedError):
                pass
            except IndeterminateError:
                is_unknown = True
            else:
                return self._checked(applied, session, began_at, is_unknown=is_unknown)
            if self.is_closed or clock.monotonic() >= deadline:
                if is_unknown:
                    raise OperationTimeoutError("no answer in time")
                raise NoQuorumError("nobody took the command")
            await pause(0.05)

    def _checked(
        self, applied: Applied, session: int, began_at: float, *, is_unknown: bool
    ) -> Applied:
        if applied.effect in (Effect.APPLIED, Effect.REPEATED):
            if session == self._session:
                self._good_until = max(self._good_until, began_at + self.ttl)
            return applied
        if applied.effect is Effect.SESSION_UNKNOWN:
            self._lose(session)
        if is_unknown or applied.effect is Effect.FORGOTTEN:
            raise IndeterminateError("an earlier attempt may have been applied")
        raise SessionLostError(f"session {session} is over")

    def _lose(self, session: int) -> None:
        if session == self._session:
            self._session = 0
            for hook in list(self._hooks):
                hook(session)

    async def _keep(self) -> None:
        session, clock = self._session, self.replicas.clock
        while session == self._session:
            await pause(self.ttl / 4)
            try:
                await self._propose(Kind.KEEP_SESSION, b"", session, 0, clock.monotonic() + TRY)
            except CacheError:
                continue

    async def _end(self) -> None:
        """Lose the session by this client's own clock, whatever hangs on the way to the group."""
        session = self._session
        while session == self._session:
            left = self._good_until - self.replicas.clock.monotonic()
            if left <= 0:
                self._lose(session)
                return
            await pause(left)


def consistent(replicas: Replicas, client: Client) -> Consistent:
    """Return what `node.consistent` would be for a client."""
    return Consistent(lambda name: client, replicas.clock, replicas.scope, info=dict)


def play(
    scene: Callable[[Replicas], Awaitable[None]],
    *,
    seed: int = 1,
    names: tuple[str, ...] = NAMES,
) -> None:
    """Run a scene in virtual time."""

    async def inside(clock: Clock) -> None:
        replicas = Replicas(clock, seed, names)
        try:
            await scene(replicas)
        finally:
            await replicas.close()

    async def scenario(world: World) -> None:
        process = world.process("p")
        await process.run(inside(process.environment().clock))

    run_simulation(seed, scenario)
