"""What a node says about itself, for `node.stats()`, the command line and the test cluster. Reads only."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from cache.cluster.config import ClusterConfig
from cache.cluster.consensus import Consensus
from cache.cluster.ids import Address, MemberId, member_name
from cache.cluster.membership.service import MembershipService
from cache.cluster.partitions.service import PartitionService
from cache.cluster.partitions.table import map_seed, partition_of
from cache.cluster.replication.repair import Repair
from cache.cluster.replication.service import ReplicationService
from cache.cluster.wire.messages import PROTOCOL_VERSION
from cache.errors import RemoteProtocolError
from cache.metrics import Metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStats:
    """A snapshot of one node."""

    name: str
    address: Address
    uptime: float
    """Seconds since start."""
    members: int
    table_version: int
    table_id: str
    """Which table: its version and who made it; two sides of a split never share one."""
    coordinator: MemberId
    """The member that makes tables now."""
    owned: int
    """Partitions owned here."""
    backups: int
    """Partitions held here as a complete copy for another owner."""
    under_replicated: int
    """Partitions of the whole table with fewer complete copies than they could have."""
    migrating: int
    """Partitions of the whole table with a copy being made."""
    unsettled: int
    """Partitions this member, if it coordinates, still has to move."""
    orphans: int
    """Partitions held here that are still to be handed to their owner."""
    entries: int
    """Entries held here, copies and tombstones included."""
    bytes: int
    """Bytes of keys and values held here."""
    readings: dict[str, float]
    """Every counter and gauge by name."""

    @property
    def settled(self) -> bool:
        """Whether, as far as this member knows, every copy is there and nothing is to be moved.

        What an orchestrator waits for on each member before it stops the next one.
        """
        return not (self.under_replicated or self.migrating or self.unsettled or self.orphans)


class Inspection:
    """Answers questions about one node."""

    def __init__(
        self,
        *,
        config: ClusterConfig,
        membership: MembershipService,
        partitions: PartitionService,
        replication: ReplicationService,
        repair: Repair,
        consensus: Consensus,
        metrics: Metrics,
    ) -> None:
        self._config = config
        self._membership = membership
        self._partitions = partitions
        self._replication = replication
        self._repair = repair
        self._consensus = consensus
        self._metrics = metrics
        self._started_at = replication.clock.monotonic()

    def stats(self) -> NodeStats:
        """Take a snapshot."""
        return self._stats(self._metrics.snapshot())

    def _stats(self, readings: dict[str, float]) -> NodeStats:
        rows = self._partitions.table.rows
        me = self._replication.member
        copies = self._replication.copies.values()
        return NodeStats(
            name=member_name(me),
            address=self._membership.local().address,
            uptime=self._replication.clock.monotonic() - self._started_at,
            members=len(self._membership.members()),
            table_version=self._partitions.table.id.version,
            table_id=str(self._partitions.table.id),
            coordinator=self._partitions.coordinator_id(),
            owned=sum(row.owner == me for row in rows),
            backups=sum(me in row.replicas[1:] for row in rows),
            under_replicated=self.under_replicated(),
            migrating=sum(bool(row.joining) for row in rows),
            unsettled=self._partitions.unsettled(),
            orphans=len(self._repair.orphans()),
            entries=sum(copy.entry_count for copy in copies),
            bytes=sum(copy.size_bytes for copy in copies),
            readings=readings,
        )

    def under_replicated(self) -> int:
        """Count partitions whose complete, live copies are fewer than they could be."""
        members = self._membership.members()
        live = {member.id: None for member in members}
        holders = sum(not m.leaving and m.holds_data for m in members)
        wanted = min(self._config.replica_count, holders)
        return sum(
            sum(replica in live for replica in row.replicas) < wanted
            for row in self._partitions.table.rows
        )

    def answer(self, what: str) -> Any:  # Any: MessagePack values
        """Answer one `Inspect` request; see `wire/messages.py`."""
        topic, _, rest = what.partition(":")
        match topic:
            case "status":
                return self._status()
            case "members":
                return self._members()
            case "table":
                return self._table()
            case "stats":
                return self._metrics.snapshot()
            case "digests":
                return self._digests()
            case "merges":
                return [asdict(report) for report in self._repair.merges.reports()]
            case "lost":
                return sorted(self._partitions.lost)
            case "consensus":
                return self._groups(rest)
            case "copies":
                map_name, _, key = rest.rpartition(":")
                return self._copy(map_name, _key(key))
            case "keys":
                return self._keys(rest)
            case _:
                raise RemoteProtocolError(f"cannot inspect {what!r}")

    def _status(self) -> dict[str, Any]:  # Any: MessagePack values
        stats = self._stats({})
        fields = {name: getattr(stats, name) for name in NodeStats.__slots__ if name != "readings"}
        ready = self._replication.member in self._partitions.table.addresses
        return {
            **fields,
            "id": self._replication.member,
            "ready": ready,
            "settled": ready and stats.settled,
            "version": PROTOCOL_VERSION,
        }

    def _members(self) -> list[dict[str, Any]]:  # Any: MessagePack values
        rows = self._partitions.table.rows
        coordinator = self._partitions.coordinator_id()
        return [
            {
                "id": member.id,
                "name": member.name,
                "address": member.address,
                "state": member.state.name.lower(),
                "leaving": member.leaving,
                "lag": member.lag,
                "seniority": member.seniority,
                "owned": sum(row.owner == member.id for row in rows),
                "copies": sum(member.id in row.replicas for row in rows),
                "zone": member.zone,
                "host": member.host,
                "tags": dict(member.tags),
                "is_coordinator": member.id == coordinator,
            }
            for member in self._membership.members()
        ]

    def _table(self) -> dict[str, Any]:  # Any: MessagePack values
        table = self._partitions.table
        rows = [[row.epoch, list(row.replicas), list(row.joining)] for row in table.rows]
        return {"version": table.id.version, "coordinator": table.id.coordinator, "rows": rows}

    def _digests(self) -> dict[int, list[int]]:
        """Return entry count and digest of every complete copy here, by partition."""
        rows, me = self._partitions.table.rows, self._replication.member
        return {
            partition: [copy.entry_count, copy.digest()]
            for partition, copy in sorted(self._replication.copies.items())
            if me in rows[partition].replicas
        }

    def _groups(self, rest: str) -> dict[str, Any]:  # Any: MessagePack values
        if rest == "states":
            return self._consensus.digests()
        if rest == "members":
            return self._consensus.members()
        return {name: asdict(group) for name, group in self._consensus.info().items()}

    def _copy(self, map_name: str, key: bytes) -> dict[str, Any]:  # Any: MessagePack values
        partition = partition_of(key, map_seed(map_name), self._config.partition_count)
        replica = self._replication.copies.get(partition)
        now = self._replication.clock.monotonic()
        entry = None if replica is None else replica.entry(map_name, key)
        value = None if replica is None else replica.peek(map_name, key, now)
        return {
            "held": value is not None,
            "value_bytes": value,
            "version": None if entry is None else [entry.hlc, entry.origin],
            "owner": partition in self._replication.owned,
            "partition": partition,
        }

    def _keys(self, map_name: str) -> dict[str, list[bytes]]:
        now = self._replication.clock.monotonic()
        return {
            str(partition): list(copy.keys(map_name, now))
            for partition, copy in sorted(self._replication.copies.items())
        }


def _key(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError as error:
        raise RemoteProtocolError(f"key {text!r} is not hexadecimal") from error
