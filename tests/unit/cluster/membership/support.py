"""Helpers of the membership tests: members, books, and machines wired together in virtual time."""

from __future__ import annotations

from collections import deque
from random import Random
from typing import Final, TypeVar

from cache.cluster.config import ClusterConfig, GossipConfig
from cache.cluster.ids import Address, MemberId
from cache.cluster.membership.lag import to_tenths
from cache.cluster.membership.members import Member, MemberState
from cache.cluster.membership.outputs import (
    Exchanged,
    Noted,
    Output,
    PacketReceived,
    SendPacket,
    StartExchange,
    StreamAnswered,
    StreamProbe,
)
from cache.cluster.membership.rumours import Book
from cache.cluster.membership.swim import Swim
from cache.cluster.wire.packets import Packet, PacketCodec, Part, Rumour

CODEC: Final = PacketCodec(cluster_name="test", secret=None)
EVENTS_MAX: Final = 200_000
"""Events of one `Mesh.run`; more mean that a machine does not move its deadline."""

ALIVE, SUSPECT, DEAD, LEFT = MemberState
PartT = TypeVar("PartT", bound=Part)
OutputT = TypeVar("OutputT", bound=Output)


def a_member(
    name: str,
    incarnation: int = 0,
    state: MemberState = ALIVE,
    *,
    generation: int = 1,
    seniority: int = 1,
) -> Member:
    """Return a member that listens at the address of its name."""
    return Member(
        id=MemberId(f"{name}#{generation:016x}"),
        address=Address(f"{name}:1"),
        incarnation=incarnation,
        state=state,
        seniority=seniority,
    )


def a_config(gossip: GossipConfig | None = None) -> ClusterConfig:
    """Return settings with the timing of a LAN: probes each second, suspicion 3 to 18 s."""
    return ClusterConfig.lan(gossip=gossip or GossipConfig())


def a_rumour(member: Member, accuser: Member | None = None) -> Rumour:
    """Return a rumour about a member, told by the accuser or by itself."""
    return Rumour(record=member.to_record(), accuser=(accuser or member).id)


def a_book(*others: Member, gossip: GossipConfig | None = None) -> Book:
    """Return the book of member `a`, which knows `others`."""
    book = Book(a_member("a"), a_config(gossip), CODEC, Random(7))
    for other in others:
        book.members.put(other, 0.0)
    return book


def a_swim(*others: Member, local: str = "a", gossip: GossipConfig | None = None) -> Swim:
    """Return a started machine at instant 0 that knows `others`."""
    swim = Swim(a_member(local), a_config(gossip), CODEC, Random(7))
    for other in others:
        swim.book.members.put(other, 0.0)
    swim.start(0.0)
    return swim


def a_packet(sender: Member, *parts: Part) -> PacketReceived:
    """Return the arrival of a packet."""
    lag = to_tenths(sender.lag)
    packet = Packet(sender=sender.id, parts=list(parts), lag_tenths=lag)
    return PacketReceived(sender.address, packet)


def only(outputs: list[Output], kind: type[OutputT]) -> list[OutputT]:
    """Return the outputs of one kind."""
    return [output for output in outputs if isinstance(output, kind)]


def sent(outputs: list[Output], kind: type[PartT]) -> list[tuple[Address, PartT]]:
    """Return the parts of one kind that were sent, and where to."""
    packets = only(outputs, SendPacket)
    return [(p.to, part) for p in packets for part in p.parts if isinstance(part, kind)]


def notes(outputs: list[Output]) -> list[tuple[str, MemberId]]:
    """Return what was noted about whom."""
    return [(note.event, note.member) for note in only(outputs, Noted)]


def state_of(book: Book, member: Member) -> MemberState | None:
    """Return what a book believes of a life."""
    known = book.members.get(member.id)
    return None if known is None else known.state


class Mesh:
    """Machines wired to each other: packets arrive at once, time jumps from timer to timer."""

    def __init__(self, *names: str, seed: int = 7, streams: bool = True) -> None:
        members = [a_member(name, seniority=i) for i, name in enumerate(names, 1)]
        self.now = 0.0
        self.streams = streams
        self.cut: dict[tuple[str, str], None] = {}
        """Pairs (from, to) of names between which packets are lost."""
        self.swims: dict[str, Swim] = {}
        self.outputs: list[tuple[float, str, Output]] = []
        self._queue: deque[tuple[str, Output]] = deque()
        for number, member in enumerate(members):
            swim = Swim(member, a_config(), CODEC, Random(seed * 100 + number))
            for other in members:
                swim.book.members.put(other, 0.0)
            self.add(names[number], swim)

    def add(self, name: str, swim: Swim) -> None:
        """Start a machine under a name, in place of one that crashed."""
        self.swims[name] = swim
        swim.start(self.now)

    def crash(self, name: str) -> Member:
        """Stop a machine without a word."""
        return self.swims.pop(name).book.local

    def isolate(self, name: str) -> None:
        """Lose every packet from and to a machine."""
        self.cut.update({pair: None for o in self.swims for pair in ((name, o), (o, name))})

    def states(self, member: Member) -> dict[str, MemberState | None]:
        """Return what each running machine believes of a life."""
        return {name: state_of(swim.book, member) for name, swim in self.swims.items()}

    def noted(self, event: str) -> list[tuple[float, str, MemberId]]:
        """Return who noted an event, when and about whom."""
        return [
            (at, name, output.member)
            for at, name, output in self.outputs
            if isinstance(output, Noted) and output.event == event
        ]

    def run(self, seconds: float) -> None:
        """Advance the time, firing every timer on the way."""
        end = self.now + seconds
        for _ in range(EVENTS_MAX):
            self._deliver()
            timers = ((s.next_deadline(), name) for name, s in self.swims.items())
            at, name = min((at, name) for at, name in timers if at is not None)
            if at > end:
                self.now = end
                return
            self.now = max(self.now, at)
            self.swims[name].tick(self.now)
        raise AssertionError(f"no progress at {self.now}")

    def _deliver(self) -> None:
        for name, swim in self.swims.items():
            self._queue.extend((name, output) for output in swim.take_outputs())
        while self._queue:
            name, output = self._queue.popleft()
            self.outputs.append((self.now, name, output))
            touched = self._carry_out(name, output)
            self._queue.extend((t, out) for t in touched for out in self.swims[t].take_outputs())

    def _carry_out(self, name: str, output: Output) -> list[str]:
        match output:
            case SendPacket(to, parts):
                return self._send(name, to.partition(":")[0], parts)
            case StreamProbe(token, member, address, _):
                other = self.swims.get(address.partition(":")[0])
                alive = self.streams and other is not None and other.book.local.id == member
                answer = StreamAnswered(token, alive, gone=False)
                self.swims[name].handle(answer, self.now)
                return [name]
            case StartExchange(address):
                return self._exchange(name, address.partition(":")[0])
            case _:
                return []

    def _send(self, name: str, to: str, parts: list[Part]) -> list[str]:
        if to not in self.swims or (name, to) in self.cut:
            return []
        sender = self.swims[name].book.local
        self.swims[to].handle(a_packet(sender, *parts), self.now)
        return [to]

    def _exchange(self, name: str, to: str) -> list[str]:
        if to not in self.swims or (name, to) in self.cut:
            return []
        views = {n: [m.to_record() for m in self.swims[n].book.members.all()] for n in (name, to)}
        self.swims[to].handle(Exchanged(views[name]), self.now)
        self.swims[name].handle(Exchanged(views[to]), self.now)
        return [name, to]
