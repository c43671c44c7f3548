"""What a node takes from the outside world: clock, randomness, network.

The node never reaches for these itself, which is what lets the simulator run it unchanged. Real values come
from `system_environment()` in `transport/sockets.py`' place of use, `node.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from cache.clock import Clock
from cache.cluster.ids import Address
from cache.cluster.transport.base import Transport


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """The outside world, as one node sees it."""

    clock: Clock
    """Monotonic and wall time."""

    seed: Callable[[str], Random]
    """Return the random stream of that name; each name is an independent stream of this node."""

    transport: Callable[[Address], Transport]
    """Make the transport that will listen on the given bind address."""
