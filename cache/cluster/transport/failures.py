"""Exceptions across the wire: the one place that maps an exception to a `Failure` and back.

What must survive the trip is the answer to "was it applied?". An exception this library does not raise on
purpose says nothing about that, so it arrives as `IndeterminateError`, as does a code this version does
not know.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from cache.cluster.wire import messages
from cache.cluster.wire.messages import Failure
from cache.errors import (
    CacheError,
    ClosedError,
    CodecError,
    ConfigError,
    IndeterminateError,
    NoQuorumError,
    NotOwnerError,
    OverloadedError,
    RejectedError,
    RemoteProtocolError,
    StoreError,
    UnavailableError,
    WrongTypeError,
)

TEXT_MAX: Final = 1000
"""Characters of an error's text that travel."""

_EXCEPTIONS: Final[Mapping[int, type[CacheError]]] = MappingProxyType(
    {
        messages.CODE_INTERNAL: IndeterminateError,
        messages.CODE_NOT_OWNER: NotOwnerError,
        messages.CODE_NO_QUORUM: NoQuorumError,
        messages.CODE_OVERLOADED: OverloadedError,
        messages.CODE_BAD_REQUEST: RemoteProtocolError,
        messages.CODE_CLOSED: ClosedError,
        messages.CODE_INDETERMINATE: IndeterminateError,
        messages.CODE_TYPE: WrongTypeError,
        messages.CODE_UNAVAILABLE: UnavailableError,
        messages.CODE_STORE: StoreError,
    }
)

# Most special first: the first class that matches decides.
_CODES: Final[tuple[tuple[type[CacheError], int], ...]] = (
    (NotOwnerError, messages.CODE_NOT_OWNER),
    (NoQuorumError, messages.CODE_NO_QUORUM),
    (OverloadedError, messages.CODE_OVERLOADED),
    (StoreError, messages.CODE_STORE),
    (RejectedError, messages.CODE_UNAVAILABLE),
    (IndeterminateError, messages.CODE_INDETERMINATE),
    (WrongTypeError, messages.CODE_TYPE),
    (ClosedError, messages.CODE_CLOSED),
    (RemoteProtocolError, messages.CODE_BAD_REQUEST),
    (CodecError, messages.CODE_BAD_REQUEST),
    (ConfigError, messages.CODE_BAD_REQUEST),  # of a map that a client named
)


def failure_to_exception(failure: Failure) -> CacheError:
    """Return the exception that a caller gets for a peer's `Failure`."""
    return _EXCEPTIONS.get(failure.code, IndeterminateError)(failure.text)


def exception_to_failure(error: BaseException) -> Failure:
    """Return the `Failure` that tells a peer about `error`.

    Only exceptions of this library carry their text across; that of others may hold user values.
    """
    for error_type, code in _CODES:
        if isinstance(error, error_type):
            return Failure(code, _clean(str(error)))
    return Failure(messages.CODE_INTERNAL, f"internal error: {type(error).__name__}")


def _clean(text: str) -> str:
    return text[:TEXT_MAX].encode("utf-8", "replace").decode("utf-8")
