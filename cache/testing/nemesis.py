"""Makes a fault schedule happen to a cluster, and keeps what only it can know: what was really destroyed.

A member is killed only while every copy the table promises is there: the promise is that writes
survive the loss of fewer members than hold a copy, not of any number. `massacre` breaks that on
purpose; which partitions it destroys is worked out from the table at that instant.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final

from cache.errors import CacheError
from cache.testing.clients import Clients
from cache.testing.cluster import UNFINISHED, TestCluster
from cache.testing.history import History, Span, Wipe
from cache.testing.members import MemberHandle
from cache.testing.schedule import DIVIDING, Fault, Schedule
from cache.testing.sim.world import ProcessKilledError

WHOLE_TIMEOUT: Final = 20.0
"""Seconds to wait for complete copies before a kill is given up."""

RECOVERY: Final = 2.0
"""Seconds after a pause in which calls through that very member may still be late."""

POLL_INTERVAL: Final = 0.05
MEMBERS_MIN: Final = 2
MEMBERS_MAX: Final = 7

Cut = tuple[int, int]


@dataclass(slots=True)
class Nemesis:
    """Runs the faults of one schedule."""

    cluster: TestCluster
    schedule: Schedule
    history: History
    load: Clients
    ranked: bool = False
    """Whether a fault's members are ranks among those that run then, not indexes: no fault is in vain."""
    done: dict[str, int] = field(default_factory=dict)
    """Faults that happened, by kind."""
    skipped: dict[str, int] = field(default_factory=dict)
    """Faults that could not happen: no such member, or copies never complete."""
    expected_lost: dict[int, None] = field(default_factory=dict)
    """Partitions of which every copy was destroyed."""
    events: list[tuple[float, str]] = field(default_factory=list)
    """What happened when, to explain a violation: faults, and when members counted as divided."""
    _cuts: dict[int, list[Cut]] = field(default_factory=dict)
    _dividing: int = 0
    _divided_since: float | None = None
    _paused: dict[int, int] = field(default_factory=dict)
    _ending: dict[int, None] = field(default_factory=dict)
    _killing: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Guards "all copies are complete" until the kill that relies on it."""
    _numbers: Any = field(default_factory=itertools.count)  # Any: itertools.count has no nice type

    def __post_init__(self) -> None:
        self.load.aim(self.targets)

    async def run(self) -> None:
        """Let every fault happen at its time; return when all are over and undone."""
        began_at = self.cluster.now()
        async with asyncio.TaskGroup() as group:
            for fault in self.schedule.faults:
                group.create_task(self._run_fault(fault, began_at), name=str(fault))

    async def _run_fault(self, fault: Fault, began_at: float) -> None:
        await self.cluster.sleep(max(0.0, began_at + fault.at - self.cluster.now()))
        if self.ranked:
            fault = replace(fault, members=self._by_rank(fault.members))
        dividing = fault.kind in DIVIDING
        if dividing:
            self._begin_division()
        self._note(f"{fault} begins")
        action: Callable[[Fault], Awaitable[bool]] = getattr(self, f"_{fault.kind}")
        happened = await action(fault)
        self._note(f"{fault} is {'over' if happened else 'not possible'}")
        counts = self.done if happened else self.skipped
        counts[fault.kind] = counts.get(fault.kind, 0) + 1
        if dividing:
            await self._end_division()

    def _by_rank(self, ranks: tuple[int, ...]) -> tuple[int, ...]:
        """Return as many different members as there are ranks, as far as so many run."""
        running = [member.index for member in self.cluster.members]
        enough = ranks[: len(running)]
        return tuple([running.pop(rank % len(running)) for rank in enough])

    # -- members come and go -----------------------------------------------------------------

    async def _join(self, fault: Fault) -> bool:
        if len(self.cluster.members) >= MEMBERS_MAX:
            return False
        try:
            await self.cluster.add_member()
        except (CacheError, ProcessKilledError, TimeoutError):
            return False
        return True

    async def _drain(self, fault: Fault) -> bool:
        (index,) = fault.members
        if not self._may_end(index) or index in self._paused:
            return False  # Who stands still would drain later, when nobody expects it any more.
        self._ending[index] = None
        try:
            receipt = await self.cluster.remove_member(index)
            self.history.receipts.append(receipt)
        except (CacheError, ProcessKilledError):
            receipt = {"complete": False}
        finally:
            self._ending.pop(index)
        if not receipt["complete"]:  # It said so: whoever asked can wait and try again.
            self.history.wipes.append(Wipe(self.cluster.now(), frozenset(self.load.keys())))
            self.done["incomplete drain"] = self.done.get("incomplete drain", 0) + 1
        return True

    async def _kill(self, fault: Fault) -> bool:
        async with self._killing:
            if not await self._until_whole(fault.members):
                return False
            await self._end(fault.members[0])
        return True

    async def _restart(self, fault: Fault) -> bool:
        async with self._killing:
            if not await self._until_whole(fault.members):
                return False
            await self._end(fault.members[0])
        try:
            await self.cluster.restart(fault.members[0])
        except CacheError:
            return False
        return True

    async def _end(self, index: int) -> None:
        self._note(f"member {index} is killed")
        await self.cluster.kill(index)

    async def _massacre(self, fault: Fault) -> bool:
        """Two at once; with two copies that destroys partitions, and is to be reported."""
        async with self._killing:
            if self._dividing:
                return False
            if not await self._until_whole(fault.members):
                return False
            victims = {self.cluster.member(index).id for index in fault.members}
            rows = (await self.cluster.members[0].inspect("table"))["rows"]
            lost = [p for p, (_, replicas, _) in enumerate(rows) if victims.issuperset(replicas)]
            for index in fault.members:
                await self.cluster.kill(index)
            self._note_lost(lost, len(rows))
        return True

    def _note_lost(self, lost: list[int], partition_count: int) -> None:
        self.expected_lost.update(dict.fromkeys(lost))
        gone = dict.fromkeys(lost)
        writes = {write.key: None for write in self.history.writes}
        keys = [
            key
            for key in (*self.load.keys(), *writes)
            if self.load.partition_of(key, partition_count) in gone
        ]
        if gone:
            self.history.wipes.append(Wipe(self.cluster.now(), frozenset(keys)))

    # -- members stall -----------------------------------------------------------------------

    async def _pause(self, fault: Fault) -> bool:
        (index,) = fault.members
        if not self._is_there(index) or index in self._ending:
            return False
        if len(self._paused) + 1 >= len(self.cluster.members):
            return False
        self._paused[index] = self._paused.get(index, 0) + 1
        # As many at once as there are copies: the others may take both copies of a key for dead.
        dividing = len(self._paused) >= self.schedule.config.get("replica_count", 2)
        if dividing:
            self._begin_division()
        began_at = self.cluster.now()
        await self.cluster.pause(index)
        await self.cluster.sleep(fault.lasting)
        self.history.stalls.append((index, Span(began_at, self.cluster.now())))
        self._paused[index] -= 1
        if dividing:
            await self._unpause(index)
            await self._end_division()
            return True
        await self._unpause(index)
        return True

    async def _unpause(self, index: int) -> None:
        if not self._paused[index]:
            del self._paused[index]
            if self._is_there(index):
                await self.cluster.resume(index)

    async def _slow(self, fault: Fault) -> bool:
        return await self._for_a_while(fault, self.cluster.slow)

    async def _clock(self, fault: Fault) -> bool:
        (index,) = fault.members
        if not self._is_there(index):
            return False
        self.history.clocks_disagree = True
        self.cluster.clock(index, **fault.settings)
        return True

    async def _for_a_while(self, fault: Fault, set_cost: Callable[[int, float], None]) -> bool:
        (index,) = fault.members
        if not self._is_there(index):
            return False
        set_cost(index, fault.settings["cost"])
        began_at = self.cluster.now()
        await self.cluster.sleep(fault.lasting)
        self.history.stalls.append((index, Span(began_at, self.cluster.now())))
        if self._is_there(index):
            set_cost(index, 0.0)
        return True

    # -- links -------------------------------------------------------------------------------

    async def _cut(self, fault: Fault) -> bool:
        source, target = fault.members
        return await self._hold_cuts(fault, [(source, target)])

    async def _isolate(self, fault: Fault) -> bool:
        (index,) = fault.members
        others = [member.index for member in self.cluster.members if member.index != index]
        return await self._hold_cuts(fault, _both_ways([index], others))

    async def _split(self, fault: Fault) -> bool:
        side = [index for index in fault.members if self._is_there(index)]
        others = [m.index for m in self.cluster.members if m.index not in side]
        return await self._hold_cuts(fault, _both_ways(side, others))

    async def _hold_cuts(self, fault: Fault, cuts: list[Cut]) -> bool:
        cuts = [cut for cut in cuts if all(map(self._is_there, cut))]
        if not cuts:
            return False
        number = next(self._numbers)
        self._cuts[number] = cuts
        self._apply_cuts()
        await self.cluster.sleep(fault.lasting)
        del self._cuts[number]
        self._apply_cuts()
        return True

    def _apply_cuts(self) -> None:
        self.cluster.set_cuts([cut for cuts in self._cuts.values() for cut in cuts])

    async def _noise(self, fault: Fault) -> bool:
        return await self._worse_link(fault)

    async def _loss(self, fault: Fault) -> bool:
        return await self._worse_link(fault)

    async def _worse_link(self, fault: Fault) -> bool:
        source, target = fault.members
        if not (self._is_there(source) and self._is_there(target)):
            return False
        self.cluster.link(source, target, **fault.settings)
        await self.cluster.sleep(fault.lasting)
        self.cluster.mend(source, target, may_be_idle=True)
        return True

    def _note(self, event: str) -> None:
        self.events.append((self.cluster.now(), event))

    # -- what is known -----------------------------------------------------------------------

    def _is_there(self, index: int) -> bool:
        return any(member.index == index for member in self.cluster.members)

    def _may_end(self, index: int) -> bool:
        return self._is_there(index) and index not in self._ending and self._may_lose(1)

    def _may_lose(self, count: int) -> bool:
        alive = len(self.cluster.members) - len(self._ending)
        least = max(MEMBERS_MIN, self.schedule.config.get("member_quorum", 1))
        return alive - count >= least

    def was_paused(self, index: int, start: float, end: float) -> bool:
        """Return whether a member stalled, or had just resumed, at any time from start to end."""
        return self.history.was_stalled(index, start - RECOVERY, end)

    def targets(self) -> list[MemberHandle]:
        """Return the members that clients may use: not those that are about to leave."""
        return [member for member in self.cluster.members if member.index not in self._ending]

    async def _until_whole(self, victims: tuple[int, ...]) -> bool:
        """Wait until every member has complete copies within its side; return whether they have."""
        deadline = self.cluster.now() + WHOLE_TIMEOUT
        while self.cluster.now() < deadline:
            if not all(map(self._is_there, victims)) or not self._may_lose(len(victims)):
                return False
            if not self._paused and not self._ending and await self._is_whole(victims):
                return True
            await self.cluster.sleep(POLL_INTERVAL)
        return False

    async def _is_whole(self, victims: tuple[int, ...]) -> bool:
        sides = self._sides()
        if sides is None:
            return False
        for side in sides:
            if any(member.index in victims for member in side) and len(side) <= len(victims):
                return False
            if not await is_settled(side):
                return False
        return True

    def _sides(self) -> list[list[MemberHandle]] | None:
        """Return who can reach whom as groups, or None while that is not symmetric."""
        cuts = {cut for cuts in self._cuts.values() for cut in cuts}
        members = self.cluster.members
        if any((target, source) not in cuts for source, target in cuts):
            return None
        if self._dividing > len(self._cuts):
            return None  # Slow members and lossy links divide too, but nobody can say how.
        groups: list[list[MemberHandle]] = []
        for member in members:
            near = [g for g in groups if all((member.index, o.index) not in cuts for o in g)]
            if near:
                near[0].append(member)
            else:
                groups.append([member])
        for one, other in itertools.combinations(groups, 2):
            for a, b in itertools.product(one, other):
                if (a.index, b.index) not in cuts:
                    return None
        return groups

    # -- divided spans -----------------------------------------------------------------------

    def _begin_division(self) -> None:
        self._dividing += 1
        if self._divided_since is None:
            self._divided_since = self.cluster.now()
            self._note("divided")

    async def _end_division(self) -> None:
        self._dividing -= 1
        deadline = self.cluster.now() + WHOLE_TIMEOUT
        while not self._dividing and self.cluster.now() < deadline:
            if not self._paused and await is_settled(self.cluster.members):
                self.close_division()
                return
            await self.cluster.sleep(POLL_INTERVAL)

    def close_division(self) -> None:
        """All members agree again: from now on there is one side."""
        if self._divided_since is not None and not self._dividing:
            self.history.divided.append(Span(self._divided_since, self.cluster.now()))
            self._note("one again")
            self._divided_since = None


def _both_ways(one: list[int], other: list[int]) -> list[Cut]:
    pairs = list(itertools.product(one, other))
    return pairs + [(b, a) for a, b in pairs]


async def is_settled(members: list[MemberHandle]) -> bool:
    """Return whether these members see each other and nobody else, share one table and have no work left."""
    ids = sorted(member.id for member in members)
    tables: dict[Any, None] = {}  # Any: MessagePack values
    for member in members:
        try:
            status = await member.inspect("status")
            if any(status[work] for work in UNFINISHED) or await member.members() != ids:
                return False
        except (CacheError, ProcessKilledError):
            return False
        tables[status["table_id"]] = None
    return len(tables) == 1
