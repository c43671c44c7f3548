"""Handles on the members of a test cluster: the same calls whichever world the member lives in."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any, Protocol, TypeVar

from cache.cluster.client.client import ClientStats, ClusterClient
from cache.cluster.ids import Address, MemberId
from cache.cluster.node import Node
from cache.cluster.raft.status import GroupInfo
from cache.codec import encode_key
from cache.durations import DEFAULT
from cache.interface import CacheEntry
from cache.keys import K, Key

R = TypeVar("R")

Runner = Callable[[Coroutine[Any, Any, Any]], Coroutine[Any, Any, Any]]
"""Runs a coroutine somewhere else and returns its result. Any: of every type."""


class Caller(Protocol):
    """Who has a map: a member, or a client."""

    async def call(self, map_name: str, method: str, arguments: Mapping[str, Any]) -> Any:
        """Run a map method there.  # Any: values, as the map takes them."""
        ...


class Backend(Caller, Protocol):
    """One member, as its world runs it."""

    async def inspect(self, what: str) -> Any:
        """Ask the member about itself.  # Any: MessagePack values."""
        ...

    async def drain(self) -> Mapping[str, Any]:
        """Let the member leave gracefully; return its receipt.  # Any: MessagePack values."""
        ...


class MapHandle:
    """A map as seen from one member or client. The methods are those of `DistributedMap`."""

    def __init__(self, backend: Caller, name: str) -> None:
        self._backend = backend
        self._name = name

    async def _call(self, method: str, **arguments: Any) -> Any:  # Any: as the map's method
        given = {name: value for name, value in arguments.items() if value is not DEFAULT}
        return await self._backend.call(self._name, method, given)

    async def get(self, key: Key, default: object = None) -> Any:  # Any: the stored value
        """See `DistributedMap.get`."""
        return await self._call("get", key=key, default=default)

    async def get_entry(self, key: Key) -> CacheEntry[Any] | None:  # Any: the stored value
        """See `DistributedMap.get_entry`."""
        entry = await self._call("get_entry", key=key)
        return None if entry is None else CacheEntry(*entry)

    async def set(
        self, key: Key, value: object, *, ttl: object = DEFAULT, **options: object
    ) -> bool:
        """See `DistributedMap.set`."""
        return bool(await self._call("set", key=key, value=value, ttl=ttl, **options))

    async def compare_and_set(
        self, key: Key, expected: object, value: object, **options: object
    ) -> bool:
        """See `DistributedMap.compare_and_set`."""
        arguments = {"key": key, "expected": expected, "value": value, **options}
        return bool(await self._call("compare_and_set", **arguments))

    async def get_and_set(self, key: Key, value: object, **options: object) -> Any:
        """See `DistributedMap.get_and_set`."""
        # Any: the stored value
        return await self._call("get_and_set", key=key, value=value, **options)

    async def execute(self, key: Key, function: str, *arguments: object) -> Any:
        """See `DistributedMap.execute`."""
        # Any: what the function returns
        return await self._call("execute", positional=[key, function, *arguments])

    async def add(self, key: Key, value: object, *, ttl: object = DEFAULT) -> bool:
        """See `DistributedMap.add`."""
        return bool(await self._call("add", key=key, value=value, ttl=ttl))

    async def replace(self, key: Key, value: object, *, ttl: object = DEFAULT) -> bool:
        """See `DistributedMap.replace`."""
        return bool(await self._call("replace", key=key, value=value, ttl=ttl))

    async def delete(self, key: Key) -> bool:
        """See `DistributedMap.delete`."""
        return bool(await self._call("delete", key=key))

    async def exists(self, key: Key) -> bool:
        """See `DistributedMap.exists`."""
        return bool(await self._call("exists", key=key))

    async def pop(self, key: Key, default: object = None) -> Any:  # Any: the stored value
        """See `DistributedMap.pop`."""
        return await self._call("pop", key=key, default=default)

    async def touch(self, key: Key, ttl: object = DEFAULT) -> bool:
        """See `DistributedMap.touch`."""
        return bool(await self._call("touch", key=key, ttl=ttl))

    async def ttl(self, key: Key) -> float | None:
        """See `DistributedMap.ttl`."""
        remaining: float | None = await self._call("ttl", key=key)
        return remaining

    async def persist(self, key: Key) -> bool:
        """See `DistributedMap.persist`."""
        return bool(await self._call("persist", key=key))

    async def incr(self, key: Key, delta: float = 1) -> Any:
        """See `DistributedMap.incr`."""
        # Any: `int` or `float`, as the delta
        return await self._call("incr", key=key, delta=delta)

    async def decr(self, key: Key, delta: float = 1) -> Any:
        """See `DistributedMap.decr`."""
        # Any: as above
        return await self._call("decr", key=key, delta=delta)

    async def get_many(self, keys: Iterable[K]) -> dict[K, Any]:  # Any: the stored values
        """See `DistributedMap.get_many`."""
        return dict(await self._call("get_many", keys=list(keys)))

    async def set_many(self, items: Mapping[K, object], *, ttl: object = DEFAULT) -> None:
        """See `DistributedMap.set_many`."""
        await self._call("set_many", items=dict(items), ttl=ttl)

    async def delete_many(self, keys: Iterable[Key]) -> int:
        """See `DistributedMap.delete_many`."""
        return int(await self._call("delete_many", keys=list(keys)))

    async def scan(self, prefix: str = "") -> list[Any]:
        """See `DistributedMap.scan`; the keys as a list."""
        # Any: keys
        return list(await self._call("scan", prefix=prefix))

    async def clear(self) -> int:
        """See `DistributedMap.clear`."""
        return int(await self._call("clear"))

    async def size(self) -> int:
        """See `DistributedMap.size`."""
        return int(await self._call("size"))


