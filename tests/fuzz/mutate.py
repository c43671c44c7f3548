"""Mutations: of bytes, of MessagePack trees, of packets with a valid seal, and of runs of frames."""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Callable
from random import Random
from typing import Any, Final

import msgspec

from cache.cluster.wire import frames
from cache.cluster.wire.packets import (
    HEADER_BYTES,
    MAC_BYTES,
    NUMBER_FIRST,
    PACKET_BYTES_MAX,
    Packet,
    PacketCodec,
)

Mutation = Callable[[bytes, bytes, Random], bytes]
"""(input, another input, rng) to a new input."""

INPUT_BYTES_MAX: Final = 16 * 1024
NODES_MAX: Final = 400
LENGTHS: Final = (
    0,
    1,
    8,
    9,
    10,
    4095,
    4096,
    4097,
    65_535,
    2**20,
    2**24,
    2**31 - 1,
    2**31,
    2**32 - 1,
)
HUGE_HEADERS: Final = tuple(
    bytes([code]) + struct.pack(">I", count)
    for code in (0xC6, 0xC9, 0xDB, 0xDD, 0xDF)  # bin32, ext32, str32, array32, map32
    for count in (2**16, 2**24, 2**31, 2**32 - 1)
)
ODD: Final[tuple[object, ...]] = (
    *(None, True, False, b"", b"\x00", b"x" * 300, [], {}, [[]], {"a": {}}, [1] * 200),
    *(0, -1, 1, 4, 2**31 - 1, 2**31, 2**32, 2**53, 2**62, 2**62 + 1, 2**63 - 1, 2**63, 2**64 - 1),
    *(-(2**31), -(2**63), math.nan, math.inf, -math.inf, -0.0, 5e-324, 1e308, -1.0, 0.5),
    *("", "x", "\x00", "a" * 300, "☃", "a..b:1", "a" * 70 + ".b:1", ":1", "h:", "[::1]:9", "[:1"),
    *("127.0.0.1:99999", "127.0.0.1:-1", "127.0.0.1:0", "\U0010ffff", "h" * 250 + ":1"),
)


# -- bytes ---------------------------------------------------------------------------------------


