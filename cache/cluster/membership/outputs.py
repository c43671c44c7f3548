"""What the membership machine is told, and what it asks its shell to do. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from cache.cluster.ids import Address, MemberId
from cache.cluster.wire.messages import MemberRecord
from cache.cluster.wire.packets import Packet, Part


@dataclass(frozen=True, slots=True)
class PacketReceived:
    """A packet that was opened and found in order."""

    source: Address
    packet: Packet


@dataclass(frozen=True, slots=True)
class StreamAnswered:
    """A `StreamProbe` ended: the life answered, did not, or is provably not there."""

    token: int
    alive: bool
    gone: bool


@dataclass(frozen=True, slots=True)
class Exchanged:
    """A push-pull brought these records."""

    records: list[MemberRecord]


@dataclass(frozen=True, slots=True)
class Refused:
    """A stream to this address was refused or broke: look once more whether anybody listens."""

    address: Address


@dataclass(frozen=True, slots=True)
class LoopStalled:
    """The event loop did not run for a while: this member was the slow one."""

    seconds: float


Event = PacketReceived | StreamAnswered | Exchanged | Refused | LoopStalled


@dataclass(frozen=True, slots=True)
class SendPacket:
    """Send these parts to an address, best effort."""

    to: Address
    parts: list[Part]


@dataclass(frozen=True, slots=True)
class StreamProbe:
    """Ask a life over the stream whether it is there; answer with `StreamAnswered`."""

    token: int
    member: MemberId
    address: Address
    timeout: float


@dataclass(frozen=True, slots=True)
class StartExchange:
    """Exchange full state with whoever listens at this address."""

    address: Address


@dataclass(frozen=True, slots=True)
class MembersChanged:
    """The live members, or a leaving flag, changed."""


@dataclass(frozen=True, slots=True)
class Noted:
    """Something an operator or a counter cares about."""

    event: str
    member: MemberId


Output = SendPacket | StreamProbe | StartExchange | MembersChanged | Noted
