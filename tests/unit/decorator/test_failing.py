"""A cache that fails, rejects or does not answer: the function works on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from cache.decorator import cached
from cache.errors import (
    CodecError,
    NoQuorumError,
    OperationTimeoutError,
    UnavailableError,
)
from cache.local import NullCache
from cache.testing.sim import run_simulation
from tests.unit.decorator.support import (
    UNAVAILABLE,
    World,
    counts,
    reading,
    turns,
    world,
)

MINUTE = 60.0


@pytest.fixture
async def here() -> AsyncIterator[World]:
    async with world() as made:
        yield made


@pytest.mark.parametrize("error", [UNAVAILABLE, NoQuorumError(), OperationTimeoutError()])
@pytest.mark.parametrize("stale", [None, "1m"])
async def test_a_failing_cache_is_gone_without(
    here: World, error: Exception, stale: str | None
) -> None:
    """The function works on; each failure is counted."""
    read = reading(here, ttl="1m", stale=stale)
    here.cache.read_error = error

    assert [await read(), await read()] == ["it#1", "it#2"]
    assert counts(read.cache_info()) == {"misses": 2, "loads": 2, "failures": 2}

    here.cache.read_error = None
    assert [await read(), await read()] == ["it#3", "it#3"]


async def test_without_the_cache_callers_at_once_still_share_a_load(here: World) -> None:
    """The source is spared just when it would get every call."""
    read = reading(here)
    here.cache.read_error = UNAVAILABLE
    here.source.open.clear()

    calls = [asyncio.ensure_future(read()) for _ in range(50)]
    await turns()
    calls[0].cancel()
    await turns()
    here.source.open.set()

    assert await asyncio.gather(*calls[1:]) == ["it#1"] * 49


async def test_what_is_invalidated_is_not_joined_when_the_cache_fails(here: World) -> None:
    """Also without the cache, who comes later gets what was loaded later."""
    read = reading(here)
    here.cache.read_error = UNAVAILABLE
    here.source.open.clear()
    first = asyncio.ensure_future(read())
    await turns()

    await read.invalidate()
    second = asyncio.ensure_future(read())
    await turns()
    here.source.open.set()

    assert [await first, await second] == ["it#1", "it#2"]


async def test_a_value_that_cannot_be_stored_is_given_all_the_same(here: World) -> None:
    """The function is not called a second time for it."""
    read = reading(here)
    here.cache.load_error = OperationTimeoutError()

    assert await read() == "it#1"
    assert counts(read.cache_info()) == {"misses": 1, "loads": 1, "failures": 1}


@pytest.mark.parametrize("error", [UNAVAILABLE, OperationTimeoutError("mine")])
async def test_an_error_of_the_function_is_not_one_of_the_cache(
    here: World, error: Exception
) -> None:
    """It may use another cache, which fails: its error is given on, to all who wait, and it runs once."""
    read = reading(here)
    here.source.error = error

    results = await asyncio.gather(read(), read(), return_exceptions=True)

    assert list(results) == [error, error]
    assert counts(read.cache_info()) == {"misses": 2, "loads": 1, "errors": 1}


async def test_a_caller_error_of_the_cache_is_raised(here: World) -> None:
    """A value that cannot be stored by its kind is a mistake to be seen."""
    read = reading(here)
    here.cache.read_error = CodecError("no")

    with pytest.raises(CodecError):
        await read()


async def test_failures_are_logged_once_a_minute(
    here: World, caplog: pytest.LogCaptureFixture
) -> None:
    """Thousands of calls may fail in a second; arguments are not in the log."""
    read = reading(here, clock=here.clock)
    here.cache.read_error = UnavailableError("of read:secret")
    with caplog.at_level(logging.WARNING, "cache.decorator"):
        for _ in range(10):
            await read("secret")
        await here.pass_time(MINUTE)
        await read("secret")

    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2
    assert messages[1].endswith("read error=UnavailableError failures=11")
    assert "secret" not in "".join(messages)


def test_the_wait_for_a_silent_cache_is_bounded() -> None:
    """One second by default (virtual time), then the function; the wait is counted as a failure."""

    async def scenario(_: object) -> None:
        here = World()
        read, patient = reading(here), reading(here, timeout="1h")
        here.cache.is_silent = True
        loop = asyncio.get_running_loop()

        began_at = loop.time()
        assert await read() == "it#1"
        assert loop.time() - began_at == pytest.approx(1.0)
        assert counts(read.cache_info()) == {"misses": 1, "loads": 1, "failures": 1}

        call = loop.create_task(patient())
        await turns()
        call.cancel()  # It reaches what waits inside the cache.
        with pytest.raises(asyncio.CancelledError):
            await call

    run_simulation(1, scenario)


async def test_invalidate_does_not_hide_a_failure(here: World) -> None:
    """The old value may still be there: the caller has to know."""

    class Failing(NullCache[Any]):
        async def delete(self, key: Any) -> bool:
            raise UNAVAILABLE

    @cached(Failing())
    async def read() -> int:
        return 1

    with pytest.raises(UnavailableError):
        await read.invalidate()
