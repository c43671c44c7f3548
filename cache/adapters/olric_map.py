"""`OlricMap`: one map of an Olric cluster: read, write, compare and swap, go through it.

In front of each value stand a stamp that no other write has, so that an equal value is not taken for
the same one, and when it ends, which Olric does not tell. What is removed is replaced by a remnant that
ends by itself, so that of several callers only one removes it.

Olric 0.7.4 takes the lock of `DM.CAS` on the member that was asked, so that only callers that ask the
same member exclude each other. `DM.EXPIRE`, `DM.INCR` and the `NX` and `XX` of `DM.PUT` are not used:
they lose values, count what is no number, or take ended keys for present.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Sequence
from typing import Final, NamedTuple

from cache.adapters.connection import Command, Place, Server
from cache.adapters.life import Life
from cache.adapters.routing import Call
from cache.clock import Clock
from cache.errors import CodecError

STAMP_BYTES: Final = 8
HEAD_BYTES: Final = 2 * STAMP_BYTES
NAME_BYTES_MAX: Final = 253
"""Olric's keys have less than 256 bytes; two are for the lease of a load."""
REMNANT_MS: Final = 1
"""How long the remnant of a removed key stays, if it is not deleted before."""
SCAN_COUNT: Final = 1000
BATCH_MAX: Final = 256


class Held(NamedTuple):
    """What a name holds."""

    raw: bytes
    """All of it, as `DM.CAS` compares."""
    ends_ms: int
    """By the wall clock of whoever wrote it; 0 without end."""
    value: bytes


class OlricMap:
    """A map, on one event loop; names are checked by whoever makes them."""

    def __init__(self, life: Life, name: str, clock: Clock) -> None:
        self.life = life
        self._name = name
        self._clock = clock

    def now_ms(self) -> int:
        """Return the wall clock."""
        return int(self._clock.wall() * 1000)

    def remaining_ms(self, held: Held) -> int | None:
        """Return what it has left, at least a millisecond; None without end."""
        return None if held.ends_ms == 0 else max(1, held.ends_ms - self.now_ms())

    # -- one name --------------------------------------------------------------------------------

    def parse(self, raw: bytes | None) -> Held | None:
        """Return what an answer holds; remnants are nothing.

        Raises:
            CodecError: it was not stored by such a cache.
        """
        if raw is None:
            return None
        if len(raw) <= HEAD_BYTES:
            if len(raw) == HEAD_BYTES:
                return None
            raise CodecError("the key holds what this cache did not store")
        ends_ms = int.from_bytes(raw[STAMP_BYTES:HEAD_BYTES], "big")
        return Held(raw, ends_ms, raw[HEAD_BYTES:])

    def pack(self, value: bytes, ttl_ms: int | None) -> bytes:
        """Return what is stored for a value."""
        ends_ms = 0 if ttl_ms is None else self.now_ms() + ttl_ms
        stamp = secrets.token_bytes(STAMP_BYTES)
        return stamp + ends_ms.to_bytes(STAMP_BYTES, "big") + value

    async def raw(self, name: bytes) -> bytes | None:
        """Return all that a name holds."""
        found: bytes | None
        found = await self.life.router.one(0, ("DM.GET", self._name, name), is_read=True)
        return found

    async def held(self, name: bytes) -> Held | None:
        """Return what a name holds."""
        return self.parse(await self.raw(name))

    def get(self, name: bytes) -> Call:
        """Return the call that reads a name."""
        return 0, ("DM.GET", self._name, name)

    def put(self, name: bytes, value: bytes, ttl_ms: int | None) -> Call:
        """Return the call that stores a value, whatever is there."""
        end: Command = () if ttl_ms is None else ("PX", ttl_ms)
        return 0, ("DM.PUT", self._name, name, self.pack(value, ttl_ms), *end)

    async def swap(self, name: bytes, old: Held | None, value: bytes, ttl_ms: int | None) -> bool:
        """Store a value if nothing was written since `old` was read; return whether it is stored."""
        return await self._swap(name, None if old is None else old.raw, value, ttl_ms)

    async def _swap(self, name: bytes, old: bytes | None, value: bytes, ttl_ms: int | None) -> bool:
        if old is None and (remnant := await self.raw(name)) is not None:
            if len(remnant) != HEAD_BYTES:
                return False
            old = remnant
        end: Command = () if ttl_ms is None else ("PX", ttl_ms)
        packed = self.pack(value, ttl_ms)
        reply = await self.life.router.one(
            0, ("DM.CAS", self._name, name, old or b"", packed, *end)
        )
        return bool(reply[0])

    async def remove(self, name: bytes, old: Held) -> bool:
        """Remove what was read; return whether it was this call that did."""
        if not await self._swap(name, old.raw, b"", REMNANT_MS):
            return False
        await self.life.router.one(0, ("DM.DEL", self._name, name))
        return True

    # -- all of it -------------------------------------------------------------------------------

    async def many(self, names: Sequence[bytes]) -> list[Held | None]:
        """Return what each name holds."""
        found: list[Held | None] = []
        for start in range(0, len(names), BATCH_MAX):
            calls = [self.get(name) for name in names[start : start + BATCH_MAX]]
            found += map(self.parse, await self.life.router.many(calls, is_read=True))
        return found

    async def names(self) -> AsyncIterator[list[bytes]]:
        """Yield names, some of them twice, and some that have ended, from the owner of each partition."""
        router = self.life.router
        server = (await router.primaries())[0]
        table = (await router.ask(server, (("CLUSTER.ROUTINGTABLE",),)))[0]
        for number, owners, *_ in table:
            for (
                owner
            ) in owners:  # The last one is the owner, earlier ones may hold something still.
                async for page in self._names_of(self._server(owner, server), int(number)):
                    yield page

    def _server(self, owner: bytes, asked: Server) -> Server:
        host, _, port = owner.decode().rpartition(":")
        return self.life.router.server(Place(host or asked.place.host, int(port)))

    async def _names_of(self, server: Server, partition: int) -> AsyncIterator[list[bytes]]:
        cursor = b"0"
        while True:
            command = ("DM.SCAN", partition, self._name, cursor, "COUNT", SCAN_COUNT)
            cursor, names = (await self.life.router.ask(server, (command,)))[0]
            if names:
                yield names
            if cursor == b"0":
                return
