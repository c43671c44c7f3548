"""What a campaign asks of a load, whichever it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from cache.cluster.partitions.table import map_seed, partition_of
from cache.codec import encode_key
from cache.testing.members import MemberHandle


class Clients(Protocol):
    """Clients of a cluster that note what they were told, and the checks of that."""

    def aim(self, targets: Callable[[], list[MemberHandle]]) -> None:
        """Let the clients use only these members from now on; whoever makes faults happen knows them."""
        ...

    async def run(self) -> None:
        """Let the clients work until `stop`."""
        ...

    def stop(self) -> None:
        """Let each client end after its present operation."""
        ...

    def keys(self) -> list[str]:
        """Return every key that lives for ever."""
        ...

    def partition_of(self, key: str, partition_count: int) -> int:
        """Return where a key is kept, to tell which keys went with a partition."""
        ...

    async def check(self) -> list[str]:
        """Ask for everything, once faults are over; return what breaks a promise."""
        ...

    def counts(self) -> dict[str, int]:
        """Return how many operations ended how."""
        ...


def place_of(map_name: str, key: str, partition_count: int) -> int:
    """Return the partition of a map's key."""
    return partition_of(encode_key(key), map_seed(map_name), partition_count)
