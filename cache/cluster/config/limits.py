"""What is bounded, and where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cache.cluster.config.checks import require, require_count, require_seconds

KIB: Final = 1024
MIB: Final = 1024 * KIB


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsConfig:
    """What is bounded, and where. Reaching a limit rejects or drops, and is counted; nothing grows."""

    key_bytes_max: int = 64 * KIB
    """Largest key; a longer one raises at the caller."""

    value_bytes_max: int = 64 * MIB
    """Largest encoded value; a longer one raises at the caller."""

    frame_bytes_max: int = 80 * MIB
    """Largest stream frame accepted or sent; must hold the largest value and its envelope."""

    in_flight_max: int = 4096
    """Requests outstanding to one peer; one more raises `OverloadedError`."""

    send_buffer_bytes_max: int = 256 * MIB
    """Bytes waiting to be written to one peer; a request above it raises `OverloadedError`."""

    connections_max: int = 1024
    """Inbound streams held at once; one more is closed."""

    handshake_timeout: float = 5.0
    """Seconds a new stream has to introduce itself before it is closed."""

    members_max: int = 8192
    """Members remembered; rumours of further ones are dropped."""

    memory_bytes_max: int | None = None
    """Memory for entries on this member, copies for others included, counting 300 bytes on top of each
    key and value. Each partition has an equal share of it; above its share the entries written longest
    ago make room for new ones, on every copy. None, the default, never evicts: the data is wanted."""

    recent_bytes_max: int = 8 * MIB
    """Memory for values that this member owns and read lately, decoded, so that they are read again at the
    cost of a dictionary: 260 bytes on top of each key and value, for about 20,000 small ones. When it is used
    up all are forgotten; 1 keeps none."""

    pending_writes_max: int = 65_536
    """Writes of this member that wait for other copies; one more raises `OverloadedError`."""

    operation_memory: int = 512
    """Results of finished operations remembered per partition, so that a retry takes effect once."""

    lock_waiters_max: int = 1024
    """Callers that wait for locks whose keys this member owns, all locks together; one more raises
    `OverloadedError`. Below `in_flight_max`, so that those who wait leave room for other requests."""

    batch_keys_max: int = 4096
    """Keys carried by one batch message; larger batches are cut."""

    resp_clients_max: int = 1024
    """Connections of Redis clients held at once; one more is told so and closed. Idle ones count."""

    resp_arguments_max: int = 1024 * 1024
    """Words of one command of a Redis client; a longer one ends its connection. As many as Redis takes."""

    resp_query_bytes_max: int = 128 * MIB
    """Bytes of one command of a Redis client, 64 more counted for each word; a longer one ends its
    connection. Must hold the largest value and its key."""

    resp_output_bytes_max: int = 32 * MIB
    """Bytes that wait for a Redis client that listens to channels; one that lets more pile up is
    disconnected, as with Redis's default. Also the largest list of values or keys that is one reply."""

    def __post_init__(self) -> None:
        require_count(
            self,
            "key_bytes_max",
            "value_bytes_max",
            "frame_bytes_max",
            "in_flight_max",
            "send_buffer_bytes_max",
            "connections_max",
            "members_max",
            "recent_bytes_max",
            "pending_writes_max",
            "operation_memory",
            "lock_waiters_max",
            "batch_keys_max",
            "resp_clients_max",
            "resp_arguments_max",
            "resp_query_bytes_max",
            "resp_output_bytes_max",
        )
        if self.memory_bytes_max is not None:
            require_count(self, "memory_bytes_max")
        require_seconds(self, "handshake_timeout")
        room = self.value_bytes_max + self.key_bytes_max + 64 * KIB
        require(
            self.frame_bytes_max >= room,
            "frame_bytes_max",
            self.frame_bytes_max,
            f"must be at least value_bytes_max + key_bytes_max + 64 KiB ({room})",
        )
        require(
            self.resp_query_bytes_max >= room,
            "resp_query_bytes_max",
            self.resp_query_bytes_max,
            f"must be at least value_bytes_max + key_bytes_max + 64 KiB ({room})",
        )
