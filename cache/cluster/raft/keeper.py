"""What the leader of a group does about its voters: learner first, then a joint change, one step at a time.

Every step rests on the members in force and on who is there *now*: a leader that dies between two of them
leaves nothing that the next one would have to know.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

from cache.clock import Clock
from cache.cluster.config.consistent import ConsistentConfig
from cache.cluster.ids import MemberId
from cache.cluster.membership.members import Member
from cache.cluster.raft.calls import replica_member
from cache.cluster.raft.hosted import Hosted
from cache.cluster.raft.messages import Members, ReplicaId
from cache.cluster.raft.people import People
from cache.cluster.raft.voters import Candidate, Fate, Plan, Voter, choose
from cache.cluster.wire.messages import Enlisted, EnlistReplica, GroupView, KnowGroup, Request
from cache.errors import CacheError, RejectedError

logger = logging.getLogger(__name__)

DECLINED_FOR: Final = 5.0
"""Seconds for which a member that could not be enlisted is passed over."""


class Keeper:
    """Keeps the voters of one group, while the replica here leads."""

    def __init__(
        self, hosted: Hosted, config: ConsistentConfig, people: People, clock: Clock
    ) -> None:
        self._hosted = hosted
        self._config = config
        self._people = people
        self._clock = clock
        self._dead_since: dict[str, float] = {}
        self._declined: dict[str, float] = {}
        self._told: dict[MemberId, None] = {}
        """Members that know the group."""

    def forget(self) -> None:
        """Begin to count anew: somebody else led meanwhile."""
        self._dead_since.clear()
        self._declined.clear()
        self._told.clear()

    async def step(self) -> bool:
        """Do what is next; return whether there is nothing to do until something changes."""
        hosted = self._hosted
        status, replica = hosted.status(), hosted.replica
        if status is None or replica is None or not hosted.leads:
            return True
        members = status.members
        if members.outgoing:
            return False
        self._forget_strangers(members)
        voters = [self._judge(ReplicaId(voter)) for voter in members.voters]
        plan = choose(voters, self._candidates(members), self._config.voters)
        wanted = await self._next(members, plan)
        if wanted is None:
            all_know = await self._tell_all()
            is_missing = any(voter.fate is Fate.MISSING for voter in voters)
            return all_know and not is_missing and not plan.add
        try:
            await replica.change_members(*wanted, timeout=self._people.timeout)
        except CacheError as error:
            level = logging.DEBUG if isinstance(error, RejectedError) else logging.WARNING
            logger.log(level, "raft.change_failed group=%s error=%s", hosted.name, error)
            return False
        logger.info("raft.members group=%s voters=%s learners=%s", hosted.name, *wanted)
        return False

    def _forget_strangers(self, members: Members) -> None:
        known = dict.fromkeys((*members.voters, *members.learners))
        self._hosted.gone = {one: None for one in self._hosted.gone if one in known}

    async def _tell_all(self) -> bool:
        """Tell members of the group, lest they found another; return whether all know."""
        hosted = self._hosted
        live = {member.id: member for member in self._people.stayers()}
        self._told = {one: None for one in self._told if one in live}
        question = KnowGroup(hosted.name, hosted.witness.known)
        untold = {one: member for one, member in live.items() if one not in self._told}
        untold.pop(self._people.me, None)
        questions: dict[MemberId, tuple[Member, Request]] = {}
        for one, member in untold.items():
            questions[one] = (member, question)
        answers = await self._people.ask_all(questions)
        for one, view in answers.items():
            if isinstance(view, GroupView):
                hosted.learn(view)  # It may know another one, which is noted.
                self._told[one] = None
        return len(answers) == len(untold)

    # -- who is there ----------------------------------------------------------------------------

    def _judge(self, replica: ReplicaId) -> Voter:
        name = replica_member(replica)
        return Voter(replica, name, self._fate(replica, name, self._people.live().get(name)))

    def _fate(self, replica: ReplicaId, name: str, member: Member | None) -> Fate:
        if replica in self._hosted.gone:
            return Fate.GONE
        if member is not None:
            self._dead_since.pop(name, None)
            stays = member.holds_data and not member.leaving
            return Fate.LIVE if stays else Fate.LEAVING
        now = self._clock.monotonic()
        since = self._dead_since.setdefault(name, now)
        return Fate.DEAD if now - since >= self._config.replace_after else Fate.MISSING

    def _candidates(self, members: Members) -> list[Candidate]:
        now = self._clock.monotonic()
        learning = {replica_member(learner) for learner in self._learners(members)}
        self._declined = {name: until for name, until in self._declined.items() if now < until}
        return [
            Candidate(member.name, member.zone, member.host, member.name in learning)
            for member in self._people.stayers()
            if member.name not in self._declined
        ]

    def _learners(self, members: Members) -> list[ReplicaId]:
        learners = map(ReplicaId, members.learners)
        return [learner for learner in learners if learner not in self._hosted.gone]

    # -- steps -----------------------------------------------------------------------------------

    async def _next(
        self, members: Members, plan: Plan
    ) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
        """Return the next voters and learners, or None when these are right."""
        learning = {replica_member(one): one for one in self._learners(members)}
        new = [name for name in plan.add if name not in learning]
        enlisted = [one for name in new if (one := await self._enlist(name)) is not None]
        if enlisted:
            there = [learning[name] for name in plan.add if name in learning]
            return members.voters, _sorted([*there, *enlisted])
        if new:
            return None
        voters = _sorted([*plan.keep, *(learning[name] for name in plan.add)])
        if voters == _sorted(members.voters) and not members.learners:
            return None
        return voters, ()

    async def _enlist(self, name: str) -> ReplicaId | None:
        """Return the log that a member has, or will have, for this group."""
        member = self._people.live().get(name)
        if member is None:
            return None
        hosted = self._hosted
        if name == self._people.my_name:
            return None
        question = EnlistReplica(hosted.name, hosted.witness.known)
        answer = await self._people.ask(member, question)
        if isinstance(answer, Enlisted) and replica_member(answer.replica) == name:
            replica = ReplicaId(answer.replica)
            hosted.gone.pop(replica, None)
            return replica
        self._declined[name] = self._clock.monotonic() + DECLINED_FOR
        logger.info("raft.not_enlisted group=%s member=%s", hosted.name, name)
        return None


def _sorted(replicas: Sequence[str]) -> tuple[str, ...]:
    return tuple(sorted(replicas))
