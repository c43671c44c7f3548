"""Every setting of a node: frozen, validated at construction, one preset per situation.

Durations are float seconds. A bad value raises `ConfigError` naming the field, the value and the remedy.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from cache.cluster.ids import GENERATION_SEPARATOR, Address, format_address, parse_address
from cache.errors import ConfigError

KIB: Final = 1024
MIB: Final = 1024 * KIB
NAME_PATTERN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
REPLICA_COUNT_MAX: Final = 16
PARTITION_COUNT_MAX: Final = 65_536
METADATA_BYTES_MAX: Final = 512
SECRETS_MAX: Final = 4
SECRET_LENGTH_MIN: Final = 8

Secret = str | tuple[str, ...]
"""One secret, or a ring of them: the first one is used for what is sent, all are accepted."""


def _require(condition: bool, field_name: str, value: object, rule: str) -> None:
    if not condition:
        raise ConfigError(f"{field_name}={value!r}: {rule}")


def _require_seconds(config: object, *field_names: str) -> None:
    for name in field_names:
        value = getattr(config, name)
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        _require(number and 0 < value < math.inf, name, value, "must be seconds above 0")


def _require_count(config: object, *field_names: str) -> None:
    for name in field_names:
        value = getattr(config, name)
        number = isinstance(value, int) and not isinstance(value, bool)
        _require(number and value >= 1, name, value, "must be a whole number of at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class GossipConfig:
    """Timing of membership (SWIM with Lifeguard). The defaults are those of a LAN."""

    probe_interval: float = 1.0
    """Seconds between two probes by one member; detection time is proportional to it."""

    probe_timeout: float = 0.5
    """Seconds until a direct probe is called late and relays are asked; above the round-trip time."""

    gossip_interval: float = 0.2
    """Seconds between two gossip rounds while there is news."""

    gossip_fanout: int = 3
    """Members told in each round; 3 reaches n members in about log4(n) rounds."""

    gossip_to_dead_time: float = 30.0
    """Seconds during which a dead member is still told, so that a wrongly buried one can refute."""

    push_pull_interval: float = 30.0
    """Seconds between two full state exchanges with a random member; repairs what gossip missed."""

    suspicion_multiplier: int = 3
    """Suspicion lasts at least this many probe intervals (times log10 n). 3, not memberlist's 4: with
    `retransmit_multiplier` 6 it detects faster and has fewer false deaths."""

    suspicion_max_multiplier: int = 6
    """An unconfirmed suspicion lasts this many times the minimum (Lifeguard)."""

    retransmit_multiplier: int = 6
    """Each rumour is sent this many times ceil(log10(n + 1)) by each member."""

    indirect_probes: int = 3
    """Relays asked after a direct probe is late."""

    awareness_max: int = 8
    """Local health score is kept below this; it stretches the probe interval (Lifeguard)."""

    rejoin_interval: float = 5.0
    """Seconds between two attempts to reach a configured peer that is not a member, for ever."""

    packet_bytes_max: int = 1400
    """Largest packet sent, below the usual MTU of 1500."""

    def __post_init__(self) -> None:
        _require_seconds(
            self,
            "probe_interval",
            "probe_timeout",
            "gossip_interval",
            "gossip_to_dead_time",
            "push_pull_interval",
            "rejoin_interval",
        )
        _require_count(
            self,
            "gossip_fanout",
            "suspicion_multiplier",
            "suspicion_max_multiplier",
            "retransmit_multiplier",
            "indirect_probes",
            "awareness_max",
        )
        _require(
            self.probe_timeout <= self.probe_interval,
            "probe_timeout",
            self.probe_timeout,
            f"must not be above probe_interval ({self.probe_interval})",
        )
        _require(
            isinstance(self.packet_bytes_max, int) and 512 <= self.packet_bytes_max <= 65_000,
            "packet_bytes_max",
            self.packet_bytes_max,
            "must be from 512 to 65000 bytes",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsConfig:
    """What is bounded, and where. Reaching a limit rejects or drops, and is counted; nothing grows."""

    key_bytes_max: int = 64 * KIB
    """Largest key; a longer one raises at the caller."""

    value_bytes_max: int = 64 * MIB
    """Largest encoded value; a longer one raises at the caller."""

    frame_bytes_max: int = 80 * MIB
    """Largest stream frame accepted or sent; must hold the largest value and its envelope."""

    in_flight_max: int = 4096
    """Requests outstanding to one peer; one more raises `OverloadedError`."""

    send_buffer_bytes_max: int = 256 * MIB
    """Bytes waiting to be written to one peer; a request above it raises `OverloadedError`."""

    connections_max: int = 1024
    """Inbound streams held at once; one more is closed."""

    handshake_timeout: float = 5.0
    """Seconds a new stream has to introduce itself before it is closed."""

    members_max: int = 8192
    """Members remembered; rumours of further ones are dropped."""

    memory_bytes_max: int | None = None
    """Memory for entries on this member, copies for others included, counting 300 bytes on top of each
    key and value. Each partition has an equal share of it; above its share the entries written longest
    ago make room for new ones, on every copy. None, the default, never evicts: the data is wanted."""

    pending_writes_max: int = 65_536
    """Writes of this member that wait for other copies; one more raises `OverloadedError`."""

    operation_memory: int = 512
    """Results of finished operations remembered per partition, so that a retry takes effect once."""

    batch_keys_max: int = 4096
    """Keys carried by one batch message; larger batches are cut."""

    def __post_init__(self) -> None:
        _require_count(
            self,
            "key_bytes_max",
            "value_bytes_max",
            "frame_bytes_max",
            "in_flight_max",
            "send_buffer_bytes_max",
            "connections_max",
            "members_max",
            "pending_writes_max",
            "operation_memory",
            "batch_keys_max",
        )
        if self.memory_bytes_max is not None:
            _require_count(self, "memory_bytes_max")
        _require_seconds(self, "handshake_timeout")
        room = self.value_bytes_max + self.key_bytes_max + 64 * KIB
        _require(
            self.frame_bytes_max >= room,
            "frame_bytes_max",
            self.frame_bytes_max,
            f"must be at least value_bytes_max + key_bytes_max + 64 KiB ({room})",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsConfig:
    """Mutual TLS on streams: both ends show a certificate and verify the other's against `ca`.

    PEM files, read when a node starts; one that is bad raises `ConfigError` then. Packets stay on
    UDP, authenticated by `ClusterConfig.secret` and not encrypted; see docs/security.md.
    """

    certificate: str | Path
    """File with this member's certificate, then intermediate ones. It is shown to callers and called
    members alike: extended key usages, if it has any, must include server and client."""

    key: str | Path
    """File with the certificate's private key, not encrypted: a restart must not wait for a human."""

    ca: str | Path
    """File with the authorities of this cluster. Whoever has a certificate of one is let in, so use
    an authority of the cluster's own. Several may be listed, while one takes over from another."""

    check_hostname: bool = False
    """Whether a certificate must also name the host that was called. Off by default: members are
    addressed by IP, which certificates seldom name, and are identified by the authority."""

    def __post_init__(self) -> None:
        for name in ("certificate", "key", "ca"):
            value = getattr(self, name)
            path = isinstance(value, (str, Path)) and str(value) not in ("", ".")
            _require(path, f"tls.{name}", value, "must be the path of a PEM file")
        checked = self.check_hostname
        _require(isinstance(checked, bool), "tls.check_hostname", checked, "must be True or False")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterConfig:
    """One node's settings. `local()`, `lan()` and `wan()` are the presets to start from."""

    bind: Address = Address("127.0.0.1:0")
    """Where to listen, `host:port`, packets and streams alike; port 0 lets the system choose.
    Loopback by default: other hosts can reach a node only when that is asked for."""

    advertise: Address | None = None
    """Where other members reach this node, when that is not the bound address (containers, NAT)."""

    peers: tuple[Address, ...] = ()
    """Addresses of some members to join through; retried for ever, so they also heal a split."""

    name: str | None = None
    """Name of this member, unique in the cluster; by default `node-` and eight random digits."""

    cluster_name: str = "cache"
    """Members of another cluster name are refused."""

    secret: Secret | None = field(default=None, repr=False)
    """Shared secret, of at least 8 characters, that authenticates members; required for a bind address
    that is not loopback. A tuple of up to 4: the first is used, all are accepted; for rotation."""

    tls: TlsConfig | None = None
    """Certificates for streams. None, the default: streams are authenticated but not encrypted, which
    suits a private network."""

    allow_insecure_bind: bool = False
    """Say True to listen on other than loopback without a secret: anyone who reaches it can join."""

    partition_count: int = 1024
    """Partitions, fixed for the cluster's life. 1024 balances up to 100 members within 10 %."""

    replica_count: int = 2
    """Copies of each key, the owner's included. 2 survives any one crash."""

    write_quorum: int | None = None
    """Copies that must hold a write before it is acknowledged. None, the default: every copy that the
    table lists, which is `replica_count` unless the cluster has fewer members. A number is strict: with
    fewer copies listed a write raises `NoQuorumError`, and it is acknowledged once that many hold it."""

    read_quorum: int = 1
    """Copies asked by each read; the newest wins. 1, the owner alone, already reads every
    acknowledged write."""

    member_quorum: int = 1
    """With fewer live members in view every operation raises `NoQuorumError`."""

    operation_timeout: float = 5.0
    """Seconds an operation may take in all, retries included."""

    join_timeout: float = 10.0
    """Seconds `start` tries to reach peers that do not answer before it serves alone (and goes on
    trying). Peers that refuse the connection count as absent at once."""

    leave_timeout: float = 30.0
    """Seconds `drain` may take to move every copy elsewhere."""

    tombstone_lifetime: float = 600.0
    """Seconds for which a delete is remembered. A split that lasts longer can bring a deleted key
    back, so keep it above the longest split to survive."""

    anti_entropy_interval: float = 10.0
    """Seconds between two comparisons of a partition's copies."""

    migration_parallelism: int = 8
    """Partitions copied at once by one owner."""

    chunk_bytes: int = 16 * KIB
    """Bytes per message while copying a partition; small, so that others' requests are not held up."""

    host: str | None = None
    """Machine this node runs on, for copy placement; two copies are kept on one only if unavoidable.
    None: not known, and every member counts as its own host."""

    zone: str | None = None
    """Zone (rack, availability zone); copies are spread over zones first, then hosts."""

    weight: int = 1
    """Share of partitions relative to other members; 0 holds no data."""

    tags: Mapping[str, str] = field(default_factory=dict)
    """Free labels shown to other members, 512 bytes in all."""

    gossip: GossipConfig = field(default_factory=GossipConfig)
    """Membership timing."""

    limits: LimitsConfig = field(default_factory=LimitsConfig)
    """Bounds."""

    def __post_init__(self) -> None:
        self._check_secret()
        self._check_addresses()
        self._check_names()
        self._check_quorums()
        _require_seconds(
            self,
            "operation_timeout",
            "join_timeout",
            "leave_timeout",
            "tombstone_lifetime",
            "anti_entropy_interval",
        )
        _require_count(self, "migration_parallelism")
        _require(
            isinstance(self.chunk_bytes, int) and self.chunk_bytes >= KIB,
            "chunk_bytes",
            self.chunk_bytes,
            "must be at least 1024 bytes",
        )

    def _check_addresses(self) -> None:
        _check_address("bind", self.bind)
        if self.advertise is not None:
            _check_address("advertise", self.advertise, port_required=True)
        _require(
            not isinstance(self.peers, str), "peers", self.peers, "must be a sequence of host:port"
        )
        object.__setattr__(self, "peers", tuple(self.peers))
        for peer in self.peers:
            _check_address("peers", peer, port_required=True)
        host, _ = parse_address(self.bind)
        self._check_tls(host)
        _require(
            self.secret is not None or self.allow_insecure_bind or _is_loopback(host),
            "bind",
            self.bind,
            "other hosts can reach this address: set `secret`, or say allow_insecure_bind=True",
        )

    def _check_secret(self) -> None:
        """Errors end in logs, so that they never repeat a secret."""
        if self.secret is None or isinstance(self.secret, str):
            ring: Sequence[str] = () if self.secret is None else (self.secret,)
        else:
            ring = self.secret
            several = isinstance(ring, Sequence) and 1 <= len(ring) <= SECRETS_MAX
            _require(several, "secret", "…", f"must be text, or a tuple of 1 to {SECRETS_MAX}")
            object.__setattr__(self, "secret", tuple(ring))
        for one in ring:
            text = isinstance(one, str) and not re.search("[\ud800-\udfff]", one)  # UTF-8 fits.
            rule = f"must be text of at least {SECRET_LENGTH_MIN} characters"
            _require(text and len(one) >= SECRET_LENGTH_MIN, "secret", "…", rule)

    def _check_tls(self, host: str) -> None:
        if self.tls is not None:
            _require(isinstance(self.tls, TlsConfig), "tls", self.tls, "must be a TlsConfig")
            authenticated = self.secret is not None or _is_loopback(host)
            rule = f"tls is for streams only; packets to bind={self.bind!r} need a secret too"
            _require(authenticated, "secret", None, rule)

    def _check_names(self) -> None:
        for name in ("name", "cluster_name", "host", "zone"):
            value = getattr(self, name)
            if value is None and name != "cluster_name":
                continue
            _require(
                isinstance(value, str) and NAME_PATTERN.fullmatch(value) is not None,
                name,
                value,
                "must be 1 to 128 letters, digits, dots, dashes or underscores, "
                f"and start with a letter or digit (no {GENERATION_SEPARATOR!r})",
            )
        object.__setattr__(self, "tags", dict(self.tags))
        for key, value in self.tags.items():
            _require(
                isinstance(key, str) and isinstance(value, str), "tags", self.tags, "must be text"
            )
        size = sum(len(k.encode()) + len(v.encode()) for k, v in self.tags.items())
        _require(
            size <= METADATA_BYTES_MAX, "tags", f"{size} bytes", f"over {METADATA_BYTES_MAX} bytes"
        )

    def _check_quorums(self) -> None:
        _require_count(self, "partition_count", "replica_count", "read_quorum", "member_quorum")
        _require(
            self.partition_count <= PARTITION_COUNT_MAX,
            "partition_count",
            self.partition_count,
            f"must not be above {PARTITION_COUNT_MAX}",
        )
        _require(
            self.replica_count <= REPLICA_COUNT_MAX,
            "replica_count",
            self.replica_count,
            f"must not be above {REPLICA_COUNT_MAX}",
        )
        rule = f"must be from 1 to replica_count ({self.replica_count})"
        _require(self.read_quorum <= self.replica_count, "read_quorum", self.read_quorum, rule)
        if self.write_quorum is not None:
            _require_count(self, "write_quorum")
            _require(
                self.write_quorum <= self.replica_count, "write_quorum", self.write_quorum, rule
            )
        weight = self.weight
        _require(
            isinstance(weight, int) and 0 <= weight <= 1000,
            "weight",
            weight,
            "must be a whole number from 0 (hold no data) to 1000",
        )

    @classmethod
    def local(cls, **overrides: Any) -> ClusterConfig:  # Any: field values, checked by __init__
        """Members on one machine: fast probes, short timeouts."""
        gossip = GossipConfig(
            probe_interval=0.5,
            probe_timeout=0.2,
            gossip_interval=0.1,
            push_pull_interval=10.0,
            rejoin_interval=1.0,
        )
        return cls._preset(gossip, overrides, join_timeout=5.0, anti_entropy_interval=5.0)

    @classmethod
    def lan(cls, **overrides: Any) -> ClusterConfig:  # Any: field values, checked by __init__
        """Members in one data centre; the defaults."""
        return cls._preset(GossipConfig(), overrides)

    @classmethod
    def wan(cls, **overrides: Any) -> ClusterConfig:  # Any: field values, checked by __init__
        """Members far apart: slow probes, patient suspicion."""
        gossip = GossipConfig(
            probe_interval=5.0,
            probe_timeout=3.0,
            gossip_interval=0.5,
            gossip_fanout=4,
            gossip_to_dead_time=60.0,
            push_pull_interval=60.0,
            suspicion_multiplier=6,
            rejoin_interval=30.0,
        )
        return cls._preset(gossip, overrides, operation_timeout=15.0, join_timeout=30.0)

    @classmethod
    def _preset(
        cls, gossip: GossipConfig, overrides: dict[str, Any], **defaults: float
    ) -> ClusterConfig:  # Any: field values, checked by __init__
        values: dict[str, Any] = {"gossip": gossip, **defaults, **overrides}  # Any: as above
        unknown = sorted(set(values) - {*cls.__slots__})
        if unknown:
            known = ", ".join(sorted(cls.__slots__))
            raise ConfigError(f"{unknown[0]}: no such setting; there are {known}")
        return cls(**values)

    def with_changes(self, **changes: Any) -> ClusterConfig:  # Any: field values, as above
        """Return a copy with some fields changed, validated anew."""
        return replace(self, **changes)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_address(field_name: str, value: object, *, port_required: bool = False) -> None:
    if not isinstance(value, str):
        raise ConfigError(f"{field_name}={value!r}: must be text, host:port")
    try:
        host, port = parse_address(value)
    except ValueError as error:
        raise ConfigError(f"{field_name}={value!r}: {error}") from error
    if port_required and port == 0:
        address = format_address(host, port)
        raise ConfigError(f"{field_name}={address!r}: needs the real port, not 0")
