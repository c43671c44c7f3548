"""What a member knows of one client of its front door, and what all of them share."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from typing import Any, Final

from cache.clock import Clock
from cache.cluster.config import ClusterConfig
from cache.cluster.inspection import NodeStats
from cache.cluster.resp.channels import Channels, Listening, Topics
from cache.cluster.resp.command import Command
from cache.cluster.resp.parser import RequestLimits
from cache.cluster.resp.replies import RESP2, Reply
from cache.cluster.structures.map import DistributedMap
from cache.metrics import Metrics

DATABASES: Final = 16
"""Databases of `SELECT`, as many as Redis has by default."""

MAP_NAME: Final = "resp:{}"
"""The map of a database."""

LOGIN_ARGUMENTS_MAX: Final = 10
LOGIN_BYTES_MAX: Final = 16 * 1024
"""What a client may send before it has said the password, as in Redis."""


class Counts:
    """Counters of the front door."""

    def __init__(self, metrics: Metrics) -> None:
        self.connections = metrics.counter("resp.connections")
        self.rejected_clients = metrics.counter("resp.rejected_clients")
        self.commands = metrics.counter("resp.commands")
        self.errors = metrics.counter("resp.errors")
        self.protocol_errors = metrics.counter("resp.protocol_errors")
        self.slow_clients = metrics.counter("resp.slow_clients")


class Shared:
    """What the clients of one member share.

    Args:
        map_of: returns the cluster's map of a name.
        stats: returns a snapshot of the node.
        topics: carries the messages of channels.
        table: commands by name.
    """

    def __init__(
        self,
        *,
        config: ClusterConfig,
        clock: Clock,
        metrics: Metrics,
        map_of: Callable[[str], DistributedMap[Any]],  # Any: values of all types
        stats: Callable[[], NodeStats],
        topics: Topics,
        table: Mapping[bytes, Command],
    ) -> None:
        self.config = config
        self.clock = clock
        self.stats = stats
        self.table = table
        self.counts = Counts(metrics)
        self.channels = Channels(topics)
        self.clients: dict[int, Client] = {}
        self.address = ""
        self.is_closed = False
        limits = config.limits
        self.limits = RequestLimits(
            arguments_max=limits.resp_arguments_max,
            bulk_bytes_max=limits.value_bytes_max,
            request_bytes_max=limits.resp_query_bytes_max,
        )
        self.login_limits = RequestLimits(
            arguments_max=LOGIN_ARGUMENTS_MAX,
            bulk_bytes_max=LOGIN_BYTES_MAX,
            request_bytes_max=limits.resp_query_bytes_max,
            prefix="unauthenticated",
        )
        self._map_of = map_of
        self.maps: dict[int, DistributedMap[Any]] = {}  # Any: as above
        """By database, those that a client has used here."""

    def map(self, database: int) -> DistributedMap[Any]:  # Any: as above
        """Return the map of a database."""
        found = self.maps.get(database)
        if found is None:
            found = self.maps[database] = self._map_of(MAP_NAME.format(database))
        return found


class Client:
    """One connection, as its commands see and change it.

    Args:
        push: sends a reply that no command asked for.
    """

    def __init__(
        self, shared: Shared, number: int, address: str, push: Callable[[Reply], None]
    ) -> None:
        self.shared = shared
        self.number = number
        """Id, unique on this member."""
        self.address = address
        self.push = push
        self.channels: dict[bytes, Listening] = {}
        self.patterns: dict[bytes, Listening] = {}
        """What it listens to; see `Channels`."""
        self.connected_at = self.active_at = shared.clock.monotonic()
        self.command = ""
        """Name of the latest command."""
        self.waiting_bytes: Callable[[], tuple[int, int]] = lambda: (0, 0)
        """Returns how much was received and not executed, and replied and not sent."""
        self.closing = False
        """Whether the connection ends after the reply."""
        self.reset()

    def reset(self) -> None:
        """Be as a connection that was just made."""
        self.shared.channels.forget(self)
        self.name = self.library = self.library_version = b""
        self.protocol = RESP2
        self._let_in(self.shared.config.resp_password is None)
        self.select(0)

    def select(self, database: int) -> None:
        """Change the database."""
        self.database = database
        self.map = self.shared.map(database)

    @property
    def subscription_count(self) -> int:
        """Channels and patterns that it listens to."""
        return len(self.channels) + len(self.patterns)

    @property
    def is_subscribed(self) -> bool:
        """Whether it listens to anything."""
        return bool(self.channels or self.patterns)

    def login(self, user: bytes, password: bytes) -> bool:
        """Check a password and remember that it was right; there is one user, `default`.

        Where none is asked for, any is right, as in Redis.
        """
        expected = self.shared.config.resp_password
        if user != b"default":
            return False
        if expected is not None and not hmac.compare_digest(password, expected.encode()):
            return False
        self._let_in(True)
        return True

    def _let_in(self, authenticated: bool) -> None:
        self.authenticated = authenticated
        self.limits = self.shared.limits if authenticated else self.shared.login_limits
