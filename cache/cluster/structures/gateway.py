"""Requests from outside the cluster: the table for clients, calls of one member's maps, inspection, drain."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Final

import msgpack

from cache.cluster.config import ClusterConfig
from cache.cluster.ids import MemberId
from cache.cluster.partitions.service import PartitionService
from cache.cluster.partitions.table import TableVersion
from cache.cluster.structures.map import DistributedMap
from cache.cluster.transport.rpc import Peer, RpcEndpoint
from cache.cluster.wire.messages import (
    Call,
    Called,
    Drain,
    FetchView,
    Inspect,
    Inspected,
    Reply,
    View,
)
from cache.errors import CacheError, CodecError, RemoteProtocolError, UnavailableError

METHODS: Final = (
    "get",
    "set",
    "add",
    "replace",
    "delete",
    "exists",
    "pop",
    "touch",
    "ttl",
    "persist",
    "incr",
    "decr",
    "get_many",
    "set_many",
    "delete_many",
    "clear",
    "size",
    "get_entry",
    "get_and_set",
    "compare_and_set",
    "execute",
    "scan",
)
"""Map methods that a client may call."""

CONFIRM_TIMEOUT: Final = 0.5
"""Seconds the coordinator has to say whether a table is the current one, for a client."""

Inspector = Callable[[str], Any]  # Any: whatever MessagePack carries
MapOf = Callable[[str], DistributedMap[Any]]  # Any: values of any type
Drainer = Callable[[], Awaitable[Mapping[str, Any]]]  # Any: MessagePack values


class Gateway:
    """Answers clients."""

    def __init__(
        self,
        *,
        config: ClusterConfig,
        partitions: PartitionService,
        rpc: RpcEndpoint,
        map_of: MapOf,
        inspect: Inspector,
        drain: Drainer,
    ) -> None:
        self._config = config
        self._partitions = partitions
        self._map_of = map_of
        self._inspect = inspect
        self._drain = drain
        rpc.register(FetchView, self._on_fetch_view)
        rpc.register(Call, self._on_call)
        rpc.register(Inspect, self._on_inspect)
        rpc.register(Drain, self._on_drain)

    def _on_fetch_view(self, message: FetchView, peer: Peer) -> Reply | Awaitable[Reply]:
        return self._confirmed_view(message) if message.confirm else self._view(message, False)

    async def _confirmed_view(self, message: FetchView) -> Reply:
        return self._view(message, await self._partitions.confirm(CONFIRM_TIMEOUT))

    def _view(self, message: FetchView, is_current: bool) -> View:
        table = self._partitions.table
        if not table.addresses:
            raise UnavailableError("this member has no table yet")
        known = TableVersion(message.id.version, MemberId(message.id.coordinator))
        return View(
            table=None if known == table.id else table.to_record(),
            is_current=is_current,
            replica_count=self._config.replica_count,
            read_quorum=self._config.read_quorum,
        )

    async def _on_call(self, message: Call, peer: Peer) -> Reply:
        if message.method not in METHODS:
            raise RemoteProtocolError(f"no map method {message.method!r}; there are {METHODS}")
        arguments = _unpack(message.arguments)
        try:
            if message.method == "set_many":
                arguments["items"] = dict(arguments.get("items", ()))
            result = await call_method(self._map_of(message.map), message.method, arguments)
        except CodecError as error:
            raise RemoteProtocolError(str(error)) from error
        except CacheError:
            raise  # Some are a TypeError or ValueError as well.
        except (TypeError, ValueError) as error:
            raise RemoteProtocolError(f"{message.method}: {error}") from error
        if message.method == "get_many":
            result = list(result.items())
        return Called(result=_pack(result))

    def _on_inspect(self, message: Inspect, peer: Peer) -> Reply:
        return Inspected(result=_pack(self._inspect(message.what)))

    async def _on_drain(self, message: Drain, peer: Peer) -> Reply:
        return Inspected(result=_pack(await self._drain()))


async def call_method(
    entries: DistributedMap[Any], method: str, arguments: Mapping[str, Any]
) -> Any:  # Any: as the map's method
    """Call a method of a map by its name; arguments without names stand under "positional".

    What a method yields comes as a list.
    """
    named = {name: value for name, value in arguments.items() if name != "positional"}
    called = getattr(entries, method)(*arguments.get("positional", ()), **named)
    return [one async for one in called] if isinstance(called, AsyncIterator) else await called


def _pack(value: object) -> bytes:
    packed: bytes = msgpack.packb(value, use_bin_type=True)
    return packed


def _unpack(arguments: bytes) -> dict[str, Any]:  # Any: MessagePack values
    try:
        unpacked = msgpack.unpackb(arguments, raw=False, strict_map_key=False)
    except (ValueError, msgpack.exceptions.UnpackException) as error:
        raise RemoteProtocolError(f"arguments are not MessagePack: {error}") from error
    if not isinstance(unpacked, dict) or not all(isinstance(name, str) for name in unpacked):
        raise RemoteProtocolError("arguments must be a map of names")
    return unpacked
