"""Which logs of a group are left, and whether they are enough for it to go on.

A log is there if a running member takes part with it, or if it is on the disk of a member that is down and
will be back. A group can go on exactly if the logs that are there hold a majority of its voters, of both sets
while they are being changed.
"""

from __future__ import annotations

from dataclasses import dataclass

from cache.errors import CacheError
from cache.testing.cluster import TestCluster


@dataclass(frozen=True, slots=True)
class Replica:
    """One log, and the members in force as it has them."""

    log: str
    voters: tuple[str, ...]
    outgoing: tuple[str, ...]

    def has_majority(self, logs: frozenset[str]) -> bool:
        """Return whether these logs are a majority of its voters."""
        sets = (self.voters, self.outgoing) if self.outgoing else (self.voters,)
        return all(2 * sum(one in logs for one in voters) > len(voters) for voters in sets)


async def replica_of(cluster: TestCluster, index: int, group: str = "main") -> Replica | None:
    """Return the log with which a running member takes part."""
    try:
        answer = await cluster.member(index).inspect("consensus:members")
    except CacheError:
        return None
    if group not in answer:
        return None
    log, voters, outgoing = answer[group]
    return Replica(log, tuple(voters), tuple(outgoing))


async def replicas_of(cluster: TestCluster) -> dict[int, Replica]:
    """Return the logs with which running members take part, by member."""
    found = {member.index: await replica_of(cluster, member.index) for member in cluster.members}
    return {index: replica for index, replica in found.items() if replica is not None}


def can_go_on(replicas: list[Replica]) -> bool:
    """Return whether these logs are a majority by what every one of them says."""
    logs = frozenset(replica.log for replica in replicas)
    return bool(replicas) and all(replica.has_majority(logs) for replica in replicas)


def is_lost(replicas: list[Replica]) -> bool:
    """Return whether these logs are a majority by what none of them says."""
    logs = frozenset(replica.log for replica in replicas)
    return not any(replica.has_majority(logs) for replica in replicas)
