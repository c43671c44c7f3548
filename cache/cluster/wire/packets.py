"""The packet protocol of membership: small, unordered, possibly lost or repeated.

Layout: 2 magic bytes, 1 version byte, 4 bytes naming the cluster (hash of its name), with a secret
16 bytes of keyed BLAKE2b over everything else, then a MessagePack array of sender, parts, number and lag.
A packet is decoded whole, or dropped whole.

The number rises with each packet of one life of a member. With a secret, a receiver remembers for each
sender which numbers it has taken in, and drops those it had before or that are far behind: a recorded packet
is of no use to anybody. No clock is involved. Without a secret numbers are ignored, because a stranger could
shut a member out with one forged high number. Source: RFC 4303 §3.4.3 (the window of IPsec).
"""

from __future__ import annotations

import enum
import hashlib
import hmac
from typing import Annotated, Final

import msgspec
from xxhash import xxh32_digest

from cache.cluster.wire.messages import MemberRecord

MAGIC: Final = b"PC"
PACKET_VERSION: Final = 1
MAC_BYTES: Final = 16
HEADER_BYTES: Final = 7
PACKET_BYTES_MAX: Final = 65_507
NUMBER_FIRST: Final = 2**32
"""Numbers begin here, so that each takes the same 9 bytes."""

NUMBER_BYTES: Final = 9
WINDOW: Final = 1024
"""Numbers behind a sender's highest that may still come, out of order; older packets are dropped."""

LAG_TENTHS_MAX: Final = 127
"""Largest lag that a packet carries, 12.7 seconds: what fits one byte."""

SENDERS_MAX: Final = 8192
"""Senders whose numbers are remembered; the one silent for longest is forgotten first."""

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
    lag_tenths: int = 0
    """By how much the sender's event loop was late of late, tenths of a second."""


class _Numbered(_Part, frozen=True):
    """A packet on the wire."""

    sender: str
    parts: list[Part]
    number: int
    lag_tenths: Annotated[int, msgspec.Meta(ge=0, le=LAG_TENTHS_MAX)]


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
    REPLAYED = "replayed"


class _Window:
    """Which numbers of one sender were taken in: the highest, and a bit for each of the last ones.

    What is behind the first number that was ever seen counts as taken in: whoever comes to know a
    sender has no use for what it said before.
    """

    __slots__ = ("_highest", "_taken")

    def __init__(self, number: int) -> None:
        self._highest = number
        self._taken = (1 << WINDOW) - 1  # Bit k: `_highest - k` was taken in.

    def admit(self, number: int) -> bool:
        """Take a number in; False when it was before, or is too far behind to know."""
        ahead = number - self._highest
        if ahead > 0:
            kept = (self._taken << ahead) % (1 << WINDOW) if ahead < WINDOW else 0
            self._highest, self._taken = number, kept | 1
            return True
        bit = 1 << -ahead if -ahead < WINDOW else 0
        if not bit or self._taken & bit:
            return False
        self._taken |= bit
        return True


class PacketCodec:
    """Seals and opens packets of one cluster, for one life of a member.

    Args:
        secret: the cluster's secret, or a ring of them: the first one seals, each opens.
    """

    __slots__ = ("_decoder", "_encoder", "_header", "_keys", "_number", "_windows")

    def __init__(self, *, cluster_name: str, secret: str | tuple[str, ...] | None) -> None:
        self._header = MAGIC + bytes([PACKET_VERSION]) + xxh32_digest(cluster_name.encode())
        ring = (secret,) if isinstance(secret, str) else secret or ()
        self._keys = tuple(hashlib.blake2b(one.encode()).digest() for one in ring)
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder(_Numbered)
        self._number = NUMBER_FIRST
        self._windows: dict[str, _Window] = {}

    @property
    def authenticates(self) -> bool:
        """Whether packets are sealed with a secret."""
        return bool(self._keys)

    @property
    def overhead_bytes(self) -> int:
        """Bytes around the parts of a packet, about."""
        return HEADER_BYTES + (MAC_BYTES if self._keys else 0) + 9 + NUMBER_BYTES

    def size(self, part: Part) -> int:
        """Return the bytes a part takes."""
        return len(self._encoder.encode(part))

    def seal(self, packet: Packet) -> bytes:
        """Return the bytes to send."""
        self._number += 1
        numbered = _Numbered(packet.sender, packet.parts, self._number, packet.lag_tenths)
        body = self._encoder.encode(numbered)
        if not self._keys:
            return self._header + body
        return self._header + self._mac(body, self._keys[0]) + body

    def open(self, payload: bytes) -> Packet | Drop:
        """Return the packet of the bytes received, or why it is dropped."""
        start = HEADER_BYTES + (MAC_BYTES if self._keys else 0)
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
        if self._keys and not self._is_sealed(body, payload[HEADER_BYTES:start]):
            return Drop.BAD_MAC
        try:
            numbered = self._decoder.decode(body)
        except (msgspec.MsgspecError, ValueError, RecursionError, OverflowError):
            return Drop.MALFORMED
        pings = sum(isinstance(part, (Ping, PingRequest)) for part in numbered.parts)
        if pings > PINGS_MAX:
            return Drop.TOO_MANY_PINGS
        if self._keys and not self._is_new(numbered.sender, numbered.number):
            return Drop.REPLAYED
        return Packet(numbered.sender, numbered.parts, numbered.lag_tenths)

    def _is_sealed(self, body: bytes, mac: bytes) -> bool:
        return any(hmac.compare_digest(mac, self._mac(body, key)) for key in self._keys)

    def _is_new(self, sender: str, number: int) -> bool:
        window = self._windows.pop(sender, None)
        is_new = window is None or window.admit(number)
        if window is None and len(self._windows) >= SENDERS_MAX:
            del self._windows[next(iter(self._windows))]
        # Put back at the end: the first one is the one silent for longest.
        self._windows[sender] = _Window(number) if window is None else window
        return is_new

    def _mac(self, body: bytes, key: bytes) -> bytes:
        return hashlib.blake2b(self._header + body, digest_size=MAC_BYTES, key=key).digest()
