"""Peers from etcd: each node registers its address under a lease, and reads those of the others.

There is one round for everything, which `find` runs: keep the lease alive, or register anew when it is gone,
then read who is there. So nothing runs in the background, and nothing is left open between two rounds. A
node that dies stops asking, and its key goes with its lease. While etcd is away, rounds fail and members go
on with what they know; the first round that succeeds registers them again.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from cache.cluster.config import ClusterConfig
from cache.cluster.config.checks import check_address, require
from cache.cluster.discovery.base import Discovery, Presence
from cache.cluster.discovery.etcd_gateway import Ask, EtcdGateway
from cache.cluster.discovery.finder import PEERS_MAX
from cache.cluster.ids import Address

logger = logging.getLogger(__name__)

WITHDRAW_TIMEOUT: Final = 1.0
"""Seconds that leaving waits for etcd; afterwards the lease ends by itself."""

ROUNDS_PER_LEASE: Final = 4
"""A lease lasts at least so many rounds: it survives that some of them fail."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EtcdPeers(Discovery):
    """Members of this cluster that are registered in etcd."""

    endpoints: tuple[str, ...] = ("http://127.0.0.1:2379",)
    """URLs of etcd servers; the first one that answers is used. The default: one on this machine."""

    prefix: str = "/peercache"
    """Where keys are: `PREFIX/CLUSTER_NAME/ADDRESS`. All members of a cluster need the same."""

    lease: float = 15.0
    """Seconds after which a node that died is forgotten, 5 to 3600; made longer if need be, to four times
    `gossip.rejoin_interval`. 15: others try a dead address for no longer, and an outage of etcd for less
    is not noticed at all."""

    username: str | None = None
    """Who asks, where etcd has authentication turned on."""

    password: str | None = field(default=None, repr=False)
    """That user's password."""

    ca: str | Path | None = None
    """PEM file with the authorities for `https` endpoints. None, the default: those of the system."""

    certificate: str | Path | None = None
    """PEM file with a client certificate, and `key` with its key, where etcd asks for one."""

    key: str | Path | None = None
    """See `certificate`."""

    def __post_init__(self) -> None:
        given = self.endpoints
        is_list = isinstance(given, Sequence) and not isinstance(given, str)
        require(is_list and len(given) > 0, "EtcdPeers endpoints", given, "must be a list of URLs")
        object.__setattr__(self, "endpoints", tuple(url.rstrip("/") for url in given))
        for url in self.endpoints:
            parts = urlsplit(url)
            is_url = parts.scheme in ("http", "https") and parts.hostname and not parts.username
            require(bool(is_url), "EtcdPeers endpoints", url, "must be http(s)://HOST:PORT")
        is_prefix = isinstance(self.prefix, str) and bool(self.prefix.strip("/"))
        require(is_prefix, "EtcdPeers prefix", self.prefix, "must be text, such as /peercache")
        number = isinstance(self.lease, (int, float)) and not isinstance(self.lease, bool)
        is_lease = number and 5 <= self.lease <= 3600
        require(is_lease, "EtcdPeers lease", self.lease, "must be 5 to 3600 seconds")
        for one, other in (("username", "password"), ("certificate", "key")):
            together = (getattr(self, one) is None) == (getattr(self, other) is None)
            require(together, f"EtcdPeers {one}", "…", f"goes with {other}; give both or neither")

    def presence(self) -> Presence:
        """Return one node's part; nothing is asked yet."""
        return EtcdPresence(self)


class EtcdPresence(Presence):
    """One node that is registered in etcd."""

    def __init__(self, settings: EtcdPeers) -> None:
        self._settings = settings
        name, password = settings.username, settings.password
        self._gateway = EtcdGateway(
            settings.endpoints,
            user=None if name is None or password is None else (name, password),
            ca=settings.ca,
            certificate=settings.certificate,
            key=settings.key,
        )
        self._folder = ""
        self._lease_seconds = settings.lease
        self._own: Address | None = None
        self._lease: str | None = None

    def __repr__(self) -> str:
        return f"<EtcdPeers {self._settings.endpoints} {self._folder}>"

    async def enter(self, config: ClusterConfig) -> ClusterConfig:
        """Learn where keys are. Etcd need not be there.

        Raises:
            ConfigError: a certificate file cannot be used.
        """
        self._gateway.load_tls()
        self._folder = f"{self._settings.prefix.rstrip('/')}/{config.cluster_name}/"
        rounds = ROUNDS_PER_LEASE * config.gossip.rejoin_interval
        self._lease_seconds = max(self._settings.lease, rounds)
        return config

    async def listening(self, address: Address) -> None:
        """Remember what is to be registered: by the next round, before others are looked for.

        So of nodes that start at the same instant, at least the last one to read sees all others.
        """
        self._own = address

    async def find(self) -> Sequence[Address]:
        """Run a round.

        Raises:
            OSError: no endpoint does what it is asked to.
        """
        async with self._gateway.session() as ask:
            if self._own is not None:
                await self._register(ask, self._own)
            addresses = await self._read(ask)
            if self._own is not None and self._own not in addresses:
                self._lease = None  # Somebody removed the key; the next round makes another.
            return addresses

    async def _register(self, ask: Ask, own: Address) -> None:
        if self._lease is not None and await self._keep_alive(ask, self._lease):
            return
        granted = await ask("/v3/lease/grant", {"TTL": str(round(self._lease_seconds))})
        lease = str(granted["ID"])
        key = _encode(self._folder + own)
        await ask("/v3/kv/put", {"key": key, "value": _encode(own), "lease": lease})
        if self._own is None:  # It was withdrawn meanwhile.
            await ask("/v3/lease/revoke", {"ID": lease})
            return
        self._lease = lease
        logger.info("etcd.registered address=%s lease=%s", own, lease)

    async def _keep_alive(self, ask: Ask, lease: str) -> bool:
        """Return whether the lease lasts; it is gone when nobody could keep it alive for its time."""
        answer = await ask("/v3/lease/keepalive", {"ID": lease})
        return int(answer.get("result", {}).get("TTL", 0)) > 0

    async def _read(self, ask: Ask) -> list[Address]:
        end = self._folder[:-1] + chr(ord("/") + 1)  # The first key that does not begin so.
        question = {
            "key": _encode(self._folder),
            "range_end": _encode(end),
            "limit": str(PEERS_MAX),
        }
        answer = await ask("/v3/kv/range", question)
        found = []
        for pair in answer.get("kvs", ()):
            try:
                address = _decode(pair.get("value", ""))
                check_address("etcd", address, port_required=True)
                found.append(Address(address))
            except ValueError as error:  # A ConfigError is one, too.
                logger.warning("etcd.bad_entry key=%r error=%s", pair.get("key"), error)
        return found

    async def withdraw(self) -> None:
        """Remove this node's key, if etcd answers; else its lease does."""
        self._own = None
        lease, self._lease = self._lease, None
        if lease is not None:
            async with asyncio.timeout(WITHDRAW_TIMEOUT), self._gateway.session() as ask:
                await ask("/v3/lease/revoke", {"ID": lease})


def _encode(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _decode(text: object) -> str:
    return base64.b64decode(str(text)).decode()
