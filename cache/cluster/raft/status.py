"""How a group begins, and what an operator sees of a replica. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cache.cluster.raft.messages import Entry, GroupId, Kind, Members, ReplicaId, encode
from cache.cluster.raft.outputs import HardState, Persisted, Role


def bootstrap(voters: tuple[str, ...]) -> Persisted:
    """Return what each first voter of a new group begins with; all of them the same.

    The members are an ordinary entry, so that replicas that join later find it in the log.
    """
    first = Entry(1, 1, kind=Kind.MEMBERS, data=encode(Members(tuple(sorted(voters)))))
    return Persisted(HardState(term=1), entries=(first,))


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """A replica as its operator sees it."""

    group: GroupId
    replica: ReplicaId
    role: Role
    term: int
    leader: ReplicaId | None
    members: Members
    commit: int
    applied: int
    first_index: int
    last_index: int
    snapshot_index: int
    lag: Mapping[str, int]
    """On the leader, by replica: entries of its log that the replica is not known to hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupInfo:
    """What a member has and knows of one group."""

    group: str
    uuid: str
    """Which of all groups of that name it is; empty: the member knows of none."""
    replica: str | None
    """The log that is here, as `member/log`; None: the member is no replica of it."""
    halted: str | None
    """Why the replica here stopped taking part."""
    role: str | None
    """`follower`, `candidate` or `leader`; None: it takes no part."""
    leader: str
    """The replica that leads in this term, as far as known here; empty: nobody."""
    term: int
    voters: list[str]
    learners: list[str]
    gone: list[str]
    """Of these, whose log does not exist any more."""
    commit: int
    """Index of the last entry that is known here to be committed."""
    applied: int
    """Index of the last entry that the state here contains."""
    first_index: int
    """Index of the oldest entry in the log; those before it are in the snapshot."""
    last_index: int
    snapshot_index: int
    """Index of the last entry in the snapshot."""
    lag: dict[str, int]
    """On the leader, by replica: entries of its log that the replica is not known to hold."""
    waits_for: str
    """Why there is no group yet."""
    other_groups: list[str]
    """Groups of the same name that members know who were started apart from this one."""
