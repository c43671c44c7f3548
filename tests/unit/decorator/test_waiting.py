"""`within`: what is awaited sees the same as without it, apart from the limit."""

from __future__ import annotations

import asyncio

import pytest

from cache.decorator.waiting import within
from cache.errors import UnavailableError
from cache.testing.sim import run_simulation


async def test_what_does_not_pause_needs_no_loop_turn() -> None:
    """Its result, or its error, comes at once."""

    async def answer(value: int) -> int:
        if value < 0:
            raise LookupError
        return value

    turns: list[int] = []
    asyncio.get_running_loop().call_soon(turns.append, 1)

    assert await within(answer(3), 1.0) == 3
    with pytest.raises(LookupError):
        await within(answer(-1), 1.0)
    assert turns == []


@pytest.mark.parametrize("seconds", [1e9, None])
async def test_pauses_results_and_errors_go_through(seconds: float | None) -> None:
    """Several pauses, of several kinds, and an error that the coroutine deals with."""
    first: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    second: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def work() -> int:
        total = await first
        await asyncio.sleep(0)
        try:
            await second
        except LookupError:
            return total + 1
        return 0

    waiting = asyncio.ensure_future(within(work(), seconds))
    await asyncio.sleep(0)
    first.set_result(4)
    await asyncio.sleep(0)
    second.set_exception(LookupError())

    assert await waiting == 5


@pytest.mark.parametrize("seconds", [1e9, None])
async def test_a_cancellation_reaches_what_waits(seconds: float | None) -> None:
    """It may have to clean up, and may take its time for it."""
    seen: list[str] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            seen.append("cancelled")
            raise

    waiting = asyncio.ensure_future(within(work(), seconds))
    await asyncio.sleep(0)
    waiting.cancel()

    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert seen == ["cancelled"]


def test_the_limit_ends_the_wait() -> None:
    """In virtual time; a timeout of what is awaited stays its own."""

    async def scenario(_: object) -> None:
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        with pytest.raises(UnavailableError, match=r"within 2 s"):
            await within(asyncio.Event().wait(), 2.0)
        assert loop.time() - began_at == pytest.approx(2.0)

        async def gives_up() -> None:
            async with asyncio.timeout(1.0):
                await asyncio.Event().wait()

        with pytest.raises(TimeoutError):
            await within(gives_up(), 2.0)

    run_simulation(1, scenario)
