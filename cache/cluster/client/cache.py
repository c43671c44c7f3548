"""`ClientCache`: a map of a cluster with the client it needs, opened by its first use: `client://…`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from cache.cluster.client.client import ClusterClient, client_config
from cache.cluster.environment import Environment
from cache.cluster.opened import OpenedCache
from cache.cluster.structures.near import NearCache
from cache.durations import DEFAULT
from cache.keys import Ttl
from cache.serializers import Serializer

V = TypeVar("V")


class ClientCache(OpenedCache[V, ClusterClient]):
    """A map of a cluster that this process is no member of.

    Args:
        seeds, environment, settings: see `ClusterClient`.
        name, ttl, serializer, near_cache: see `OpenedCache`.

    Raises:
        ConfigError: as `ClusterClient`.
    """

    def __init__(
        self,
        seeds: Sequence[str],
        name: str,
        *,
        ttl: Ttl = DEFAULT,
        serializer: Serializer | None = None,
        near_cache: NearCache | None = None,
        environment: Environment | None = None,
        **settings: Any,  # Any: see `ClusterClient`
    ) -> None:
        super().__init__(name, ttl=ttl, serializer=serializer, near_cache=near_cache)
        self._seeds = tuple(seeds)
        self._settings = settings
        self._environment = environment
        self.config = client_config(seeds, settings)

    def _where(self) -> str:
        return ", ".join(self._seeds) or repr(self.config.discovery)

    @property
    def client(self) -> ClusterClient:
        """The client.

        Raises:
            ClosedError: it is not open.
        """
        return self._link()

    async def _start(self) -> ClusterClient:
        client = ClusterClient(self._seeds, environment=self._environment, **self._settings)
        await client.start()
        return client
