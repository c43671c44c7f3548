"""What strangers send to a real node on loopback sockets: it is closed, dropped and counted; nothing else."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import msgspec
import pytest

from cache.cluster.config import ClusterConfig, LimitsConfig
from cache.cluster.ids import Address, parse_address
from cache.cluster.node import Node
from cache.cluster.transport.handshake import (
    Handshake,
    HandshakeState,
    Role,
    derive_key,
    new_hello,
)
from cache.cluster.wire import frames
from cache.cluster.wire.encoding import decode_greeting, decode_reply, encode_message
from cache.cluster.wire.frames import encode_frame
from cache.cluster.wire.messages import (
    CODE_BAD_REQUEST,
    CODE_NOT_OWNER,
    NEVER,
    Call,
    Failure,
    FetchTable,
    Get,
    MemberRecord,
    PushTable,
    Refusal,
    Request,
    Set,
    TableId,
    TableRecord,
)
from cache.cluster.wire.packets import (
    HEADER_BYTES,
    NUMBER_FIRST,
    Packet,
    PacketCodec,
    Ping,
    Rumour,
)
from cache.member_client import MemberClient
from tests.fuzz.mutate import packet_key, packet_mac
from tests.unit.cluster.transport.support import RawPeer, connect_raw, eventually

pytestmark = pytest.mark.sockets

SECRET: Final = "the secret of this cluster"
HANDSHAKE_TIMEOUT: Final = 1.0
IDLE_COUNT: Final = 1000
IDLE_COUNT_SMALL: Final = 400
DRIP_INTERVAL: Final = 0.05
LIMITS: Final = LimitsConfig(handshake_timeout=HANDSHAKE_TIMEOUT, connections_max=2 * IDLE_COUNT)
TOO_LONG: Final = (2**31).to_bytes(4, "big") + bytes([frames.GREETING]) + bytes(8)
NESTED: Final = b"\x91" * 3000


def a_config(*peers: Address, secret: str | None = SECRET) -> ClusterConfig:
    """Return the settings of a small node with a short handshake timeout."""
    return ClusterConfig.local(secret=secret, peers=peers, partition_count=16, limits=LIMITS)


_opened: list[RawPeer] = []
"""Raw streams of the test that runs."""


async def connected(to: Address) -> RawPeer:
    """Open a raw stream, which is closed with the test."""
    _opened.append(await connect_raw(to))
    return _opened[-1]


@pytest.fixture(autouse=True)
async def close_streams() -> AsyncIterator[None]:
    """Leave no stream to the garbage collector, which would blame another test."""
    yield
    peers = _opened.copy()
    _opened.clear()
    for peer in peers:
        assert peer.stream is not None
        peer.stream.abort()
    await eventually(lambda: all(map(_is_lost, peers)))


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    started = Node(a_config())
    await started.start()
    yield started
    await started.abort()


@pytest.fixture
async def open_node() -> AsyncIterator[Node]:
    """A node without a secret: everybody is let in, but nobody may break it."""
    started = Node(a_config(secret=None))
    await started.start()
    yield started
    await started.abort()


def count(node: Node, name: str) -> float:
    """Return a reading of the node."""
    return node._metrics.snapshot().get(name, 0)


def state_of(node: Node) -> object:
    """Return everything that input may change: members, table and copies."""
    copies = {p: copy.digest() for p, copy in node._replication.copies.items()}
    return node.members(), node.partition_table(), copies


async def greeted(node: Node) -> RawPeer:
    """Return a raw stream after a good handshake, as a client that knows the secret."""
    peer = await connected(node.address)
    hello = new_hello(
        cluster_name="cache", partition_count=0, member="", address="", nonce=b"n" * 16
    )
    handshake = Handshake(Role.INITIATOR, hello, derive_key(node.config.secret or SECRET))
    said = handshake.start()
    for index in range(2):
        for body in said:
            peer.write(encode_frame(frames.GREETING, 0, body))
        await eventually(partial(_has_frames, peer, index + 1))
        said = handshake.receive(peer.frames()[index][2])
    assert handshake.state is HandshakeState.DONE
    return peer


def _is_lost(peer: RawPeer) -> bool:
    return peer.lost


def _has_frames(peer: RawPeer, wanted: int) -> bool:
    return len(peer.frames()) >= wanted


@dataclass
class Spoofer(asyncio.DatagramProtocol):
    """A socket that sends packets as anybody, and keeps what it is told."""

    received: list[bytes]
    transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # asyncio's own base class

    def datagram_received(self, data: bytes, addr: object) -> None:
        self.received.append(data)

    def send(self, payload: bytes) -> None:
        assert self.transport is not None
        self.transport.sendto(payload)


Spoof = Callable[[Address], Awaitable[Spoofer]]


@pytest.fixture
async def spoof() -> AsyncIterator[Spoof]:
    """Open sockets that send to a node, and close them."""
    made: list[Spoofer] = []

    async def open_socket(to: Address) -> Spoofer:
        loop = asyncio.get_running_loop()
        _, spoofer = await loop.create_datagram_endpoint(
            lambda: Spoofer([]), remote_addr=parse_address(to), local_addr=("127.0.0.1", 0)
        )
        made.append(spoofer)
        return spoofer

    yield open_socket
    for spoofer in made:
        if spoofer.transport is not None:
            spoofer.transport.close()
    await asyncio.sleep(0)


def dropped(node: Node, reason: str = "") -> float:
    """Return how many packets were dropped, for one reason or for any."""
    readings = node._metrics.snapshot()
    return sum(v for name, v in readings.items() if name.startswith(f"packets.dropped.{reason}"))


# -- streams -------------------------------------------------------------------------------------


async def test_a_frame_length_of_2_gib_closes_the_connection(node: Node) -> None:
    """Judged before anything is set aside for it: before the handshake, and after it."""
    for peer in (await connected(node.address), await greeted(node)):
        malformed = count(node, "rpc.malformed")

        peer.write(TOO_LONG)

        await eventually(partial(_is_lost, peer))
        assert malformed + 1 == count(node, "rpc.malformed")


async def test_deep_nesting_closes_the_connection(node: Node) -> None:
    """Nesting that would exhaust the stack is a malformed message, whoever sends it."""
    streams = (
        (await connected(node.address), frames.GREETING),
        (await greeted(node), frames.REQUEST),
    )
    for peer, kind in streams:
        malformed = count(node, "rpc.malformed")

        peer.write(encode_frame(kind, 1, NESTED))

        await eventually(partial(_is_lost, peer))
        assert malformed + 1 == count(node, "rpc.malformed")


async def test_another_protocol_version_is_refused_with_the_reason(node: Node) -> None:
    """Both versions are named, then the stream ends."""
    hello = new_hello(
        cluster_name="cache", partition_count=0, member="", address="", nonce=b"n" * 16
    )
    other = msgspec.structs.replace(hello, protocol_version=99)
    peer = await connected(node.address)

    peer.write(encode_frame(frames.GREETING, 0, encode_message(other)))

    await eventually(lambda: peer.lost)
    refusal = decode_greeting(peer.frames()[0][2])
    assert isinstance(refusal, Refusal)
    assert "99" in refusal.reason
    assert 1 == count(node, "rpc.refused_handshakes")


async def test_requests_of_a_stranger_change_nothing_and_get_no_answer(node: Node) -> None:
    """What follows an unproven hello is never handled."""
    before = state_of(node)
    set_key = Set("users", 0, b"k", b"\x01", NEVER, b"operation")
    requests = [encode_frame(frames.REQUEST, 1, encode_message(m)) for m in (FetchTable(), set_key)]
    hello = new_hello(
        cluster_name="cache", partition_count=0, member="", address="", nonce=b"n" * 16
    )
    greeting = encode_frame(frames.GREETING, 0, encode_message(hello))

    for start in (b"", greeting, greeting * 2):
        peer = await connected(node.address)
        peer.write(start + b"".join(requests))
        await eventually(partial(_is_lost, peer))
        assert not [kind for kind, _, _ in peer.frames() if kind != frames.GREETING]

    assert 0 == count(node, "rpc.requests")
    assert before == state_of(node)


async def test_a_time_to_live_that_is_no_number_is_refused(open_node: Node) -> None:
    """A NaN compares as false with every instant: such an entry would never end."""
    before = state_of(open_node)
    body = encode_message(Set("users", 0, b"k", b"\x01", float("nan"), b"operation"))
    client = await connected(open_node.address)
    await client.greet(Role.INITIATOR)

    client.write(encode_frame(frames.REQUEST, 1, body))

    await eventually(lambda: client.lost)
    assert 1 == count(open_node, "rpc.malformed")
    assert before == state_of(open_node)


@pytest.mark.parametrize(
    "columns",
    [([0, 1], [b"k"]), ([0], []), ([], [b"k"])],
)
async def test_columns_of_different_lengths_are_a_broken_protocol(
    open_node: Node, columns: tuple[list[int], list[bytes]]
) -> None:
    """Judged while decoding: no part of such a batch is applied."""
    before = state_of(open_node)
    encode = msgspec.msgpack.encode
    partitions, keys = columns
    batches = [
        [62, "users", partitions, keys, False],  # GetMany
        [66, "users", partitions, keys, [b"\x01"], NEVER, b"operation"],  # SetMany
        [67, "users", partitions, keys, b"operation"],  # DeleteMany
    ]

    for batch in batches:
        client = await connected(open_node.address)
        await client.greet(Role.INITIATOR)
        client.write(encode_frame(frames.REQUEST, 1, encode(batch)))
        await eventually(partial(_is_lost, client))

    assert len(batches) == count(open_node, "rpc.malformed")
    assert before == state_of(open_node)


@pytest.mark.parametrize(
    "request_",
    [
        Call("m", "get", b"\x81\xa3key" + b"\x91" * 5000 + b"\x01"),  # deep nesting
        Call("m", "get", b"\x81\xa3key\xdd\xff\xff\xff\xff"),  # 2^32 - 1 elements
        Call("m", "get", b"\xc1"),
        Call("m", "__class__", b"\x80"),
        Call("m" * 1000, "get", b"\x81\xa3key\x01"),
        Get("m", -1, b"k", backup=False),
        Get("m", 2**40, b"k", backup=True),
        PushTable(TableRecord(TableId(5, "z#1"), [], [], [], [])),
    ],
    ids=lambda request: type(request).__name__,
)
async def test_a_senseless_request_is_refused_and_its_connection_goes_on(
    open_node: Node, request_: Request
) -> None:
    """It is the caller's fault, and is said to be: nothing fails here, so nothing is logged."""
    before = state_of(open_node)
    client = await connected(open_node.address)
    await client.greet(Role.INITIATOR)

    client.write(encode_frame(frames.REQUEST, 1, encode_message(request_)))
    await eventually(partial(_has_frames, client, 3))

    failure = decode_reply(client.frames()[2][2])
    assert isinstance(failure, Failure)
    assert failure.code in {CODE_BAD_REQUEST, CODE_NOT_OWNER}
    assert not client.lost
    assert before == state_of(open_node)


