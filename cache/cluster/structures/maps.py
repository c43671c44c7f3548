"""The maps of one member or client: handles of the same name share flights, counts and near copies."""

from __future__ import annotations

from typing import Any, Final

from cache.cluster.config.maps import HIDDEN
from cache.cluster.structures.access import MapAccess
from cache.cluster.structures.map import DistributedMap
from cache.cluster.structures.near import NearCache
from cache.cluster.structures.near_reader import NearReader
from cache.cluster.structures.router import Router
from cache.cluster.structures.state import MapState, OperationIds
from cache.errors import ConfigError
from cache.keys import Ttl
from cache.serializers import Serializer

MAP_NAME_MAX: Final = 128

"""What the names of the maps that reliable topics are stored in begin with."""


class Maps:
    """Makes handles of maps."""

    def __init__(self, router: Router, near: NearReader, operation_ids: OperationIds) -> None:
        self.router = router
        self.near = near
        self._operation_ids = operation_ids
        self._states: dict[str, MapState] = {}

    def open(
        self, name: str, *, ttl: Ttl, serializer: Serializer | None, near_cache: NearCache | None
    ) -> DistributedMap[Any]:  # Any: the caller says what it stores
        """Return a handle of the map of that name; see `Node.map`.

        Raises:
            ConfigError: the name is empty or too long, or `near_cache` cannot be had.
        """
        if not isinstance(name, str) or not 1 <= len(name) <= MAP_NAME_MAX:
            raise ConfigError(f"map name {name!r}: must be 1 to {MAP_NAME_MAX} characters")
        if name.startswith(HIDDEN):
            raise ConfigError(f"map name {name!r}: names that begin with NUL are the library's")
        state = self._states.get(name)
        if state is None:
            state = self._states[name] = MapState()
        access = MapAccess(
            name,
            self.router,
            ttl=ttl,
            operation_ids=self._operation_ids,
            serializer=serializer,
            near=None if near_cache is None else self.near.open(name, near_cache),
        )
        return DistributedMap(access, state)

    def stop(self) -> None:
        """Refuse every further operation, and give up near copies."""
        self.router.close()
        self.near.close()

    async def close(self) -> None:
        """Stop, and end the loads that run."""
        self.stop()
        for state in self._states.values():
            await state.flights.close()
