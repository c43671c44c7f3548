"""An embedded, clustered cache and data grid: `from cache.cluster import Node, ClusterConfig`."""

from cache.durations import DEFAULT
from cache.errors import (
    CacheError,
    ClosedError,
    CodecError,
    ConfigError,
    ConnectionLostError,
    IndeterminateError,
    JoinRefusedError,
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

__all__ = [
    "DEFAULT",
    "CacheError",
    "ClosedError",
    "CodecError",
    "ConfigError",
    "ConnectionLostError",
    "IndeterminateError",
    "JoinRefusedError",
    "NoQuorumError",
    "NotLeaderError",
    "NotOwnerError",
    "OperationTimeoutError",
    "OverloadedError",
    "RejectedError",
    "RemoteProtocolError",
    "UnavailableError",
    "WrongTypeError",
]
