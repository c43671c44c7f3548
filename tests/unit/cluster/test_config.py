"""Settings: every bad value raises `ConfigError` naming its field."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cache.cluster.config import (
    MIB,
    ClusterConfig,
    ConsistentConfig,
    GossipConfig,
    LimitsConfig,
    TlsConfig,
)
from cache.cluster.ids import Address
from cache.errors import ConfigError

PRESETS: list[Callable[..., ClusterConfig]] = [
    ClusterConfig.local,
    ClusterConfig.lan,
    ClusterConfig.wan,
]

SECONDS = [0, -1.0, float("inf"), float("nan"), "1", True, None]
COUNTS = [0, -1, 1.5, "2", True, None]
CLUSTER_SECONDS = (
    "operation_timeout",
    "join_timeout",
    "leave_timeout",
    "tombstone_lifetime",
    "anti_entropy_interval",
)
CLUSTER_COUNTS = (
    "partition_count",
    "replica_count",
    "read_quorum",
    "member_quorum",
    "migration_parallelism",
    "chunk_window",
)
GOSSIP_SECONDS = (
    "probe_interval",
    "probe_timeout",
    "gossip_interval",
    "gossip_to_dead_time",
    "push_pull_interval",
    "rejoin_interval",
)
GOSSIP_COUNTS = (
    "gossip_fanout",
    "suspicion_multiplier",
    "suspicion_max_multiplier",
    "retransmit_multiplier",
    "indirect_probes",
    "awareness_max",
)


def _refused_as(field: str, build: Callable[[], object]) -> str:
    with pytest.raises(ConfigError) as caught:
        build()

    message = str(caught.value)
    assert message.startswith((f"{field}=", f"{field}:"))
    return message


@pytest.mark.parametrize("value", SECONDS)
@pytest.mark.parametrize("field", CLUSTER_SECONDS)
def test_seconds_must_be_above_zero_and_finite(field: str, value: object) -> None:
    """A duration is float seconds."""
    _refused_as(field, lambda: ClusterConfig.local(**{field: value}))


@pytest.mark.parametrize("value", COUNTS)
@pytest.mark.parametrize("field", CLUSTER_COUNTS)
def test_counts_must_be_whole_and_positive(field: str, value: object) -> None:
    """A count is an int of at least 1; True is not one."""
    _refused_as(field, lambda: ClusterConfig.local(**{field: value}))


@pytest.mark.parametrize("value", SECONDS)
@pytest.mark.parametrize("field", GOSSIP_SECONDS)
def test_gossip_seconds_are_checked(field: str, value: Any) -> None:  # Any: bad values of any type
    """Membership timing is checked like the rest."""
    _refused_as(field, lambda: GossipConfig(**{field: value}))


@pytest.mark.parametrize("value", COUNTS)
@pytest.mark.parametrize("field", GOSSIP_COUNTS)
def test_gossip_counts_are_checked(field: str, value: Any) -> None:  # Any: bad values of any type
    """Membership counts are checked like the rest."""
    _refused_as(field, lambda: GossipConfig(**{field: value}))


@pytest.mark.parametrize(
    "field", [f.name for f in dataclasses.fields(LimitsConfig) if f.name != "handshake_timeout"]
)
def test_every_limit_must_be_a_count(field: str) -> None:
    """There is no "unlimited": nothing is unbounded (design, invariant 7)."""
    bad: Any = 0  # Any: keyword arguments of one dict

    _refused_as(field, lambda: LimitsConfig(**{field: bad}))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("bind", "127.0.0.1"),
        ("bind", "127.0.0.1:99999"),
        ("bind", 7400),
        ("bind", "::1:7400"),
        ("advertise", "host"),
        ("advertise", "host:0"),
        ("peers", "127.0.0.1:7400"),
        ("peers", ["127.0.0.1"]),
        ("peers", ["127.0.0.1:0"]),
        ("peers", [None]),
        ("name", ""),
        ("name", "a b"),
        ("name", "a#b"),
        ("name", "-a"),
        ("name", "a" * 129),
        ("name", "a\n"),
        ("cluster_name", None),
        ("cluster_name", ""),
        ("host", "a/b"),
        ("zone", "ä"),
        ("secret", "short"),
        ("secret", b"bytes are not text"),
        ("resp_bind", "no port"),
        ("resp_bind", "0.0.0.0:6379"),
        ("resp_password", "short"),
        ("resp_password", b"bytes are not text"),
        ("tags", {"rack": 1}),
        ("tags", {"rack": "x" * 600}),
        ("partition_count", 65_537),
        ("replica_count", 17),
        ("weight", 0),
        ("data", 1),
        ("weight", 1001),
        ("weight", 1.0),
        ("chunk_bytes", 1023),
        ("chunk_bytes", 4096.0),
        ("write_quorum", 0),
        ("write_quorum", 3),
        ("read_quorum", 3),
    ],
)
def test_bad_value_names_its_field(field: str, value: object) -> None:
    """A bad value raises at construction, naming field, value and rule."""
    _refused_as(field, lambda: ClusterConfig.local(**{field: value}))


def test_secret_is_not_repeated_in_its_error() -> None:
    """Errors end in logs; secrets do not."""
    message = _refused_as("secret", lambda: ClusterConfig.local(secret="hunter2"))

    assert "hunter2" not in message


def test_unknown_setting_is_named() -> None:
    """A misspelt field says so, and which there are."""
    message = _refused_as("replicas", lambda: ClusterConfig.local(replicas=2))

    assert "replica_count" in message


def test_config_error_is_a_value_error() -> None:
    """Callers that know only the standard library catch it too."""
    with pytest.raises(ValueError, match="replica_count"):
        ClusterConfig(replica_count=0)


@pytest.mark.parametrize("preset", PRESETS)
def test_default_binds_loopback(preset: Callable[..., ClusterConfig]) -> None:
    """Other hosts can reach a node only when that is asked for."""
    assert preset().bind == "127.0.0.1:0"


@pytest.mark.parametrize("bind", ["127.0.0.1:0", "127.8.9.1:1", "localhost:0", "[::1]:0"])
def test_loopback_needs_no_secret(bind: str) -> None:
    """Loopback in all its spellings."""
    assert ClusterConfig.local(bind=bind).secret is None


@pytest.mark.parametrize("bind", ["0.0.0.0:0", "10.0.0.1:7400", "[::]:0", "cache.example.org:1"])
def test_reachable_address_needs_a_secret_or_the_words(bind: str) -> None:
    """Binding another address without a secret is refused unless asked for in so many words."""
    message = _refused_as("bind", lambda: ClusterConfig.lan(bind=bind))

    assert "secret" in message
    assert ClusterConfig.lan(bind=bind, secret="long enough").bind == bind
    assert ClusterConfig.lan(bind=bind, allow_insecure_bind=True).bind == bind


def test_a_reachable_resp_port_needs_a_password_or_the_words() -> None:
    """Redis clients read and write everything; the cluster's secret does not keep them out."""
    bind = "0.0.0.0:6379"
    message = _refused_as("resp_bind", lambda: ClusterConfig.lan(resp_bind=bind, secret="long one"))

    assert "resp_password" in message
    assert ClusterConfig.lan(resp_bind=bind, resp_password="long enough").resp_bind == bind
    assert ClusterConfig.lan(resp_bind=bind, allow_insecure_bind=True).resp_bind == bind
    assert "long enough" not in repr(ClusterConfig.lan(resp_password="long enough"))


