"""What every write has to pass on the owner, before it is made."""

from __future__ import annotations

from cache.cluster.replication.ownership import Ownership
from cache.cluster.replication.service import ReplicationService
from cache.cluster.structures.operations import Stamper
from cache.errors import RemoteProtocolError


class Writes:
    """Lets writes through to partitions this member owns."""

    def __init__(self, replication: ReplicationService) -> None:
        self._replication = replication
        self._config = replication.config
        self._tombstone_lifetime = replication.config.tombstone_lifetime

    def check_size(self, key: bytes, value: bytes) -> None:
        """Raise `RemoteProtocolError` for what callers check first; here it stops those that do not."""
        limits = self._config.limits
        if len(key) > limits.key_bytes_max or len(value) > limits.value_bytes_max:
            raise RemoteProtocolError(
                f"key of {len(key)} bytes or value of {len(value)} bytes is over the limits"
            )

    def admit(self, partition: int) -> Ownership:
        """Return the ownership of a partition that may be written to now.

        Raises:
            NotOwnerError: it is not served here.
            NoQuorumError: too few members or copies.
            OverloadedError: too much memory is held, or too many writes are unconfirmed.
        """
        ownership = self._replication.serve(partition)
        self._replication.check_write_quorum(ownership)
        self._replication.check_room()
        return ownership

    def stamper(self, map_name: str) -> Stamper:
        """Return what makes the entries of one operation on a map."""
        replication = self._replication
        return Stamper(
            replication.clock.monotonic(),
            replication.stamp,
            replication.origin,
            self._tombstone_lifetime,
            replication.policies.of(map_name).ttl,
        )
