"""An embedded, clustered cache and data grid: `cache.open("cluster://127.0.0.1:7400/users")`.

What is more than a name is imported when it is first used, so that `import cache` takes no time.
"""

from typing import TYPE_CHECKING

from cache.durations import DEFAULT
from cache.errors import (
    BatchError,
    CacheError,
    ClosedError,
    CodecError,
    ConfigError,
    ConnectionLostError,
    ForkedProcessError,
    IndeterminateError,
    JoinRefusedError,
    LoaderError,
    LockLostError,
    LockTimeoutError,
    NoQuorumError,
    NotLeaderError,
    NotOwnerError,
    OperationTimeoutError,
    OverloadedError,
    ProcessorError,
    RejectedError,
    RemoteProtocolError,
    SignatureError,
    UnavailableError,
    UnknownProcessorError,
    WrongLoopError,
    WrongTypeError,
)

if TYPE_CHECKING:
    from cache.cluster.opened import ClusterCache
    from cache.cluster.replication.owned import accelerated
    from cache.decorator import Cached, CacheInfo, cached
    from cache.flights import Loaded
    from cache.interface import Cache, CacheEntry, CacheStats
    from cache.local import LocalCache, NullCache
    from cache.opening import open_cache as open  # noqa: A004  # `cache.open`, as `gzip.open`
    from cache.serializers import SignedPickle
    from cache.sync import SyncCache

__all__ = [
    "DEFAULT",
    "BatchError",
    "Cache",
    "CacheEntry",
    "CacheError",
    "CacheInfo",
    "CacheStats",
    "Cached",
    "ClosedError",
    "ClusterCache",
    "CodecError",
    "ConfigError",
    "ConnectionLostError",
    "ForkedProcessError",
    "IndeterminateError",
    "JoinRefusedError",
    "Loaded",
    "LoaderError",
    "LocalCache",
    "LockLostError",
    "LockTimeoutError",
    "NoQuorumError",
    "NotLeaderError",
    "NotOwnerError",
    "NullCache",
    "OperationTimeoutError",
    "OverloadedError",
    "ProcessorError",
    "RejectedError",
    "RemoteProtocolError",
    "SignatureError",
    "SignedPickle",
    "SyncCache",
    "UnavailableError",
    "UnknownProcessorError",
    "WrongLoopError",
    "WrongTypeError",
    "accelerated",
    "cached",
    "open",
]


def __getattr__(name: str) -> object:
    homes = {
        "Cache": ("cache.interface", "Cache"),
        "CacheEntry": ("cache.interface", "CacheEntry"),
        "CacheInfo": ("cache.decorator", "CacheInfo"),
        "CacheStats": ("cache.interface", "CacheStats"),
        "ClusterCache": ("cache.cluster.opened", "ClusterCache"),
        "Loaded": ("cache.flights", "Loaded"),
        "SignedPickle": ("cache.serializers", "SignedPickle"),
        "Cached": ("cache.decorator", "Cached"),
        "LocalCache": ("cache.local", "LocalCache"),
        "NullCache": ("cache.local", "NullCache"),
        "SyncCache": ("cache.sync", "SyncCache"),
        "accelerated": ("cache.cluster.replication.owned", "accelerated"),
        "cached": ("cache.decorator", "cached"),
        "open": ("cache.opening", "open_cache"),
    }
    if name not in homes:
        raise AttributeError(f"module 'cache' has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415  # as late as the rest

    module, own_name = homes[name]
    found: object = getattr(import_module(module), own_name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
