"""A store for tests of maps that load and write through."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from cache.cluster.config import MapStore
from cache.keys import Key


class RecordingStore(MapStore):
    """A database in memory that writes down what it is asked; one object for all members of a test.

    Args:
        compares: refuse a version lower than the one it has.
    """

    def __init__(self, *, compares: bool = False) -> None:
        self.compares = compares
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.rows: dict[Key, Any] = {}  # Any: values of the map, here and below
        self.versions: dict[Key, int] = {}
        self.loads: list[list[Key]] = []
        """Keys of each call that loads."""
        self.writes: list[dict[Key, Any]] = []
        """What each call that had its effect wrote; None for a delete."""
        self.is_down = False
        """Whether every call fails."""
        self.before = self.after = 0.0
        """Seconds that a call takes before and after it has its effect."""

    async def load_many(self, keys: list[Key]) -> Mapping[Key, Any]:
        """See `MapStore`."""
        self.loads.append(keys)
        await self._begin()
        return {key: self.rows[key] for key in keys if key in self.rows}

    async def store_many(self, items: Mapping[Key, Any], versions: Mapping[Key, int]) -> None:
        """See `MapStore`."""
        await self._begin()
        self.writes.append(dict(items))
        for key, value in items.items():
            self._put(key, value, versions[key])
        await asyncio.sleep(self.after)

    async def delete_many(self, versions: Mapping[Key, int]) -> None:
        """See `MapStore`."""
        await self._begin()
        self.writes.append(dict.fromkeys(versions))
        for key, version in versions.items():
            self._put(key, None, version)
        await asyncio.sleep(self.after)

    async def _begin(self) -> None:
        await asyncio.sleep(self.before)
        if self.is_down:
            raise OSError("the database is down")

    def _put(self, key: Key, value: Any, version: int) -> None:
        if self.compares and version < self.versions.get(key, 0):
            return
        self.versions[key] = version
        if value is None:
            self.rows.pop(key, None)
        else:
            self.rows[key] = value

    def last(self, key: Key) -> Any:
        """Return what the last write of a key was."""
        return next(write[key] for write in reversed(self.writes) if key in write)
