"""`TestCluster`: grow a cluster in a test, break it, and look at who holds what.

One helper, four worlds, the same calls: `simulated` (virtual time, seeded, every fault), `sockets`
(several nodes in this process on real loopback sockets), `processes` (each node its own process;
SIGKILL, SIGSTOP) and `namespaces` (the same on a network that can be cut). In `sockets` and `processes` a
network fails by the fault-injecting proxy, where a test asks for it. Every wait raises on time-out and
says what each member saw. A fault that a world cannot inject skips the test.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from cache.cluster.client.client import ClusterClient
from cache.cluster.config import ClusterConfig
from cache.cluster.environment import Environment
from cache.errors import CacheError
from cache.keys import Key
from cache.testing.consensus import GroupView
from cache.testing.members import ClientHandle, MemberHandle
from cache.testing.worlds.base import ClusterWorld, UnsupportedFaultError, eventually

T = TypeVar("T")

POLL_INTERVAL: Final = 0.02

ANSWER_TIMEOUT: Final = 2.0
"""Seconds after which a member that does not answer is not alive."""

UNFINISHED: Final = ("migrating", "under_replicated", "orphans", "unsettled")
"""Readings of a member's status that are 0 once a cluster has settled."""


class TestCluster:
    """Members of one cluster, by index in order of start."""

    __test__ = False

    def __init__(self, size: int, *, world: ClusterWorld, config: ClusterConfig) -> None:
        self._size = size
        self._world = world
        self._config = config
        self._members: dict[int, MemberHandle] = {}
        self._configs: dict[int, ClusterConfig] = {}
        self._counter = itertools.count()
        self._cuts: list[tuple[int, int]] = []
        self._faulty_disks: list[int] = []
        self._links: dict[tuple[int, int], None] = {}

    async def __aenter__(self) -> Self:
        try:
            for _ in range(self._size):
                await self.add_member()
            if self._size:
                await self.wait_for_convergence()
        except BaseException:
            await self._world.close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                for index in list(self._faulty_disks):
                    self.mend_disk(index)
                self._check_faults()
        finally:
            await self._world.close()

    def _check_faults(self) -> None:
        """Hold the faults that a test leaves behind to what `heal` and `mend` ask of those it undoes."""
        for source, target in list(self._links):
            self.mend(source, target)
        if self._cuts:
            self.heal()

    # -- members -----------------------------------------------------------------------------

    @property
    def members(self) -> list[MemberHandle]:
        """The members that were started and neither removed nor killed."""
        return list(self._members.values())

    def member(self, index: int) -> MemberHandle:
        """Return a running member by index."""
        return self._members[index]

    async def add_member(self, **overrides: Any) -> MemberHandle:  # Any: config fields
        """Start one more member, with every running one as a peer, and return when it serves.

        A `data_dir` only says that it has a disk: the folder is one of its own, and ends with the cluster.
        """
        peers = overrides.pop("peers", None)
        if peers is None:
            peers = tuple(member.address for member in self.members)
        index = next(self._counter)
        config = self._config.with_changes(name=f"m{index}", peers=peers, **overrides)
        if config.data_dir is not None:
            config = config.with_changes(data_dir=self._world.data_dir(index))
        return await self._start(index, config)

    async def _start(self, index: int, config: ClusterConfig) -> MemberHandle:
        backend = await self._world.start(index, config)
        self._configs[index] = config.with_changes(bind=backend.address)
        member = self._members[index] = MemberHandle(
            index=index,
            name=config.name or "",
            member=backend.id,
            address=backend.address,
            backend=backend,
        )
        return member

    async def client(self, **settings: Any) -> ClientHandle:
        """Start a client that knows the addresses of all running members (or `seeds`), and no member.

        `settings` are those of `ClusterClient`.
        """
        # Any: settings, checked by ClusterClient.
        given: dict[str, Any] = {
            "cluster_name": self._config.cluster_name,
            "secret": self._config.secret,
        }
        given |= {"seeds": [member.address for member in self.members], **settings}
        index = next(self._counter)

        def make(environment: Environment | None) -> ClusterClient:
            return ClusterClient(environment=environment, **given)

        try:
            return ClientHandle(index, await self._world.client(index, make))
        except UnsupportedFaultError as error:
            _skip(error)
            raise

    async def remove_member(self, index: int) -> Mapping[str, Any]:  # Any: receipt fields
        """Let a member leave gracefully; return its receipt."""
        receipt = await self._members[index].drain()
        del self._members[index]
        await self._world.forget(index)
        return receipt

    async def kill(self, index: int, *, power_loss: bool = False) -> None:
        """Stop a member without a goodbye; with `power_loss` its disk loses what it did not sync, too."""
        del self._members[index]
        await _supported(self._world.kill(index, power_loss=power_loss))

    async def restart(self, index: int, *, keep_disk: bool | None = None) -> MemberHandle:
        """Start a stopped member again, on its address, with empty memory.

        It finds what it kept in its `data_dir`, if it has one; with `keep_disk=False` the disk is a new one.
        """
        assert index not in self._members, f"member {index} is running"
        has_disk = self._configs[index].data_dir is not None
        assert has_disk or not keep_disk, f"member {index} has no disk: start it with a data_dir"
        if keep_disk is False:
            if index in self._faulty_disks:
                self.mend_disk(index)
            self._world.drop_disk(index)
        peers = tuple(member.address for member in self.members)
        config = self._configs[index]
        return await self._start(index, config.with_changes(peers=peers or config.peers))

    # -- faults ------------------------------------------------------------------------------

    async def pause(self, index: int) -> None:
        """Freeze a member."""
        await _supported(self._world.pause(index))

    async def resume(self, index: int) -> None:
        """Let a frozen member run on."""
        await _supported(self._world.resume(index))

    def cut(self, source: int, target: int) -> None:
        """Drop what `source` sends to `target`; the other direction stays."""
        self.set_cuts([*self._cuts, (source, target)])

    def partition(self, *groups: Sequence[int]) -> None:
        """Let members reach only their own group."""
        pairs = [
            pair
            for left, right in itertools.permutations(groups, 2)
            for pair in itertools.product(left, right)
        ]
        assert pairs, f"the groups {groups} have nobody to cut off from each other"
        self.set_cuts([*self._cuts, *pairs])

    def isolate(self, index: int) -> None:
        """Cut a member off from all others."""
        self.partition([index], [other for other in self._members if other != index])

    def heal(self) -> int:
        """Undo every cut.

        Returns:
            How many packets and stream segments cuts have stopped since the last time.

        Raises:
            AssertionError: the cuts stopped nothing, so that the test shows nothing.
        """
        affected = _supported_value(self._world.heal)
        assert not self._cuts or affected > 0, f"the cuts {self._cuts} stopped no traffic"
        self._cuts.clear()
        return affected

    def set_cuts(self, cuts: Sequence[tuple[int, int]]) -> None:
        """Replace all cuts by these directions, in one step."""
        _skip_if_unsupported(lambda: self._world.set_cuts(cuts))
        self._cuts = list(cuts)

    def slow(self, index: int, seconds: float) -> None:
        """Let each piece of work on a member's event loop take so long; 0 ends it."""
        _skip_if_unsupported(lambda: self._world.slow(index, seconds))

    def mend(self, source: int, target: int, *, may_be_idle: bool = False) -> None:
        """Let one direction fare as it did before `link`.

        Args:
            source: who sends.
            target: to whom.
            may_be_idle: whether there may have been nothing to affect, as when random faults end a member.

        Raises:
            AssertionError: in a world that counts it, what `link` did affected nothing.
        """
        affected = _supported_value(lambda: self._world.mend(source, target))
        self._links.pop((source, target), None)
        assert affected != 0 or may_be_idle, f"the link {source} to {target} affected no traffic"

    def link(self, source: int, target: int, **conditions: float) -> None:
        """Set `latency`, `jitter`, `loss`, `duplicate`, `reorder` or `bandwidth` of one direction."""
        _skip_if_unsupported(lambda: self._world.link(source, target, **conditions))
        self._links[source, target] = None

    def clock(self, index: int, **shifts: float) -> None:
        """Set `skew`, `drift` or `jump` of a member's clocks."""
        _skip_if_unsupported(lambda: self._world.clock(index, **shifts))

    def disk(self, index: int, **faults: Any) -> None:  # Any: fields of DiskFaults
        """Set faults of a member's disk, which it has by a `data_dir`, until `mend_disk`.

        `full=True`; as parts of all occasions, 0 to 1: `eio` (a sync fails), `lie` (a sync only says that it
        happened), `flip` (a read gets a bit wrong), `torn` (a loss of power ends inside a commit); and
        `latency`, the least and most seconds of a sync.
        """
        assert self._configs[index].data_dir is not None, f"member {index} has no data_dir"
        _skip_if_unsupported(lambda: self._world.disk(index, **faults))
        if index not in self._faulty_disks:
            self._faulty_disks.append(index)

    def mend_disk(self, index: int, *, may_be_idle: bool = False) -> Mapping[str, int]:
        """End the faults of a member's disk; leaving the cluster does it for all of them.

        Args:
            index: whose disk.
            may_be_idle: whether there may have been nothing to affect, as when random faults end a member.

        Returns:
            How often each that was set has happened.

        Raises:
            AssertionError: one of them never did, so that the test shows nothing.
        """
        assert index in self._faulty_disks, f"member {index} has a disk without faults"
        self._faulty_disks.remove(index)
        happened = self._world.mend_disk(index)
        missing = [name for name, count in happened.items() if not count]
        text = f"faults of the disk of member {index} that never happened: {missing}"
        assert may_be_idle or not missing, text
        return happened

    def rot(self, index: int, text: str) -> str:
        """Damage a record on a member's disk for good: the first one with this text in its name.

        Names are as in `CorruptStorageError.record`: "entry 7 of group 'main'".

        Returns:
            The whole name.
        """
        try:
            return self._world.rot(index, text)
        except UnsupportedFaultError as error:
            _skip(error)
            raise

    # -- waiting and looking -----------------------------------------------------------------

    def now(self) -> float:
        """Seconds of the world's clock."""
        return self._world.now()

    async def sleep(self, seconds: float) -> None:
        """Let the world's time pass (virtual time in the simulated world)."""
        await self._world.sleep(seconds)

    async def eventually(
        self,
        probe: Callable[[], Awaitable[Any]],  # Any: only its truth counts
        *,
        within: float = 60.0,
        what: str = "the condition",
        describe: Callable[[], Awaitable[Sequence[str]]] | None = None,
    ) -> None:
        """Wait until `probe` is true; raises `AssertionError` saying what each member saw."""
        await eventually(
            self._world,
            probe,
            within=within,
            interval=POLL_INTERVAL,
            describe=describe or self._describe,
            what=what,
        )

    async def wait_for_convergence(self, count: int | None = None, timeout: float = 60.0) -> None:
        """Wait until all members see the same members and table, with every copy complete.

        `count` is how many members there must be, by default the running ones.
        """
        wanted = len(self._members) if count is None else count
        await self.eventually(
            lambda: self._converged(wanted), within=timeout, what=f"convergence of {wanted} members"
        )

    async def _converged(self, count: int) -> bool:
        expected = sorted(member.id for member in self.members)
        tables = []
        for member in self.members:
            status = await _ask(member, "status")
            if status is None or status["members"] != count or not status["ready"]:
                return False
            if any(status[work] for work in UNFINISHED):
                return False
            if count == len(expected) and await member.members() != expected:
                return False
            tables.append(status["table_id"])
        return len(set(tables)) == 1

    async def is_alive(self, index: int) -> bool:
        """Return whether a member runs, and answers with its status within 2 s."""
        member = self._members.get(index)
        if member is None:
            return False
        with suppress(TimeoutError):
            async with asyncio.timeout(ANSWER_TIMEOUT):
                return await _ask(member, "status") is not None
        return False

    # -- groups of consensus -----------------------------------------------------------------
    # `among` are the members that are looked at, as on one side of a split; by default all that run.

    def _view(self, group: str, among: Sequence[int] | None) -> GroupView:
        return GroupView(self, group, among)

    async def leader(
        self, *, among: Sequence[int] | None = None, group: str = "main"
    ) -> int | None:
        """Return the member that says it leads; of several the one of the highest term."""
        return await self._view(group, among).leader()

    async def wait_for_leader(
        self, timeout: float = 30.0, *, among: Sequence[int] | None = None, group: str = "main"
    ) -> int:
        """Wait until a member says that it leads; return its index."""
        return await self._view(group, among).wait_for_leader(timeout)

    async def wait_for_no_leader(
        self, timeout: float = 30.0, *, among: Sequence[int] | None = None, group: str = "main"
    ) -> None:
        """Wait until no member says that it leads."""
        await self._view(group, among).wait_for_no_leader(timeout)

    async def wait_for_consensus(
        self, timeout: float = 60.0, *, among: Sequence[int] | None = None, group: str = "main"
    ) -> int:
        """Wait until every member answers, and all replicas name one leader and one term.

        Returns:
            Who leads: one of these members, which says so itself.
        """
        return await self._view(group, among).wait_for_consensus(timeout)

    async def wait_for_voters(
        self, count: int, timeout: float = 60.0, *, group: str = "main"
    ) -> list[str]:
        """Wait until so many running members vote, each with its log, and nobody learns.

        Returns:
            Their names, sorted.
        """
        return await self._view(group, None).wait_for_voters(count, timeout)

    async def wait_for_equal_states(
        self, timeout: float = 60.0, *, among: Sequence[int] | None = None, group: str = "main"
    ) -> list[int]:
        """Wait until all replicas have applied equally much; return the members that have one.

        Raises:
            AssertionError: they have not in time, or applied equally much and differ.
        """
        return await self._view(group, among).wait_for_equal_states(timeout)

    async def has_quorum(self, *, among: Sequence[int] | None = None, group: str = "main") -> bool:
        """Return whether these members are more than half of the voters, as the latest of them knows."""
        return await self._view(group, among).has_quorum()

    # -- data --------------------------------------------------------------------------------

    async def copies(self, map_name: str, key: Key) -> list[int]:
        """Return the indexes of the members that really hold a live copy of `key`."""
        return [m.index for m in self.members if await m.holds(map_name, key)]

    async def key_copies(self, map_name: str) -> dict[bytes, list[int]]:
        """Return, for every encoded key of a map, the indexes of the members that hold it."""
        holders: dict[bytes, list[int]] = {}
        for member in self.members:
            for keys in (await member.inspect(f"keys:{map_name}")).values():
                for key in keys:
                    holders.setdefault(bytes(key), []).append(member.index)
        return holders

    async def owner_of(self, partition: int) -> int:
        """Return the index of the member that owns a partition by the first member's table."""
        rows = (await self.members[0].inspect("table"))["rows"]
        by_id = {member.id: member.index for member in self.members}
        return by_id[rows[partition][1][0]]

    async def _describe(self) -> list[str]:
        lines = []
        for member in self.members:
            status = await _ask(member, "status")
            seen = await _ask(member, "members") or []
            names = [f"{m['name']}:{m['state']}{'(leaving)' * m['leaving']}" for m in seen]
            lines.append(f"{member!r} sees {names}; {status}")
        return lines


async def _ask(member: MemberHandle, what: str) -> Any:  # Any: MessagePack values
    try:
        return await member.inspect(what)
    except CacheError:
        return None


async def _supported(action: Awaitable[None]) -> None:
    try:
        await action
    except UnsupportedFaultError as error:
        _skip(error)


def _skip_if_unsupported(action: Callable[[], object]) -> None:
    try:
        action()
    except UnsupportedFaultError as error:
        _skip(error)


def _supported_value(action: Callable[[], T]) -> T:
    try:
        return action()
    except UnsupportedFaultError as error:
        _skip(error)
        raise


def _skip(error: UnsupportedFaultError) -> None:
    import pytest  # Imported here: the library itself does not need pytest.

    pytest.skip(str(error))
