"""The real world as an `Environment`: system clock, system entropy, real sockets and folders."""

from __future__ import annotations

from functools import partial
from random import Random, SystemRandom

from cache.clock import SystemClock
from cache.cluster.config import TlsConfig
from cache.cluster.data_dir import kept_name, open_storage
from cache.cluster.environment import Environment
from cache.cluster.transport.base import StreamPaths
from cache.cluster.transport.sockets import SocketTransport
from cache.metrics import Metrics


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
        storage=open_storage,
        kept_name=kept_name,
    )


def _entropy(name: str) -> Random:
    """Return a stream; that of handshakes cannot be computed from the nonces that strangers see."""
    return SystemRandom() if name == "rpc" else Random()
