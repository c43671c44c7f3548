"""The real world as an `Environment`: system clock, system entropy, real sockets and folders."""

from __future__ import annotations

from functools import partial
from random import Random, SystemRandom
from typing import TYPE_CHECKING

from cache.clock import SystemClock
from cache.cluster.config import TlsConfig
from cache.cluster.environment import Environment
from cache.cluster.transport.base import StreamPaths
from cache.cluster.transport.sockets import SocketTransport
from cache.metrics import Metrics

if TYPE_CHECKING:
    from cache.storage.base import Identity, Storage


def system_environment(
    *,
    tls: TlsConfig | None = None,
    metrics: Metrics | None = None,
    paths: StreamPaths | None = None,
) -> Environment:
    """Return the real world; the arguments are those of its transport."""
    return Environment(
        clock=SystemClock(),
        seed=_entropy,
        transport=partial(SocketTransport, tls=tls, metrics=metrics, paths=paths),
        storage=_storage,
        kept_name=_kept_name,
    )


# A node in memory does not import SQLite and the layout of records.


def _storage(data_dir: str, identity: Identity) -> Storage:
    from cache.storage.sqlite import SqliteStorage  # noqa: PLC0415  see above

    return SqliteStorage(data_dir, identity)


def _kept_name(data_dir: str, proposed: str) -> str:
    from cache.cluster.data_dir import kept_name  # noqa: PLC0415  see above

    return kept_name(data_dir, proposed)


def _entropy(name: str) -> Random:
    """Return a stream; that of handshakes cannot be computed from the nonces that strangers see."""
    return SystemRandom() if name == "rpc" else Random()
