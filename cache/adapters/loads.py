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
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Final

import msgpack

from cache.adapters.attached import Life
from cache.adapters.connection import Word
from cache.adapters.scripts import BEGIN_LOAD, END_LOAD, RENEW_LOAD, Script
from cache.cluster.structures.loader import pack_error, unpack_error
from cache.errors import CacheError
from cache.flights import Factory, Loaded, load_value

logger = logging.getLogger(__name__)

LEASE_MS: Final = 10_000
"""A lease that was not renewed for so long is free; a loader that blocks its event loop renews nothing."""
RENEW_SECONDS: Final = 2.0
WAIT_MIN: Final = 0.005
"""Seconds until those who wait ask again; grows by half each time."""
WAIT_MAX: Final = 0.2
TOKEN_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Found:
    """What somebody else loaded."""

    value: bytes


class Load:
    """One attempt to get an absent key."""

    def __init__(
        self,
        life: Life,
        *,
        bucket: int,
        base: bytes,
        data: bytes,
        lease: bytes,
        tags: Sequence[str],
    ) -> None:
        self._life = life
        self._bucket = bucket
        self._base = base
        self._keys = (data, lease)
        self._tags = tags
        self._token = secrets.token_hex(TOKEN_BYTES)
        self._rng = Random(self._token)

    async def _run(self, script: Script, *arguments: Word) -> Any:  # Any: as `Reply`
        command = ("EVALSHA", script.digest, 2, *self._keys, self._base, *arguments)
        return await self._life.router.one(self._bucket, command)

    async def turn(self, least: Word) -> Found | None:
        """Wait until there is a value, or this attempt is the one to load (None).

        Args:
            least: milliseconds that a value must have left, "" for any, "inf" if none is enough.

        Raises:
            LoaderError: another process's factory failed, or whatever it raised if that is known here.
            CacheError: the server does not answer.
        """
        seen: bytes = b""
        pause = WAIT_MIN
        while True:
            state, payload = await self._run(
                BEGIN_LOAD, self._token, LEASE_MS, least, seen, *self._tags
            )
            if state == b"Y":
                return None
            if state == b"V":
                return Found(payload)
            if state == b"O":
                if payload[:1] == b"E":
                    raise unpack_error(payload[1:])
                return Found(payload[1:])
            if payload != seen:
                seen, pause = payload, WAIT_MIN
            await asyncio.sleep(pause * self._rng.uniform(0.8, 1.2))
            pause = min(1.5 * pause, WAIT_MAX)

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
            self.tell("E", pack_error(failure))
        else:
            self.tell("N")
        raise failure

    async def _renew(self, on_outdated: Callable[[], None]) -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            try:
                is_held = await self._run(RENEW_LOAD, self._token, LEASE_MS)
            except CacheError:
                continue  # The lease may end meanwhile, which is safe.
            if not is_held:
                on_outdated()
                return

    async def keep(self, encoded: bytes, ttl: Word, tags: Sequence[str], *, store: bool) -> bool:
        """Bring what was loaded to the server; return whether it is kept."""
        packed = msgpack.packb(list(tags)) if tags else b""
        outcome = "S" if store else "P"
        return bool(await self._run(END_LOAD, self._token, outcome, ttl, packed, encoded))

    def tell(self, outcome: str, payload: bytes = b"") -> None:
        """End the lease without a value, in the background: nobody waits for that."""
        with contextlib.suppress(
            RuntimeError
        ):  # The cache is being closed: the lease ends by itself.
            self._life.spawn(self._told(outcome, payload), name="load.end")

    async def _told(self, outcome: str, payload: bytes) -> None:
        try:
            await self._run(END_LOAD, self._token, outcome, "", "", payload)
        except CacheError as error:
            logger.debug("redis.load_not_ended error=%s", error)
