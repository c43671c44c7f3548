"""How a group begins, and what an operator sees of a replica. Pure."""

from __future__ import annotations

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
