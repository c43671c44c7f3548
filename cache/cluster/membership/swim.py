"""SWIM with Lifeguard as a machine: probes, timers, and which rumour goes into which packet. Pure.

Each probe interval one member is pinged. Is its answer late, relays are asked to ping it and it is
asked over the stream, too; if nothing came by the end of the interval it is suspected. A member in
doubt about itself (its own probes fail, it was accused, its loop stalled) is more patient by its
awareness score, and with a member that says that its loop stalls (`lag.py`).

Source: Das et al., SWIM, DSN 2002, §3-4; Dadgar et al., Lifeguard, DSN 2018, §3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final

from cache.cluster.config import ClusterConfig
from cache.cluster.ids import GENERATION_SEPARATOR, Address, MemberId
from cache.cluster.membership.lag import Lag, from_tenths, patience
from cache.cluster.membership.members import Member, MemberState
from cache.cluster.membership.outputs import (
    Event,
    Exchanged,
    LoopStalled,
    MembersChanged,
    Noted,
    Output,
    PacketReceived,
    Refused,
    SendPacket,
    StartExchange,
    StreamAnswered,
    StreamProbe,
)
from cache.cluster.membership.rumours import FORGET_FACTOR, Book
from cache.cluster.wire.packets import Ack, Nack, PacketCodec, Part, Ping, PingRequest, Rumour

SECOND_EXCHANGE_DELAY: Final = 1.0
"""Seconds after joining until a second random member is asked; closes the gap one lost rumour leaves."""

NACK_SHARE: Final = 0.8
"""Part of the probe timeout after which a relay says that it has no answer yet."""

RELAYS_MAX: Final = 1024
"""Probes relayed for others at once; further requests are ignored."""

NEWCOMERS_MAX: Final = 64
"""Unknown members taken in from one packet: twice what fits the usual size. Others come with the next."""

SEQUENCE_BITS: Final = 16
"""Each ping and each answer carries its number; an old one has long been refused when numbers recur."""


@dataclass(slots=True)
class Probe:
    """The probe under way."""

    sequence: int
    target: Member
    late_at: float
    ends_at: float
    acked: bool = False
    asked_relays: bool = False
    nacks_missing: int = 0
    answerers: dict[MemberId, None] = field(default_factory=dict)
    """Whose acknowledgement counts: the target's, and those of the relays that were asked."""


@dataclass(slots=True)
class Relay:
    """A ping made for somebody else."""

    source: Address
    target: MemberId
    sequence: int
    nack_at: float
    ends_at: float
    nacked: bool = False


@dataclass(slots=True)
class _Timers:
    probe_at: float = math.inf
    gossip_at: float = math.inf
    exchange_at: float = math.inf
    second_exchange_at: float = math.inf
    rejoin_at: float = math.inf


@dataclass(slots=True)
class _Verification:
    """A stream probe whose refusal means that the member is gone."""

    member: MemberId
    address: Address
    by_refusal: bool = field(default=False)


