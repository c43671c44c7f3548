"""The one exception tree, shaped by the caller's question: was it applied?

`RejectedError` and its children mean *not applied, safe to retry*. `IndeterminateError` and its children
mean *may have been applied*; repeating the same operation id is safe, repeating the call may apply it
twice. Everything else is the caller's own mistake or a node that is closed.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any


class CacheError(Exception):
    """Base of every exception this library raises on purpose."""


class ConfigError(CacheError, ValueError):
    """A configuration field has a bad value; raised at construction and names the field."""


class ClosedError(CacheError):
    """The node, map or connection was closed (or never started)."""


class WrongLoopError(CacheError, RuntimeError):
    """Something was used from another event loop, or thread, than the one it lives on."""


class ForkedProcessError(ClosedError):
    """What was used belongs to the parent of this forked process; here it is closed."""


class CodecError(CacheError, ValueError):
    """A key or value cannot be encoded or decoded, or is over its size limit."""


class RemoteProtocolError(CacheError):
    """The peer broke a rule of the wire protocol; its connection is closed."""


class JoinRefusedError(CacheError):
    """A seed refused this node (other cluster name, secret, partition count or protocol version)."""


class RejectedError(CacheError):
    """The operation was not applied anywhere; it is safe to retry."""


class NotOwnerError(RejectedError):
    """The member that was asked does not own the partition (its table is newer than the caller's)."""


class WrongTypeError(CacheError, TypeError):
    """The stored value has another type than the operation needs; nothing was changed."""


class SignatureError(CacheError):
    """A pickled value was not signed with a known key; it was not unpickled."""


class LoaderError(CacheError):
    """The factory of `get_or_set` failed on another member, with an exception unknown here."""


class UnknownProcessorError(RejectedError):
    """The key's owner knows no function of that name; every member has to register it."""


class ProcessorError(CacheError):
    """A function run by `execute` raised an exception unknown here; nothing was changed."""


class NotLeaderError(RejectedError):
    """The member that was asked does not lead the group."""


class NoQuorumError(RejectedError):
    """Too few members or copies are reachable for the configured quorum."""


class SessionLostError(RejectedError):
    """This node's session with a group of the cluster is over; what depended on it is lost."""


class OverloadedError(RejectedError):
    """A bounded queue is full; retry later or slow down."""


class StoreError(RejectedError):
    """The store behind a map failed: a write was not applied, a read found nothing out."""


class UnavailableError(RejectedError):
    """The operation could not be started before its deadline (for example no owner was reachable)."""


class LockTimeoutError(RejectedError, TimeoutError):
    """The lock was not to be had within `wait` seconds; the caller does not hold it."""


class LockLostError(CacheError):
    """The lease ended before the lock was given back: another may have held it meanwhile."""


class IndeterminateError(CacheError):
    """The operation may or may not have been applied."""


class BatchError(IndeterminateError):
    """Some keys of a call about several failed; the others were applied.

    `failed` maps each key that failed to its (first) error, which says whether it may have been applied.
    """

    def __init__(self, text: str, failed: Mapping[Any, Exception] = MappingProxyType({})) -> None:
        super().__init__(text)
        self.failed = dict(failed)  # Any: keys of type str, bytes or int


class OperationTimeoutError(IndeterminateError, TimeoutError):
    """The deadline passed after the operation had been sent."""


class ConnectionLostError(IndeterminateError, ConnectionError):
    """The connection broke after the operation had been sent."""


class StorageError(CacheError):
    """A store failed, or refuses; what was not acknowledged before may be stored or not."""


class StorageFullError(StorageError):
    """The disk (or the store's limit) is full. The store has stopped; free some room and open it again."""


class StorageFailedError(StorageError):
    """The device or file system reported an error. The store has stopped; nothing it did since is certain."""


class CorruptStorageError(StorageError):
    """What was read is not what was written. `record` names it; it was not returned."""

    def __init__(self, text: str, record: str = "") -> None:
        super().__init__(text)
        self.record = record


class StorageInUseError(StorageError):
    """Another process (or another store in this one) has the directory open."""


class StorageMismatchError(StorageError):
    """The store belongs to another cluster or node, or was written by a newer version of this library."""
