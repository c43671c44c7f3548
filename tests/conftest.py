"""What every test shares: Hypothesis settings, and the markers that follow from where a test is.

Nothing here starts anything: nodes, clocks and networks are made by the tests that use them.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

import pytest
from hypothesis import settings

from tests.redis_servers import redis_servers  # noqa: F401  # a fixture for all tests

INTEGRATION = Path(__file__).parent / "integration"

# No deadline: machines that share their cores with others would fail at random. In CI the examples
# are the same each time; a failing one prints the decorator that replays it.
settings.register_profile("default", deadline=None, print_blob=True)
settings.register_profile("ci", deadline=None, print_blob=True, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")


SUITES: Final = {
    "servers": ("test_etcd", "test_redis", "test_resp", "test_workers"),
    "faults": (
        "test_campaign",
        "test_chaos",
        "test_crash_at_every_step",
        "test_groups_campaign",
        "test_link_faults",
        "test_membership_scale",
        "test_namespaces",
        "test_proxy",
        "test_safeguards",
    ),
    "consensus": (
        "test_consensus",
        "test_consistent_structures",
        "test_fencing",
        "test_founding",
        "test_giving_up",
        "test_harness",
        "test_many_groups",
        "test_paused_leader",
        "test_raft_scenarios",
    ),
    "structures": (
        "test_client",
        "test_cluster_events",
        "test_entry_events",
        "test_lite",
        "test_loads",
        "test_locks",
        "test_near_cache",
        "test_pipelines",
        "test_policies",
        "test_processors",
        "test_queries",
        "test_reliable_topics",
        "test_stores",
        "test_topics",
    ),
}
"""Markers of integration tests by the names of their files; `task test-cluster` runs the others."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what lies in tests/integration; skip what needs a redis-server where there is none."""
    no_redis = pytest.mark.skip(reason="no redis-server on PATH")
    redis_is_missing = shutil.which("redis-server") is None
    for item in items:
        if INTEGRATION in item.path.parents:
            item.add_marker(pytest.mark.cluster)
            for suite, files in SUITES.items():
                if item.path.name.startswith(files):
                    item.add_marker(suite)
        if redis_is_missing and item.get_closest_marker("redis") is not None:
            item.add_marker(no_redis)
