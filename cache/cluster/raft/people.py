"""Who is where: members by name, as the groups of a node need to know them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

from cache.cluster.config.consistent import ConsistentConfig
from cache.cluster.ids import Address, MemberId, member_name
from cache.cluster.membership.members import Member
from cache.cluster.membership.service import MembershipService
from cache.cluster.raft.calls import replica_member
from cache.cluster.raft.messages import ReplicaId
from cache.cluster.transport.rpc import RpcEndpoint
from cache.cluster.wire.messages import Reply, Request
from cache.errors import CacheError

ASK_TIMEOUT_MIN: Final = 1.0
"""Seconds for a question to a member, at least; longer where elections take longer."""


class People:
    """The members, and how to ask them."""

    def __init__(
        self, config: ConsistentConfig, membership: MembershipService, rpc: RpcEndpoint
    ) -> None:
        self.timeout = max(ASK_TIMEOUT_MIN, 2 * config.raft.election_timeout_max)
        """Seconds for one question."""
        self.me = membership.local().id
        self._membership = membership
        self._rpc = rpc
        self._ids: dict[str, MemberId] | None = None
        """Of live members by name; None: to be looked up, because something changed."""
        membership.subscribe(self._members_changed)

    @property
    def my_name(self) -> str:
        """Name of this member."""
        return member_name(self.me)

    def live(self) -> dict[str, Member]:
        """Return the live members by name; of two lives of one name the later one."""
        return {member.name: member for member in self._membership.members()}

    def stayers(self) -> list[Member]:
        """Return the live members that hold data and do not leave, oldest first."""
        return [
            member for member in self.live().values() if member.holds_data and not member.leaving
        ]

    def address_of(self, replica: ReplicaId) -> Address | None:
        """Return where a replica is now, if its member lives."""
        if self._ids is None:
            self._ids = {name: member.id for name, member in self.live().items()}
        known = self._ids.get(replica_member(replica))
        member = None if known is None else self._membership.member(known)
        return member.address if member is not None and member.live else None

    def _members_changed(self) -> None:
        self._ids = None

    async def ask(self, member: Member, question: Request) -> Reply | None:
        """Return what a member answers, or None if it does not."""
        try:
            return await self._rpc.call(member.address, question, timeout=self.timeout)
        except CacheError:
            return None

    async def ask_all(
        self, questions: Mapping[MemberId, tuple[Member, Request]]
    ) -> dict[MemberId, Reply]:
        """Return what members answer, those that do, by their ids."""
        answers = await asyncio.gather(*(self.ask(*question) for question in questions.values()))
        pairs = zip(questions, answers, strict=True)
        return {member: answer for member, answer in pairs if answer is not None}
