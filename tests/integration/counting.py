"""A counter in the groups of a test cluster, called on any member; and what members say of their groups."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from cache.cluster.config.consistent import ConsistentConfig
from cache.cluster.consistent.group import Group
from cache.cluster.consistent.state.commands import (
    CountDown,
    CounterAdd,
    CounterGet,
    LatchGet,
    decode_answer,
    encode,
)
from cache.errors import NoQuorumError
from cache.testing import TestCluster, cluster_test
from cache.testing.worlds.simulated import SimulatedWorld
from tests.integration.inside import node_of, run_on

NAME = b"hits"

AT_START = ConsistentConfig.local(found_at_start=True)

consensus_test = partial(cluster_test, consistent=AT_START)
"""A `cluster_test` whose groups are founded as soon as the members are there."""


class Counter:
    """The counter as one member reaches it."""

    def __init__(self, cluster: TestCluster, index: int) -> None:
        self.cluster = cluster
        self.index = index
        self.is_simulated = isinstance(cluster._world, SimulatedWorld)
        self.node = node_of(cluster, index) if self.is_simulated else cluster.member(index).node

    @property
    def group(self) -> Group:
        return self.node._consensus.group("hits")

    async def run(self, call: Any) -> Any:  # Any: a function, and what it gives
        """Run something on the member's loop."""
        return await (run_on(self.cluster, self.index, call) if self.is_simulated else call())

    async def _run(self, data: bytes, ask: str, timeout: float) -> Any:  # Any: the number
        async def call() -> bytes | None:
            deadline = self.node._environment.clock.monotonic() + timeout
            answer: bytes | None = await getattr(self.group, ask)(data, deadline=deadline)
            return answer

        return decode_answer(await self.run(call))

    async def add(self, delta: int = 1, *, timeout: float = 10.0) -> int:
        """Add to the counter; return what it is then."""
        answer = await self._run(encode(CounterAdd(NAME, delta)), "command", timeout)
        return int(answer.number)

    async def get(self, *, timeout: float = 10.0) -> int:
        """Return the counter."""
        answer = await self._run(encode(CounterGet(NAME)), "query", timeout)
        return int(answer.number)

    async def session(self, *, timeout: float = 10.0) -> int:
        """Return the member's session."""
        until = self.cluster.now() + timeout
        while True:
            try:
                number: int = await self.run(self.group.session)
                return number
            except NoQuorumError:
                assert self.cluster.now() < until, "no session in time"

    async def latch(self, *, wait: float) -> tuple[bool, int] | None:
        """Return whether a latch is open, and what is left, once it is open."""
        data = encode(LatchGet(NAME, until_open=True))
        answer = await self.run(lambda: self.group.query(data, wait=wait))
        if answer is None:
            return None
        said: Any = decode_answer(answer)  # Any: an `Outcome`
        return said.done, said.number

    async def count_down(self) -> None:
        """Open the latch."""
        data = encode(CountDown(NAME, 1))
        await self.run(lambda: self.group.command(data))


async def infos(cluster: TestCluster) -> dict[int, dict[str, Any]]:  # Any: MessagePack values
    """Return what each member says of the group."""
    return {m.index: (await m.inspect("consensus"))["main"] for m in cluster.members}


async def leader_of(cluster: TestCluster) -> int:
    """Return the member that leads, once all members agree on a leader that is there."""
    return await cluster.wait_for_consensus()


async def voters_of(cluster: TestCluster, count: int) -> list[str]:
    """Return the names of the voters, once there are so many, each with its log, and nobody learns."""
    return await cluster.wait_for_voters(count)


async def uuids(cluster: TestCluster) -> list[str]:
    """Return the groups that members know, each once."""
    known = dict.fromkeys(info["uuid"] for info in (await infos(cluster)).values())
    return [uuid for uuid in known if uuid]


async def add_many(counters: list[Counter], count: int) -> list[int]:
    """Add so often, all at once, spread over some members; return what the counter was each time."""
    calls = [counters[number % len(counters)].add() for number in range(count)]
    return sorted(await asyncio.gather(*calls))
