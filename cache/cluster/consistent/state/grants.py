"""Grants: what one of several claims has at a time. Locks, semaphores and offices of a leader. Pure.

A claim belongs to an *owner* of a session, a number that its client uses once. Claims wait in the order of
the log; the first one goes before all others, also when a later one would need fewer permits. What a claim
is granted with is its *token*: the index of the entry that granted it. Indices rise for ever, so tokens do,
whatever became of the object meanwhile. (Of two grants by one entry the first is over within it: nobody
can have seen its token.)

An object that nobody holds or awaits is not there: nothing has to be remembered for its next token.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

from sortedcontainers import SortedDict

from cache.cluster.consistent.state.commands import (
    GRANTED,
    LEASE_MAX,
    LEASE_MIN,
    PERMITS_MAX,
    VALUE_BYTES_MAX,
    WAITERS_MAX,
    WITHDRAWN_MAX,
    Acquire,
    Answer,
    AwaitGrant,
    Code,
    Ended,
    Failure,
    Granted,
    Kind,
    Look,
    Outcome,
    Queued,
    Release,
    Renew,
    Seats,
    Withdraw,
)
from cache.cluster.consistent.state.room import Room

Holder = tuple[int, int]
"""Session and owner."""
Place = tuple[Kind, bytes]
"""What is claimed."""
Saved = tuple[int, int, int, float, bytes, int, float]
"""A claim: session, owner, permits, lease, value, token, end of its lease (0: none)."""
State = tuple[
    float,
    list[tuple[Kind, bytes, int, list[Saved], list[Saved]]],
    list[tuple[int, list[tuple[Kind, bytes, int]]]],
]

NOBODY: Final = Seats(0, 0, b"", 0, 0, 0.0)


@dataclass(slots=True)
class _Claim:
    permits: int
    lease: float
    value: bytes
    token: int = 0
    ends_at: float = math.inf


@dataclass(slots=True)
class _Object:
    """Capacity, who holds some of it, and who waits; both in their order."""

    capacity: int
    holding: dict[Holder, _Claim] = field(default_factory=dict)
    waiting: dict[Holder, _Claim] = field(default_factory=dict)
    taken: int = 0
    """Permits of those who hold."""

    def hold(self, holder: Holder, claim: _Claim) -> None:
        """The claim is granted."""
        self.holding[holder] = claim
        self.taken += claim.permits

    def drop(self, holder: Holder) -> _Claim | None:
        """Take a claim away, if it is there."""
        claim = self.holding.pop(holder, None)
        if claim is None:
            return self.waiting.pop(holder, None)
        self.taken -= claim.permits
        return claim


class Grants:
    """All locks, semaphores and offices of a group."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._objects: dict[Place, _Object] = {}
        self._sessions: dict[int, dict[tuple[Kind, bytes, int], None]] = {}
        """The claims of each session; found in the objects, and no part of the state."""
        self._leases: SortedDict[tuple[float, Kind, bytes, Holder], None] = SortedDict()
        """The ends of leases; no part of the state either."""
        self._withdrawn: dict[int, dict[tuple[Kind, bytes, int], None]] = {}
        self._time = 0.0

    # -- commands --------------------------------------------------------------------------------

    def apply(
        self, command: Acquire | Release | Withdraw | Renew, session: int, index: int
    ) -> Answer:
        """Apply a command of a session."""
        match command:
            case Acquire():
                return self._acquire(command, session, index)
            case Release():
                return self._release(command, session, index)
            case Withdraw():
                return self._withdraw(command, session, index)
            case Renew():
                return self._renew(command, session)

    def _acquire(self, command: Acquire, session: int, index: int) -> Answer:
        """Claim; granted at once if nobody waits and enough is free."""
        if failure := _refusal(command, session):
            return failure
        if self._take_withdrawn(session, (command.kind, command.name, command.owner)):
            return Failure(Code.WITHDRAWN)
        place, holder = (command.kind, command.name), (session, command.owner)
        held = self._objects.get(place) or _Object(command.capacity)
        if held.capacity != command.capacity:
            return Failure(Code.MISMATCH, held.capacity)
        if holder in held.holding or holder in held.waiting:
            return Failure(Code.CLAIMED)
        if not command.wait and (held.waiting or held.taken + command.permits > held.capacity):
            return Failure(Code.HELD)
        if len(held.waiting) >= WAITERS_MAX:
            return Failure(Code.WAITERS, WAITERS_MAX)
        if not self._room.has(_size(command.name, command.value)):
            return Failure(Code.FULL, self._room.limit)
        self._objects[place] = held
        claim = _Claim(command.permits, command.lease, command.value)
        self._enter(place, holder, claim)
        held.waiting[holder] = claim
        self._grant(place, held, index)
        if holder in held.holding:
            return Granted(index, session)
        return Queued(session, len(held.waiting) - 1)

    def _release(self, command: Release, session: int, index: int) -> Answer:
        """Give back what has this token."""
        claim = self._held(command, session)
        if claim is None:
            return Outcome(False)
        self._leave((command.kind, command.name), (session, command.owner), index)
        return Outcome(True)

    def _withdraw(self, command: Withdraw, session: int, index: int) -> Answer:
        """End a claim, also one that comes only later: its caller gave up before it was here."""
        if session == 0:
            return Failure(Code.NO_SESSION)
        place, holder = (command.kind, command.name), (session, command.owner)
        if self._leave(place, holder, index):
            return Outcome(True)
        withdrawn = self._withdrawn.setdefault(session, {})
        withdrawn[(command.kind, command.name, command.owner)] = None
        if len(withdrawn) > WITHDRAWN_MAX:
            del withdrawn[next(iter(withdrawn))]
        return Outcome(False)

    def _renew(self, command: Renew, session: int) -> Answer:
        """Begin a lease anew."""
        claim = self._held(command, session)
        if claim is None:
            return Outcome(False)
        self._lease((command.kind, command.name), (session, command.owner), claim)
        return Outcome(True)

    # -- what ends by itself ---------------------------------------------------------------------

    def advance(self, time: float, index: int) -> None:
        """The group's clock says `time`: leases end."""
        self._time = time
        while self._leases:
            ends_at, kind, name, holder = self._leases.peekitem(0)[0]
            if ends_at > time:
                return
            self._leave((kind, name), holder, index)

    def session_ended(self, session: int, index: int) -> None:
        """Nothing of a session is left; the next in turn are granted.

        What one claim of it frees may go to another one of it, which ends a moment later in the same entry.
        """
        for kind, name, owner in list(self._sessions.get(session, ())):
            self._leave((kind, name), (session, owner), index)
        self._withdrawn.pop(session, None)

    # -- queries ---------------------------------------------------------------------------------

    def await_grant(self, query: AwaitGrant) -> Answer | None:
        """Return what became of a claim; None while it waits."""
        held = self._objects.get((query.kind, query.name))
        holder = (query.session, query.owner)
        if held is not None and holder in held.waiting:
            return None
        if held is None or holder not in held.holding:
            return Ended()
        return Granted(held.holding[holder].token, query.session)

    def look(self, query: Look) -> Answer | None:
        """Return who holds it; None while the latest token is the one that the caller knows."""
        seats = self._seats(query.kind, query.name)
        return None if seats.token == query.unless else seats

    def _seats(self, kind: Kind, name: bytes) -> Seats:
        held = self._objects.get((kind, name))
        if held is None or not held.holding:
            return NOBODY
        (session, _), latest = next(reversed(held.holding.items()))
        first_end = min(claim.ends_at for claim in held.holding.values())
        left = 0.0 if first_end == math.inf else max(0.0, first_end - self._time)
        return Seats(latest.token, session, latest.value, held.taken, len(held.waiting), left)

    # -- the whole -------------------------------------------------------------------------------

    def state(self) -> State:
        """Return everything, in one order; claims in theirs."""
        objects = [
            (kind, name, held.capacity, _saved(held.holding), _saved(held.waiting))
            for (kind, name), held in sorted(self._objects.items(), key=lambda item: item[0])
        ]
        withdrawn = [(session, list(claims)) for session, claims in sorted(self._withdrawn.items())]
        return self._time, objects, withdrawn

    def restore(self, state: State) -> None:
        """Add what `state` returned to what is empty."""
        self._time, objects, withdrawn = state
        self._withdrawn = {session: dict.fromkeys(claims) for session, claims in withdrawn}
        for kind, name, capacity, holding, waiting in objects:
            held = self._objects[kind, name] = _Object(capacity)
            for session, owner, permits, lease, value, token, ends_at in (*holding, *waiting):
                holder, claim = (session, owner), _Claim(permits, lease, value, token)
                self._enter((kind, name), holder, claim)
                if token == 0:
                    held.waiting[holder] = claim
                    continue
                held.hold(holder, claim)
                if ends_at:
                    claim.ends_at = ends_at
                    self._leases[ends_at, kind, name, holder] = None
            self._room.changed(kind, name)

    # -- steps -----------------------------------------------------------------------------------

    def _held(self, command: Release | Renew, session: int) -> _Claim | None:
        held = self._objects.get((command.kind, command.name))
        claim = None if held is None else held.holding.get((session, command.owner))
        return claim if claim is not None and claim.token == command.token else None

    def _take_withdrawn(self, session: int, claim: tuple[Kind, bytes, int]) -> bool:
        withdrawn = self._withdrawn.get(session)
        if withdrawn is None or claim not in withdrawn:
            return False
        del withdrawn[claim]
        if not withdrawn:
            del self._withdrawn[session]
        return True

    def _enter(self, place: Place, holder: Holder, claim: _Claim) -> None:
        session, owner = holder
        self._room.take(_size(place[1], claim.value))
        self._sessions.setdefault(session, {})[*place, owner] = None

    def _leave(self, place: Place, holder: Holder, index: int) -> bool:
        """Take a claim away, and grant what is free then; return whether it was there."""
        held = self._objects.get(place)
        claim = None if held is None else held.drop(holder)
        if held is None or claim is None:
            return False
        session, owner = holder
        del self._sessions[session][*place, owner]
        if not self._sessions[session]:
            del self._sessions[session]
        self._leases.pop((claim.ends_at, *place, holder), None)
        self._room.give(_size(place[1], claim.value))
        self._grant(place, held, index)
        if not held.holding and not held.waiting:
            del self._objects[place]
        return True

    def _grant(self, place: Place, held: _Object, index: int) -> None:
        """Grant to those who wait, from the first on, for as long as there is enough for it."""
        self._room.changed(*place)
        while held.waiting:
            holder, claim = next(iter(held.waiting.items()))
            if claim.permits > held.capacity - held.taken:
                return
            del held.waiting[holder]
            claim.token = index
            held.hold(holder, claim)
            self._lease(place, holder, claim)

    def _lease(self, place: Place, holder: Holder, claim: _Claim) -> None:
        if claim.lease > 0:
            self._leases.pop((claim.ends_at, *place, holder), None)
            claim.ends_at = self._time + claim.lease
            self._leases[claim.ends_at, *place, holder] = None


def _refusal(command: Acquire, session: int) -> Failure | None:
    if session == 0:
        return Failure(Code.NO_SESSION)
    if command.kind not in GRANTED:
        return Failure(Code.MALFORMED)
    if not 1 <= command.capacity <= PERMITS_MAX:
        return Failure(Code.RANGE, PERMITS_MAX)
    if not 1 <= command.permits <= command.capacity:
        return Failure(Code.RANGE, command.capacity)
    if command.lease != 0 and not LEASE_MIN <= command.lease <= LEASE_MAX:
        return Failure(Code.RANGE, int(LEASE_MAX))
    if len(command.value) > VALUE_BYTES_MAX:
        return Failure(Code.TOO_LARGE, VALUE_BYTES_MAX)
    return None


def _size(name: bytes, value: bytes) -> int:
    return len(name) + len(value)


def _saved(claims: dict[Holder, _Claim]) -> list[Saved]:
    return [
        (
            *holder,
            claim.permits,
            claim.lease,
            claim.value,
            claim.token,
            0.0 if claim.ends_at == math.inf else claim.ends_at,
        )
        for holder, claim in claims.items()
    ]
