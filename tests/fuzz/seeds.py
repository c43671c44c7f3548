"""Valid inputs to start from: one or more of every message type, as packets, frames and whole sessions.

The examples are built from the types themselves, so a message added to the protocol is fuzzed from the
day it is added.
"""

from __future__ import annotations

import types
import typing
from random import Random
from typing import Any, Final, get_args, get_origin

import msgspec

from cache.cluster.transport.handshake import Handshake, Role, derive_key, new_hello
from cache.cluster.wire import frames, messages
from cache.cluster.wire.detached import DETACHED_BYTES_MIN
from cache.cluster.wire.frames import encode_frame
from cache.cluster.wire.messages import (
    CopyEntries,
    EntryRecord,
    Hello,
    Many,
    MemberRecord,
    Set,
    SetMany,
    TableChanges,
    TableRecord,
    Value,
)
from cache.cluster.wire.packets import Packet, PacketCodec, Part, Rumour

CLUSTER: Final = "fuzzed"
SECRET: Final = "a secret of the fuzzed cluster"
OTHER_SECRET: Final = "the wrong secret, as an attacker has it"
LOCAL_ID: Final = "local#0000000000000001"
LOCAL_ADDRESS: Final = "127.0.0.1:7000"
IDS: Final = tuple(f"{name}#{7:016x}" for name in "bcde")
ADDRESSES: Final = tuple(f"127.0.0.1:{7001 + number}" for number in range(len(IDS)))
NONCE: Final = b"n" * 16

INTS: Final = (0, 1, 2, 3, 7, 300)
TEXTS: Final = ("m", "", LOCAL_ID, *IDS, *ADDRESSES, "status")
BYTES: Final = (b"", b"key", b"\x81\xa3key\x01", b"\x00" * 16)
FLOATS: Final = (-1.0, 0.0, 1.5, 60.0)

REQUESTS: Final[tuple[type, ...]] = get_args(messages.Request)
REPLIES: Final[tuple[type, ...]] = get_args(messages.Reply)
NOTICES: Final[tuple[type, ...]] = get_args(messages.Notice)
GREETINGS: Final[tuple[type, ...]] = get_args(messages.Greeting)
PARTS: Final[tuple[type, ...]] = get_args(Part)


def example(kind: Any, rng: Random) -> Any:  # Any: a type expression, and a value of it
    """Return a valid value of a field's type."""
    if get_origin(kind) is typing.Annotated:
        kind = get_args(kind)[0]
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return example(rng.choice(arguments), rng)
    if origin is list:
        return [example(arguments[0], rng) for _ in range(rng.randrange(3))]
    if origin is tuple:
        return tuple(example(argument, rng) for argument in arguments)
    if origin is dict:
        return {example(arguments[0], rng): example(arguments[1], rng)}
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return _example_of(kind, rng)
    return _scalar(kind, rng)


def _example_of(kind: type[msgspec.Struct], rng: Random) -> msgspec.Struct:
    """Return an example that the type's own checks accept (columns of one length)."""
    if kind is CopyEntries:
        return _copy_entries(rng)
    while True:
        try:
            return kind(*(example(field.type, rng) for field in msgspec.structs.fields(kind)))
        except ValueError:
            continue


def _copy_entries(rng: Random) -> CopyEntries:
    """Return one: its columns depend on each other too much to be found by chance."""
    counts = [rng.randrange(1, 4) for _ in range(rng.randrange(1, 3))]
    count = sum(counts)

    def column(kind: Any, size: int = count) -> list[Any]:  # Any: a type, and values of it
        return [_scalar(kind, rng) for _ in range(size)]

    values = [rng.choice((None, value)) for value in column(bytes)]
    origins, ttls = column(int, rng.choice((1, count))), column(float, rng.choice((1, count)))
    keys, hlcs, maps = column(bytes), column(int), column(str, len(counts))
    return CopyEntries(1, 2, maps, counts, keys, values, hlcs, origins, ttls)


def _scalar(kind: object, rng: Random) -> object:
    if kind is bool:
        return rng.random() < 0.5
    choices: dict[object, tuple[object, ...]] = {
        int: INTS,
        str: TEXTS,
        bytes: BYTES,
        float: FLOATS,
        types.NoneType: (None,),
        None: (None,),
    }
    return rng.choice(choices[kind])


def a_record(number: int, **changes: Any) -> MemberRecord:  # Any: fields of the record
    """Return the record of one of the members that the fuzzed one knows."""
    record = MemberRecord(
        id=IDS[number],
        address=ADDRESSES[number],
        incarnation=1,
        state=0,
        seniority=2 + number,
        leaving=False,
        weight=1,
        host="h",
        zone="z",
        tags={"a": "b"},
    )
    return msgspec.structs.replace(record, **changes)


def packets(secret: str | None, rng: Random) -> list[bytes]:
    """Return sealed packets: each part alone, then mixtures."""
    codec = PacketCodec(cluster_name=CLUSTER, secret=secret)
    known = [_rumour(number, state) for number in range(len(IDS)) for state in range(4)]
    made = [[example(kind, rng)] for kind in PARTS for _ in range(4)]
    made += [[part] for part in known]
    made += [rng.sample(known, 3) for _ in range(8)]
    made += [[example(rng.choice(PARTS), rng) for _ in range(3)] for _ in range(8)]
    sender = rng.choice(IDS)
    return [codec.seal(Packet(sender=sender, parts=parts)) for parts in made]


def _rumour(number: int, state: int) -> Part:
    record = a_record(number, state=state, incarnation=state)
    return Rumour(record=record, accuser=IDS[(number + 1) % len(IDS)])


