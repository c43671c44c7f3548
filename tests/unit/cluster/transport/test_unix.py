"""Streams by Unix sockets: both ends find them by address, and TCP is there when they fail. On both loops."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trustme

from cache.cluster.config import TlsConfig
from cache.cluster.ids import Address
from cache.cluster.transport.sockets import SocketTransport
from cache.metrics import Metrics
from tests.unit.cluster.transport.support import RawPeer, eventually


class _Paths:
    """The sockets of two transports, each on its own path."""

    def __init__(self, own: Path | None) -> None:
        self._own = own
        self.others: dict[Address, str] = {}

    def own(self) -> str | None:
        return None if self._own is None else str(self._own)

    def of(self, address: Address) -> str | None:
        return self.others.get(address)


class _Side:
    """A transport with what it accepted."""

    def __init__(self, own: Path | None, tls: TlsConfig | None = None) -> None:
        self.paths = _Paths(own)
        self.metrics = Metrics()
        self.transport = SocketTransport(
            Address("127.0.0.1:0"), tls=tls, metrics=self.metrics, paths=self.paths
        )
        self.accepted: list[RawPeer] = []
        self.address = Address("")

    async def listen(self) -> None:
        self.address = await self.transport.listen(lambda source, payload: None, self._accept)

    def _accept(self) -> RawPeer:
        self.accepted.append(RawPeer())
        return self.accepted[-1]

    async def call(self, other: _Side) -> socket.AddressFamily:
        """Send something to the other side, which must arrive; return by which way."""
        peer = RawPeer()
        stream = await self.transport.connect(other.address, lambda: peer)
        stream.write(b"hello")
        await eventually(lambda: bool(other.accepted) and other.accepted[-1].received == b"hello")
        family: socket.AddressFamily = stream.get_extra_info("socket").family
        return family

    @property
    def by_path(self) -> float:
        return self.metrics.snapshot().get("streams.unix", 0)


@pytest.fixture
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="pc") as made:
        yield Path(made)


@pytest.fixture
async def pair(place: Path) -> AsyncIterator[tuple[_Side, _Side]]:
    sides = (_Side(place / "one.sock"), _Side(place / "two.sock"))
    for side in sides:
        await side.listen()
    yield sides
    for side in sides:
        await side.transport.close()


async def test_a_stream_takes_the_path_of_its_address(
    pair: tuple[_Side, _Side], place: Path
) -> None:
    """The caller knows an address, as of any member."""
    first, second = pair
    first.paths.others[second.address] = str(place / "two.sock")

    assert socket.AF_UNIX == await first.call(second)
    assert first.by_path == 1


async def test_a_member_without_a_path_is_called_by_tcp(pair: tuple[_Side, _Side]) -> None:
    """It lives on another host, or could not make a socket."""
    first, second = pair

    assert socket.AF_INET == await first.call(second)
    assert first.by_path == 0


@pytest.mark.parametrize("left", ["nothing", "dead socket", "file"])
async def test_a_path_that_does_not_work_is_no_obstacle(
    pair: tuple[_Side, _Side], place: Path, left: str
) -> None:
    """What a crash left behind; the address decides."""
    first, second = pair
    path = place / "left.sock"
    if left == "dead socket":
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
    elif left == "file":
        path.touch()
    first.paths.others[second.address] = str(path)

    assert socket.AF_INET == await first.call(second)


async def test_nobody_at_either_is_refused(pair: tuple[_Side, _Side], place: Path) -> None:
    """The evidence that a process is gone stays what it was."""
    first, second = pair
    first.paths.others[second.address] = str(place / "two.sock")
    await second.transport.close()

    with pytest.raises(ConnectionRefusedError):
        await first.transport.connect(second.address, RawPeer)


async def test_the_socket_is_private_and_removed_at_the_end(place: Path) -> None:
    """Its folder is private too; two locks are better than one."""
    side = _Side(place / "own.sock")
    await side.listen()
    assert (place / "own.sock").stat().st_mode & 0o777 == 0o600

    await side.transport.close()

    assert not (place / "own.sock").exists()


async def test_a_path_that_cannot_be_bound_leaves_tcp(place: Path) -> None:
    """Too long for the system, or in a folder that is gone."""
    side, caller = _Side(place / ("x" * 120)), _Side(None)
    await side.listen()
    caller.paths.others[side.address] = str(place / ("x" * 120))

    assert socket.AF_INET == await caller.call(side)
    for one in (side, caller):
        await one.transport.close()


async def test_tls_is_spoken_there_as_well(place: Path) -> None:
    """A certificate is asked for on every way in."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(place / "ca.pem")
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_and_cert_chain_pem.write_to_path(place / "node.pem")
    tls = TlsConfig(certificate=place / "node.pem", key=place / "node.pem", ca=place / "ca.pem")
    side, caller, plain = _Side(place / "own.sock", tls), _Side(None, tls), _Side(None)
    await side.listen()
    for one in (caller, plain):
        one.paths.others[side.address] = str(place / "own.sock")

    assert socket.AF_UNIX == await caller.call(side)
    stranger = RawPeer()
    stream = await plain.transport.connect(side.address, lambda: stranger)
    stream.write(b"hello")
    await eventually(lambda: stranger.lost)

    assert len(side.accepted) == 1
    for one in (side, caller, plain):
        await one.transport.close()
