"""Who loads which absent key: one lease per key on its owner. Pure: every method takes `now`.

A lease belongs to an attempt, named by a token. It ends with the attempt, when its holder's member is gone,
or when it was not renewed for `LEASE_SECONDS`. A write or delete of the key, or an invalidation of
tags, outdates it: those who wait then ask anew, and what the holder loads is not stored.

Leases live and die with one ownership of the partition. They are not replicated: after a change of owner the
key may be loaded once more, and what the first loader brings is given to its callers, not stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from cache.cluster.wire.messages import LOAD_BUSY

LEASE_SECONDS: Final = 10.0
"""A lease that was not renewed for so long is free; a loader that blocks its event loop renews nothing."""

LeaseKey = tuple[int, str, bytes]
"""(partition, map, key)."""

Version = tuple[int, int] | None
"""Of the entry that the lease found, None for no entry."""


@dataclass(slots=True)
class Lease:
    """The right to load one key."""

    token: bytes
    holder: str
    """Member that loads; "" for a caller on no member."""
    term: object
    """The ownership in which it was given; compared by identity."""
    version: Version
    tags: frozenset[str]
    renewed_at: float
    invalidated: dict[str, None] = field(default_factory=dict)
    waiters: dict[Callable[[int, bytes], None], None] = field(default_factory=dict)
    """Called with a `LOAD_…` turn and its value when the lease ends."""

    def end(self, turn: int, value: bytes) -> None:
        """Tell those who wait."""
        waiters, self.waiters = self.waiters, {}
        for wake in waiters:
            wake(turn, value)


class Leases:
    """The leases of the partitions this member owns."""

    def __init__(self) -> None:
        self._leases: dict[LeaseKey, Lease] = {}

    def __len__(self) -> int:
        return len(self._leases)

    def current(
        self, key: LeaseKey, term: object, now: float, is_alive: Callable[[str], bool]
    ) -> Lease | None:
        """Return the lease of a key; one that has ended by itself is forgotten."""
        lease = self._leases.get(key)
        if lease is None:
            return None
        if lease.term is term and now - lease.renewed_at < LEASE_SECONDS and is_alive(lease.holder):
            return lease
        self.finish(key)
        return None

    def grant(self, key: LeaseKey, lease: Lease) -> None:
        """Give a lease on a key that has none."""
        assert key not in self._leases, "one lease per key"
        self._leases[key] = lease

    def held(self, key: LeaseKey, token: bytes, term: object) -> Lease | None:
        """Return the lease if this attempt holds it still."""
        lease = self._leases.get(key)
        return lease if lease and lease.token == token and lease.term is term else None

    def finish(self, key: LeaseKey, turn: int = LOAD_BUSY, value: bytes = b"") -> None:
        """End a lease: those who wait get `turn` and `value`, by default they ask anew."""
        self._leases.pop(key).end(turn, value)

    def outdate(self, key: LeaseKey) -> None:
        """The key was written or deleted."""
        if key in self._leases:
            self.finish(key)

    def outdate_map(self, partition: int, map_name: str) -> None:
        """Every key of a map in this partition was deleted."""
        for key in [k for k in self._leases if k[0] == partition and k[1] == map_name]:
            self.finish(key)

    def invalidate(self, partition: int, map_name: str, tags: Iterable[str]) -> None:
        """Tags were invalidated: what is being loaded with one of them is old before it is there.

        A load without them goes on. Its loader may still add one of them, so they are remembered.
        """
        gone = dict.fromkeys(tags)
        for key, lease in list(self._leases.items()):
            if key[0] == partition and key[1] == map_name:
                if gone.keys() & lease.tags:
                    self.finish(key)
                else:
                    lease.invalidated.update(gone)
