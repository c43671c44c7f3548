"""The caches the contract is held against.

A `Subject` is a cache and a way to let time pass for it. To add one (a `DistributedMap` on the simulator,
say), write an async context manager that yields a `Subject`, and put it into `KEEPING`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from random import Random
from typing import Any, Final

import pytest

from cache import open as open_cache
from cache.clock import SystemClock
from cache.cluster import ClusterClient, ClusterConfig, NearCache, Node
from cache.cluster.opened import ClusterCache
from cache.cluster.system import system_environment
from cache.interface import Cache
from cache.local import LocalCache, NullCache
from cache.local.cache import PolicyName
from cache.sync import SyncCache
from tests.contract.blocking import NOT_FOR_THREADS, Awaited
from tests.olric_server import olric_server
from tests.redis_servers import RedisServer, RedisServers, cluster_url
from tests.unit.cluster.transport.support import eventually


@dataclass(frozen=True)
class Subject:
    """A cache, empty and open, that is large enough for every test of the contract."""

    cache: Cache[Any]  # Any: the tests store values of every type
    advance: Callable[[float], Awaitable[None]]
    """Lets so many seconds pass for the cache."""
    elapsed: float = 0.0
    """Seconds that may pass by themselves during a test: none where time goes only when told to."""


Maker = Callable[[], AbstractAsyncContextManager[Subject]]


class ManualClock:
    """A clock that goes when told to."""

    def __init__(self) -> None:
        self.now = 1_000.25

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now

    async def advance(self, seconds: float) -> None:
        """Move on, and let the turn of the loop end: caches read the clock once a turn."""
        self.now += seconds
        await asyncio.sleep(0)


@asynccontextmanager
async def local(policy: PolicyName, *, copy: bool = False) -> AsyncIterator[Subject]:
    clock = ManualClock()
    cache: LocalCache[Any] = LocalCache(policy=policy, clock=clock, rng=Random(0), copy=copy)
    async with cache:
        yield Subject(cache, clock.advance)


@asynccontextmanager
async def local_namespace() -> AsyncIterator[Subject]:
    async with local("s3fifo") as subject:
        yield Subject(subject.cache.namespace("inner"), subject.advance)


@asynccontextmanager
async def null() -> AsyncIterator[Subject]:
    async with NullCache[Any]() as cache:
        yield Subject(cache, ManualClock().advance)


class ShiftedClock(SystemClock):
    """The clock of this machine, from which some time may be left out."""

    def __init__(self) -> None:
        self.shift = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.shift

    def wall(self) -> float:
        return super().wall() + self.shift

    async def advance(self, seconds: float) -> None:
        """Move on; to a node it is as if its process had been stopped for so long."""
        self.shift += seconds


@asynccontextmanager
async def distributed(members: int, near_cache: NearCache | None = None) -> AsyncIterator[Subject]:
    """A map of a cluster of real nodes in this process, used through the member that came last."""
    clock = ShiftedClock()
    environment = replace(system_environment(), clock=clock)
    async with contextlib.AsyncExitStack() as stack:
        nodes: list[Node] = []
        peers: list[str] = []
        for _ in range(members):
            config = ClusterConfig.local(
                bind="127.0.0.1:0", peers=peers, partition_count=16, leave_timeout=0.5
            )
            node = await stack.enter_async_context(Node(config, environment=environment))
            nodes.append(node)
            peers.append(node.address)
        # While partitions still move, a load may be overtaken by a hand-over, which the contract allows.
        await eventually(lambda: all(is_balanced(node, members) for node in nodes))
        entries = node.map("contract", near_cache=near_cache)
        yield Subject(entries, clock.advance, elapsed=4.0)


def is_balanced(node: Node, members: int) -> bool:
    """Return whether nothing is left to be moved, and each member has its share."""
    stats = node.stats()
    share = node.config.partition_count // members
    return stats.settled and stats.members == members and stats.owned == share


@asynccontextmanager
async def through_a_client(near_cache: NearCache | None = None) -> AsyncIterator[Subject]:
    """A map of two members in this process, used by a client of theirs."""
    clock = ShiftedClock()
    environment = replace(system_environment(), clock=clock)
    config = ClusterConfig.local(partition_count=16, leave_timeout=0.5)
    async with Node(config, environment=environment) as first:
        joining = config.with_changes(peers=(first.address,))
        async with Node(joining, environment=environment) as second:
            # A load that is under way while its partition moves is not kept.
            await eventually(lambda: all(is_balanced(node, 2) for node in (first, second)))
            seeds = [first.address, second.address]
            async with ClusterClient(seeds, environment=environment) as client:
                entries = client.map("contract", near_cache=near_cache)
                yield Subject(entries, clock.advance, elapsed=4.0)


@asynccontextmanager
async def opened_local() -> AsyncIterator[Subject]:
    clock = ManualClock()
    async with open_cache("local://?max_entries=none&max_bytes=64MiB", clock=clock) as opened:
        yield Subject(opened, clock.advance)


def opened_cluster(clock: SystemClock) -> ClusterCache[Any]:
    config = ClusterConfig.local(partition_count=16, leave_timeout=0.5)
    return ClusterCache(config, "contract", environment=replace(system_environment(), clock=clock))


@asynccontextmanager
async def opened_map() -> AsyncIterator[Subject]:
    clock = ShiftedClock()
    async with opened_cluster(clock) as opened:
        yield Subject(opened, clock.advance, elapsed=4.0)


@asynccontextmanager
async def blocking_local() -> AsyncIterator[Subject]:
    clock = ManualClock()
    local: LocalCache[Any] = LocalCache(clock=clock, rng=Random(0))
    async with Awaited(SyncCache(local)) as awaited:
        yield Subject(awaited, clock.advance)


@asynccontextmanager
async def blocking_map() -> AsyncIterator[Subject]:
    """On the background's loop: it is made in a thread without one."""
    clock = ShiftedClock()
    blocking: SyncCache[Any] = await asyncio.to_thread(SyncCache, opened_cluster(clock))
    async with Awaited(blocking) as awaited:
        yield Subject(awaited, clock.advance, elapsed=4.0)


