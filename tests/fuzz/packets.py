"""The packet target: a real membership service, its machine, and the UDP sender, without a socket."""

from __future__ import annotations

import socket
from random import Random
from types import SimpleNamespace
from typing import Any, Final, cast

import msgspec

from cache.cluster.config import ClusterConfig, LimitsConfig
from cache.cluster.ids import Address, MemberId
from cache.cluster.membership.outputs import Exchanged
from cache.cluster.membership.service import MembershipService
from cache.cluster.scope import Scope
from cache.cluster.transport import sockets
from cache.cluster.transport.rpc import RpcEndpoint
from cache.cluster.wire.messages import MemberRecord
from cache.cluster.wire.packets import HEADER_BYTES, MAC_BYTES, Drop
from cache.metrics import Metrics
from tests.fuzz import seeds
from tests.fuzz.base import NoNetwork, PushedClock, Target, expect
from tests.fuzz.mutate import Mutation, PacketMutation, mutate_body, packet_key, packet_mac

SPOOFED: Final = Address("203.0.113.77:4321")
"""Where the inputs claim to come from; no member listens there."""

REPLAY_EVERY: Final = 8
MEMBERS_MAX: Final = 64
RECORDS: Final = msgspec.msgpack.Decoder(list[MemberRecord])
STEP: Final = 0.02
"""Virtual seconds between two inputs."""


class _Datagrams:
    """The operating system's side of UDP: counts what leaves, and for whom."""

    def __init__(self) -> None:
        self.bytes_to: dict[tuple[Any, ...], int] = {}  # Any: a socket address
        self.count = 0

    def get_extra_info(self, name: str) -> Any:  # Any: as asyncio
        return SimpleNamespace(family=socket.AF_INET)

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return False

    def sendto(self, payload: bytes, where: tuple[Any, ...]) -> None:  # Any: a socket address
        self.count += 1
        self.bytes_to[where] = self.bytes_to.get(where, 0) + len(payload)

    def abort(self) -> None:
        """Nothing is open."""


