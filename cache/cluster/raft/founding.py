"""How a group begins, and why there are not two of it. Pure.

Two rules carry it. A *life* of a member accepts one group of a name and never another (`Witness`); and a
member founds only when it reserved `expected_size` members none of which had accepted one. The
first group lives only if a majority of its v voters accepted it, and a second one needs
`expected_size` others. So there is one group for certain while fewer than

    expected_size + (v + 1) / 2

lives of members begin before every member has heard of the first group: five, for three members that are
expected. A member in memory that restarts begins another life; one with a disk does not.
The leader of a group tells every member of it (`KnowGroup`).

A founding goes like this, for the live member with the lowest id:

1. Every live member that holds data, `expected_size` of them at least, is asked what it knows: no group, and
   the same `expected_size`. One that does not answer puts the founding off.
2. The first `expected_size` of them are *reserved*: each for one founder at a time, and for a while only, so
   that a founder that dies blocks nobody. It tells the name that its log would have.
3. The voters among them get the group; each writes the first entry of its log before it says yes.

The founder may die at any of these points. A group whose first leader is not yet elected is *unborn*: each
voter that has it offers it to the others, until they accept, or until so many have answered that they
never will that it cannot live; then it is given up (`Birth`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from cache.cluster.ids import MemberId
from cache.cluster.raft.messages import ReplicaId

UUID_BYTES: Final = 16
GIVEN_UP_MAX: Final = 16
"""Groups that were given up and are remembered."""

NO_GROUP: Final = b""
"""In place of a uuid: none is known."""


class Reply(IntEnum):
    """What a member says to a group that is offered to it; the numbers are on the wire."""

    ACCEPTED = 1
    LATER = 2
    """Nothing was heard: it may have accepted."""
    NEVER = 3
    """It has another group, was reserved for another founder since, or the log that was meant is no more."""


@dataclass(slots=True)
class Witness:
    """What one life of a member knows of the groups of one name, and has promised."""

    known: bytes = NO_GROUP
    """The group it accepted or heard of; it does not accept another one."""
    given_up: dict[bytes, None] = field(default_factory=dict)
    """Groups that an operator gave up, the last few: they are not learned of again."""
    _reserved: bytes = NO_GROUP
    _reserved_until: float = 0.0

    def reserve(self, uuid: bytes, now: float, seconds: float) -> bool:
        """Promise to hold a place for that group for some seconds; return whether that is possible."""
        if self.known != NO_GROUP or self._is_reserved_for_another(uuid, now):
            return False
        self._reserved, self._reserved_until = uuid, now + seconds
        return True

    def release(self, uuid: bytes) -> None:
        """The founding was given up."""
        if self._reserved == uuid:
            self._reserved = NO_GROUP

    def accept(self, uuid: bytes) -> Reply:
        """Take part in a group that may be unborn: only in the one this life was reserved for last.

        1. A founder reserves b, c, d, and stands still. 2. When that time is over another one reserves
        a, b, c, and a and c accept its group. 3. The first one goes on: d accepts, b must not.
        """
        if self.known == NO_GROUP and self._reserved == uuid:
            self.known = uuid
        return Reply.ACCEPTED if self.known == uuid else Reply.NEVER

    def learn(self, uuid: bytes) -> bool:
        """Hear of a group that was born; return whether it is the one known here from now on."""
        if self.known == NO_GROUP and uuid not in self.given_up:
            self.known = uuid
        return self.known == uuid

    def give_up(self, uuid: bytes = NO_GROUP) -> None:
        """Forget a group that can never have lived; with its uuid one that was lost, and for ever."""
        self.known = self._reserved = NO_GROUP
        if uuid != NO_GROUP:
            self.given_up[uuid] = None
        if len(self.given_up) > GIVEN_UP_MAX:
            del self.given_up[next(iter(self.given_up))]

    def _is_reserved_for_another(self, uuid: bytes, now: float) -> bool:
        return self._reserved not in (NO_GROUP, uuid) and now < self._reserved_until


@dataclass(frozen=True, slots=True)
class Known:
    """What a member says when it is asked whether it knows a group."""

    uuid: bytes
    expected_size: int


@dataclass(frozen=True, slots=True)
class Found:
    """Go on with the founding: these are to be reserved."""

    members: tuple[MemberId, ...]


@dataclass(frozen=True, slots=True)
class Wait:
    """Do not found now."""

    reason: str


def may_ask(me: MemberId, present: Sequence[MemberId], expected_size: int) -> Wait | None:
    """Return why this member does not begin to found, or None when it is its turn."""
    if len(present) < expected_size:
        return Wait(f"waits for {expected_size} members, sees {len(present)}")
    if me != min(present):
        return Wait(f"waits for {min(present)} to found it")
    return None


def decide(
    me: MemberId,
    present: Sequence[MemberId],
    answers: Mapping[MemberId, Known],
    expected_size: int,
) -> Found | Wait:
    """Return what follows from what the members said.

    Args:
        me: this member.
        present: the live members that hold data and do not leave, this one included.
        answers: what they know, this one included; one that did not answer is not in it.
        expected_size: `ConsistentConfig.expected_size` here.
    """
    if wait := may_ask(me, present, expected_size):
        return wait
    silent = sorted(set(present) - set(answers))
    if silent:
        return Wait(f"waits for an answer of {silent[0]}")
    for member in sorted(answers):
        answer = answers[member]
        if answer.uuid != NO_GROUP:
            return Wait(f"{member} knows a group already")
        if answer.expected_size != expected_size:
            text = f"{member} has expected_size={answer.expected_size}, this member {expected_size}"
            return Wait(f"{text}; they have to be the same")
    return Found(tuple(sorted(present)[:expected_size]))


@dataclass(slots=True)
class Birth:
    """An unborn group, as one of its voters sees it."""

    voters: tuple[ReplicaId, ...]
    never: dict[ReplicaId, None] = field(default_factory=dict)
    """Those that answered that they will not take part."""

    def answered(self, voter: ReplicaId, reply: Reply) -> None:
        """Take in what a voter said to the group."""
        if reply is Reply.NEVER and voter in self.voters:
            self.never[voter] = None

    @property
    def is_hopeless(self) -> bool:
        """Whether a majority can never come together."""
        return (len(self.voters) - len(self.never)) * 2 <= len(self.voters)
