"""Plays transcripts: small scenes of Raft in text, where every message and every timer is moved by hand.

One instruction a line, `#` begins a comment. Names of replicas are words, requests are named by `as`.

    group a b c                       these are the first voters; all are started
    newcomer d                        a replica with an empty disk
    settings snapshot_interval=2      whole or decimal fields of RaftConfig, before `group`
    timeout a                         time goes on until a's timer, and only a looks at it
    wait 0.1                          time goes on, everybody's timers fire; nothing is delivered
    pass 0.1                          time goes on, and nobody looks at a timer
    elect a                           timeout a, then deliver; a has to lead
    campaign a                        timeout a, then deliver votes only; a has to lead
    beat a 0.2                        for so long a's heartbeats, and nothing else, come and are answered
    hold a / release a                a handles events together: outputs are taken at `release`
    deliver [FILTER]                  what matches arrives, and what comes of it, until nothing is left
    once FILTER                       what matches now arrives, but not what comes of it
    last FILTER                       only the latest that matches arrives
    repeat FILTER                     what matches now arrives, and stays on its way, too
    drop [FILTER]                     what matches is lost
    cut a b / heal                    nobody outside reaches a or b, nor they anybody; heal ends it
    propose a x=1 [as w] [session=5 sequence=1 answered=0 kind=OPEN_SESSION]
    read a [as r] / lease a [as r]    a read by a round of messages, or by the lease
    members a voters=a,b learners=c [as m]
    transfer a b
    slow a / sync a                   a's disk holds back; what was written becomes durable
    crash a / start a                 what was not durable is lost
    clock a 0.95                      the rate of a's clock
    late snapshot a                   a's shell keeps the next snapshot to itself until `snapshot a`
    expect a role=leader term=2 log=1,2,2 commit=3 …
    expect w=applied                  of a request: waiting applied repeated ready lost not_leader …
    expect sent Vote a>b 1            so many such messages are on their way

A FILTER is any of: a message's name, `a>b`, `a>`, `>b`; all that are given have to match. The general checks
of `cache.testing.raft.checks` hold after every line.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from cache.cluster.config.raft import RaftConfig
from cache.cluster.raft.consensus import Consensus
from cache.cluster.raft.messages import AnyMessage, GroupId, Kind, ReplicaId
from cache.cluster.raft.outputs import (
    Apply,
    ChangeMembers,
    Event,
    Failed,
    MakeSnapshot,
    Output,
    Persist,
    Persisted,
    Propose,
    Read,
    ReadReady,
    Received,
    Restore,
    Role,
    RoleChanged,
    Send,
    SnapshotMade,
    Transfer,
)
from cache.cluster.raft.sessions import AppliedState
from cache.cluster.raft.status import bootstrap
from cache.testing.raft.checks import Checks
from cache.testing.raft.parts import Disk, Registers

GROUP = GroupId("g")
TURNS_MAX = 10_000


@dataclass
class Actor:
    """One replica, its disk and its shell."""

    name: str
    disk: Disk
    machine: Consensus
    registers: Registers = field(default_factory=Registers)
    state: AppliedState = field(init=False)
    queue: deque[Output] = field(default_factory=deque)
    up: bool = True
    slow: bool = False
    rate: float = 1.0
    held: bool = False
    withholds: bool = False
    withheld: SnapshotMade | None = None

    def __post_init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin with an empty applied state."""
        self.registers = Registers()
        self.state = AppliedState(self.registers)


