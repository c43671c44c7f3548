"""Members and what is believed of each: the precedence of rumours, and who is asked next. Pure.

A rumour carries an incarnation, a counter that only the member itself raises. For equal lives the
later incarnation wins; at the same one suspicion beats alive and death beats both. Leaving is
final. Only the member itself can come back from suspicion or death, by raising its incarnation.

Source: Das, Gupta, Motivala, SWIM, DSN 2002, §4.2.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from random import Random
from typing import Final

from xxhash import xxh3_64_intdigest

from cache.cluster.ids import Address, MemberId, member_name
from cache.cluster.wire.messages import MemberRecord

SENIORITY_MAX: Final = 2**62
"""A higher one is implausible; newcomers after the highest share it, and their ids order them."""

INCARNATION_MAX: Final = 2**62
"""A rumour beyond it is ignored, so that a hostile one cannot exhaust the counter."""

INCARNATION_JUMP_MAX: Final = 2**20
"""A rumour that raises the incarnation of somebody known by more is ignored: the member itself raises it by
one, and is forgotten after minutes of silence. So no handful of rumours exhausts the counter."""

DESCRIPTION_BYTES_MAX: Final = 768
"""Bytes of host, zone and tags together; a record has to fit into one packet."""


class MemberState(enum.IntEnum):
    """What is believed of a member."""

    ALIVE = 0
    SUSPECT = 1
    DEAD = 2
    LEFT = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One life of a member, as this one knows it."""

    id: MemberId
    address: Address
    incarnation: int = 0
    state: MemberState = MemberState.ALIVE
    seniority: int = 1
    """Order of joining: the first member has 1."""
    leaving: bool = False
    """True once the member announced that it is going: it gets no new copies."""
    weight: int = 1
    """Share of partitions, 0 for a lite member."""
    host: str | None = None
    zone: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    lag: float = field(default=0.0, compare=False)
    """Seconds by which its event loop was late at worst in the last minutes, as it told this member itself.
    An observation, not a part of the record: no rumour carries it."""

    @property
    def name(self) -> str:
        """Name of the member."""
        return member_name(self.id)

    @property
    def holds_data(self) -> bool:
        """Whether partitions may be placed on it."""
        return self.weight > 0

    @property
    def live(self) -> bool:
        """Whether the member counts: alive, or only suspected not to be."""
        return self.state in (MemberState.ALIVE, MemberState.SUSPECT)

    def to_record(self) -> MemberRecord:
        """Return the wire form."""
        return MemberRecord(
            id=self.id,
            address=self.address,
            incarnation=self.incarnation,
            state=int(self.state),
            seniority=self.seniority,
            leaving=self.leaving,
            weight=self.weight,
            host=self.host or "",
            zone=self.zone or "",
            tags=dict(self.tags),
        )


def member_from_record(record: MemberRecord) -> Member | None:
    """Return the member of its wire form, or None when the record makes no sense."""
    plausible = (
        0 < len(record.id) <= 256
        and 0 < len(record.address) <= 256
        and record.id.isprintable()  # They are logged: nobody writes lines of their own there.
        and record.address.isprintable()
        and 0 <= record.incarnation <= INCARNATION_MAX
        and 0 <= record.state <= MemberState.LEFT
        and 0 <= record.weight <= 1000
        and 1 <= record.seniority <= SENIORITY_MAX
        and _bytes(record.host) + _bytes(record.zone) + _bytes(*record.tags, *record.tags.values())
        <= DESCRIPTION_BYTES_MAX
    )
    if not plausible:
        return None
    return Member(
        id=MemberId(record.id),
        address=Address(record.address),
        incarnation=record.incarnation,
        state=MemberState(record.state),
        seniority=record.seniority,
        leaving=record.leaving,
        weight=record.weight,
        host=record.host or None,
        zone=record.zone or None,
        tags=record.tags,
    )


def _bytes(*texts: str) -> int:
    return sum(len(text.encode()) for text in texts)


def supersedes(news: Member, known: Member) -> bool:
    """Return whether a rumour changes what is believed of the same life."""
    if known.state is MemberState.LEFT:
        return False
    if news.state is MemberState.LEFT:
        return True
    return (news.incarnation, news.state) > (known.incarnation, known.state)


