"""Settings of what is linearizable: how many members found it, who votes, how long the dead are missed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Literal

from cache.cluster.config.checks import require, require_count, require_seconds
from cache.cluster.config.raft import RaftConfig
from cache.errors import ConfigError

GROUPS_MAX: Final = 64
VOTERS: Final = ("auto", 1, 3, 5, 7)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsistentConfig:
    """The Raft groups of a cluster. The defaults are those of a LAN.

    `expected_size`, `groups` and `raft` have to be the same on every member.
    """

    expected_size: int = 3
    """Members that have to be there, and to know of no group, before they found one. More than half of the
    members that a cluster starts with, at least, or two halves of it may found one each. 1, for development
    and tests: the first member founds alone."""

    found_at_start: bool = False
    """Whether a group is founded as soon as that many members are there, so that its first use waits for no
    election. By default it is founded when it is first used: who uses none pays nothing."""

    groups: int = 1
    """Raft groups, 1 to 64; the name of an object says which one has it. One is enough until its leader's
    disk or processor is the limit."""

    voters: Literal["auto"] | int = "auto"
    """Replicas of a group that vote: 1, 3, 5 or 7. "auto": 1 while one member is there, 3 up to four members,
    5 up to 29, 7 from 30: each two more survive one more crash, and make each write wait for one more."""

    replace_after: float = 30.0
    """Seconds for which the member of a voter is dead before another one takes its place. Long enough for a
    restart: a replica that comes back needs no copy of the state."""

    session_ttl: float = 15.0
    """Seconds without a sign of life after which the group gives up a member's session, and with it the locks
    that it holds; above `raft.election_timeout_max`, because without a leader nobody can give one."""

    raft: RaftConfig = field(default_factory=RaftConfig.lan)
    """Timing and limits of each group."""

    def __post_init__(self) -> None:
        require_count(self, "expected_size", "groups")
        require(self.groups <= GROUPS_MAX, "groups", self.groups, f"must not be above {GROUPS_MAX}")
        known = any(type(self.voters) is type(count) and self.voters == count for count in VOTERS)
        require(known, "voters", self.voters, 'must be "auto", 1, 3, 5 or 7')
        require_seconds(self, "replace_after", "session_ttl")
        require(isinstance(self.raft, RaftConfig), "raft", self.raft, "must be a RaftConfig")
        longest = self.raft.election_timeout_max
        for name in ("replace_after", "session_ttl"):
            value = getattr(self, name)
            rule = f"must be above raft.election_timeout_max ({longest}): an election is no failure"
            require(value > longest, name, value, rule)

    @classmethod
    def local(cls, **overrides: Any) -> ConsistentConfig:  # Any: field values, checked by __init__
        """Return the settings for processes on one host."""
        return cls._preset(overrides, replace_after=2.0, session_ttl=5.0, raft=RaftConfig.local())

    @classmethod
    def lan(cls, **overrides: Any) -> ConsistentConfig:  # Any: field values, checked by __init__
        """Return the settings for one data centre; the defaults."""
        return cls._preset(overrides)

    @classmethod
    def wan(cls, **overrides: Any) -> ConsistentConfig:  # Any: field values, checked by __init__
        """Return the settings for members in several regions."""
        return cls._preset(overrides, replace_after=60.0, session_ttl=30.0, raft=RaftConfig.wan())

    @classmethod
    def _preset(
        cls,
        overrides: dict[str, Any],
        **defaults: Any,  # Any: field values, checked by __init__
    ) -> ConsistentConfig:
        values = defaults | overrides
        unknown = sorted(set(values) - {*cls.__slots__})
        if unknown:
            known = ", ".join(sorted(cls.__slots__))
            raise ConfigError(f"{unknown[0]}: no such setting; there are {known}")
        return cls(**values)
