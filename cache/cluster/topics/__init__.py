"""Topics: values published to whoever listens."""

from cache.cluster.topics.reliable import (
    BEGINNING,
    ReliableMessage,
    ReliableSubscription,
    ReliableTopic,
)
from cache.cluster.topics.service import TopicCounts
from cache.cluster.topics.subscription import Subscription, TopicMessage
from cache.cluster.topics.topic import Topic, TopicPattern

__all__ = [
    "BEGINNING",
    "ReliableMessage",
    "ReliableSubscription",
    "ReliableTopic",
    "Subscription",
    "Topic",
    "TopicCounts",
    "TopicMessage",
    "TopicPattern",
]
