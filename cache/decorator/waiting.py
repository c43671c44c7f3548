"""`within`: a bounded wait that costs nothing where there is nothing to wait for.

`asyncio.timeout` costs about as much as a whole hit of a local cache. So the coroutine is run up to its
first pause before any timer is set; a local hit has none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from functools import partial
from types import coroutine
from typing import Any, TypeVar

from cache.errors import UnavailableError

T = TypeVar("T")


async def within(
    work: Coroutine[Any, Any, T], seconds: float | None
) -> T:  # Any: as asyncio has it
    """Return what `work` returns.

    Raises:
        UnavailableError: it took longer than `seconds` (None: no limit), and was cancelled.
    """
    if seconds is None:
        return await work
    try:
        paused_on = work.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    try:
        async with asyncio.timeout(seconds) as timeout:
            return await _resume(work, paused_on)
    except TimeoutError as error:
        if not timeout.expired():
            raise
        raise UnavailableError(f"no answer from the cache within {seconds:g} s") from error


@coroutine
def _resume(work: Coroutine[Any, Any, T], paused_on: Any) -> Generator[Any, Any, T]:
    """Go on with a coroutine that was begun: wait for what it waits for, until it returns."""
    while True:
        try:
            sent = yield paused_on
        except BaseException as error:  # noqa: BLE001  # handed on to where the coroutine waits
            go_on = partial(work.throw, error)
        else:
            go_on = partial(work.send, sent)
        try:
            paused_on = go_on()
        except StopIteration as stop:
            result: T = stop.value
            return result
