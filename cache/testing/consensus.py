"""What the members of a test cluster say of their groups of consensus, and waiting for it.

A member that cannot be asked has said nothing; a wait for all of them goes on then.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Protocol

from cache.cluster.raft.calls import replica_member
from cache.cluster.raft.status import GroupInfo
from cache.errors import CacheError
from cache.testing.members import MemberHandle

LEADER: Final = "leader"

Infos = dict[int, GroupInfo | None]
"""By index of the member; None for one that did not answer."""


class Waiting(Protocol):
    """The part of a test cluster that waits."""

    @property
    def members(self) -> list[MemberHandle]:
        """Those that were started and neither removed nor killed."""
        ...

    async def eventually(
        self,
        probe: Callable[[], Awaitable[Any]],
        *,
        within: float,
        what: str,
        describe: Callable[[], Awaitable[Sequence[str]]] | None = None,
    ) -> None:
        """Wait until `probe` is true.  # Any: only its truth counts."""
        ...


class GroupView:
    """One group, as the running members of a cluster see it, or those `among` them."""

    def __init__(self, cluster: Waiting, group: str, among: Sequence[int] | None = None) -> None:
        self._cluster = cluster
        self._group = group
        self._among = among

    @property
    def _members(self) -> list[MemberHandle]:
        among = self._among
        return [m for m in self._cluster.members if among is None or m.index in among]

    async def infos(self) -> Infos:
        """Ask each of them."""
        return {member.index: await _ask(member, self._group) for member in self._members}

    async def leader(self) -> int | None:
        """Return the member that says it leads, in the highest term of all that do."""
        return _leader(await self.infos())

    async def wait_for_leader(self, timeout: float) -> int:
        """Wait until somebody says that it leads; return who."""
        found: list[int] = []

        async def leads() -> bool:
            leader = await self.leader()
            found[:] = [] if leader is None else [leader]
            return leader is not None

        await self._wait(leads, timeout, "a leader")
        return found[0]

    async def wait_for_no_leader(self, timeout: float) -> None:
        """Wait until nobody says that it leads."""

        async def headless() -> bool:
            return await self.leader() is None

        await self._wait(headless, timeout, "an end of the leadership")

    async def wait_for_consensus(self, timeout: float) -> int:
        """Wait until all replicas name one leader and term; return who leads."""
        found: list[int] = []

        async def agreed() -> bool:
            found[:] = _agreed(await self.infos())
            return bool(found)

        await self._wait(agreed, timeout, "one leader and one term on all members")
        return found[0]

    async def wait_for_voters(self, count: int, timeout: float) -> list[str]:
        """Wait until so many members vote, each with its log; return their names."""
        found: list[str] = []

        async def settled() -> bool:
            found[:] = _settled(await self.infos(), count)
            return bool(found)

        await self._wait(settled, timeout, f"{count} voters, each with its log, and no learner")
        return found

    async def wait_for_equal_states(self, timeout: float) -> list[int]:
        """Wait until all replicas have applied equally much; return who has one.

        Raises:
            AssertionError: they have not in time, or their states differ.
        """
        found: list[int] = []

        async def equal() -> bool:
            states = await self._states()
            if states is None or len({index for index, _ in states.values()}) != 1:
                return False
            digests = {digest for _, digest in states.values()}
            assert len(digests) == 1, f"replicas applied the same entries and differ: {states}"
            found[:] = sorted(states)
            return True

        await self._wait(equal, timeout, "equally many entries applied by all replicas")
        return found

    async def _states(self) -> dict[int, tuple[int, int]] | None:
        """Return index and digest of each replica; None if a member does not answer."""
        states: dict[int, tuple[int, int]] = {}
        for member in self._members:
            try:
                answer = await member.inspect("consensus:states")
            except CacheError:
                return None
            if self._group in answer:
                index, digest = answer[self._group]
                states[member.index] = (index, digest)
        return states or None

    async def has_quorum(self) -> bool:
        """Return whether more than half of the voters, as the latest member knows them, take part."""
        known = [info for info in (await self.infos()).values() if info is not None]
        latest = max(known, key=lambda info: (info.commit, info.term), default=None)
        voters = [] if latest is None else latest.voters
        present = [info.replica for info in known if info.role is not None]
        return is_quorum(sum(voter in present for voter in voters), len(voters))

    async def _wait(self, probe: Callable[[], Awaitable[bool]], timeout: float, what: str) -> None:
        await self._cluster.eventually(
            probe, within=timeout, what=f"group {self._group}: {what}", describe=self._describe
        )

    async def _describe(self) -> list[str]:
        return [_line(index, info) for index, info in (await self.infos()).items()]


def is_quorum(alive: int, size: int) -> bool:
    """Return whether so many of `size` voters are a majority: more than half."""
    return 2 * alive > size


async def _ask(member: MemberHandle, group: str) -> GroupInfo | None:
    try:
        return await member.raft(group)
    except CacheError:
        return None


def _leader(infos: Infos) -> int | None:
    """Return who says it leads; of several the one with the highest term, the others do not know yet."""
    leading = [(info.term, index) for index, info in infos.items() if info and info.role == LEADER]
    return max(leading)[1] if leading else None


def _agreed(infos: Infos) -> list[int]:
    """Return who leads, alone in a list, if all name it."""
    leader = _leader(infos)
    if leader is None or None in infos.values():
        return []
    replicas = [info for info in infos.values() if info is not None and info.role is not None]
    named = {(info.leader, info.term) for info in replicas}
    leads = infos[leader]
    alone = sum(info.role == LEADER for info in replicas) == 1
    return [leader] if leads and alone and named == {(leads.replica, leads.term)} else []


def _settled(infos: Infos, count: int) -> list[str]:
    """Return the names of the voters, if there are so many, all there, and nobody learns."""
    there = [info for info in infos.values() if info is not None]
    leading = [info for info in there if info.role == LEADER]
    if len(leading) != 1 or leading[0].learners or len(leading[0].voters) != count:
        return []
    logs = {info.replica for info in there if not info.halted}
    voters = leading[0].voters
    return sorted(map(replica_member, voters)) if logs.issuperset(voters) else []


def _line(index: int, info: GroupInfo | None) -> str:
    if info is None:
        return f"member {index} does not answer"
    if not info.uuid:
        return f"member {index} knows no group: {info.waits_for}"
    return (
        f"member {index}: {info.role or info.halted or 'no replica'} in term {info.term}, "
        f"leader {info.leader or 'nobody'}, commit {info.commit}, applied {info.applied}, "
        f"voters {info.voters}, learners {info.learners}"
    )
