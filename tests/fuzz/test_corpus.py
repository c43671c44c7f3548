"""The fixed part of fuzzing: valid inputs, mutations that are the same in each run, and saved findings."""

from __future__ import annotations

import logging
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Final

import msgspec
import pytest

from cache.cluster.transport.handshake import Handshake, Role, derive_key
from cache.cluster.wire import frames
from cache.cluster.wire.frames import encode_frame
from cache.cluster.wire.messages import NEVER, EntryRecord
from cache.cluster.wire.packets import HEADER_BYTES, Packet, PacketCodec, Rumour
from tests.fuzz import seeds
from tests.fuzz.base import Target, Violation
from tests.fuzz.mutate import HUGE_HEADERS, LENGTHS, PacketMutation
from tests.fuzz.packets import PacketTarget
from tests.fuzz.records import ReplicaTarget
from tests.fuzz.run import CORPUS, Fuzzer, all_targets, replay
from tests.fuzz.streams import FrameTarget, InboundTarget, LinkTarget, StreamTarget

MUTATIONS: Final = 2000
"""Mutations fed to each target, the same ones in every run."""

NAMES: Final = [target.name for target in all_targets()]
SAVED: Final = sorted(CORPUS.glob("*.bin"))
NESTED: Final = b"\x91" * 3000
HOSTILE_BODIES: Final = (
    *(b"", b"\xc1", NESTED, b"\x81\xa1a" * 1500, b"\x92\x01", b"\x00" * 64, b"\xff" * 64),
    *(b"\x93\x14\xc2" + header for header in HUGE_HEADERS),
    *HUGE_HEADERS,
)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Strangers' mistakes are logged; thousands of them are not worth keeping."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("name", NAMES)
async def test_valid_inputs_and_fixed_mutations_find_nothing(name: str, tmp_path: Path) -> None:
    """A short run of the fuzzer with a fixed seed, for each thing that strangers reach."""
    targets = [target for target in all_targets() if target.name == name]
    fuzzer = Fuzzer(targets, 1, tmp_path)

    await fuzzer.run(MUTATIONS)

    assert {} == fuzzer.failures
    assert fuzzer.pools[0].outcomes


@pytest.mark.parametrize("path", SAVED, ids=lambda path: path.name)
async def test_saved_findings_are_fixed(path: Path) -> None:
    """A fixed bug leaves its input behind."""
    await replay(path.read_bytes(), all_targets())  # noqa: ASYNC240  (a small file)


@pytest.mark.parametrize("secret", [None, seeds.SECRET])
async def test_hostile_bodies_with_a_good_seal_are_dropped(secret: str | None) -> None:
    """Huge counts, deep nesting, nothing at all: each is one counted drop."""
    target = PacketTarget(secret)
    await target.reset()
    mutation = PacketMutation(seeds.CLUSTER, secret)

    outcomes = {target.feed(mutation._seal(body, Random(1))) for body in HOSTILE_BODIES}

    assert outcomes <= {"malformed", "too_short"}


@pytest.mark.parametrize("secret", [None, seeds.SECRET])
async def test_rumours_with_addresses_of_nobody_are_survived(secret: str | None) -> None:
    """`send_packet` never raises, whatever text a rumour gave for an address."""
    target = PacketTarget(secret)
    await target.reset()
    codec = PacketCodec(cluster_name=seeds.CLUSTER, secret=secret)
    texts = ["x", "a..b:1", "a" * 70 + ".b:1", "☃" * 80 + ":1", "h:99999", "[::1", "\x00:1"]

    for number, text in enumerate(texts):
        record = seeds.a_record(0, id=f"m{number}#1", address=text)
        rumour = Rumour(record=record, accuser=record.id)
        outcome = target.feed(codec.seal(Packet(sender=seeds.IDS[0], parts=[rumour])))
        assert outcome.startswith("accepted")


@pytest.mark.parametrize("length", LENGTHS)
def test_any_length_is_one_kind_of_error_or_a_wait(length: int) -> None:
    """From 0 to 2^32 - 1, at once and byte by byte."""
    header = struct.pack(">IBQ", length, frames.REQUEST, 1)

    outcome = FrameTarget().feed(header)

    assert outcome in {"frame length []", " []", " ['bad 2']"}


