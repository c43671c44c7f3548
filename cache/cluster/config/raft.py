"""Timing and limits of one Raft group."""

from __future__ import annotations

from dataclasses import dataclass

from cache.cluster.config.checks import require, require_count, require_seconds
from cache.cluster.config.limits import KIB, MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class RaftConfig:
    """Timing and limits of one Raft group. The defaults are those of processes on one host.

    All replicas of a group need the same `election_timeout_min` and `clock_drift_max`: a leader's lease is
    the promise of the others not to elect anybody before that time is over.
    """

    election_timeout_min: float = 0.15
    """Seconds of silence before a follower may campaign, at least; ten times a round trip and a fsync."""

    election_timeout_max: float = 0.3
    """The most; twice the minimum spreads the candidates enough for five voters (paper §9.3)."""

    heartbeat_interval: float = 0.05
    """Seconds between two heartbeats of a leader; a third of the minimum survives two lost ones."""

    clock_drift_max: float = 0.05
    """The most by which the rate of any clock is off, as a part of 1. Real quartz is below 0.0002; only
    lease reads rest on it."""

    append_bytes_max: int = 1 * MIB
    """Bytes of commands in one message; one larger command travels alone."""

    inflight_max: int = 64
    """Messages with entries on their way to one follower; further entries wait and share a message."""

    uncommitted_bytes_max: int = 16 * MIB
    """Bytes of commands in the leader's log without a majority; further proposals are refused."""

    waiting_max: int = 10_000
    """Requests of one kind (proposals, reads) that wait at one replica; further ones are refused."""

    snapshot_interval: int = 10_000
    """Entries applied between two snapshots; bounds the log, and the time a restart takes."""

    snapshot_trailing: int = 1_000
    """Entries kept below a snapshot, so that a follower that is a little late needs no snapshot."""

    snapshot_chunk_bytes: int = 256 * KIB
    """Bytes of a snapshot in one message; small enough not to delay heartbeats behind it."""

    promotion_lag_max: int = 100
    """Entries that a learner may lack when it becomes a voter; fewer than a heartbeat brings."""

    def __post_init__(self) -> None:
        require_seconds(self, "election_timeout_min", "election_timeout_max", "heartbeat_interval")
        require_count(
            self,
            "append_bytes_max",
            "inflight_max",
            "uncommitted_bytes_max",
            "waiting_max",
            "snapshot_interval",
            "snapshot_trailing",
            "snapshot_chunk_bytes",
            "promotion_lag_max",
        )
        require(
            self.election_timeout_min < self.election_timeout_max,
            "election_timeout_max",
            self.election_timeout_max,
            f"must be above election_timeout_min ({self.election_timeout_min})",
        )
        require(
            self.heartbeat_interval * 2 <= self.election_timeout_min,
            "heartbeat_interval",
            self.heartbeat_interval,
            f"must be at most half of election_timeout_min ({self.election_timeout_min})",
        )
        require(
            0 <= self.clock_drift_max < 0.5,
            "clock_drift_max",
            self.clock_drift_max,
            "must be from 0 to below 0.5",
        )

    @classmethod
    def local(cls) -> RaftConfig:
        """Return the settings for processes on one host."""
        return cls()

    @classmethod
    def lan(cls) -> RaftConfig:
        """Return the settings for one data centre, where a pause of a process is the longest delay."""
        return cls(election_timeout_min=1.0, election_timeout_max=2.0, heartbeat_interval=0.2)

    @classmethod
    def wan(cls) -> RaftConfig:
        """Return the settings for voters in several regions."""
        return cls(election_timeout_min=3.0, election_timeout_max=6.0, heartbeat_interval=0.5)

    @property
    def lease_duration(self) -> float:
        """Seconds of the leader's clock that its lease lasts, from when a heartbeat was sent.

        Each voter keeps quiet for `election_timeout_min` of its own clock from when that heartbeat came.
        With a drift of d that is min/(1+d) real seconds at least, and the lease L/(1-d) at most.
        """
        drift = self.clock_drift_max
        return self.election_timeout_min * (1 - drift) / (1 + drift)
