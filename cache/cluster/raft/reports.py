"""What a node says of its groups: to operators, and in the errors of calls that nobody answers."""

from __future__ import annotations

from typing import Any

from cache.cluster.raft.calls import replica_member
from cache.cluster.raft.founding import NO_GROUP
from cache.cluster.raft.host import RaftHost
from cache.cluster.raft.hosted import Hosted
from cache.cluster.raft.status import GroupInfo


def why_not(host: RaftHost, name: str) -> str:
    """Return what is in the way of a group's answering, in words."""
    hosted = host.hosted(name)
    status = hosted.status()
    if hosted.witness.known == NO_GROUP:
        if not hosted.is_wanted:
            return "it is founded when it is first used"
        host.founder.is_idle(hosted)
        return f"it is not founded yet: {hosted.waits_for or 'the members are being asked'}"
    if status is None:
        return f"no leader was found; the last one known is {hosted.leader or 'nobody'}"
    live = host.people.live()
    voters = status.members.voters
    gone = [voter for voter in voters if voter in hosted.gone]
    dead = [one for one in voters if one not in gone and replica_member(one) not in live]
    text = f"{len(voters)} voters, not there: {dead or 'none'}, their log lost: {gone or 'none'}"
    if hosted.is_lost:
        text += (
            "; a majority of its logs is lost, and with it what they held: "
            "give it up by node.consistent.give_up, to found another"
        )
    return text


def info(host: RaftHost) -> dict[str, GroupInfo]:
    """Return what a node has and knows of each group, by name."""
    return {name: _info(host, hosted) for name, hosted in host.groups.items()}


def _info(host: RaftHost, hosted: Hosted) -> GroupInfo:
    status, replica = hosted.status(), hosted.replica
    view = hosted.view()
    return GroupInfo(
        group=hosted.name,
        uuid=view.uuid.hex(),
        replica=None if replica is None else hosted.me,
        halted=None if replica is None else replica.halted,
        role=None if status is None else status.role.value,
        leader=view.leader,
        term=view.term,
        voters=view.voters,
        learners=view.learners,
        gone=list(hosted.gone),
        commit=view.commit,
        applied=0 if status is None else status.applied,
        first_index=0 if status is None else status.first_index,
        last_index=0 if status is None else status.last_index,
        snapshot_index=0 if status is None else status.snapshot_index,
        lag={} if status is None else dict(status.lag),
        waits_for="" if view.uuid else why_not(host, hosted.name),
        other_groups=[uuid.hex() for uuid in hosted.foreign],
    )


def digests(host: RaftHost) -> dict[str, list[int]]:
    """Return `[index, digest]` of the applied state of each replica here, by group.

    Replicas of one group that applied the same entries have equal digests. Takes a snapshot of each state.
    """
    found = {name: hosted.digest() for name, hosted in host.groups.items()}
    return {name: list(digest) for name, digest in found.items() if digest is not None}


def members(host: RaftHost) -> dict[str, list[Any]]:
    """Return `[replica, voters, outgoing]` as each replica that takes part here has them, by group.

    `outgoing` is empty unless the voters are just being changed: then a majority of both is needed.
    """
    # Any: a name, and two lists of names
    found = {name: hosted.status() for name, hosted in host.groups.items()}
    return {
        name: [status.replica, list(status.members.voters), list(status.members.outgoing)]
        for name, status in found.items()
        if status is not None
    }
