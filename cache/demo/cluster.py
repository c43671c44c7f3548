"""The demo's cluster as seen from outside: what each node says, and waiting until they say it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cache.clock import Clock
from cache.demo.processes import NodeProcess, ProcessGroup
from cache.demo.view import NodeRow, View
from cache.errors import CacheError
from cache.member_client import MemberClient

POLL_INTERVAL: Final = 0.02
"""Seconds between two looks: the resolution of every measured time."""

WAIT_TIMEOUT: Final = 90.0
"""Seconds until a wait is given up; far above what is expected."""


class DemoError(Exception):
    """The cluster did not do what the demo shows."""


@dataclass(frozen=True, slots=True)
class Sight:
    """What one node said at one time."""

    name: str
    at: float
    status: dict[str, Any]  # Any: MessagePack values, see `cache.cluster.inspection`
    members: list[dict[str, Any]]  # Any: as above
    rows: list[tuple[int, list[str], list[str]]]
    """The partition table: epoch, complete copies (the owner's first), copies being made."""

    def member_ids(self) -> list[str]:
        """Return the ids of the members it sees, sorted."""
        return sorted(member["id"] for member in self.members)

    def owned_by(self, member: str) -> int:
        """Return how many partitions `member` owns in its table."""
        return sum(bool(replicas) and replicas[0] == member for _, replicas, _ in self.rows)

    def mentions(self, member: str) -> bool:
        """Return whether its table lists `member` at all."""
        return any(member in replicas or member in joining for _, replicas, joining in self.rows)

    def describe(self) -> str:
        """Return one line for a time-out's message."""
        names = ", ".join(f"{m['name']}={m['state']}" for m in self.members)
        numbers = ", ".join(
            f"{name}={self.status[name]}"
            for name in ("table_id", "owned", "under_replicated", "migrating", "orphans")
        )
        return f"{self.name} sees {names}; {numbers}"


class DemoNode:
    """A node process and the client that talks to it."""

    def __init__(self, process: NodeProcess, client: MemberClient) -> None:
        self.process = process
        self.client = client
        self.name = process.name
        self.id = process.id


class DemoCluster:
    """The nodes that run, in the order of their start."""

    def __init__(
        self, processes: ProcessGroup, *, cluster_name: str, secret: str, clock: Clock, view: View
    ) -> None:
        self.clock = clock
        self.nodes: list[DemoNode] = []
        self._processes = processes
        self._cluster_name = cluster_name
        self._secret = secret
        self._view = view
        self._gone: list[NodeRow] = []

    async def start_node(self, name: str) -> DemoNode:
        """Start a node that joins those that run."""
        process = await self._processes.start(name, [node.process.address for node in self.nodes])
        client = MemberClient(process.address, cluster_name=self._cluster_name, secret=self._secret)
        node = DemoNode(process, client)
        self.nodes.append(node)
        return node

    async def forget(self, node: DemoNode, state: str) -> None:
        """Take a node that has ended off the list; `state` is what the view says of it."""
        self.nodes.remove(node)
        self._gone.append(NodeRow(node.name, node.process.address, node.process.pid, state))
        await node.client.close()

    async def look(self) -> list[Sight]:
        """Ask every node what it sees, and show it."""
        sights = [await self._look_at(node) for node in self.nodes]
        rows = [_row(node, sight) for node, sight in zip(self.nodes, sights, strict=True)]
        self._view.show([*rows, *self._gone])
        return sights

    async def _look_at(self, node: DemoNode) -> Sight:
        status = await node.client.inspect("status")
        members = await node.client.inspect("members")
        table = await node.client.inspect("table")
        return Sight(node.name, self.clock.monotonic(), status, members, table["rows"])

    async def until(self, what: str, check: Callable[[Sequence[Sight]], bool]) -> float:
        """Wait until `check` accepts what all nodes say; return the instant of that look.

        Raises:
            DemoError: it did not within `WAIT_TIMEOUT`; says what each node said last.
        """
        deadline = self.clock.monotonic() + WAIT_TIMEOUT
        said = "nothing yet"
        while self.clock.monotonic() < deadline:
            try:
                sights = await self.look()
            except CacheError as error:
                said = f"{type(error).__name__}: {error}"
            else:
                if check(sights):
                    return max(sight.at for sight in sights)
                said = "\n  ".join(sight.describe() for sight in sights)
            await asyncio.sleep(POLL_INTERVAL)
        logs = "\n  ".join(f"{n.name} logged: {n.process.log_tail()}" for n in self.nodes)
        raise DemoError(f"{what}: not within {WAIT_TIMEOUT:.0f} s\n  {said}\n  {logs}")

    async def close(self) -> None:
        """Close the clients; the processes are the group's to stop."""
        for node in self.nodes:
            await node.client.close()


def is_settled(sights: Sequence[Sight], ids: Sequence[str]) -> bool:
    """Return whether all agree on exactly these members and nothing is left to copy or move."""
    return (
        len({sight.status["table_id"]: None for sight in sights}) == 1
        and all(sight.member_ids() == sorted(ids) for sight in sights)
        and all(
            sight.status[name] == 0
            for sight in sights
            for name in ("under_replicated", "migrating", "orphans")
        )
    )


def _row(node: DemoNode, sight: Sight) -> NodeRow:
    status = sight.status
    moving = f"{status['migrating']} moving" if status["migrating"] else "serving"
    return NodeRow(
        node.name,
        node.process.address,
        node.process.pid,
        "behind" if status["under_replicated"] and not status["migrating"] else moving,
        len(sight.members),
        status["owned"],
        status["backups"],
        status["entries"],
        coordinator=status["coordinator"] == node.id,
    )
