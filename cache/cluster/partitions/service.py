"""The partition table on every member, and the coordinator's work on the oldest one.

The pure rules stand in `coordinator.py`. This shell fetches, pushes and releases over RPC:

* Every member answers pushes and fetches, and tells its subscribers about each adopted table.
* The coordinator runs `_round` whenever something changed: collect the tables of members it has not heard
  from, compute the next table, push it to everybody until they confirm, ask owners to release.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final, TypeVar

from cache.cluster.config import ClusterConfig
from cache.cluster.ids import MemberId
from cache.cluster.membership.members import Member
from cache.cluster.membership.service import MembershipService
from cache.cluster.partitions.coordinator import Coordinator, elect
from cache.cluster.partitions.table import Table, TableVersion
from cache.cluster.partitions.updates import Updates
from cache.cluster.scope import Scope
from cache.cluster.transport.rpc import Peer, RpcEndpoint
from cache.cluster.wire.messages import (
    CaughtUp,
    CheckTable,
    Done,
    Fenced,
    FetchTable,
    PushTable,
    Release,
    Released,
    Reply,
    TableAnswer,
    TableChanges,
    TableId,
    Unreachable,
)
from cache.errors import CacheError
from cache.metrics import Metrics

logger = logging.getLogger(__name__)

CALL_TIMEOUT: Final = 1.0
"""Seconds for one table message; a peer that needs longer is asked again."""

RETRY_INTERVAL: Final = 0.1
"""Seconds between two attempts to reach a member that did not answer."""

BATCH_INTERVAL: Final = 0.005
"""Seconds in which reports are gathered before the next table is computed."""

COMPARE_INTERVAL: Final = 1.0
"""Seconds between two comparisons of a member's table with the coordinator's."""

RELEASE_BATCH: Final = 64
"""Partitions handed over at once by one owner; bounds how many are briefly unserved."""

M = TypeVar("M", CaughtUp, Unreachable, Fenced)

TableListener = Callable[[Table, Table], None]
Releaser = Callable[[list[int]], Awaitable[list[int]]]


class PartitionService:
    """Knows the current table; on the coordinator, makes the next one."""

    def __init__(
        self,
        *,
        config: ClusterConfig,
        membership: MembershipService,
        rpc: RpcEndpoint,
        metrics: Metrics,
        scope: Scope,
    ) -> None:
        self._config = config
        self._membership = membership
        self._rpc = rpc
        self._scope = scope
        self._me = membership.local().id
        self._coordinator = Coordinator(
            self._me,
            partition_count=config.partition_count,
            replica_count=config.replica_count,
        )
        self.lost: dict[int, int] = {}
        """Partitions whose loss this member witnessed: every copy died; by the table's version."""
        self._listeners: list[TableListener] = []
        self._releaser: Releaser | None = None
        self._wake = asyncio.Event()
        self._adopted = asyncio.Event()
        self._seen: dict[MemberId, None] = {}
        self._confirmed: dict[MemberId, Table] = {}
        self._pushing: dict[MemberId, None] = {}
        self._updates = Updates()
        self._releasing: dict[MemberId, None] = {}
        self._refreshing: asyncio.Future[None] | None = None
        self._tables_adopted = metrics.counter("partitions.tables_adopted")
        self._partitions_lost = metrics.counter("partitions.lost")
        self._forks_merged = metrics.counter("partitions.forks_merged")
        rpc.register(PushTable, self._on_push)
        rpc.register(TableChanges, self._on_push)
        rpc.register(FetchTable, self._on_fetch)
        rpc.register(CaughtUp, self._on_caught_up)
        rpc.register(Unreachable, self._on_unreachable)
        rpc.register(Release, self._on_release)
        rpc.register(CheckTable, self._on_check)
        rpc.register(Fenced, self._on_fenced)

    @property
    def table(self) -> Table:
        """The table this member goes by."""
        return self._coordinator.table

    def subscribe(self, listener: TableListener) -> None:
        """Call `listener(old, new)` after each adopted table."""
        self._listeners.append(listener)

    def set_releaser(self, releaser: Releaser) -> None:
        """Say who stops serving partitions on request, and returns those that are settled."""
        self._releaser = releaser

    def start(self) -> None:
        """Begin to coordinate when it falls to this member."""
        self._membership.subscribe(self._wake.set)
        self._wake.set()
        self._scope.spawn(self._coordinate(), name="coordinate")
        self._scope.spawn(self._compare_with_coordinator(), name="compare_tables")

    async def wait_ready(self) -> None:
        """Return once this member has a table that knows it."""
        while self._me not in self.table.addresses:
            self._adopted.clear()
            try:
                async with asyncio.timeout(RETRY_INTERVAL):
                    await self._adopted.wait()
            except TimeoutError:
                await self.refresh()

    def coordinator_id(self) -> MemberId:
        """The member that makes tables, see `elect`."""
        elected = elect(self._membership.members())
        return self._me if elected is None else elected.id  # None once this one left.

    def unsettled(self) -> int:
        """Count the partitions still to be moved, as far as this member coordinates; else 0."""
        return self._coordinator.unsettled() if self.coordinator_id() == self._me else 0

    # -- reports from owners -----------------------------------------------------------------

    async def report_caught_up(self, pairs: list[tuple[int, MemberId]]) -> None:
        """Tell the coordinator which joining copies are complete; the caller repeats if need be."""
        told = [(partition, str(member)) for partition, member in pairs]
        await self._report(CaughtUp(id=self._table_id(), pairs=told), self._on_caught_up)

    async def report_unreachable(self, replica: MemberId, partitions: list[int]) -> None:
        """Ask the coordinator to strike `replica`, so that writes need not wait for it."""
        message = Unreachable(id=self._table_id(), replica=replica, partitions=partitions)
        await self._report(message, self._on_unreachable)

    async def report_fenced(self, partitions: list[int]) -> None:
        """Ask the coordinator for a later epoch of partitions that this member owns by the table."""
        await self._report(Fenced(id=self._table_id(), partitions=partitions), self._on_fenced)

    async def _report(self, message: M, handler: Callable[[M, Peer], Reply]) -> None:
        member = self._membership.member(self.coordinator_id())
        if self.coordinator_id() == self._me:
            handler(message, Peer(self._me, None))
        elif member is not None:
            try:
                await self._rpc.call(member.address, message, timeout=CALL_TIMEOUT)
            except CacheError as error:
                logger.debug("partitions.report_failed coordinator=%s error=%s", member.id, error)

    # -- handlers ----------------------------------------------------------------------------

    def _on_push(self, message: PushTable | TableChanges, peer: Peer) -> Reply:
        mine = self.table
        if isinstance(message, PushTable):
            table = Table.from_record(message.table, self._config.partition_count)
        elif message.base == self._table_id():
            table = mine.with_changes(message)
        else:
            return TableAnswer(message.table.id == self._table_id(), self._table_id(), None)
        if table.id != mine.id and table.descends_from(mine.id):
            self._adopt(table)
        accepted = self.table.id == table.id
        mine_told = None if accepted else self.table.to_record()
        return TableAnswer(accepted, self._table_id(), mine_told)

    def _on_fetch(self, message: FetchTable, peer: Peer) -> Reply:
        return TableAnswer(accepted=True, id=self._table_id(), table=self.table.to_record())

    def _on_caught_up(self, message: CaughtUp, peer: Peer) -> Reply:
        pairs = [
            (partition, MemberId(member))
            for partition, member in message.pairs
            if 0 <= partition < self._config.partition_count
            and self.table.rows[partition].owner == peer.member
        ]
        by = TableVersion(message.id.version, MemberId(message.id.coordinator))
        self._coordinator.caught_up(pairs, by)
        self._wake.set()
        return Done()

    def _on_unreachable(self, message: Unreachable, peer: Peer) -> Reply:
        partitions = self._owned_by(peer.member, message.partitions)
        self._coordinator.strike(partitions, MemberId(message.replica))
        self._wake.set()
        return Done()

    def _on_fenced(self, message: Fenced, peer: Peer) -> Reply:
        if message.id == self._table_id():  # Else it is to follow the current table first.
            self._coordinator.renew(self._owned_by(peer.member, message.partitions))
            self._wake.set()
        return Done()

    def _owned_by(self, owner: MemberId | None, partitions: list[int]) -> list[int]:
        count = self._config.partition_count
        return [p for p in partitions if 0 <= p < count and self.table.rows[p].owner == owner]

    def _on_check(self, message: CheckTable, peer: Peer) -> Reply:
        theirs = TableVersion(message.id.version, MemberId(message.id.coordinator))
        if theirs != self.table.id and peer.member is not None:
            self._confirmed.pop(peer.member, None)
            if not self.table.descends_from(theirs):
                self._seen.pop(peer.member, None)  # Fetch it: it may be another branch.
            self._wake.set()
        accepted = theirs == self.table.id
        return TableAnswer(accepted=accepted, id=self._table_id(), table=None)

    async def _on_release(self, message: Release, peer: Peer) -> Reply:
        if message.id != self._table_id() or self._releaser is None:
            return Released(partitions=[])
        count = self._config.partition_count
        valid = [partition for partition in message.partitions if 0 <= partition < count]
        return Released(partitions=await self._releaser(valid))

    def _table_id(self) -> TableId:
        return TableId(version=self.table.id.version, coordinator=self.table.id.coordinator)

    # -- adopting ----------------------------------------------------------------------------

    def _adopt(self, table: Table) -> None:
        old = self.table
        self._coordinator.adopt(table)
        self._announce(old)
        self._wake.set()  # If it falls to this member to coordinate, it goes on from here.

    def _announce(self, old: Table) -> None:
        new = self.table
        self._tables_adopted.add()
        if old.id.version:  # A member that just joined did not witness what was lost before.
            self._note_losses(old, new)
        logger.debug(
            "partitions.table version=%d coordinator=%s", new.id.version, new.id.coordinator
        )
        for listener in self._listeners:
            listener(old, new)
        self._adopted.set()

    def _note_losses(self, old: Table, new: Table) -> None:
        """Report, on every member, partitions of which every copy died."""
        lost = [p for p in new.changed_since(old) if new.rows[p].lost > old.rows[p].lost]
        if lost:
            self.lost.update((partition, new.rows[partition].lost) for partition in lost)
            self._partitions_lost.add(len(lost))
            logger.warning("partitions.lost count=%d partitions=%s", len(lost), lost[:16])

    async def refresh(self) -> None:
        """Fetch the coordinator's table, together with everybody else who wants it now."""
        if self._refreshing is not None:
            await asyncio.shield(self._refreshing)
            return
        done = self._refreshing = asyncio.get_running_loop().create_future()
        try:
            await self._refresh()
        finally:
            self._refreshing = None
            done.set_result(None)

    async def _refresh(self) -> None:
        member = self._membership.member(self.coordinator_id())
        if member is None or member.id == self._me:
            return
        table = await self._fetch(member)
        if table is not None and table.id != self.table.id:
            if table.descends_from(self.table.id):
                self._adopt(table)

    async def confirm(self, timeout: float) -> bool:
        """Ask the coordinator whether this table is the current one, and follow a newer one.

        Returns:
            Whether this member now goes by the table that was current at some instant during the call.
        """
        member = self._membership.member(self.coordinator_id())
        if member is None or member.id == self._me:
            return member is not None and self.table.id.coordinator == self._me
        try:
            async with asyncio.timeout(timeout):
                question = CheckTable(id=self._table_id())
                answer = await self._rpc.call(member.address, question, timeout=timeout)
                assert isinstance(answer, TableAnswer)
                if answer.id.coordinator != member.id:
                    return False  # A new coordinator, which does not know all tables yet.
                if answer.id != self._table_id():
                    await self._refresh()
        except (CacheError, TimeoutError) as error:
            logger.debug("partitions.confirm_failed coordinator=%s error=%s", member.id, error)
            return False
        return self.table.id.coordinator == member.id and self.table.id.version >= answer.id.version

    async def _fetch(self, member: Member) -> Table | None:
        try:
            answer = await self._rpc.call(member.address, FetchTable(), timeout=CALL_TIMEOUT)
            assert isinstance(answer, TableAnswer)
            if answer.table is None:
                return None
            return Table.from_record(answer.table, self._config.partition_count)
        except CacheError as error:
            logger.debug("partitions.fetch_failed member=%s error=%s", member.id, error)
            return None

    async def revalidate(self) -> None:
        """Ask every member whether there is a newer table; used after this member was stalled."""
        others = [member for member in self._membership.members() if member.id != self._me]
        self._take_in(await self._fetch_all(others), mine=0)

    async def _fetch_all(self, members: Iterable[Member]) -> list[Table]:
        fetched = await asyncio.gather(*(self._fetch(member) for member in members))
        return [table for table in fetched if table is not None]

    def _take_in(self, tables: Sequence[Table], *, mine: int) -> None:
        """Take in what others go by; of two branches the one that more members go by is kept.

        `mine` is what this member counts for itself: nothing after it stood still.
        """
        like_mine = [table for table in tables if table.descends_from(self.table.id)]
        forks = [table for table in tables if self._is_fork(table)]
        for table in (*like_mine, *forks):
            self._absorb(table, yielding=len(forks) > len(like_mine) + mine)
            self._wake.set()

    async def _compare_with_coordinator(self) -> None:
        """Tell the coordinator from time to time which table this member goes by.

        A coordinator that was stalled or cut off does not know that others made tables without it.
        """
        while True:
            await asyncio.sleep(COMPARE_INTERVAL)
            await self._compare()

    async def _compare(self) -> None:
        member = self._membership.member(self.coordinator_id())
        if member is not None and member.id != self._me:
            try:
                question = CheckTable(id=self._table_id())
                await self._rpc.call(member.address, question, timeout=CALL_TIMEOUT)
            except CacheError as error:
                logger.debug("partitions.check_failed coordinator=%s error=%s", member.id, error)

    # -- coordinating ------------------------------------------------------------------------

    async def _coordinate(self) -> None:
        while True:
            await self._wake.wait()
            if len(self._membership.members()) > 1:  # Else there is nobody to wait for.
                await asyncio.sleep(BATCH_INTERVAL)
            self._wake.clear()
            if self.coordinator_id() == self._me:
                await self._round()
            else:
                self._seen.clear()
                self._confirmed.clear()
                if self.table.id.coordinator != self.coordinator_id():
                    # It took over, or came back and does not know what others made meanwhile.
                    self._scope.spawn(self._compare(), name="compare_tables_now")

    async def _round(self) -> None:
        members = self._membership.members()
        await self._collect(members)
        members = self._membership.members()
        if self._is_minority(members):
            return
        old = self.table
        plan = self._coordinator.advance(members)
        if plan.table is not None:
            self._announce(old)
        self._push_to_all(members)
        for owner, partitions in plan.releases.items():
            if owner not in self._releasing:
                self._releasing[owner] = None
                self._scope.spawn(
                    self._release(owner, partitions[:RELEASE_BATCH]), name=f"release.{owner}"
                )

    def _is_minority(self, members: list[Member]) -> bool:
        """Below the quorum nothing is moved, unless the cluster is only growing towards it."""
        live = {member.id: None for member in members}
        complete = all(member in live for member in self.table.addresses)
        return len(members) < self._config.member_quorum and not complete

    async def _collect(self, members: list[Member]) -> None:
        """Learn the tables of members not heard from since this member began to coordinate."""
        others = [member for member in members if member.id != self._me]
        unseen = [member for member in others if member.id not in self._seen]
        tables = await self._fetch_all(unseen)
        if any(self._is_fork(table) for table in tables) and len(unseen) < len(others):
            tables = await self._fetch_all(others)
        self._seen.update(dict.fromkeys(member.id for member in unseen))
        self._take_in(tables, mine=1)
        live = {member.id: None for member in members}
        for gone in [member for member in self._seen if member not in live]:
            del self._seen[gone]
            self._confirmed.pop(gone, None)

    def _is_fork(self, table: Table) -> bool:
        mine = self.table
        return not table.descends_from(mine.id) and not mine.descends_from(table.id)

    def _absorb(self, table: Table, *, yielding: bool = False) -> None:
        old = self.table
        live = [member.id for member in self._membership.members()]
        if not self._coordinator.absorb(table, live, yielding=yielding):
            return
        if not table.descends_from(old.id):
            self._forks_merged.add()
            logger.info("partitions.fork_merged mine=%s theirs=%s", old.id, table.id)
        if self.table.id != old.id:
            self._announce(old)

    def _push_to_all(self, members: list[Member]) -> None:
        for member in members:
            behind = self._confirmed.get(member.id) is not self.table
            if behind and member.id != self._me and member.id not in self._pushing:
                self._pushing[member.id] = None
                self._scope.spawn(self._push(member), name=f"push.{member.id}")

    async def _push(self, member: Member) -> None:
        try:
            while self._confirmed.get(member.id) is not self.table:
                current = self._membership.member(member.id)
                if current is None or self.coordinator_id() != self._me:
                    return
                if not any(live.id == member.id for live in self._membership.members()):
                    return
                if not await self._push_once(current):
                    await asyncio.sleep(RETRY_INTERVAL)
        finally:
            self._pushing.pop(member.id, None)

    async def _push_once(self, member: Member) -> bool:
        """Send the table: what changed, if it is known what the member has; else all of it."""
        table, base = self.table, self._confirmed.get(member.id)
        message = self._updates.message(table, base)
        try:
            answer = await self._rpc.call(member.address, message, timeout=CALL_TIMEOUT)
        except CacheError as error:
            logger.debug("partitions.push_failed member=%s error=%s", member.id, error)
            return False
        assert isinstance(answer, TableAnswer)
        if answer.accepted:
            self._confirmed[member.id] = table
            return True
        if answer.table is not None:  # A branch; the next round asks everybody which one is theirs.
            self._seen.clear()
            self._wake.set()
        self._confirmed.pop(member.id, None)
        return base is not None and await self._push_once(member)

    async def _release(self, owner: MemberId, partitions: list[int]) -> None:
        try:
            released = await self._release_once(owner, partitions)
        except CacheError as error:
            logger.debug("partitions.release_failed owner=%s error=%s", owner, error)
            released = []
        finally:
            self._releasing.pop(owner, None)
        if released:
            self._coordinator.released(owner, released)
        else:
            await asyncio.sleep(RETRY_INTERVAL)
        self._wake.set()

    async def _release_once(self, owner: MemberId, partitions: list[int]) -> list[int]:
        if owner == self._me:
            return await self._releaser(partitions) if self._releaser is not None else []
        member = self._membership.member(owner)
        if member is None:
            return []
        if self._confirmed.get(owner) is not self.table and not await self._push_once(member):
            return []
        message = Release(id=self._table_id(), partitions=partitions)
        answer = await self._rpc.call(member.address, message, timeout=2 * CALL_TIMEOUT)
        assert isinstance(answer, Released)
        return answer.partitions
