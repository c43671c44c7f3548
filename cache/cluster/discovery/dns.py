"""Peers from the DNS: every address of a name, or the services behind one, asked again for ever.

This is how pods find each other behind a Kubernetes *headless* service. Names may be unknown at first, have
any number of records, and change: each question goes to the resolver anew, so that records live as long as
it keeps them (their TTL), and no longer here.

Addresses come from the system's resolver, which knows the hosts file and whatever else the machine is set up
with. It cannot look up SRV records, nor be pointed to another server; those two need `dnspython`.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

from cache.cluster.config.checks import check_address, require
from cache.cluster.discovery.base import Discovery, Presence
from cache.cluster.ids import Address, format_address, parse_address
from cache.errors import ConfigError

if TYPE_CHECKING:
    from dns.asyncresolver import Resolver

TARGETS_MAX: Final = 128
"""Targets of one SRV name that are looked at."""

QUESTION_TIMEOUT: Final = 3.0
"""Seconds for one question to name servers; below `FIND_TIMEOUT`, so that the reason is told."""


class Lookup(Protocol):
    """Asks the DNS. What it raises is logged by whoever asked."""

    async def addresses(self, name: str) -> Sequence[str]:
        """Return the IP addresses of a name (A and AAAA)."""
        ...

    async def services(self, name: str) -> Sequence[tuple[str, int]]:
        """Return host and port of each SRV record of a name."""
        ...


@dataclass(frozen=True, slots=True)
class DnsPeers(Discovery):
    """What a DNS name stands for: `DnsPeers("cache.prod.svc.cluster.local", 7400)`."""

    name: str
    """The name. With a `port`, its A and AAAA records are members; without one, its SRV records are, as in
    `_cache._tcp.cache.prod.svc.cluster.local`."""

    port: int | None = None
    """Where all members listen, 1 to 65535. None, the default: the SRV records tell (extra `dns`)."""

    nameservers: tuple[str, ...] = ()
    """Name servers, `ip:port`, to be asked in the place of the system's resolver (extra `dns`)."""

    lookup: Lookup | None = None
    """Who asks; None, the default, for the system's resolver and `dnspython`."""

    def __post_init__(self) -> None:
        is_name = isinstance(self.name, str) and 1 <= len(self.name) <= 253
        require(is_name, "DnsPeers name", self.name, "must be a DNS name")
        number = isinstance(self.port, int) and not isinstance(self.port, bool)
        is_port = self.port is None or (number and 1 <= self.port <= 65535)
        require(is_port, "DnsPeers port", self.port, "must be 1 to 65535, or None for SRV records")
        given = self.nameservers
        is_list = isinstance(given, Sequence) and not isinstance(given, str)
        require(is_list, "DnsPeers nameservers", given, "must be a list of ip:port")
        object.__setattr__(self, "nameservers", tuple(given))
        for server in given:
            check_address("DnsPeers nameservers", server, port_required=True)
        if self.lookup is None and (self.port is None or self.nameservers):
            _dnspython()  # Now, so that what is not installed is an error of the settings.

    def presence(self) -> Presence:
        """Return one node's part; nothing is asked yet."""
        if self.lookup is not None:
            return _DnsPresence(self, self.lookup)
        return _DnsPresence(self, Servers(self.nameservers) if self.nameservers else System())


class _DnsPresence(Presence):
    """One node that looks up a name."""

    def __init__(self, settings: DnsPeers, lookup: Lookup) -> None:
        self._settings = settings
        self._lookup = lookup

    def __repr__(self) -> str:
        return f"<DnsPeers {self._settings.name}>"

    async def find(self) -> Sequence[Address]:
        """Return the members that the name stands for now, in the order of their addresses."""
        name, port = self._settings.name, self._settings.port
        if port is not None:
            return sorted(format_address(ip, port) for ip in await self._lookup.addresses(name))
        targets = sorted(await self._lookup.services(name))[:TARGETS_MAX]
        # Members are known by their IP addresses: a name would look like one more that is absent.
        hosts = dict.fromkeys(host for host, _ in targets)
        asked = (self._lookup.addresses(host) for host in hosts)
        answers = await asyncio.gather(*asked, return_exceptions=True)
        found = dict(zip(hosts, answers, strict=True))
        if targets and all(isinstance(answer, Exception) for answer in answers):
            raise OSError(f"no target of {name} has an address: {answers[0]}")
        addresses = (
            format_address(ip, port)
            for host, port in targets
            if not isinstance(ips := found[host], BaseException)
            for ip in ips
        )
        return list(dict.fromkeys(addresses))


