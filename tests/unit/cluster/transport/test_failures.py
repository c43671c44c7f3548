"""Exceptions across the wire keep their answer to "was it applied?"."""

from __future__ import annotations

import asyncio

import pytest

from cache.cluster.transport.failures import exception_to_failure, failure_to_exception
from cache.cluster.wire import messages
from cache.cluster.wire.messages import Failure
from cache.errors import (
    CacheError,
    ClosedError,
    ConnectionLostError,
    IndeterminateError,
    NoQuorumError,
    NotLeaderError,
    NotOwnerError,
    OperationTimeoutError,
    OverloadedError,
    RejectedError,
    RemoteProtocolError,
    UnavailableError,
    WrongTypeError,
)


@pytest.mark.parametrize(
    "error_type",
    [
        NotOwnerError,
        NoQuorumError,
        OverloadedError,
        RemoteProtocolError,
        ClosedError,
        IndeterminateError,
        WrongTypeError,
        UnavailableError,
    ],
)
def test_exception_arrives_as_itself(error_type: type[CacheError]) -> None:
    """The mapping and its inverse agree for every exception that has a code."""
    arrived = failure_to_exception(exception_to_failure(error_type("why")))

    assert type(arrived) is error_type
    assert str(arrived) == "why"


@pytest.mark.parametrize("error_type", [OperationTimeoutError, ConnectionLostError])
def test_unknown_outcome_stays_unknown(error_type: type[CacheError]) -> None:
    """A member that does not know whether its copies applied a write says so."""
    arrived = failure_to_exception(exception_to_failure(error_type("x")))

    assert type(arrived) is IndeterminateError


def test_rejection_without_a_code_stays_a_rejection() -> None:
    """What was not applied must not arrive as unknown."""
    assert isinstance(
        failure_to_exception(exception_to_failure(NotLeaderError("x"))), RejectedError
    )


@pytest.mark.parametrize("error", [ValueError("a user's value"), asyncio.CancelledError()])
def test_foreign_exception_is_indeterminate_and_keeps_its_text_back(error: BaseException) -> None:
    """Only our own exceptions say what happened; other texts may hold user values."""
    failure = exception_to_failure(error)

    assert failure.code == messages.CODE_INTERNAL
    assert "user" not in failure.text
    assert type(failure_to_exception(failure)) is IndeterminateError


def test_unknown_code_is_indeterminate() -> None:
    """A newer peer may use codes that this version does not know."""
    assert type(failure_to_exception(Failure(9999, "new"))) is IndeterminateError


def test_text_is_cut_and_made_sendable() -> None:
    """Text is bounded and always encodable."""
    failure = exception_to_failure(ClosedError("\ud800" + "x" * 100_000))

    assert len(failure.text.encode()) <= 1000
