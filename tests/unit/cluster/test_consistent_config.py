"""Settings of the Raft groups: checked, by preset, and the same however they are given."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

import cache
from cache.cli.serving import _config
from cache.cluster.config import ClusterConfig, ConsistentConfig, GossipConfig, RaftConfig
from cache.cluster.opened import ClusterCache
from cache.errors import ConfigError
from cache.testing.worlds.process_main import parse_config


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("expected_size", 0),
        ("expected_size", "3"),
        ("expected_size", True),
        ("groups", 0),
        ("groups", 65),
        ("voters", 2),
        ("voters", 9),
        ("voters", 3.0),
        ("voters", True),
        ("voters", "3"),
        ("voters", None),
        ("replace_after", 0.3),
        ("replace_after", float("inf")),
        ("session_ttl", 0.3),
        ("session_ttl", None),
        ("raft", {"election_timeout_min": 1.0}),
    ],
)
def test_bad_value_names_its_field(field: str, value: Any) -> None:  # Any: bad values of any type
    """A bad value raises at construction."""
    with pytest.raises(ConfigError, match=f"^{field}="):
        ConsistentConfig.local(**{field: value})


def test_a_misspelt_setting_is_named() -> None:
    """With those that there are."""
    with pytest.raises(ConfigError, match=r"^voter: .*voters"):
        ConsistentConfig.lan(voter=3)


@pytest.mark.parametrize("voters", ["auto", 1, 3, 5, 7])
def test_voters_may_be_counted_or_left_to_the_cluster(voters: Any) -> None:  # Any: either type
    """An even number survives no more crashes than the odd one below it."""
    assert voters == ConsistentConfig(voters=voters).voters


@pytest.mark.parametrize("value", ["", 7, b"folder", "a\0b"])
def test_data_dir_is_a_path(value: Any) -> None:  # Any: bad values of any type
    """Whether there is such a folder is seen when the node starts."""
    with pytest.raises(ConfigError, match=r"^data_dir="):
        ClusterConfig.local(data_dir=value)


def test_consistent_is_a_consistent_config() -> None:
    """A dict is not enough."""
    with pytest.raises(ConfigError, match=r"^consistent="):
        ClusterConfig.local(consistent={"expected_size": 1})


def test_each_preset_of_a_node_has_its_own_of_groups() -> None:
    """The defaults are those of a LAN, as everywhere."""
    assert ConsistentConfig.local() == ClusterConfig.local().consistent
    assert ConsistentConfig.lan() == ClusterConfig.lan().consistent
    assert ConsistentConfig.wan() == ClusterConfig.wan().consistent
    assert ConsistentConfig() == ClusterConfig().consistent
    seconds = [
        (config.replace_after, config.session_ttl, config.raft)
        for config in (ConsistentConfig.local(), ConsistentConfig(), ConsistentConfig.wan())
    ]
    assert seconds == [
        (2.0, 5.0, RaftConfig.local()),
        (30.0, 15.0, RaftConfig.lan()),
        (60.0, 30.0, RaftConfig.wan()),
    ]


def test_what_is_given_wins_over_the_preset() -> None:
    """Of the node, and of the groups."""
    given = ConsistentConfig.local(expected_size=1, replace_after=7.0)

    assert given is ClusterConfig.wan(consistent=given).consistent
    assert (1, 7.0, 5.0) == (given.expected_size, given.replace_after, given.session_ttl)


def test_settings_of_groups_are_options_of_a_url() -> None:
    """Those that are not given are the preset's; timing of Raft is a keyword."""
    opened = cache.open(
        "cluster://127.0.0.1:7400/m?preset=local&data_dir=/var/lib/app&consistent.expected_size=5"
        "&consistent.voters=3&consistent.session_ttl=10s&consistent.groups=2"
    )
    slow = {"consistent.raft": RaftConfig.wan(), "consistent.voters": "auto"}
    by_keyword = cache.open("cluster://127.0.0.1:7400/m?preset=wan", **slow)

    assert isinstance(opened, ClusterCache)
    assert isinstance(by_keyword, ClusterCache)
    assert "/var/lib/app" == opened.config.data_dir
    assert opened.config.consistent == ConsistentConfig.local(
        expected_size=5, voters=3, session_ttl=10.0, groups=2
    )
    assert by_keyword.config.consistent == ConsistentConfig.wan()
    for text in ("voters=two", "voters=2", "groups=65", "expected_size=0"):
        with pytest.raises(ConfigError, match=text.partition("=")[0]):
            cache.open(f"cluster://127.0.0.1:7400/m?consistent.{text}")


def test_the_command_line_changes_the_preset() -> None:
    """`cache node --preset wan --expected-size 5 --data-dir FOLDER`."""
    none: dict[str, object] = {"accept_secret": None, "secret": None, "tls": None}

    config = _config("wan", {**none, "expected_size": 5, "data_dir": "/var/lib/app"})
    preset = _config("wan", {**none, "expected_size": None, "data_dir": None})

    assert ConsistentConfig.wan(expected_size=5) == config.consistent
    assert "/var/lib/app" == config.data_dir
    assert ClusterConfig.wan() == preset


def test_settings_reach_a_process_of_the_test_cluster() -> None:
    """The processes world sends them as one line of JSON."""
    raft = RaftConfig(election_timeout_min=0.5, election_timeout_max=0.7)
    config = ClusterConfig.local(
        gossip=GossipConfig(probe_interval=0.7),
        data_dir="/tmp/x",
        consistent=ConsistentConfig(expected_size=2, voters=5, groups=3, raft=raft),
    )

    assert config == parse_config(json.dumps(dataclasses.asdict(config)))
