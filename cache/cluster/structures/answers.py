"""Replies that wait for copies."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from cache.cluster.wire.messages import Reply

Answer = Reply | Awaitable[Reply]
"""What a handler returns: the reply, or a future of it."""


def after(confirmed: asyncio.Future[None], reply: Reply) -> asyncio.Future[Reply]:
    """Return a future that gives `reply` once `confirmed` has resolved."""
    answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

    def finish(_: asyncio.Future[None]) -> None:
        if answer.done():
            return
        error = confirmed.exception()
        if error is None:
            answer.set_result(reply)
        else:
            answer.set_exception(error)

    if confirmed.done():
        finish(confirmed)
    else:
        confirmed.add_done_callback(finish)
    return answer
