"""What a member answers about the copies it holds: writes of an owner, and questions of a comparison.

An owner is refused when its epoch is older than one this member knows, from its table or from an owner it
accepted: that is what makes a deposed owner harmless.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cache.cluster.replication.entries import entries_of, for_each
from cache.cluster.transport.failures import exception_to_failure
from cache.cluster.transport.rpc import Peer
from cache.cluster.wire.messages import (
    NEVER,
    Buckets,
    CopyEntries,
    Digests,
    Entries,
    EntryRecord,
    Failure,
    FetchBuckets,
    FetchDigests,
    FetchEntries,
    FetchVersions,
    Replicate,
    Replicated,
    ReplicatedEach,
    ReplicateEach,
    Reply,
    Versions,
)
from cache.errors import (
    CacheError,
    IndeterminateError,
    NotOwnerError,
    RemoteProtocolError,
    UnavailableError,
)
from cache.metrics import Metrics

if TYPE_CHECKING:
    from cache.cluster.replication.replica import PartitionReplica
    from cache.cluster.replication.service import ReplicationService

GROWN_OLD: Final = "{} was stalled: times to live may have grown old"
AHEAD: Final = "a version is a day ahead of this clock: set the clocks right"


class Holder:
    """Serves the copies of a `ReplicationService` to owners."""

    def __init__(self, replication: ReplicationService, metrics: Metrics) -> None:
        self._replication = replication
        self._fences: dict[int, int] = {}
        """Per partition: the latest epoch a write was accepted in; older owners are refused."""
        self._fenced = metrics.counter("replication.fenced")
        rpc = replication.rpc
        rpc.register(Replicate, self._on_replicate)
        rpc.register(ReplicateEach, self._on_replicate_each)
        rpc.register(CopyEntries, self._on_copy_entries)
        rpc.register(FetchDigests, self._on_fetch_digests)
        rpc.register(FetchBuckets, self._on_fetch_buckets)
        rpc.register(FetchVersions, self._on_fetch_versions)
        rpc.register(FetchEntries, self._on_fetch_entries)

    def _on_replicate(self, message: Replicate, peer: Peer) -> Reply:
        self._check_partition(message.partition)
        if self._replication.stalled and any(record.ttl != NEVER for record in message.entries):
            raise UnavailableError(GROWN_OLD.format(self._replication.member))
        self._check_epoch(message.partition, message.epoch, peer)
        self._raise_fence(message.partition, message.epoch)
        latest = max((record.hlc for record in message.entries), default=0)
        if not self._replication.hlc.observe(latest, self._replication.clock.wall()):
            raise RemoteProtocolError(AHEAD)
        replica = self._replication.copy_of(message.partition)
        newer = self._replication.apply_records(replica, message.entries, observed=True)
        for victim in message.evicted:
            replica.drop(victim)
        for operation in message.operations:
            replica.operations.remember(operation)
        return Replicated(newer=newer, operations=replica.operations.about(newer))

    def _on_replicate_each(self, message: ReplicateEach, peer: Peer) -> Reply:
        replication, name = self._replication, message.map
        now, wall = replication.clock.monotonic(), replication.clock.wall()
        refused: dict[int, Failure] = {}
        newer: list[tuple[int, Replicated]] = []
        # A stamp that is absurd is one write's affair, and so is a time to live that has grown old.
        if replication.stalled or not replication.hlc.observe(max(message.hlcs, default=0), wall):
            refused = self._unfit(message, wall)
        entries = entries_of(
            message.values,
            message.hlcs,
            (replication.shared_origin(message.origin),),
            message.ttls,
            now=now,
            tombstone_lifetime=replication.config.tombstone_lifetime,
        )
        table, owned, copies = replication.partitions.table, replication.owned, replication.copies
        fences, rows, owners, owner = self._fences, table.rows, table.owners, peer.member
        places = zip(message.partitions, message.epochs, message.keys, entries, strict=True)
        for place, (partition, epoch, key, entry) in enumerate(places):
            if refused and place in refused:
                continue
            if (
                fences.get(partition) != epoch
                or partition in owned
                or rows[partition].epoch != epoch
                or owners[partition] != owner
            ):
                try:
                    self._check_partition(partition)
                    self._check_epoch(partition, epoch, peer)
                    self._raise_fence(partition, epoch)
                except CacheError as error:
                    refused[place] = exception_to_failure(error)
                    continue
            replica = copies.get(partition)
            if replica is None:
                replica = replication.copy_of(partition)
            if not replica.apply(name, key, entry) and replica.is_later(name, key, entry):
                held = replica.records_for([(name, key)], now)
                newer.append((place, Replicated(held, replica.operations.about(held))))
        return ReplicatedEach([(place, refused[place]) for place in sorted(refused)], newer)

    def _unfit(self, message: ReplicateEach, wall: float) -> dict[int, Failure]:
        """Return why some writes are not taken whoever sends them, by their places."""
        refused: dict[int, Failure] = {}
        replication, stalled = self._replication, self._replication.stalled
        ttls = for_each(message.ttls, len(message.keys))
        for place, (hlc, ttl) in enumerate(zip(message.hlcs, ttls, strict=True)):
            try:
                if stalled and ttl != NEVER:
                    raise UnavailableError(GROWN_OLD.format(replication.member))
                if not replication.hlc.observe(hlc, wall):
                    raise RemoteProtocolError(AHEAD)
            except CacheError as error:
                refused[place] = exception_to_failure(error)
        return refused

    def _on_copy_entries(self, message: CopyEntries, peer: Peer) -> Reply:
        self._check_partition(message.partition)
        if self._replication.stalled and any(ttl != NEVER for ttl in message.ttls):
            raise UnavailableError(GROWN_OLD.format(self._replication.member))
        self._check_epoch(message.partition, message.epoch, peer)
        self._raise_fence(message.partition, message.epoch)
        if not self._replication.hlc.observe(max(message.hlcs), self._replication.clock.wall()):
            raise RemoteProtocolError(AHEAD)
        replica = self._replication.copy_of(message.partition)
        newer = self._fill(replica, message)
        return Replicated(newer=newer, operations=replica.operations.about(newer))

    def _fill(self, replica: PartitionReplica, message: CopyEntries) -> list[EntryRecord]:
        """Apply by version; return the entries held here that are later than the ones given."""
        replication, now = self._replication, self._replication.clock.monotonic()
        entries = entries_of(
            message.values,
            message.hlcs,
            [replication.shared_origin(origin) for origin in message.origins],
            message.ttls,
            now=now,
            tombstone_lifetime=replication.config.tombstone_lifetime,
        )
        newer: list[EntryRecord] = []
        start = 0
        for name, count in zip(message.maps, message.counts, strict=True):
            end = start + count
            for key, entry in replica.fill(name, message.keys[start:end], entries[start:end]):
                if replica.is_later(name, key, entry):
                    newer += replica.records_for([(name, key)], now)
            start = end
        return newer

    def _check_epoch(self, partition: int, epoch: int, peer: Peer) -> None:
        row = self._replication.partitions.table.rows[partition]
        stale = epoch < max(row.epoch, self._fences.get(partition, 0))
        usurper = epoch == row.epoch and row.owner not in (None, peer.member)
        if stale or usurper:
            self._fenced.add()
            raise NotOwnerError(
                f"epoch {epoch} of partition {partition} is over: "
                f"{row.owner} owns it in epoch {row.epoch}"
            )

    def _raise_fence(self, partition: int, epoch: int) -> None:
        """An owner of this epoch was accepted: older ones are over, this member maybe included."""
        self._fences[partition] = epoch
        ownership = self._replication.owned.get(partition)
        if ownership is not None and ownership.epoch < epoch:
            ownership.fence = epoch
            self._replication.refresh_serving(partition)
            ownership.abandon(
                IndeterminateError("another member took the partition over meanwhile")
            )
            self._replication.yielding.fenced()

    def _check_partition(self, partition: int) -> None:
        if not 0 <= partition < self._replication.config.partition_count:
            raise NotOwnerError(
                f"partition {partition} is outside 0..{self._replication.config.partition_count - 1}"
            )

    def _on_fetch_digests(self, message: FetchDigests, peer: Peer) -> Reply:
        """Compare copies for an owner, and fence those before it.

        1. After a split this member still owns what the owner of the merged table compares. 2. The copies
        are equal: nothing is sent. 3. A client writes here. The other would count this copy as complete.
        """
        places = list(zip(message.partitions, message.epochs, strict=True))
        for partition, epoch in places:
            self._check_partition(partition)
            self._check_epoch(partition, epoch, peer)
        for partition, epoch in places:
            self._replication.wanted[partition] += 1
            self._raise_fence(partition, epoch)
        held = [
            (p, self._replication.copies[p])
            for p in message.partitions
            if p in self._replication.copies
        ]
        return Digests(digests=[(p, copy.entry_count, copy.digest()) for p, copy in held])

    def _on_fetch_buckets(self, message: FetchBuckets, peer: Peer) -> Reply:
        self._check_partition(message.partition)
        self._replication.wanted[message.partition] += 1
        return Buckets(digests=self._replication.copy_of(message.partition).bucket_digests())

    def _on_fetch_versions(self, message: FetchVersions, peer: Peer) -> Reply:
        self._check_partition(message.partition)
        return Versions(
            versions=self._replication.copy_of(message.partition).versions(message.buckets)
        )

    def _on_fetch_entries(self, message: FetchEntries, peer: Peer) -> Reply:
        self._check_partition(message.partition)
        replica = self._replication.copy_of(message.partition)
        entries = replica.records_for(message.keys, self._replication.clock.monotonic())
        return Entries(entries=entries, operations=replica.operations.about(entries))
