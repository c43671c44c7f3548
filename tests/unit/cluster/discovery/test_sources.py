"""Sources that are only looked up: what they read, and what they say of settings that are wrong."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import cache
from cache.cluster import DnsPeers, EtcdPeers, PeersFile, PeersFunction, Siblings
from cache.cluster.discovery.dns import Lookup
from cache.cluster.discovery.file import FILE_BYTES_MAX, parse_peers
from cache.cluster.opened import ClusterCache
from cache.errors import ConfigError

CLUSTER = "cluster://127.0.0.1:7400/users"


class Zone(Lookup):
    """Records in memory."""

    def __init__(self, hosts: dict[str, list[str]], services: list[tuple[str, int]]) -> None:
        self._hosts = hosts
        self._services = services

    async def addresses(self, name: str) -> Sequence[str]:
        if name not in self._hosts:
            raise OSError(f"{name}: not known")
        return self._hosts[name]

    async def services(self, name: str) -> Sequence[tuple[str, int]]:
        return self._services


def test_a_file_has_an_address_in_each_line() -> None:
    """Remarks, empty lines, other line ends and a byte order mark are what editors leave there."""
    content = "\ufeff# members\r\n 10.0.0.1:7400 # first\n\n[::1]:7401\nhost.example:7402".encode()

    assert ["10.0.0.1:7400", "[::1]:7401", "host.example:7402"] == parse_peers("peers", content)


@pytest.mark.parametrize("content", [b"10.0.0.1", b"a:1\nb:x", b"a:0", b"\xff\xfe", b"a:70000"])
def test_a_bad_line_is_named(content: bytes) -> None:
    """All of the file is refused, so that the last good answer stays in use."""
    with pytest.raises(ConfigError, match="peers file 'p'"):
        parse_peers("p", content)


async def test_a_huge_file_is_refused(tmp_path: Path) -> None:
    """Something else was put there."""
    path = tmp_path / "peers"
    path.write_bytes(b"#" * (FILE_BYTES_MAX + 1))

    with pytest.raises(ConfigError, match="over"):
        await PeersFile(path).find()


@pytest.mark.parametrize("answer", ["a:1", None, [1], ["a"], ["a:0"]])
async def test_a_function_must_return_addresses(answer: Any) -> None:
    """Any: what an application might return by mistake."""

    async def function() -> Sequence[str]:
        return answer  # type: ignore[no-any-return]  # the mistake

    with pytest.raises(ConfigError, match="PeersFunction returned"):
        await PeersFunction(function).find()


async def test_services_are_told_by_their_addresses() -> None:
    """A member is known by its address: by name it would look like one more, which never joins."""
    zone = Zone(
        {"a.": ["10.0.0.1", "10.0.0.2"], "b.": ["fe80::1"]},
        [("b.", 7401), ("gone.", 1), ("a.", 7400)],
    )

    found = await DnsPeers("_cache._tcp.test", lookup=zone).presence().find()

    assert ["10.0.0.1:7400", "10.0.0.2:7400", "[fe80::1]:7401"] == found


async def test_services_without_any_address_are_a_failure() -> None:
    """So that the last answer is used again."""
    with pytest.raises(OSError, match="no target"):
        await DnsPeers("_cache._tcp.test", lookup=Zone({}, [("a.", 1)])).presence().find()


async def test_the_systems_resolver_knows_localhost() -> None:
    """The hosts file counts."""
    found = await DnsPeers("localhost", 7400).presence().find()

    assert "127.0.0.1:7400" in found


async def test_the_systems_resolver_says_what_is_wrong() -> None:
    """A name that cannot exist (RFC 6761)."""
    with pytest.raises(OSError, match="cannot be looked up"):
        await DnsPeers("no-such-name.invalid", 7400).presence().find()


def test_without_dnspython_what_needs_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Addresses of a name need nothing."""
    monkeypatch.setitem(sys.modules, "dns.asyncresolver", None)

    DnsPeers("cache.test", 7400)
    with pytest.raises(ConfigError, match=r"peercache\[dns\]"):
        DnsPeers("_cache._tcp.test")
    with pytest.raises(ConfigError, match=r"peercache\[dns\]"):
        DnsPeers("cache.test", 7400, nameservers=("127.0.0.1:53",))


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: PeersFile(""), "PeersFile path"),
        (lambda: PeersFunction("x"), "PeersFunction function"),  # type: ignore[arg-type]
        (lambda: DnsPeers(""), "DnsPeers name"),
        (lambda: DnsPeers("a", 0), "DnsPeers port"),
        (lambda: DnsPeers("a", 1, nameservers=("127.0.0.1",)), "DnsPeers nameservers"),
        (lambda: DnsPeers("a", 1, nameservers="127.0.0.1:53"), "DnsPeers nameservers"),  # type: ignore[arg-type]
        (lambda: EtcdPeers(endpoints=()), "EtcdPeers endpoints"),
        (lambda: EtcdPeers(endpoints="http://a:1"), "EtcdPeers endpoints"),  # type: ignore[arg-type]
        (lambda: EtcdPeers(endpoints=("a:1",)), "EtcdPeers endpoints"),
        (lambda: EtcdPeers(prefix="/"), "EtcdPeers prefix"),
        (lambda: EtcdPeers(lease=1), "EtcdPeers lease"),
        (lambda: EtcdPeers(password="secret!"), "EtcdPeers username"),
        (lambda: EtcdPeers(certificate="c"), "EtcdPeers certificate"),
    ],
)
def test_a_bad_setting_is_named(make: Callable[[], object], complaint: str) -> None:
    """At construction."""
    with pytest.raises(ConfigError, match=complaint) as raised:
        make()
    assert "secret!" not in str(raised.value)


