"""A load on Olric: its lease is a name of the map, which ends in two steps.

    open      the factory runs; invalidated tags are noted in it
    closing   what it brought is being stored: a write that finds it so waits
    done      for those who wait: what it brought

A write outdates an open lease by taking it away. The value is stored only over what the load found in the
beginning. So of a write and a load that meet, one sees the other.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Collection, Sequence
from typing import Final, NamedTuple

import msgpack

from cache.adapters.layout import LEASE
from cache.adapters.loads import (
    LEASE_MS,
    NOTHING,
    PASSED,
    STORED,
    WAIT_MIN,
    Busy,
    Load,
    brought,
)
from cache.adapters.olric_map import Held, OlricMap
from cache.adapters.scripts import OUTCOME_MS
from cache.errors import UnavailableError

OPEN, CLOSING, DONE = "open", "closing", "done"
CLOSING_MS: Final = 2000
"""A loader that dies while it stores holds up writes of its key for so long."""


class Lease(NamedTuple):
    """Who loads a key."""

    token: bytes
    state: str = OPEN
    tags: Sequence[str] = ()
    invalidated: Sequence[str] = ()
    outcome: str = NOTHING
    payload: bytes = b""

    def pack(self) -> bytes:
        """Return it as a value of the map."""
        packed: bytes = msgpack.packb(list(self))
        return packed


def lease_of(held: Held | None) -> Lease | None:
    """Return the lease that a name holds."""
    return None if held is None else Lease(*msgpack.unpackb(held.value))


async def outdate_lease(olric: OlricMap, name: bytes) -> None:
    """Keep what is being loaded for a name from being stored.

    Raises:
        UnavailableError: a loader that stores its value does not come to an end.
    """
    lease_name = LEASE + name
    deadline = olric.life.router.deadline()
    while (held := await olric.held(lease_name)) is not None:
        lease = lease_of(held)
        assert lease is not None
        if lease.state == DONE:
            return
        if lease.state == OPEN and await olric.remove(lease_name, held):
            return
        await _pause(olric, deadline)


async def invalidate_lease(olric: OlricMap, lease_name: bytes, tags: Collection[str]) -> None:
    """Tell a load that tags were invalidated; one with such a tag is outdated."""
    deadline = olric.life.router.deadline()
    while (held := await olric.held(lease_name)) is not None:
        lease = lease_of(held)
        assert lease is not None
        if lease.state == DONE:
            return
        if lease.state == OPEN:
            if set(tags) & set(lease.tags):
                if await olric.remove(lease_name, held):
                    return
            else:
                noted = lease._replace(invalidated=sorted({*lease.invalidated, *tags}))
                if await olric.swap(lease_name, held, noted.pack(), olric.remaining_ms(held)):
                    return
        await _pause(olric, deadline)


async def _pause(olric: OlricMap, deadline: float) -> None:
    if olric.life.loop.time() >= deadline:
        raise UnavailableError("a value of this key is being stored all the while; not applied")
    await asyncio.sleep(WAIT_MIN)


class OlricLoad(Load):
    """One attempt to get an absent key."""

    def __init__(self, olric: OlricMap, name: bytes, tags: tuple[str, ...]) -> None:
        super().__init__(olric.life, tags)
        self._olric = olric
        self._name = name
        self._lease_name = LEASE + name
        self._found: Held | None = None  # when the load began

    async def _begin(self, min_ttl: float, seen: bytes) -> bytes | None:
        held = await self._olric.held(self._lease_name)
        lease = lease_of(held)
        if lease is not None and lease.state != DONE:
            raise Busy(lease.token)
        found = await self._olric.held(self._name)
        if lease is not None and seen == lease.token:
            if lease.outcome == STORED and found is not None:
                return found.value
            if lease.outcome not in (STORED, NOTHING):
                return brought(lease.outcome, lease.payload)
        if found is not None and self._lasts(found, min_ttl):
            return found.value
        mine = Lease(self.token, tags=self.tags).pack()
        if not await self._olric.swap(self._lease_name, held, mine, LEASE_MS):
            raise Busy(seen)
        self._found = await self._olric.held(self._name)  # Another load may have ended meanwhile.
        if self._found is not None and self._lasts(self._found, min_ttl):
            self.give_up()
            return self._found.value
        return None

    def _lasts(self, held: Held, min_ttl: float) -> bool:
        left = self._olric.remaining_ms(held)
        if min_ttl <= 0:
            return True
        return min_ttl != math.inf and (left is None or left >= min_ttl * 1000)

    async def _mine(self, state: str = OPEN) -> tuple[Held, Lease] | None:
        held = await self._olric.held(self._lease_name)
        lease = lease_of(held)
        if held is None or lease is None or (lease.token, lease.state) != (self.token, state):
            return None
        return held, lease

    async def _extend(self) -> bool:
        while (mine := await self._mine()) is not None:
            held, lease = mine
            if await self._olric.swap(self._lease_name, held, lease.pack(), LEASE_MS):
                return True
        return False

    async def keep(
        self, encoded: bytes, ttl_ms: int | None, tags: Sequence[str], *, store: bool
    ) -> bool:
        """Store what was loaded, unless it has been overtaken; return whether it is kept."""
        if not store:
            await self._end(PASSED, encoded)
            return False
        while (mine := await self._mine()) is not None:
            held, lease = mine
            if set(tags) & set(lease.invalidated):
                await self._end(NOTHING, b"")
                return False
            closing = lease._replace(state=CLOSING)
            if await self._olric.swap(self._lease_name, held, closing.pack(), CLOSING_MS):
                kept = await self._olric.swap(self._name, self._found, encoded, ttl_ms)
                await self._end(STORED if kept else NOTHING, b"", CLOSING)
                return kept
        return False

    async def _end(self, outcome: str, payload: bytes, state: str = OPEN) -> None:
        while (mine := await self._mine(state)) is not None:
            done = Lease(self.token, DONE, outcome=outcome, payload=payload)
            if await self._olric.swap(self._lease_name, mine[0], done.pack(), OUTCOME_MS):
                return


def is_lease(name: bytes) -> bool:
    """Return whether a name of the map is that of a lease."""
    return name.startswith(LEASE)
