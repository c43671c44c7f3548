"""Making copies equal: bringing up joining members, anti-entropy, and offering data held by mistake.

One mechanism serves all three: compare digests, exchange the versions of the buckets that differ, send what
the other lacks, fetch what is lacked here. Everything is applied by version, so that it may run beside live
writes and may be repeated.

* *Bring-up* (owner → joining member): live writes are sent from the start, then the differences; a copy is
  reported complete only if no live write was missed meanwhile.
* *Anti-entropy* (owner ↔ replica): in the background, for ever; also right after a promotion.
* *Offers* (any member → owner): data of partitions this member is not listed for, after a split or a
  hand-over, goes to the owner before it is dropped here. This is how the two sides of a split merge.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from random import Random
from typing import Final, NamedTuple

from cache.cluster.ids import Address, MemberId
from cache.cluster.partitions.table import Table
from cache.cluster.replication.chunks import chunks
from cache.cluster.replication.copying import Copier
from cache.cluster.replication.differences import Key, batches, by_map, difference
from cache.cluster.replication.merges import MergeReport, Merges
from cache.cluster.replication.ownership import Ownership
from cache.cluster.replication.replica import PartitionReplica
from cache.cluster.replication.service import ReplicationService
from cache.cluster.replication.transit import TRANSIT_MAX, check_transit
from cache.cluster.transport.rpc import Peer
from cache.cluster.wire.messages import (
    Buckets,
    Digests,
    Entries,
    EntryRecord,
    FetchBuckets,
    FetchDigests,
    FetchEntries,
    FetchVersions,
    KeyVersion,
    Offer,
    Offered,
    OperationRecord,
    Replicate,
    Reply,
    Versions,
)
from cache.errors import CacheError
from cache.metrics import Metrics

logger = logging.getLogger(__name__)

CALL_TIMEOUT: Final = 5.0
"""Seconds for one repair message; repairs are repeated, so this only bounds a wait."""

RETRY_INTERVAL: Final = 0.1
REPORT_INTERVAL: Final = 0.3
"""Seconds after which a complete copy is reported again while the table does not list it."""

OFFER_INTERVAL: Final = 1.0
"""Seconds between two looks for data held by mistake, if nothing else asks for one."""

DOUBT_INTERVAL: Final = 1.0
"""Seconds until copies are compared again while a write is known to be on some of them only."""

DIGEST_BATCH: Final = 128
"""Partitions compared by one message."""


class Repair:
    """Keeps copies complete and equal."""

    def __init__(self, *, replication: ReplicationService, rng: Random, metrics: Metrics) -> None:
        self._replication = replication
        self._config = replication.config
        self._clock = replication.clock
        self._rng = rng
        self._rpc = replication.rpc
        self._scope = replication.scope
        self._slots = asyncio.Semaphore(self._config.migration_parallelism)
        self._copier = Copier(replication, metrics, self._merge)
        self._bringing_up: dict[MemberId, None] = {}
        self._late = replication.late
        self._table_changed = asyncio.Event()
        self._offers_due = asyncio.Event()
        self._unsettled = asyncio.Event()
        self._keys_sent = metrics.counter("repair.keys_sent")
        self._keys_fetched = metrics.counter("repair.keys_fetched")
        self._differences = metrics.counter("repair.partitions_differed")
        self._merge_won = metrics.counter("repair.merge_won")
        self._merge_lost = metrics.counter("repair.merge_lost")
        self.merges = Merges()
        self.on_merged: Callable[[MergeReport], None] | None = None
        """Called with the report of a merge that is complete."""
        self._copies_completed = metrics.counter("repair.copies_completed")
        replication.on_table(self._on_table)
        replication.on_doubt = self._unsettled.set
        self._rpc.register(Offer, self._on_offer)

    def start(self) -> None:
        """Begin the background work."""
        self._scope.spawn(self._anti_entropy(), name="anti_entropy")
        self._scope.spawn(self._offer_orphans(), name="offer_orphans")

    def _on_table(self, old: Table, new: Table) -> None:
        self._late.keep(self._replication.owned)
        self._copier.keep(new.addresses.values())
        self._table_changed.set()
        self._offers_due.set()
        if (report := self.merges.follow(old, new)) is not None:
            logger.info("repair.merged report=%s", report)
            if self.on_merged is not None:
                self.on_merged(report)
        owned, me = self._replication.owned, self._replication.member
        joining = dict.fromkeys(
            holder for one in owned.values() if one.row.joining for holder in one.row.joining
        )
        promoted = any(old.owners[partition] not in (me, None) for partition in owned)
        for holder in joining:
            if holder not in self._bringing_up:
                self._bringing_up[holder] = None
                self._scope.spawn(self._bring_up(holder), name=f"bring_up.{holder}")
        if promoted or any(not one.settled for one in owned.values()):
            self._unsettled.set()

    # -- bring-up ----------------------------------------------------------------------------

    async def _bring_up(self, holder: MemberId) -> None:
        try:
            while todo := self._joining(holder):
                fresh = [owned for owned in todo if holder not in owned.joined]
                self._table_changed.clear()
                for start in range(0, len(fresh), DIGEST_BATCH):
                    await self._complete(holder, fresh[start : start + DIGEST_BATCH])
                await self._report(holder)
                interval = REPORT_INTERVAL if self._all_joined(holder) else RETRY_INTERVAL
                await _event_or_timeout(self._table_changed, interval)
        finally:
            self._bringing_up.pop(holder, None)

    def _joining(self, holder: MemberId) -> list[Ownership]:
        owned = self._replication.owned
        return [owned[p] for p in sorted(owned) if holder in owned[p].row.joining]

    def _all_joined(self, holder: MemberId) -> bool:
        return all(holder in owned.joined for owned in self._joining(holder))

    async def _report(self, holder: MemberId) -> None:
        pairs = [(owned.partition, holder) for owned in self._joining(holder)]
        pairs = [pair for pair in pairs if holder in self._replication.owned[pair[0]].joined]
        if pairs:
            await self._replication.partitions.report_caught_up(pairs)

    async def _complete(self, holder: MemberId, batch: Sequence[Ownership]) -> None:
        """Make `holder`'s copies of a batch of partitions complete, as far as it answers."""
        address = self._replication.address_of(holder)
        if address is None:
            return
        for ownership in batch:
            ownership.activate(holder)
        try:
            unequal = await self._compare(address, batch)
            await asyncio.gather(*(self._synchronize(one, address) for one in unequal))
        except CacheError as error:
            logger.debug("repair.bring_up_failed holder=%s error=%s", holder, error)
            for ownership in batch:
                ownership.deactivate(holder)
            return
        for ownership in batch:
            # A live write that `holder` missed took it out of `holders`: start again.
            if holder in ownership.holders and holder in ownership.row.joining:
                ownership.joined[holder] = None
                self._copies_completed.add()
        await self._report(holder)

    async def _compare(self, address: Address, batch: Sequence[Ownership]) -> list[_Unequal]:
        """Return those of `batch` whose copy at `address` is not equal to the one here."""
        message = FetchDigests(
            partitions=[owned.partition for owned in batch], epochs=[owned.epoch for owned in batch]
        )
        asked_at = self._clock.monotonic()
        answer = await self._rpc.call(address, message, timeout=CALL_TIMEOUT)
        assert isinstance(answer, Digests)
        away = self._clock.monotonic() - asked_at
        theirs = {partition: (count, digest) for partition, count, digest in answer.digests}
        found = [(owned, *theirs.get(owned.partition, (0, 0))) for owned in batch]
        return [
            _Unequal(owned, count == 0, away)
            for owned, count, digest in found
            if (count, digest) != (owned.replica.entry_count, owned.replica.digest())
            or self._late.has(owned.partition, address)
        ]

    # -- one partition, one other copy -------------------------------------------------------

    async def _synchronize(self, found: _Unequal, address: Address) -> None:
        """Make the copy at `address` and the one here equal."""
        self._differences.add()
        async with self._slots:
            ownership, away = found.ownership, found.away
            partition, replica, send = ownership.partition, ownership.replica, self._copier.send
            buckets: list[int] = []
            if not found.is_empty:
                asked_at = self._clock.monotonic()
                buckets = await self._differing_buckets(partition, replica, address)
                away = self._clock.monotonic() - asked_at
            await send(ownership, by_map(self._late.take(partition, address)), address, away)
            if found.is_empty:
                await send(ownership, replica.everything(), address, away)
            for batch in batches(buckets, replica.entry_count):
                theirs = await self._versions(partition, batch, address)
                later, fetch = difference(replica.versions(batch), theirs)
                await send(ownership, by_map(later), address, away)
                await self._fetch(ownership, fetch, address)
            if operations := replica.operations.all():
                message = Replicate(
                    partition=partition,
                    epoch=ownership.epoch,
                    entries=[],
                    operations=operations,
                    evicted=[],
                )
                await self._rpc.call(address, message, timeout=CALL_TIMEOUT)

    async def _differing_buckets(
        self, partition: int, replica: PartitionReplica, address: Address
    ) -> list[int]:
        """Return the buckets that differ from those of the copy at `address`."""
        answer = await self._rpc.call(
            address, FetchBuckets(partition=partition), timeout=CALL_TIMEOUT
        )
        assert isinstance(answer, Buckets)
        pairs = zip(replica.bucket_digests(), answer.digests, strict=False)
        return [bucket for bucket, (mine, theirs) in enumerate(pairs) if mine != theirs]

    async def _versions(
        self, partition: int, buckets: list[int], address: Address
    ) -> list[KeyVersion]:
        message = FetchVersions(partition=partition, buckets=buckets)
        answer = await self._rpc.call(address, message, timeout=CALL_TIMEOUT)
        assert isinstance(answer, Versions)
        return answer.versions

    async def _fetch(self, ownership: Ownership, keys: Sequence[Key], address: Address) -> None:
        limit = self._config.limits.batch_keys_max
        for start in range(0, len(keys), limit):
            message = FetchEntries(
                partition=ownership.partition, keys=list(keys[start : start + limit])
            )
            sent_at = self._clock.monotonic()
            answer = await self._rpc.call(address, message, timeout=CALL_TIMEOUT)
            assert isinstance(answer, Entries)
            check_transit(self._clock.monotonic() - sent_at)
            self._keys_fetched.add(len(answer.entries))
            self._merge(ownership, answer.entries, answer.operations, sent_at)

    def _merge(
        self,
        ownership: Ownership,
        records: Sequence[EntryRecord],
        operations: Sequence[OperationRecord],
        told_at: float,
    ) -> asyncio.Future[None] | None:
        """Take the later ones of `records` into the owner's copy and into every other copy.

        Their times to live count from `told_at`.
        """
        if self._replication.owned.get(ownership.partition) is not ownership:
            return None
        wall = self._clock.wall()
        changes = []
        overtaken: dict[Key, None] = {}
        for record in records:
            if not self._replication.hlc.observe(record.hlc, wall):
                continue
            entry = self._replication.received(record, told_at)
            held = ownership.replica.entry(record.map, record.key)
            if ownership.replica.prevails(record.map, record.key, entry):
                changes.append((record.map, record.key, entry))
            elif held is not None and held.version > entry.version:
                overtaken[record.map, record.key] = None
        self._merge_won.add(len(changes))
        self._merge_lost.add(len(records) - len(changes))
        self.merges.count(
            won=len(changes),
            lost=len(records) - len(changes),
            tombstones=sum(entry.value is None for _, _, entry in changes),
        )
        if not changes:
            return None
        # An operation whose effect did not win has none: a retry is to have it again.
        effective = [op for op in operations if (op.map, op.key) not in overtaken]
        pending = self._replication.commit(ownership, changes, effective, merging=True)
        return None if pending is None else pending.future

    # -- anti-entropy ------------------------------------------------------------------------

    async def _anti_entropy(self) -> None:
        while True:
            self._unsettled.clear()
            await self._compare_with_replicas()
            pause = self._config.anti_entropy_interval * self._rng.uniform(0.75, 1.25)
            if self._replication.doubtful:
                pause = min(pause, DOUBT_INTERVAL)
            await _event_or_timeout(self._unsettled, pause)

    async def _compare_with_replicas(self) -> None:
        by_holder: dict[MemberId, list[Ownership]] = {}
        for partition in sorted(self._replication.owned):
            ownership = self._replication.owned[partition]
            for holder in ownership.row.replicas[1:]:
                by_holder.setdefault(holder, []).append(ownership)
        doubtful = list(self._replication.doubtful)  # Not those that come up meanwhile.
        failed: dict[int, None] = {}
        for holder, owned in by_holder.items():
            for start in range(0, len(owned), DIGEST_BATCH):
                batch = owned[start : start + DIGEST_BATCH]
                if not await self._compare_with(holder, batch):
                    failed.update((ownership.partition, None) for ownership in batch)
        for partition in doubtful:
            if partition not in failed:
                self._replication.doubtful.pop(partition, None)
        for partition, ownership in list(self._replication.owned.items()):
            if not ownership.settled and partition not in failed:
                ownership.settled = True
                self._replication.refresh_serving(partition)
        if failed and any(not owned.settled for owned in self._replication.owned.values()):
            await asyncio.sleep(RETRY_INTERVAL)
            self._unsettled.set()

    async def _compare_with(self, holder: MemberId, batch: Sequence[Ownership]) -> bool:
        address = self._replication.address_of(holder)
        current = [o for o in batch if self._replication.owned.get(o.partition) is o]
        if address is None or not current:
            return True
        try:
            for unequal in await self._compare(address, current):
                await self._synchronize(unequal, address)
        except CacheError as error:
            logger.debug("repair.anti_entropy_failed holder=%s error=%s", holder, error)
            return False
        return True

    # -- offers ------------------------------------------------------------------------------

    def orphans(self) -> list[int]:
        """Partitions held here with data, although the table does not list this member for them."""
        rows, member = self._replication.partitions.table.rows, self._replication.member
        return [
            partition
            for partition in sorted(self._replication.copies)
            if member not in rows[partition].replicas and self._strays(partition)
        ]

    def _strays(self, partition: int) -> bool:
        """Return whether this member holds data of a partition without being listed for it."""
        row = self._replication.partitions.table.rows[partition]
        copy, member = self._replication.copies.get(partition), self._replication.member
        return (
            copy is not None
            and copy.entry_count > 0
            and member not in row.replicas
            and member not in row.joining
        )

    async def _offer_orphans(self) -> None:
        while True:
            # A new table is the usual cause. A write that was under way when this member ceased to be a
            # copy arrives after it, so look from time to time as well.
            await _event_or_timeout(self._offers_due, OFFER_INTERVAL)
            self._offers_due.clear()
            for partition in self.orphans():
                try:
                    await self._offer(partition)
                except CacheError as error:
                    logger.debug("repair.offer_failed partition=%d error=%s", partition, error)
            if self.orphans():
                await asyncio.sleep(RETRY_INTERVAL)
                self._offers_due.set()

    async def _offer(self, partition: int) -> None:
        table = self._replication.partitions.table
        owner = table.rows[partition].owner
        address = None if owner is None else table.addresses.get(owner)
        if address is None or not self._strays(partition):
            return
        replica = self._replication.copies[partition]
        wanted = self._replication.wanted[partition]
        asked_at = self._clock.monotonic()
        buckets = await self._differing_buckets(partition, replica, address)
        away = min(self._clock.monotonic() - asked_at, TRANSIT_MAX)
        for batch in batches(buckets, replica.entry_count):
            theirs = await self._versions(partition, batch, address)
            send, _ = difference(replica.versions(batch), theirs)
            chunk_bytes = self._config.chunk_bytes
            for records in chunks(
                replica, send, chunk_bytes, lambda: self._clock.monotonic() + away
            ):
                message = Offer(
                    partition=partition,
                    entries=records,
                    operations=replica.operations.about(records),
                )
                answer = await self._rpc.call(address, message, timeout=CALL_TIMEOUT)
                assert isinstance(answer, Offered)
                self._keys_sent.add(len(records))
        # Only what this very owner took may go: it must still be the owner, and this no copy, by the current
        # table. Until every copy is complete the owner may hold the only other one, so that this one stays
        # and is offered again. It stays, too, if an owner asked what it holds: that one may count on it.
        if not await self._replication.partitions.confirm(CALL_TIMEOUT):
            return
        current = self._replication.partitions.table.rows[partition]
        is_stray = current.owner == owner and not current.joining and self._strays(partition)
        if is_stray and self._replication.wanted[partition] == wanted:
            self._replication.drop_copy(partition)

    async def _on_offer(self, message: Offer, peer: Peer) -> Reply:
        ownership = self._replication.serve(message.partition)
        won = self._merge_won.value
        now = self._clock.monotonic()
        confirmed = self._merge(ownership, message.entries, message.operations, now)
        won = self._merge_won.value - won
        if confirmed is not None:
            await confirmed
        return Offered(won=won, lost=len(message.entries) - won)


class _Unequal(NamedTuple):
    """A copy elsewhere that is not equal to the one here, when it was asked."""

    ownership: Ownership
    is_empty: bool
    """There was nothing in it: all that has come since is this owner's."""
    away: float
    """Seconds that the question took."""


async def _event_or_timeout(event: asyncio.Event, seconds: float) -> None:
    """Return when the event is set, or after so long."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