def requests(rng: Random) -> list[bytes]:
    """Return frames with a request and a notice of every type, and heartbeats."""
    told = [encode_frame(frames.NOTICE, 0, _encoded(kind, rng)) for kind in NOTICES]
    apart = [
        _apart(frames.REQUEST, Set("m", 1, b"k", b"", -1.0, b"o"), 1),
        _apart(frames.REQUEST, SetMany("m", [1, 2], [b"a", b"b"], [b"", b""], -1.0, b"o"), 2),
    ]
    return [
        *_bodies(frames.REQUEST, REQUESTS, rng),
        *told,
        *apart,
        encode_frame(frames.PING, 1, b""),
    ]


def replies(rng: Random) -> list[bytes]:
    """Return frames with a reply of every type, addressed to the calls that wait."""
    return [
        *_bodies(frames.REPLY, REPLIES, rng),
        *(encode_frame(frames.PONG, n, b"") for n in (0, 1)),
        _apart(frames.REPLY, Value(b""), 1),
        _apart(frames.REPLY, Many([b"", None, b""]), 3),
    ]


def _apart(kind: int, message: msgspec.Struct, step: int) -> bytes:
    """Return a message with two places at most, `step - 1` apart, and detached values for them before it."""
    indexes = sorted({0, step - 1})
    values = [encode_frame(frames.DETACHED, n, bytes([n]) * DETACHED_BYTES_MIN) for n in indexes]
    return b"".join([*values, encode_frame(kind, 1, msgspec.msgpack.encode(message))])


def _bodies(kind: int, types_of: tuple[type, ...], rng: Random) -> list[bytes]:
    encode = msgspec.msgpack.encode
    made = [encode_frame(kind, 1 + n % 3, encode(example(t, rng))) for n, t in enumerate(types_of)]
    return [*made, *(b"".join(rng.sample(made, 3)) for _ in range(8))]


def a_hello(member: str = IDS[0], nonce: bytes = NONCE) -> Hello:
    """Return the hello of another member, or of a client."""
    return new_hello(
        cluster_name=CLUSTER,
        partition_count=8,
        member=member,
        address=ADDRESSES[0] if member else "",
        nonce=nonce,
    )


def sessions(role: Role, rng: Random, *, secret: str | None) -> list[bytes]:
    """Return what one side says from the first byte on: greetings, then requests or replies.

    With a secret, the proofs are those of a session with other nonces (a replay), or made with a
    secret that is not the cluster's: nothing here must be believed.
    """
    traffic = requests(rng) if role is Role.INITIATOR else replies(rng)
    other = Role.ACCEPTOR if role is Role.INITIATOR else Role.INITIATOR
    starts: list[bytes] = []
    for used in (secret, None if secret is None else OTHER_SECRET):
        for member in (IDS[0], ""):
            key = derive_key(used)
            one = Handshake(role, a_hello(member), key)
            two = Handshake(other, a_hello(IDS[1], b"o" * 16), key)
            starts.append(greetings(one, two))
    odd = [encode_frame(frames.GREETING, 0, _encoded(kind, rng)) for kind in GREETINGS]
    made = [start + frame for start in starts for frame in rng.sample(traffic, 5)]
    return [*starts, *made, *odd]


def _encoded(kind: type, rng: Random) -> bytes:
    encoded: bytes = msgspec.msgpack.encode(example(kind, rng))
    return encoded


def greetings(one: Handshake, two: Handshake) -> bytes:
    """Let two sides shake hands; return what the first one sent."""
    said: list[bytes] = []
    turn = [(one, body) for body in two.start()] + [(two, body) for body in one.start()]
    said += [body for to, body in turn if to is two]
    while turn:
        to, body = turn.pop(0)
        answers = to.receive(body)
        other = two if to is one else one
        turn += [(other, answer) for answer in answers]
        said += answers if to is one else []
    return b"".join(encode_frame(frames.GREETING, 0, body) for body in said)


def a_table() -> TableRecord:
    """Return a table of eight partitions."""
    return TableRecord(
        id=messages.TableId(3, IDS[0]),
        ancestors=[messages.TableId(2, IDS[0]), messages.TableId(1, IDS[1])],
        members=list(IDS),
        addresses=list(ADDRESSES),
        rows=[messages.RowRecord(5, [n % 4, (n + 1) % 4], [(n + 2) % 4], 0) for n in range(8)],
    )


def tables(rng: Random) -> list[bytes]:
    """Return tables of eight partitions."""
    empty = TableRecord(messages.TableId(0, ""), [], [], [], [messages.RowRecord(0, [], [], 0)] * 8)
    made = [a_table(), empty, *(example(TableRecord, rng) for _ in range(16))]
    return [msgspec.msgpack.encode(table) for table in made]


def table_changes(rng: Random) -> list[bytes]:
    """Return changes to `a_table`, of none to all of its rows."""
    base, made = a_table(), []
    for _ in range(16):
        places = sorted(rng.sample(range(8), rng.randrange(9)))
        rows = [messages.RowRecord(6, [n % 3, 3], [], rng.choice((0, 4))) for n in places]
        table = msgspec.structs.replace(base, id=messages.TableId(4, IDS[0]), rows=rows)
        made.append(TableChanges(base.id, places, table))
    return [msgspec.msgpack.encode(changes) for changes in made]


def entries(rng: Random) -> list[bytes]:
    """Return stored entries, tombstones among them."""
    return [msgspec.msgpack.encode(example(EntryRecord, rng)) for _ in range(40)]
