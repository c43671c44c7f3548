"""The applied state of a group: a state machine behind a table of sessions. Pure and deterministic.

A session makes a retried command take effect once. It is opened by an entry, and the index of that entry
is its name. Its client numbers its commands from 1 and repeats one, under the same number, until it has the
answer; the table keeps the answer for as long as the client may ask again. The table is part of the
applied state, so that it goes into snapshots, and is equal on all replicas.

Sessions end by the group's clock (`Entry.time`), which every replica reads from the log, and which stands
still while there is no leader: an election takes nobody's session away.

Source: Ongaro's dissertation, 2014, §6.3.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Protocol

import msgspec

from cache.cluster.raft.messages import Entry, Kind

SESSIONS_MAX: Final = 100_000
"""Open sessions of one group; opening another one is refused."""

ANSWERS_MAX: Final = 1024
"""Answers kept for one session, the oldest go first; a client has fewer commands on their way."""

LIFETIME_MAX: Final = 86_400.0
"""Seconds that a session may live without a command."""


class StateMachine(Protocol):
    """What a group replicates. It must be deterministic: everything comes from its arguments."""

    def apply(self, command: bytes, *, index: int, time: float, session: int) -> bytes:
        """Apply one command and return its answer.

        `index` rises, `time` is the group's clock, and `session` is open; it is 0 for a command that was
        proposed without one.
        """
        ...

    def session_ended(self, session: int, *, index: int, time: float) -> None:
        """Let go of what belongs to a session: it was closed, or its time is over."""
        ...

    def snapshot(self) -> bytes:
        """Return the whole state; equal states give equal bytes."""
        ...

    def restore(self, data: bytes) -> None:
        """Replace the state by one that `snapshot` returned."""
        ...


class Effect(Enum):
    """What became of an entry when it was applied."""

    APPLIED = "applied"
    REPEATED = "repeated"
    """It had taken effect before; the answer is the one it gave then."""
    SESSION_UNKNOWN = "session unknown"
    """Not applied: the session is not, or no longer, open."""
    FORGOTTEN = "forgotten"
    """It was applied, or given up, long ago; the client had said that it needs no answer."""
    TOO_MANY_SESSIONS = "too many sessions"
    """Not applied: no further session can be opened."""


@dataclass(frozen=True, slots=True)
class Applied:
    """What to answer a request with."""

    effect: Effect
    answer: bytes = b""
    """For an opened session: its number, as text."""


@dataclass(slots=True)
class _Session:
    lifetime: float
    ends_at: float
    answered: int = 0
    """All sequences up to this one are over."""
    answers: dict[int, bytes] = field(default_factory=dict)


class AppliedState:
    """Applies entries, in order, each once."""

    def __init__(self, machine: StateMachine) -> None:
        self.index = 0
        """Of the last entry that was applied."""
        self.is_used = False
        """Whether anything but elections and members was applied."""
        self._machine = machine
        self._sessions: dict[int, _Session] = {}
        self._none_ends_before = math.inf
        """Saves looking at every session for every entry: it is no part of the state."""

    @property
    def session_count(self) -> int:
        """Sessions that are open."""
        return len(self._sessions)

    def apply(self, entry: Entry) -> Applied:
        """Apply one committed entry."""
        assert entry.index > self.index, "an entry is applied once"
        self.index = entry.index
        self._end_sessions(entry)
        self.is_used = self.is_used or entry.kind not in (Kind.NOOP, Kind.MEMBERS)
        match entry.kind:
            case Kind.COMMAND:
                return self._command(entry)
            case Kind.OPEN_SESSION:
                return self._open(entry)
            case Kind.CLOSE_SESSION:
                return self._close(entry)
            case Kind.KEEP_SESSION:
                return self._keep(entry)
            case Kind.NOOP | Kind.MEMBERS:
                return Applied(Effect.APPLIED)

    def snapshot(self) -> bytes:
        """Return sessions and state; equal on all replicas that applied the same entries."""
        sessions = [
            (number, one.lifetime, one.ends_at, one.answered, sorted(one.answers.items()))
            for number, one in sorted(self._sessions.items())
        ]
        return msgspec.msgpack.encode((self.index, sessions, self._machine.snapshot()))

    def restore(self, data: bytes) -> None:
        """Replace everything by what `snapshot` returned."""
        self.is_used = True
        self.index, sessions, state = _SNAPSHOTS.decode(data)
        self._sessions = {
            number: _Session(lifetime, ends_at, answered, dict(answers))
            for number, lifetime, ends_at, answered, answers in sessions
        }
        self._none_ends_before = self._first_end()
        self._machine.restore(state)

    # -- sessions --------------------------------------------------------------------------------

    def _end_sessions(self, entry: Entry) -> None:
        if entry.time < self._none_ends_before:
            return
        over = [number for number, one in self._sessions.items() if one.ends_at <= entry.time]
        for number in over:
            self._end(number, entry)
        self._none_ends_before = self._first_end()

    def _first_end(self) -> float:
        return min((one.ends_at for one in self._sessions.values()), default=math.inf)

    def _end(self, number: int, entry: Entry) -> None:
        del self._sessions[number]
        self._machine.session_ended(number, index=entry.index, time=entry.time)

    def _open(self, entry: Entry) -> Applied:
        if len(self._sessions) >= SESSIONS_MAX:
            return Applied(Effect.TOO_MANY_SESSIONS)
        lifetime = _read_lifetime(entry.data)
        self._sessions[entry.index] = _Session(lifetime, entry.time + lifetime)
        self._none_ends_before = min(self._none_ends_before, entry.time + lifetime)
        return Applied(Effect.APPLIED, str(entry.index).encode())

    def _close(self, entry: Entry) -> Applied:
        if entry.session not in self._sessions:
            return Applied(Effect.SESSION_UNKNOWN)
        self._end(entry.session, entry)
        return Applied(Effect.APPLIED)

    def _keep(self, entry: Entry) -> Applied:
        session = self._sessions.get(entry.session)
        if session is None:
            return Applied(Effect.SESSION_UNKNOWN)
        session.ends_at = entry.time + session.lifetime
        return Applied(Effect.APPLIED)

    # -- commands --------------------------------------------------------------------------------

    def _command(self, entry: Entry) -> Applied:
        if entry.session == 0:
            return Applied(Effect.APPLIED, self._run(entry))
        session = self._sessions.get(entry.session)
        if session is None:
            return Applied(Effect.SESSION_UNKNOWN)
        session.ends_at = entry.time + session.lifetime
        if entry.sequence in session.answers:
            return Applied(Effect.REPEATED, session.answers[entry.sequence])
        if entry.sequence <= session.answered:
            return Applied(Effect.FORGOTTEN)
        answer = self._run(entry)
        session.answers[entry.sequence] = answer
        self._forget(session, entry.answered)
        return Applied(Effect.APPLIED, answer)

    def _run(self, entry: Entry) -> bytes:
        return self._machine.apply(
            entry.data, index=entry.index, time=entry.time, session=entry.session
        )

    def _forget(self, session: _Session, answered: int) -> None:
        """Drop answers that nobody asks for again; a sequence at or below the bound is never run anew."""
        if len(session.answers) > ANSWERS_MAX:
            answered = max(answered, min(session.answers))
        first, session.answered = session.answered + 1, max(session.answered, answered)
        over: Iterable[int] = range(first, session.answered + 1)
        if session.answered - first >= len(session.answers):  # The bound is the client's to say.
            over = [one for one in session.answers if one <= session.answered]
        for sequence in over:
            session.answers.pop(sequence, None)


def _read_lifetime(data: bytes) -> float:
    """Return the seconds in `data`; what is no sensible number becomes the longest lifetime there is."""
    try:
        lifetime = float(data)
    except ValueError:
        return LIFETIME_MAX
    return lifetime if 0 < lifetime < LIFETIME_MAX else LIFETIME_MAX


_SNAPSHOTS: Final = msgspec.msgpack.Decoder(
    tuple[int, list[tuple[int, float, float, int, list[tuple[int, bytes]]]], bytes]
)
