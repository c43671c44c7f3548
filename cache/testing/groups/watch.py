"""What members say of a group under faults: one leader a term, nothing goes back, equal states."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from cache.cluster.raft.status import GroupInfo
from cache.errors import CacheError
from cache.testing.cluster import TestCluster
from cache.testing.members import MemberHandle

GROUP: Final = "main"


@dataclass(slots=True)
class Watch:
    """Everything that was seen of one group, and what of it must not be."""

    cluster: TestCluster
    violations: list[str] = field(default_factory=list)
    leaders: dict[tuple[str, int], str] = field(default_factory=dict)
    """By group and term."""
    uuids: dict[str, None] = field(default_factory=dict)
    """Groups in which something was committed."""
    _latest: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)
    """By life of a member and log: the last term and commit index."""
    _digests: dict[tuple[str, int], tuple[int, str]] = field(default_factory=dict)
    """By group and index: the digest of the state, and whose it was."""

    async def look(self, *, states: bool) -> None:
        """Take in what members say now; `states`: also how they look."""
        for member in self.cluster.members:
            try:
                info = await member.raft(GROUP)
                found = await member.inspect("consensus:states") if states else {}
            except CacheError:
                continue
            self._take(member, info)
            if GROUP in found:
                self._take_digest(info.uuid, str(member), *found[GROUP])

    def _take(self, member: MemberHandle, info: GroupInfo) -> None:
        if info.replica is None or info.role is None:
            return
        if info.commit and info.uuid not in self.uuids:
            self.uuids[info.uuid] = None
            if len(self.uuids) > 1:
                self.violations.append(f"there are two groups: {list(self.uuids)}")
        if info.role == "leader":
            known = self.leaders.setdefault((info.uuid, info.term), info.replica)
            if known != info.replica:
                self.violations.append(f"term {info.term} has two: {known} and {info.replica}")
        life = (member.id, info.replica)
        term, commit = self._latest.get(life, (0, 0))
        if info.term < term or info.commit < commit:
            was = f"term {term}, commit {commit}"
            self.violations.append(f"{member} went back: {was}; then {info.term}, {info.commit}")
        self._latest[life] = (info.term, info.commit)

    def _take_digest(self, uuid: str, member: str, index: int, digest: int) -> None:
        known, other = self._digests.setdefault((uuid, index), (digest, member))
        if known != digest:
            self.violations.append(f"states differ at {index}: {other} and {member}")
