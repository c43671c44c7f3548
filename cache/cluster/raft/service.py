"""Runs one replica of a Raft group: feeds the machine, writes what it wants written, resolves requests.

Outputs are done in order, and wait behind each write. When a write fails the replica is *halted*: nothing
after it is done, no vote and no acknowledgement leaves, and requests end as indeterminate. The disk may be
full or broken; what the replica promised before is still true, and it promises nothing new.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from random import Random
from typing import Final, Protocol, assert_never

from xxhash import xxh3_64_intdigest

from cache.clock import Clock
from cache.cluster.config.raft import RaftConfig
from cache.cluster.driver import Driver
from cache.cluster.raft.consensus import Consensus
from cache.cluster.raft.messages import AnyMessage, GroupId, Kind, ReplicaId
from cache.cluster.raft.outputs import (
    Apply,
    Cancel,
    ChangeMembers,
    Event,
    Failed,
    MakeSnapshot,
    Output,
    Persist,
    Persisted,
    Propose,
    Read,
    ReadReady,
    Reason,
    Received,
    Restore,
    RoleChanged,
    Send,
    SnapshotMade,
    Transfer,
)
from cache.cluster.raft.sessions import Applied, AppliedState, Effect, StateMachine
from cache.cluster.raft.status import Status
from cache.cluster.scope import Scope
from cache.errors import (
    CacheError,
    ClosedError,
    IndeterminateError,
    NoQuorumError,
    NotLeaderError,
    OperationTimeoutError,
    OverloadedError,
    RejectedError,
)

logger = logging.getLogger(__name__)

INBOX_MAX: Final = 65_536
"""Events that wait for one turn of the loop; messages beyond are lost, as they may be on the network."""

REQUESTS_MAX: Final = (1 << 32) - 1


class LogStorage(Protocol):
    """Where a replica's promises are kept."""

    async def write(self, group: GroupId, persist: Persist) -> None:
        """Return when all of it is durable; after an exception nothing may be.

        Writes of one group come one at a time; those of several groups may share one sync.
        """
        ...


