"""The Raft groups of one node: which replicas are here, what reaches them, and who looks after them.

A node without a group founds one when it is its turn, or hears of one; a leader keeps the voters right; a
replica that was removed ends. A message for a log that is no more is answered by saying so (`ReplicaGone`),
which lets the leader replace it at once. That is a hint: every change needs a majority, whatever was said.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from random import Random
from typing import TYPE_CHECKING, Final, TypeVar

from xxhash import xxh3_64_intdigest

from cache.clock import Clock
from cache.cluster.config.consistent import ConsistentConfig
from cache.cluster.ids import member_name
from cache.cluster.membership.service import MembershipService
from cache.cluster.raft.calls import Machine, replica_member
from cache.cluster.raft.changes import everyone, is_voter
from cache.cluster.raft.founder import Founder
from cache.cluster.raft.founding import NO_GROUP, Birth, Reply
from cache.cluster.raft.hosted import Hosted, Surroundings
from cache.cluster.raft.keeper import Keeper
from cache.cluster.raft.messages import (
    AnyMessage,
    GroupId,
    ReplicaId,
    decode_message,
    encode,
)
from cache.cluster.raft.outputs import Persisted
from cache.cluster.raft.people import People
from cache.cluster.raft.status import bootstrap
from cache.cluster.scope import Scope
from cache.cluster.transport.rpc import Peer, RpcEndpoint
from cache.cluster.wire.messages import (
    CallGroup,
    Enlisted,
    EnlistReplica,
    FindGroup,
    GroupView,
    KnowGroup,
    OfferAnswer,
    OfferGroup,
    QueryGroup,
    RaftNotice,
    ReplicaGone,
    ReserveMember,
)
from cache.cluster.wire.messages import (
    Reply as WireReply,
)
from cache.errors import ClosedError, CorruptStorageError, RemoteProtocolError
from cache.metrics import Metrics

if TYPE_CHECKING:
    from cache.cluster.raft.stored import StoredLogs

logger = logging.getLogger(__name__)

STRAY_AFTER: Final = 2.0
"""Times `election_timeout_max` without a leader, until a replica asks whether it was removed."""

M = TypeVar("M")

SINGLE: Final = GroupId("main")


def group_names(count: int) -> list[GroupId]:
    """Return the names of so many groups."""
    return [SINGLE] if count == 1 else [GroupId(f"{SINGLE}-{number}") for number in range(count)]


def group_of(name: str, groups: list[GroupId]) -> GroupId:
    """Return the group that has the object of that name."""
    return groups[xxh3_64_intdigest(name.encode()) % len(groups)]


class RaftHost:
    """What one node has of every group, and knows of it."""

    def __init__(
        self,
        *,
        config: ConsistentConfig,
        membership: MembershipService,
        rpc: RpcEndpoint,
        clock: Clock,
        rng: Random,
        metrics: Metrics,
        scope: Scope,
        make_machine: Callable[[], Machine],
        logs: StoredLogs | None = None,
    ) -> None:
        self.config = config
        self.people = People(config, membership, rpc)
        self._membership = membership
        self._rpc = rpc
        self._clock = clock
        self._rng = rng
        self._scope = scope
        self._closed = False
        self._last: tuple[AnyMessage | None, bytes] = None, b""
        self._logs = logs
        """Where replicas are kept; None: in memory."""
        self.has_disk = logs is not None
        foundings = metrics.counter("raft.foundings")
        self.founder = Founder(config, self.people, clock, rng, self._accept, foundings)
        around = Surroundings(
            member_name=self.people.my_name,
            config=config,
            clock=clock,
            rng=rng,
            scope=scope,
            make_machine=make_machine,
            send=self._send,
            wake=self._wake,
        )
        self.groups = {name: Hosted(name, around) for name in group_names(config.groups)}
        self._keepers = {
            name: Keeper(hosted, config, self.people, clock) for name, hosted in self.groups.items()
        }
        self._wakes = {name: asyncio.Event() for name in self.groups}
        self._gone_told = metrics.counter("raft.gone_told")
        self._unreachable = metrics.counter("raft.unreachable")
        metrics.gauge("raft.replicas", lambda: sum(h.status() is not None for h in self._all()))
        metrics.gauge("raft.leads", lambda: sum(hosted.leads for hosted in self._all()))

    async def load(self) -> None:
        """Take up the logs that a former process of this member left.

        One that is damaged is forgotten: what it promised is not known any more, so that it never votes
        again, and this member joins anew, as another replica.

        Raises:
            StorageError: the store cannot be read at all, or a newer version of this library wrote it.
        """
        if self._logs is None:
            return
        for hosted in self._all():
            try:
                kept = await self._logs.load(hosted.name)
            except CorruptStorageError as error:
                logger.error("raft.log_damaged group=%s error=%s", hosted.name, error)
                await self._logs.forget(hosted.name)
                continue
            if kept is not None:
                hosted.resume(kept, self._logs)

    def listen(self) -> None:
        """Answer others."""
        register = self._rpc.register
        register(FindGroup, self._on_find)
        register(KnowGroup, self._on_know)
        register(ReserveMember, self._on_reserve)
        register(EnlistReplica, self._on_enlist)
        register(OfferGroup, self._on_offer)
        register(CallGroup, self._on_call)
        register(QueryGroup, self._on_query)
        self._rpc.register_notice(RaftNotice, self._on_notice)
        self._rpc.register_notice(ReplicaGone, self._on_gone)

    def start(self) -> None:
        """Look after the groups, once the members are known: one that joins must not found."""
        self._membership.subscribe(self._wake_all)
        for name in self.groups:
            self._scope.spawn(self._look_after(name), name=f"raft.{name}")

    def close(self) -> None:
        """Take part no longer."""
        self._closed = True
        for hosted in self._all():
            hosted.close()

    def _all(self) -> list[Hosted]:
        return list(self.groups.values())

    # -- what others ask of this node ------------------------------------------------------------

    def hosted(self, name: str) -> Hosted:
        """Return a group as this node knows it.

        Raises:
            RemoteProtocolError: there is none of that name; `ConsistentConfig.groups` differs.
        """
        hosted = self.groups.get(GroupId(name))
        if hosted is None:
            raise RemoteProtocolError(
                f"no group {name!r} here; ConsistentConfig.groups has to be the same on every member"
            )
        return hosted

    @property
    def may_take_part(self) -> bool:
        """Whether this member may have replicas: it holds data, and stays."""
        local = self._membership.local()
        return local.holds_data and not local.leaving and not self._closed

    def want(self, hosted: Hosted) -> None:
        """Somebody wants to use a group: found it, if it is this member's turn and there is none."""
        if not hosted.is_wanted:
            hosted.is_wanted = True
            self._wake(hosted.name)

    def _on_find(self, message: FindGroup, peer: Peer) -> GroupView:
        hosted = self.hosted(message.group)
        if message.is_wanted:
            self.want(hosted)
        return hosted.view()

    def _on_know(self, message: KnowGroup, peer: Peer) -> GroupView:
        _require_member(peer)
        hosted = self.hosted(message.group)
        hosted.know(message.uuid)
        return hosted.view()

    def _on_reserve(self, message: ReserveMember, peer: Peer) -> Enlisted:
        _require_member(peer)
        hosted = self.hosted(message.group)
        if message.seconds == 0:
            hosted.witness.release(message.uuid)
            return Enlisted("")
        now = self._clock.monotonic()
        granted = self.may_take_part and hosted.witness.reserve(message.uuid, now, message.seconds)
        return Enlisted(hosted.me if granted else "")

    def _on_enlist(self, message: EnlistReplica, peer: Peer) -> Awaitable[WireReply]:
        _require_member(peer)
        return self._answer(self._enlist, message)

    async def _enlist(self, message: EnlistReplica) -> Enlisted:
        hosted = self.hosted(message.group)
        async with hosted.changing:
            if not self.may_take_part:
                return Enlisted("")
            if not hosted.know(message.uuid):  # Only a leader enlists: the group was born.
                return Enlisted("")
            if hosted.replica is None:
                await self._begin(hosted, Persisted())
            return Enlisted("" if hosted.status() is None else hosted.me)

    def _on_offer(self, message: OfferGroup, peer: Peer) -> Awaitable[WireReply]:
        _require_member(peer)
        return self._answer(self._take_offer, message)

    async def _take_offer(self, message: OfferGroup) -> OfferAnswer:
        hosted = self.hosted(message.group)
        voters = tuple(map(ReplicaId, message.voters))
        if message.replica not in voters:
            raise RemoteProtocolError(f"{message.replica} is no voter of the group it is offered")
        return OfferAnswer(await self._accept(hosted, message.uuid, message.replica, voters))

    async def _accept(
        self, hosted: Hosted, uuid: bytes, replica: str, voters: tuple[ReplicaId, ...]
    ) -> Reply:
        """Become one of the first voters; the first entry is durable when this says so."""
        async with hosted.changing:
            reply = hosted.offered(uuid, replica)
            if reply is Reply.ACCEPTED and hosted.replica is None:
                await self._begin(hosted, bootstrap(voters), Birth(voters))
            return reply

    async def _begin(
        self, hosted: Hosted, persisted: Persisted, birth: Birth | None = None
    ) -> None:
        """Take part with a new log, which is durable when this returns; `changing` is held."""
        if self._logs is not None:
            log_id = hosted.me.rpartition("/")[2]
            uuid = hosted.witness.known
            await self._logs.create(hosted.name, persisted, uuid=uuid, log_id=log_id)
        hosted.begin(persisted, self._logs, birth)
        self._wake(hosted.name)

    async def _end(self, hosted: Hosted, reason: str) -> None:
        """Take part no longer, and forget the log; `changing` is held."""
        replica = hosted.replica
        hosted.end(reason)
        if replica is not None:
            await replica.wait_written()
        if self._logs is not None:
            await self._logs.forget(hosted.name)

    async def forget(self, hosted: Hosted) -> None:
        """Give a group up; `changing` is held."""
        await self._end(hosted, "an operator gave it up")
        hosted.forget()
        self._wake(hosted.name)

    def _on_call(self, message: CallGroup, peer: Peer) -> Awaitable[WireReply]:
        return self._answer(self.hosted(message.group).call, message)

    def _on_query(self, message: QueryGroup, peer: Peer) -> Awaitable[WireReply]:
        return self._answer(self.hosted(message.group).query, message)

    def _answer(
        self, serve: Callable[[M], Awaitable[WireReply]], message: M
    ) -> Awaitable[WireReply]:
        """Serve a request in a task; the coroutine that serves it begins there, or never exists."""
        future: asyncio.Future[WireReply] = asyncio.get_running_loop().create_future()

        async def run() -> None:
            try:
                reply = await serve(message)
            except Exception as error:  # noqa: BLE001 - the root of a task: this is its answer
                if not future.done():
                    future.set_exception(error)
            else:
                if not future.done():
                    future.set_result(reply)
            finally:
                future.cancel()  # Cancelled itself; otherwise this does nothing.

        if self._closed:
            raise ClosedError("this member is closing")
        self._scope.spawn(run(), name=f"raft.{type(message).__name__}")
        return future

    # -- messages between replicas ---------------------------------------------------------------

    def _send(self, uuid: bytes, to: ReplicaId, message: AnyMessage) -> None:
        address = self.people.address_of(to)
        if address is None or self._closed:
            self._unreachable.add()
        else:
            self._rpc.notify(address, RaftNotice(uuid, to, self._encoded(message)))

    def _encoded(self, message: AnyMessage) -> bytes:
        """Return the bytes of a message, which may go to several one after another."""
        if self._last[0] is not message:
            self._last = message, encode(message)
        return self._last[1]

    def _on_notice(self, notice: RaftNotice, peer: Peer) -> None:
        if peer.member is None or self._closed:
            return
        hosted = next((one for one in self._all() if one.me == notice.target), None)
        if hosted is None or hosted.witness.known not in (NO_GROUP, notice.uuid):
            self._tell_gone(notice, peer)
            return
        replica = hosted.replica
        if replica is None:
            self._scope.spawn(self._begin_as(hosted, notice), name="raft.begin")
            return
        if replica.halted is not None:
            self._tell_gone(notice, peer)
            return
        message = decode_message(notice.body)
        if replica_member(message.sender) == member_name(peer.member):
            replica.receive(message)

    async def _begin_as(self, hosted: Hosted, notice: RaftNotice) -> None:
        """Begin with an empty log, where the group counts on this one, and its offer was lost.

        1. A founder offers the group to three. 2. Two accept; the offer to the third is lost. 3. The group
        elects a leader, so that nobody offers it any more. 4. One of the two dies. This log has
        promised nothing so far, so that it may vote as one that lags behind.
        """
        async with hosted.changing:
            if hosted.replica is not None or self._closed:
                return
            if hosted.offered(notice.uuid, notice.target) is Reply.ACCEPTED:
                await self._begin(hosted, Persisted())

    def _tell_gone(self, notice: RaftNotice, peer: Peer) -> None:
        """Say that a log of this member is no more; of another member's nothing is known here."""
        if replica_member(notice.target) == self.people.my_name and peer.address is not None:
            self._gone_told.add()
            self._rpc.notify(peer.address, ReplicaGone(notice.uuid, "", notice.target))

    def _on_gone(self, notice: ReplicaGone, peer: Peer) -> None:
        """Believe a member about its own logs only."""
        replica = ReplicaId(notice.replica)
        if peer.member is None or replica_member(replica) != member_name(peer.member):
            return
        for hosted in self._all():
            status = hosted.status()
            if status is None or hosted.witness.known != notice.uuid or replica in hosted.gone:
                continue
            if replica in everyone(status.members):
                hosted.gone[replica] = None
                logger.info("raft.gone group=%s replica=%s", hosted.name, replica)
                self._wake(hosted.name)

    # -- looking after the groups ----------------------------------------------------------------

    def _wake(self, name: GroupId) -> None:
        self._wakes[name].set()

    def _wake_all(self) -> None:
        for name in self.groups:
            self._wake(name)

    async def _look_after(self, name: GroupId) -> None:
        hosted, wake = self.groups[name], self._wakes[name]
        while True:
            wake.clear()
            try:
                pause = await self._step(hosted)
            except Exception:
                logger.exception("raft.step_failed group=%s", name)
                pause = self.people.timeout
            if pause == math.inf:
                await wake.wait()
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await wake.wait()

    async def _step(self, hosted: Hosted) -> float:
        """Do what a group needs of this node; return the seconds until it should be looked at again."""
        soon = self.config.raft.election_timeout_min * (1 + self._rng.random())
        status = hosted.status()
        if hosted.replica is None:
            return await self._without_replica(hosted, soon)
        if status is None:
            return math.inf  # Halted: it says that it is gone, and may be enlisted anew.
        keeper = self._keepers[hosted.name]
        if hosted.leads:
            beat = self.config.raft.heartbeat_interval
            return math.inf if await keeper.step() else beat * (1 + self._rng.random())
        keeper.forget()
        patience = STRAY_AFTER * self.config.raft.election_timeout_max
        if hosted.leaderless_since is None:
            if is_voter(status.members, hosted.me):
                return math.inf
            await self._end_if_removed(hosted)
            # One that knows of its removal stays only until somebody confirms it.
            return self.config.replace_after if hosted.me in status.members.learners else patience
        if hosted.is_unborn:
            await self.founder.offer_again(hosted)
            await self._give_up_if_hopeless(hosted)
        since = hosted.leaderless_since
        if since is not None and self._clock.monotonic() - since >= patience:
            await self._end_if_removed(hosted)
        return soon

    async def _without_replica(self, hosted: Hosted, soon: float) -> float:
        if hosted.witness.known != NO_GROUP or not hosted.is_wanted:
            return math.inf
        if self.founder.is_idle(hosted) or not self.may_take_part:
            return math.inf
        await self.founder.found(hosted)
        return soon

    async def _give_up_if_hopeless(self, hosted: Hosted) -> None:
        async with hosted.changing:
            if hosted.birth is not None and hosted.birth.is_hopeless and hosted.is_unborn:
                await self._end(hosted, "its group was never born, and cannot be any more")
                hosted.witness.give_up()

    async def _end_if_removed(self, hosted: Hosted) -> None:
        """End a replica that the present leader does not count among the members."""
        asked = hosted.status()
        if asked is None:
            return
        live = self.people.live()
        names = dict.fromkeys(replica_member(one) for one in everyone(asked.members))
        question = FindGroup(hosted.name)
        members = [live[name] for name in names if name in live and name != self.people.my_name]
        if hosted.leader is not None and (leader := live.get(replica_member(hosted.leader))):
            members.append(leader)
        answers = await self.people.ask_all(
            {one.id: (one, question) for one in members if one.id != self.people.me}
        )
        status = hosted.status()
        for view in answers.values():
            if not isinstance(view, GroupView) or not hosted.learn(view) or status is None:
                continue
            later = view.term >= status.term and view.commit >= status.commit
            if later and view.leader and hosted.me not in (*view.voters, *view.learners):
                async with hosted.changing:
                    await self._end(hosted, "it is no member any more")
                return

    # -- leaving ---------------------------------------------------------------------------------

    def voting(self, *, with_state: bool = False) -> list[str]:
        """Return the groups in which this node still has a vote; `with_state`: and state in memory.

        A group that lost a majority of its logs does not count: nobody can take the vote.
        """
        return [
            hosted.name
            for hosted in self._all()
            if (status := hosted.status()) is not None
            and is_voter(status.members, hosted.me)
            and not hosted.is_lost
            and (not with_state or (self._logs is None and hosted.has_state))
        ]


def _require_member(peer: Peer) -> None:
    if peer.member is None:
        raise RemoteProtocolError("only members take part in groups")
