"""Raft machines wired to each other in virtual time: links that fail, disks that lag, clocks that drift.

A replica's shell does what a real one must: it feeds events, then ticks, then carries out the outputs in
order, and waits at each `Persist` until it is durable. A crash loses what was not.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Final

from cache.cluster.config.raft import RaftConfig
from cache.cluster.raft.consensus import Consensus
from cache.cluster.raft.messages import AnyMessage, GroupId, ReplicaId, decode_message, encode
from cache.cluster.raft.outputs import (
    Apply,
    Event,
    Failed,
    MakeSnapshot,
    Output,
    Persist,
    Persisted,
    ReadReady,
    Reason,
    Received,
    Restore,
    Role,
    RoleChanged,
    Send,
    SnapshotMade,
)
from cache.cluster.raft.sessions import Applied, AppliedState
from cache.testing.raft.checks import DIGEST_INTERVAL, Checks
from cache.testing.raft.parts import Disk, Registers

GROUP: Final = GroupId("g")
Answer = Callable[[Applied | Reason | int, int], None]
"""Called with the result, the reason or (for a read) 0, and the index applied then."""


@dataclass(slots=True)
class Links:
    """How the network treats messages."""

    loss: float = 0.0
    repeat: float = 0.0
    slow: float = 0.0
    """Part of the messages that take up to `slow_max` seconds, and overtake nobody."""
    slow_max: float = 0.5
    latency: float = 0.004
    cut: set[tuple[str, str]] = field(default_factory=set)


class Host:
    """One replica with its disk, its clock, and what waits to be done."""

    def __init__(self, world: World, name: str, persisted: Persisted, rate: float) -> None:
        self.name = name
        self.disk = Disk(persisted)
        self.rate = rate
        self.up = False
        self.life = 0
        self.paused_until = 0.0
        self.answers: dict[int, Answer] = {}
        self.registers = Registers()
        self.state = AppliedState(self.registers)
        self._world = world
        self._inbox: deque[Event] = deque()
        self._queue: deque[Output] = deque()
        self._writing: Persist | None = None
        self._woken = False
        self._timer_at = float("inf")
        self._requests = 0
        self.machine = self._make()

    def _make(self) -> Consensus:
        world = self._world
        return Consensus(
            GROUP,
            ReplicaId(self.name),
            world.config,
            self.disk.read(),
            rng=Random(world.rng.random()),
            now=self.now(),
        )

    def now(self) -> float:
        """Return this host's monotonic clock."""
        return self._world.time * self.rate

    # -- life ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin from what the disk has."""
        assert not self.up, "it is up"
        self.life += 1
        self.up = True
        self.registers = Registers()
        self.state = AppliedState(self.registers)
        self.machine = self._make()
        self.wake()

    def crash(self, *, written: bool) -> None:
        """Stop at once; the write under way may or may not have reached the disk."""
        if self._writing is not None and written:
            self.disk.write(self._writing)
        self.up = False
        self.life += 1
        self._writing, self._woken = None, False
        self._inbox.clear()
        self._queue.clear()
        self._timer_at = float("inf")
        answers, self.answers = list(self.answers.values()), {}
        for answer in answers:
            answer(Reason.LOST, 0)

    def post(self, event: Event) -> None:
        """Hand over an event."""
        if self.up:
            self._inbox.append(event)
            self.wake()

    def ask(self, answer: Answer) -> int:
        """Return the number for a new request."""
        self._requests += 1
        self.answers[self._requests] = answer
        return self._requests

    # -- the shell -------------------------------------------------------------------------------

    def wake(self, delay: float = 0.0) -> None:
        """Run soon."""
        if not self._woken:
            self._woken = True
            delay = max(delay, self.paused_until - self._world.time)
            self._world.later(delay, self._guarded(self._run))

    def _guarded(self, call: Callable[[], None]) -> Callable[[], None]:
        life = self.life

        def run() -> None:
            if self.up and life == self.life:
                call()

        return run

    def _run(self) -> None:
        self._woken = False
        if self.paused_until > self._world.time:
            return self.wake()
        now = self.now()
        while self._inbox:
            self.machine.handle(self._inbox.popleft(), now)
        self.machine.tick(now)
        self._queue.extend(self.machine.take_outputs())
        self._perform_all()
        self._arm()
        return None

    def _arm(self) -> None:
        deadline = self.machine.next_deadline()
        if deadline is None or deadline >= self._timer_at > self.now():
            return
        self._timer_at = deadline

        def expired() -> None:
            self._timer_at = float("inf")
            self.wake()

        delay = max(0.0, (deadline - self.now()) / self.rate) + 1e-6
        self._world.later(delay, self._guarded(expired))

    def _perform_all(self) -> None:
        while self._queue and self._writing is None and self.up:
            output = self._queue.popleft()
            if isinstance(output, Persist):
                self._writing = output
                self._world.later(self._world.sync_time(), self._guarded(self._synced))
            else:
                self._perform(output)

    def _synced(self) -> None:
        assert self._writing is not None, "nothing was being written"
        persist, self._writing = self._writing, None
        self.disk.write(persist)
        self._world.checks.persisted(self.name, persist.entries, self.machine)
        self._perform_all()

    def _perform(self, output: Output) -> None:
        match output:
            case Send(to, message):
                self._world.send(self.name, to, message)
            case Apply():
                self._apply(output)
            case Restore(snapshot):
                self.state.restore(snapshot.data)
                self._world.checks.state(self.name, self.state.index, snapshot.data)
                self._world.counts["restored"] += 1
            case MakeSnapshot(index):
                self.post(SnapshotMade(index, self.state.snapshot()))
            case ReadReady(request):
                self._answer(request, 0)
            case Failed(request, reason):
                self._answer(request, reason)
            case RoleChanged(Role.LEADER, term, _):
                self._world.counts["leaders"] += 1
                if self.machine.term == term:
                    self._world.checks.became_leader(self.name, term, self.machine)
            case _:
                pass

    def _apply(self, output: Apply) -> None:
        checks = self._world.checks
        for entry in output.entries:
            checks.applied(self.name, entry)
            applied = self.state.apply(entry)
            if entry.index % DIGEST_INTERVAL == 0:
                checks.state(self.name, entry.index, self.state.snapshot())
            if entry.index in output.requests:
                self._answer(output.requests[entry.index], applied)

    def _answer(self, request: int, result: Applied | Reason | int) -> None:
        answer = self.answers.pop(request, None)
        if answer is not None:
            answer(result, self.state.index)


