"""What every fuzzed target shares: the contract, a clock to push, and a stream without a socket."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Iterable
from random import Random
from typing import Any, Final
from zlib import crc32

from cache.cluster.ids import Address
from cache.cluster.transport.base import PacketHandler, ProtocolFactory
from tests.fuzz.mutate import Mutation


class Violation(AssertionError):  # noqa: N818  (a verdict, not an error of the library)
    """An input did what no input may do."""


class Target(ABC):
    """Something that takes bytes from strangers. State is kept between inputs until `reset`.

    What `feed` raises is a finding: it lets through only what the library documents.
    """

    name: str
    mutation: Mutation

    @abstractmethod
    def seeds(self, rng: Random) -> list[bytes]:
        """Return valid inputs to mutate."""

    @abstractmethod
    def feed(self, data: bytes) -> str:
        """Take one input and return what became of it, in a word or two: the outcome."""

    async def reset(self) -> None:  # noqa: B027  (most have no state between inputs)
        """Begin anew, so that a failure depends on few inputs."""

    def facts(self) -> dict[str, float]:
        """Return what was measured, for the report."""
        return {}


def expect(condition: bool, complaint: str) -> None:
    """Raise a `Violation` unless the condition holds."""
    if not condition:
        raise Violation(complaint)


def cuts(data: bytes, count_max: int = 6) -> Iterable[bytes]:
    """Yield the bytes in pieces, the same ones each time: as a stream may arrive."""
    rng = Random(crc32(data))
    count = rng.randrange(count_max) if len(data) > 1 else 0
    edges = sorted(rng.randrange(1, len(data)) for _ in range(count))
    for start, end in zip([0, *edges], [*edges, len(data)], strict=True):
        yield data[start:end]


class PushedClock:
    """A clock that stands still until it is pushed."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return 1_700_000_000.0 + self.now


class Stream(asyncio.Transport):
    """A stream whose other end reads only when `drain` is called; keeps the start of what was written."""

    KEPT_BYTES: Final = 64 * 1024

    def __init__(self, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self.written = bytearray()
        self.written_bytes = 0
        self.closing = False
        self.reading = True
        self._protocol = protocol
        self._buffered = 0
        self._high = self.KEPT_BYTES
        self._paused = False

    def write(self, data: Any) -> None:  # Any: bytes-like, as in asyncio's own signature
        expect(not self.closing, "wrote to a closed stream")
        self.written_bytes += len(data)
        self._buffered += len(data)
        if len(self.written) < self.KEPT_BYTES:
            self.written += data
        if self._buffered > self._high and not self._paused:
            self._paused = True
            self._protocol.pause_writing()

    def drain(self) -> None:
        """Let the other end read until nothing more is written."""
        self._buffered = 0
        while self._paused and not self.closing:
            self._paused = False
            self._protocol.resume_writing()
            self._buffered = 0

    def writelines(self, list_of_data: Iterable[Any]) -> None:  # Any: as above
        for data in list_of_data:
            self.write(data)

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.closing = True

    def is_closing(self) -> bool:
        return self.closing

    def get_extra_info(self, name: str, default: Any = None) -> Any:  # Any: asyncio's signature
        return ("203.0.113.9", 9) if name == "peername" else default

    def get_write_buffer_size(self) -> int:
        return self._buffered

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high = self.KEPT_BYTES if high is None else high

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


class NoNetwork:
    """`Transport` whose streams are all refused; packets are handed to `packets`, a real sender."""

    def __init__(self, packets: Any) -> None:  # Any: `sockets._Packets`, private to its module
        self._packets = packets

    async def listen(self, on_packet: PacketHandler, on_stream: ProtocolFactory) -> Address:
        raise AssertionError("nobody listens here")

    def send_packet(self, to: Address, payload: bytes) -> None:
        self._packets.send(to, payload)

    async def connect(self, to: Address, protocol_factory: ProtocolFactory) -> asyncio.Transport:
        raise ConnectionRefusedError("no network")

    async def close(self) -> None:
        """Nothing is open."""
