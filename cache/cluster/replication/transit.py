"""Times to live on the way: they are told as seconds remaining, so they grow by as long as the message takes.

Whoever sends takes off what a question to the same member took just before. A message that took longer still
is sent again: an equal version with less time left shortens the other copy's. What was not confirmed is
remembered, because equal versions look the same to a comparison, whatever their expiry. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain, repeat
from typing import Final

from cache.cluster.ids import Address
from cache.cluster.replication.differences import Key
from cache.cluster.replication.entries import for_each
from cache.cluster.wire.messages import NEVER, CopyEntries
from cache.errors import UnavailableError

TRANSIT_MAX: Final = 0.5
"""Seconds that entries may be on the way, and the most that is taken off for it."""


class Late:
    """Keys whose time to live on another copy may be too long."""

    def __init__(self) -> None:
        self._keys: dict[tuple[int, Address], dict[Key, None]] = {}

    def note(self, partition: int, address: Address, keys: Iterable[Key]) -> None:
        """These were long on the way to `address`, or it is not known how long."""
        if mortal := dict.fromkeys(keys):
            self._keys.setdefault((partition, address), {}).update(mortal)

    def has(self, partition: int, address: Address) -> bool:
        """Return whether something is to be sent again."""
        return (partition, address) in self._keys

    def take(self, partition: int, address: Address) -> list[Key]:
        """Return what is to be sent again; it is forgotten here."""
        return list(self._keys.pop((partition, address), ()))

    def keep(self, partitions: Iterable[int]) -> None:
        """Forget what belongs to other partitions. A member that is gone may come back with its copy."""
        kept = dict.fromkeys(partitions)
        for pair in [pair for pair in self._keys if pair[0] not in kept]:
            del self._keys[pair]


def mortal(message: CopyEntries) -> list[Key]:
    """Return the keys of those entries that live and will end."""
    names = chain.from_iterable(map(repeat, message.maps, message.counts))
    ttls = for_each(message.ttls, len(message.keys))
    columns = zip(names, message.keys, message.values, ttls, strict=True)
    return [(name, key) for name, key, value, ttl in columns if ttl != NEVER and value is not None]


def check_transit(seconds: float) -> None:
    """Refuse entries that were so long on the way: their times to live have grown too long.

    Raises:
        UnavailableError: the whole comparison is to be repeated.
    """
    if seconds > TRANSIT_MAX:
        raise UnavailableError(f"entries were {seconds:.1f} s on the way")
