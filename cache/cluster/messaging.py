"""The part of a node that passes messages: topics, and events of the cluster."""

from __future__ import annotations

from typing import Literal, overload

from cache.cluster.cluster_events import ClusterEvents, ClusterEventSource
from cache.cluster.feed import COUNT_MAX
from cache.cluster.membership.service import MembershipService
from cache.cluster.partitions.service import PartitionService
from cache.cluster.replication.repair import Repair
from cache.cluster.replication.service import ReplicationService
from cache.cluster.scope import Scope
from cache.cluster.structures.router import Router
from cache.cluster.structures.service import StructureService
from cache.cluster.structures.state import OperationIds
from cache.cluster.topics.owner import TopicOwner
from cache.cluster.topics.reliable import CAPACITY, CAPACITY_BYTES, ReliableTopic
from cache.cluster.topics.service import TopicCounts, TopicService
from cache.cluster.topics.topic import Topic, TopicPattern
from cache.metrics import Metrics


class MessagingService:
    """Builds what topics need."""

    def __init__(
        self,
        *,
        membership: MembershipService,
        partitions: PartitionService,
        repair: Repair,
        replication: ReplicationService,
        router: Router,
        structures: StructureService,
        operation_ids: OperationIds,
        scope: Scope,
        metrics: Metrics,
    ) -> None:
        self.router = router
        self.operation_ids = operation_ids
        self.topics = TopicService(
            membership=membership, rpc=replication.rpc, scope=scope, metrics=metrics
        )
        self.owner = TopicOwner(replication, structures.changes, metrics)
        structures.serve(self.owner.handlers)
        self.events = ClusterEventSource(membership, partitions, repair)

    def close(self) -> None:
        """End every subscription; idempotent."""
        self.topics.close()
        self.events.close()


class Messaging:
    """What `Node` offers for messages."""

    _messaging: MessagingService

    def _require_serving(self) -> None:
        raise NotImplementedError

    @overload
    def topic(self, name: str, *, reliable: Literal[False] = False) -> Topic: ...
    @overload
    def topic(
        self,
        name: str,
        *,
        reliable: Literal[True],
        capacity: int = CAPACITY,
        capacity_bytes: int = CAPACITY_BYTES,
    ) -> ReliableTopic: ...
    def topic(
        self,
        name: str,
        *,
        reliable: bool = False,
        capacity: int = CAPACITY,
        capacity_bytes: int = CAPACITY_BYTES,
    ) -> Topic | ReliableTopic:
        """Return the cluster's topic of that name; a reliable one and another of one name are two topics.

        Args:
            name: 1 to 256 characters, the same on every member.
            reliable: keep messages, on `replica_count` members, for readers that come back (`ReliableTopic`);
                else whoever listens receives them at most once (`Topic`).
            capacity: messages that a reliable topic keeps from the next publish through this handle on.
            capacity_bytes: bytes of values that it keeps.

        Raises:
            ClosedError: the node is not running.
            ConfigError: a bad name or capacity.
        """
        self._require_serving()
        service = self._messaging
        if not reliable:
            limit = service.router.config.limits.value_bytes_max
            return Topic(name, service.topics, value_limit=limit)
        return ReliableTopic(
            name,
            service.router,
            service.operation_ids,
            capacity=capacity,
            capacity_bytes=capacity_bytes,
        )

    def topics(self, pattern: str = "*") -> TopicPattern:
        """Return all topics that fit a pattern: `*`, `?`, `[a-z]`, `[^a-z]`, and a backslash before these."""
        self._require_serving()
        return TopicPattern(pattern, self._messaging.topics)

    def topic_counts(self) -> TopicCounts:
        """Return how many subscribers topics and patterns have in the cluster, as this member was told."""
        self._require_serving()
        return self._messaging.topics.counts()

    def events(self, *, queue_max: int = COUNT_MAX) -> ClusterEvents:
        """Return what happens to the cluster from now on, as this member sees it: `async for` over it.

        Args:
            queue_max: events that wait to be read; of more the oldest go, and `EventsMissed` says how many.
        """
        self._require_serving()
        return self._messaging.events.open(queue_max)
