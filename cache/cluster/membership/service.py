"""Membership on the wire: runs the SWIM machine, exchanges full state over streams, joins and leaves."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Final

import msgspec

from cache.clock import Clock
from cache.cluster.config import ClusterConfig
from cache.cluster.discovery.finder import Finder
from cache.cluster.driver import Driver
from cache.cluster.ids import Address, MemberId
from cache.cluster.membership.lag import to_tenths
from cache.cluster.membership.members import SENIORITY_MAX, Member, MemberState
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
from cache.cluster.membership.swim import Swim
from cache.cluster.scope import Scope
from cache.cluster.transport.base import Transport
from cache.cluster.transport.rpc import Peer, RpcEndpoint
from cache.cluster.wire.messages import (
    CompareMembers,
    Done,
    Looking,
    MemberRecord,
    MembersCompared,
    PushPull,
    Reply,
    StreamPing,
)
from cache.cluster.wire.packets import Drop, Packet, PacketCodec, Part, Rumour
from cache.errors import CacheError, JoinRefusedError, RemoteProtocolError, UnavailableError
from cache.metrics import Metrics

logger = logging.getLogger(__name__)

EXCHANGE_TIMEOUT: Final = 3.0
"""Seconds for one push-pull, and for the question before it."""

JOIN_RETRY_INTERVAL: Final = 0.2
FAREWELL_ROUNDS: Final = 3
"""How often the goodbye is sent: packets may be lost."""

FAREWELL_INTERVAL: Final = 0.02
EXCHANGES_MAX: Final = 16
"""Push-pulls under way at once."""

WARNINGS: Final = ("member.cannot_refute", "member.name_conflict", "member.no_room")
"""Notes that somebody has to do something about."""


class MembershipService:
    """Knows who is here."""

    def __init__(
        self,
        *,
        config: ClusterConfig,
        member: MemberId,
        address: Address,
        clock: Clock,
        rng: Random,
        transport: Transport,
        rpc: RpcEndpoint,
        metrics: Metrics,
        scope: Scope,
        finder: Finder | None = None,
    ) -> None:
        self._config = config
        self._finder = finder if finder is not None else Finder(config, metrics)
        self._clock = clock
        self._transport = transport
        self._rpc = rpc
        self._metrics = metrics
        self._scope = scope
        self._codec = PacketCodec(cluster_name=config.cluster_name, secret=config.secret)
        local = Member(
            id=member,
            address=address,
            weight=config.weight if config.data else 0,
            host=config.host,
            zone=config.zone,
            tags=config.tags,
        )
        self._swim = Swim(local, config, self._codec, rng)
        self._driver: Driver[Event, Output] = Driver(
            self._swim,
            clock=clock,
            perform=self._perform,
            stalled=lambda seconds: self._driver.post(LoopStalled(seconds)),
            stall_threshold=config.gossip.probe_timeout,
        )
        self._subscribers: list[Callable[[], None]] = []
        self.on_noted: Callable[[str, MemberId], None] | None = None
        """Called with what counters and logs are told, for example "member.suspect", and of whom."""
        self._joined = False
        self._exchanging: dict[Address, None] = {}
        self._refused: dict[Address, None] = {}
        self._register_gauges()
        rpc.register(StreamPing, self._on_stream_ping)
        rpc.register(PushPull, self._on_push_pull)
        rpc.register(CompareMembers, self._on_compare)

    def _register_gauges(self) -> None:
        gauge, book = self._metrics.gauge, self._swim.book
        gauge("member.count", lambda: len(self.members()))
        for state in MemberState:
            gauge(f"member.count.{state.name.lower()}", partial(book.members.count, state))
        gauge("member.awareness", lambda: book.awareness.score)
        gauge("member.lag", lambda: book.local.lag)
        gauge("member.events_dropped", lambda: self._driver.dropped_count)

    # -- what others ask ---------------------------------------------------------------------

    def members(self) -> list[Member]:
        """Return the live members, oldest first, this one included."""
        return self._swim.book.members.live()

    def local(self) -> Member:
        """Return the record of this member."""
        return self._swim.book.local

    def member(self, member: MemberId) -> Member | None:
        """Return what is known of a member, dead ones included."""
        return self._swim.book.members.get(member)

    def subscribe(self, callback: Callable[[], None]) -> None:
        """Call `callback` after each change of the live members or their leaving flags."""
        self._subscribers.append(callback)

    def receive_packet(self, source: Address, payload: bytes) -> None:
        """Take in a packet from the network."""
        packet = self._codec.open(payload)
        if isinstance(packet, Drop):
            self._metrics.counter(f"packets.dropped.{packet.value}").add()
        elif self._joined:
            self._driver.post(PacketReceived(source, self._believable(source, packet)))

    def _believable(self, source: Address, packet: Packet) -> Packet:
        """Return the packet without rumours, if it is from nobody known here; a stream tells who it is.

        Numbers keep recorded packets out only from the first one of a sender on. So a packet of a life
        that ended long ago could be such a first one, and its rumours would bring that life back.
        A stream's handshake cannot be recorded.
        """
        known = self.member(MemberId(packet.sender)) is not None
        if known or not self._codec.authenticates:
            return packet
        self._metrics.counter("packets.unknown_sender").add()
        self._start_exchange(source)
        parts: list[Part] = [part for part in packet.parts if not isinstance(part, Rumour)]
        return msgspec.structs.replace(packet, parts=parts)

    def report_refused(self, address: Address) -> None:
        """Nobody listens at `address`: evidence that the member there is gone."""
        self._refused[address] = None
        if self._joined:
            self._driver.post(Refused(address))

    def report_lost(self, address: Address) -> None:
        """A link to `address` broke: look at once whether the member is still there."""
        if self._joined:
            self._driver.post(Refused(address))

    # -- life --------------------------------------------------------------------------------

    async def join(self) -> None:
        """Find the cluster through the peers that are known, or begin one.

        Raises:
            JoinRefusedError: every peer that answered refused this node.
        """
        answers = await self._find_cluster()
        records = [record for answer in answers for record in answer.records]
        now = self._clock.monotonic()
        self._joined = True
        book = self._swim.book
        highest = max((record.seniority for record in records), default=0)
        seniority = min(1 + highest, SENIORITY_MAX)
        book.members.set_local(seniority=seniority)
        self._swim.start(now)
        for answer in answers[:1]:
            book.adopt(answer.records, now)
        book.merge(records, now)  # Where the answers differ there is something to tell.
        book.announce(now)
        self._driver.flush()
        if records:
            peers = [member.address for member in book.members.others()]
            for address in peers[:2]:
                self._start_exchange(address)
        if not self._finder.is_constant:
            self._scope.spawn(self._keep_looking(), name="keep_looking")

    async def _keep_looking(self) -> None:
        """Ask for peers for ever; SWIM tries those that are no members."""
        while True:
            await asyncio.sleep(self._config.gossip.rejoin_interval)
            self._swim.peers = await self._finder.find()

    async def _find_cluster(self) -> list[PushPull]:
        """Return what peers know, most first; nothing when there is no cluster to be found.

        Of nodes that look at the same time the one with the lowest id begins the cluster, once it has seen
        for a whole round that the others still look: one that knows of a cluster has joined it by then.
        """
        deadline = self._clock.monotonic() + self._config.join_timeout
        was_first = False
        while True:
            self._swim.peers = await self._finder.find()
            peers = [peer for peer in self._swim.peers if peer != self.local().address]
            if not peers:
                break
            answers = await asyncio.gather(*(self._ask_to_join(peer) for peer in peers))
            found = [answer for answer in answers if isinstance(answer, PushPull)]
            if found:
                return sorted(found, key=lambda answer: -len(answer.records))
            refusals = [answer for answer in answers if isinstance(answer, JoinRefusedError)]
            if refusals:
                raise refusals[0]
            if all(peer in self._refused for peer in peers):
                logger.warning("member.alone peers=%s: nobody is there, serving alone", peers)
                break
            is_first = all(map(self._comes_before, peers, answers))
            if is_first and was_first:
                logger.info("member.first peers=%s: they look too, and wait for this one", peers)
                break
            was_first = is_first
            if self._clock.monotonic() >= deadline:
                logger.warning("member.alone peers=%s: none answered, serving alone", peers)
                break
            await asyncio.sleep(JOIN_RETRY_INTERVAL)
        return []

    def _comes_before(self, peer: Address, answer: Reply | CacheError) -> bool:
        """Return whether `peer` is absent, waits for this node to begin, or is this node itself."""
        if isinstance(answer, Looking):
            return answer.member >= self.local().id
        return peer in self._refused

    async def _ask_to_join(self, peer: Address) -> Reply | CacheError:
        self._refused.pop(peer, None)
        try:
            question = PushPull(join=True, records=[])
            return await self._rpc.call(peer, question, timeout=EXCHANGE_TIMEOUT)
        except CacheError as error:
            logger.info("member.join_failed peer=%s error=%s", peer, error)
            return error

    def announce_leaving(self) -> None:
        """Tell everybody that this member is going and wants no new copies."""
        self._swim.announce_leaving(self._clock.monotonic())
        self._driver.flush()

    async def leave(self) -> None:
        """Say goodbye to everybody; this member takes no part afterwards."""
        for _ in range(FAREWELL_ROUNDS):
            self._swim.leave(self._clock.monotonic())
            self._driver.flush()
            await asyncio.sleep(FAREWELL_INTERVAL)
        self._joined = False
        self._driver.close()

    def close(self) -> None:
        """Stop at once."""
        self._joined = False
        self._driver.close()

    # -- outputs of the machine --------------------------------------------------------------

    def _perform(self, output: Output) -> None:
        match output:
            case SendPacket(to, parts):
                local = self.local()
                packet = Packet(local.id, parts, to_tenths(local.lag))
                self._transport.send_packet(to, self._codec.seal(packet))
            case StreamProbe():
                self._scope.spawn(self._probe_by_stream(output), name="stream_probe")
            case StartExchange(address):
                self._start_exchange(address)
            case MembersChanged():
                for callback in self._subscribers:
                    callback()
            case Noted(event, member):
                self._metrics.counter(event).add()
                level = logging.WARNING if event in WARNINGS else logging.INFO
                logger.log(level, "%s member=%s by=%s", event, member, self.local().id)
                if self.on_noted is not None:
                    self.on_noted(event, member)

    async def _probe_by_stream(self, probe: StreamProbe) -> None:
        self._refused.pop(probe.address, None)
        alive = gone = False
        try:
            question = StreamPing(target=probe.member)
            await self._rpc.call(probe.address, question, timeout=probe.timeout)
            alive = True
        except UnavailableError:
            gone = probe.address in self._refused
        except RemoteProtocolError:
            gone = True  # Another life answers at this address.
        except CacheError as error:
            logger.debug("member.stream_probe_failed member=%s error=%s", probe.member, error)
        self._driver.post(StreamAnswered(probe.token, alive, gone))

    def _start_exchange(self, address: Address) -> None:
        if address not in self._exchanging and len(self._exchanging) < EXCHANGES_MAX:
            self._exchanging[address] = None
            self._scope.spawn(self._exchange(address), name="exchange")

    async def _exchange(self, address: Address) -> None:
        until = self._clock.monotonic() + EXCHANGE_TIMEOUT
        try:
            question = CompareMembers(digest=self._swim.book.members.digest())
            compared = await self._rpc.call(address, question, timeout=EXCHANGE_TIMEOUT)
            if isinstance(compared, MembersCompared) and compared.equal:
                self._metrics.counter("member.exchanges_spared").add()
                return
            message = PushPull(join=False, records=self._records())
            left = until - self._clock.monotonic()
            answer = await self._rpc.call(address, message, timeout=left)
            if isinstance(answer, PushPull):
                self._driver.post(Exchanged(answer.records))
        except CacheError as error:
            logger.debug("member.exchange_failed address=%s error=%s", address, error)
        finally:
            self._exchanging.pop(address, None)

    def _records(self) -> list[MemberRecord]:
        return [member.to_record() for member in self._swim.book.members.all()]

    # -- handlers ----------------------------------------------------------------------------

    def _on_stream_ping(self, message: StreamPing, peer: Peer) -> Reply:
        if message.target != self.local().id or not self._joined:
            raise RemoteProtocolError(f"{message.target} does not listen here")
        return Done()

    def _on_compare(self, message: CompareMembers, peer: Peer) -> Reply:
        if not self._joined:
            raise UnavailableError("this member has not joined yet")
        return MembersCompared(equal=self._swim.book.agrees(message.digest))

    def _on_push_pull(self, message: PushPull, peer: Peer) -> Reply:
        if not self._joined and message.join:
            return Looking(member=self.local().id)
        if not self._joined:
            raise UnavailableError("this member has not joined yet")
        if not message.join:
            self._driver.post(Exchanged(message.records))
        return PushPull(join=message.join, records=self._records())
