"""The packet protocol of membership: small, unordered, possibly lost or repeated.

Layout: 2 magic bytes, 1 version byte, 4 bytes naming the cluster (hash of its name), with a secret
16 bytes of keyed BLAKE2b over everything else, then a MessagePack `Packet`. A packet is decoded
whole, or dropped whole.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
from typing import Final

import msgspec
from xxhash import xxh32_digest

from cache.cluster.wire.messages import MemberRecord

MAGIC: Final = b"PC"
PACKET_VERSION: Final = 1
MAC_BYTES: Final = 16
HEADER_BYTES: Final = 7
PACKET_BYTES_MAX: Final = 65_507
PINGS_MAX: Final = 3
"""Pings answered per packet, so that one small packet cannot cause many."""


class _Part(msgspec.Struct, frozen=True, array_like=True, gc=False, forbid_unknown_fields=True):
    """Base of everything inside a packet."""


class Ping(_Part, frozen=True, tag=1):
    """Are you there? Answered only by the life that is named."""

    sequence: int
    target: str


class PingRequest(_Part, frozen=True, tag=2):
    """Ping this member for me, and pass its answer on."""

    sequence: int
    target: str
    address: str


class Ack(_Part, frozen=True, tag=3):
    """I am here (or: the member you asked about is)."""

    sequence: int


class Nack(_Part, frozen=True, tag=4):
    """The relay is here, but the member asked about has not answered it."""

    sequence: int


class Rumour(_Part, frozen=True, tag=5):
    """News about a member; `accuser` says who suspects or buries it."""

    record: MemberRecord
    accuser: str


Part = Ping | PingRequest | Ack | Nack | Rumour


class Packet(msgspec.Struct, frozen=True, array_like=True, gc=False, forbid_unknown_fields=True):
    """What one packet carries."""

    sender: str
    parts: list[Part]


class Drop(enum.Enum):
    """Why a packet was not accepted."""

    TOO_SHORT = "too_short"
    TOO_LARGE = "too_large"
    NOT_OURS = "not_ours"
    VERSION = "version"
    OTHER_CLUSTER = "other_cluster"
    BAD_MAC = "bad_mac"
    MALFORMED = "malformed"
    TOO_MANY_PINGS = "too_many_pings"


class PacketCodec:
    """Seals and opens packets of one cluster."""

    __slots__ = ("_decoder", "_encoder", "_header", "_key")

    def __init__(self, *, cluster_name: str, secret: str | None) -> None:
        self._header = MAGIC + bytes([PACKET_VERSION]) + xxh32_digest(cluster_name.encode())
        self._key = None if secret is None else hashlib.blake2b(secret.encode()).digest()
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder(Packet)

    @property
    def overhead_bytes(self) -> int:
        """Bytes around the parts of a packet, about."""
        return HEADER_BYTES + (0 if self._key is None else MAC_BYTES) + 8

    def size(self, part: Part) -> int:
        """Return the bytes a part takes."""
        return len(self._encoder.encode(part))

    def seal(self, packet: Packet) -> bytes:
        """Return the bytes to send."""
        body = self._encoder.encode(packet)
        if self._key is None:
            return self._header + body
        return self._header + self._mac(body) + body

    def open(self, payload: bytes) -> Packet | Drop:
        """Return the packet of the bytes received, or why it is dropped."""
        start = HEADER_BYTES + (0 if self._key is None else MAC_BYTES)
        if len(payload) <= start:
            return Drop.TOO_SHORT
        if len(payload) > PACKET_BYTES_MAX:
            return Drop.TOO_LARGE
        if payload[:2] != MAGIC:
            return Drop.NOT_OURS
        if payload[2] != PACKET_VERSION:
            return Drop.VERSION
        if payload[:HEADER_BYTES] != self._header:
            return Drop.OTHER_CLUSTER
        body = payload[start:]
        if self._key is not None and not hmac.compare_digest(
            payload[HEADER_BYTES:start], self._mac(body)
        ):
            return Drop.BAD_MAC
        try:
            packet = self._decoder.decode(body)
        except (msgspec.MsgspecError, ValueError, RecursionError, OverflowError):
            return Drop.MALFORMED
        pings = sum(isinstance(part, (Ping, PingRequest)) for part in packet.parts)
        return Drop.TOO_MANY_PINGS if pings > PINGS_MAX else packet

    def _mac(self, body: bytes) -> bytes:
        assert self._key is not None, "only a cluster with a secret authenticates packets"
        mac = hashlib.blake2b(self._header + body, digest_size=MAC_BYTES, key=self._key)
        return mac.digest()
