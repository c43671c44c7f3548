"""What a batch could not do is done key by key, and nothing that may have been applied is called rejected."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from cache.cluster.structures.batches import Batches
from cache.cluster.structures.router import Router
from cache.cluster.wire.messages import CODE_INDETERMINATE, CODE_NOT_OWNER, Outcomes, Reply
from cache.errors import (
    CacheError,
    IndeterminateError,
    NoQuorumError,
    OperationTimeoutError,
    UnavailableError,
)

LOCATED = {"a": (b"sa", 0), "b": (b"sb", 0)}
ENCODED = {"a": b"\x00a", "b": b"\x00b"}


class Owner:
    """The member that owns every key; answers one batch."""

    def __init__(self, reply: Reply | CacheError) -> None:
        self.config = SimpleNamespace(limits=SimpleNamespace(batch_keys_max=100))
        self._reply = reply

    def owner(self, partition: int) -> str:
        return "ann#1"

    async def to_members(self, requests: Any) -> list[Reply | CacheError]:  # Any: not looked at
        return [self._reply for _ in requests]


def batches(reply: Reply | CacheError) -> Batches:
    return Batches("users", cast(Router, Owner(reply)))


async def refuse(key: str) -> int:
    raise NoQuorumError("too few")


async def test_what_the_batch_did_is_not_done_again() -> None:
    """One had an effect, one was absent."""
    count = await batches(Outcomes([1, 0])).delete(LOCATED, lambda: b"id", refuse)

    assert count == 1


async def test_what_the_batch_did_not_is_done_alone() -> None:
    """Only those keys."""
    alone: list[str] = []

    async def note(key: str) -> int:
        alone.append(key)
        return 1

    assert 2 == await batches(Outcomes([1, -CODE_NOT_OWNER])).delete(LOCATED, lambda: b"id", note)
    assert ["b"] == alone


@pytest.mark.parametrize("reply", [UnavailableError("not sent"), Outcomes([-CODE_NOT_OWNER, 1])])
async def test_a_refusal_stays_one_when_nothing_was_applied(reply: Reply | CacheError) -> None:
    """It is safe to try again."""
    with pytest.raises(NoQuorumError):
        await batches(reply).set(LOCATED, ENCODED, -1.0, refuse)


@pytest.mark.parametrize(
    "reply", [OperationTimeoutError("sent"), Outcomes([-CODE_INDETERMINATE, 1])]
)
async def test_a_refusal_after_a_batch_that_may_have_been_applied_says_so(
    reply: Reply | CacheError,
) -> None:
    """Invariant 5: a definite failure is never visible later."""
    with pytest.raises(IndeterminateError, match="not confirmed; then: too few"):
        await batches(reply).set(LOCATED, ENCODED, -1.0, refuse)
