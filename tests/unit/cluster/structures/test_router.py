"""What a caller is told when its attempts ended differently."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cache.clock import SystemClock
from cache.cluster.structures.router import Router
from cache.cluster.wire.messages import Done, Reply
from cache.errors import IndeterminateError, NoQuorumError


def a_router() -> Router:
    """Return a router of which only the loop of attempts is used."""
    router: Any = Router.__new__(Router)  # Any: parts are set by hand
    router.config = SimpleNamespace(operation_timeout=5.0)
    router.clock = SystemClock()
    router.site = SimpleNamespace(check_member_quorum=lambda: None, member="m")
    router._retries = SimpleNamespace(add=lambda: None)
    router._closed = False
    router._next_table = None
    return cast(Router, router)


async def test_a_refusal_after_an_attempt_that_was_sent_is_no_refusal() -> None:
    """The first attempt may have been applied (invariant 5)."""
    errors = [IndeterminateError("sent"), NoQuorumError("too few")]

    async def ask(remaining: float) -> Reply:
        raise errors.pop(0)

    router = a_router()
    deadline = asyncio.get_running_loop().time() + 5.0
    with pytest.raises(IndeterminateError, match="sent; then: too few"):
        await router._until_answered(ask, max(deadline, router.deadline()))


async def test_a_refusal_of_the_only_attempt_is_one() -> None:
    """Nothing was applied."""

    async def ask(remaining: float) -> Reply:
        raise NoQuorumError("too few")

    router = a_router()
    with pytest.raises(NoQuorumError):
        await router._until_answered(ask, router.deadline())


async def test_an_attempt_that_is_answered_ends_it() -> None:
    """Whatever became of those before."""
    errors = [IndeterminateError("sent")]

    async def ask(remaining: float) -> Reply:
        if errors:
            raise errors.pop()
        return Done()

    router = a_router()
    assert Done() == await router._until_answered(ask, router.deadline())
