"""One load of a key for all processes: the caller's side of the lease that the server keeps.

Whoever finds a key absent asks for its lease. The server gives it to one; the others ask again, in growing
intervals, one for each process that waits. When the lease ends without a value (its holder died, or gave
up), the first who asks gets it and the others go on waiting: there is no moment at which all may load.

The lease is renewed while the factory runs. A write, a delete or an invalidation takes it away, and
what it brings is not stored then. What the load brought besides (an error, a value that is not to be
stored) is left for those who waited for it, and only for them: who comes later has not seen its token.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Final

import msgpack

from cache.adapters.connection import Word
from cache.adapters.life import Life
from cache.adapters.scripts import BEGIN_LOAD, END_LOAD, RENEW_LOAD, Script
from cache.cluster.structures.raised import pack_error, unpack_error
from cache.errors import CacheError, LoaderError
from cache.flights import Factory, Loaded, load_value

logger = logging.getLogger(__name__)

LEASE_MS: Final = 10_000
"""A lease that was not renewed for so long is free; a loader that blocks its event loop renews nothing."""
RENEW_SECONDS: Final = 2.0
WAIT_MIN: Final = 0.005
"""Seconds until those who wait ask again; grows by half each time."""
WAIT_MAX: Final = 0.2
TOKEN_BYTES: Final = 16

STORED, PASSED, FAILED, NOTHING = "S", "P", "E", "N"
"""How a load ends."""


class Busy(Exception):  # noqa: N818  # no error: somebody else loads
    """Somebody else holds the lease."""

    def __init__(self, holder: bytes) -> None:
        self.holder = holder


class Load(ABC):
    """One attempt to get an absent key."""

    def __init__(self, life: Life, tags: tuple[str, ...]) -> None:
        self.life = life
        self.tags = tags
        self.token = secrets.token_hex(TOKEN_BYTES).encode()
        self._rng = Random(self.token)

    async def turn(self, min_ttl: float) -> bytes | None:
        """Wait until there is a value, or this attempt is the one to load (None).

        Raises:
            LoaderError: another process's factory failed, or whatever it raised if that is known here.
            CacheError: the server does not answer.
        """
        seen = b""
        pause = WAIT_MIN
        while True:
            try:
                return await self._begin(min_ttl, seen)
            except Busy as busy:
                if busy.holder != seen:
                    seen, pause = busy.holder, WAIT_MIN
            await asyncio.sleep(pause * self._rng.uniform(0.8, 1.2))
            pause = min(1.5 * pause, WAIT_MAX)

    @abstractmethod
    async def _begin(self, min_ttl: float, seen: bytes) -> bytes | None:
        """Ask once for the value or the lease; what the load `seen` brought will do, too.

        Raises:
            Busy: neither.
        """

    async def run(self, factory: Factory[Any], on_outdated: Callable[[], None]) -> Loaded[Any]:
        """Run the factory while the lease is renewed; if it fails, those who wait are told.

        `on_outdated` is called when the lease turns out to be gone: the key was written elsewhere.
        """
        # Any: a value of the cache.
        failure: BaseException | None = None
        async with asyncio.TaskGroup() as group:
            renewing = group.create_task(self._renew(on_outdated), name="load.renew")
            try:
                return await load_value(factory)
            except BaseException as error:  # noqa: BLE001  # raised again below: a group would wrap it
                failure = error
            finally:
                renewing.cancel()
        assert failure is not None, "either a value or a failure"
        if isinstance(failure, Exception):
            self._tell(FAILED, pack_error(failure))
        else:
            self.give_up()
        raise failure

    async def _renew(self, on_outdated: Callable[[], None]) -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            try:
                is_held = await self._extend()
            except CacheError:
                continue  # The lease may end meanwhile, which is safe.
            if not is_held:
                on_outdated()
                return

    @abstractmethod
    async def _extend(self) -> bool:
        """Renew the lease; return whether it was still there."""

    @abstractmethod
    async def keep(
        self, encoded: bytes, ttl_ms: int | None, tags: Sequence[str], *, store: bool
    ) -> bool:
        """Bring what was loaded to the server; return whether it is kept."""

    def give_up(self) -> None:
        """Let somebody else load."""
        self._tell(NOTHING)

    def _tell(self, outcome: str, payload: bytes = b"") -> None:
        """End the lease without a value, in the background: nobody waits for that."""
        with contextlib.suppress(
            RuntimeError
        ):  # The cache is being closed: the lease ends by itself.
            self.life.spawn(self._told(outcome, payload), name="load.end")

    async def _told(self, outcome: str, payload: bytes) -> None:
        try:
            await self._end(outcome, payload)
        except CacheError as error:
            logger.debug("adapters.load_not_ended error=%s", error)

    @abstractmethod
    async def _end(self, outcome: str, payload: bytes) -> None:
        """End the lease without a value to store."""


def brought(outcome: str, payload: bytes) -> bytes:
    """Return what a load passed on.

    Raises:
        LoaderError, or what the factory raised: it failed.
    """
    if outcome == FAILED:
        raise unpack_error(payload, LoaderError, "the loader in another process")
    return payload


class RedisLoad(Load):
    """A load whose lease is kept by the scripts."""

    def __init__(
        self, life: Life, tags: tuple[str, ...], *, bucket: int, base: bytes, keys: Sequence[bytes]
    ) -> None:
        super().__init__(life, tags)
        self._bucket = bucket
        self._base = base
        self._keys = keys

    async def _run(self, script: Script, *arguments: Word) -> Any:  # Any: as `Reply`
        command = ("EVALSHA", script.digest, 2, *self._keys, self._base, self.token, *arguments)
        return await self.life.router.one(self._bucket, command)

    async def _begin(self, min_ttl: float, seen: bytes) -> bytes | None:
        least: Word = "" if min_ttl <= 0 else "inf" if min_ttl == math.inf else int(min_ttl * 1000)
        state, payload = await self._run(BEGIN_LOAD, LEASE_MS, least, seen, *self.tags)
        match state:
            case b"Y":
                return None
            case b"V":
                value: bytes = payload
                return value
            case b"O":
                return brought(payload[:1].decode(), payload[1:])
            case _:
                raise Busy(payload)

    async def _extend(self) -> bool:
        return bool(await self._run(RENEW_LOAD, LEASE_MS))

    async def keep(
        self, encoded: bytes, ttl_ms: int | None, tags: Sequence[str], *, store: bool
    ) -> bool:
        """Bring what was loaded to the server; return whether it is kept."""
        packed = msgpack.packb(list(tags)) if tags else b""
        outcome, ttl = STORED if store else PASSED, "" if ttl_ms is None else ttl_ms
        return bool(await self._run(END_LOAD, outcome, ttl, packed, encoded))

    async def _end(self, outcome: str, payload: bytes) -> None:
        await self._run(END_LOAD, outcome, "", "", payload)
