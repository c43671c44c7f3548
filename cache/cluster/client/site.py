"""A client's view of the cluster: the table, learnt by asking members, and the way to them.

Nobody tells a client anything, so it asks: when a call fails, and every `FOLLOW_INTERVAL`. Any member will
do. Those of the last table are asked, and those that settings and discovery name; so the members it began
with may all be replaced in time.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Sequence
from random import Random
from typing import Final

from cache.clock import Clock
from cache.cluster.client.following import follow
from cache.cluster.discovery.finder import Finder
from cache.cluster.home import Home
from cache.cluster.ids import Address, MemberId
from cache.cluster.partitions.table import Table, empty_table
from cache.cluster.replication.owned import Validity
from cache.cluster.replication.recent import RecentReads
from cache.cluster.replication.replica import PartitionReplica
from cache.cluster.replication.usage import MapUsage
from cache.cluster.scope import Scope
from cache.cluster.transport.rpc import RpcEndpoint
from cache.cluster.wire.messages import FetchView, TableId, View
from cache.errors import (
    CacheError,
    ClosedError,
    JoinRefusedError,
    RemoteProtocolError,
    UnavailableError,
)
from cache.metrics import Metrics

logger = logging.getLogger(__name__)

FOLLOW_INTERVAL: Final = 2.0
"""Seconds between two questions for a newer table, more or less: clients are not to ask all at once."""

ASK_TIMEOUT: Final = 1.0
"""Seconds a member has to say which table it goes by."""

CONFIRM_TIMEOUT: Final = 0.5
"""Seconds a member has to make sure that its table is the current one; then another is asked."""

CONFIRMERS_MAX: Final = 3
ASKED_MAX: Final = 16
"""Members asked at the same time."""

SILENCE: Final = 5.0
"""Seconds for which a member that did not answer is asked after the others."""

RETRY_INTERVAL: Final = 0.2
"""Seconds between two attempts to find a member, at the start."""


class ClientSite:
    """The `Site` and the `TableSource` of a client."""

    def __init__(
        self,
        *,
        finder: Finder,
        rpc: RpcEndpoint,
        clock: Clock,
        rng: Random,
        metrics: Metrics,
        scope: Scope,
        home: Home,
    ) -> None:
        self.member = MemberId("")
        self.rpc = rpc
        self.scope = scope
        self.table = empty_table(0)
        self.serving: list[PartitionReplica | None] = []
        self.recent = RecentReads(0)
        self.validity = Validity(-math.inf)
        self.stalled = False  # What a member confirms is asked for each time.
        self.copies: dict[int, PartitionReplica] = {}
        self._finder = finder
        self._clock = clock
        self._rng = rng
        self._home = home
        self._hooks: list[Callable[[Table, Table], None]] = []
        self._silent_until: dict[Address, float] = {}
        self._refreshing: asyncio.Task[None] | None = None
        self._adopted = metrics.counter("client.tables_adopted")
        self._asked = metrics.counter("client.tables_asked")

    # -- the site --------------------------------------------------------------------------------

    def usage_of(self, map_name: str) -> MapUsage:
        """Return that nothing happens to entries here: there are none."""
        return MapUsage()

    def address_of(self, member: MemberId) -> Address | None:
        """Return where a member listens, if the table knows it."""
        return self.table.addresses.get(member)

    def check_member_quorum(self) -> None:
        """Raise unless this is the loop and process that the client lives in; members count members."""
        self._home.check()

    def on_table(self, hook: Callable[[Table, Table], None]) -> None:
        """Call `hook(old, new)` after each change of the table."""
        self._hooks.append(hook)

    # -- the table -------------------------------------------------------------------------------

    async def connect(self, timeout: float) -> View:
        """Find a member, and go by its table; return what it said.

        Raises:
            JoinRefusedError: every member that answered refused this client.
            UnavailableError: none answered within `timeout` seconds.
        """
        deadline = self._clock.monotonic() + timeout
        while True:
            seeds = (await self._finder.find())[:ASKED_MAX]
            views = await self._ask_all(seeds)
            for view in views:
                if isinstance(view, View) and view.table is not None:
                    count = len(view.table.rows)
                    self.table = Table.from_record(view.table, count)
                    self.serving = [None] * count
                    return view
            refusals = [view for view in views if isinstance(view, JoinRefusedError)]
            if refusals:
                raise refusals[0]
            if self._clock.monotonic() >= deadline:
                reasons = "; ".join(str(view) for view in views) or "no address is known"
                raise UnavailableError(f"no member answered within {timeout} s: {reasons}")
            await asyncio.sleep(RETRY_INTERVAL)

    def start(self) -> None:
        """Begin to follow the cluster."""
        self.scope.spawn(self._follow(), name="follow")

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(FOLLOW_INTERVAL * self._rng.uniform(0.75, 1.25))
            await self.refresh()

    async def refresh(self) -> None:
        """Ask for a newer table, together with everybody else here who wants one now."""
        refreshing = self._refreshing
        if refreshing is None or refreshing.done():
            try:
                refreshing = self.scope.spawn(self._refresh(), name="refresh")
            except RuntimeError as error:
                raise ClosedError("the client is closed") from error
            self._refreshing = refreshing
        await asyncio.wait([refreshing])

    async def _refresh(self) -> None:
        """Ask one member; if that does not help, everybody who is known."""
        mine = self.table
        known = self._known()
        first = [self._taken(mine, view) for view in await self._ask_all(known[:1])]
        if first and first[0] is not None and first[0].descends_from(mine.id):
            self._go_by(first[0])
            return
        rest = list(dict.fromkeys((*known[1:], *await self._finder.find())))[:ASKED_MAX]
        views = await self._ask_all([address for address in rest if address not in known[:1]])
        tables = [*first, *(self._taken(mine, view) for view in views)]
        self._go_by(follow(mine, [table for table in tables if table is not None]))

    async def confirm(self, timeout: float) -> bool:
        """Have a member make sure that its table is the current one, and follow that."""
        deadline = self._clock.monotonic() + timeout
        for address in self._known()[:CONFIRMERS_MAX]:
            left = deadline - self._clock.monotonic()
            if left <= 0:
                break
            mine = self.table
            view = await self._ask(address, confirm=True, timeout=min(left, CONFIRM_TIMEOUT))
            table = self._taken(mine, view)
            if isinstance(view, View) and view.is_current and table is not None:
                self._go_by(follow(mine, [table]))
                return self.table.id == table.id
        return False

    def _known(self) -> list[Address]:
        """Return the members of the table in random order, those that were silent lately at the end."""
        now = self._clock.monotonic()
        addresses = sorted(dict.fromkeys(self.table.addresses.values()))
        self._rng.shuffle(addresses)
        return sorted(addresses, key=lambda address: self._silent_until.get(address, 0.0) > now)

    async def _ask_all(self, addresses: Sequence[Address]) -> list[View | CacheError]:
        asking = (self._ask(address, confirm=False, timeout=ASK_TIMEOUT) for address in addresses)
        return list(await asyncio.gather(*asking))

    async def _ask(self, address: Address, *, confirm: bool, timeout: float) -> View | CacheError:
        self._asked.add()
        mine = self.table.id
        question = FetchView(id=TableId(mine.version, mine.coordinator), confirm=confirm)
        try:
            view = await self.rpc.call(address, question, timeout=timeout)
        except CacheError as error:
            logger.debug("client.not_answered member=%s error=%s", address, error)
            self._silent_until[address] = self._clock.monotonic() + SILENCE
            return error
        self._silent_until.pop(address, None)
        assert isinstance(view, View)
        return view

    def _taken(self, mine: Table, view: View | CacheError) -> Table | None:
        """Return the table that a member goes by; `mine` is the one it was asked about."""
        if isinstance(view, CacheError):
            return None
        if view.table is None:
            return mine
        try:
            return Table.from_record(view.table, len(mine.rows))
        except RemoteProtocolError as error:
            logger.warning("client.table_refused error=%s: make a new client", error)
            return None

    def _go_by(self, table: Table) -> None:
        old = self.table
        if table.id == old.id or old.descends_from(table.id):
            return
        self.table = table
        self._adopted.add()
        kept = dict.fromkeys(table.addresses.values())
        for address in old.addresses.values():
            if address not in kept:
                self.rpc.disconnect(address)
                self._silent_until.pop(address, None)
        for hook in self._hooks:
            hook(old, table)