class RaftGroup:
    """One replica of one group, on one event loop.

    Args:
        persisted: what storage held, or `bootstrap(…)` for the first voters of a new group once that is
            written, or `Persisted()` for a replica that is to join.
        storage: None for a replica in memory, which takes another id each time it starts.
        send: sends a message, best effort; must not raise or block.
        on_role: called when role, term or leader of this replica changed.
        on_applied: called when the state has changed.
    """

    def __init__(
        self,
        group: GroupId,
        me: ReplicaId,
        *,
        config: RaftConfig,
        persisted: Persisted,
        storage: LogStorage | None,
        state: StateMachine,
        send: Callable[[ReplicaId, AnyMessage], None],
        on_role: Callable[[RoleChanged], None] | None = None,
        on_applied: Callable[[], None] | None = None,
        clock: Clock,
        rng: Random,
        scope: Scope,
    ) -> None:
        self.group = group
        self.halted: str | None = None
        """Why this replica stopped taking part, or None while it does."""
        self._storage = storage
        self._state = AppliedState(state)
        self._send = send
        self._on_role = on_role
        self._on_applied = on_applied
        self._scope = scope
        self._requests: dict[int, asyncio.Future[Applied]] = {}
        self._request = 0
        self._queue: deque[Output] = deque()
        self._writing = False
        self._write_task: asyncio.Task[None] | None = None
        self._machine = Consensus(group, me, config, persisted, rng=rng, now=clock.monotonic())
        self._driver: Driver[Event, Output] = Driver(
            self._machine, clock=clock, perform=self._enqueue, inbox_max=INBOX_MAX
        )

    def start(self) -> None:
        """Restore the applied state, and take part."""
        self._driver.wake()

    def close(self) -> None:
        """Take part no longer; requests under way end as unknown."""
        self._stop("it was closed")

    async def wait_written(self) -> None:
        """Return when nothing more is written; for a replica that was closed."""
        if self._write_task is not None:
            await asyncio.wait((self._write_task,))

    @property
    def has_state(self) -> bool:
        """Whether a session or a command was applied here, or a snapshot restored."""
        return self._state.is_used

    @property
    def leader(self) -> ReplicaId | None:
        """Who leads, as far as this replica knows."""
        return self._machine.leader

    def status(self) -> Status:
        """Return the state of this replica."""
        return self._machine.status()

    def digest(self) -> tuple[int, int]:
        """Return the index of the last entry applied, and a digest of the state after it."""
        return self._state.index, xxh3_64_intdigest(self._state.snapshot())

    def receive(self, message: AnyMessage) -> None:
        """Take in a message of another replica."""
        self._driver.post(Received(message))

    # -- requests --------------------------------------------------------------------------------

    async def propose(
        self,
        data: bytes,
        *,
        timeout: float,
        kind: Kind = Kind.COMMAND,
        session: int = 0,
        sequence: int = 0,
        answered: int = 0,
    ) -> Applied:
        """Return what applying the command on this replica gave; it is committed then.

        Raises:
            NotLeaderError, OverloadedError: not applied.
            OperationTimeoutError, IndeterminateError: it may be applied, now or later.
            ClosedError: this replica was closed or halted before the call.
        """
        request, future = self._ask()
        event = Propose(
            request=request,
            data=data,
            kind=kind,
            session=session,
            sequence=sequence,
            answered=answered,
        )
        return await self._await(event, request, future, timeout, OperationTimeoutError)

    async def read(self, *, timeout: float, lease: bool = False) -> None:
        """Return when the applied state contains all that was acknowledged before this call.

        The caller then reads it without an await in between.

        Raises:
            NotLeaderError, NoQuorumError, OverloadedError: ask again; nothing happened.
            ClosedError: this replica was closed or halted.
        """
        request, future = self._ask()
        event = Read(request=request, lease=lease)
        await self._await(event, request, future, timeout, NoQuorumError)

    async def change_members(
        self, voters: tuple[str, ...], learners: tuple[str, ...] = (), *, timeout: float
    ) -> None:
        """Return when these are the members. Only the leader does it.

        Raises:
            NotLeaderError, RejectedError: nothing was changed.
            OperationTimeoutError, IndeterminateError: it may be changed, now or later.
        """
        request, future = self._ask()
        event = ChangeMembers(request=request, voters=voters, learners=learners)
        await self._await(event, request, future, timeout, OperationTimeoutError)

    def transfer(self, target: ReplicaId | None = None) -> None:
        """Hand leadership on, if this replica has it; `on_role` tells when it is gone."""
        self._driver.post(Transfer(target))

    def _ask(self) -> tuple[int, asyncio.Future[Applied]]:
        if self.halted is not None:
            raise ClosedError(f"group {self.group}: this replica stopped: {self.halted}")
        self._request = self._request % REQUESTS_MAX + 1
        future: asyncio.Future[Applied] = asyncio.get_running_loop().create_future()
        self._requests[self._request] = future
        return self._request, future

    async def _await(
        self,
        event: Event,
        request: int,
        future: asyncio.Future[Applied],
        timeout: float,
        timed_out: type[CacheError],
    ) -> Applied:
        # A timer of its own: `asyncio.wait` and `asyncio.timeout` cost several times as much.
        def expire() -> None:
            text = f"group {self.group}: no majority answered within {timeout} s"
            if not future.done():
                future.set_exception(timed_out(text))

        timer = asyncio.get_running_loop().call_later(timeout, expire)
        self._driver.post(event)
        try:
            return await future
        finally:
            timer.cancel()
            if self._requests.pop(request, None) is not None:
                self._driver.post(Cancel(request))

    # -- outputs ---------------------------------------------------------------------------------

    def _enqueue(self, output: Output) -> None:
        self._queue.append(output)
        if not self._writing:
            self._perform_all()

    def _perform_all(self) -> None:
        """Carry out what is due, up to the next write; that goes on when it is durable."""
        while self._queue and self.halted is None:
            output = self._queue.popleft()
            if not isinstance(output, Persist):
                self._perform(output)
            elif self._storage is not None:
                self._writing = True
                writing = self._write(self._storage, output)
                self._write_task = self._scope.spawn(writing, name=f"raft.write.{self.group}")
                return

    async def _write(self, storage: LogStorage, persist: Persist) -> None:
        try:
            await storage.write(self.group, persist)
        except Exception as error:
            logger.exception("raft.halted group=%s", self.group)
            self._stop(f"a write failed: {error}")
            return
        self._writing = False
        self._perform_all()

    def _perform(self, output: Output) -> None:
        match output:
            case Send(to, message):
                self._send(to, message)
            case Apply():
                self._apply(output)
            case ReadReady(request):
                self._resolve(request, Applied(Effect.APPLIED))
            case Failed(request, reason, leader):
                self._fail(request, _error_of(self.group, reason, leader))
            case Restore(snapshot):
                self._state.restore(snapshot.data)
                self._tell_applied()
            case MakeSnapshot(index):
                self._driver.post(SnapshotMade(index, self._state.snapshot()))
            case RoleChanged():
                if self._on_role is not None:
                    self._on_role(output)
            case Persist():
                raise AssertionError("a write waits; it is not performed")
            case _:
                assert_never(output)

    def _apply(self, output: Apply) -> None:
        for entry in output.entries:
            applied = self._state.apply(entry)
            if entry.index in output.requests:
                self._resolve(output.requests[entry.index], applied)
        self._tell_applied()

    def _tell_applied(self) -> None:
        if self._on_applied is not None:
            self._on_applied()

    def _resolve(self, request: int, applied: Applied) -> None:
        future = self._requests.pop(request, None)
        if future is not None and not future.done():
            future.set_result(applied)

    def _fail(self, request: int, error: CacheError) -> None:
        future = self._requests.pop(request, None)
        if future is not None and not future.done():
            future.set_exception(error)

    def _stop(self, reason: str) -> None:
        if self.halted is not None:
            return
        self.halted = reason
        self._driver.close()
        self._queue.clear()
        for request in list(self._requests):
            text = f"group {self.group}: this replica stopped: {reason}"
            self._fail(request, IndeterminateError(text))


def _error_of(group: GroupId, reason: Reason, leader: ReplicaId | None) -> CacheError:
    asked = f"group {group}"
    match reason:
        case Reason.NOT_LEADER:
            return NotLeaderError(f"{asked}: not the leader; it is {leader or 'not known'}")
        case Reason.LOST:
            return IndeterminateError(f"{asked}: leadership was lost under the request")
        case Reason.OVERLOADED:
            return OverloadedError(f"{asked}: too many requests wait (RaftConfig.waiting_max)")
        case Reason.TRANSFERRING:
            return NotLeaderError(f"{asked}: leadership is being handed over; ask again")
        case Reason.CHANGING:
            return RejectedError(f"{asked}: another change of members is under way")
        case Reason.BAD_MEMBERS:
            return RejectedError(
                f"{asked}: no voters, a replica named twice, or a new voter that is not a learner "
                "up to date; let it learn first"
            )
        case _:
            assert_never(reason)
