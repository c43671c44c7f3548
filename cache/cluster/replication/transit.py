"""Times to live on the way: they are told as seconds remaining, so they grow by as long as the message takes.

Whoever sends takes off what a question to the same member took just before. A message that took longer still
is sent again: an equal version with less time left shortens the other copy's. What was not confirmed is
remembered, because equal versions look the same to a comparison, whatever their expiry. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from cache.cluster.ids import Address
from cache.cluster.replication.differences import Key
from cache.cluster.wire.messages import NEVER, EntryRecord

TRANSIT_MAX: Final = 0.5
"""Seconds that entries may be on the way, and the most that is taken off for it."""


class Late:
    """Keys whose time to live on another copy may be too long."""

    def __init__(self) -> None:
        self._keys: dict[tuple[int, Address], dict[Key, None]] = {}

    def note(self, partition: int, address: Address, records: Iterable[EntryRecord]) -> None:
        """These were long on the way to `address`, or it is not known how long."""
        mortal = {
            (record.map, record.key): None
            for record in records
            if record.ttl != NEVER and record.value is not None
        }
        if mortal:
            self._keys.setdefault((partition, address), {}).update(mortal)

    def has(self, partition: int, address: Address) -> bool:
        """Return whether something is to be sent again."""
        return (partition, address) in self._keys

    def take(self, partition: int, address: Address) -> list[Key]:
        """Return what is to be sent again; it is forgotten here."""
        return list(self._keys.pop((partition, address), ()))

    def keep(self, partitions: Iterable[int], addresses: Iterable[Address]) -> None:
        """Forget what belongs to other partitions or to members that are gone."""
        kept, live = dict.fromkeys(partitions), dict.fromkeys(addresses)
        for pair in [pair for pair in self._keys if pair[0] not in kept or pair[1] not in live]:
            del self._keys[pair]
