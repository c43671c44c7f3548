"""Fixtures for tests of applications: `frozen_clock`, `local_cache`, `cache_cluster`.

Pytest loads this module wherever the library is installed, so nothing else of the library is imported
before a test asks for a fixture.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from cache.clock import FrozenClock
    from cache.local import LocalCache
    from cache.testing import TestCluster

MARKS = (
    "cluster: whole nodes, in any world",
    "sim: nodes in the simulator, in virtual time",
    "sockets: nodes in this process on real UDP and TCP",
    "processes: each node is a process of its own on loopback",
    "namespaces: each node has a network of its own, which can be cut",
)

ClusterMaker = Callable[..., "AbstractAsyncContextManager[TestCluster]"]


def pytest_configure(config: pytest.Config) -> None:
    """Register the marks of `cache.testing.cluster_test`, one for each world."""
    for line in MARKS:
        config.addinivalue_line("markers", line)


@pytest.fixture
def frozen_clock() -> FrozenClock:
    """A clock that stands still until `frozen_clock.advance(seconds)`."""
    from cache.clock import FrozenClock  # noqa: PLC0415  See the module's docstring.

    return FrozenClock()


@pytest.fixture
def local_cache(frozen_clock: FrozenClock) -> LocalCache[Any]:
    """An empty `LocalCache` whose time goes by `frozen_clock`."""
    # Any: the test decides what it stores.
    from cache.local import LocalCache  # noqa: PLC0415  See the module's docstring.

    return LocalCache(clock=frozen_clock)


@pytest.fixture
def cache_cluster() -> ClusterMaker:
    """Starts clusters of real nodes in this process.

    Use it as `async with cache_cluster(3, replica_count=2) as cluster:`; keyword arguments are fields of
    `ClusterConfig`, and `faults=True` lets `cut`, `isolate`, `link` and their like work. `cluster.member(0)`
    has a `.node`; the rest is `cache.testing.TestCluster`: add, kill, drain and restart members, see who
    holds what.
    """
    from cache.cluster import ClusterConfig  # noqa: PLC0415  See the module's docstring.
    from cache.testing import TestCluster  # noqa: PLC0415
    from cache.testing.worlds.sockets import SocketsWorld  # noqa: PLC0415

    def start(
        size: int = 3,
        *,
        faults: bool = False,
        **config: Any,  # Any: fields of ClusterConfig
    ) -> TestCluster:
        world = SocketsWorld(faults=faults)
        return TestCluster(size, world=world, config=ClusterConfig.local(**config))

    return start