class MemberHandle:
    """One member of a test cluster."""

    def __init__(
        self, *, index: int, name: str, member: MemberId, address: Address, backend: Backend
    ) -> None:
        self.index = index
        self.name = name
        self.id = member
        self.address = address
        self._backend = backend

    def __repr__(self) -> str:
        return f"<member {self.index} {self.name} at {self.address}>"

    @property
    def node(self) -> Node:
        """The node itself, where it lives in this process and event loop (the `sockets` world)."""
        node = getattr(self._backend, "node", None)
        if not isinstance(node, Node):
            raise TypeError(
                f"{self!r} does not run in this event loop; use the handle's own methods"
            )
        return node

    def map(self, name: str) -> MapHandle:
        """Return the map of that name as this member sees it."""
        return MapHandle(self._backend, name)

    async def inspect(self, what: str) -> Any:  # Any: MessagePack values
        """Ask the member about itself; see `Node.inspect`."""
        return await self._backend.inspect(what)

    async def run(self, function: Callable[[Node], Coroutine[Any, Any, R]]) -> R:
        """Run `function(node)` on the member's event loop, where that is in this process.

        Raises:
            TypeError: the member is a process of its own.
            ProcessKilledError: the simulated process was killed before it was done.
        """
        # Any: what coroutines send and yield.
        run: Callable[[Any], Coroutine[Any, Any, R]] | None = getattr(self._backend, "run", None)
        if run is None:
            raise TypeError(f"{self!r} runs in another process")
        return await run(function)

    async def raft(self, group: str = "main") -> GroupInfo:
        """Return what this member has and knows of a group of consensus."""
        return GroupInfo(**(await self.inspect("consensus"))[group])

    async def members(self) -> list[str]:
        """Return the ids of the members this one sees, sorted."""
        return sorted(member["id"] for member in await self.inspect("members"))

    async def holds(self, map_name: str, key: Key) -> bool:
        """Return whether this very member holds a live copy of `key`."""
        answer = await self.inspect(f"copies:{map_name}:{encode_key(key).hex()}")
        return bool(answer["held"])

    async def drain(self) -> Mapping[str, Any]:  # Any: MessagePack values
        """Let the member leave gracefully; return its receipt."""
        return await self._backend.drain()


class LoopClient:
    """A client on the event loop of the test, or on that of a simulated process (`run_there`)."""

    def __init__(self, client: ClusterClient, run_there: Runner | None = None) -> None:
        self.client = client
        self._run_there = run_there

    async def run(self, function: Callable[[ClusterClient], Coroutine[Any, Any, R]]) -> R:
        """Run `function(client)` where the client lives.  # Any: what coroutines send and yield."""
        coroutine = function(self.client)
        return await (coroutine if self._run_there is None else self._run_there(coroutine))

    async def call(self, map_name: str, method: str, arguments: Mapping[str, Any]) -> Any:
        """Run a map method on the client.  # Any: as the map's method."""

        async def call(client: ClusterClient) -> Any:  # Any: as above
            return await getattr(client.map(map_name), method)(**arguments)

        return await self.run(call)


class ClientHandle:
    """One client of a test cluster. `index` names it in cuts, links and clocks, as those of members do."""

    def __init__(self, index: int, backend: LoopClient) -> None:
        self.index = index
        self._backend = backend
        self.run = backend.run
        """Run an async function of the `ClusterClient` where it lives."""

    def __repr__(self) -> str:
        return f"<client {self.index}>"

    def map(self, name: str) -> MapHandle:
        """Return the map of that name as this client sees it."""
        return MapHandle(self._backend, name)

    def stats(self) -> ClientStats:
        """Return its snapshot."""
        return self._backend.client.stats()

    async def close(self) -> None:
        """Close the client."""
        await self.run(ClusterClient.close)
