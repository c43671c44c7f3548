"""A client that shows replies as the bytes they are, and a redis-server to compare with."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Final, Self

from cache.cluster.ids import Address, parse_address
from cache.cluster.transport.inherited import free_port
from tests.integration.waiting import eventually

REPLY_TIMEOUT: Final = 20.0


def encode(*words: bytes) -> bytes:
    """Return a command as clients send it."""
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(w), w) for w in words)


class RawClient:
    """One connection; sends words, and returns the bytes of each reply."""

    def __init__(self, address: str) -> None:
        self._address = Address(address)

    async def __aenter__(self) -> Self:
        host, port = parse_address(self._address)
        self.reader, self.writer = await asyncio.open_connection(host, port)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.writer.transport.abort()

    async def ask(self, *words: bytes) -> bytes:
        """Send a command; return its reply."""
        self.writer.write(encode(*words))
        return await self.reply()

    async def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.writer.write(data)
        await self.writer.drain()

    async def reply(self) -> bytes:
        """Return the next reply, raw."""
        async with asyncio.timeout(REPLY_TIMEOUT):
            return await self._reply()

    async def _reply(self) -> bytes:
        line = await self.reader.readuntil(b"\r\n")
        kind, rest = line[:1], line[1:-2]
        if kind in b"$=" and rest != b"-1":
            return line + await self.reader.readexactly(int(rest) + 2)
        if kind in b"*~>%" and rest != b"-1":
            count = int(rest) * (2 if kind == b"%" else 1)
            return line + b"".join([await self._reply() for _ in range(count)])
        return line

    async def end(self) -> bytes:
        """Return everything until the server closes."""
        async with asyncio.timeout(REPLY_TIMEOUT):
            return await self.reader.read()


@asynccontextmanager
async def redis_server(*options: str) -> AsyncIterator[Address]:
    """Run a redis-server without persistence on a free port of loopback; yield its address."""
    binary = shutil.which("redis-server")
    assert binary is not None, "the mark `redis` skips tests where there is none"
    port = free_port("127.0.0.1")
    arguments = ["--port", f"{port}", "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    process = await asyncio.create_subprocess_exec(
        binary, *arguments, *options, stdout=asyncio.subprocess.DEVNULL
    )
    address = Address(f"127.0.0.1:{port}")

    async def answers() -> bool:
        assert process.returncode is None, "redis-server ended"
        try:
            async with RawClient(address) as client:
                return await client.ask(b"PING") != b""
        except OSError:
            return False

    try:
        await eventually(answers, within=20, what="an answer of redis-server")
        yield address
    finally:
        process.terminate()
        await process.wait()
