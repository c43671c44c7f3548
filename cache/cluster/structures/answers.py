"""Replies that wait for copies."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence

from cache.cluster.replication.ownership import PendingWrite
from cache.cluster.replication.service import Written
from cache.cluster.transport.failures import exception_to_failure
from cache.cluster.wire.messages import Failure, Outcomes, Reply, Value
from cache.errors import CacheError, OperationTimeoutError

Answer = Reply | Awaitable[Reply]
"""What a handler returns: the reply, or a future of it."""


def after(pending: PendingWrite, reply: Reply) -> asyncio.Future[Reply]:
    """Return a future that gives `reply` once a write is confirmed."""
    answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

    def finish(error: CacheError | None) -> None:
        if answer.done():
            return
        if error is None:
            answer.set_result(reply)
        else:
            answer.set_exception(error)

    pending.watch(finish)
    return answer


def after_each(written: Written) -> Reply | asyncio.Future[Reply]:
    """Return the `Outcomes` of many writes, or a future that gives them once all have ended."""
    alone = [
        one for one in written.alone.values() if isinstance(one, PendingWrite) and not one.is_over
    ]
    left = len(alone) + len(written.batches)
    if not left:
        return Outcomes(_codes(written))
    answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

    def finish(_: CacheError | None = None) -> None:
        nonlocal left
        left -= 1
        if not left and not answer.done():
            answer.set_result(Outcomes(_codes(written)))

    for pending in alone:
        pending.watch(finish)
    for batch in written.batches:
        batch.watch(finish)
    return answer


def _codes(written: Written) -> list[int]:
    codes = [1] * written.count
    for place, one in written.alone.items():
        error = one.error if isinstance(one, PendingWrite) else one
        if error is not None:
            codes[place] = -exception_to_failure(error).code
    for batch in written.batches:
        for place, part in zip(batch.places, batch.parts or (), strict=False):
            if part.error is not None:
                codes[place] = -exception_to_failure(part.error).code
    return codes


async def outcomes(answers: Sequence[Answer | CacheError]) -> list[Reply]:
    """Wait for each answer; return the replies, a `Failure` for what failed."""
    replies: list[Reply] = []
    for answer in answers:
        try:
            if isinstance(answer, CacheError):
                raise answer
            replies.append(await answer if isinstance(answer, Awaitable) else answer)
        except CacheError as error:
            replies.append(exception_to_failure(error))
    return replies


async def settle_each(answers: Sequence[Answer | CacheError]) -> Reply:
    """Wait for each answer; return their `Outcomes`."""
    return Outcomes([_code(reply) for reply in await outcomes(answers)])


def _code(reply: Reply) -> int:
    if isinstance(reply, Failure):
        return -reply.code
    return 0 if isinstance(reply, Value) and reply.value is None else 1


async def confirmed(answer: Answer, remaining: float | None) -> Reply:
    """Return what this member's own handler answers, at once or within `remaining` seconds.

    None is for answers that keep their deadline by themselves: those of other members.
    """
    if not isinstance(answer, Awaitable):
        return answer
    if remaining is None:
        return await answer
    try:
        async with asyncio.timeout(remaining):
            return await answer
    except TimeoutError as error:
        raise OperationTimeoutError(
            f"not confirmed by enough copies within {remaining:.3f} s"
        ) from error


async def outcome(answer: Answer | CacheError, timeout: float | None) -> Reply | CacheError:
    """Return what comes of an answer: as `confirmed`, but errors are returned."""
    if isinstance(answer, CacheError):
        return answer
    try:
        return await confirmed(answer, timeout)
    except CacheError as error:
        return error
