"""Settings of a Raft group."""

from __future__ import annotations

from typing import Any

import pytest

from cache.cluster.config import RaftConfig
from cache.errors import ConfigError


@pytest.mark.parametrize("preset", [RaftConfig.local(), RaftConfig.lan(), RaftConfig.wan()])
def test_a_lease_ends_before_the_quiet_time_of_a_voter(preset: RaftConfig) -> None:
    """Dissertation §6.4.1: with the leader's clock slow and the voter's fast, as far as is allowed."""
    drift = preset.clock_drift_max
    lease_really = preset.lease_duration / (1 - drift)
    quiet_really = preset.election_timeout_min / (1 + drift)

    assert lease_really <= quiet_really * (1 + 1e-12)
    assert preset.heartbeat_interval < preset.lease_duration


@pytest.mark.parametrize(
    ("field", "settings"),
    [
        ("election_timeout_min", {"election_timeout_min": 0}),
        ("election_timeout_max", {"election_timeout_max": 0.1}),
        ("heartbeat_interval", {"heartbeat_interval": 0.1}),
        ("clock_drift_max", {"clock_drift_max": 0.5}),
        ("inflight_max", {"inflight_max": 0}),
        ("snapshot_chunk_bytes", {"snapshot_chunk_bytes": 1.5}),
    ],
)
def test_a_bad_value_is_named(field: str, settings: dict[str, Any]) -> None:  # Any: bad on purpose
    """`ConfigError` names the field."""
    with pytest.raises(ConfigError, match=field):
        RaftConfig(**settings)
