"""The exception tree answers: was it applied?"""

from __future__ import annotations

import pytest

from cache import errors
from cache.errors import (
    CacheError,
    CodecError,
    ConfigError,
    ConnectionLostError,
    IndeterminateError,
    NoQuorumError,
    NotLeaderError,
    NotOwnerError,
    OperationTimeoutError,
    OverloadedError,
    RejectedError,
    UnavailableError,
    WrongTypeError,
)


def _all_errors() -> list[type[BaseException]]:
    return [
        value
        for value in vars(errors).values()
        if isinstance(value, type) and value.__module__ == errors.__name__
    ]


@pytest.mark.parametrize("error", _all_errors())
def test_every_error_is_a_cache_error(error: type[BaseException]) -> None:
    """One `except CacheError` catches all that the library raises on purpose."""
    assert issubclass(error, CacheError)


@pytest.mark.parametrize(
    "error", [NotOwnerError, NotLeaderError, NoQuorumError, OverloadedError, UnavailableError]
)
def test_error_says_not_applied(error: type[CacheError]) -> None:
    """`RejectedError`: not applied, safe to retry."""
    assert issubclass(error, RejectedError)


@pytest.mark.parametrize("error", [OperationTimeoutError, ConnectionLostError])
def test_error_says_maybe_applied(error: type[CacheError]) -> None:
    """`IndeterminateError`: may have been applied."""
    assert issubclass(error, IndeterminateError)


@pytest.mark.parametrize("error", _all_errors())
def test_no_error_is_both_rejected_and_indeterminate(error: type[BaseException]) -> None:
    """The two answers exclude each other."""
    assert not (issubclass(error, RejectedError) and issubclass(error, IndeterminateError))


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (ConfigError, ValueError),
        (CodecError, ValueError),
        (WrongTypeError, TypeError),
        (OperationTimeoutError, TimeoutError),
        (ConnectionLostError, ConnectionError),
    ],
)
def test_error_is_caught_by_the_builtin_users_know(
    error: type[CacheError], builtin: type[Exception]
) -> None:
    """Code written against the standard library's exceptions keeps working."""
    assert issubclass(error, builtin)
