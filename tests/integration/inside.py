"""Looking inside simulated nodes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from cache.cluster.node import Node
from cache.testing import TestCluster


def node_of(cluster: TestCluster, index: int) -> Node:
    """Return the node itself."""
    world: Any = cluster._world  # Any: the simulated world
    node: Node = world._members[index].node
    return node


async def run_on(cluster: TestCluster, index: int, call: Callable[[], Any]) -> Any:
    """Run something on a member's own event loop and return what it gives, awaited."""
    world: Any = cluster._world  # Any: the simulated world

    async def body() -> Any:  # Any: whatever the call gives
        result = call()
        return await result if asyncio.iscoroutine(result) or asyncio.isfuture(result) else result

    return await world._members[index].process.run(body())
