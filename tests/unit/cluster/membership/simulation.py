"""Many SWIM machines in one discrete-event simulation: virtual time, a seeded network, no asyncio.

Packets take 0.5 to 1 ms and may be lost; a stream takes about 2 ms there and back, 0.2 s more for
each loss on the way, and has no answer from a member that crashed, is cut off or is frozen. A
frozen member does what `Driver` does when it wakes: it notices the stall, reads its inbox, and
judges others only then. Processor time is not simulated. Fast enough for 1,000 members;
`benchmarks/bench_membership.py` holds the scenarios.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from random import Random
from typing import Final

import msgspec

from cache.cluster.config import ClusterConfig
from cache.cluster.ids import Address, MemberId
from cache.cluster.membership.lag import to_tenths
from cache.cluster.membership.members import Member
from cache.cluster.membership.outputs import (
    Event,
    Exchanged,
    LoopStalled,
    Noted,
    Output,
    PacketReceived,
    SendPacket,
    StartExchange,
    StreamAnswered,
    StreamProbe,
)
from cache.cluster.membership.swim import Swim
from cache.cluster.wire.messages import CompareMembers, MembersCompared, PushPull
from cache.cluster.wire.packets import Packet, PacketCodec, Part, Rumour

PACKET_LATENCY: Final = 0.0005
"""Seconds at least; up to twice that."""

STREAM_LATENCY: Final = 0.001
"""Seconds in one direction."""

RETRANSMISSION: Final = 0.2
"""Seconds after which a stream repeats what was lost."""

EXCHANGE_TIMEOUT: Final = 3.0
"""As in `membership.service`."""

EXCHANGES_MAX: Final = 16
"""As in `membership.service`."""

SOCKET_PACKETS_MAX: Final = 256
"""Packets that wait for a frozen process; about what a socket's receive buffer holds."""


@dataclass(slots=True, eq=False)
class Host:
    """One process: a machine, and what waits for it."""

    swim: Swim
    side: int = 0
    """Which part of a cut network it is in."""
    crashed: bool = False
    frozen: bool = False
    deaf: bool = False
    """Its timers run, while everything that comes in or goes out waits."""
    armed_at: float = math.inf
    inbox: list[Event] = field(default_factory=list)
    waiting: list[Callable[[], None]] = field(default_factory=list)
    """What waits beside the inbox: questions over streams, and what a deaf one has to say."""
    exchanging: dict[Address, None] = field(default_factory=dict)
    bytes_sent: int = 0
    packets_sent: int = 0
    stream_bytes: int = 0
    """Of exchanges, sent by it or to it, without frames."""

    @property
    def member(self) -> Member:
        """The record of this life."""
        return self.swim.book.local

    @property
    def view_count(self) -> int:
        """How many live members it knows, itself included."""
        return self.swim.book.members.count_live()


@dataclass(slots=True, eq=False)
class Question:
    """Something asked over a stream: a probe, or an exchange, which asks a second time if views differ."""

    source: Host
    to: Address
    ask: StreamProbe | CompareMembers | PushPull
    open: bool = True