class System(Lookup):
    """The system's resolver; for SRV records, the name servers that the system has."""

    def __init__(self) -> None:
        self._asking: dict[str, asyncio.Future[Sequence[str]]] = {}

    async def addresses(self, name: str) -> Sequence[str]:
        """Ask the resolver, in a thread. One question for a name at a time: a thread cannot be ended."""
        asking = self._asking.get(name)
        if asking is None:
            loop = asyncio.get_running_loop()
            asking = self._asking[name] = loop.run_in_executor(None, _addresses, name)
            asking.add_done_callback(partial(self._asked, name))
        return await asyncio.shield(asking)

    def _asked(self, name: str, asking: asyncio.Future[Sequence[str]]) -> None:
        self._asking.pop(name, None)
        if not asking.cancelled():
            asking.exception()  # Looked at: whoever asked may have stopped to wait.

    async def services(self, name: str) -> Sequence[tuple[str, int]]:
        """Ask the system's name servers."""
        return await Servers(()).services(name)


def _addresses(name: str) -> Sequence[str]:
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        raise OSError(f"{name} cannot be looked up: {error}") from error
    return [str(entry[4][0]) for entry in found]


class Servers(Lookup):
    """Name servers, asked by `dnspython`; none given: those of the system."""

    def __init__(self, nameservers: Sequence[str]) -> None:
        self._nameservers = nameservers

    async def addresses(self, name: str) -> Sequence[str]:
        """Ask for A and AAAA records; either will do.

        Raises:
            OSError: there are neither, or nobody answers.
        """
        kinds = await asyncio.gather(
            self._ask(name, "A"), self._ask(name, "AAAA"), return_exceptions=True
        )
        found = [
            record.address
            for kind in kinds
            if not isinstance(kind, BaseException)
            for record in kind
        ]
        failures = [kind for kind in kinds if isinstance(kind, BaseException)]
        if not found and failures:
            raise failures[0]
        return found

    async def services(self, name: str) -> Sequence[tuple[str, int]]:
        """Ask for SRV records.

        Raises:
            OSError: there are none, or nobody answers.
        """
        return [(str(record.target), record.port) for record in await self._ask(name, "SRV")]

    async def _ask(self, name: str, kind: str) -> Sequence[Any]:  # Any: dnspython's records
        from dns.exception import DNSException  # noqa: PLC0415  # the extra

        try:
            answer = await self._resolver().resolve(name, kind, lifetime=QUESTION_TIMEOUT)
        except DNSException as error:
            raise OSError(f"{kind} records of {name}: {error}") from error
        return list(answer)

    def _resolver(self) -> Resolver:
        """Return a resolver that remembers nothing: made anew, so that a changed resolv.conf is seen."""
        resolver = _dnspython()(configure=not self._nameservers)
        if self._nameservers:
            parsed = [parse_address(server) for server in self._nameservers]
            resolver.nameservers = [_nameserver(host, port) for host, port in parsed]
        return resolver


def _nameserver(host: str, port: int) -> Any:  # Any: dnspython's
    from dns.nameserver import Do53Nameserver  # noqa: PLC0415  # the extra

    return Do53Nameserver(host, port)


def _dnspython() -> type[Resolver]:
    try:
        from dns.asyncresolver import Resolver  # noqa: PLC0415  # the extra
    except ImportError:
        raise ConfigError(
            "DnsPeers: SRV records and `nameservers` need dnspython: pip install 'peercache[dns]'"
        ) from None
    return Resolver
