"""What came of a call: of one that was given up, of one about several keys, each done alone if need be."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Final, TypeVar

from cache.errors import (
    BatchError,
    CacheError,
    IndeterminateError,
    OperationTimeoutError,
    RejectedError,
    UnavailableError,
)
from cache.keys import K, Key

T = TypeVar("T")
H = TypeVar("H")

ALONE_MAX: Final = 64
"""Keys that are done alone at the same time."""

BATCH_SHARE: Final = 0.5
"""Part of the operation timeout for a batch; the rest is for what has to be done alone."""

NAMED_MAX: Final = 3
"""Keys that the text of an error names."""


async def each(keys: Collection[H], do: Callable[[H], Awaitable[T]]) -> dict[H, T | CacheError]:
    """Do something for each key; return what came of it."""
    outcomes: dict[H, T | CacheError] = {}
    waiting = iter(keys)

    async def work() -> None:
        for key in waiting:
            try:
                outcomes[key] = await do(key)
            except CacheError as error:
                outcomes[key] = error

    async with asyncio.TaskGroup() as group:
        for number in range(min(ALONE_MAX, len(keys))):
            group.create_task(work(), name=f"batch.alone.{number}")
    return outcomes


def gave_up(unknown: IndeterminateError | None, last: CacheError, seconds: float) -> CacheError:
    """Return the error of a call tried for so many seconds; `unknown`: of an attempt that was sent."""
    if unknown is not None:
        return OperationTimeoutError(
            f"no confirmation within operation_timeout={seconds} s: {unknown}"
        )
    if isinstance(last, IndeterminateError):  # A read: nothing can have been applied.
        return UnavailableError(f"no answer within operation_timeout={seconds} s: {last}")
    return type(last)(f"gave up after operation_timeout={seconds} s: {last}")


def uncertain(key: Key, error: CacheError) -> CacheError:
    """Return the error of a key whose batch was sent and not answered, if it was refused afterwards."""
    if not isinstance(error, RejectedError):
        return error
    # This attempt was refused, but that of the batch may have been applied.
    return IndeterminateError(f"{key!r} of a batch, not confirmed; then: {error}")


def raise_failed(failed: Mapping[K, Exception], failures: int, count: int, what: str) -> None:
    """Raise what says how a call about `count` keys or operations failed, if some of them did.

    Raises:
        RejectedError: all of them were refused for the same kind of reason; nothing was applied.
        BatchError: some were, or may have been, applied.
    """
    if not failed:
        return
    first = next(iter(failed.values()))
    if count == 1:
        raise first
    named = "; ".join(f"{key!r}: {error}" for key, error in list(failed.items())[:NAMED_MAX])
    more = "" if len(failed) <= NAMED_MAX else f"; and {len(failed) - NAMED_MAX} more"
    text = f"{failures} of {count} {what} failed: {named}{more}"
    kind = type(first)
    if failures == count and isinstance(first, RejectedError):
        if all(isinstance(error, RejectedError) for error in failed.values()):
            raise kind(text) from first
    raise BatchError(text, failed) from first
