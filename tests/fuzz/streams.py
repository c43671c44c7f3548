"""The stream targets: frames in random cuts, and both ends of a connection before and after its handshake."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random

from cache.cluster.config import KIB, LimitsConfig
from cache.cluster.ids import Address
from cache.cluster.scope import Scope
from cache.cluster.transport.connection import Connection, Surroundings
from cache.cluster.transport.handshake import Handshake, HandshakeState, Role, derive_key
from cache.cluster.transport.inbound import InboundConnection, Peer
from cache.cluster.transport.link import Link
from cache.cluster.wire import frames
from cache.cluster.wire.encoding import (
    decode_greeting,
    decode_notice,
    decode_reply,
    decode_request,
)
from cache.cluster.wire.frames import FrameParser, encode_frame
from cache.cluster.wire.messages import Done, Get, RaftNotice, Reply
from cache.errors import CacheError, RemoteProtocolError, UnavailableError
from cache.metrics import Metrics
from tests.fuzz import seeds
from tests.fuzz.base import PushedClock, Stream, Target, cuts, expect
from tests.fuzz.mutate import mutate_frames

IN_FLIGHT_MAX = 16
LIMITS = LimitsConfig(
    key_bytes_max=KIB,
    value_bytes_max=KIB,
    frame_bytes_max=66 * KIB,
    send_buffer_bytes_max=KIB,
    in_flight_max=IN_FLIGHT_MAX,
)
CALLS = 3
GREETINGS_BYTES_MAX = 2 * (frames.GREETING_BYTES_MAX + frames.LENGTH_BYTES)


class FrameTarget(Target):
    """The parser and the decoders: any cut gives the same frames, and one kind of error."""

    name = "frames"
    mutation = staticmethod(mutate_frames)

    def seeds(self, rng: Random) -> list[bytes]:
        greetings = seeds.sessions(Role.INITIATOR, rng, secret=None)
        return seeds.requests(rng) + seeds.replies(rng) + greetings

    def feed(self, data: bytes) -> str:
        whole, error = self._parse([data])
        pieces, late_error = self._parse(cuts(data))
        expect(whole == pieces or bool(error), "the frames depend on how the bytes are cut")
        expect(error == late_error, f"{error!r} at once, {late_error!r} in pieces")
        outcomes = {self._decode(kind, body) for kind, _, body in pieces}
        return f"{error[:12]} {sorted(outcomes)}"

    def _parse(self, pieces: object) -> tuple[list[frames.Frame], str]:
        parser = FrameParser(LIMITS.frame_bytes_max)
        found: list[frames.Frame] = []
        try:
            for piece in pieces:  # type: ignore[attr-defined]  # any iterable of bytes
                found += parser.feed(piece)
                expect(parser.held_bytes <= LIMITS.frame_bytes_max + 4, "holds too much")
        except RemoteProtocolError as error:
            return found, str(error)
        return found, ""

    def _decode(self, kind: int, body: bytes) -> str:
        decoders: dict[int, Callable[[bytes], object]] = {
            frames.GREETING: decode_greeting,
            frames.REQUEST: decode_request,
            frames.REPLY: decode_reply,
            frames.NOTICE: decode_notice,
            frames.DETACHED: bytes,
        }
        for decode in decoders.values() if kind not in decoders else [decoders[kind]]:
            try:
                return type(decode(body)).__name__
            except RemoteProtocolError as error:
                # The text reaches a log and a `Failure`: it is text that can be sent.
                str(error).encode()
        return f"bad {kind}"


class StreamTarget(Target):
    """One end of a connection, a fresh one for each input.

    Args:
        established: the input arrives after a good handshake; else it is all that the stranger says.
    """

    mutation = staticmethod(mutate_frames)
    peer_role: Role

    def __init__(self, *, secret: str | None, established: bool) -> None:
        stage = "after" if established else "before"
        self.name = f"{type(self).__name__.removesuffix('Target').lower()}-{stage}"
        self.name += "" if secret is None else "-secret"
        self._secret = secret
        self._key = derive_key(secret)
        self._established = established
        self._metrics = Metrics()
        self._around = Surroundings(LIMITS, PushedClock(), Scope("fuzz"), self._metrics)

    def seeds(self, rng: Random) -> list[bytes]:
        if not self._established:
            return seeds.sessions(self.peer_role, rng, secret=self._secret)
        traffic = seeds.requests if self.peer_role is Role.INITIATOR else seeds.replies
        return traffic(rng)

    def greet(self, connection: Connection, stream: Stream) -> None:
        """Complete the handshake as the other side."""
        peer = Handshake(self.peer_role, seeds.a_hello(nonce=b"p" * 16), self._key)
        said = peer.start()
        while connection._handshake.state is not HandshakeState.DONE or said:
            for body in said:
                connection.data_received(encode_frame(frames.GREETING, 0, body))
            connection.flush()
            heard = FrameParser(frames.GREETING_BYTES_MAX).feed(bytes(stream.written))
            stream.written.clear()
            said = [answer for _, _, body in heard for answer in peer.receive(body)]

    def deliver(self, connection: Connection, stream: Stream, data: bytes) -> str:
        """Hand over the bytes in pieces, then the end of the stream; return how it went."""
        before = self._around.malformed.value
        stream.written_bytes = 0
        for piece in cuts(data):
            if not stream.reading:
                stream.drain()
            if not stream.closing:
                connection.data_received(piece)
        connection.flush()
        stream.drain()
        connection.flush()
        expect(stream.closing or stream.reading, "a drained stream is not read any more")
        trusted = self._established or self._secret is None
        if not trusted:
            state = connection._handshake.state
            expect(state is not HandshakeState.DONE, "a stranger completed the handshake")
            expect(stream.written_bytes <= GREETINGS_BYTES_MAX, "a stranger was told too much")
        held = connection._parser.held_bytes
        expect(held <= LIMITS.frame_bytes_max + 4, "the parser holds too much")
        kept = sum(len(value) for _, value in connection._detached)
        expect(kept <= LIMITS.frame_bytes_max, "too many detached values are kept")
        malformed = self._around.malformed.value - before
        expect(malformed <= 1, "one connection broke the protocol twice")
        expect(connection.ended or not malformed, "a malformed stream goes on")
        return f"{connection.ended} {connection._handshake.state.name} {malformed}"


class InboundTarget(StreamTarget):
    """The serving end."""

    peer_role = Role.INITIATOR

    def __init__(self, *, secret: str | None, established: bool) -> None:
        super().__init__(secret=secret, established=established)
        self._handlers = dict.fromkeys(seeds.REQUESTS, self._handle)
        self._notice_handlers = dict.fromkeys(seeds.NOTICES[1:], self._take_notice)
        self._handled = 0
        self._late: list[asyncio.Future[Reply]] = []

    def _handle(self, request: object, peer: Peer) -> Reply | Awaitable[Reply]:
        """Answer at once, refuse, or answer late: by the number of the request."""
        self._handled += 1
        if self._handled % 3 == 0:
            raise UnavailableError(f"refused {request!r}"[:200])
        if self._handled % 3 == 1:
            return Done()
        self._late.append(asyncio.get_running_loop().create_future())
        return self._late[-1]

    def _take_notice(self, notice: object, peer: Peer) -> None:
        """Fail every third one: that is no affair of the sender."""
        self._handled += 1
        if self._handled % 3 == 0:
            raise UnavailableError(f"not taken: {notice!r}"[:200])

    def feed(self, data: bytes) -> str:
        handshake = Handshake(Role.ACCEPTOR, seeds.a_hello(seeds.LOCAL_ID), self._key)
        ended: list[InboundConnection] = []
        connection = InboundConnection(
            self._around, handshake, self._handlers, self._notice_handlers, ended.append
        )
        stream = Stream(connection)
        connection.connection_made(stream)
        if self._established:
            self.greet(connection, stream)
        self._handled = 0
        outcome = self.deliver(connection, stream, data)
        if not self._established and self._secret is not None:
            expect(self._handled == 0, "a stranger's request was handled")
        expect(len(self._late) <= IN_FLIGHT_MAX, "more requests wait than limits.in_flight_max")
        for number, late in enumerate(self._late):
            late.set_result(Done()) if number % 2 else late.cancel()
        self._late.clear()
        expect(not connection._held, "frames are held back for ever")
        connection.connection_lost(None)
        expect(len(ended) == 1, f"a connection ended {len(ended)} times")
        expect(connection._handshake_timer is None, "the handshake timer outlived its stream")
        return f"{outcome} {min(self._handled, 3)}"


class LinkTarget(StreamTarget):
    """The calling end, with calls that wait."""

    peer_role = Role.ACCEPTOR

    def feed(self, data: bytes) -> str:
        handshake = Handshake(Role.INITIATOR, seeds.a_hello(seeds.LOCAL_ID), self._key)
        ended: list[Link] = []
        address = Address(seeds.ADDRESSES[0])
        link = Link(self._around, handshake, address, ended.append, lambda refused: None)
        stream = Stream(link)
        link.connection_made(stream)
        link.flush()
        if self._established:
            self.greet(link, stream)
        calls = [link.call(Get("m", 1, b"k", backup=False), 1e9, 0.0) for _ in range(CALLS)]
        link.notify(RaftNotice(b"u", "m/1", b""), 0.0)
        outcome = self.deliver(link, stream, data)
        expect(link._arrived_count <= 1, "the peer confirmed what it was not told")
        answers = [self._answer(call) for call in calls if call.done()]
        if not self._established and self._secret is not None:
            expect(not link.is_open, "a stranger opened the link")
            said = [answer for answer in answers if not answer.endswith("Error")]
            expect(not said, f"a stranger answered a call: {said}")
        for now in (0.0, 1.0, 5.0):
            link.sweep(now)
        link.connection_lost(None)
        expect(len(ended) == 1, f"a link ended {len(ended)} times")
        expect(all(call.done() for call in calls), "a call outlived its link")
        for call in calls:
            self._answer(call)
        return f"{outcome} {sorted(answers)}"

    def _answer(self, call: asyncio.Future[Reply]) -> str:
        error = call.exception()
        expect(error is None or isinstance(error, CacheError), f"a call raised {error!r}")
        return type(call.result() if error is None else error).__name__
