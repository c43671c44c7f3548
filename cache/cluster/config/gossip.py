"""Timing of membership."""

from __future__ import annotations

from dataclasses import dataclass

from cache.cluster.config.checks import require, require_count, require_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class GossipConfig:
    """Timing of membership (SWIM with Lifeguard). The defaults are those of a LAN."""

    probe_interval: float = 1.0
    """Seconds between two probes by one member; detection time is proportional to it."""

    probe_timeout: float = 0.5
    """Seconds until a direct probe is called late and relays are asked; above the round-trip time."""

    gossip_interval: float = 0.2
    """Seconds between two gossip rounds while there is news."""

    gossip_fanout: int = 3
    """Members told in each round; 3 reaches n members in about log4(n) rounds."""

    gossip_to_dead_time: float = 30.0
    """Seconds during which a dead member is still told, so that a wrongly buried one can refute."""

    push_pull_interval: float = 30.0
    """Seconds between two full state exchanges with a random member; repairs what gossip missed."""

    suspicion_multiplier: int = 3
    """Suspicion lasts at least this many probe intervals (times log10 n). 3, not memberlist's 4: with
    `retransmit_multiplier` 6 it detects faster and has fewer false deaths."""

    suspicion_max_multiplier: int = 6
    """An unconfirmed suspicion lasts this many times the minimum (Lifeguard)."""

    retransmit_multiplier: int = 6
    """Each rumour is sent this many times ceil(log10(n + 1)) by each member."""

    indirect_probes: int = 3
    """Relays asked after a direct probe is late."""

    awareness_max: int = 8
    """Local health score is kept below this; it stretches the probe interval (Lifeguard)."""

    rejoin_interval: float = 5.0
    """Seconds between two attempts to reach a configured peer that is not a member, for ever."""

    packet_bytes_max: int = 1400
    """Largest packet sent, below the usual MTU of 1500."""

    def __post_init__(self) -> None:
        require_seconds(
            self,
            "probe_interval",
            "probe_timeout",
            "gossip_interval",
            "gossip_to_dead_time",
            "push_pull_interval",
            "rejoin_interval",
        )
        require_count(
            self,
            "gossip_fanout",
            "suspicion_multiplier",
            "suspicion_max_multiplier",
            "retransmit_multiplier",
            "indirect_probes",
            "awareness_max",
        )
        require(
            self.probe_timeout <= self.probe_interval,
            "probe_timeout",
            self.probe_timeout,
            f"must not be above probe_interval ({self.probe_interval})",
        )
        require(
            isinstance(self.packet_bytes_max, int) and 512 <= self.packet_bytes_max <= 65_000,
            "packet_bytes_max",
            self.packet_bytes_max,
            "must be from 512 to 65000 bytes",
        )
