"""A real etcd on free loopback ports, for tests: it can be killed and started again with its data."""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.integration.waiting import eventually


class Etcd:
    """One server; its URL stays the same."""

    def __init__(self, folder: Path) -> None:
        program = shutil.which("etcd")
        if program is None:
            pytest.skip("no etcd binary on PATH (Debian: etcd-server)")
        self._program = program
        self._folder = folder
        self._ports = [_free_port(), _free_port()]
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._ports[0]}"

    async def start(self) -> None:
        """Start it, and return when it answers."""
        client, peer = (f"http://127.0.0.1:{port}" for port in self._ports)
        options = {
            "data-dir": str(self._folder / "data"),
            "listen-client-urls": client,
            "advertise-client-urls": client,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": f"default={peer}",
            "logger": "zap",
            "log-outputs": str(self._folder / "log"),
        }
        arguments = [f"--{name}={value}" for name, value in options.items()]
        self._process = await asyncio.create_subprocess_exec(
            self._program, *arguments, stderr=asyncio.subprocess.DEVNULL
        )
        await eventually(self._answers, within=30, what=f"an answer of etcd at {self.url}")

    async def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.returncode is None, f"etcd ended, see {self._folder / 'log'}"
        try:
            await self.ask("/v3/kv/range", {"key": "AA=="})
        except aiohttp.ClientError:
            return False
        return True

    async def kill(self) -> None:
        """Stop it at once."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            await process.wait()

    async def ask(self, path: str, question: dict[str, Any], token: str = "") -> Any:  # Any: JSON
        """Ask it directly."""
        headers = {"Authorization": token} if token else {}
        async with (
            aiohttp.ClientSession() as session,
            session.post(self.url + path, json=question, headers=headers) as response,
        ):
            response.raise_for_status()
            return await response.json(content_type=None)

    async def key_count(self) -> int:
        """Return how many keys there are."""
        answer = await self.ask("/v3/kv/range", {"key": "AA==", "range_end": "AA=="})
        return len(answer.get("kvs", ()))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@asynccontextmanager
async def etcd_server(folder: Path) -> AsyncIterator[Etcd]:
    """Run an etcd with its data in `folder`."""
    etcd = Etcd(folder)
    await etcd.start()
    try:
        yield etcd
    finally:
        await etcd.kill()
