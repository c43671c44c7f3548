"""`MapStore`: a database behind a map; `StoreConfig`: how a map goes with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from cache.cluster.config.checks import require, require_count, require_seconds
from cache.keys import Key
from cache.serializers import Serializer

THROUGH: Final = "through"
BEHIND: Final = "behind"
WRITES: Final = (THROUGH, BEHIND, None)


class MapStore:
    """What an application writes to put a database behind a map: override what is used.

    Every method has a form for one key and one for many; each is made of the other unless it is given, so
    that one of the two is enough. All are called on the event loop of the member that owns the keys: for
    different keys by several members at once, for one key by one member at a time (but see `version`).

    A method that raises says that nothing was stored, and is called again where the card says so: make
    writes idempotent. `version` only rises from write to write of one key, whichever member makes it. A
    member that was paused in the middle of a call may finish it after others went on: a database that
    keeps the version, and refuses a lower one, is safe from that, and from the two sides of a split.
    """

    async def load(self, key: Key) -> Any:
        """Return the value of a key, `Loaded` to say how long it lives and its tags, None for no value."""
        # Any: values of the map, here and below.
        return (await self.load_many([key])).get(key)

    async def load_many(self, keys: list[Key]) -> Mapping[Key, Any]:
        """Return the values of those keys that have one."""
        found = {key: await self.load(key) for key in keys}
        return {key: value for key, value in found.items() if value is not None}

    async def store(self, key: Key, value: Any, version: int) -> None:
        """Keep the value of a key."""
        await self.store_many({key: value}, {key: version})

    async def store_many(self, items: Mapping[Key, Any], versions: Mapping[Key, int]) -> None:
        """Keep all these values, or raise."""
        for key, value in items.items():
            await self.store(key, value, versions[key])

    async def delete(self, key: Key, version: int) -> None:
        """Forget a key, which may not be there."""
        await self.delete_many({key: version})

    async def delete_many(self, versions: Mapping[Key, int]) -> None:
        """Forget all these keys, or raise."""
        for key, version in versions.items():
            await self.delete(key, version)


def _overrides(store: MapStore, name: str) -> bool:
    return getattr(type(store), name) is not getattr(MapStore, name)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreConfig:
    """How a map goes with its store: `ClusterConfig(stores={"users": StoreConfig(store=Users())})`."""

    store: MapStore
    """Talks to the database."""

    read: bool = True
    """Whether a read of an absent key loads it. False for a store that is only written."""

    write: str | None = THROUGH
    """"through": the store has a write before it is acknowledged. "behind": the copies have it, and the store
    soon. None: writes stay in memory."""

    timeout: float = 2.0
    """Seconds that a call of the store may take; more than a write may wait (`operation_timeout`) is of no
    use."""

    delay: float = 1.0
    """Write-behind: seconds for which writes are gathered; those of one key become one."""

    batch_max: int = 256
    """Write-behind: keys of one call; as many waiting are written at once, before the delay is over."""

    queue_max: int = 65_536
    """Write-behind: keys waiting on one member, copies for others included; a write beyond it raises
    `OverloadedError`. Waiting keys hold their values a second time."""

    backoff_max: float = 30.0
    """Write-behind: seconds between two tries while the store fails, at most; the first one is `delay`."""

    serializer: Serializer | None = field(default=None, repr=False)
    """How values become bytes, if not as MessagePack: the one that handles of the map have."""

    def __post_init__(self) -> None:
        require(isinstance(self.store, MapStore), "store", self.store, "must be a MapStore")
        require(self.write in WRITES, "write", self.write, f"must be one of {WRITES}")
        require(isinstance(self.read, bool), "read", self.read, "must be True or False")
        require(self.read or self.write is not None, "write", None, "then the store is of no use")
        require_seconds(self, "timeout", "delay", "backoff_max")
        require_count(self, "batch_max", "queue_max")
        pairs = {"load": self.read, "store": self.write, "delete": self.write}
        for name in [name for name, is_used in pairs.items() if is_used]:
            both = (name, f"{name}_many")
            given = any(_overrides(self.store, form) for form in both)
            rule = f"has neither {both[0]} nor {both[1]}"
            require(given, "store", type(self.store).__name__, rule)
