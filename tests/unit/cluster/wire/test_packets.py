"""Packets of membership: what is sealed is opened, and anything else is dropped, never raised."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.cluster.wire.messages import MemberRecord
from cache.cluster.wire.packets import (
    HEADER_BYTES,
    LAG_TENTHS_MAX,
    MAC_BYTES,
    PACKET_BYTES_MAX,
    PINGS_MAX,
    Ack,
    Drop,
    Nack,
    Packet,
    PacketCodec,
    Part,
    Ping,
    PingRequest,
    Rumour,
)

OPEN = PacketCodec(cluster_name="cache", secret=None)
SEALED = PacketCodec(cluster_name="cache", secret="correct horse")
CODECS = pytest.mark.parametrize("codec", [OPEN, SEALED], ids=["open", "sealed"])

RECORD = MemberRecord(
    id="b#1",
    address="b:1",
    incarnation=7,
    state=1,
    seniority=2,
    leaving=False,
    weight=1,
    host="h",
    zone="",
    tags={"rack": "4"},
)
PARTS: tuple[Part, ...] = (
    Ping(sequence=1, target="b#1"),
    PingRequest(sequence=2, target="c#1", address="c:1"),
    Ack(sequence=3),
    Nack(sequence=4),
    Rumour(record=RECORD, accuser="a#1"),
)
PACKET = Packet(sender="a#1", parts=list(PARTS))

SEQUENCES = st.integers(0, 2**63)
ANY_PART = st.one_of(
    st.builds(Ack, SEQUENCES),
    st.builds(Nack, SEQUENCES),
    st.builds(Rumour, st.just(RECORD), st.text()),
)


def corruptions(payload: bytes) -> list[bytes]:
    """Return the payload with each byte changed in turn: each bit, and all of them."""
    return [
        payload[:i] + bytes([payload[i] ^ mask]) + payload[i + 1 :]
        for i in range(len(payload))
        for mask in (1, 2, 4, 8, 16, 32, 64, 128, 255)
    ]


@CODECS
def test_every_part_survives_the_way(codec: PacketCodec) -> None:
    """Opened is what was sealed."""
    payload = codec.seal(PACKET)

    assert PACKET == codec.open(payload)


@given(st.text(), st.lists(ANY_PART, max_size=8), st.sampled_from([OPEN, SEALED]))
def test_any_packet_survives_the_way(sender: str, parts: list[Part], codec: PacketCodec) -> None:
    """open(seal(packet)) == packet, whatever it carries."""
    packet = Packet(sender=sender, parts=parts)

    assert packet == codec.open(codec.seal(packet))


@pytest.mark.parametrize("tenths", [0, 20, LAG_TENTHS_MAX])
def test_lag_survives_the_way_and_costs_a_byte(tenths: int) -> None:
    """It is in every packet, whatever it is."""
    packet = Packet(sender="a#1", parts=[Ack(3)], lag_tenths=tenths)

    assert packet == SEALED.open(SEALED.seal(packet))
    assert len(SEALED.seal(packet)) == len(SEALED.seal(Packet(sender="a#1", parts=[Ack(3)])))


@CODECS
@pytest.mark.parametrize("tenths", [-1, LAG_TENTHS_MAX + 1, 2**63])
def test_impossible_lag_is_malformed(codec: PacketCodec, tenths: int) -> None:
    """A claim is bounded before anybody looks at it."""
    payload = codec.seal(Packet(sender="a#1", parts=[Ack(3)], lag_tenths=tenths))

    assert Drop.MALFORMED == codec.open(payload)


@CODECS
def test_other_magic_is_not_ours(codec: PacketCodec) -> None:
    """Strangers' packets to our port are told by their first two bytes."""
    payload = b"XX" + codec.seal(PACKET)[2:]

    assert Drop.NOT_OURS == codec.open(payload)


@CODECS
def test_other_version_is_dropped(codec: PacketCodec) -> None:
    """A packet of a later protocol is not guessed at (memberlist ignores such versions)."""
    payload = codec.seal(PACKET)

    assert Drop.VERSION == codec.open(payload[:2] + b"\x02" + payload[3:])


@CODECS
def test_other_cluster_is_dropped(codec: PacketCodec) -> None:
    """Clusters that share a network do not merge (memberlist labels: a mismatch is dropped)."""
    stranger = PacketCodec(cluster_name="other", secret="correct horse" * (codec is SEALED) or None)

    assert Drop.OTHER_CLUSTER == codec.open(stranger.seal(PACKET))


def test_other_secret_is_dropped() -> None:
    """Only who knows the secret is heard."""
    stranger = PacketCodec(cluster_name="cache", secret="wrong horse")

    assert Drop.BAD_MAC == SEALED.open(stranger.seal(PACKET))


def test_packet_without_secret_is_dropped_by_a_cluster_with_one() -> None:
    """There is no way down to unauthenticated packets."""
    payload = OPEN.seal(PACKET)

    assert Drop.BAD_MAC == SEALED.open(payload)


def test_packet_with_secret_is_dropped_by_a_cluster_without_one() -> None:
    """The bytes of the MAC are no packet."""
    payload = SEALED.seal(PACKET)

    assert Drop.MALFORMED == OPEN.open(payload)


def test_mac_covers_the_header() -> None:
    """The same body sealed for another cluster with the same secret does not verify."""
    other = PacketCodec(cluster_name="other", secret="correct horse").seal(PACKET)

    forged = SEALED.seal(PACKET)[:HEADER_BYTES] + other[HEADER_BYTES:]

    assert Drop.BAD_MAC == SEALED.open(forged)