def test_probe_timeout_may_not_pass_its_interval() -> None:
    """A probe that is late after the next one began would never ask its relays."""
    _refused_as("probe_timeout", lambda: GossipConfig(probe_interval=0.2, probe_timeout=0.3))


@pytest.mark.parametrize("size", [511, 65_001])
def test_packet_size_has_bounds(size: int) -> None:
    """A packet holds at least one rumour, and at most what UDP carries."""
    _refused_as("packet_bytes_max", lambda: GossipConfig(packet_bytes_max=size))


def test_frame_must_hold_the_largest_value() -> None:
    """A value that is accepted can also be sent."""
    _refused_as("frame_bytes_max", lambda: LimitsConfig(frame_bytes_max=64 * MIB))


def test_handshake_timeout_is_checked() -> None:
    """The one duration among the limits."""
    _refused_as("handshake_timeout", lambda: LimitsConfig(handshake_timeout=0.0))


def test_peers_may_be_any_sequence() -> None:
    """A list from a file becomes the tuple that a frozen object holds."""
    config = ClusterConfig.local(peers=["127.0.0.1:7400", "[::1]:7401"])

    assert config.peers == ("127.0.0.1:7400", "[::1]:7401")


def test_tags_are_copied() -> None:
    """A caller that changes its dict later does not change the configuration."""
    tags = {"rack": "r1"}
    config = ClusterConfig.local(tags=tags)

    tags["rack"] = "r2"

    assert config.tags == {"rack": "r1"}


def test_presets_differ_in_patience() -> None:
    """Detection time grows with the distance between members."""
    intervals = [preset().gossip.probe_interval for preset in PRESETS]

    assert intervals == sorted(intervals)
    assert len(set(intervals)) == 3


