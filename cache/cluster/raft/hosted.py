"""One group on one node: its replica, if it is here, and the questions that wait for its state."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Final

from cache.clock import Clock
from cache.cluster.config.consistent import ConsistentConfig
from cache.cluster.raft.calls import CALLABLE, OUTCOMES, Machine, Outcome, replica_id
from cache.cluster.raft.founding import NO_GROUP, Birth, Reply, Witness
from cache.cluster.raft.messages import AnyMessage, GroupId, Kind, ReplicaId, decode_members
from cache.cluster.raft.outputs import Persisted, Role, RoleChanged
from cache.cluster.raft.service import LogStorage, RaftGroup
from cache.cluster.raft.status import Status
from cache.cluster.scope import Scope
from cache.cluster.wire.messages import CallGroup, GroupAnswer, GroupView, QueryGroup
from cache.errors import (
    ClosedError,
    IndeterminateError,
    NotLeaderError,
    OverloadedError,
    RemoteProtocolError,
)

if TYPE_CHECKING:
    from cache.cluster.raft.stored import StoredLog

logger = logging.getLogger(__name__)

HELD_MAX: Final = 10_000
"""Questions that wait here for one group; further ones are refused."""

FOREIGN_MAX: Final = 8
"""Other groups of the same name that are remembered, for whoever looks into it."""

LOG_ID_BITS: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the groups of a node have in common."""

    member_name: str
    config: ConsistentConfig
    clock: Clock
    rng: Random
    scope: Scope
    make_machine: Callable[[], Machine]
    send: Callable[[bytes, ReplicaId, AnyMessage], None]
    """Of the group with that uuid, best effort."""
    wake: Callable[[GroupId], None]
    """Something changed in a group: look after it."""


