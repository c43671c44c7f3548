"""TLS on real sockets: who passes, who does not, and which file is to blame. On both event loops."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest
import trustme

from cache.cluster.config import TlsConfig
from cache.cluster.ids import Address
from cache.cluster.transport.sockets import SocketTransport
from cache.errors import ConfigError
from cache.metrics import Metrics
from tests.unit.cluster.transport.support import RawPeer, connect_raw, eventually

LOOPBACK = Address("127.0.0.1:0")
Issue = Callable[..., TlsConfig]


class _Side:
    """A transport, the streams it accepted, and its count of refusals."""

    def __init__(self, tls: TlsConfig | None) -> None:
        self._metrics = Metrics()
        self.transport = SocketTransport(LOOPBACK, tls=tls, metrics=self._metrics)
        self.streams: list[RawPeer] = []
        self.address = Address("")

    async def listen(self) -> None:
        self.address = await self.transport.listen(lambda source, payload: None, self._accept)

    def _accept(self) -> RawPeer:
        self.streams.append(RawPeer())
        return self.streams[-1]

    @property
    def refused(self) -> float:
        return self._metrics.snapshot().get("tls.refused", 0)


class _Sides:
    """Makes sides and closes them."""

    def __init__(self) -> None:
        self.made: list[_Side] = []

    def caller(self, tls: TlsConfig | None = None) -> _Side:
        self.made.append(_Side(tls))
        return self.made[-1]

    async def listening(self, tls: TlsConfig | None = None) -> _Side:
        side = self.caller(tls)
        await side.listen()
        return side


@pytest.fixture
async def sides() -> AsyncIterator[_Sides]:
    made = _Sides()
    yield made
    for side in made.made:
        await side.transport.close()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def stranger() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def issue(tmp_path: Path, authority: trustme.CA) -> Issue:
    """Return what writes a certificate to files: of `by`, trusting `trusted`."""

    def write(
        *names: str, by: trustme.CA = authority, trusted: tuple[trustme.CA, ...] = (authority,)
    ) -> TlsConfig:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        leaf = by.issue_cert(*(names or ("127.0.0.1",)))
        leaf.private_key_pem.write_to_path(folder / "key.pem")
        leaf.cert_chain_pems[0].write_to_path(folder / "cert.pem")
        for one in trusted:
            one.cert_pem.write_to_path(folder / "ca.pem", append=True)
        return TlsConfig(
            certificate=folder / "cert.pem", key=str(folder / "key.pem"), ca=folder / "ca.pem"
        )

    return write


async def test_bytes_pass_both_ways_encrypted(sides: _Sides, issue: Issue) -> None:
    """Both ends have certificates of the authority: TLS 1.3, and nobody is refused."""
    server, caller, peer = await sides.listening(issue()), sides.caller(issue()), RawPeer()
    sent = bytes(range(256)) * 8192

    stream = await caller.transport.connect(server.address, lambda: peer)
    stream.write(sent)
    await eventually(lambda: bool(server.streams) and server.streams[0].received == sent)
    server.streams[0].write(sent)
    await eventually(lambda: peer.received == sent)

    assert stream.get_extra_info("ssl_object").version() == "TLSv1.3"
    assert server.refused == caller.refused == 0


async def test_plain_client_is_refused_and_counted(sides: _Sides, issue: Issue) -> None:
    """Bytes that are not TLS end the stream; nothing of ours has looked at them."""
    server = await sides.listening(issue())

    peer = await connect_raw(server.address)
    peer.write(b"\x00\x00\x00\x20" + b"x" * 32)
    await eventually(lambda: peer.lost)

    assert server.refused == 1
    assert server.streams == []


async def test_certificate_of_another_authority_is_refused_and_counted(
    sides: _Sides, issue: Issue, authority: trustme.CA, stranger: trustme.CA
) -> None:
    """The caller trusts the server, but not the server the caller: TLS 1.3 says so at the first read."""
    server = await sides.listening(issue())
    caller = sides.caller(issue(by=stranger, trusted=(authority,)))
    peer = RawPeer()

    await caller.transport.connect(server.address, lambda: peer)
    await eventually(lambda: peer.lost)

    assert server.refused == 1
    assert server.streams == []


async def test_client_without_certificate_is_refused(
    sides: _Sides, issue: Issue, authority: trustme.CA
) -> None:
    """Verification is mutual."""
    server, peer = await sides.listening(issue()), RawPeer()
    context = ssl.create_default_context()
    authority.configure_trust(context)
    host, port = server.address.split(":")

    await asyncio.get_running_loop().create_connection(lambda: peer, host, int(port), ssl=context)
    await eventually(lambda: peer.lost)

    assert server.refused == 1
    assert server.streams == []


async def test_server_of_another_authority_is_refused_by_the_caller(
    sides: _Sides, issue: Issue, authority: trustme.CA, stranger: trustme.CA
) -> None:
    """A caller sends nothing to a stranger; the error names the reason."""
    server = await sides.listening(issue(by=stranger, trusted=(authority, stranger)))
    caller = sides.caller(issue())

    with pytest.raises(ssl.SSLError, match="verify failed"):
        await caller.transport.connect(server.address, RawPeer)

    assert caller.refused == 1


async def test_tls_caller_of_a_plain_server_fails(sides: _Sides, issue: Issue) -> None:
    """There is no way down to plain streams."""
    server, caller = await sides.listening(), sides.caller(issue())

    connecting = asyncio.ensure_future(caller.transport.connect(server.address, RawPeer))
    await eventually(lambda: bool(server.streams) and bool(server.streams[0].received))
    server.streams[0].write(b"\x00\x00\x00\x08no hello")

    with pytest.raises(OSError, match=r"."):
        await connecting


async def test_nobody_listening_is_still_a_refusal(sides: _Sides, issue: Issue) -> None:
    """A refused connection is evidence that a process is gone, with TLS too."""
    server, caller = await sides.listening(issue()), sides.caller(issue())
    await server.transport.close()

    with pytest.raises(ConnectionRefusedError):
        await caller.transport.connect(server.address, RawPeer)


async def test_authorities_overlap_while_one_takes_over(
    sides: _Sides, issue: Issue, authority: trustme.CA, stranger: trustme.CA
) -> None:
    """Two authorities in `ca`: members with certificates of either form one cluster."""
    both = (authority, stranger)
    server = await sides.listening(issue(by=authority, trusted=both))
    caller = sides.caller(issue(by=stranger, trusted=both))

    stream = await caller.transport.connect(server.address, RawPeer)
    stream.write(b"hello")

    await eventually(lambda: bool(server.streams) and server.streams[0].received == b"hello")


@pytest.mark.parametrize(
    ("name", "check_hostname", "passes"),
    [("127.0.0.1", True, True), ("other.example", True, False), ("other.example", False, True)],
)
async def test_host_name_is_checked_when_asked_for(
    sides: _Sides, issue: Issue, name: str, check_hostname: bool, passes: bool
) -> None:
    """Off by default: members are addressed by IP and identified by the authority."""
    server = await sides.listening(issue(name))
    caller = sides.caller(replace(issue(), check_hostname=check_hostname))

    if passes:
        await caller.transport.connect(server.address, RawPeer)
    else:
        with pytest.raises(ssl.SSLError, match="not valid for"):
            await caller.transport.connect(server.address, RawPeer)


async def test_close_aborts_streams_at_once(sides: _Sides, issue: Issue) -> None:
    """No wait for the other end to confirm."""
    server, caller, peer = await sides.listening(issue()), sides.caller(issue()), RawPeer()
    await caller.transport.connect(server.address, lambda: peer)
    await eventually(lambda: bool(server.streams))

    await server.transport.close()

    await eventually(lambda: peer.lost and server.streams[0].lost, within=1.0)


@pytest.mark.parametrize("field", ["certificate", "key", "ca"])
@pytest.mark.parametrize("content", [None, b"", b"not PEM", b"\xff\xfe\x00"], ids=str)
async def test_bad_file_is_named_when_listening(
    sides: _Sides, issue: Issue, tmp_path: Path, field: str, content: bytes | None
) -> None:
    """Missing, empty, text, binary: the error names field and path before anything is bound."""
    path = tmp_path / "bad.pem"
    if content is not None:
        path.write_bytes(content)
    changes = {field: path}
    side = sides.caller(replace(issue(), **changes))  # type: ignore[arg-type]  # field by name

    with pytest.raises(ConfigError, match=rf"^tls\.{field}='.*bad\.pem': "):
        await side.listen()


async def test_key_of_another_certificate_is_named(sides: _Sides, issue: Issue) -> None:
    """Both files are good, but they do not belong together."""
    side = sides.caller(replace(issue(), key=issue().key))

    with pytest.raises(ConfigError, match=r"^tls\.key=.*of tls\.certificate"):
        await side.listen()


def test_encrypted_key_is_refused_without_asking(issue: Issue, tmp_path: Path) -> None:
    """A node that restarts at night has nobody to type a password."""
    from cryptography.hazmat.primitives import serialization

    tls, locked = issue(), tmp_path / "locked.pem"
    key = serialization.load_pem_private_key(Path(tls.key).read_bytes(), None)
    locked.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"password"),
        )
    )

    with pytest.raises(ConfigError, match=r"^tls\.key=.*unencrypted"):
        SocketTransport(LOOPBACK, tls=replace(tls, key=locked)).load_tls()
