"""The caches the contract is held against.

A `Subject` is a cache and a way to let time pass for it. To add one (a `DistributedMap` on the simulator,
say), write an async context manager that yields a `Subject`, and put it into `KEEPING`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any, Final

import pytest

from cache.interface import Cache
from cache.local import LocalCache, NullCache
from cache.local.cache import PolicyName


@dataclass(frozen=True)
class Subject:
    """A cache, empty and open, that is large enough for every test of the contract."""

    cache: Cache[Any]  # Any: the tests store values of every type
    advance: Callable[[float], Awaitable[None]]
    """Lets so many seconds pass for the cache."""


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


KEEPING: Final[Mapping[str, Maker]] = {
    "s3fifo": partial(local, "s3fifo"),
    "lru": partial(local, "lru"),
    "wtinylfu": partial(local, "wtinylfu"),
    "copying": partial(local, "s3fifo", copy=True),
    "namespace": local_namespace,
}
EVERY: Final[Mapping[str, Maker]] = {**KEEPING, "null": null}


@pytest.fixture(params=sorted(KEEPING))
async def keeping(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    """Each cache that keeps what it is given."""
    async with KEEPING[request.param]() as subject:
        yield subject


@pytest.fixture(params=sorted(EVERY))
async def every(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    """Each cache, also the one that forgets."""
    async with EVERY[request.param]() as subject:
        yield subject


@pytest.fixture
async def forgetting() -> AsyncIterator[Subject]:
    """The cache that forgets."""
    async with contextlib.AsyncExitStack() as stack:
        yield await stack.enter_async_context(null())
