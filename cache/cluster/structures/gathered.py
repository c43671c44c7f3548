"""Requests that travel together: how many, and what their callers are told when all of them fail."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from cache.cluster.wire.messages import Reply
from cache.errors import ClosedError

BATCH_MAX: Final = 256
"""Keys of one request; more would make others wait, and save nothing."""

Waiting = Sequence[asyncio.Future[Any]]  # Any: what comes of each
"""Those who wait for one answer."""


def fail(waiting: Waiting, error: BaseException) -> None:
    """Raise an error to those who have not left."""
    for one in waiting:
        if not one.done():
            one.set_exception(error)


def is_failed(waiting: Waiting, answer: asyncio.Future[Reply]) -> bool:
    """Return whether the request failed; if so, those who wait are told."""
    error = ClosedError("the request was cancelled") if answer.cancelled() else answer.exception()
    if error is None:
        return False
    fail(waiting, error)
    return True
