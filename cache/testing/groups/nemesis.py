"""Makes faults happen to members with groups, and keeps account of the logs that are left.

A log is destroyed (its member without a disk dies, or its disk is replaced) only while the others can go on
without it; with `may_lose` all but that of the first member may go. What is on a disk survives all else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

from cache.errors import CacheError
from cache.testing.groups.logs import Replica, can_go_on, replica_of, replicas_of
from cache.testing.groups.schedule import LEADER
from cache.testing.nemesis import Nemesis
from cache.testing.schedule import Fault
from cache.testing.sim.world import ProcessKilledError


@dataclass(slots=True)
class GroupNemesis(Nemesis):
    """Runs the faults of one schedule; see `Nemesis` for what links and clocks do."""

    downs: dict[int, Replica | None] = field(default_factory=dict)
    """Members that are down and will be back, with the log that is on their disks."""
    dead: dict[int, None] = field(default_factory=dict)
    """Members that died for good."""
    _faulty: dict[int, None] = field(default_factory=dict)
    _destroying: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Guards "the others can go on" until the log is destroyed that this was asked for."""

    @property
    def has_disks(self) -> bool:
        """Whether logs survive their members."""
        return bool(self.schedule.config.get("disk", 0))

    @property
    def may_lose(self) -> bool:
        """Whether a majority of the logs may be destroyed."""
        return bool(self.schedule.config.get("may_lose", 0))

    async def _run_fault(self, fault: Fault, began_at: float) -> None:
        await self.cluster.sleep(max(0.0, began_at + fault.at - self.cluster.now()))
        if LEADER in fault.members:
            fault = replace(fault, members=await self._with_leader(fault.members))
        self._note(f"{fault} begins")
        action: Callable[[Fault], Awaitable[bool]] = getattr(self, f"_{fault.kind}")
        happened = LEADER not in fault.members and await action(fault)
        self._note(f"{fault} is {'over' if happened else 'not possible'}")
        counts = self.done if happened else self.skipped
        counts[fault.kind] = counts.get(fault.kind, 0) + 1

    async def _with_leader(self, members: tuple[int, ...]) -> tuple[int, ...]:
        """Return as many members, the first of which leads, if anybody does."""
        leader = await self.cluster.leader()
        first = () if leader is None else (leader,)
        chosen = [*members, *(member.index for member in self.cluster.members)]
        others = [index for index in dict.fromkeys(chosen) if index not in (LEADER, leader)]
        return (*first, *others, LEADER)[: len(members)]

    def _begin_division(self) -> None:
        """Who takes whom for dead makes no difference to a group."""

    async def _end_division(self) -> None:
        """As above."""

    # -- members come and go -----------------------------------------------------------------

    async def _kill(self, fault: Fault) -> bool:
        (index,) = fault.members
        return await self._destroy(index, lambda: self._die(index))

    async def _die(self, index: int) -> None:
        await self.cluster.kill(index)
        self.dead[index] = None

    async def _drain(self, fault: Fault) -> bool:
        (index,) = fault.members
        if len(self.cluster.members) - len(self._ending) <= self.schedule.size // 2 + 1:
            return False
        return await self._destroy(index, lambda: self._leave(index))

    async def _leave(self, index: int) -> None:
        self._ending[index] = None
        try:
            await self.cluster.remove_member(index)
        except (CacheError, ProcessKilledError):
            await self.cluster.kill(index)
        finally:
            self._ending.pop(index)

    async def _down(self, fault: Fault) -> bool:
        """Let a member die, and start it again: with its disk, with a new one, or without."""
        (index,) = fault.members
        is_fresh = bool(fault.settings.get("fresh", 0)) and index not in self._faulty
        keeps = self.has_disks and not is_fresh
        power_loss = bool(fault.settings.get("power", 0)) and self.has_disks
        if keeps:
            async with self._destroying:
                if not self._may_stop(index):
                    return False
                self.downs[index] = await replica_of(self.cluster, index)
                await self.cluster.kill(index, power_loss=power_loss)
        else:

            async def stop() -> None:
                self.downs[index] = None
                await self.cluster.kill(index, power_loss=power_loss)

            if not await self._destroy(index, stop):
                return False
        await self.cluster.sleep(fault.lasting)
        return await self._start_again(index, keep_disk=keeps)

    async def _blackout(self, fault: Fault) -> bool:
        """Let all die at once, and start them again."""
        async with self._destroying:
            if self._paused or self._ending or not self.cluster.members:
                return False
            indexes = [member.index for member in self.cluster.members]
            for index in indexes:
                self.downs[index] = await replica_of(self.cluster, index)
            for index in indexes:
                await self.cluster.kill(index, power_loss=True)
        await self.cluster.sleep(fault.lasting)
        for index in indexes:
            await self._start_again(index, keep_disk=True)
        return True

    async def _start_again(self, index: int, *, keep_disk: bool) -> bool:
        """Start a member that is down; one that cannot start now is started at the end."""
        try:
            await self.cluster.restart(index, keep_disk=keep_disk if self.has_disks else None)
        except (CacheError, TimeoutError) as error:
            self._note(f"member {index} does not start: {error}")
            return True
        self.downs.pop(index, None)
        return True

    async def restore(self) -> None:
        """Start what is down, and what stopped taking part because of its disk; faults are over."""
        for index in [*self.downs, *(self.dead if self.may_lose else ())]:
            await self.cluster.restart(index, keep_disk=self.has_disks and index in self.downs)
        self.downs.clear()
        for member in self.cluster.members:
            if (await member.raft()).halted:
                await self.cluster.kill(member.index)
                await self.cluster.restart(member.index, keep_disk=True)

    # -- logs --------------------------------------------------------------------------------

    def _may_stop(self, index: int) -> bool:
        """Return whether a member runs, and is not the only one."""
        if not self._is_there(index) or index in self._ending or index in self._paused:
            return False
        return len(self.cluster.members) - len(self._ending) > 1

    async def _destroy(self, index: int, destroy: Callable[[], Awaitable[None]]) -> bool:
        """Destroy a member's log, if that is allowed now; return whether it was."""
        async with self._destroying:
            if not self._may_stop(index):
                return False
            if self.may_lose and index == 0:
                return False
            if not self.may_lose and not await self._is_spare(index):
                return False
            await destroy()
        return True

    async def _is_spare(self, index: int) -> bool:
        """Return whether the group can go on without a member's log."""
        running = await replicas_of(self.cluster)
        running.pop(index, None)
        kept = [replica for replica in self.downs.values() if replica is not None]
        return can_go_on([*running.values(), *kept])

    # -- disks -------------------------------------------------------------------------------

    async def _disk(self, fault: Fault) -> bool:
        """Let a disk be full, slow, or fail."""
        (index,) = fault.members
        if not self._is_there(index) or index in self._faulty:
            return False
        self._faulty[index] = None
        settings = dict(fault.settings)
        if "latency" in settings:
            self.cluster.disk(index, latency=(settings["latency"] / 2, settings["latency"]))
        else:
            self.cluster.disk(index, **settings)
        await self.cluster.sleep(fault.lasting)
        happened = self.cluster.mend_disk(index, may_be_idle=True)
        del self._faulty[index]
        return "latency" in settings or any(happened.values())
