"""What a Raft machine is told, and what it asks its shell to do. Pure.

Outputs are a stream: each is done before the next one begins, and a `Persist` is done when it is *durable*.
That alone makes promises true: a vote is on disk before the reply that grants it, an entry before it is
acknowledged or applied. A shell that cannot carry one out stops the replica; it never skips one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, IntEnum

from cache.cluster.raft.messages import AnyMessage, Entry, Kind, ReplicaId, Snapshot


class Role(Enum):
    """What a replica is in its term."""

    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre-candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


class Reason(IntEnum):
    """Why a request failed; the numbers are on the wire."""

    NOT_LEADER = 1
    """Not applied: this replica does not lead and knows nobody who does, or the request is for leaders."""
    LOST = 2
    """Unknown: leadership was lost under it. Only this one is indeterminate."""
    OVERLOADED = 3
    """Not applied: too much waits already."""
    TRANSFERRING = 4
    """Not applied: leadership is being handed over."""
    CHANGING = 5
    """Not applied: another change of members is under way, or the leader is too new to begin one."""
    BAD_MEMBERS = 6
    """Not applied: no voters, a replica named twice, or a new voter that is no learner up to date."""


# -- events --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Received:
    """A message came."""

    message: AnyMessage


@dataclass(frozen=True, slots=True, kw_only=True)
class Propose:
    """Bring a command into the log; a follower forwards it."""

    request: int
    """The shell's name for it: 0 < request < 2**32, used once in the life of this machine."""
    data: bytes = b""
    kind: Kind = Kind.COMMAND
    session: int = 0
    sequence: int = 0
    answered: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """Ask for the instant when the applied state contains all that was acknowledged before this event."""

    request: int
    lease: bool = False
    """Answer without a round of messages while the leader's lease lasts. Correct only while no clock is
    off by more than `clock_drift_max`; otherwise clocks play no part."""


@dataclass(frozen=True, slots=True)
class Cancel:
    """Nobody waits for this request any longer; it may take effect nevertheless."""

    request: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeMembers:
    """Make these the members, by way of a joint configuration when voters change. Leader only.

    A voter to be added has to be a learner that is up to date (dissertation §4.2.1).
    """

    request: int
    voters: tuple[str, ...]
    learners: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Transfer:
    """Hand leadership to `target`, or to the voter that holds most; ignored by others than the leader."""

    target: ReplicaId | None = None


@dataclass(frozen=True, slots=True)
class SnapshotMade:
    """The answer to `MakeSnapshot`."""

    index: int
    data: bytes


Event = Received | Propose | Read | Cancel | ChangeMembers | Transfer | SnapshotMade


# -- outputs -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class HardState:
    """What a replica must never forget, kept as one record (hashicorp/raft#661)."""

    term: int = 0
    vote: str = ""
    """Whom it voted for in that term, or ""."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Persist:
    """Make this durable, *all of it or nothing*, in the order of the fields."""

    hard_state: HardState | None = None
    snapshot: Snapshot | None = None
    """Replaces the one before."""
    delete_below: int | None = None
    """Delete the entries with lower indexes."""
    delete_above: int | None = None
    """Delete the entries with higher indexes: another leader's."""
    entries: tuple[Entry, ...] = ()
    """Write these; no others with the same indexes are left."""


@dataclass(frozen=True, slots=True)
class Send:
    """Send a message, best effort. Loss, repetition and disorder are harmless."""

    to: ReplicaId
    message: AnyMessage


@dataclass(frozen=True, slots=True)
class Restore:
    """Replace the applied state by this snapshot."""

    snapshot: Snapshot


@dataclass(frozen=True, slots=True)
class Apply:
    """Apply these committed entries in order; each index comes once in the life of a machine."""

    entries: tuple[Entry, ...]
    requests: Mapping[int, int] = field(default_factory=dict)
    """Requests of this replica that are hereby committed, by index: answer them with what applying gave."""


@dataclass(frozen=True, slots=True)
class ReadReady:
    """Answer the read from the state as applied now."""

    request: int


@dataclass(frozen=True, slots=True)
class Failed:
    """The request ended without a result."""

    request: int
    reason: Reason
    leader: ReplicaId | None = None
    """Whom to ask instead, when known."""


@dataclass(frozen=True, slots=True)
class MakeSnapshot:
    """Save the state as applied now, up to `index`, and answer with `SnapshotMade`, at any later time."""

    index: int


@dataclass(frozen=True, slots=True)
class RoleChanged:
    """This replica has another role, term or leader, or has its vote no more; for watchers and logs."""

    role: Role
    term: int
    leader: ReplicaId | None
    votes: bool
    """Whether it is a voter; if not, it is a learner or was removed."""


Output = Persist | Send | Restore | Apply | ReadReady | Failed | MakeSnapshot | RoleChanged


@dataclass(frozen=True, slots=True)
class Persisted:
    """What storage gives back after a restart; a fresh one is a replica that takes part in nothing yet."""

    hard_state: HardState = field(default_factory=HardState)
    snapshot: Snapshot = field(default_factory=Snapshot)
    entries: tuple[Entry, ...] = ()
    """Without gaps; the first one is at most one above the snapshot."""
