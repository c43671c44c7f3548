"""Connections to a server that answers when it is told to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import hiredis
import pytest

from cache.adapters.connection import CROWDED, Access, Place, Server
from cache.errors import ClosedError, ConnectionLostError, OverloadedError
from tests.unit.cluster.transport.support import eventually

PONG = b"+PONG\r\n"


class Slow:
    """Greets at once; other commands wait for `release`."""

    def __init__(self) -> None:
        self.writers: list[asyncio.StreamWriter] = []
        self.released = asyncio.Event()
        self.asked = 0
        self.extra = b""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        parser = hiredis.Reader()
        try:
            while data := await reader.read(65_536):
                parser.feed(data)
                while (command := parser.gets()) is not False:
                    if command[0] == b"PING":
                        writer.write(PONG)
                        continue
                    self.asked += 1
                    await self.released.wait()
                    writer.write(b"$%d\r\n%s\r\n%s" % (len(command[1]), command[1], self.extra))
        finally:
            writer.close()


@pytest.fixture
async def slow() -> AsyncIterator[tuple[Slow, Place]]:
    served = Slow()
    listening = await asyncio.start_server(served.serve, "127.0.0.1", 0)
    async with listening:
        yield served, Place("127.0.0.1", listening.sockets[0].getsockname()[1])
        served.released.set()


def in_time() -> float:
    return asyncio.get_running_loop().time() + 20


async def test_calls_share_a_few_connections(slow: tuple[Slow, Place]) -> None:
    """A new one when the others are crowded, up to the bound; answers find their callers."""
    served, place = slow
    server = Server(place, Access(connections_max=3))
    count = 5 * CROWDED

    calls = [
        asyncio.ensure_future(server.call((("ECHO", number),), in_time()))
        for number in range(count)
    ]
    await eventually(lambda: sum(connection.load for connection in server._open) == count)

    assert len(served.writers) == 3
    served.released.set()
    assert [[b"%d" % number] for number in range(count)] == await asyncio.gather(*calls)
    server.close()


async def test_a_caller_who_leaves_keeps_his_place_until_the_answer_comes(
    slow: tuple[Slow, Place],
) -> None:
    """Those who leave early do not make room for more than `in_flight_max`."""
    served, place = slow
    server = Server(place, Access(in_flight_max=1))
    first = asyncio.ensure_future(server.call((("ECHO", "first"),), in_time()))
    await eventually(lambda: served.asked == 1)
    first.cancel()

    with pytest.raises(OverloadedError, match="in_flight_max=1"):
        await server.call((("ECHO", "second"),), asyncio.get_running_loop().time() + 0.05)
    served.released.set()

    assert [b"third"] == await server.call((("ECHO", "third"),), in_time())
    server.close()


async def test_an_answer_that_nobody_asked_for_ends_the_connection(
    slow: tuple[Slow, Place],
) -> None:
    """Whose would the next one be? Another connection is made."""
    served, place = slow
    served.extra = PONG
    served.released.set()
    server = Server(place, Access())

    assert [b"a"] == await server.call((("ECHO", "a"),), in_time())
    await eventually(lambda: all(connection.is_lost for connection in server._open))
    assert [b"b"] == await server.call((("ECHO", "b"),), in_time())

    assert len(served.writers) == 2
    server.close()


async def test_what_is_under_way_when_it_is_closed_may_have_been_carried_out(
    slow: tuple[Slow, Place],
) -> None:
    """And nothing begins afterwards; a retired one lets calls end first."""
    served, place = slow
    closed, retired = Server(place, Access()), Server(place, Access())
    lost, kept = (
        asyncio.ensure_future(server.call((("ECHO", "a"),), in_time()))
        for server in (closed, retired)
    )
    await eventually(lambda: served.asked == 2)

    closed.close()
    retired.retire()

    with pytest.raises(ConnectionLostError, match="may have been carried out"):
        await lost
    with pytest.raises(ClosedError):
        await closed.call((("ECHO", "b"),), in_time())
    served.released.set()
    assert [b"a"] == await kept
    assert [] == retired._open
