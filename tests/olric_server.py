"""A server that answers `DM.…` as Olric 0.7.4 is described to; it is not Olric.

One member that owns all partitions. Source: Olric's protocol, `DM.GET` of an absent key is the error
`KEYNOTFOUND`, `DM.CAS` answers [1, nothing] or [0, what is there], `DM.SCAN` goes through one partition.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import hiredis

PARTITIONS: Final = 7
PAGE: Final = 10


class OlricServer:
    """Maps in memory."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.port = 0
        self._now = now
        self._maps: dict[bytes, dict[bytes, tuple[bytes, float]]] = {}

    def _live(self, name: bytes) -> dict[bytes, tuple[bytes, float]]:
        entries = self._maps.setdefault(name, {})
        for key in [key for key, (_, ends_at) in entries.items() if ends_at <= self._now()]:
            del entries[key]
        return entries

    def _ends_at(self, options: list[bytes]) -> float:
        if not options:
            return float("inf")
        assert options[0] == b"PX"
        return self._now() + int(options[1]) / 1000

    def answer(self, command: list[bytes]) -> bytes:
        """Return the answer, as it travels."""
        match command:
            case [b"PING"]:
                return b"+PONG\r\n"
            case [b"DM.GET", name, key]:
                entry = self._live(name).get(key)
                return b"-KEYNOTFOUND key not found\r\n" if entry is None else bulk(entry[0])
            case [b"DM.PUT", name, key, value, *options]:
                self._live(name)[key] = value, self._ends_at(options)
                return b"+OK\r\n"
            case [b"DM.DEL", name, *keys]:
                removed = [self._live(name).pop(key, None) for key in keys]
                return b":%d\r\n" % sum(each is not None for each in removed)
            case [b"DM.CAS", name, key, expected, value, *options]:
                entry = self._live(name).get(key)
                if (b"" if entry is None else entry[0]) != expected:
                    return b"*2\r\n:0\r\n" + (b"$-1\r\n" if entry is None else bulk(entry[0]))
                self._live(name)[key] = value, self._ends_at(options)
                return b"*2\r\n:1\r\n$-1\r\n"
            case [b"DM.SCAN", partition, name, cursor, b"COUNT", _]:
                keys = sorted(
                    k for k in self._live(name) if zlib.crc32(k) % PARTITIONS == int(partition)
                )
                start = int(cursor)
                page = keys[start : start + PAGE]
                after = start + PAGE if start + PAGE < len(keys) else 0
                return b"*2\r\n" + bulk(b"%d" % after) + array([bulk(key) for key in page])
            case [b"CLUSTER.ROUTINGTABLE"]:
                me = bulk(b"127.0.0.1:%d" % self.port)
                rows = [array([b":%d\r\n" % n, array([me]), array([])]) for n in range(PARTITIONS)]
                return array(rows)
            case _:
                return b"-ERR unknown command\r\n"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client."""
        parser = hiredis.Reader()
        try:
            while data := await reader.read(65_536):
                parser.feed(data)
                while (command := parser.gets()) is not False:
                    writer.write(self.answer(command))
                await writer.drain()
        finally:
            writer.close()


def bulk(text: bytes) -> bytes:
    return b"$%d\r\n%s\r\n" % (len(text), text)


def array(items: list[bytes]) -> bytes:
    return b"*%d\r\n%s" % (len(items), b"".join(items))


@asynccontextmanager
async def olric_server(now: Callable[[], float]) -> AsyncIterator[OlricServer]:
    """Run one on a free port."""
    olric = OlricServer(now)
    server: Any = await asyncio.start_server(olric.serve, "127.0.0.1", 0)
    async with server:
        olric.port = server.sockets[0].getsockname()[1]
        yield olric
