"""Policies of maps: which one holds, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest

from cache.cluster.config import ClusterConfig, MapPolicy
from cache.cluster.config.maps import QUEUE, Policies
from cache.errors import ConfigError

MAPS = {
    "*": MapPolicy(ttl="1h", max_entries=1000),
    "session:*": MapPolicy(max_idle=60, eviction="lru"),
    "session:admin:*": MapPolicy(max_idle=10),
    "session:admin:root": MapPolicy(ttl=None),
}


def test_the_exact_name_wins_and_what_it_leaves_open_comes_from_the_longest_pattern() -> None:
    """Field by field, most special first."""
    rules = Policies(MAPS).of("session:admin:root")

    assert (math.inf, 10.0, 1000.0, True) == (
        rules.ttl,
        rules.max_idle,
        rules.max_entries,
        rules.lru,
    )


def test_a_map_without_a_policy_has_no_bounds_and_keeps_no_books() -> None:
    """What it costs is what it cost without policies."""
    rules = Policies({"session:*": MapPolicy(max_idle=60)}).of("users")

    assert rules.is_plain
    assert math.inf == rules.ttl == rules.max_idle == rules.max_bytes


def test_a_time_to_live_alone_keeps_no_books() -> None:
    """The owner only looks it up."""
    assert Policies({"users": MapPolicy(ttl=5)}).of("users").is_plain


def test_patterns_do_not_match_the_maps_of_the_library() -> None:
    """Writes that wait for a store must not end, nor make room."""
    rules = Policies({"*": MapPolicy(ttl=1, max_idle=1, max_entries=1)}).of(f"{QUEUE}users")

    assert rules.is_queue
    assert math.inf == rules.ttl == rules.max_idle == rules.max_entries


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("ttl", 0),
        ("ttl", "soon"),
        ("max_idle", -1),
        ("max_idle", 0.5),
        ("max_bytes", 0),
        ("max_bytes", "1GiB"),
        ("max_entries", 1.5),
        ("max_entries", True),
        ("eviction", "random"),
    ],
)
def test_a_bad_field_is_named(field: str, value: Any) -> None:  # Any: the point of the test
    """At construction."""
    with pytest.raises(ConfigError, match=field):
        MapPolicy(**{field: value})


@pytest.mark.parametrize(
    "maps", [{"": MapPolicy()}, {"users": 5}, {5: MapPolicy()}, [1], {"\x00": MapPolicy()}]
)
def test_bad_maps_are_named(maps: Any) -> None:  # Any: the point of the test
    """At construction of the configuration."""
    with pytest.raises(ConfigError, match="maps"):
        ClusterConfig(maps=maps)
