"""Looking inside simulated nodes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
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


@asynccontextmanager
async def halfway(
    cluster: TestCluster, index: int, make: Callable[[], AsyncIterator[Any]], count: int
) -> AsyncIterator[list[Any]]:
    """Stop an iterator of a member after so many items while the block runs; give what has come."""
    seen: list[Any] = []  # Any: whatever it yields
    is_halfway, go_on = asyncio.Event(), asyncio.Event()

    async def read() -> None:
        async for item in make():
            seen.append(item)
            if len(seen) == count:
                is_halfway.set()
                await go_on.wait()

    reading = asyncio.ensure_future(run_on(cluster, index, read))
    try:
        await is_halfway.wait()
        yield seen
        go_on.set()
        await reading
    finally:
        reading.cancel()
