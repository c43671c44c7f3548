"""What may be asked of a group from outside, and what is answered: shapes only. Pure."""

from __future__ import annotations

from enum import IntEnum
from typing import Final, Protocol

from cache.cluster.raft.messages import Kind, ReplicaId
from cache.cluster.raft.sessions import Effect, StateMachine

CALLABLE: Final = (Kind.COMMAND, Kind.OPEN_SESSION, Kind.CLOSE_SESSION, Kind.KEEP_SESSION)
"""Kinds of entries that others than the leader may bring."""


class Machine(StateMachine, Protocol):
    """A replicated state that answers questions. Pure, as `StateMachine`."""

    def query(self, data: bytes) -> bytes | None:
        """Answer from the state, or None: not yet."""
        ...

    def topic(self, data: bytes) -> bytes:
        """Return the object that a question is about."""
        ...

    def take_changed(self) -> list[bytes]:
        """Return the objects that changed since the last call; questions about them are asked again."""
        ...


class Outcome(IntEnum):
    """What became of a call; the numbers are on the wire."""

    DONE = 0
    """Here is the answer."""
    NOTHING = 1
    """A question has no answer yet."""
    NOT_LEADER = 2
    """Not applied: ask somebody else."""
    NO_GROUP = 3
    """Not applied: this member has no replica of that group."""
    UNKNOWN = 4
    """It may be applied, now or later."""
    SESSION_UNKNOWN = 5
    """Not applied by this call: the session is over."""
    FORGOTTEN = 6
    """It was applied or given up; the answer is lost."""
    TOO_MANY_SESSIONS = 7
    """Not applied: no session can be opened."""


OUTCOMES: Final = {
    Effect.APPLIED: Outcome.DONE,
    Effect.REPEATED: Outcome.DONE,
    Effect.SESSION_UNKNOWN: Outcome.SESSION_UNKNOWN,
    Effect.FORGOTTEN: Outcome.FORGOTTEN,
    Effect.TOO_MANY_SESSIONS: Outcome.TOO_MANY_SESSIONS,
}


def replica_id(member_name: str, log_id: str) -> ReplicaId:
    """Return the name of a log."""
    return ReplicaId(f"{member_name}/{log_id}")


def replica_member(replica: str) -> str:
    """Return the name of the member whose log it is."""
    return replica.rpartition("/")[0]
