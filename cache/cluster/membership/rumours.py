"""What becomes of a rumour: the book of members, suspicions and what is passed on. Pure.

The rules are SWIM's with Lifeguard's, and four of our own: a newer life at an address buries the
older one; a buried member that still talks is told, so that it can refute; a remote death learnt by
push-pull counts only as suspicion; and a rumour about this member itself is refuted at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from random import Random
from typing import Final

from cache.cluster.config import ClusterConfig
from cache.cluster.ids import MemberId
from cache.cluster.membership.broadcasts import Broadcasts, retransmit_limit
from cache.cluster.membership.members import (
    INCARNATION_JUMP_MAX,
    INCARNATION_MAX,
    Member,
    MemberList,
    MemberState,
    member_from_record,
    supersedes,
)
from cache.cluster.membership.outputs import MembersChanged, Noted, Output, SendPacket
from cache.cluster.membership.suspicion import Awareness, Suspicion, suspicion_timeout
from cache.cluster.wire.messages import MemberRecord
from cache.cluster.wire.packets import PacketCodec, Part, Rumour

SMALL_CLUSTER: Final = 8
"""Up to this many members, news goes to everybody at once."""

FAREWELL_DIRECT_MAX: Final = 16
"""Up to this many members, a leave is told to everybody directly."""

CONFIRMATIONS: Final = 3
"""Independent accusers that shorten a suspicion to its minimum."""

REFUSAL_DISTRUST: Final = 60.0
"""Seconds for which refused streams are no evidence against a member that refuted such a death."""

FORGET_FACTOR: Final = 20
"""A gone member is remembered for this many times `gossip_to_dead_time`, to reach it again."""


class Book:
    """Believes, suspects, buries and passes on."""

    def __init__(
        self, local: Member, config: ClusterConfig, codec: PacketCodec, rng: Random
    ) -> None:
        self.config = config
        self.gossip = config.gossip
        self.rng = rng
        self.members = MemberList(local, rng, members_max=config.limits.members_max)
        self.awareness = Awareness(config.gossip.awareness_max)
        self.broadcasts = Broadcasts(codec.size)
        self.outputs: list[Output] = []
        self.suspicions: dict[MemberId, Suspicion] = {}
        self._codec = codec
        self._refusal_deaths: dict[MemberId, None] = {}
        self._distrusted_until: dict[MemberId, float] = {}
        self._adopting = False
        self.left = False

    @property
    def local(self) -> Member:
        """The record of this member."""
        return self.members.local

    # -- telling -----------------------------------------------------------------------------

    def part_budget(self) -> int:
        """Return the bytes a packet has for parts."""
        return self.gossip.packet_bytes_max - self._codec.overhead_bytes - len(self.local.id)

    def take_news(self, used_bytes: int = 0) -> list[Part]:
        """Return the rumours to put into the next packet."""
        count = self.members.count_live()
        limit = retransmit_limit(self.gossip.retransmit_multiplier, count)
        if count <= SMALL_CLUSTER:  # Each round goes to everybody: allow two rounds.
            limit = max(limit, 2 * count)
        return list(self.broadcasts.take(budget_bytes=self.part_budget() - used_bytes, limit=limit))

    def send(self, to: Member, *parts: Part) -> None:
        """Send parts to a member, filled up with news."""
        used = sum(self._codec.size(part) for part in parts)
        self.outputs.append(SendPacket(to.address, [*parts, *self.take_news(used)]))

    def gossip_round(self, now: float) -> None:
        """Tell news to a few members, and to one that died recently."""
        if not len(self.broadcasts):
            return
        dead = self.members.recently_dead(now, self.gossip.gossip_to_dead_time)
        fanout = self.gossip.gossip_fanout
        others = self.members.count_live() - 1
        count = others if others < SMALL_CLUSTER else fanout
        targets = self.members.sample(count)
        if dead:
            targets.append(self.rng.choice(dead))
        for target in targets:
            if not len(self.broadcasts):
                return
            self.outputs.append(SendPacket(target.address, self.take_news()))

    def tell(self, member: Member, accuser: MemberId, now: float) -> None:
        """Queue news about a member, and start to tell it at once."""
        if self._adopting:
            return
        rumour = Rumour(record=member.to_record(), accuser=accuser)
        if self._codec.size(rumour) > self.part_budget():
            self.outputs.append(Noted("member.record_too_large", member.id))
            return
        self.broadcasts.put(member.id, rumour)
        self.gossip_round(now)

    # -- hearing -----------------------------------------------------------------------------

    def hear(self, rumour: Rumour, now: float) -> None:
        """Take in one rumour."""
        if self._is_old(rumour.record):
            return
        news = member_from_record(rumour.record)
        if news is None:
            self.outputs.append(Noted("member.implausible", MemberId(rumour.record.id[:64])))
            return
        self.learn(news, MemberId(rumour.accuser), now)

    def adopt(self, records: Iterable[MemberRecord], now: float) -> None:
        """Take in the members of the cluster that this one joins, and tell nobody: all know them.

        Told one by one they were three packets each, and each packet of somebody still unknown makes
        its receiver ask for the whole list (`MembershipService._believable`).
        """
        self._adopting = True
        self.merge(records, now)
        self._adopting = False

    def merge(self, records: Iterable[MemberRecord], now: float) -> None:
        """Take in the full state of another member."""
        for record in records:
            if self._is_old(record):
                continue
            news = member_from_record(record)
            if news is None:
                continue
            if news.state is MemberState.DEAD and news.id != self.local.id:
                if self.members.get(news.id) is None:
                    continue  # Long gone: a newcomer need not bury it again.
                news = replace(news, state=MemberState.SUSPECT)
            # Not in this member's name: it saw nothing itself, and each exchange would make another
            # "independent" accuser of one sick member's suspicion. All exchanges count as one.
            self.learn(news, news.id, now)

    def agrees(self, digest: int) -> bool:
        """Whether an exchange with a member of that view would bring nothing.

        About a suspect it always does: that the other one suspects it too is a confirmation.
        """
        return not self.suspicions and digest == self.members.digest()

    def _is_old(self, record: MemberRecord) -> bool:
        """Whether a record says nothing new, as nearly all do: then it need not be taken apart."""
        known = self.members.get(MemberId(record.id))
        if known is None or record.state == MemberState.LEFT or record.id == self.local.id:
            return False  # What is said of this member is always looked at.
        if known.state is MemberState.SUSPECT and record.state == MemberState.SUSPECT:
            return record.incarnation < known.incarnation  # At the same one it may confirm.
        return (record.incarnation, record.state) <= (known.incarnation, known.state)

    def learn(self, news: Member, accuser: MemberId, now: float) -> None:
        """Believe `news` if it is later than what is known."""
        known = self.members.get(news.id)
        if known is None:
            if news.live:
                self._welcome(news, accuser, now)
            return
        if news.incarnation - known.incarnation > INCARNATION_JUMP_MAX:
            self.outputs.append(Noted("member.implausible", news.id))
            return
        if news.id == self.local.id:
            self._refute(news, now)
        elif supersedes(news, known):
            self._believe(news, known, accuser, now)
        elif news.state is MemberState.SUSPECT and known.state is MemberState.SUSPECT:
            suspicion = self.suspicions.get(news.id)
            same = news.incarnation == known.incarnation
            if suspicion is not None and same and self.confirm(suspicion, accuser, now):
                self.tell(known, accuser, now)

    def _welcome(self, news: Member, accuser: MemberId, now: float) -> None:
        older = self.members.at(news.address)
        if older is not None and (news.seniority, news.id) < (older.seniority, older.id):
            return  # Late news of a life before the one that listens there now.
        if not self.members.put(replace(news, state=MemberState.ALIVE), now):
            self.outputs.append(Noted("member.no_room", news.id))
            return
        if older is not None:  # Only one process can listen there: the older life is over.
            self.bury(older, self.local.id, now)
        if self.members.namesake(news) is not None:  # Allowed, and hardly meant.
            self.outputs.append(Noted("member.name_conflict", news.id))
        self.outputs += [Noted("member.joined", news.id), MembersChanged()]
        self.tell(replace(news, state=MemberState.ALIVE), accuser, now)
        if news.state is MemberState.SUSPECT:
            self.suspect(news, accuser, now)

    def _believe(self, news: Member, known: Member, accuser: MemberId, now: float) -> None:
        match news.state:
            case MemberState.ALIVE:
                self._revive(news, known, now)
            case MemberState.SUSPECT:
                self.suspect(news, accuser, now)
            case MemberState.DEAD:
                self.bury(replace(known, incarnation=news.incarnation), accuser, now)
            case MemberState.LEFT:
                self._see_off(replace(known, incarnation=news.incarnation), accuser, now)

    def _revive(self, news: Member, known: Member, now: float) -> None:
        self.suspicions.pop(news.id, None)
        self.members.put(news, now)
        if known.state is not MemberState.ALIVE:
            self.outputs.append(Noted("member.refuted", news.id))
        if self._refusal_deaths.pop(news.id, self) is not self:
            self._distrusted_until[news.id] = now + REFUSAL_DISTRUST
        if not known.live or _visible(known) != _visible(news):
            self.outputs.append(MembersChanged())
        self.tell(news, news.id, now)

    def _refute(self, news: Member, now: float) -> None:
        """Somebody believes something else of this member than it does itself."""
        local = self.local
        if self.left or news.incarnation < local.incarnation:
            return
        if news.incarnation >= INCARNATION_MAX:
            if news.state is not MemberState.ALIVE:
                self.outputs.append(Noted("member.cannot_refute", local.id))
            return
        same = news.incarnation == local.incarnation
        if news.state is MemberState.ALIVE and same and _visible(news) == _visible(local):
            return
        if news.state is not MemberState.ALIVE:
            self.awareness.add(1)
            self.outputs.append(Noted("member.refuting", local.id))
        self.tell(self.members.set_local(incarnation=news.incarnation + 1), local.id, now)

    def announce(self, now: float, **changes: object) -> None:
        """Change the record of this member and tell everybody."""
        changes.setdefault("incarnation", self.local.incarnation + 1)
        self.tell(self.members.set_local(**changes), self.local.id, now)

    # -- suspecting and burying --------------------------------------------------------------

    def suspect(self, member: Member, accuser: MemberId, now: float) -> None:
        """Begin to suspect a member, from now on with a fresh timer."""
        suspected = replace(member, state=MemberState.SUSPECT)
        known = self.members.get(member.id)
        if known is not None and not known.live:  # Dead once, it has refuted that since.
            self.outputs.append(MembersChanged())
        self.members.put(suspected, now)
        count = self.members.count_live()
        shortest = suspicion_timeout(
            self.gossip.suspicion_multiplier, count, self.gossip.probe_interval
        )
        # With too few members to confirm, waiting for confirmations would only delay.
        needed = CONFIRMATIONS if count - 2 >= CONFIRMATIONS else 0
        self.suspicions[member.id] = Suspicion(
            accuser,
            needed=needed,
            shortest=shortest,
            longest=shortest * self.gossip.suspicion_max_multiplier,
            now=now,
        )
        if needed and accuser != self.local.id and self.awareness.score == 0:
            # Were all to wait for their turn to probe it, a suspicion would often outlast `shortest`
            # for want of accusers. So some who hear of it look next: twice as many as are needed.
            if self.rng.random() * (count - 2) < 2 * needed:
                self.members.probe_next(member.id)
        self.outputs.append(Noted("member.suspect", member.id))
        self.tell(suspected, accuser, now)

    def confirm(self, suspicion: Suspicion, accuser: MemberId, now: float) -> bool:
        """Count an accuser; return whether that was news.

        A member whose traffic was held up accuses others of silence, and when it is let go the
        accusations of all such members arrive in one burst: together they make its oldest
        suspicion overdue, a millisecond before the suspects' answers come. So whoever doubts
        itself leaves the suspect the time of a probe to be heard.
        """
        awareness = self.awareness
        hearing = awareness.scale(self.gossip.probe_timeout) if awareness.score else 0.0
        return suspicion.confirm(accuser, now, hearing=hearing)

    def bury(self, member: Member, accuser: MemberId, now: float) -> None:
        """Declare a member dead."""
        dead = replace(member, state=MemberState.DEAD)
        self.suspicions.pop(member.id, None)
        self.members.put(dead, now)
        self.outputs += [Noted("member.dead", member.id), MembersChanged()]
        self.tell(dead, accuser, now)
        # It may live and be able to hear this: then it refutes.
        rumour = Rumour(record=dead.to_record(), accuser=accuser)
        self.outputs.append(SendPacket(dead.address, [rumour]))

    def bury_refused(self, member: Member, now: float) -> None:
        """Declare a member dead because nobody listens at its address any more."""
        self._refusal_deaths[member.id] = None
        self.outputs.append(Noted("member.refused", member.id))
        self.bury(member, self.local.id, now)

    def believes_refusals(self, member: MemberId, now: float) -> bool:
        """Whether refused streams are evidence against this member."""
        return now >= self._distrusted_until.get(member, -1.0)

    def _see_off(self, member: Member, accuser: MemberId, now: float) -> None:
        gone = replace(member, state=MemberState.LEFT)
        was_live = member.live
        self.suspicions.pop(member.id, None)
        self.members.put(gone, now)
        if was_live:
            self.outputs += [Noted("member.left", member.id), MembersChanged()]
        self.tell(gone, accuser, now)

    def expire_suspicions(self, now: float) -> None:
        """Bury those whose suspicion ran out."""
        due = [m for m, suspicion in self.suspicions.items() if suspicion.deadline <= now]
        for member_id in due:
            member = self.members.get(member_id)
            del self.suspicions[member_id]
            if member is not None and member.state is MemberState.SUSPECT:
                self.bury(member, self.local.id, now)

    def reap(self, now: float, after: float) -> None:
        """Forget members that have been gone for longer than `after` seconds, and all about them."""
        self.members.reap(now, after)
        for about in (self._refusal_deaths, self._distrusted_until):
            for gone in [member for member in about if self.members.get(member) is None]:
                del about[gone]

    def next_suspicion(self) -> float | None:
        """Return when the next suspicion runs out."""
        return min((s.deadline for s in self.suspicions.values()), default=None)

    def say_farewell(self, now: float) -> None:
        """Tell everybody that this member leaves for good."""
        self.left = True
        local = self.members.set_local(
            state=MemberState.LEFT, incarnation=self.local.incarnation + 1
        )
        rumour = Rumour(record=local.to_record(), accuser=local.id)
        others = self.members.others()
        direct = others if len(others) < FAREWELL_DIRECT_MAX else self.members.sample(8)
        self.outputs.extend(SendPacket(member.address, [rumour]) for member in direct)


def _visible(member: Member) -> tuple[object, ...]:
    """What subscribers see of a live member."""
    return (
        member.address,
        member.seniority,
        member.leaving,
        member.weight,
        member.host,
        member.zone,
        tuple(sorted(member.tags.items())),
    )