class World:
    """Machines, a network between them, and a virtual clock."""

    def __init__(self, seed: int, *, loss: float = 0.0, weigh: bool = False) -> None:
        self.rng = Random(seed)
        self.now = 0.0
        self.loss = loss
        self.hosts: dict[Address, Host] = {}
        self.noted: dict[tuple[str, MemberId], list[tuple[float, Host]]] = {}
        """Who noted what about whom, and when."""
        self._weigh = weigh
        self._config = ClusterConfig.lan(peers=(address_of(0),))
        self._codec = PacketCodec(cluster_name="cache", secret="benchmark")
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()

    # -- members come and go -----------------------------------------------------------------

    def form(self, size: int) -> None:
        """Start members that know each other already."""
        hosts = [self._host(number) for number in range(size)]
        for host in hosts:
            for other in hosts:
                host.swim.book.members.put(other.member, self.now)
        for host in hosts:
            self._start(host)

    def join(self, number: int, seed: int = 0) -> Host:
        """Start a member that learns of the others through `seed`, as `MembershipService.join` does."""
        host = self._host(number)
        self._at(self.now + self._stream_delay(), partial(self._asked_to_join, host, seed))
        return host

    def _asked_to_join(self, host: Host, seed: int) -> None:
        answer = push_pull_of(self.hosts[address_of(seed)])
        self._at(self.now + self._stream_delay(), partial(self._joined, host, answer))

    def _joined(self, host: Host, answer: PushPull) -> None:
        book = host.swim.book
        book.members.set_local(seniority=1 + max(r.seniority for r in answer.records))
        self._start(host, arm=False)
        book.adopt(answer.records, self.now)
        book.announce(self.now)
        for peer in book.members.others()[:2]:
            book.outputs.append(StartExchange(peer.address))
        self._run(host, ())

    def leave(self, host: Host) -> None:
        """Let a member say goodbye and stop."""
        for _ in range(3):
            host.swim.leave(self.now)
            self._perform(host)
        self.crash(host)

    def crash(self, host: Host) -> None:
        """Stop a member without a word; streams to it are not refused, they time out."""
        host.crashed = True
        del self.hosts[host.member.address]

    def freeze(self, host: Host, seconds: float, *, deaf: bool = False) -> None:
        """Let a process do nothing for a while; a deaf one at least looks at its clock."""
        host.frozen, host.deaf = not deaf, deaf
        self._at(self.now + seconds, partial(self._thaw, host))

    def freeze_cyclically(
        self, host: Host, *, blocked: float, open_for: float, deaf: bool = False
    ) -> None:
        """Freeze a process again and again, from now on."""
        self.freeze(host, blocked, deaf=deaf)
        again = partial(self.freeze_cyclically, host, blocked=blocked, open_for=open_for, deaf=deaf)
        self._at(self.now + blocked + open_for, again)

    def split(self, side_of: Callable[[int], int]) -> None:
        """Cut the network into sides; one side for all heals it."""
        for number, host in enumerate(self.hosts.values()):
            host.side = side_of(number)

    # -- time --------------------------------------------------------------------------------

    def run(self, seconds: float) -> None:
        """Advance the time."""
        end, events = self.now + seconds, self._events
        while events and events[0][0] <= end:
            self.now, _, action = heapq.heappop(events)
            action()
        self.now = end

    def until(self, condition: Callable[[], bool], *, limit: float, step: float = 0.02) -> float:
        """Advance until `condition` holds; return the seconds it took, infinite above `limit`."""
        started_at = self.now
        while not condition():
            if self.now - started_at > limit:
                return math.inf
            self.run(step)
        return self.now - started_at

    def complete(self, size: int) -> bool:
        """Whether there are `size` members, and all of them know all and suspect nobody."""
        hosts = self.hosts.values()
        return len(hosts) == size and all(
            host.view_count == size and not host.swim.book.suspicions for host in hosts
        )

    def buried_by_all(self, members: Iterable[MemberId]) -> bool:
        """Whether every host declared every one of these dead."""
        return all(len(self.noted[("member.dead", m)]) >= len(self.hosts) for m in members)

    def deaths(self) -> list[tuple[MemberId, Host]]:
        """Return who was declared dead, and by whom, repetitions included."""
        dead = ((about, who) for (what, about), who in self.noted.items() if what == "member.dead")
        return [(about, by) for about, who in dead for _, by in who]

    def _at(self, instant: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._events, (instant, next(self._order), action))

    # -- hosts -------------------------------------------------------------------------------

    def _host(self, number: int) -> Host:
        member = Member(
            id=MemberId(f"node-{number:08x}#{number + 1:016x}"),
            address=address_of(number),
            seniority=number + 1,
        )
        rng = Random(self.rng.getrandbits(64))
        return Host(Swim(member, self._config, self._codec, rng))

    def _start(self, host: Host, *, arm: bool = True) -> None:
        self.hosts[host.member.address] = host
        host.swim.start(self.now)
        if arm:
            self._arm(host)

    def _arm(self, host: Host) -> None:
        deadline = host.swim.next_deadline()
        if deadline is not None and (at := max(deadline, self.now)) < host.armed_at:
            host.armed_at = at
            self._at(at, partial(self._expired, host, at))

    def _expired(self, host: Host, at: float) -> None:
        if host.crashed or host.frozen or host.armed_at != at:
            return
        host.armed_at = math.inf
        deadline = host.swim.next_deadline()
        if deadline is not None and deadline <= self.now:
            self._run(host, ())
        else:  # The deadline has moved since.
            self._arm(host)

    def _run(self, host: Host, events: Iterable[Event]) -> None:
        for event in events:
            self._handle(host, event)
        host.swim.tick(self.now)
        self._perform(host)
        self._arm(host)

    def _handle(self, host: Host, event: Event) -> None:
        if isinstance(event, PacketReceived):
            event = self._believable(host, event)
        host.swim.handle(event, self.now)

    def _believable(self, host: Host, event: PacketReceived) -> PacketReceived:
        """Do as `MembershipService` does with a secret: strangers' rumours are asked for by stream."""
        sender = event.packet.sender
        if host.swim.book.members.get(MemberId(sender)) is not None:
            return event
        self._exchange(host, event.source)
        parts: list[Part] = [part for part in event.packet.parts if not isinstance(part, Rumour)]
        return PacketReceived(event.source, msgspec.structs.replace(event.packet, parts=parts))

    def _deliver(self, host: Host, event: Event) -> None:
        if host.crashed:
            return
        if not (host.frozen or host.deaf):
            self._run(host, (event,))
        elif len(host.inbox) < SOCKET_PACKETS_MAX:
            host.inbox.append(event)

    def _thaw(self, host: Host) -> None:
        """Do what `Driver` does after a stall: read first, answer, and judge by timers only then."""
        if host.crashed:
            return
        host.frozen = host.deaf = False
        late, host.armed_at = self.now - host.armed_at, math.inf
        if late > self._config.gossip.probe_timeout:
            host.swim.handle(LoopStalled(late), self.now)
        for event in host.inbox:
            self._handle(host, event)
        questions, host.inbox, host.waiting = host.waiting, [], []
        for ask in questions:
            ask()
        self._perform(host)
        self._run(host, ())

    def _perform(self, host: Host) -> None:
        for output in host.swim.take_outputs():
            self._carry_out(host, output)

    def _carry_out(self, host: Host, output: Output) -> None:
        match output:
            case SendPacket(to, parts):
                self._send(host, to, parts)
            case StreamProbe(_, _, address, timeout):
                self._ask(Question(host, address, output), timeout)
            case StartExchange(address):
                self._exchange(host, address)
            case Noted(event, member):
                self.noted.setdefault((event, member), []).append((self.now, host))
            case _:
                pass

    # -- network -----------------------------------------------------------------------------

    def _reachable(self, host: Host, to: Address) -> Host | None:
        other = self.hosts.get(to)
        return None if other is None or other.side != host.side else other

    def _send(self, host: Host, to: Address, parts: list[Part]) -> None:
        if host.deaf:
            host.waiting.append(partial(self._send, host, to, parts))
            return
        lag = to_tenths(host.member.lag)
        packet = Packet(sender=host.member.id, parts=parts, lag_tenths=lag)
        if self._weigh:
            host.bytes_sent += len(self._codec.seal(packet))
            host.packets_sent += 1
        other = self._reachable(host, to)
        if other is not None and self.rng.random() >= self.loss:
            event = PacketReceived(host.member.address, packet)
            delay = PACKET_LATENCY * (1 + self.rng.random())
            self._at(self.now + delay, partial(self._deliver, other, event))

    def _stream_delay(self) -> float:
        delay = STREAM_LATENCY * (0.8 + 0.4 * self.rng.random())
        while self.rng.random() < self.loss:
            delay += RETRANSMISSION
        return delay

    def _exchange(self, host: Host, to: Address) -> None:
        if to not in host.exchanging and len(host.exchanging) < EXCHANGES_MAX:
            host.exchanging[to] = None
            digest = host.swim.book.members.digest()
            self._ask(Question(host, to, CompareMembers(digest)), EXCHANGE_TIMEOUT)

    def _ask(self, question: Question, timeout: float) -> None:
        self._put(question)
        self._at(self.now + timeout, partial(self._timed_out, question))

    def _put(self, question: Question) -> None:
        ask = partial(self._asked, question)
        if question.source.deaf:
            question.source.waiting.append(ask)
        else:
            self._at(self.now + self._stream_delay(), ask)

    def _asked(self, question: Question) -> None:
        other = self._reachable(question.source, question.to)
        if other is None:
            return
        if other.frozen or other.deaf:
            other.waiting.append(partial(self._asked, question))
            return
        answer: StreamAnswered | MembersCompared | PushPull
        match question.ask:
            case StreamProbe(token, member, _, _):
                alive = other.member.id == member
                answer = StreamAnswered(token, alive, gone=not alive)
            case CompareMembers(digest):
                answer = MembersCompared(other.swim.book.agrees(digest))
            case PushPull(_, records):
                answer = push_pull_of(other)
                self._run(other, (Exchanged(records),))
        self._weigh_exchange(question, other, answer)
        delay = self._stream_delay()
        self._at(self.now + delay, partial(self._answered, question, answer))

    def _weigh_exchange(
        self, question: Question, other: Host, answer: StreamAnswered | MembersCompared | PushPull
    ) -> None:
        if self._weigh and not isinstance(answer, StreamAnswered):
            both_ways = sum(len(msgspec.msgpack.encode(m)) for m in (question.ask, answer))
            question.source.stream_bytes += both_ways
            other.stream_bytes += both_ways

    def _answered(
        self, question: Question, answer: StreamAnswered | MembersCompared | PushPull
    ) -> None:
        source = question.source
        if not question.open or self._reachable(source, question.to) is None:
            return
        if isinstance(answer, MembersCompared) and not answer.equal:
            if source.frozen or source.deaf:
                source.waiting.append(partial(self._answered, question, answer))
                return
            question.ask = push_pull_of(source)
            self._put(question)
            return
        self._close(question)
        if isinstance(answer, StreamAnswered):
            self._deliver(source, answer)
        elif isinstance(answer, PushPull):
            self._deliver(source, Exchanged(answer.records))

    def _timed_out(self, question: Question) -> None:
        if not question.open:
            return
        self._close(question)
        if isinstance(question.ask, StreamProbe):
            failed = StreamAnswered(question.ask.token, alive=False, gone=False)
            if question.source.deaf:  # It is a timer that says so.
                self._run(question.source, (failed,))
            else:
                self._deliver(question.source, failed)

    def _close(self, question: Question) -> None:
        question.open = False
        if not isinstance(question.ask, StreamProbe):
            question.source.exchanging.pop(question.to, None)


def address_of(number: int) -> Address:
    return Address(f"10.0.{number // 250}.{number % 250 + 1}:7946")


def push_pull_of(host: Host) -> PushPull:
    return PushPull(False, [member.to_record() for member in host.swim.book.members.all()])
