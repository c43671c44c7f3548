"""The discovery seam: where a node finds its peers, and how others find this node.

A `Discovery` is a setting: it may be shared by any number of nodes and opens nothing. `presence()` gives one
node's part in it, whose methods are called in this order:

    enter -> listening -> find … find -> announce -> find … find -> withdraw

`find` is asked for ever, so a peer that appears later is reached later, and a split heals. A source that is
only looked up (a file, a DNS name) implements `find` alone. One with a register (a directory, etcd) also
announces and withdraws, and may use `enter` to let one node at a time look for a cluster or begin one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from cache.cluster.ids import Address
from cache.cluster.transport.base import StreamPaths

if TYPE_CHECKING:  # A setting of it is a `Discovery`.
    from cache.cluster.config import ClusterConfig


class Presence(ABC):
    """One node's part in a discovery, for one life of the node."""

    @property
    def is_constant(self) -> bool:
        """Whether `find` always gives the same answer, so that it need not be asked again."""
        return False

    @property
    def stream_paths(self) -> StreamPaths | None:
        """Where members of this host accept streams besides their addresses, if anywhere."""
        return None

    async def enter(self, config: ClusterConfig) -> ClusterConfig:
        """Get ready, before the node listens; return its settings with what is known here filled in.

        Raises:
            ConfigError: the source cannot be used at all; the node does not start.
        """
        return config

    async def listening(self, address: Address) -> None:  # noqa: B027  (optional)
        """Take note that the node listens at `address`, and will now look for the cluster."""

    @abstractmethod
    async def find(self) -> Sequence[Address]:
        """Return the addresses of members, as far as they are known now; this node's may be among them.

        Whatever it raises is logged and counted, and the last answer is used again.
        """

    async def announce(self) -> None:  # noqa: B027  (optional)
        """Take note that the node is in the cluster: others may join through it from now on."""

    async def withdraw(self) -> None:  # noqa: B027  (optional)
        """Forget the node. Called before it leaves, and when starting fails at any point; idempotent."""


@runtime_checkable
class Discovery(Protocol):
    """Where the members of one cluster are found."""

    def presence(self) -> Presence:
        """Return one node's part in it; no files or connections are opened yet."""
        ...