async def test_bad_certificate_files_stop_the_start(tmp_path: Path) -> None:
    """They are a mistake of the settings, unlike an etcd that is away."""
    discovery = EtcdPeers(endpoints=("https://127.0.0.1:1",), ca=tmp_path / "none.pem")
    config = cache.cluster.ClusterConfig.local(discovery=discovery)

    with pytest.raises(ConfigError, match="EtcdPeers: a file of ca"):
        await discovery.presence().enter(config)


# -- by URL --------------------------------------------------------------------------------------


def discovery_of(options: str) -> object:
    opened = cache.open(f"{CLUSTER}?{options}")
    assert isinstance(opened, ClusterCache)
    return opened.config.discovery


def test_each_source_has_its_options(monkeypatch: pytest.MonkeyPatch) -> None:
    """The names of its fields, with its own in front."""
    monkeypatch.setenv("ETCD_PASSWORD", "horse")

    assert PeersFile("/etc/peers") == discovery_of("discovery=file&file.path=/etc/peers")
    wanted = DnsPeers("cache.test", 7400, nameservers=("127.0.0.1:53", "[::1]:53"))
    options = (
        "discovery=dns&dns.name=cache.test&dns.port=7400&dns.nameservers=127.0.0.1:53,[::1]:53"
    )
    assert wanted == discovery_of(options)
    wanted_etcd = EtcdPeers(endpoints=("http://a:1", "http://b:2"), username="u", password="horse")
    options = (
        "discovery=etcd&etcd.endpoints=http://a:1,http://b:2&etcd.username=u"
        "&etcd.password_env=ETCD_PASSWORD"
    )
    assert wanted_etcd == discovery_of(options)
    assert "horse" not in repr(wanted_etcd)


def test_an_object_does_as_well() -> None:
    """A function cannot be written down in a URL."""
    opened = cache.open(CLUSTER, discovery=Siblings("app"))

    assert isinstance(opened, ClusterCache)
    assert Siblings("app") == opened.config.discovery


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ("discovery=consul", "one of dns, etcd, file"),
        ("discovery=file", "file needs file.path"),
        ("discovery=dns&dns.port=1", "dns needs dns.name"),
        ("file.path=/etc/peers", "file.path needs discovery=file"),
        ("discovery=dns&dns.name=a&dns.port=1&etcd.prefix=x", "etcd.prefix needs discovery=etcd"),
        ("discovery=etcd&etcd.lease=1", "EtcdPeers lease"),
    ],
)
def test_options_that_do_not_fit_are_named(options: str, complaint: str) -> None:
    """Each says what is missing beside it."""
    with pytest.raises(ConfigError, match=complaint):
        discovery_of(options)


def test_siblings_are_a_discovery_already() -> None:
    """Two of them cannot be had by URL."""
    with pytest.raises(ConfigError, match="is a discovery already"):
        cache.open("cluster://siblings/app?discovery=file&file.path=/etc/peers")