def mutate_bytes(data: bytes, other: bytes, rng: Random) -> bytes:
    """Change some bytes."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        _change(out, other, rng)
    return bytes(out[: PACKET_BYTES_MAX + 100])


def _change(out: bytearray, other: bytes, rng: Random) -> None:
    at = rng.randrange(len(out) + 1)
    span = rng.choice((1, 2, 4, 9, 32))
    match rng.randrange(10):
        case 0 | 1 if out:
            out[at % len(out)] ^= 1 << rng.randrange(8)
        case 2 if out:
            out[at % len(out)] = rng.choice((0, 1, 0x7F, 0x80, 0xC0, 0xC1, 0xDD, 0xFF))
        case 3:
            del out[at:]
        case 4:
            del out[at : at + span]
        case 5:
            out[at:at] = out[at : at + span] * rng.choice((1, 2, 50))
        case 6:
            out[at:] = other[rng.randrange(len(other) + 1) :]
        case 7:
            out[at : at + 4] = struct.pack(">I", rng.choice(LENGTHS))
        case 8:
            out[at:at] = rng.choice(HUGE_HEADERS)
        case _:
            depth = rng.choice((8, 100, 1100, 4000))
            out[at:at] = rng.choice((b"\x91", b"\x81\xa1a")) * depth


# -- MessagePack ---------------------------------------------------------------------------------


def mutate_body(body: bytes, other: bytes, rng: Random) -> bytes:
    """Change a MessagePack value: its tree, or its bytes."""
    if rng.random() < 0.12:
        return mutate_bytes(body, other, rng)
    try:
        tree = msgspec.msgpack.decode(body)
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            tree = _mutate_tree(tree, rng)
        return msgspec.msgpack.encode(tree)[:INPUT_BYTES_MAX]
    except (msgspec.MsgspecError, ValueError, TypeError, RecursionError, OverflowError):
        return mutate_bytes(body, other, rng)


def _mutate_tree(tree: Any, rng: Random) -> Any:  # Any: whatever MessagePack can say
    places = _places(tree)
    if not places:
        return rng.choice(ODD)
    holder, key = rng.choice(places)
    if isinstance(holder[key], (list, dict)) and rng.random() < 0.7:
        leaves = [place for place in places if not isinstance(place[0][place[1]], (list, dict))]
        holder, key = rng.choice(leaves or places)
    match rng.randrange(16):
        case 0 if isinstance(holder, list):
            del holder[key]
        case 1 if isinstance(holder, list) and len(holder) < 2000:
            holder.insert(key, holder[key])
        case 2 if isinstance(holder, list):
            holder[:] = holder * rng.choice((2, 3)) if len(holder) < 500 else holder[:1]
        case 3 | 4 | 5:
            source, at = rng.choice(places)
            if type(source[at]) is type(holder[key]) and not isinstance(source[at], (list, dict)):
                holder[key] = source[at]
        case _:
            holder[key] = _odd(holder[key], rng)
    return tree


def _odd(replaced: object, rng: Random) -> object:
    if rng.random() < 0.95:  # Of the same type, so that it passes the decoder.
        alike = [odd for odd in ODD if type(odd) is type(replaced)]
        if alike and not isinstance(replaced, (list, dict)):
            return rng.choice(alike)
    if rng.random() < 0.05:
        nested: object = 1
        for _ in range(rng.choice((10, 200))):
            nested = [nested]
        return nested
    value = rng.choice(ODD)
    return value.copy() if isinstance(value, (list, dict)) else value


def _places(tree: Any) -> list[tuple[Any, Any]]:  # Any: (container, key or index) of each value
    places: list[tuple[Any, Any]] = []
    waiting = [tree]
    while waiting and len(places) < NODES_MAX:
        holder = waiting.pop()
        if isinstance(holder, list):
            items = list(enumerate(holder))
        elif isinstance(holder, dict):
            items = list(holder.items())
        else:
            continue
        places += [(holder, key) for key, _ in items]
        waiting += [value for _, value in items if isinstance(value, (list, dict))]
    return places


# -- packets -------------------------------------------------------------------------------------


class PacketMutation:
    """Mutations of packets: of the bytes, of the header, and of a body that is sealed anew.

    A sealed one mostly gets a fresh number, so that replay protection does not hide what is behind it.
    """

    def __init__(self, cluster_name: str, secret: str | None) -> None:
        empty = Packet(sender="", parts=[])
        self._header = PacketCodec(cluster_name=cluster_name, secret=None).seal(empty)[
            :HEADER_BYTES
        ]
        self._key = packet_key(secret)
        self._start = HEADER_BYTES + (0 if secret is None else MAC_BYTES)
        self._number = NUMBER_FIRST + 2**20

    def __call__(self, data: bytes, other: bytes, rng: Random) -> bytes:
        """Return a mutation of `data`."""
        start, choice = self._start, rng.random()
        if choice < 0.7:
            return self._seal(mutate_body(data[start:], other[start:], rng), rng)
        if choice < 0.77:  # A new version, cluster or magic over a good body.
            return mutate_bytes(data[:start], other[:start], rng) + data[start:]
        if choice < 0.8:
            return data
        if choice < 0.81:
            return data + b"\x00" * (PACKET_BYTES_MAX - len(data) + rng.choice((-1, 0, 1, 2)))
        return mutate_bytes(data, other, rng)

    def _seal(self, body: bytes, rng: Random) -> bytes:
        if rng.random() < 0.9:
            body = self._renumber(body)
        mac = b"" if self._key is None else packet_mac(self._header, body, self._key)
        return self._header + mac + body

    def _renumber(self, body: bytes) -> bytes:
        try:
            tree = msgspec.msgpack.decode(body)
            if isinstance(tree, list) and len(tree) == 4 and isinstance(tree[2], int):
                self._number += 1
                tree[2] = self._number
                return msgspec.msgpack.encode(tree)
        except (msgspec.MsgspecError, ValueError, TypeError, RecursionError):
            pass
        return body


def packet_key(secret: str | None) -> bytes | None:
    """Return the key of packets: written down here once more, so as to judge the codec by it."""
    return None if secret is None else hashlib.blake2b(secret.encode()).digest()


def packet_mac(header: bytes, body: bytes, key: bytes) -> bytes:
    """Return the seal of a packet, as `packet_key`."""
    return hashlib.blake2b(header + body, digest_size=MAC_BYTES, key=key).digest()


# -- frames --------------------------------------------------------------------------------------


def mutate_frames(data: bytes, other: bytes, rng: Random) -> bytes:
    """Change a run of frames: one's length, kind, id or body, their order, or the bytes."""
    if rng.random() < 0.2:
        return mutate_bytes(data, other, rng)[:INPUT_BYTES_MAX]
    cut = split_frames(data)
    if not cut:
        return mutate_bytes(data, other, rng)[:INPUT_BYTES_MAX]
    at = rng.randrange(len(cut))
    match rng.randrange(8):
        case 0:
            cut[at] = struct.pack(">I", rng.choice(LENGTHS)) + cut[at][4:]
        case 1:
            cut[at] = cut[at][:4] + bytes([rng.randrange(8)]) + cut[at][5:]
        case 2:
            request_id = rng.choice((0, 1, 2, 3, 2**63, 2**64 - 1))
            cut[at] = cut[at][:5] + struct.pack(">Q", request_id) + cut[at][13:]
        case 3:
            cut[at:at] = [cut[at]] * rng.choice((1, 2, 100))
        case 4:
            rng.shuffle(cut)
        case 5:
            cut[at:at] = split_frames(other)[:20]
        case _:
            strange = rng.choice(split_frames(other) or [other])
            body = mutate_body(cut[at][frames.HEADER_BYTES :], strange[frames.HEADER_BYTES :], rng)
            cut[at] = frames.encode_frame(cut[at][4], int.from_bytes(cut[at][5:13], "big"), body)
    return b"".join(cut)[:INPUT_BYTES_MAX]


def split_frames(data: bytes) -> list[bytes]:
    """Cut bytes into frames as far as they are well-formed, the rest is dropped."""
    cut: list[bytes] = []
    offset = 0
    while len(data) - offset >= frames.HEADER_BYTES:
        end = offset + frames.LENGTH_BYTES + int.from_bytes(data[offset : offset + 4], "big")
        if end > len(data) or end - offset < frames.HEADER_BYTES:
            break
        cut.append(data[offset:end])
        offset = end
    return cut
