"""Each member its own process on loopback: kills are SIGKILL, pauses are SIGSTOP.

Network faults are those of the fault-injecting proxy in the test's process, if a test asks for it.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from cache.cluster.config import ClusterConfig
from cache.cluster.ids import Address, MemberId
from cache.cluster.transport.base import Transport
from cache.member_client import MemberClient
from cache.testing.worlds.base import UnsupportedFaultError
from cache.testing.worlds.machine import RealMachine

READY_TIMEOUT: Final = 60.0
"""Seconds for a process to serve; generous, because test machines are shared."""

EXIT_TIMEOUT: Final = 30.0
LOG_TAIL_BYTES: Final = 4000


class ProcessBackend:
    """A member in a process, and the client that talks to it."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self.log = log
        self.id = MemberId("")
        self.address = Address("")
        self._client: MemberClient | None = None

    async def connect(self, config: ClusterConfig, transport: Transport | None) -> None:
        """Wait for the ready line and open the client, over `transport` if there is one.

        Raises:
            AssertionError: the process ended or was not ready in time; says what it logged.
        """
        line = await asyncio.wait_for(self._read_line(), READY_TIMEOUT)
        assert line, f"the member's process ended early:\n{self.log_tail()}"
        ready = json.loads(line)
        self.id, self.address = MemberId(ready["id"]), Address(ready["address"])
        self._client = MemberClient(
            self.address,
            cluster_name=config.cluster_name,
            secret=config.secret,
            transport=transport,
        )

    async def _read_line(self) -> bytes:
        assert self.process.stdout is not None, "started with a pipe"
        return await asyncio.to_thread(self.process.stdout.readline)

    def log_tail(self) -> str:
        """Return the end of what the process logged."""
        return self.log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace")

    @property
    def client(self) -> MemberClient:
        """The client of this member."""
        assert self._client is not None, "connected at start"
        return self._client

    async def call(self, map_name: str, method: str, arguments: Mapping[str, Any]) -> Any:
        """Run a map method on the member.  # Any: as the map's method."""
        return await self.client.call(map_name, method, **arguments)

    async def inspect(self, what: str) -> Any:
        """Ask the member about itself.  # Any: MessagePack values."""
        return await self.client.inspect(what)

    async def drain(self) -> Mapping[str, Any]:
        """Let the member leave gracefully.  # Any: MessagePack values."""
        return await self.client.drain()

    async def close(self) -> None:
        """Kill the process if it still runs, at once, and wait for its end."""
        with suppress(ProcessLookupError):
            self.process.kill()
        if self._client is not None:
            await self._client.close()
        await self.wait()

    async def wait(self) -> None:
        """Wait until the process has ended."""
        await asyncio.wait_for(asyncio.to_thread(self.process.wait), EXIT_TIMEOUT)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()


class ProcessesWorld(RealMachine):
    """Real processes, real time. `faults` puts the fault-injecting proxy between members."""

    def __init__(self, *, faults: bool = False) -> None:
        super().__init__(faults=faults)
        self._members: dict[int, ProcessBackend] = {}
        self._count = 0

    async def start(self, index: int, config: ClusterConfig) -> ProcessBackend:
        """Start a process and return when its node serves."""
        if self._relays is not None:
            await self._relays.open()
        return await self._launch(index, config, [], None)

    async def _launch(
        self, index: int, config: ClusterConfig, prefix: list[str], transport: Transport | None
    ) -> ProcessBackend:
        """Start a member by a command with `prefix` in front of it; reach it over `transport`."""
        self._count += 1
        log = self.folder() / f"{self._count}-{config.name}.log"
        with log.open("wb") as stderr:
            process = subprocess.Popen(
                [*prefix, sys.executable, "-m", "cache.testing.worlds.process_main"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                start_new_session=True,
            )
        backend = ProcessBackend(process, log)
        assert process.stdin is not None, "started with a pipe"
        try:
            fields = asdict(config)
            if self._relays is not None:
                fields["relays"] = self._relays.settings(index)
            process.stdin.write(json.dumps(fields).encode() + b"\n")
            process.stdin.flush()
            await backend.connect(config, transport)
        except BaseException:
            await backend.close()
            raise
        self._members[index] = backend
        return backend

    async def kill(self, index: int, *, power_loss: bool = False) -> None:
        """Send SIGKILL."""
        if power_loss:
            raise UnsupportedFaultError("power_loss: real processes")
        await self._members.pop(index).close()
        self._left(index)

    async def forget(self, index: int) -> None:
        """Wait for a member that left; it ends by itself."""
        backend = self._members.pop(index)
        await backend.wait()
        await backend.close()
        self._left(index)

    async def pause(self, index: int) -> None:
        """Send SIGSTOP."""
        os.kill(self._members[index].process.pid, signal.SIGSTOP)

    async def resume(self, index: int) -> None:
        """Send SIGCONT."""
        os.kill(self._members[index].process.pid, signal.SIGCONT)

    async def close(self) -> None:
        """Kill every process by its id, stop what is between them, and remove what they kept."""
        try:
            await self._close_clients()
            for index in sorted(self._members):
                await self._members[index].close()
            self._members.clear()
        finally:
            await self._close_rest()