class Swim:
    """The membership machine of one member."""

    def __init__(
        self, local: Member, config: ClusterConfig, codec: PacketCodec, rng: Random
    ) -> None:
        self.book = Book(local, config, codec, rng)
        self.peers: Sequence[Address] = config.peers
        """Who is asked for ever to join, unless it is a member already."""
        self._gossip = config.gossip
        self._rng = rng
        self._sequence = rng.getrandbits(SEQUENCE_BITS)
        self._probe: Probe | None = None
        self._relays: dict[int, Relay] = {}
        self._streams: dict[int, _Verification] = {}
        self._timers = _Timers()
        self._lag = Lag()

    # -- machine contract --------------------------------------------------------------------

    def start(self, now: float) -> None:
        """Arm the timers; call once this member's record is final."""
        interval = self._gossip.probe_interval
        self._timers.probe_at = now + self._rng.uniform(0, interval)
        self._timers.gossip_at = now + self._rng.uniform(0, self._gossip.gossip_interval)
        self._timers.exchange_at = now + self._exchange_interval()
        self._timers.second_exchange_at = now + SECOND_EXCHANGE_DELAY * self._rng.uniform(1, 2)
        self._timers.rejoin_at = now + self._rejoin_interval()

    def handle(self, event: Event, now: float) -> None:
        """Apply one event; none after leaving."""
        if self.book.left:
            return
        match event:
            case PacketReceived(source, packet):
                sender = MemberId(packet.sender)
                self.book.members.hear_lag(sender, from_tenths(packet.lag_tenths))
                self._on_packet(source, sender, packet.parts, now)
            case StreamAnswered(token, alive, gone):
                self._on_stream(token, alive=alive, gone=gone, now=now)
            case Exchanged(records):
                self.book.merge(records, now)
            case Refused(address):
                self._on_refused(address, now)
            case LoopStalled(seconds):
                self.book.awareness.add(1)
                self._lag.note(seconds, now)

    def tick(self, now: float) -> None:
        """Fire what is due."""
        if self.book.left:
            return
        if (lag := self._lag.worst(now)) != self.book.local.lag:
            self.book.members.set_local(lag=lag)
        self._tick_probe(now)
        self._tick_relays(now)
        self.book.expire_suspicions(now)
        timers = self._timers
        if now >= timers.gossip_at:
            timers.gossip_at = self._next_gossip(now)
            self.book.gossip_round(now)
        if now >= timers.second_exchange_at:
            timers.second_exchange_at = math.inf
            self._exchange()
        if now >= timers.exchange_at:
            timers.exchange_at = now + self._exchange_interval()
            self._exchange()
        if now >= timers.rejoin_at:
            timers.rejoin_at = now + self._rejoin_interval()
            self._rejoin(now)

    def _next_gossip(self, now: float) -> float:
        """Return the next beat of this member's own rhythm.

        Counted from `now` it would become everybody's rhythm: news reaches all members in the same
        milliseconds, and whoever was missed would wait a whole interval for all of them at once.
        """
        interval, beat = self._gossip.gossip_interval, self._timers.gossip_at
        return beat + interval * (1 + (now - beat) // interval)

    def next_deadline(self) -> float | None:
        """Return the instant of the next timer."""
        if self.book.left:
            return None
        timers = self._timers
        instants = [timers.exchange_at, timers.second_exchange_at, timers.rejoin_at]
        if len(self.book.broadcasts):
            instants.append(timers.gossip_at)
        if self._probe is None or self._probe.acked:
            instants.append(timers.probe_at)
        else:
            instants.append(self._probe.ends_at)
            if not self._probe.asked_relays:
                instants.append(self._probe.late_at)
        instants += [r.ends_at if r.nacked else r.nack_at for r in self._relays.values()]
        if (suspicion := self.book.next_suspicion()) is not None:
            instants.append(suspicion)
        soonest = min(instants)
        return None if soonest == math.inf else soonest

    def take_outputs(self) -> list[Output]:
        """Return and forget what is to be done."""
        outputs, self.book.outputs = self.book.outputs, []
        return outputs

    # -- leaving -----------------------------------------------------------------------------

    def announce_leaving(self, now: float) -> None:
        """Say that this member is going and wants no new copies."""
        self.book.announce(now, leaving=True)
        self.book.outputs.append(MembersChanged())

    def leave(self, now: float) -> None:
        """Say goodbye; nothing is sent afterwards."""
        self.book.say_farewell(now)
        self._timers = _Timers()
        self._probe = None

    # -- packets -----------------------------------------------------------------------------

    def _on_packet(self, source: Address, sender: MemberId, parts: list[Part], now: float) -> None:
        newcomers, is_doubted = 0, False
        pings = [part for part in parts if isinstance(part, Ping)]
        for part in parts:
            match part:
                case Rumour(record):
                    if record.id == self.book.local.id and record.state != MemberState.ALIVE:
                        is_doubted = True
                    newcomers += self.book.members.get(MemberId(record.id)) is None
                    if newcomers <= NEWCOMERS_MAX:
                        self.book.hear(part, now)
                case Ping():
                    if part is pings[0]:
                        self._on_pings(pings, source, sender)
                case PingRequest():
                    self._on_ping_request(part, source, now)
                case Ack():
                    self._on_ack(part, sender)
                case Nack():
                    if self._probe is not None and self._probe.sequence == part.sequence:
                        self._probe.nacks_missing -= 1
        self._settle_doubts(sender, source, is_doubted=is_doubted)

    def _settle_doubts(self, sender: MemberId, source: Address, *, is_doubted: bool) -> None:
        """Tell a suspected or buried member that talks of it, and whoever doubts this one that it lives.

        Neither may be gossiped to the other: each believes that the other is dead, or will before long. And
        a doubt that was refuted already shows that the refutation was not heard.
        """
        member = self.book.members.get(sender)
        if member is None or member.address != source:
            return
        if member.state is not MemberState.ALIVE:
            rumour = Rumour(record=member.to_record(), accuser=self.book.local.id)
            self.book.outputs.append(SendPacket(source, [rumour]))
        if is_doubted:
            local = self.book.local
            self.book.outputs.append(SendPacket(source, [Rumour(local.to_record(), local.id)]))

    def _on_pings(self, pings: list[Ping], source: Address, sender: MemberId) -> None:
        """Answer those of one packet in one packet."""
        own = (self.book.local.id, _life_of(self.book.local.id))
        if acks := [Ack(sequence=ping.sequence) for ping in pings if ping.target in own]:
            known = self.book.members.get(sender)
            # News for members only: an answer to a stranger is never larger than its question.
            news = self.book.take_news(16) if known is not None and known.address == source else []
            self.book.outputs.append(SendPacket(source, [*acks, *news]))

    def _on_ping_request(self, request: PingRequest, source: Address, now: float) -> None:
        target = self.book.members.get(MemberId(request.target))
        if target is None or target.id == self.book.local.id or len(self._relays) >= RELAYS_MAX:
            return
        self._sequence = (self._sequence + 1) % 2**SEQUENCE_BITS
        timeout = self._gossip.probe_timeout
        self._relays[self._sequence] = Relay(
            source, target.id, request.sequence, now + NACK_SHARE * timeout, now + 4 * timeout
        )
        self.book.send(target, Ping(sequence=self._sequence, target=_life_of(target.id)))

    def _on_ack(self, ack: Ack, sender: MemberId) -> None:
        relay = self._relays.get(ack.sequence)
        if relay is not None and relay.target == sender:
            del self._relays[ack.sequence]
            self.book.outputs.append(SendPacket(relay.source, [Ack(sequence=relay.sequence)]))
        probe = self._probe
        if probe is not None and probe.sequence == ack.sequence and not probe.acked:
            if sender == probe.target.id or sender in probe.answerers:
                probe.acked = True
                self.book.awareness.add(-1)

    def _tick_relays(self, now: float) -> None:
        for sequence, relay in list(self._relays.items()):
            if now >= relay.ends_at:
                del self._relays[sequence]
            elif now >= relay.nack_at and not relay.nacked:
                relay.nacked = True
                nack = Nack(sequence=relay.sequence)
                self.book.outputs.append(SendPacket(relay.source, [nack]))

    # -- probing -----------------------------------------------------------------------------

    def _tick_probe(self, now: float) -> None:
        probe = self._open_probe()
        if probe is not None:
            if now >= probe.late_at and not probe.asked_relays:
                self._ask_relays(probe)
            if now < probe.ends_at:
                return  # It may end later than the next one begins, when its target is a slow one.
            self._fail_probe(probe, now)
        if now >= self._timers.probe_at:
            self._start_probe(now)

    def _open_probe(self) -> Probe | None:
        """Return the probe that still waits, unless its target left or died meanwhile."""
        probe = self._probe
        if probe is None or probe.acked:
            return None
        target = self.book.members.get(probe.target.id)
        if target is None or not target.live:
            self._probe = None
        return self._probe

    def _start_probe(self, now: float) -> None:
        awareness, gossip = self.book.awareness, self._gossip
        interval = awareness.scale(gossip.probe_interval)
        self._timers.probe_at = now + interval
        target = self.book.members.next_probe()
        if target is None:
            self._probe = None
            return
        self._sequence = (self._sequence + 1) % 2**SEQUENCE_BITS
        # A stall of `lag` beyond a timer was one of up to `lag + interval`: timers lie no further apart.
        longer = patience(target.lag, gossip.probe_interval)
        late_at = now + awareness.scale(gossip.probe_timeout) + longer
        self._probe = Probe(self._sequence, target, late_at, now + interval + longer)
        parts: list[Part] = [Ping(sequence=self._sequence, target=_life_of(target.id))]
        if target.state is MemberState.SUSPECT:  # Let it refute at once (Lifeguard's buddy).
            parts.insert(0, Rumour(record=target.to_record(), accuser=self.book.local.id))
        self.book.send(target, *parts)

    def _ask_relays(self, probe: Probe) -> None:
        probe.asked_relays = True
        relays = self.book.members.sample(self._gossip.indirect_probes, probe.target.id)
        probe.nacks_missing = len(relays)
        probe.answerers = dict.fromkeys(relay.id for relay in relays)
        for relay in relays:
            request = PingRequest(probe.sequence, probe.target.id, probe.target.address)
            self.book.send(relay, request)
        self._ask_by_stream(probe.target, probe.sequence, probe.ends_at - probe.late_at)

    def _ask_by_stream(self, member: Member, token: int, timeout: float) -> None:
        self._streams[token] = _Verification(member.id, member.address)
        self.book.outputs.append(
            StreamProbe(token, member.id, member.address, max(timeout, self._gossip.probe_timeout))
        )

    def _fail_probe(self, probe: Probe, now: float) -> None:
        self._probe = None
        # Relays that said nothing at all hint that the fault is here (Lifeguard).
        relays = self.book.members.count_live() > 2
        self.book.awareness.add(max(0, probe.nacks_missing) if relays else 1)
        member = self.book.members.get(probe.target.id)
        if member is not None and member.state is MemberState.ALIVE:
            self.book.suspect(member, self.book.local.id, now)
        elif member is not None and member.state is MemberState.SUSPECT:
            suspicion = self.book.suspicions.get(member.id)
            if suspicion is not None and self.book.confirm(suspicion, self.book.local.id, now):
                self.book.tell(member, self.book.local.id, now)

    def _on_stream(self, token: int, *, alive: bool, gone: bool, now: float) -> None:
        verification = self._streams.pop(token, None)
        if verification is None:
            return
        if alive:
            probe = self._probe
            if probe is not None and probe.sequence == token and not probe.acked:
                probe.acked = True
                self.book.outputs.append(Noted("member.stream_only", verification.member))
            return
        member = self.book.members.get(verification.member)
        if gone and member is not None and member.live:
            if self.book.believes_refusals(member.id, now):
                self.book.bury_refused(member, now)

    def _on_refused(self, address: Address, now: float) -> None:
        """A stream was refused: look once more, and believe it if it is refused again."""
        member = self.book.members.at(address)
        if member is None or not self.book.believes_refusals(member.id, now):
            return
        if any(v.member == member.id for v in self._streams.values()):
            return
        self._sequence = (self._sequence + 1) % 2**SEQUENCE_BITS
        self._ask_by_stream(member, self._sequence, self._gossip.probe_timeout)

    # -- full exchanges ----------------------------------------------------------------------

    def _exchange_interval(self) -> float:
        count = self.book.members.count_live()
        stretch = 1 if count <= 32 else math.ceil(math.log2(count) - 5) + 1
        return self._gossip.push_pull_interval * stretch * self._rng.uniform(0.9, 1.1)

    def _rejoin_interval(self) -> float:
        return self._gossip.rejoin_interval * self._rng.uniform(0.8, 1.2)

    def _exchange(self) -> None:
        for member in self.book.members.sample(1):
            self.book.outputs.append(StartExchange(member.address))

    def _rejoin(self, now: float) -> None:
        """Try peers that are no members, and one dead member: this is what heals a split."""
        members = self.book.members
        self.book.reap(now, FORGET_FACTOR * self._gossip.gossip_to_dead_time)
        reached = dict.fromkeys(member.address for member in members.live())
        wanted = [peer for peer in self.peers if peer not in reached]
        dead = [m.address for m in members.all() if m.state is MemberState.DEAD]
        if dead := [address for address in dead if address not in reached]:
            wanted.append(self._rng.choice(dead))
        self.book.outputs.extend(StartExchange(address) for address in dict.fromkeys(wanted))


def _life_of(member: MemberId) -> str:
    """Return the part of an id that differs between any two lives: all that a ping has to name."""
    return member.rpartition(GENERATION_SEPARATOR)[2]
