"""Node processes of the demo: started with `python -m cache node`, always stopped again by their id."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

START_TIMEOUT: Final = 60.0
"""Seconds until a started process must be ready; generous, for slow and shared machines."""

EXIT_TIMEOUT: Final = 15.0
LOG_TAIL_BYTES: Final = 2000


class ProcessError(Exception):
    """A node process did not do what it was asked."""


class NodeProcess:
    """One running `cache node`; made by `start_process`."""

    def __init__(self, process: asyncio.subprocess.Process, name: str, log: Path) -> None:
        self._process = process
        self._log = log
        self.name = name
        self.id = ""
        self.address = ""

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def is_running(self) -> bool:
        """Return whether the process has not ended yet."""
        return self._process.returncode is None

    def kill(self) -> None:
        """Send SIGKILL."""
        with suppress(ProcessLookupError):
            self._process.kill()

    async def wait_ready(self) -> None:
        """Read the ready line and learn the node's id and address.

        Raises:
            ProcessError: the process ended, or was not ready in time; says what it logged.
        """
        event = await self._read_event("ready", START_TIMEOUT)
        self.id, self.address = event["id"], event["address"]

    async def wait_exit(self) -> int:
        """Return the exit code; minus the signal's number for a process that was killed.

        Raises:
            ProcessError: it does not end.
        """
        try:
            async with asyncio.timeout(EXIT_TIMEOUT):
                return await self._process.wait()
        except TimeoutError as error:
            raise ProcessError(f"{self.name} (pid {self.pid}) does not end") from error

    def log_tail(self) -> str:
        """Return the end of what the process logged."""
        with suppress(OSError):
            return self._log.read_bytes()[-LOG_TAIL_BYTES:].decode("utf-8", "replace").strip()
        return ""

    async def _read_event(self, kind: str, within: float) -> dict[str, Any]:  # Any: JSON values
        assert self._process.stdout is not None, "started with a pipe"
        try:
            async with asyncio.timeout(within):
                line = await self._process.stdout.readline()
        except TimeoutError as error:
            raise ProcessError(
                f"{self.name}: not {kind} in {within} s\n{self.log_tail()}"
            ) from error
        try:
            event: dict[str, Any] = json.loads(line)
        except ValueError as error:
            raise ProcessError(f"{self.name}: ended early\n{self.log_tail()}") from error
        if event.get("event") != kind:
            raise ProcessError(f"{self.name}: {line!r} instead of {kind}\n{self.log_tail()}")
        return event


class ProcessGroup:
    """Starts node processes; leaving the block stops those that still run."""

    def __init__(self, folder: Path, *, secret: str, options: Sequence[str]) -> None:
        self._folder = folder
        self._options = options
        # In the environment, not among the arguments, which everybody on the machine can read.
        self._environment = {**os.environ, "CACHE_SECRET": secret, "PYTHONUNBUFFERED": "1"}
        self._started: list[NodeProcess] = []

    async def start(self, name: str, peers: Sequence[str]) -> NodeProcess:
        """Start a node and return when it is ready."""
        arguments = ["-m", "cache", "node", "--json", "--stop-at-eof", "--bind", "127.0.0.1:0"]
        arguments += ["--name", name, *self._options]
        for peer in peers:
            arguments += ["--peer", peer]
        log = self._folder / f"{name}.log"
        with log.open("wb") as stderr:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *arguments,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=stderr,
                env=self._environment,
                start_new_session=True,  # Ctrl-C is for the demo alone, which then stops its nodes.
            )
        node = NodeProcess(process, name, log)
        self._started.append(node)
        await node.wait_ready()
        return node

    async def stop(self) -> None:
        """Kill what still runs, by its id, and wait for the ends."""
        running = [node for node in self._started if node.is_running()]
        for node in running:
            node.kill()
        for node in running:
            await node.wait_exit()
