"""Writing a cluster test once and running it in several worlds.

```python
@cluster_test(size=3, replica_count=2)
async def test_every_key_has_two_copies(cluster: TestCluster) -> None:
    ...
```

The test runs once per world. A failure in the simulated world prints its seed; set `CACHE_SEED` to
run that seed again.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any, Final, Literal

from cache.cluster.config import ClusterConfig
from cache.testing.cluster import TestCluster
from cache.testing.sim.world import World
from cache.testing.worlds.base import ClusterWorld
from cache.testing.worlds.lan import why_unavailable
from cache.testing.worlds.namespaces import SECRET, NamespacesWorld
from cache.testing.worlds.processes import ProcessesWorld
from cache.testing.worlds.simulated import SimulatedWorld
from cache.testing.worlds.sockets import SocketsWorld

WorldName = Literal["simulated", "sockets", "processes", "namespaces"]
Scenario = Callable[[TestCluster], Awaitable[None]]

ALL_WORLDS: Final[tuple[WorldName, ...]] = ("simulated", "sockets", "processes")
"""Where a test runs that names no world; `namespaces` needs root, and is asked for by name."""

SIMULATED_PARTITIONS: Final = 128
"""Partitions in the simulated world, fewer than the default so that many runs fit in a second."""


def default_seed() -> int:
    """Return the seed of `CACHE_SEED`, or 0."""
    return int(os.environ.get("CACHE_SEED", "0"))


def run_cluster(
    scenario: Scenario,
    *,
    world: WorldName = "simulated",
    size: int = 3,
    seed: int | None = None,
    limit: float = 3600.0,
    faults: bool = False,
    **config: Any,  # Any: fields of ClusterConfig
) -> str | None:
    """Run `scenario` against a fresh cluster of `size` members in the named world.

    `faults` puts the fault-injecting proxy between members in `sockets` and `processes`; the other worlds
    have network faults always.

    Returns:
        The trace hash of a simulated run, else None.
    """
    if world == "simulated":
        return _run_simulated(
            scenario, size, default_seed() if seed is None else seed, limit, config
        )
    if world == "namespaces":
        config.setdefault("secret", SECRET)
    asyncio.run(_run(scenario, _make(world, faults=faults), size, ClusterConfig.local(**config)))
    return None


def _make(world: Literal["sockets", "processes", "namespaces"], *, faults: bool) -> ClusterWorld:
    match world:
        case "sockets":
            return SocketsWorld(faults=faults)
        case "processes":
            return ProcessesWorld(faults=faults)
        case "namespaces":
            return NamespacesWorld()


def _run_simulated(
    scenario: Scenario, size: int, seed: int, limit: float, config: dict[str, Any]
) -> str:  # Any: fields of ClusterConfig
    world = World(seed)
    config.setdefault("partition_count", SIMULATED_PARTITIONS)
    settings = ClusterConfig.local(**config)
    try:
        world.run(_run(scenario, SimulatedWorld(world), size, settings), limit=limit)
    except BaseException as error:
        error.add_note(f"simulated with seed {seed}: replay with CACHE_SEED={seed}")
        raise
    return world.trace_hash()


async def _run(scenario: Scenario, world: ClusterWorld, size: int, config: ClusterConfig) -> None:
    async with TestCluster(size, world=world, config=config) as cluster:
        await scenario(cluster)


def cluster_test(
    *worlds: WorldName, size: int = 3, faults: bool = False, **config: Any
) -> Callable[[Scenario], Callable[[WorldName], None]]:
    """Turn an async function of a `TestCluster` into a test that runs in each of `worlds`.

    By default those are `ALL_WORLDS`; a world that cannot be made here skips the test, with the reason.
    `faults` is for tests that cut or slow links in `sockets` or `processes`; without it such a test is
    skipped there. `config` are fields of `ClusterConfig`, on top of the `local()` preset.
    """
    # Any: field values, checked by ClusterConfig.
    import pytest  # Imported here: the library itself does not need pytest.

    def decorate(scenario: Scenario) -> Callable[[WorldName], None]:
        def test(world: WorldName) -> None:
            if world == "namespaces" and (reason := why_unavailable()):
                pytest.skip(reason)
            run_cluster(scenario, world=world, size=size, faults=faults, **config)

        test.__name__ = getattr(scenario, "__name__", "test")
        test.__doc__ = scenario.__doc__
        test.__module__ = scenario.__module__
        chosen = [
            pytest.param(w, marks=getattr(pytest.mark, _mark(w))) for w in worlds or ALL_WORLDS
        ]
        decorated: Callable[[WorldName], None] = pytest.mark.parametrize("world", chosen)(test)
        return decorated

    return decorate


def _mark(world: WorldName) -> str:
    marks = {"simulated": "sim", "namespaces": "processes"}
    return marks.get(world, world)
