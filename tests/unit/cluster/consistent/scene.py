"""One machine, told commands one after the other."""

from __future__ import annotations

from typing import TypeVar

from cache.cluster.consistent.machine import ConsistentMachine
from cache.cluster.consistent.state.commands import (
    Acquire,
    Answer,
    AnyAnswer,
    AwaitGrant,
    Command,
    Granted,
    Kind,
    Query,
    decode_answer,
    encode,
)

A = TypeVar("A", bound=Answer)
LOCK = Kind.LOCK


class Scene:
    """A machine with the next index, the group's clock, and every step that it was told."""

    def __init__(self) -> None:
        self.machine = ConsistentMachine()
        self.index = 0
        self.time = 0.0
        self.steps: list[tuple[bytes | int, int, float, int]] = []

    def tell(self, command: Command, *, session: int = 0) -> AnyAnswer:
        """Apply a command."""
        return self.tell_bytes(encode(command), session=session)

    def tell_bytes(self, data: bytes, *, session: int = 0) -> AnyAnswer:
        """Apply whatever bytes."""
        self.index += 1
        self.steps.append((data, self.index, self.time, session))
        answer = self.machine.apply(data, index=self.index, time=self.time, session=session)
        return decode_answer(answer)

    def end(self, session: int) -> None:
        """End a session."""
        self.index += 1
        self.steps.append((session, self.index, self.time, session))
        self.machine.session_ended(session, index=self.index, time=self.time)

    def ask(self, query: Query) -> AnyAnswer | None:
        """Ask; None: held."""
        answer = self.machine.query(encode(query))
        return None if answer is None else decode_answer(answer)

    def acquire(self, session: int, owner: int = 1, *, kind: Kind = LOCK) -> AnyAnswer:
        """Claim the object `x`."""
        return self.tell(Acquire(b"x", kind, owner), session=session)

    def granted(self, session: int, owner: int = 1, *, kind: Kind = LOCK) -> int:
        """Return the token of a claim that is granted, 0 of any other."""
        answer = self.ask(AwaitGrant(b"x", kind, session, owner))
        return answer.token if isinstance(answer, Granted) else 0

    def replay(self) -> ConsistentMachine:
        """Return another machine that was told the same."""
        other = ConsistentMachine()
        for step, index, time, session in self.steps:
            if isinstance(step, bytes):
                other.apply(step, index=index, time=time, session=session)
            else:
                other.session_ended(step, index=index, time=time)
        return other
