"""The workers of real servers share one cache, with nothing configured but the application's name."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest

from tests.integration.waiting import eventually

EXAMPLES: Final = Path(__file__).resolve().parents[2] / "examples" / "workers"
WORKERS: Final = 4
KEYS: Final = 40
SERVERS: Final = {
    "uvicorn": ["-m", "uvicorn", "--workers", f"{WORKERS}", "--port", "{port}", "fastapi_app:app"],
    "gunicorn": [
        *("-m", "gunicorn", "-w", f"{WORKERS}", "--preload", "--bind", "127.0.0.1:{port}"),
        "flask_app:app",
    ],
}


@pytest.fixture
def runtime() -> Iterator[Path]:
    """The user's runtime directory, as a login session has one."""
    with tempfile.TemporaryDirectory(prefix="pc") as made:
        yield Path(made)


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if not path.is_dir()]


def has_answered(answer: dict[str, Any]) -> bool:  # Any: JSON
    return "worker" in answer


@dataclass(frozen=True)
class Server:
    """A server with several workers, and a client that reaches whichever it happens to be."""

    process: asyncio.subprocess.Process
    session: aiohttp.ClientSession
    log: Path

    async def ask(self, method: str, path: str) -> dict[str, Any]:  # Any: JSON
        """Ask until it answers: a worker that is killed takes its connections with it."""
        answer: dict[str, Any] = {}

        async def is_answered() -> bool:
            with suppress(aiohttp.ClientError):
                async with self.session.request(method, path) as response:
                    assert response.status == 200, self.log.read_text()[-3000:]
                    answer.update(await response.json())
            assert self.process.returncode is None, self.log.read_text()[-3000:]
            return bool(answer)

        await eventually(is_answered, within=20, what=f"an answer to {path}")
        return answer

    async def by_worker(self, path: str) -> dict[int, dict[str, Any]]:  # Any: JSON
        """Return an answer of each worker that happened to be reached by 16 requests at once."""
        answers = await asyncio.gather(*(self.ask("GET", path) for _ in range(16)))
        return {answer["worker"]: answer for answer in answers}

    async def all_workers(
        self, path: str, *, right: Callable[[dict[str, Any]], bool], gone: int = 0
    ) -> dict[int, dict[str, Any]]:
        """Return an answer of each of the `WORKERS` workers, once all of them are right."""
        seen: dict[int, dict[str, Any]] = {}

        async def are_right() -> bool:
            seen.update(await self.by_worker(path))
            seen.pop(gone, None)
            return len(seen) == WORKERS and all(right(answer) for answer in seen.values())

        await eventually(are_right, within=30, what=f"{WORKERS} right answers to {path}")
        return seen


@asynccontextmanager
async def serving(name: str, runtime: Path) -> AsyncIterator[Server]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = runtime.with_suffix(".log")
    arguments = [argument.format(port=port) for argument in SERVERS[name]]
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, *arguments),
            cwd=EXAMPLES,
            env={**os.environ, "XDG_RUNTIME_DIR": str(runtime)},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        connector = aiohttp.TCPConnector(force_close=True)  # Each request may reach another one.
        base = f"http://127.0.0.1:{port}"
        async with aiohttp.ClientSession(base, connector=connector) as session:
            yield Server(process, session, log)
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        log.unlink()


@pytest.mark.processes
@pytest.mark.parametrize("name", list(SERVERS))
async def test_the_workers_of_a_server_share_one_cache(name: str, runtime: Path) -> None:
    """A write is read through each worker, survives the kill of one, and nothing is left at the end."""
    async with serving(name, runtime) as server:

        def is_whole(answer: dict[str, Any]) -> bool:
            return bool(answer["members"] == WORKERS and answer["whole"])

        before = await server.all_workers("/health", right=is_whole)
        for number in range(KEYS):
            await server.ask("PUT", f"/prices/k{number}?price={number}")
        for number in range(3):
            read = await server.all_workers(f"/prices/k{number}", right=has_answered)
            assert [number] * WORKERS == [answer["price"] for answer in read.values()]

        victim = next(iter(before))
        os.kill(victim, signal.SIGKILL)
        after = await server.all_workers("/health", right=is_whole, gone=victim)
        found = [(await server.ask("GET", f"/prices/k{number}"))["price"] for number in range(KEYS)]

        assert len(set(after) - set(before)) == 1, "the server's new worker has joined"
        assert found == list(range(KEYS))
        reports = await asyncio.gather(*(server.ask("GET", "/reports/sales") for _ in range(64)))
        assert len({report["report"] for report in reports}) == 1, "one load for all workers"
        assert len({report["worker"] for report in reports}) > 1
        server.process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(server.process.wait(), 20)
        assert files(runtime) == []