def test_override_wins_over_the_preset() -> None:
    """What a preset sets can be set otherwise."""
    assert ClusterConfig.local(join_timeout=1.5).join_timeout == 1.5


def test_changes_are_validated_anew() -> None:
    """`with_changes` gives a valid configuration or raises; the original stays."""
    config = ClusterConfig.local(name="a")

    changed = config.with_changes(name="b", bind=Address("127.0.0.1:7400"))

    assert (config.name, changed.name) == ("a", "b")
    _refused_as("replica_count", lambda: config.with_changes(replica_count=0))


def test_configuration_is_frozen() -> None:
    """A running node's settings cannot change under it."""
    config: Any = ClusterConfig.local()  # Any: the assignment is wrong on purpose

    with pytest.raises(dataclasses.FrozenInstanceError):
        config.replica_count = 3


@pytest.mark.parametrize(
    "settings", [ClusterConfig, ConsistentConfig, GossipConfig, LimitsConfig, TlsConfig]
)
def test_every_field_is_documented(settings: type) -> None:
    """Every field has its own docstring: meaning, unit, range, default and why."""
    lines = [line.strip() for line in inspect.getsource(settings).splitlines()]
    undocumented = [
        field.name
        for field in dataclasses.fields(settings)
        for i, line in enumerate(lines)
        if line.startswith(f"{field.name}: ") and not lines[i + 1].startswith('"""')
    ]

    assert undocumented == []


def test_module_reads_no_environment() -> None:
    """The environment is read only at the command line."""
    folder = Path(inspect.getfile(ClusterConfig)).parent
    sources = [path.read_text("utf-8") for path in folder.glob("*.py")]

    assert len(sources) > 4
    assert not any("environ" in source for source in sources)


# -- secrets and certificates --------------------------------------------------------------------

RING = ("the new secret", "the old secret")
TLS = TlsConfig(certificate="cert.pem", key=Path("key.pem"), ca="ca.pem")


@pytest.mark.parametrize("secret", ["long enough", ("long enough",), RING, RING * 2], ids=str)
def test_secret_is_text_or_a_ring(secret: Any) -> None:  # Any: as a field
    """One secret, or up to four of which the first is used."""
    assert ClusterConfig.local(secret=secret).secret == secret


def test_ring_from_a_file_becomes_a_tuple() -> None:
    """JSON and TOML know lists only."""
    assert ClusterConfig.local(secret=list(RING)).secret == RING


@pytest.mark.parametrize(
    "secret",
    [
        "",
        (),
        ("",),
        ("long enough", "short"),
        ("long enough", None),
        RING * 3,
        7,
        "\udcff" * 8,
        {"only one text"},
    ],
    ids=str,
)
def test_bad_secret_is_refused(secret: object) -> None:
    """Empty, too short, too many, not text, not UTF-8, without an order."""
    message = _refused_as("secret", lambda: ClusterConfig.local(secret=secret))

    assert "long enough" not in message


def test_secret_is_not_in_the_repr() -> None:
    """A configuration ends in logs, too."""
    assert "the new secret" not in repr(ClusterConfig.local(secret=RING))


@pytest.mark.parametrize("value", ["", None, b"cert.pem", 7, Path()], ids=str)
@pytest.mark.parametrize("field", ["certificate", "key", "ca"])
def test_tls_files_must_be_paths(field: str, value: object) -> None:
    """Whether there are such files is seen when a node starts."""
    fields: dict[str, Any] = {"certificate": "a", "key": "b", "ca": "c", field: value}

    _refused_as(f"tls.{field}", lambda: TlsConfig(**fields))


def test_check_hostname_is_a_choice() -> None:
    """A word is no choice."""
    wrong: Any = "no"

    _refused_as(
        "tls.check_hostname",
        lambda: TlsConfig(certificate="a", key="b", ca="c", check_hostname=wrong),
    )


def test_tls_must_be_a_tls_config() -> None:
    """A path is not enough."""
    _refused_as("tls", lambda: ClusterConfig.local(tls="cert.pem"))


def test_tls_needs_a_secret_where_others_can_send_packets() -> None:
    """TLS does not cover UDP; saying allow_insecure_bind does not change that."""
    reachable = {"bind": "10.0.0.1:7400", "tls": TLS}

    message = _refused_as(
        "secret", lambda: ClusterConfig.lan(**reachable, allow_insecure_bind=True)
    )

    assert "packets" in message
    assert ClusterConfig.lan(**reachable, secret="long enough").tls is TLS
    assert ClusterConfig.local(tls=TLS).tls is TLS
