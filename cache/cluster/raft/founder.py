"""How a node brings a group into being, or finds out that there is one: the questions of `founding`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from random import Random
from typing import Final

from cache.clock import Clock
from cache.cluster.config.consistent import ConsistentConfig
from cache.cluster.ids import MemberId
from cache.cluster.membership.members import Member
from cache.cluster.raft.calls import replica_member
from cache.cluster.raft.founding import (
    NO_GROUP,
    UUID_BYTES,
    Known,
    Reply,
    Wait,
    decide,
    may_ask,
)
from cache.cluster.raft.hosted import Hosted
from cache.cluster.raft.messages import ReplicaId
from cache.cluster.raft.people import People
from cache.cluster.raft.voters import Candidate, choose
from cache.cluster.wire.messages import (
    Enlisted,
    FindGroup,
    GroupView,
    OfferAnswer,
    OfferGroup,
    Request,
    ReserveMember,
)
from cache.metrics import Counter

logger = logging.getLogger(__name__)

RESERVED_FOR: Final = 3
"""Times the time-out of a question: how long a member is reserved."""

Accept = Callable[[Hosted, bytes, str, tuple[ReplicaId, ...]], Awaitable[Reply]]
"""Takes part in a group, here, if this member may."""


class Founder:
    """Founds the groups of one node, when it is its turn."""

    def __init__(
        self,
        config: ConsistentConfig,
        people: People,
        clock: Clock,
        rng: Random,
        accept: Accept,
        foundings: Counter,
    ) -> None:
        self._config = config
        self._people = people
        self._clock = clock
        self._rng = rng
        self._accept = accept
        self._foundings = foundings
        """Groups that this member began to found."""
        self._reserved_for = RESERVED_FOR * people.timeout

    def is_idle(self, hosted: Hosted) -> bool:
        """Say why this member does not found now; return whether that lasts until the members change."""
        present = [member.id for member in self._people.stayers()]
        wait = may_ask(self._people.me, present, self._config.expected_size)
        hosted.waits_for = "" if wait is None else wait.reason
        return wait is not None

    async def found(self, hosted: Hosted) -> None:
        """Found the group, if all agree that there is none."""
        present = {member.id: member for member in self._people.stayers()}
        answers = await self._ask(hosted, present)
        if hosted.witness.known != NO_GROUP:
            return
        known = {one: Known(view.uuid, view.expected_size) for one, view in answers.items()}
        decision = decide(self._people.me, list(present), known, self._config.expected_size)
        if isinstance(decision, Wait):
            hosted.waits_for = decision.reason
            return
        hosted.waits_for = "the founding is under way"
        await self._reserve(hosted, [present[member] for member in decision.members])

    async def _ask(
        self, hosted: Hosted, present: dict[MemberId, Member]
    ) -> dict[MemberId, GroupView]:
        """Return what each member knows, and learn of a group that lives."""
        question = FindGroup(hosted.name)
        others = {
            one: (member, question) for one, member in present.items() if one != self._people.me
        }
        answers = await self._people.ask_all(others)
        views = {one: view for one, view in answers.items() if isinstance(view, GroupView)}
        for view in views.values():
            hosted.learn(view)
        return {**views, self._people.me: hosted.view()}

    async def _reserve(self, hosted: Hosted, chosen: list[Member]) -> None:
        uuid = self._rng.randbytes(UUID_BYTES)
        now = self._clock.monotonic()
        self._foundings.add()
        if not hosted.witness.reserve(uuid, now, self._reserved_for):
            return
        replicas = {self._people.me: hosted.me}
        others = [member for member in chosen if member.id != self._people.me]
        question = ReserveMember(hosted.name, uuid, self._reserved_for)
        for one, answer in (await self._ask_each(others, question)).items():
            if isinstance(answer, Enlisted) and answer.replica:
                replicas[one] = ReplicaId(answer.replica)
        # If this member stood still meanwhile the answers may be of any age: of two founders each could
        # then hold places that the other had held before.
        is_late = self._clock.monotonic() - now >= self._reserved_for / 2
        if is_late or len(replicas) < len(chosen):
            hosted.waits_for = (
                "a member is reserved for another founder, or does not answer in time"
            )
            hosted.witness.release(uuid)
            await self._ask_each(others, ReserveMember(hosted.name, uuid, 0.0))
            return
        await self._offer_first(hosted, uuid, chosen, replicas)

    async def _offer_first(
        self,
        hosted: Hosted,
        uuid: bytes,
        chosen: list[Member],
        replicas: dict[MemberId, ReplicaId],
    ) -> None:
        """Give the new group to its voters, to this member last."""
        candidates = [Candidate(one.name, one.zone, one.host) for one in chosen]
        names = choose((), candidates, self._config.voters).add
        by_name = {replica_member(replica): replica for replica in replicas.values()}
        voters = tuple(sorted(by_name[name] for name in names))
        logger.info("raft.founding group=%s uuid=%s voters=%s", hosted.name, uuid.hex(), voters)
        members = [one for one in chosen if one.name in names and one.id != self._people.me]
        offers = (self._offer(hosted, uuid, one, by_name[one.name], voters) for one in members)
        await asyncio.gather(*offers)
        if replicas[self._people.me] in voters:
            await self._accept(hosted, uuid, replicas[self._people.me], voters)

    async def offer_again(self, hosted: Hosted) -> None:
        """Offer an unborn group to those of its voters that may not have it; `birth` tells what they say."""
        birth = hosted.birth
        assert birth is not None, "or the group is not unborn"
        live = self._people.live()
        uuid = hosted.witness.known

        async def offer(voter: ReplicaId) -> None:
            member = live.get(replica_member(voter))
            if member is not None and voter != hosted.me:
                birth.answered(voter, await self._offer(hosted, uuid, member, voter, birth.voters))

        await asyncio.gather(*map(offer, birth.voters))

    async def _offer(
        self,
        hosted: Hosted,
        uuid: bytes,
        member: Member,
        replica: ReplicaId,
        voters: tuple[ReplicaId, ...],
    ) -> Reply:
        message = OfferGroup(hosted.name, uuid, replica, list(voters))
        answer = await self._people.ask(member, message)
        if isinstance(answer, OfferAnswer) and answer.reply in tuple(Reply):
            return Reply(answer.reply)
        return Reply.LATER  # It may have accepted.

    async def _ask_each(self, members: list[Member], question: Request) -> dict[MemberId, object]:
        answers = await self._people.ask_all({one.id: (one, question) for one in members})
        return dict(answers)