class World:
    """All hosts, one clock, one source of chance."""

    def __init__(self, seed: str, config: RaftConfig, links: Links) -> None:
        self.rng = Random(seed)
        self.config = config
        self.links = links
        self.time = 0.0
        self.hosts: dict[str, Host] = {}
        self.checks = Checks()
        self.counts: Counter[str] = Counter()
        self.sync_max = 0.004
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence = 0

    def add(self, name: str, persisted: Persisted, rate: float = 1.0) -> Host:
        """Add a host, switched off."""
        self.hosts[name] = Host(self, name, persisted, rate)
        return self.hosts[name]

    def later(self, delay: float, call: Callable[[], None]) -> None:
        """Call after `delay` virtual seconds."""
        self._sequence += 1
        heapq.heappush(self._events, (self.time + delay, self._sequence, call))

    def run(self, until: float) -> None:
        """Let virtual time pass."""
        while self._events and self._events[0][0] <= until:
            self.time, _, call = heapq.heappop(self._events)
            self.counts["steps"] += 1
            call()
        self.time = until

    def sync_time(self) -> float:
        """Return how long the next write takes."""
        return self.rng.uniform(0, self.sync_max)

    def send(self, source: str, to: str, message: AnyMessage) -> None:
        """Bring a message to a host, or lose it, or repeat it, or let it lie for a while."""
        rng, links = self.rng, self.links
        if to not in self.hosts or (source, to) in links.cut or rng.random() < links.loss:
            self.counts["lost"] += 1
            return
        if rng.random() < 0.02:
            assert decode_message(encode(message)) == message, "the wire changes a message"
        copies = 2 if rng.random() < links.repeat else 1
        self.counts["repeated"] += copies - 1
        for _ in range(copies):
            delay = rng.uniform(0.2, 1) * links.latency
            if rng.random() < links.slow:
                delay = rng.uniform(0, links.slow_max)
                self.counts["late"] += 1
            self.later(delay, lambda: self._arrive(source, to, message))

    def _arrive(self, source: str, to: str, message: AnyMessage) -> None:
        if (source, to) not in self.links.cut:
            self.hosts[to].post(Received(message))

    def leader(self) -> Host | None:
        """Return the live leader of the latest term."""
        leaders = [
            host for host in self.hosts.values() if host.up and host.machine.role is Role.LEADER
        ]
        return max(leaders, key=lambda host: host.machine.term, default=None)
