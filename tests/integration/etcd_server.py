"""A real etcd on free loopback ports, for tests: it can be killed and started again with its data."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme

from tests.integration.waiting import eventually


class Etcd:
    """One server; its URL stays the same.

    Args:
        folder: for its data.
        authority: whose certificates it and its clients have; None for plain HTTP.
    """

    def __init__(self, folder: Path, authority: trustme.CA | None = None) -> None:
        program = shutil.which("etcd")
        if program is None:
            pytest.skip("no etcd binary on PATH (Debian: etcd-server)")
        self._program = program
        self._folder = folder
        self._ports = [_free_port(), _free_port()]
        self._process: asyncio.subprocess.Process | None = None
        self._files = None if authority is None else issue(authority, authority, folder / "server")

    @property
    def url(self) -> str:
        return f"{'http' if self._files is None else 'https'}://127.0.0.1:{self._ports[0]}"

    async def start(self) -> None:
        """Start it, and return when it answers."""
        client, peer = self.url, f"http://127.0.0.1:{self._ports[1]}"
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
        if self._files is not None:
            ca, certificate, key = self._files.values()
            options |= {"trusted-ca-file": ca, "cert-file": certificate, "key-file": key}
            options["client-cert-auth"] = "true"
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
        connector = aiohttp.TCPConnector(ssl=self._tls())
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.post(self.url + path, json=question, headers=headers) as response,
        ):
            response.raise_for_status()
            return await response.json(content_type=None)

    def _tls(self) -> ssl.SSLContext | bool:
        if self._files is None:
            return True
        tls = ssl.create_default_context(cafile=self._files["ca"])
        tls.load_cert_chain(self._files["certificate"], self._files["key"])
        return tls

    async def key_count(self) -> int:
        """Return how many keys there are."""
        answer = await self.ask("/v3/kv/range", {"key": "AA==", "range_end": "AA=="})
        return len(answer.get("kvs", ()))


def issue(by: trustme.CA, trusted: trustme.CA, folder: Path) -> dict[str, str]:
    """Write a certificate and whom its holder trusts; return the files, by field of `EtcdPeers`."""
    folder.mkdir()
    leaf = by.issue_cert("127.0.0.1")
    leaf.private_key_pem.write_to_path(folder / "key.pem")
    leaf.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    trusted.cert_pem.write_to_path(folder / "ca.pem")
    files = {"ca": "ca.pem", "certificate": "cert.pem", "key": "key.pem"}
    return {name: str(folder / file) for name, file in files.items()}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@asynccontextmanager
async def etcd_server(folder: Path, authority: trustme.CA | None = None) -> AsyncIterator[Etcd]:
    """Run an etcd with its data in `folder`; with an authority, over mutual TLS."""
    etcd = Etcd(folder, authority)
    await etcd.start()
    try:
        yield etcd
    finally:
        await etcd.kill()
