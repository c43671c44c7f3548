"""Read-through: requests about keys that are absent here wait until the store was asked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

from cache.cluster.replication.service import ReplicationService
from cache.cluster.structures.answers import Answer
from cache.cluster.structures.stores import Stores
from cache.cluster.transport.rpc import Peer
from cache.cluster.wire.messages import (
    Execute,
    Get,
    GetEntry,
    GetMany,
    GetNear,
    Many,
    Modify,
    Reply,
    Value,
)
from cache.errors import UnavailableError

LOADING: Final = (Get, GetNear, GetEntry, Modify, Execute)
"""Requests that look at one key."""

Handler = Callable[[Any, Peer | None], Answer]
"""Any: the request it is registered for."""


class Loading:
    """Stands before handlers of requests."""

    def __init__(self, replication: ReplicationService, stores: Stores) -> None:
        self._replication = replication
        self._stores = stores

    def wrap(self, handlers: dict[type, Handler]) -> None:
        """Replace the handlers that have to wait; none if no map is loaded."""
        if self._stores.reading:
            for kind in LOADING:
                handlers[kind] = partial(self._one, handlers[kind])
            handlers[GetMany] = partial(self._many, handlers[GetMany])

    def _one(self, handler: Handler, message: Any, peer: Peer | None) -> Answer:
        # Any: one of `LOADING`.
        if message.map not in self._stores.reading:
            return handler(message, peer)
        if isinstance(message, Get) and message.backup:
            answer = handler(message, peer)
            if answer == Value(value=None):
                raise UnavailableError("the owner of the key has to ask the store")
            return answer
        replica = self._replication.serve(message.partition).replica
        now = self._replication.clock.monotonic()
        if replica.peek(message.map, message.key, now) is not None:
            return handler(message, peer)
        return self._loaded(handler, message, peer)

    async def _loaded(self, handler: Handler, message: Any, peer: Peer | None) -> Reply:
        # Any: one of `LOADING`.
        place = (message.partition, message.key)
        value = (await self._stores.load(message.map, [place]))[place]
        if isinstance(message, Get):
            return Value(value=value)  # Also of a value that is not to be kept.
        answer = handler(message, peer)
        return await answer if isinstance(answer, Awaitable) else answer

    def _many(self, handler: Handler, message: GetMany, peer: Peer | None) -> Answer:
        answer = handler(message, peer)
        if message.map not in self._stores.reading:
            return answer
        assert isinstance(answer, Many)
        return self._many_loaded(message, answer) if None in answer.values else answer

    async def _many_loaded(self, message: GetMany, answer: Many) -> Reply:
        places = list(zip(message.partitions, message.keys, strict=True))
        pairs = list(zip(places, answer.values, strict=True))
        absent = [place for place, value in pairs if value is None]
        loaded = await self._stores.load(message.map, absent)
        return Many(values=[loaded.get(place) if v is None else v for place, v in pairs])