def test_single_changed_byte_breaks_the_seal() -> None:
    """No corrupted packet is taken in (memberlist TestIngestPacket_CRC)."""
    payload = SEALED.seal(PACKET)

    results = [SEALED.open(corrupted) for corrupted in corruptions(payload)]

    assert all(isinstance(result, Drop) for result in results)


def test_single_changed_byte_never_raises_without_a_secret() -> None:
    """Unauthenticated, a corrupted packet is dropped or decoded whole; nothing else happens."""
    payload = OPEN.seal(PACKET)

    results = [OPEN.open(corrupted) for corrupted in corruptions(payload)]

    assert {Packet, Drop} == {type(result) for result in results}


@CODECS
def test_truncated_packet_is_dropped_whole(codec: PacketCodec) -> None:
    """A cut packet delivers no part of it (foca: malformed packets are rejected whole)."""
    payload = codec.seal(PACKET)

    results = {codec.open(payload[:length]) for length in range(len(payload))}

    assert {Drop.TOO_SHORT, Drop.MALFORMED if codec is OPEN else Drop.BAD_MAC} == results


@CODECS
def test_trailing_bytes_are_not_ignored(codec: PacketCodec) -> None:
    """A packet is exactly one message (foca trailing_data)."""
    payload = codec.seal(PACKET) + b"\x00"

    assert isinstance(codec.open(payload), Drop)


@CODECS
@pytest.mark.parametrize("length", [0, 1, HEADER_BYTES])
def test_header_alone_is_too_short(codec: PacketCodec, length: int) -> None:
    """An empty packet causes no crash (memberlist TestHandleCommand / EmptyMessage)."""
    payload = codec.seal(PACKET)[:length]

    assert Drop.TOO_SHORT == codec.open(payload)


@pytest.mark.parametrize(
    ("length", "expected"),
    [(PACKET_BYTES_MAX, Drop.NOT_OURS), (PACKET_BYTES_MAX + 1, Drop.TOO_LARGE)],
)
def test_size_is_checked_before_anything_else(length: int, expected: Drop) -> None:
    """Nothing above what UDP can carry is looked at."""
    assert expected == OPEN.open(b"x" * length)


@pytest.mark.parametrize(("pings", "accepted"), [(PINGS_MAX, True), (PINGS_MAX + 1, False)])
@pytest.mark.parametrize("ping", PARTS[:2], ids=["ping", "request"])
def test_pings_per_packet_are_bounded(ping: Part, pings: int, accepted: bool) -> None:
    """One small packet cannot cause many: three pings are answered (memberlist C38), no more."""
    packet = Packet(sender="a#1", parts=[ping] * pings)

    assert (packet if accepted else Drop.TOO_MANY_PINGS) == OPEN.open(OPEN.seal(packet))


@pytest.mark.parametrize(
    "body",
    [
        {"sender": "a#1", "parts": []},
        ["a#1"],
        ["a#1", [], "more"],
        [1, []],
        ["a#1", [[99, 1]]],
        ["a#1", [[3]]],
        ["a#1", [[3, "text"]]],
        ["a#1", [[3, 1, 2]]],
        ["a#1", [[5, ["b#1"], "a#1"]]],
        None,
    ],
    ids=str,
)
def test_body_of_another_shape_is_malformed(body: object) -> None:
    """Types are checked while decoding; unknown and missing fields are refused."""
    payload = OPEN.seal(PACKET)[:HEADER_BYTES] + msgspec.msgpack.encode(body)

    assert Drop.MALFORMED == OPEN.open(payload)


@pytest.mark.parametrize(
    "body",
    [b"\xc1", b"\x91" * 60_000, b"\xdd\xff\xff\xff\xff", b"\x92\xa1\xff\x90", b"\x92\xdb\xff\xff"],
    ids=["reserved", "deep", "endless_list", "not_utf8", "endless_text"],
)
def test_hostile_body_is_malformed(body: bytes) -> None:
    """Deep nesting, impossible lengths and broken text are dropped like any other garbage."""
    payload = OPEN.seal(PACKET)[:HEADER_BYTES] + body

    assert Drop.MALFORMED == OPEN.open(payload)


@given(st.binary(max_size=400))
def test_garbage_behind_the_header_never_raises(garbage: bytes) -> None:
    """Whatever comes in, the answer is a packet or the reason for dropping it."""
    result = OPEN.open(OPEN.seal(PACKET)[:HEADER_BYTES] + garbage)

    assert isinstance(result, Packet | Drop)


@CODECS
@given(st.text("abc#1", max_size=200), st.lists(ANY_PART, max_size=40))
def test_overhead_and_sizes_bound_the_packet(
    codec: PacketCodec, sender: str, parts: list[Part]
) -> None:
    """Overhead, sender and the sizes of the parts are never below the sealed length."""
    bound = codec.overhead_bytes + len(sender) + sum(codec.size(part) for part in parts)

    assert len(codec.seal(Packet(sender=sender, parts=parts))) <= bound


def test_mac_costs_its_bytes() -> None:
    """Authentication adds 16 bytes and nothing else."""
    difference = len(SEALED.seal(PACKET)) - len(OPEN.seal(PACKET))

    assert MAC_BYTES == difference == SEALED.overhead_bytes - OPEN.overhead_bytes
