"""Who is told what changes in the partitions that this member serves.

Near caches, reliable topics and entry events all follow the same changes. As long as nobody does, copies have
no listener, and a write pays nothing.
"""

from __future__ import annotations

from functools import partial
from typing import Protocol

from cache.cluster.replication.entries import Entry
from cache.cluster.replication.replica import PartitionReplica
from cache.cluster.replication.service import ReplicationService


class Follower(Protocol):
    """What is told."""

    def on_serving(
        self, partition: int, before: PartitionReplica | None, now: PartitionReplica | None
    ) -> None:
        """A partition is served from now on, or is not served any more; before anybody else may."""
        ...

    def on_change(
        self,
        partition: int,
        map_name: str,
        key: bytes,
        before: Entry | None,
        after: Entry | None,
        cause: int,
    ) -> None:
        """An entry of a served partition changed; see `replica.Listener`."""
        ...


class Changes:
    """Listens to the copies that are served, for as long as there are followers."""

    def __init__(self, replication: ReplicationService) -> None:
        self._replication = replication
        self._followers: list[Follower] = []

    def follow(self, follower: Follower) -> None:
        """Tell `follower` of changes from now on, beginning with what is served now."""
        self._followers = [*self._followers, follower]
        if len(self._followers) == 1:
            self._replication.on_serving = self._on_serving
        for partition, replica in enumerate(self._replication.serving):
            if replica is not None:
                self._listen(partition, replica)
                follower.on_serving(partition, None, replica)

    def leave(self, follower: Follower) -> None:
        """Tell `follower` nothing more."""
        self._followers = [other for other in self._followers if other is not follower]
        if not self._followers:
            self._replication.on_serving = None
        for partition, replica in enumerate(self._replication.serving):
            if replica is not None:
                self._listen(partition, replica)

    def _listen(self, partition: int, replica: PartitionReplica) -> None:
        match self._followers:
            case []:
                replica.listener = None
            case [only]:
                replica.listener = partial(only.on_change, partition)
            case _:
                replica.listener = partial(self._on_change, partition)

    def _on_serving(
        self, partition: int, before: PartitionReplica | None, now: PartitionReplica | None
    ) -> None:
        if before is not None:
            before.listener = None
        for follower in self._followers:
            follower.on_serving(partition, before, now)
        if now is not None:
            self._listen(partition, now)

    def _on_change(
        self,
        partition: int,
        map_name: str,
        key: bytes,
        before: Entry | None,
        after: Entry | None,
        cause: int,
    ) -> None:
        for follower in self._followers:
            follower.on_change(partition, map_name, key, before, after, cause)
