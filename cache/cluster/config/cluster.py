"""The settings of a node, one preset per situation."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from cache.cluster.config.checks import (
    check_address,
    is_function_path,
    is_loopback,
    require,
    require_count,
    require_seconds,
)
from cache.cluster.config.consistent import ConsistentConfig
from cache.cluster.config.gossip import GossipConfig
from cache.cluster.config.limits import KIB, LimitsConfig
from cache.cluster.config.maps import MapPolicy, check_maps
from cache.cluster.config.stores import StoreConfig
from cache.cluster.config.tls import TlsConfig
from cache.cluster.discovery.base import Discovery
from cache.cluster.ids import GENERATION_SEPARATOR, Address, parse_address
from cache.errors import ConfigError

NAME_PATTERN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
REPLICA_COUNT_MAX: Final = 16
PARTITION_COUNT_MAX: Final = 65_536
METADATA_BYTES_MAX: Final = 512
SECRETS_MAX: Final = 4
SECRET_LENGTH_MIN: Final = 8

Secret = str | tuple[str, ...]
"""One secret, or a ring of them: the first one is used for what is sent, all are accepted."""


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

    discovery: Discovery | None = None
    """Finds more peers, besides `peers`, and is asked for ever: `Siblings("app")` for the worker processes of
    one application on one host. None, the default: `peers` are all there are."""

    name: str | None = None
    """Name of this member, unique in the cluster; by default `node-` and eight random digits."""

    cluster_name: str = "cache"
    """Members of another cluster name are refused."""

    secret: Secret | None = field(default=None, repr=False)
    """Shared secret, of at least 8 characters, that authenticates members; required for a bind address
    that is not loopback. A tuple of up to 4: the first is used, all are accepted; for rotation. None: the
    `discovery` may know one, as `Siblings` does."""

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

    chunk_window: int = 1
    """Chunks under way at once to one member, of all partitions. More copy faster, where both members have a
    processor to spare; what else is asked of them waits behind so many chunks."""

    host: str | None = None
    """Machine this node runs on, for copy placement; two copies are kept on one only if unavoidable.
    None: not known, and every member counts as its own host, unless `discovery` knows (`Siblings`)."""

    zone: str | None = None
    """Zone (rack, availability zone); copies are spread over zones first, then hosts."""

    data: bool = True
    """Whether this member holds partitions. False makes it a *lite* member: it takes part in everything, asks
    others for entries (or its near cache), and coordinates only where nobody holds data."""

    weight: int = 1
    """Share of partitions relative to other members that hold data, 1 to 1000."""

    tags: Mapping[str, str] = field(default_factory=dict)
    """Free labels shown to other members, 512 bytes in all."""

    setup: str | None = None
    """A function to call with the node before it starts, as "module:function": it registers what every member
    has to know (`Node.register_processor`). For nodes that the application does not make itself."""

    resp_bind: Address | None = None
    """Where this member serves Redis clients, `host:port`; port 0 lets the system choose. None, the
    default: it does not. See docs/resp.md."""

    resp_password: str | None = field(default=None, repr=False)
    """Password of Redis clients (`AUTH`), of at least 8 characters; required for a `resp_bind` that is not
    loopback. Their streams are not encrypted."""

    data_dir: str | None = None
    """Folder where this member keeps what has to outlive its process: terms, votes and logs of Raft. Made
    when absent; of one member only. With it, and without a `name`, the name is chosen once and kept there.
    None, the default: in memory, so that a restarted member is a new one to its groups. Entries of maps are
    never kept."""

    consistent: ConsistentConfig = field(default_factory=ConsistentConfig)
    """What is linearizable: its founders, voters and timing."""

    gossip: GossipConfig = field(default_factory=GossipConfig)
    """Membership timing."""

    limits: LimitsConfig = field(default_factory=LimitsConfig)
    """Bounds."""

    maps: Mapping[str, MapPolicy] = field(default_factory=dict)
    """Time to live, idle time, room and eviction by name or pattern of a map; by default no map has any.
    The same on every member; see `MapPolicy` for what happens when it is not."""

    stores: Mapping[str, StoreConfig] = field(default_factory=dict)
    """What stands behind a map, by its name: a database to load from and to write to. On every member that
    holds data, because the owner of a key talks to it."""

    def __post_init__(self) -> None:
        self._check_secret()
        self._check_addresses()
        self._check_discovery()
        require(
            self.setup is None or is_function_path(self.setup),
            "setup",
            self.setup,
            "must be module:function",
        )
        self._check_resp()
        self._check_consistent()
        self._check_names()
        self._check_quorums()
        check_maps("maps", self.maps, MapPolicy)
        object.__setattr__(self, "maps", dict(self.maps))
        check_maps("stores", self.stores, StoreConfig)
        object.__setattr__(self, "stores", dict(self.stores))
        require_seconds(
            self,
            "operation_timeout",
            "join_timeout",
            "leave_timeout",
            "tombstone_lifetime",
            "anti_entropy_interval",
        )
        require_count(self, "migration_parallelism")
        require_count(self, "chunk_window")
        require(
            isinstance(self.chunk_bytes, int) and self.chunk_bytes >= KIB,
            "chunk_bytes",
            self.chunk_bytes,
            "must be at least 1024 bytes",
        )

    def _check_addresses(self) -> None:
        check_address("bind", self.bind)
        if self.advertise is not None:
            check_address("advertise", self.advertise, port_required=True)
        require(
            not isinstance(self.peers, str), "peers", self.peers, "must be a sequence of host:port"
        )
        object.__setattr__(self, "peers", tuple(self.peers))
        for peer in self.peers:
            check_address("peers", peer, port_required=True)
        host, _ = parse_address(self.bind)
        self._check_tls(host)
        require(
            self.secret is not None or self.allow_insecure_bind or is_loopback(host),
            "bind",
            self.bind,
            "other hosts can reach this address: set `secret`, or say allow_insecure_bind=True",
        )

    def _check_discovery(self) -> None:
        given = self.discovery
        rule = "must be a Discovery, for example Siblings('app')"
        whole = not isinstance(given, type) and isinstance(given, Discovery)
        require(given is None or whole, "discovery", given, rule)

    def _check_consistent(self) -> None:
        folder = self.data_dir
        whole = isinstance(folder, str) and bool(folder) and "\0" not in folder
        rule = "must be the path of a folder, as text"
        require(folder is None or whole, "data_dir", folder, rule)
        given = self.consistent
        rule = "must be a ConsistentConfig"
        require(isinstance(given, ConsistentConfig), "consistent", given, rule)

    def _check_resp(self) -> None:
        if self.resp_password is not None:
            rule = f"must be text of at least {SECRET_LENGTH_MIN} characters"
            require(_is_secret(self.resp_password), "resp_password", "…", rule)
        if self.resp_bind is not None:
            check_address("resp_bind", self.resp_bind)
            open_to_all = self.resp_password is None and not self.allow_insecure_bind
            require(
                not open_to_all or is_loopback(parse_address(self.resp_bind)[0]),
                "resp_bind",
                self.resp_bind,
                "other hosts can reach this address: set `resp_password`, or say allow_insecure_bind=True",
            )

    def _check_secret(self) -> None:
        """Errors end in logs, so that they never repeat a secret."""
        if self.secret is None or isinstance(self.secret, str):
            ring: Sequence[str] = () if self.secret is None else (self.secret,)
        else:
            ring = self.secret
            several = isinstance(ring, Sequence) and 1 <= len(ring) <= SECRETS_MAX
            require(several, "secret", "…", f"must be text, or a tuple of 1 to {SECRETS_MAX}")
            object.__setattr__(self, "secret", tuple(ring))
        for one in ring:
            rule = f"must be text of at least {SECRET_LENGTH_MIN} characters"
            require(_is_secret(one), "secret", "…", rule)

    def _check_tls(self, host: str) -> None:
        if self.tls is not None:
            require(isinstance(self.tls, TlsConfig), "tls", self.tls, "must be a TlsConfig")
            authenticated = self.secret is not None or is_loopback(host)
            rule = f"tls is for streams only; packets to bind={self.bind!r} need a secret too"
            require(authenticated, "secret", None, rule)

    def _check_names(self) -> None:
        for name in ("name", "cluster_name", "host", "zone"):
            value = getattr(self, name)
            if value is None and name != "cluster_name":
                continue
            require(
                isinstance(value, str) and NAME_PATTERN.fullmatch(value) is not None,
                name,
                value,
                "must be 1 to 128 letters, digits, dots, dashes or underscores, "
                f"and start with a letter or digit (no {GENERATION_SEPARATOR!r})",
            )
        object.__setattr__(self, "tags", dict(self.tags))
        for key, value in self.tags.items():
            require(
                isinstance(key, str) and isinstance(value, str), "tags", self.tags, "must be text"
            )
        size = sum(len(k.encode()) + len(v.encode()) for k, v in self.tags.items())
        require(
            size <= METADATA_BYTES_MAX, "tags", f"{size} bytes", f"over {METADATA_BYTES_MAX} bytes"
        )

    def _check_quorums(self) -> None:
        require_count(self, "partition_count", "replica_count", "read_quorum", "member_quorum")
        require(
            self.partition_count <= PARTITION_COUNT_MAX,
            "partition_count",
            self.partition_count,
            f"must not be above {PARTITION_COUNT_MAX}",
        )
        require(
            self.replica_count <= REPLICA_COUNT_MAX,
            "replica_count",
            self.replica_count,
            f"must not be above {REPLICA_COUNT_MAX}",
        )
        rule = f"must be from 1 to replica_count ({self.replica_count})"
        require(self.read_quorum <= self.replica_count, "read_quorum", self.read_quorum, rule)
        if self.write_quorum is not None:
            require_count(self, "write_quorum")
            require(
                self.write_quorum <= self.replica_count, "write_quorum", self.write_quorum, rule
            )
        weight = self.weight
        require(
            isinstance(weight, int) and 1 <= weight <= 1000,
            "weight",
            weight,
            "must be a whole number from 1 to 1000; data=False holds no data",
        )
        require(isinstance(self.data, bool), "data", self.data, "must be True or False")

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
        overrides = {"consistent": ConsistentConfig.local(), **overrides}
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
        overrides = {"consistent": ConsistentConfig.wan(), **overrides}
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


def _is_secret(given: object) -> bool:
    """Return whether a value is text that is long enough and fits UTF-8."""
    text = isinstance(given, str) and not re.search("[\ud800-\udfff]", given)
    return text and len(str(given)) >= SECRET_LENGTH_MIN