@pytest.mark.parametrize("kind", [InboundTarget, LinkTarget])
@pytest.mark.parametrize("secret", [None, seeds.SECRET])
@pytest.mark.parametrize("established", [False, True])
async def test_hostile_bodies_end_a_connection(
    kind: type[StreamTarget], secret: str | None, *, established: bool
) -> None:
    """Each ends it, before the handshake and after it, at either end."""
    target = kind(secret=secret, established=established)
    frame = frames.GREETING if not established else frames.REQUEST
    if established and target.peer_role is Role.ACCEPTOR:
        frame = frames.REPLY

    for body in HOSTILE_BODIES:
        assert target.feed(encode_frame(frame, 1, body)).startswith("True")
        assert target.feed(encode_frame(frames.NOTICE, 0, body)).startswith("True")


@pytest.mark.parametrize("ttl", [math.nan, -math.inf, -1.5])
def test_times_to_live_below_never_are_refused(ttl: float) -> None:
    """A NaN compares as false with every instant: an entry that ended then would never end."""
    for value in (None, b"v"):
        record = EntryRecord("m", b"k", value, 1, 1, ttl)
        assert "not an entry" == ReplicaTarget().feed(msgspec.msgpack.encode(record))


@pytest.mark.parametrize("ttl", [NEVER, -0.5, 0.0, 5e-324, 1e308, math.inf])
def test_other_times_to_live_are_stored(ttl: float) -> None:
    """From nothing to for ever; the largest number is no instant that overflows."""
    for value in (None, b"v"):
        record = EntryRecord("m", b"k", value, 1, 1, ttl)
        assert ReplicaTarget().feed(msgspec.msgpack.encode(record)).startswith("True")


class _Broken(Target):
    """A target with a planted bug: two inputs in a row that begin with the same byte."""

    name = "broken"
    mutation = staticmethod(lambda data, other, rng: rng.randbytes(2))

    def __init__(self) -> None:
        self._last = b""

    def seeds(self, rng: Random) -> list[bytes]:
        return [b"a"]

    async def reset(self) -> None:
        self._last = b""

    def feed(self, data: bytes) -> str:
        last, self._last = self._last, data[:1]
        if last == self._last:
            raise Violation("planted")
        return "fine"


async def test_a_planted_bug_is_found_written_and_replayed(tmp_path: Path) -> None:
    """A checker that cannot fail is a defect; what it writes fails again, with what came before."""
    fuzzer = Fuzzer([_Broken()], 0, tmp_path)

    await fuzzer.run(2000)

    (path,) = fuzzer.failures.values()
    with pytest.raises(Violation, match="planted"):
        await replay(path.read_bytes(), [_Broken()])


async def test_an_answer_to_a_stranger_would_be_noticed() -> None:
    """The judge of seals is not the codec: a codec that opens anything is found."""
    target = PacketTarget(seeds.SECRET)
    await target.reset()
    assert target._service is not None
    target._service._codec = PacketCodec(cluster_name=seeds.CLUSTER, secret=seeds.OTHER_SECRET)
    packet = Packet(sender=seeds.IDS[0], parts=[])
    payload = target._service._codec.seal(packet)
    assert len(payload) > HEADER_BYTES

    with pytest.raises(Violation, match="unauthenticated packet"):
        target.feed(payload)


@pytest.mark.parametrize("kind", [InboundTarget, LinkTarget])
async def test_a_stranger_who_guessed_the_secret_would_be_noticed(
    kind: type[StreamTarget],
) -> None:
    """The other side of the check: with the right key, and nonces known beforehand, it does fire."""
    target = kind(secret=seeds.SECRET, established=False)
    role, key = target.peer_role, derive_key(seeds.SECRET)
    ours = Role.ACCEPTOR if role is Role.INITIATOR else Role.INITIATOR
    stranger = Handshake(role, seeds.a_hello(), key)
    said = seeds.greetings(stranger, Handshake(ours, seeds.a_hello(seeds.LOCAL_ID), key))

    with pytest.raises(Violation, match="completed the handshake"):
        target.feed(said)
