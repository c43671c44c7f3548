"""Membership on the wire: runs the SWIM machine, exchanges full state over streams, joins and leaves."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from random import Random
from typing import Final

from cache.clock import Clock
from cache.cluster.config import ClusterConfig
from cache.cluster.driver import Driver
from cache.cluster.ids import Address, MemberId
from cache.cluster.membership.members import SENIORITY_MAX, Member
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
from cache.cluster.wire.messages import Done, MemberRecord, PushPull, Reply, StreamPing
from cache.cluster.wire.packets import Drop, Packet, PacketCodec, Part, Rumour
from cache.errors import CacheError, JoinRefusedError, RemoteProtocolError, UnavailableError
from cache.metrics import Metrics

logger = logging.getLogger(__name__)

EXCHANGE_TIMEOUT: Final = 3.0
"""Seconds for one push-pull."""

JOIN_RETRY_INTERVAL: Final = 0.2
FAREWELL_ROUNDS: Final = 3
"""How often the goodbye is sent: packets may be lost."""

FAREWELL_INTERVAL: Final = 0.02
EXCHANGES_MAX: Final = 16
"""Push-pulls under way at once."""


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
    ) -> None:
        self._config = config
        self._clock = clock
        self._transport = transport
        self._rpc = rpc
        self._metrics = metrics
        self._scope = scope
        self._codec = PacketCodec(cluster_name=config.cluster_name, secret=config.secret)
        local = Member(
            id=member,
            address=address,
            weight=config.weight,
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
        self._joined = False
        self._exchanging: dict[Address, None] = {}
        self._refused: dict[Address, None] = {}
        metrics.gauge("member.count", lambda: len(self.members()))
        metrics.gauge("member.awareness", lambda: self._swim.book.awareness.score)
        rpc.register(StreamPing, self._on_stream_ping)
        rpc.register(PushPull, self._on_push_pull)

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
        return Packet(sender=packet.sender, parts=parts)

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
        """Find the cluster through the configured peers, or begin one.

        Raises:
            JoinRefusedError: every peer that answered refused this node.
        """
        records = await self._find_cluster()
        now = self._clock.monotonic()
        self._joined = True
        book = self._swim.book
        highest = max((record.seniority for record in records), default=0)
        seniority = min(1 + highest, SENIORITY_MAX)
        book.members.set_local(seniority=seniority)
        self._swim.start(now)
        book.merge(records, now)
        book.announce(now)
        self._driver.flush()
        if records:
            peers = [member.address for member in book.members.others()]
            for address in peers[:2]:
                self._start_exchange(address)

    async def _find_cluster(self) -> list[MemberRecord]:
        """Return what the cluster knows, or nothing when there is none to be found."""
        peers = [peer for peer in self._config.peers if peer != self.local().address]
        deadline = self._clock.monotonic() + self._config.join_timeout
        while peers:
            answers = await asyncio.gather(*(self._ask_to_join(peer) for peer in peers))
            found = [answer for answer in answers if isinstance(answer, PushPull)]
            if found:
                return [record for answer in found for record in answer.records]
            refusals = [answer for answer in answers if isinstance(answer, JoinRefusedError)]
            if refusals:
                raise refusals[0]
            absent = all(peer in self._refused for peer in peers)
            if absent or self._clock.monotonic() >= deadline:
                logger.warning("member.alone peers=%s: none answered, serving alone", peers)
                break
            await asyncio.sleep(JOIN_RETRY_INTERVAL)
        return []

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
                packet = Packet(sender=self.local().id, parts=parts)
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
                logger.info("%s member=%s by=%s", event, member, self.local().id)

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
        try:
            message = PushPull(join=False, records=self._records())
            answer = await self._rpc.call(address, message, timeout=EXCHANGE_TIMEOUT)
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

    def _on_push_pull(self, message: PushPull, peer: Peer) -> Reply:
        if not self._joined:
            raise UnavailableError("this member has not joined yet")
        if not message.join:
            self._driver.post(Exchanged(message.records))
        return PushPull(join=message.join, records=self._records())