class Hosted:
    """A group, as this node knows it."""

    def __init__(self, name: GroupId, around: Surroundings) -> None:
        self._around = around
        self.name = name
        self.me = self.new_log()
        """The log that is here, or would be."""
        self.witness = Witness()
        self.replica: RaftGroup | None = None
        self.birth: Birth | None = None
        """The first voters, while the group may be unborn."""
        self.leader: ReplicaId | None = None
        """Who was said to lead last, in `leader_term`."""
        self.leader_term = 0
        self.gone: dict[ReplicaId, None] = {}
        """Members of the group whose log does not exist any more."""
        self.foreign: dict[bytes, None] = {}
        """Other groups of the same name."""
        self.is_wanted = around.config.found_at_start
        """Whether it is to be founded if there is none."""
        self.waits_for = ""
        """Why there is no group yet."""
        self.changing = asyncio.Lock()
        """Guards what is stored while a replica begins or ends."""
        self.leaderless_since: float | None = None
        self._machine: Machine | None = None
        self._awaiting_leader: dict[asyncio.Future[bool], None] = {}
        self._held: dict[bytes, dict[asyncio.Future[bool], None]] = {}
        self._held_count = 0

    def new_log(self) -> ReplicaId:
        """Return a name that no log had before."""
        number = self._around.rng.getrandbits(LOG_ID_BITS)
        return replica_id(self._around.member_name, f"{number:016x}")

    # -- the replica -----------------------------------------------------------------------------

    def begin(
        self, persisted: Persisted, storage: LogStorage | None, birth: Birth | None = None
    ) -> None:
        """Take part, from what is stored; `birth` tells the voters of a group that may be unborn."""
        around = self._around
        self._machine = around.make_machine()
        self.birth = birth
        self.leaderless_since = around.clock.monotonic()
        uuid = self.witness.known
        self.replica = RaftGroup(
            self.name,
            self.me,
            config=around.config.raft,
            persisted=persisted,
            storage=storage,
            state=self._machine,
            send=lambda to, message: around.send(uuid, to, message),
            on_role=self._role_changed,
            on_applied=self._applied,
            clock=around.clock,
            rng=around.rng,
            scope=around.scope,
        )
        self.replica.start()
        logger.info("raft.replica group=%s replica=%s uuid=%s", self.name, self.me, uuid.hex())

    def resume(self, kept: StoredLog, storage: LogStorage) -> None:
        """Take part with the log that a former process of this member left."""
        self.me = replica_id(self._around.member_name, kept.log_id)
        self.witness.known = kept.uuid
        self.begin(kept.persisted, storage, _birth_of(kept.persisted))

    def end(self, reason: str) -> None:
        """Take part no longer: the log is no more, and what comes next has another name."""
        logger.info("raft.replica_ended group=%s replica=%s: %s", self.name, self.me, reason)
        self.close()
        self.replica = self._machine = self.birth = None
        self.leaderless_since = None
        self.me = self.new_log()

    def forget(self) -> None:
        """Know nothing of the group any more, and never hear of it again."""
        self.witness.give_up(self.witness.known)
        self.leader, self.leader_term = None, 0
        self.gone.clear()
        self.foreign.clear()

    def close(self) -> None:
        """Stop at once."""
        if self.replica is not None:
            self.replica.close()
        self._release_all()

    def status(self) -> Status | None:
        """Return the state of the replica here, if it takes part."""
        replica = self.replica
        return None if replica is None or replica.halted is not None else replica.status()

    def digest(self) -> tuple[int, int] | None:
        """Return the index and a digest of the state of the replica here, if it takes part."""
        replica = self.replica
        return None if replica is None or replica.halted is not None else replica.digest()

    @property
    def leads(self) -> bool:
        """Whether the replica here believes to lead."""
        status = self.status()
        return status is not None and status.role is Role.LEADER

    @property
    def has_state(self) -> bool:
        """Whether anything was ever put into the group, as far as this node knows."""
        return self.replica is not None and self.replica.has_state

    @property
    def is_unborn(self) -> bool:
        """Whether the group may never have had a leader."""
        status = self.status()
        return self.birth is not None and status is not None and status.commit == 0

    @property
    def is_lost(self) -> bool:
        """Whether a majority of the logs does not exist any more: nothing can be agreed on again."""
        status = self.status()
        if status is None:
            return False
        gone = sum(ReplicaId(voter) in self.gone for voter in status.members.voters)
        return gone * 2 >= len(status.members.voters) > 0

    def _role_changed(self, change: RoleChanged) -> None:
        if change.leader is not None:
            self.hear(change.leader, change.term)
            self.leaderless_since = None
        elif self.leaderless_since is None:
            self.leaderless_since = self._around.clock.monotonic()
        if change.role is not Role.LEADER:
            self._release_all()
        leads = change.role is Role.LEADER
        logger.log(
            logging.INFO if leads else logging.DEBUG,
            "raft.role group=%s replica=%s role=%s term=%d leader=%s",
            self.name,
            self.me,
            change.role.value,
            change.term,
            change.leader,
        )
        self._around.wake(self.name)

    # -- what is known ---------------------------------------------------------------------------

    def hear(self, leader: ReplicaId, term: int) -> None:
        """Note who leads; what is older than what is known is not believed."""
        if term < self.leader_term:
            return
        is_news = term > self.leader_term
        self.leader, self.leader_term = leader, term
        if is_news:  # Not who was doubted, and is heard of again: callers would wake each other.
            self._wake_held(self._awaiting_leader)

    def hear_replica(self) -> None:
        """Hear of the leader that the replica here knows, if that is news.

        A replica that was elected says so when its first entry is durable; calls begun before that would go
        to the former leader, and wait for an answer.
        """
        replica = self.replica
        if replica is None or replica.leader in (None, self.leader):
            return
        status = self.status()
        if status is not None and status.leader is not None and status.term > self.leader_term:
            self.hear(status.leader, status.term)

    async def await_leader(self, timeout: float) -> None:
        """Return when one of a later term is heard of, or after so many seconds."""
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._awaiting_leader[future] = None
        try:
            await asyncio.wait((future,), timeout=timeout)
        finally:
            del self._awaiting_leader[future]

    def learn(self, view: GroupView) -> bool:
        """Take in what another member knows of the group; return whether it is the same one."""
        if view.uuid == NO_GROUP or not view.born:
            return False
        if not self.know(view.uuid):
            return False
        if view.leader:
            self.hear(ReplicaId(view.leader), view.term)
        return True

    def know(self, uuid: bytes) -> bool:
        """Hear that a group lives; return whether it is the one known here from now on."""
        if self.witness.learn(uuid):
            return True
        if uuid not in self.witness.given_up:
            self._note_foreign(uuid)
        return False

    def _note_foreign(self, uuid: bytes) -> None:
        if uuid in self.foreign or len(self.foreign) >= FOREIGN_MAX:
            return
        self.foreign[uuid] = None
        known = self.witness.known.hex()
        logger.error(
            "raft.two_groups group=%s known=%s other=%s: members were started apart from each other "
            "with an expected_size that is too small; restart those of one group without their data",
            self.name,
            known,
            uuid.hex(),
        )

    def view(self) -> GroupView:
        """Return what this node knows of the group."""
        status = self.status()
        uuid, expected = self.witness.known, self._around.config.expected_size
        if status is None:
            leader = self.leader or ""
            born = uuid != NO_GROUP
            return GroupView(uuid, born, expected, self.leader_term, leader, 0, [], [])
        members = status.members
        return GroupView(
            uuid,
            not self.is_unborn,
            expected,
            status.term,
            status.leader or "",
            status.commit,
            list(dict.fromkeys((*members.voters, *members.outgoing))),
            list(members.learners),
        )

    def offered(self, uuid: bytes, replica: str) -> Reply:
        """Return what to say to a group whose first voter this node is to be, by that log."""
        if replica != self.me:
            return Reply.NEVER
        return self.witness.accept(uuid)

    # -- calls -----------------------------------------------------------------------------------

    def _refusal(self, uuid: bytes) -> GroupAnswer | None:
        """Return why a call is not for this node, or None if it leads that group."""
        replica = self.replica
        if uuid != self.witness.known:
            return GroupAnswer(Outcome.NO_GROUP)
        if replica is None or replica.halted is not None:
            return GroupAnswer(Outcome.NO_GROUP, leader=self.leader or "")
        if replica.leader != self.me:
            return GroupAnswer(Outcome.NOT_LEADER, leader=replica.leader or "")
        return None

    async def call(self, message: CallGroup) -> GroupAnswer:
        """Bring an entry into the log, as the leader.

        Raises:
            OverloadedError: not applied.
            RemoteProtocolError: this kind of entry is not for others to bring.
        """
        if message.kind not in CALLABLE:
            raise RemoteProtocolError(f"an entry of kind {message.kind} may not be brought")
        if refusal := self._refusal(message.uuid):
            return refusal
        assert self.replica is not None, "or it would be refused"
        try:
            applied = await self.replica.propose(
                message.data,
                timeout=message.remaining,
                kind=Kind(message.kind),
                session=message.session,
                sequence=message.sequence,
                answered=message.answered,
            )
        except (NotLeaderError, ClosedError):
            return self._refusal(message.uuid) or GroupAnswer(Outcome.NOT_LEADER)
        except IndeterminateError:
            return GroupAnswer(Outcome.UNKNOWN)
        return GroupAnswer(OUTCOMES[applied.effect], applied.answer)

    async def query(self, message: QueryGroup) -> GroupAnswer:
        """Answer a question from the state, after a barrier; hold it until there is an answer.

        Raises:
            OverloadedError: too many questions wait.
            NoQuorumError: no majority answered in time.
        """
        if refusal := self._refusal(message.uuid):
            return refusal
        replica, machine = self.replica, self._machine
        assert replica is not None, "or it would be refused"
        assert machine is not None, "there is one with each replica"
        try:
            await replica.read(timeout=message.remaining, lease=message.lease)
        except (NotLeaderError, ClosedError, IndeterminateError):
            return self._refusal(message.uuid) or GroupAnswer(Outcome.NOT_LEADER)
        answer = machine.query(message.data)
        if answer is not None:
            return GroupAnswer(Outcome.DONE, answer)
        if message.wait <= 0:
            return GroupAnswer(Outcome.NOTHING)
        return await self._hold(message, machine)

    async def _hold(self, message: QueryGroup, machine: Machine) -> GroupAnswer:
        """Ask again whenever the object changes.

        What was applied here after the barrier is committed, and contains all that was acknowledged
        before the question: no further barrier is needed.
        """
        if self._held_count >= HELD_MAX:
            raise OverloadedError(f"group {self.name}: {HELD_MAX} questions wait here already")
        ends_at = self._around.clock.monotonic() + message.wait
        topic = machine.topic(message.data)
        self._held_count += 1
        try:
            while True:
                if not self.leads or self._machine is not machine:
                    return self._refusal(message.uuid) or GroupAnswer(Outcome.NOT_LEADER)
                left = ends_at - self._around.clock.monotonic()
                if left <= 0 or not await self._changed(topic, left):
                    return GroupAnswer(Outcome.NOTHING)
                if self._machine is machine and (answer := machine.query(message.data)) is not None:
                    return GroupAnswer(Outcome.DONE, answer)
        finally:
            self._held_count -= 1

    async def _changed(self, topic: bytes, timeout: float) -> bool:
        """Return when an object changed, or this node leads no longer; False when it took too long."""
        waiting = self._held.setdefault(topic, {})
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        waiting[future] = None
        try:
            await asyncio.wait((future,), timeout=timeout)
            return future.done()
        finally:
            waiting.pop(future, None)
            if not waiting and self._held.get(topic) is waiting:
                del self._held[topic]

    def _applied(self) -> None:
        assert self._machine is not None, "there is one with each replica"
        for topic in self._machine.take_changed():
            self._wake_held(self._held.pop(topic, {}))

    def _release_all(self) -> None:
        held, self._held = self._held, {}
        for waiting in held.values():
            self._wake_held(waiting)

    def _wake_held(self, waiting: dict[asyncio.Future[bool], None]) -> None:
        for future in waiting:
            if not future.done():
                future.set_result(True)


def _birth_of(persisted: Persisted) -> Birth | None:
    """Return the first voters, if a log holds nothing but them."""
    if persisted.snapshot.index or len(persisted.entries) != 1:
        return None
    return Birth(tuple(map(ReplicaId, decode_members(persisted.entries[0].data).voters)))