class Stage:
    """Plays one transcript."""

    def __init__(self) -> None:
        self.time = 0.0
        self.actors: dict[str, Actor] = {}
        self.wire: list[tuple[str, str, AnyMessage]] = []
        self.requests: dict[str, str] = {}
        self._names: dict[tuple[str, int], tuple[str, int]] = {}
        self._floors: dict[tuple[str, int], int] = {}
        self._cut: set[str] = set()
        self._count = 0
        self._config = RaftConfig()
        self._checks = Checks()

    def play(self, text: str) -> None:
        """Play a transcript; raises AssertionError naming the line that does not hold."""
        for number, line in enumerate(text.splitlines(), 1):
            words = line.partition("#")[0].split()
            if not words:
                continue
            try:
                self._instruct(words[0], words[1:])
            except AssertionError as error:
                raise AssertionError(f"line {number}: {line.strip()}: {error}") from error

    def _instruct(self, verb: str, words: list[str]) -> None:
        name = verb.replace("-", "_")
        instruction: Callable[..., None] | None = getattr(self, f"_do_{name}", None)
        assert instruction is not None, f"no instruction {verb}"
        instruction(*words)

    # -- the scene -------------------------------------------------------------------------------

    def _do_settings(self, *words: str) -> None:
        values = dict(word.split("=") for word in words)
        numbers: dict[str, Any] = {  # Any: fields are whole or decimal; RaftConfig checks them
            key: float(value) if "." in value else int(value) for key, value in values.items()
        }
        self._config = RaftConfig(**numbers)

    def _do_group(self, *names: str) -> None:
        for name in names:
            self._add(name, bootstrap(names))

    def _do_newcomer(self, name: str) -> None:
        self._add(name, Persisted())

    def _add(self, name: str, persisted: Persisted) -> None:
        disk = Disk(persisted)
        self.actors[name] = Actor(name, disk, self._machine(name, disk, 1.0))

    def _machine(self, name: str, disk: Disk, rate: float) -> Consensus:
        return Consensus(
            GROUP,
            ReplicaId(name),
            self._config,
            disk.read(),
            rng=Random(f"{name} {self.time}"),
            now=self.time * rate,
        )

    # -- time ------------------------------------------------------------------------------------

    def _do_timeout(self, name: str) -> None:
        actor = self.actors[name]
        deadline = actor.machine.next_deadline()
        assert deadline is not None, f"{name} has no timer"
        self.time = max(self.time, deadline / actor.rate + 1e-6)
        self._turn(actor, None)

    def _do_wait(self, seconds: str) -> None:
        end = self.time + float(seconds)
        while True:
            due = [
                (deadline / actor.rate + 1e-6, actor.name)
                for actor in self.actors.values()
                if actor.up and (deadline := actor.machine.next_deadline()) is not None
            ]
            at, name = min(due, default=(end + 1, ""))
            if at > end:
                break
            self.time = max(self.time, at)
            self._turn(self.actors[name], None)
        self.time = end

    def _do_elect(self, name: str) -> None:
        self._do_timeout(name)
        self._do_deliver()
        self._do_expect(name, "role=leader")

    def _do_campaign(self, name: str) -> None:
        self._do_timeout(name)
        for kind in ("PreVote", "PreVoteReply", "Vote", "VoteReply"):
            self._do_deliver(kind)
        self._do_expect(name, "role=leader")

    def _do_pass(self, seconds: str) -> None:
        self.time += float(seconds)

    def _do_beat(self, name: str, seconds: str) -> None:
        end = self.time + float(seconds)
        while self.time < end:
            self._do_timeout(name)
            self._do_deliver("Heartbeat", f"{name}>")
            self._do_deliver("HeartbeatReply", f">{name}")

    def _do_clock(self, name: str, rate: str) -> None:
        actor = self.actors[name]
        actor.rate = float(rate)
        actor.machine = self._machine(name, actor.disk, actor.rate)

    # -- the network -----------------------------------------------------------------------------

    def _matches(self, item: tuple[str, str, AnyMessage], words: tuple[str, ...]) -> bool:
        source, to, message = item
        for word in words:
            if ">" in word:
                left, _, right = word.partition(">")
                if left not in ("", source) or right not in ("", to):
                    return False
            elif type(message).__name__ != word:
                return False
        return True

    def _do_deliver(self, *words: str) -> None:
        for _ in range(TURNS_MAX):
            found = next((item for item in self.wire if self._matches(item, words)), None)
            if found is None:
                return
            self._arrive(found)
        raise AssertionError("messages without end")

    def _do_once(self, *words: str) -> None:
        found = [item for item in self.wire if self._matches(item, words)]
        assert found, "no such message is on its way"
        for item in found:
            self._arrive(item)

    def _do_last(self, *words: str) -> None:
        found = [item for item in self.wire if self._matches(item, words)]
        assert found, "no such message is on its way"
        self._arrive(found[-1])

    def _do_repeat(self, *words: str) -> None:
        found = [item for item in self.wire if self._matches(item, words)]
        assert found, "no such message is on its way"
        for item in found:
            self._arrive(item, stays=True)

    def _arrive(self, item: tuple[str, str, AnyMessage], *, stays: bool = False) -> None:
        source, to, message = item
        if not stays:
            self.wire.remove(item)
        if (source in self._cut) == (to in self._cut) and self.actors[to].up:
            self._turn(self.actors[to], Received(message))

    def _do_drop(self, *words: str) -> None:
        self.wire = [item for item in self.wire if not self._matches(item, words)]

    def _do_cut(self, *names: str) -> None:
        self._cut = set(names)

    def _do_heal(self) -> None:
        self._cut.clear()

    # -- requests --------------------------------------------------------------------------------

    def _ask(self, actor: str, words: tuple[str, ...]) -> tuple[int, dict[str, str]]:
        self._count += 1
        label = words[words.index("as") + 1] if "as" in words else f"request{self._count}"
        self.requests[label] = "waiting"
        self._names[actor, self._count] = (label, 0)
        self._floors[actor, self._count] = self._checks.answered
        return self._count, dict(word.split("=", 1) for word in words if "=" in word)

    def _do_propose(self, name: str, *words: str) -> None:
        request, values = self._ask(name, words)
        settings = {key: values.pop(key, "0") for key in ("session", "sequence", "answered")}
        kind = Kind[values.pop("kind", "COMMAND")]
        data = " ".join(f"{key}={value}" for key, value in values.items()).encode()
        numbers = {key: int(value) for key, value in settings.items()}
        event = Propose(request=request, data=data, kind=kind, **numbers)
        self._turn(self.actors[name], event)

    def _do_read(self, name: str, *words: str) -> None:
        request, _ = self._ask(name, words)
        self._turn(self.actors[name], Read(request=request))

    def _do_lease(self, name: str, *words: str) -> None:
        request, _ = self._ask(name, words)
        self._turn(self.actors[name], Read(request=request, lease=True))

    def _do_members(self, name: str, *words: str) -> None:
        request, values = self._ask(name, words)
        voters, learners = (
            tuple(one for one in values.get(key, "").split(",") if one)
            for key in ("voters", "learners")
        )
        event = ChangeMembers(request=request, voters=voters, learners=learners)
        self._turn(self.actors[name], event)

    def _do_transfer(self, name: str, target: str = "") -> None:
        self._turn(self.actors[name], Transfer(ReplicaId(target) if target else None))

    def _do_hold(self, name: str) -> None:
        self.actors[name].held = True

    def _do_release(self, name: str) -> None:
        actor = self.actors[name]
        actor.held = False
        actor.queue.extend(actor.machine.take_outputs())
        self._perform_all(actor)

    # -- disks -----------------------------------------------------------------------------------

    def _do_slow(self, name: str) -> None:
        self.actors[name].slow = True

    def _do_sync(self, name: str) -> None:
        self.actors[name].slow = False
        self._perform_all(self.actors[name])

    def _do_crash(self, name: str) -> None:
        actor = self.actors[name]
        actor.up = False
        actor.queue.clear()

    def _do_start(self, name: str) -> None:
        actor = self.actors[name]
        actor.up, actor.slow, actor.withholds, actor.withheld = True, False, False, None
        actor.forget()
        actor.machine = self._machine(name, actor.disk, actor.rate)
        actor.queue.extend(actor.machine.take_outputs())
        self._perform_all(actor)

    def _do_late(self, _: str, name: str) -> None:
        self.actors[name].withholds = True

    def _do_snapshot(self, name: str) -> None:
        actor = self.actors[name]
        assert actor.withheld is not None, "no snapshot was asked for"
        event, actor.withheld, actor.withholds = actor.withheld, None, False
        self._turn(actor, event)

    # -- the shell -------------------------------------------------------------------------------

    def _turn(self, actor: Actor, event: Event | None) -> None:
        assert actor.up, f"{actor.name} is down"
        now = self.time * actor.rate
        if event is None:
            actor.machine.tick(now)
        else:
            actor.machine.handle(event, now)
        if not actor.held:
            actor.queue.extend(actor.machine.take_outputs())
            self._perform_all(actor)

    def _perform_all(self, actor: Actor) -> None:
        while actor.queue and not (actor.slow and isinstance(actor.queue[0], Persist)):
            self._perform(actor, actor.queue.popleft())

    def _perform(self, actor: Actor, output: Output) -> None:
        name = actor.name
        match output:
            case Send(to, message):
                self.wire.append((name, to, message))
            case Persist():
                actor.disk.write(output)
                self._checks.persisted(name, output.entries, actor.machine)
            case Restore(snapshot):
                actor.forget()
                actor.state.restore(snapshot.data)
            case Apply():
                self._apply(actor, output)
            case ReadReady(request):
                floor = self._floors[name, request]
                self._checks.read(name, actor.state.index, floor, how="a")
                self._resolve(name, request, "ready", actor.state.index)
            case Failed(request, reason):
                self._resolve(name, request, reason.name.lower(), 0)
            case MakeSnapshot(index):
                event = SnapshotMade(index, actor.state.snapshot())
                if actor.withholds:
                    actor.withheld = event
                else:
                    self._turn(actor, event)
            case RoleChanged(Role.LEADER, term, _):
                self._checks.became_leader(name, term, actor.machine)
            case RoleChanged():
                pass

    def _apply(self, actor: Actor, output: Apply) -> None:
        for entry in output.entries:
            self._checks.applied(actor.name, entry)
            result = actor.state.apply(entry)
            self._checks.state(actor.name, entry.index, actor.state.snapshot())
            if entry.index in output.requests:
                request = output.requests[entry.index]
                self._checks.answered = max(self._checks.answered, entry.index)
                effect = result.effect.value.replace(" ", "_")
                self._resolve(actor.name, request, effect, entry.index)

    def _resolve(self, name: str, request: int, result: str, place: int) -> None:
        label, _ = self._names[name, request]
        assert self.requests[label] == "waiting", f"{label} is answered twice"
        self.requests[label] = result
        self._names[name, request] = (label, place)

    # -- expectations ----------------------------------------------------------------------------

    def _do_expect(self, first: str, *words: str) -> None:
        if first == "sent":
            *filters, count = words
            found = [item for item in self.wire if self._matches(item, tuple(filters))]
            assert len(found) == int(count), f"{len(found)} on their way: {found}"
        elif "=" in first:
            label, _, expected = first.partition("=")
            assert expected == self.requests[label], self.requests[label]
        else:
            seen = self._look(self.actors[first])
            for word in words:
                key, _, expected = word.partition("=")
                assert expected == seen.get(key, ""), f"{key}={seen.get(key, '')}, all: {seen}"

    def _look(self, actor: Actor) -> dict[str, str]:
        status, log = actor.machine.status(), actor.machine._log
        terms = (log.term_at(index) for index in range(log.first_index, log.last_index + 1))
        return {
            "role": status.role.value,
            "term": str(status.term),
            "vote": actor.disk.hard_state.vote,
            "leader": status.leader or "",
            "commit": str(status.commit),
            "applied": str(actor.state.index),
            "first": str(status.first_index),
            "last": str(status.last_index),
            "log": ",".join(str(term) for term in terms),
            "disk": ",".join(str(actor.disk.entries[i].term) for i in sorted(actor.disk.entries)),
            "snapshot": str(status.snapshot_index),
            "voters": ",".join(status.members.voters),
            "outgoing": ",".join(status.members.outgoing),
            "learners": ",".join(status.members.learners),
            **actor.registers.values,
        }


def play(path: Path) -> Stage:
    """Play the transcript in a file."""
    stage = Stage()
    stage.play(path.read_text())
    return stage