class PacketTarget(Target):
    """Packets of strangers, with a secret, or of anybody, without one."""

    def __init__(self, secret: str | None) -> None:
        self.name = "packets" if secret is None else "packets-secret"
        self.mutation: Mutation = PacketMutation(seeds.CLUSTER, secret)
        self._secret = secret
        self._key = packet_key(secret)
        self._service: MembershipService | None = None
        self._rpc: RpcEndpoint
        self._scope: Scope
        self._ratio = self._ratio_unauthenticated = 0.0
        self._count = 0

    def seeds(self, rng: Random) -> list[bytes]:
        made = seeds.packets(self._secret, rng)
        if self._secret is not None:
            made += seeds.packets(None, rng)[:4] + seeds.packets(seeds.OTHER_SECRET, rng)[:4]
        return made

    async def reset(self) -> None:
        """Start a member that knows four others."""
        if self._service is not None:
            self._service.close()
            await self._rpc.close()
            await self._scope.close()
        config = ClusterConfig.local(
            cluster_name=seeds.CLUSTER,
            secret=self._secret,
            partition_count=8,
            limits=LimitsConfig(members_max=MEMBERS_MAX),
        )
        self._clock = PushedClock()
        self._metrics = Metrics()
        self._scope = Scope("fuzz")
        self._datagrams = _Datagrams()
        packets = sockets._Packets(lambda source, payload: None)
        packets.connection_made(cast("Any", self._datagrams))  # Any: only what is used is there
        shared: dict[str, Any] = {  # Any: arguments of both constructors
            "config": config,
            "member": MemberId(seeds.LOCAL_ID),
            "clock": self._clock,
            "transport": NoNetwork(packets),
            "metrics": self._metrics,
            "scope": self._scope,
        }
        self._rpc = RpcEndpoint(rng=Random(1), **shared)
        address = Address(seeds.LOCAL_ADDRESS)
        self._service = MembershipService(rng=Random(2), address=address, rpc=self._rpc, **shared)
        await self._service.join()
        records = [seeds.a_record(number) for number in range(len(seeds.IDS))]
        self._service._driver.post(Exchanged(records))
        self._service._driver.flush()
        assert len(self._service.members()) == 1 + len(seeds.IDS), "the member knows the others"

    def feed(self, data: bytes) -> str:
        service = self._service
        assert service is not None, "reset comes first"
        self._count += 1
        before = dict(self._metrics.snapshot())
        known, sent, waiting = self._known(), self._datagrams.count, len(service._driver._inbox)
        self._datagrams.bytes_to.clear()
        service.receive_packet(SPOOFED, data)
        drops = self._drops(before)
        if not self._is_authentic(data):
            expect(len(drops) == 1, f"an unauthenticated packet is counted once, not {drops}")
        if drops:
            expect(len(service._driver._inbox) == waiting, "a dropped packet reached the machine")
            expect(known == self._known(), "a dropped packet changed the members")
            expect(sent == self._datagrams.count, "a dropped packet was answered")
            return drops[0]
        service._driver.flush()
        answered = self._datagrams.bytes_to.get(("203.0.113.77", 4321), 0)
        self._ratio = max(self._ratio, answered / len(data))
        self._check(data)
        self._clock.now += STEP
        return f"accepted {answered > 0} {len(self._known())}"

    def _check(self, data: bytes) -> None:
        assert self._service is not None
        swim = self._service._swim
        expect(len(self._known()) <= MEMBERS_MAX, "more members than limits.members_max")
        expect(len(swim._relays) <= 1024, "more relays than the limit")
        expect(self._service._driver._timer is not None, "the machine's timer is not armed")
        if self._count % REPLAY_EVERY == 0:
            self._check_replay(data)

    def _check_replay(self, data: bytes) -> None:
        """With a secret a repeat is dropped unanswered; without, it changes nothing."""
        assert self._service is not None
        replayed = self._metrics.counter(f"packets.dropped.{Drop.REPLAYED.value}")
        before, sent = replayed.value, self._datagrams.count
        if self._secret is not None:
            self._service.receive_packet(SPOOFED, data)
            expect(replayed.value == before + 1, "a replayed packet was taken in")
            expect(sent == self._datagrams.count, "a replayed packet was answered")
            return
        # The order of parts matters once; from then on a repeat has nothing new to say.
        views: list[list[object]] = []
        for _ in range(2):
            self._service.receive_packet(SPOOFED, data)
            self._service._driver.flush()
            views.append(self._known())
        expect(views[0] == views[1], "a replayed packet changed the members")

    def _known(self) -> list[object]:
        assert self._service is not None
        return list(self._service._swim.book.members.all())

    def _drops(self, before: dict[str, float]) -> list[str]:
        after = self._metrics.snapshot()
        return [
            name.removeprefix("packets.dropped.")
            for name, value in after.items()
            if name.startswith("packets.dropped.") and value != before.get(name, 0)
        ]

    def _is_authentic(self, data: bytes) -> bool:
        """Judge the seal by a second implementation of the format."""
        if self._key is None:
            return True
        head, mac = data[:HEADER_BYTES], data[HEADER_BYTES : HEADER_BYTES + MAC_BYTES]
        return mac == packet_mac(head, data[HEADER_BYTES + MAC_BYTES :], self._key)

    def facts(self) -> dict[str, float]:
        return {"largest answer to a spoofed source / question": round(self._ratio, 1)}


class ExchangeTarget(PacketTarget):
    """The records of a push-pull, as a stream brings them: any number, in any state, at once."""

    def __init__(self) -> None:
        super().__init__(None)
        self.name = "exchange"
        self.mutation = mutate_body

    def seeds(self, rng: Random) -> list[bytes]:
        known = [
            seeds.a_record(number, state=state, incarnation=1 + state)
            for number in range(len(seeds.IDS))
            for state in range(4)
        ]
        known += [seeds.example(MemberRecord, rng) for _ in range(8)]
        return [msgspec.msgpack.encode(rng.sample(known, 1 + n % 4)) for n in range(32)]

    def feed(self, data: bytes) -> str:
        try:
            records = RECORDS.decode(data)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return "no records"
        assert self._service is not None, "reset comes first"
        for _ in range(2):
            self._service._driver.post(Exchanged(records))
            self._service._driver.flush()
        self._clock.now += STEP
        expect(len(self._known()) <= MEMBERS_MAX, "more members than limits.members_max")
        expect(self._service._driver._timer is not None, "the machine's timer is not armed")
        return f"merged {len(self._known())} {len(self._service.members())}"