class MemberList:
    """Everybody known, this member included."""

    def __init__(self, local: Member, rng: Random, *, members_max: int) -> None:
        self.local = local
        self._rng = rng
        self._members_max = members_max
        self._members: dict[MemberId, Member] = {local.id: local}
        self._changed_at: dict[MemberId, float] = {}
        self._probe_order: list[MemberId] = []
        self._others: list[Member] | None = None
        """The live members but this one, until one of them changes: every packet asks for them."""
        self._dead: list[Member] | None = None

    def get(self, member: MemberId) -> Member | None:
        """Return what is known of a life."""
        return self._members.get(member)

    def all(self) -> list[Member]:
        """Return everybody known, dead ones included, in a stable order."""
        return list(self._members.values())

    def live(self) -> list[Member]:
        """Return the members that count, this one included, oldest first."""
        live = [member for member in self._members.values() if member.live]
        return sorted(live, key=lambda member: (member.seniority, member.id))

    def others(self) -> list[Member]:
        """Return the live members but this one."""
        return list(self._live_others())

    def _live_others(self) -> list[Member]:
        if self._others is None:
            local = self.local.id
            self._others = [m for m in self._members.values() if m.live and m.id != local]
        return self._others

    def count_live(self) -> int:
        """Count the members that count, this one included."""
        return len(self._live_others()) + self.local.live

    def count(self, state: MemberState) -> int:
        """Count the members of whom this is believed, this one included."""
        return sum(member.state is state for member in self._members.values())

    def namesake(self, member: Member) -> Member | None:
        """Return another live member of the same name, this one included; None if there is none."""
        same = (m for m in self._members.values() if m.live and m.name == member.name)
        return next((m for m in same if m.id != member.id), None)

    def at(self, address: Address) -> Member | None:
        """Return the live member that listens at `address`, if another one does."""
        found = (m for m in self._live_others() if m.address == address)
        return next(found, None)

    def put(self, member: Member, now: float) -> bool:
        """Store what is believed now; return False when there is no room for another member."""
        known = self._members.get(member.id)
        if known is None and len(self._members) >= self._members_max:
            return False
        if known is None or known.state is not member.state:
            self._changed_at[member.id] = now
        if known is not None and known.lag != member.lag:  # News by others knows nothing of it.
            member = replace(member, lag=known.lag)
        self._members[member.id] = member
        self._others = self._dead = None
        if member.id == self.local.id:
            self.local = member
        return True

    def changed_at(self, member: MemberId) -> float:
        """Return when the state of a member changed last."""
        return self._changed_at.get(member, 0.0)

    def recently_dead(self, now: float, within: float) -> list[Member]:
        """Return members that died at most `within` seconds ago."""
        if self._dead is None:
            self._dead = [m for m in self._members.values() if m.state is MemberState.DEAD]
        return [member for member in self._dead if now - self.changed_at(member.id) <= within]

    def reap(self, now: float, after: float) -> None:
        """Forget members that have been gone for longer than `after` seconds."""
        for member in self.all():
            if not member.live and now - self.changed_at(member.id) > after:
                del self._members[member.id]
                self._changed_at.pop(member.id, None)
                self._dead = None

    def next_probe(self) -> Member | None:
        """Return whom to probe: everybody once in a shuffled order, then shuffled anew."""
        for _ in range(2):
            while self._probe_order:
                member = self._members.get(self._probe_order.pop())
                if member is not None and member.live:
                    return member
            self._probe_order = [member.id for member in self.others()]
            self._rng.shuffle(self._probe_order)
        return None

    def probe_next(self, member: MemberId) -> None:
        """Probe a member before all others; it is not probed twice in this round for that."""
        if member in self._probe_order:
            self._probe_order.remove(member)
        self._probe_order.append(member)

    def sample(self, count: int, *excluded: MemberId) -> list[Member]:
        """Return up to `count` random live members, neither this one nor an excluded one."""
        eligible = self._live_others()
        if excluded:
            eligible = [member for member in eligible if member.id not in excluded]
        return self._rng.sample(eligible, min(count, len(eligible)))

    def hear_lag(self, member: MemberId, seconds: float) -> None:
        """Note what another member said about its own lag."""
        known = self._members.get(member)
        if known is not None and known.lag != seconds and member != self.local.id:
            self._members[member] = replace(known, lag=seconds)
            self._others = self._dead = None

    def digest(self) -> int:
        """Return a hash of who is believed to live: equal views have equal ones, 64 bits.

        Those who are gone do not count: each member forgets them at an instant of its own.
        """
        views = sorted(
            (m.id, m.incarnation, int(m.state)) for m in self._members.values() if m.live
        )
        return xxh3_64_intdigest(repr(views).encode())

    def set_local(self, **changes: object) -> Member:
        """Change the record of this member and return it."""
        self.local = replace(self.local, **changes)  # type: ignore[arg-type]  # field names by caller
        self._members[self.local.id] = self.local
        return self.local
