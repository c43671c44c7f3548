"""What a batch could not do is done key by key, and nothing that may have been applied is called rejected."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from cache.cluster.structures.batches import Batches
from cache.cluster.structures.columns import Columns
from cache.cluster.structures.router import Router
from cache.cluster.wire.messages import (
    CODE_INDETERMINATE,
    CODE_NOT_OWNER,
    Outcomes,
    Reply,
    Value,
    part_of,
)
from cache.errors import (
    BatchError,
    CacheError,
    IndeterminateError,
    NoQuorumError,
    OperationTimeoutError,
    UnavailableError,
)

COLUMNS = Columns(["a", "b"], [b"sa", b"sb"], [0, 0])
ENCODED = {"a": b"\x00a", "b": b"\x00b"}


class Owner:
    """The member that owns every key; answers one batch, and then keys one by one."""

    def __init__(self, reply: Reply | CacheError, *alone: Reply | CacheError) -> None:
        self.config = SimpleNamespace(limits=SimpleNamespace(batch_keys_max=100))
        self.owners = ("ann#1",)
        self.asked: list[Any] = []  # Any: map requests
        self._reply = reply
        self._alone = list(alone)

    def deadline(self) -> float:
        return 5.0

    async def to_members(self, requests: Any, *, share: float) -> list[Reply | CacheError]:
        # Any: not looked at
        return [self._reply for _ in requests]

    async def write(self, partition: int, request: Any, deadline: float) -> Reply:
        # Any: a map request
        self.asked.append(request)
        reply = self._alone.pop(0)
        if isinstance(reply, CacheError):
            raise reply
        return reply


def batches(owner: Owner) -> Batches:
    return Batches("users", cast(Router, owner))


async def test_what_the_batch_did_is_not_done_again() -> None:
    """One had an effect, one was absent."""
    owner = Owner(Outcomes([1, 0]))

    assert await batches(owner).delete(COLUMNS, lambda: b"id") == 1
    assert owner.asked == []


@pytest.mark.parametrize("batch", [UnavailableError("not sent"), OperationTimeoutError("sent")])
async def test_a_key_is_done_alone_by_the_id_it_had_in_the_batch(batch: CacheError) -> None:
    """So that an effect the batch had after all is found again, and counted."""
    owner = Owner(batch, Value(b"\x01"), Value(None))

    assert await batches(owner).delete(COLUMNS, lambda: b"id") == 1
    assert [part_of(b"id", 0), part_of(b"id", 1)] == [asked.operation for asked in owner.asked]


async def test_what_the_batch_did_not_is_done_alone() -> None:
    """Only those keys."""
    owner = Owner(Outcomes([1, -CODE_NOT_OWNER]), Value(b"\x01"))

    assert await batches(owner).delete(COLUMNS, lambda: b"id") == 2
    assert [b"sb"] == [asked.key for asked in owner.asked]


@pytest.mark.parametrize("batch", [UnavailableError("no"), Outcomes([-CODE_NOT_OWNER] * 2)])
async def test_a_refusal_of_all_stays_one(batch: Reply | CacheError) -> None:
    """It is safe to try again."""
    owner = Owner(batch, NoQuorumError("too few"), NoQuorumError("too few"))

    with pytest.raises(NoQuorumError, match="2 of 2 keys failed: 'a': too few; 'b': too few"):
        await batches(owner).set(COLUMNS, ENCODED, -1.0)


async def test_a_batch_that_is_half_done_says_which_half() -> None:
    """And of each key whether it may have been applied."""
    owner = Owner(Outcomes([-CODE_NOT_OWNER, 1]), NoQuorumError("too few"))

    with pytest.raises(BatchError, match="1 of 2 keys failed: 'a': too few") as caught:
        await batches(owner).set(COLUMNS, ENCODED, -1.0)
    assert list(caught.value.failed) == ["a"]
    assert isinstance(caught.value.failed["a"], NoQuorumError)


@pytest.mark.parametrize(
    "batch", [OperationTimeoutError("sent"), Outcomes([-CODE_INDETERMINATE] * 2)]
)
async def test_a_refusal_after_a_batch_that_may_have_been_applied_says_so(
    batch: Reply | CacheError,
) -> None:
    """Invariant 5: a definite failure is never visible later."""
    owner = Owner(batch, NoQuorumError("too few"), NoQuorumError("too few"))

    with pytest.raises(BatchError, match="not confirmed; then: too few") as caught:
        await batches(owner).set(COLUMNS, ENCODED, -1.0)
    assert all(type(e) is IndeterminateError for e in caught.value.failed.values())
