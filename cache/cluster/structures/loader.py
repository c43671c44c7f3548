"""The caller's side of `get_or_set`: taking turns with every other caller in the cluster.

A caller asks the key's owner, who answers with the value, with "load it", or keeps the caller waiting.
Whoever loads renews its lease meanwhile and says how the load ended, also when it was cancelled. What goes
wrong on the way to the owner is raised before the factory runs; afterwards the value is returned in any case.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any, Final

from cache.cluster.structures.access import MapAccess
from cache.cluster.structures.operations import wire_ttl
from cache.cluster.structures.raised import pack_error, unpack_error
from cache.cluster.structures.router import Router
from cache.cluster.structures.state import MapState
from cache.cluster.wire.messages import (
    LOAD_FAILED,
    LOAD_PRESENT,
    LOAD_YOURS,
    LOADED_ERROR,
    LOADED_NOTHING,
    LOADED_PASS,
    LOADED_STORE,
    BeginLoad,
    EndLoad,
    LoadTurn,
    RenewLoad,
)
from cache.errors import CacheError, LoaderError
from cache.flights import Factory, Flight, Loaded, load_value
from cache.keys import Key, check_tags

logger = logging.getLogger(__name__)

RENEW_SECONDS: Final = 2.0
"""Between two renewals of a lease; see `LEASE_SECONDS`."""


class Loader:
    """`get_or_set` of one map on one member."""

    def __init__(self, access: MapAccess, state: MapState) -> None:
        self._access = access
        self._flights = state.flights
        self._counts = state.counts

    async def get_or_set(
        self, key: Key, factory: Factory[Any], ttl: float, tags: tuple[str, ...], min_ttl: float
    ) -> object:
        """Return the value of a key, or what is loaded by one of all callers in the cluster."""
        if min_ttl <= 0 and (raw := await self._access.read(key)) is not None:
            self._counts.hits += 1
            return self._access.decode(raw)

        async def load() -> object:
            return await self._load(key, factory, ttl, tags, min_ttl)

        return await self._flights.run(key, load, _nothing, tags)

    async def _load(
        self, key: Key, factory: Factory[Any], seconds: float, tags: tuple[str, ...], min_ttl: float
    ) -> object:
        access = self._access
        encoded, partition = access.locate(key)
        load = Load(
            access.router,
            map_name=access.name,
            partition=partition,
            key=encoded,
            token=access.operation_ids.next(),
            tags=tags,
        )
        turn = await load.turn(max(0.0, min_ttl))
        if turn.turn == LOAD_PRESENT:
            self._counts.hits += 1
            return access.decode(turn.value)
        self._counts.misses += 1
        loaded = await load.run(factory, lambda: self._flights.outdate(key))
        try:
            raw = access.encode(loaded.value, check_tags((*tags, *loaded.tags)))
            ttl = wire_ttl(loaded.ttl, seconds)
        except ValueError:
            load.give_up()
            raise
        try:
            await load.keep(raw, ttl, store=loaded.store)
            self._counts.sets += loaded.store
        except CacheError as error:
            logger.warning("map.loaded_not_stored map=%s error=%s", access.name, error)
        return loaded.value


def _nothing(loaded: Loaded[Any], flight: Flight[Any]) -> None:  # Any: values of the map
    """Keep nothing: the owner did."""


class Load:
    """One attempt to get an absent key."""

    def __init__(
        self,
        router: Router,
        *,
        map_name: str,
        partition: int,
        key: bytes,
        token: bytes,
        tags: Sequence[str],
    ) -> None:
        self._router = router
        self._map = map_name
        self._partition = partition
        self._key = key
        self._token = token
        self._tags = tags

    async def turn(self, min_ttl: float) -> LoadTurn:
        """Ask until there is a value, an error, or this attempt is the one to load.

        Raises:
            RejectedError: the owner could not be asked.
            LoaderError: another member's factory failed, or whatever it raised if that is known here.
        """
        request = BeginLoad(
            self._map, self._partition, self._key, self._token, min_ttl, list(self._tags)
        )
        while True:
            reply = await self._router.write(self._partition, request)
            assert isinstance(reply, LoadTurn)
            if reply.turn == LOAD_FAILED:
                raise unpack_error(reply.value, LoaderError, "the loader on another member")
            if reply.turn in (LOAD_PRESENT, LOAD_YOURS):
                return reply

    async def run(self, factory: Factory[Any], on_outdated: Callable[[], None]) -> Loaded[Any]:
        """Run the factory while the lease is renewed; if it fails, those who wait are told.

        `on_outdated` is called when the lease turns out to be gone: the key was written elsewhere.
        """
        # Any: a value of the map.
        failure: BaseException | None = None
        async with asyncio.TaskGroup() as group:
            renewing = group.create_task(self._renew(on_outdated), name="loader.renew")
            try:
                return await load_value(factory)
            except BaseException as error:  # noqa: BLE001  Raised again below: a group would wrap it.
                failure = error
            finally:
                renewing.cancel()
        assert failure is not None, "either a value or a failure"
        if isinstance(failure, Exception):
            self._tell(LOADED_ERROR, pack_error(failure))
        else:
            self._tell(LOADED_NOTHING)
        raise failure

    async def _renew(self, on_outdated: Callable[[], None]) -> None:
        request = RenewLoad(self._map, self._partition, self._key, self._token)
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            try:
                reply = await self._router.write(self._partition, request)
            except CacheError:
                continue  # The owner cannot be reached; the lease may end, which is safe.
            assert isinstance(reply, LoadTurn)
            if reply.turn != LOAD_YOURS:
                on_outdated()
                return

    async def keep(self, encoded: bytes, ttl: float, *, store: bool) -> None:
        """Bring what was loaded to the owner, who stores it unless it has been overtaken."""
        outcome = LOADED_STORE if store else LOADED_PASS
        await self._router.write(self._partition, self._end(outcome, encoded, ttl))

    def give_up(self) -> None:
        """Let somebody else load."""
        self._tell(LOADED_NOTHING)

    def _tell(self, outcome: int, value: bytes = b"") -> None:
        self._router.tell_owner(self._partition, self._end(outcome, value, 0.0))

    def _end(self, outcome: int, value: bytes, ttl: float) -> EndLoad:
        return EndLoad(self._map, self._partition, self._key, self._token, outcome, value, ttl)