class Crowd:
    """Many connections that say nothing, and some that say one byte now and then."""

    def __init__(self) -> None:
        self.peers: list[RawPeer] = []
        self.bytes_dripped = 0
        self._hello = encode_frame(frames.GREETING, 0, b"\x00" * 4000)

    async def gather(self, to: Address, size: int) -> None:
        """Connect them all, a hundred at a time; every twentieth drips."""
        for start in range(0, size, 100):
            number = min(100, size - start)
            self.peers += await asyncio.gather(*(connected(to) for _ in range(number)))
        for peer in self.peers[::20]:
            self._drip(peer, 0)

    def _drip(self, peer: RawPeer, at: int) -> None:
        if peer.lost or peer.stream is None or peer.stream.is_closing():
            return
        peer.write(self._hello[at : at + 1])
        self.bytes_dripped += 1
        asyncio.get_running_loop().call_later(DRIP_INTERVAL, self._drip, peer, at + 1)

    def is_gone(self) -> bool:
        """Whether the node has closed every connection."""
        return all(peer.lost for peer in self.peers)


def _crowd_size() -> int:
    """Return how many connections this process may open, both of whose ends are in it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * IDLE_COUNT + 300
    if soft < wanted <= hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return IDLE_COUNT if hard >= wanted else IDLE_COUNT_SMALL


async def test_a_crowd_that_says_nothing_is_closed_while_a_client_is_served(node: Node) -> None:
    """Silence and slow bytes end with limits.handshake_timeout, and cost others nothing."""
    loop, crowd, size = asyncio.get_running_loop(), Crowd(), _crowd_size()
    served = 0
    async with MemberClient(node.address, secret=SECRET, timeout=5.0) as client:
        await client.call("users", "set", key="before", value=1)

        await crowd.gather(node.address, size)
        gathered_at = loop.time()
        while not crowd.is_gone():
            await client.call("users", "set", key=served % 50, value=served)
            assert served == await client.call("users", "get", key=served % 50)
            served += 1
            assert loop.time() < gathered_at + HANDSHAKE_TIMEOUT + 5.0, "some are not closed"

    assert size == count(node, "rpc.handshake_timeouts")
    assert served > 10
    assert crowd.bytes_dripped > size / 20
    assert 0 == count(node, "rpc.connections_rejected")


# -- packets -------------------------------------------------------------------------------------


async def test_packets_of_strangers_are_dropped_counted_and_not_answered(
    node: Node, spoof: Spoof
) -> None:
    """A spoofed source gets nothing at all: no amplification."""
    spoofer = await spoof(node.address)
    before, known = state_of(node), str(node.id)
    packet = Packet(sender=known, parts=[Ping(sequence=1, target=known)])
    ours = PacketCodec(cluster_name="cache", secret=SECRET).seal(packet)
    strange = {
        "too_short": ours[:10],
        "not_ours": b"XX" + ours[2:],
        "version": ours[:2] + b"\x63" + ours[3:],
        "other_cluster": PacketCodec(cluster_name="other", secret=SECRET).seal(packet),
        "bad_mac": PacketCodec(cluster_name="cache", secret="guessed wrong").seal(packet),
    }
    cut = [ours[:-1], ours + b"\x00", PacketCodec(cluster_name="cache", secret=None).seal(packet)]

    for payload in (*strange.values(), *cut):
        spoofer.send(payload)
    await eventually(lambda: dropped(node) == len(strange) + len(cut))

    assert [1, 1, 1, 1] == [dropped(node, reason) for reason in list(strange)[:4]]
    assert 1 + len(cut) == dropped(node, "bad_mac")
    # The answer to a packet that is in order comes after those to all before it.
    spoofer.send(ours)
    await eventually(lambda: bool(spoofer.received))
    assert 1 == len(spoofer.received)
    assert before == state_of(node)


async def test_a_good_seal_over_a_bad_body_is_dropped_and_counted(node: Node, spoof: Spoof) -> None:
    """A member that knows the secret may still be broken."""
    spoofer = await spoof(node.address)
    sealed = PacketCodec(cluster_name="cache", secret=SECRET).seal(Packet(sender="x#1", parts=[]))
    header, key = sealed[:HEADER_BYTES], packet_key(SECRET)
    assert key is not None
    number = msgspec.msgpack.encode(NUMBER_FIRST + 1)
    bodies = [
        b"\xc1",
        NESTED,
        b"\x93\xa1x\xdd\xff\xff\xff\xff",  # 2^32 - 1 parts
        b"\x93\xdb\x80\x00\x00\x00",  # a sender of 2^31 bytes
        b"\x93\xa1x\x91\x93\x01\xa1x\xa1y" + number,  # a ping whose sequence is text
        b"\x93\xa2\xff\xfe\x90" + number,  # a sender that is not UTF-8
        bytes(range(256)),
    ]
    before = state_of(node)

    for body in bodies:
        spoofer.send(header + packet_mac(header, body, key) + body)
    await eventually(lambda: dropped(node, "malformed") == len(bodies))

    assert not spoofer.received
    assert before == state_of(node)


async def test_recorded_packets_of_a_dead_member_change_nothing(node: Node, spoof: Spoof) -> None:
    """Whoever recorded what a member sent cannot bring it back, nor have it answered."""
    other = Node(a_config(node.address))
    await other.start()
    recorded = _record_packets(other)
    await eventually(lambda: len(node.members()) == 2 and len(recorded) >= 5, within=10.0)
    await other.abort()
    await eventually(lambda: len(node.members()) == 1, within=15.0)
    spoofer = await spoof(node.address)
    members, known = node.members(), node._membership.member(other.id)
    drops = dropped(node, "replayed")

    for payload in recorded * 2:
        spoofer.send(payload)
    await eventually(lambda: dropped(node, "replayed") == drops + 2 * len(recorded))

    assert members == node.members()
    assert known == node._membership.member(other.id)
    assert not spoofer.received


def _record_packets(node: Node) -> list[bytes]:
    """Listen to what a node sends from now on."""
    recorded: list[bytes] = []
    send = node._transport.send_packet

    def record(to: Address, payload: bytes) -> None:
        recorded.append(payload)
        send(to, payload)

    node._transport.send_packet = record  # type: ignore[method-assign]  # a wire tap
    return recorded


async def test_rumours_with_impossible_addresses_do_not_stop_the_prober(
    open_node: Node, spoof: Spoof
) -> None:
    """An address is a stranger's text until it is used; a bad one is a packet lost, not an exception."""
    spoofer = await spoof(open_node.address)
    texts = ["nowhere", "a..b:1", "a" * 70 + ".b:1", "127.0.0.1:99999", "[::1", "\x00:1"]
    records = [
        MemberRecord(f"m{n}#{n:016x}", text, 1, 0, n + 2, False, 0, "", "", {})
        for n, text in enumerate(texts)
    ]
    codec = PacketCodec(cluster_name="cache", secret=None)

    for record in records:
        rumour = Rumour(record=record, accuser=record.id)
        spoofer.send(codec.seal(Packet(sender=record.id, parts=[rumour])))

    # They are welcomed, probed, suspected and buried: the machine's timers go on.
    # A control character is no address at all: that record is refused where it arrives.
    await eventually(lambda: count(open_node, "member.joined") == len(texts) - 1)
    await eventually(lambda: count(open_node, "member.implausible") == 1)
    await eventually(lambda: count(open_node, "member.suspect") >= 2, within=15.0)
    await open_node.map("users").set("k", 1)
    assert 1 == await open_node.map("users").get("k")


async def test_a_reply_to_nobody_is_a_broken_protocol(node: Node) -> None:
    """The calling side asks; it does not answer."""
    peer = await greeted(node)

    peer.write(encode_frame(frames.REPLY, 1, encode_message(Failure(1, "x"))))

    await eventually(lambda: peer.lost)
    assert 1 == count(node, "rpc.malformed")
