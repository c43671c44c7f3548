"""What a node takes from the outside world: clock, randomness, network, storage.

The node never reaches for these itself, which is what lets the simulator run it unchanged. Real values come
from `system_environment()` in `system.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from cache.clock import Clock
from cache.cluster.config import ClusterConfig
from cache.cluster.ids import Address
from cache.cluster.transport.base import Transport

if TYPE_CHECKING:
    from cache.storage.base import Identity, Storage


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """The outside world, as one node sees it."""

    clock: Clock
    """Monotonic and wall time."""

    seed: Callable[[str], Random]
    """Return the random stream of that name; each name is an independent stream of this node."""

    transport: Callable[[Address], Transport]
    """Make the transport that will listen on the given bind address."""

    storage: Callable[[str, Identity], Storage]
    """Make the store, still to be opened, in a `data_dir`; and whose it is."""

    kept_name: Callable[[str, str], str]
    """Return the name kept in a `data_dir`; keep the given one when there is none."""


def member_name(config: ClusterConfig, environment: Environment) -> str:
    """Return the name of a new node: the configured one, that of its folder, or one that is drawn.

    Raises:
        StorageError: its folder does not say.
    """
    if config.name is not None:
        return config.name
    drawn = f"node-{environment.seed('name').getrandbits(32):08x}"
    return drawn if config.data_dir is None else environment.kept_name(config.data_dir, drawn)


def store_of(config: ClusterConfig, environment: Environment, name: str) -> Storage | None:
    """Return where a node keeps what outlives it, still to be opened; None if it keeps nothing."""
    if config.data_dir is None:
        return None
    from cache.storage.base import Identity  # noqa: PLC0415  a node in memory needs none of it

    return environment.storage(config.data_dir, Identity(config.cluster_name, name))
