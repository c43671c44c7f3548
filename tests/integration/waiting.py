"""Waiting for a condition, with a deadline that raises."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from cache.testing import TestCluster
from cache.testing.campaign import compare_copies


async def eventually(
    condition: Callable[[], Awaitable[bool]], *, within: float, what: str, interval: float = 0.02
) -> None:
    """Wait until `condition` holds; raise `AssertionError` naming `what` when it does not in time."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within
    while not await condition():
        assert loop.time() < deadline, f"{what} did not happen within {within} s"
        turn = loop.create_future()
        loop.call_later(interval, turn.set_result, None)
        await turn


async def equal_copies(cluster: TestCluster, *, within: float) -> None:
    """Wait until all copies of each partition are equal, by the cluster's clock."""

    async def are_equal() -> bool:
        return not await compare_copies(cluster)

    await cluster.eventually(are_equal, within=within, what="equal copies")