@asynccontextmanager
async def on_servers(url: str, servers: list[RedisServer]) -> AsyncIterator[Subject]:
    async def advance(seconds: float) -> None:
        for server in servers:
            await asyncio.to_thread(server.advance, seconds)

    async with open_cache(url, prefix="contract") as cache:
        yield Subject(cache, advance, elapsed=4.0)


@asynccontextmanager
async def on_one_server(servers: RedisServers) -> AsyncIterator[Subject]:
    server = servers.single()
    async with on_servers(server.url, [server]) as subject:
        yield subject


@asynccontextmanager
async def on_a_cluster(servers: RedisServers) -> AsyncIterator[Subject]:
    cluster = servers.cluster()
    async with on_servers(cluster_url(cluster), cluster) as subject:
        yield subject


@asynccontextmanager
async def on_an_evicting_server(servers: RedisServers) -> AsyncIterator[Subject]:
    """Tagged values are read with a script there."""
    server = servers.single()
    server.execute("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    try:
        async with on_servers(server.url, [server]) as subject:
            yield subject
    finally:
        server.execute("CONFIG", "SET", "maxmemory-policy", "noeviction")


@asynccontextmanager
async def blocking_on_one_server(servers: RedisServers) -> AsyncIterator[Subject]:
    server = servers.single()

    async def advance(seconds: float) -> None:
        await asyncio.to_thread(server.advance, seconds)

    async with Awaited(SyncCache.open(server.url, prefix="contract")) as awaited:
        yield Subject(awaited, advance, elapsed=4.0)


@asynccontextmanager
async def on_what_answers_as_olric() -> AsyncIterator[Subject]:
    """Not Olric itself: a server that does what its protocol says."""
    clock = ShiftedClock()
    async with (
        olric_server(clock.monotonic) as server,
        open_cache(f"olric://127.0.0.1:{server.port}/contract", clock=clock) as cache,
    ):
        yield Subject(cache, clock.advance, elapsed=4.0)


ON_SERVERS: Final[Mapping[str, Callable[[RedisServers], Any]]] = {  # Any: as a `Maker` returns
    "redis": on_one_server,
    "redis cluster": on_a_cluster,
    "redis that evicts": on_an_evicting_server,
    "blocking redis": blocking_on_one_server,
}
"""Caches whose data is on real servers; their tests are skipped where there is no redis-server."""

KEEPING: Final[Mapping[str, Maker]] = {
    "s3fifo": partial(local, "s3fifo"),
    "lru": partial(local, "lru"),
    "wtinylfu": partial(local, "wtinylfu"),
    "copying": partial(local, "s3fifo", copy=True),
    "namespace": local_namespace,
    "opened": opened_local,
    "opened map": opened_map,
    "blocking": blocking_local,
    "blocking map": blocking_map,
    "olric, as described": on_what_answers_as_olric,
    "map of one member": partial(distributed, 1),
    "map of two members": partial(distributed, 2),
    "map through a client": through_a_client,
    "map with near copies through a client": partial(
        through_a_client, NearCache(staleness_bound=5.0)
    ),
    "map with near copies": partial(distributed, 2, NearCache(staleness_bound=5.0)),
}
EVERY: Final[Mapping[str, Maker]] = {**KEEPING, "null": null}


NOT_FOR_OLRIC: Final[Mapping[str, str]] = {
    "test_stats_count": "Olric does not tell what ended in a map, nor its bytes",
}


def subject_of(request: pytest.FixtureRequest) -> AbstractAsyncContextManager[Subject]:
    test = request.function.__name__
    if request.param.startswith("olric") and test in NOT_FOR_OLRIC:
        pytest.skip(NOT_FOR_OLRIC[test])
    if request.param in EVERY:
        return EVERY[request.param]()
    made: AbstractAsyncContextManager[Subject]
    made = ON_SERVERS[request.param](request.getfixturevalue("redis_servers"))
    return made


@pytest.fixture(params=sorted({**KEEPING, **ON_SERVERS}))
async def keeping(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    """Each cache that keeps what it is given."""
    async with subject_of(request) as subject:
        yield subject


@pytest.fixture(
    params=sorted(
        name for name in {**KEEPING, **ON_SERVERS} if not name.endswith("through a client")
    )
)
async def holding(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    """Each cache that says what it holds; what a client stores is with the members."""
    async with subject_of(request) as subject:
        yield subject


@pytest.fixture(params=sorted({**EVERY, **ON_SERVERS}))
async def every(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    """Each cache, also the one that forgets."""
    test = request.function.__name__
    if request.param.startswith("blocking") and test in NOT_FOR_THREADS:
        pytest.skip(NOT_FOR_THREADS[test])
    async with subject_of(request) as subject:
        yield subject


@pytest.fixture
async def forgetting() -> AsyncIterator[Subject]:
    """The cache that forgets."""
    async with contextlib.AsyncExitStack() as stack:
        yield await stack.enter_async_context(null())
