"""A group as one node reaches it: finds the leader, keeps a session, repeats what was not answered.

A call that is not answered is sent again, within its deadline, to whoever leads by then. A command has the
same number each time, so that it takes effect once. Only what may have been applied ends as indeterminate.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from typing import Final

from cache.clock import Clock
from cache.cluster.config import ClusterConfig
from cache.cluster.consistent.group import EVERY_SESSION
from cache.cluster.consistent.session import Session
from cache.cluster.raft.calls import Outcome
from cache.cluster.raft.founding import NO_GROUP
from cache.cluster.raft.host import RaftHost
from cache.cluster.raft.hosted import Hosted
from cache.cluster.raft.messages import Kind, ReplicaId
from cache.cluster.raft.reports import why_not
from cache.cluster.scope import Scope
from cache.cluster.transport.rpc import RpcEndpoint
from cache.cluster.wire.messages import (
    CallGroup,
    FindGroup,
    GroupAnswer,
    GroupView,
    QueryGroup,
    Reply,
)
from cache.errors import (
    CacheError,
    ClosedError,
    IndeterminateError,
    NoQuorumError,
    OperationTimeoutError,
    OverloadedError,
    RejectedError,
    RemoteProtocolError,
    SessionLostError,
)

logger = logging.getLogger(__name__)

COMMANDS_MAX: Final = 512
"""Commands of one node under way in one group; fewer than a session keeps answers."""

ASKED_MAX: Final = 8
"""Members asked at once who leads."""

PAUSE: Final = 0.02
"""Seconds before the next try; doubled each time, up to `PAUSE_MAX`, and jittered."""

PAUSE_MAX: Final = 0.5

HOLD_MIN: Final = 2.0
"""Seconds for which one question is held at one leader, at least: a cut is noticed after that."""

KEEP_ALIVES: Final = 3
"""Signs of life in the time that a session lives without one."""

Ask = Callable[[bytes, float], CallGroup | QueryGroup]
"""Makes the question to a group of that uuid, for so many seconds."""


@dataclass(slots=True)
class _Try:
    """How far one call is."""

    deadline: float
    count: int = 0
    maybe_applied: bool = False
    """Whether something that was sent had no certain end."""


class GroupCaller:
    """Implements `Group`, see there."""

    def __init__(
        self,
        name: str,
        *,
        host: RaftHost,
        rpc: RpcEndpoint,
        config: ClusterConfig,
        clock: Clock,
        rng: Random,
        scope: Scope,
    ) -> None:
        self.name = name
        self._hosted: Hosted = host.hosted(name)
        self._host = host
        self._rpc = rpc
        self._config = config
        self._clock = clock
        self._rng = rng
        self._scope = scope
        self._attempt_timeout = host.people.timeout
        self._hold_max = max(HOLD_MIN, self._attempt_timeout)
        self._asked = 0
        self._closed = False
        self._session: Session | None = None
        self._last_group = NO_GROUP
        """Which group opened the latest session."""
        self._opening = asyncio.Lock()
        self._room = asyncio.Semaphore(COMMANDS_MAX)
        self._lost_hooks: dict[Callable[[int], None], None] = {}

    # -- Group -----------------------------------------------------------------------------------

    async def command(self, data: bytes, *, deadline: float | None = None) -> bytes:
        """See `Group`."""
        trying = self._begin(deadline)
        if self._room.locked():
            await self._acquire(self._room.acquire(), trying)
        else:
            await self._room.acquire()  # At once.
        try:
            while True:
                session = await self._open(trying)
                answer = await self._command(session, data, trying)
                if answer is not None:
                    return answer
        finally:
            self._room.release()

    async def query(
        self,
        data: bytes,
        *,
        wait: float = 0.0,
        lease: bool = False,
        deadline: float | None = None,
    ) -> bytes | None:
        """See `Group`."""
        trying = self._begin(deadline)
        ends_at = self._clock.monotonic() + wait
        trying.deadline += wait
        while True:
            hold = min(max(0.0, ends_at - self._clock.monotonic()), self._hold_max)

            def ask(uuid: bytes, remaining: float, hold: float = hold) -> QueryGroup:
                return QueryGroup(self.name, uuid, data, hold, lease, remaining)

            answer = await self._call(ask, trying, hold=hold)
            if answer.outcome == Outcome.DONE:
                return answer.data
            if self._clock.monotonic() >= ends_at:
                return None

    async def session(self) -> int:
        """See `Group`."""
        session = await self._open(self._begin(None))
        if not session.is_kept:
            session.is_kept = True
            self._scope.spawn(self._keep_alive(session), name=f"session.{self.name}")
        return session.number

    def on_session_lost(self, hook: Callable[[int], None]) -> Callable[[], None]:
        """See `Group`."""
        self._lost_hooks[hook] = None
        return lambda: self._lost_hooks.pop(hook, None)

    async def close(self, timeout: float) -> None:
        """Give the session back, if that is possible in time; no call succeeds afterwards."""
        session = self._session
        try:
            if session is not None:
                self._lose(session)
                if session.is_kept and timeout > 0:
                    await self._close_session(session, timeout)
        finally:
            self.stop()

    async def _close_session(self, session: Session, timeout: float) -> None:
        def ask(uuid: bytes, remaining: float) -> CallGroup:
            return self._entry(session.group, Kind.CLOSE_SESSION, b"", session.number, remaining)

        try:
            await self._call(ask, _Try(self._clock.monotonic() + timeout))
        except CacheError as error:
            logger.info("session.not_closed group=%s error=%s", self.name, error)

    def stop(self) -> None:
        """Let no further try be made; whoever depends on the session is told that it is over."""
        self._closed = True
        if self._session is not None:
            self._lose(self._session)

    def _begin(self, deadline: float | None) -> _Try:
        if self._rpc.home is not None:
            self._rpc.home.check()
        if self._closed:
            raise ClosedError(f"group {self.name}: this node is closed")
        now = self._clock.monotonic()
        return _Try(now + self._config.operation_timeout if deadline is None else deadline)

    # -- commands --------------------------------------------------------------------------------

    async def _command(self, session: Session, data: bytes, trying: _Try) -> bytes | None:
        """Return the answer to a command, or None if it was not applied and another session may try."""
        sequence, sent_at = session.begin(), self._clock.monotonic()

        def ask(uuid: bytes, remaining: float) -> CallGroup:
            return CallGroup(
                self.name,
                session.group,
                Kind.COMMAND,
                data,
                session.number,
                sequence,
                session.answered,
                remaining,
            )

        try:
            answer = await self._call(ask, trying, session)
        finally:
            session.end(sequence)
        match answer.outcome:
            case Outcome.DONE if session.group != self._hosted.witness.known:
                raise IndeterminateError(f"group {self.name}: it was given up, and all it held")
            case Outcome.DONE:
                session.confirm(sent_at)
                return answer.data
            case Outcome.SESSION_UNKNOWN:
                self._lose(session)
                if trying.maybe_applied:
                    raise IndeterminateError(
                        f"group {self.name}: the session ended before the command was answered"
                    )
                if session.is_kept:
                    raise self._session_lost(session)
                return None
            case _:
                raise IndeterminateError(f"group {self.name}: the answer was not kept")

    def _entry(
        self, uuid: bytes, kind: Kind, data: bytes, session: int, remaining: float
    ) -> CallGroup:
        return CallGroup(self.name, uuid, kind, data, session, 0, 0, remaining)

    # -- the session -----------------------------------------------------------------------------

    async def _open(self, trying: _Try) -> Session:
        """Return the session, opened if there is none that certainly lives."""
        session = self._living()
        if session is not None:
            return session
        await self._acquire(self._opening.acquire(), trying)
        try:
            session = self._living()
            if session is None:
                session = self._session = await self._open_another(trying)
            return session
        finally:
            self._opening.release()

    async def _open_another(self, trying: _Try) -> Session:
        lifetime = str(self._config.consistent.session_ttl).encode()
        opening = _Try(trying.deadline)  # A session that is opened twice ends by itself.
        while True:
            sent_at = self._clock.monotonic()
            asked: list[bytes] = []

            def ask(uuid: bytes, remaining: float, asked: list[bytes] = asked) -> CallGroup:
                asked.append(uuid)
                return self._entry(uuid, Kind.OPEN_SESSION, lifetime, 0, remaining)

            try:
                answer = await self._call(ask, opening)
            except IndeterminateError as error:
                raise NoQuorumError(str(error)) from error
            if answer.outcome == Outcome.TOO_MANY_SESSIONS:
                raise OverloadedError(f"group {self.name}: no further session can be opened")
            number = int(answer.data) if answer.data.isdigit() else 0
            session = Session(number, sent_at, group=asked[-1])
            if number and self._clock.monotonic() < self._ends_at(session):
                self._note_group(session.group)
                return session

    def _note_group(self, uuid: bytes) -> None:
        """Say that numbers of sessions begin anew, when the former group was given up."""
        if self._last_group not in (NO_GROUP, uuid):
            for hook in list(self._lost_hooks):
                hook(EVERY_SESSION)
        self._last_group = uuid

    def _ends_at(self, session: Session) -> float:
        return session.confirmed_at + self._config.consistent.session_ttl

    def _living(self) -> Session | None:
        """Return the session if it certainly lives; say that it is lost otherwise."""
        session = self._session
        if session is not None and (
            self._clock.monotonic() >= self._ends_at(session)
            or session.group != self._hosted.witness.known
        ):
            self._lose(session)
        return self._session

    def _lose(self, session: Session) -> None:
        if self._session is not session:
            return
        self._session = None
        logger.info("session.lost group=%s session=%d", self.name, session.number)
        for hook in list(self._lost_hooks):
            hook(session.number)

    def _session_lost(self, session: Session) -> SessionLostError:
        ttl = self._config.consistent.session_ttl
        return SessionLostError(
            f"group {self.name}: session {session.number} is over: no sign of life came through for "
            f"{ttl} s (ConsistentConfig.session_ttl)"
        )

    async def _keep_alive(self, session: Session) -> None:
        """Give signs of life until the session is lost or closed."""
        interval = self._config.consistent.session_ttl / KEEP_ALIVES

        def ask(uuid: bytes, remaining: float) -> CallGroup:
            return self._entry(session.group, Kind.KEEP_SESSION, b"", session.number, remaining)

        while self._session is session:
            now, ends_at = self._clock.monotonic(), self._ends_at(session)
            due_at = min(session.confirmed_at + interval, ends_at)
            if now >= ends_at:
                self._lose(session)
            elif now < due_at:
                await asyncio.sleep(due_at - now)
            else:
                with suppress(TimeoutError):
                    async with asyncio.timeout(ends_at - now):
                        await self._give_sign(session, ask, now)

    async def _give_sign(self, session: Session, ask: Ask, now: float) -> None:
        try:
            answer = await self._call(ask, _Try(self._ends_at(session)), session)
        except CacheError as error:
            logger.debug("session.no_sign group=%s error=%s", self.name, error)
            await asyncio.sleep(PAUSE_MAX)
            return
        if answer.outcome == Outcome.DONE:
            session.confirm(now)
        else:
            self._lose(session)

    # -- one call --------------------------------------------------------------------------------

    async def _call(
        self, ask: Ask, trying: _Try, session: Session | None = None, *, hold: float = 0.0
    ) -> GroupAnswer:
        """Ask until there is an answer of the group.

        Raises:
            RejectedError: not applied. IndeterminateError: it may be.
        """
        while True:
            if self._clock.monotonic() >= trying.deadline:
                raise self._too_late(trying)
            if session is not None and self._living() is not session:
                return GroupAnswer(Outcome.SESSION_UNKNOWN)
            answer = await self._try_once(ask, trying, hold)
            if answer is not None:
                return answer
            if self._closed:
                raise self._closed_under(trying)
            await self._pause(trying)

    def _patience(self, trying: _Try) -> float:
        """Return for how many seconds the next question may wait."""
        return min(trying.deadline - self._clock.monotonic(), self._attempt_timeout)

    async def _try_once(self, ask: Ask, trying: _Try, hold: float) -> GroupAnswer | None:
        """Ask whoever leads, once; None when another try is due."""
        hosted = self._hosted
        hosted.hear_replica()
        if hosted.leader is None or hosted.witness.known == NO_GROUP:
            await self._find(self._patience(trying))
        leader, timeout = hosted.leader, self._patience(trying)
        if leader is None or hosted.witness.known == NO_GROUP or timeout <= 0:
            return None
        question = ask(hosted.witness.known, timeout)
        try:
            reply = await self._send(leader, question, timeout + hold)
        except (IndeterminateError, ClosedError) as error:
            trying.maybe_applied = trying.maybe_applied or isinstance(question, CallGroup)
            logger.debug("group.unanswered group=%s leader=%s %s", self.name, leader, error)
            self._doubt(leader)
            return None
        except OverloadedError:
            if not trying.maybe_applied:
                raise
            return None
        except RejectedError as error:
            logger.debug("group.unreachable group=%s leader=%s %s", self.name, leader, error)
            self._doubt(leader)
            return None
        return self._read(reply, leader, trying)

    def _read(self, reply: Reply, leader: str, trying: _Try) -> GroupAnswer | None:
        if not isinstance(reply, GroupAnswer):
            raise RemoteProtocolError(f"{type(reply).__name__} is no answer of a group")
        match reply.outcome:
            case Outcome.NOT_LEADER | Outcome.NO_GROUP:
                self._doubt(leader)
                if reply.leader and reply.leader != leader and trying.count % 2 == 0:
                    self._hosted.leader = ReplicaId(
                        reply.leader
                    )  # Every other time: it may be stale.
                return None
            case Outcome.UNKNOWN:
                trying.maybe_applied = True
                return None
            case _:
                return reply

    def _doubt(self, leader: str) -> None:
        """Forget who leads, unless something newer was heard."""
        if self._hosted.leader == leader:
            self._hosted.leader = None

    async def _send(self, leader: str, question: CallGroup | QueryGroup, timeout: float) -> Reply:
        hosted = self._hosted
        if leader == hosted.me:
            if isinstance(question, CallGroup):
                return await hosted.call(question)
            return await hosted.query(question)
        address = self._host.people.address_of(ReplicaId(leader))
        if address is None:
            raise NoQuorumError(f"{leader} is not there")
        return await self._rpc.call(address, question, timeout=timeout)

    async def _find(self, timeout: float) -> None:
        """Ask members who leads, until one knows."""
        hosted = self._hosted
        status = hosted.status()
        if status is not None and status.leader is not None:
            hosted.hear(status.leader, status.term)
            return
        self._host.want(hosted)
        me = self._host.people.me
        members = [one for one in self._host.people.stayers() if one.id != me]
        start = self._asked % max(1, len(members))
        self._asked += ASKED_MAX
        asked = [*members[start:], *members[:start]][:ASKED_MAX]
        if members and hosted.witness.known == NO_GROUP:
            founder = min(members, key=lambda one: one.id)
            asked = [founder, *(one for one in asked if one is not founder)]
        question = FindGroup(self.name, is_wanted=True)
        waiting = [self._rpc.call(one.address, question, timeout=timeout) for one in asked]
        try:
            while waiting and hosted.leader is None:
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for future in [one for one in waiting if one.done()]:
                    waiting.remove(future)
                    view = None if future.exception() is not None else future.result()
                    if isinstance(view, GroupView):
                        hosted.learn(view)
        finally:
            # Also when the caller was cancelled: an error that nobody asked for would be logged as ours.
            for future in waiting:
                if not future.cancel():
                    future.exception()

    async def _pause(self, trying: _Try) -> None:
        """Wait before the next try, longer each time, but not beyond the news of a later leader."""
        longest = min(PAUSE * 2 ** min(trying.count, 10), PAUSE_MAX)
        trying.count += 1
        left = max(0.0, trying.deadline - self._clock.monotonic())
        await self._hosted.await_leader(min(left, longest * self._rng.uniform(0.5, 1.0)))

    async def _acquire(self, acquiring: Awaitable[bool], trying: _Try) -> None:
        try:
            async with asyncio.timeout(max(0.0, trying.deadline - self._clock.monotonic())):
                await acquiring
        except TimeoutError:
            raise self._too_late(trying) from None

    # -- errors ----------------------------------------------------------------------------------

    def _too_late(self, trying: _Try) -> CacheError:
        text = f"group {self.name} did not answer in time: {why_not(self._host, self.name)}"
        return OperationTimeoutError(text) if trying.maybe_applied else NoQuorumError(text)

    def _closed_under(self, trying: _Try) -> CacheError:
        text = f"group {self.name}: this node was closed"
        return IndeterminateError(text) if trying.maybe_applied else ClosedError(text)
