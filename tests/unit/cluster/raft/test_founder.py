"""A founder that stood still while it was answered does not go on as if no time had passed."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any, cast

import pytest

from cache.clock import FrozenClock
from cache.cluster.config.consistent import ConsistentConfig
from cache.cluster.consistent.machine import ConsistentMachine
from cache.cluster.ids import Address, MemberId
from cache.cluster.membership.members import Member
from cache.cluster.raft.founder import RESERVED_FOR, Founder
from cache.cluster.raft.founding import NO_GROUP, Reply
from cache.cluster.raft.hosted import Hosted, Surroundings
from cache.cluster.raft.messages import GroupId, ReplicaId
from cache.cluster.raft.people import People
from cache.cluster.scope import Scope
from cache.cluster.wire.messages import Enlisted, GroupView, OfferAnswer, OfferGroup, ReserveMember
from cache.metrics import Metrics

MEMBERS = [Member(id=MemberId(f"m{n}#1"), address=Address(f"127.0.0.1:{n + 1}")) for n in range(3)]


class Willing:
    """Three members that agree to everything; answers to reservations take some seconds to be read."""

    timeout = 1.0
    me = MEMBERS[0].id

    def __init__(self, clock: FrozenClock, seconds: float) -> None:
        self._clock = clock
        self._seconds = seconds
        self.offered: list[MemberId] = []
        self.released: list[MemberId] = []

    def stayers(self) -> list[Member]:
        return MEMBERS

    async def ask(self, member: Member, question: Any) -> Any:  # Any: messages
        match question:
            case ReserveMember(seconds=0.0):
                self.released.append(member.id)
                return Enlisted("")
            case ReserveMember():
                return Enlisted(f"{member.name}/log")
            case OfferGroup():
                self.offered.append(member.id)
                return OfferAnswer(Reply.ACCEPTED)
            case _:
                return GroupView(NO_GROUP, False, 3, 0, "", 0, [], [])

    async def ask_all(
        self, questions: Mapping[MemberId, tuple[Member, Any]]
    ) -> dict[MemberId, Any]:  # Any: as above
        answers = {one: await self.ask(*question) for one, question in questions.items()}
        if any(isinstance(answer, Enlisted) for answer in answers.values()):
            self._clock.advance(self._seconds)
        return answers


async def found(seconds: float) -> Willing:
    """Found a group; return what the others were told."""
    clock, config = FrozenClock(), ConsistentConfig.local()
    people = Willing(clock, seconds)
    around = Surroundings(
        member_name="m0",
        config=config,
        clock=clock,
        rng=Random(1),
        scope=Scope("test"),
        make_machine=ConsistentMachine,
        send=lambda uuid, to, message: None,
        wake=lambda name: None,
    )

    async def accept(
        hosted: Hosted, uuid: bytes, replica: str, voters: tuple[ReplicaId, ...]
    ) -> Reply:
        return hosted.offered(uuid, replica)

    counter = Metrics().counter("foundings")
    founder = Founder(config, cast(People, people), clock, Random(2), accept, counter)
    await founder.found(Hosted(GroupId("main"), around))
    return people


async def test_a_founder_that_is_answered_in_time_offers_its_group() -> None:
    """To all others."""
    people = await found(0.5)

    assert [MEMBERS[1].id, MEMBERS[2].id] == people.offered
    assert [] == people.released


@pytest.mark.parametrize("times", [RESERVED_FOR / 2, RESERVED_FOR, 100.0])
async def test_a_founder_that_stood_still_gives_the_places_back(times: float) -> None:
    """Another one may have been there meanwhile, and hold some of them."""
    people = await found(times * Willing.timeout)

    assert [] == people.offered
    assert [MEMBERS[1].id, MEMBERS[2].id] == people.released
