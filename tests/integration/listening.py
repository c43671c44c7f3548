"""Reading messages and events on members, in the background of a test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cache.errors import CacheError
from cache.testing import TestCluster
from tests.integration.inside import node_of


class Listener:
    """Reads a subscription on a member's own event loop, for as long as that lives.

    Args:
        open_subscription: what to enter and read, of the member's node.
    """

    def __init__(
        self, cluster: TestCluster, index: int, open_subscription: Callable[[Any], Any]
    ) -> None:
        self.items: list[Any] = []  # Any: messages or events
        self.entered = False
        self.ended_by: BaseException | None = None
        self._cluster = cluster
        node = node_of(cluster, index)
        world: Any = cluster._world  # Any: the simulated world
        self._open = open_subscription
        process = world._members[index].process
        process.loop.call_soon(lambda: node._scope.spawn(self._read(node), name="listener"))

    async def _read(self, node: Any) -> None:  # Any: a node
        try:
            async with self._open(node) as subscription:
                self.entered = True
                async for item in subscription:
                    self.items.append(item)
        except CacheError as error:
            self.ended_by = error

    async def ready(self) -> None:
        """Wait until the subscription was entered."""

        async def entered() -> bool:
            return self.entered

        await self._cluster.eventually(entered, what="a subscription")

    async def until(self, condition: Callable[[list[Any]], object], what: str = "items") -> None:
        """Wait until the items fulfil a condition."""

        async def holds() -> bool:
            return bool(condition(self.items))

        await self._cluster.eventually(holds, within=30.0, what=what)

    @property
    def values(self) -> list[Any]:
        """Values of the messages read."""
        return [item.value for item in self.items]


async def listen(
    cluster: TestCluster, index: int, open_subscription: Callable[[Any], Any]
) -> Listener:
    """Return a listener that was entered."""
    listener = Listener(cluster, index, open_subscription)
    await listener.ready()
    return listener
