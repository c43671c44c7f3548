"""Identities: who a member is, where it listens, which partition is meant.

A `MemberId` names one *life* of a member: a restarted process has a new id even when it keeps its name and
its address, because its memory is empty. Its text form is `name#generation` where the generation is
16 hexadecimal digits drawn at start.
"""

from __future__ import annotations

from random import Random
from typing import Final, NewType

MemberId = NewType("MemberId", str)
"""One life of one member: `name#generation`."""

Address = NewType("Address", str)
"""`host:port` (`[v6]:port` for IPv6); the same port number serves UDP packets and TCP streams."""

PartitionId = NewType("PartitionId", int)
"""0 <= id < partition_count."""

GENERATION_SEPARATOR: Final = "#"


def new_member_id(name: str, rng: Random) -> MemberId:
    """Return the id of a new life of the member called `name`."""
    return MemberId(f"{name}{GENERATION_SEPARATOR}{rng.getrandbits(64):016x}")


def member_name(member: MemberId) -> str:
    """Return the name part of a member id."""
    return member.rpartition(GENERATION_SEPARATOR)[0]


def parse_address(text: str) -> tuple[str, int]:
    """Split `host:port` into its parts.

    Raises:
        ValueError: when the host is empty, the port is missing, not a number or outside 0..65535.
    """
    host, separator, port_text = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"address {text!r}: an IPv6 host is written in brackets, [host]:port")
    if not separator or not host:
        raise ValueError(f"address {text!r} is not host:port")
    if not (port_text.isascii() and port_text.isdigit()) or int(port_text) > 65535:
        raise ValueError(f"address {text!r}: the port must be a number from 0 to 65535")
    return host, int(port_text)


def format_address(host: str, port: int) -> Address:
    """Join host and port; the inverse of `parse_address`."""
    return Address(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
