"""The caller's side of `get_or_set`: taking turns with every other caller in the cluster.

A caller asks the key's owner, who answers with the value, with "load it", or keeps the caller waiting.
Whoever loads renews its lease meanwhile and says how the load ended, also when it was cancelled. What goes
wrong on the way to the owner is raised before the factory runs; afterwards the value is returned in any case.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgpack

from cache.cluster.structures.router import Router
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
from cache.flights import Factory, Loaded, load_value

RENEW_SECONDS: Final = 2.0
"""Between two renewals of a lease; see `LEASE_SECONDS`."""

ERROR_TEXT_MAX: Final = 1000
"""Characters of an exception's text that travel."""
ERROR_BYTES_MAX: Final = 16_384
"""An exception with larger arguments travels as its text."""


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
                raise unpack_error(reply.value)
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


def pack_error(error: Exception) -> bytes:
    """Return an exception as data: where its class is, its arguments if they are data, its text."""
    kind = type(error)
    head = [kind.__module__, kind.__qualname__, str(error)[:ERROR_TEXT_MAX]]
    try:
        packed: bytes = msgpack.packb([*head, list(error.args)])
    except (TypeError, ValueError, OverflowError, RecursionError):
        packed = b""
    if not packed or len(packed) > ERROR_BYTES_MAX:
        packed = msgpack.packb([*head, None], unicode_errors="replace")
    return packed


def unpack_error(packed: bytes) -> Exception:
    """Return the exception that another member's factory raised, or a `LoaderError` that describes it.

    It is rebuilt only when its class is loaded here already, is an `Exception`, and takes these arguments.
    """
    try:
        module, name, text, arguments = msgpack.unpackb(packed)
    except (ValueError, TypeError, msgpack.exceptions.UnpackException):
        return LoaderError("the loader on another member failed")
    found: object = sys.modules.get(module) if isinstance(module, str) else None
    for part in str(name).split("."):
        found = getattr(found, part, None)
    if isinstance(found, type) and issubclass(found, Exception) and isinstance(arguments, list):
        with contextlib.suppress(Exception):  # A constructor may want other arguments.
            return found(*arguments)
    return LoaderError(f"the loader on another member raised {name}: {text}")
