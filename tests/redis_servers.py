"""Real redis-server processes on free ports of loopback, for tests: started, spoken to, ended by their id."""

from __future__ import annotations

import queue
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final

import hiredis
import pytest

START_TIMEOUT: Final = 30.0
IS_MISSING: Final = shutil.which("redis-server") is None
WHY_MISSING: Final = "no redis-server on PATH"
SLOTS: Final = 16_384


def free_port(*, with_bus: bool = False) -> int:
    """Return a port that is free now; servers of a cluster use the one 10,000 above it, too."""
    while True:
        with socket.socket() as probe, socket.socket() as bus:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
            if not with_bus:
                return port
            try:
                bus.bind(("127.0.0.1", port + 10_000))
            except (OSError, OverflowError):
                continue
            return port


class RedisServer:
    """One redis-server without persistence; `close` ends it."""

    def __init__(self, *options: str, port: int | None = None, is_clustered: bool = False) -> None:
        self.port = port or free_port(with_bus=is_clustered)
        self._folder = tempfile.TemporaryDirectory(prefix="pcredis")
        self._options = options
        if is_clustered:
            self._options += ("--cluster-enabled", "yes", "--cluster-node-timeout", "2000")
        self.socket_path = str(Path(self._folder.name) / "redis.sock")
        self._stream: tuple[socket.socket, hiredis.Reader] | None = None
        self.start()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it, and wait until it says that it is ready."""
        fixed = ("--port", str(self.port), "--bind", "127.0.0.1", "--save", "")
        place = ("--dir", self._folder.name, "--unixsocket", self.socket_path)
        self.process = subprocess.Popen(
            ["redis-server", *fixed, *place, *self._options],
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdout is not None
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reading = threading.Thread(
            target=self._read, args=(self.process.stdout,), daemon=True
        )
        self._reading.start()
        self.wait_for_line("Ready to accept connections")

    def _read(self, out: IO[str]) -> None:
        with out:
            for line in out:
                self._lines.put(line)
        self._lines.put("")

    def wait_for_line(self, text: str) -> None:
        """Wait until it has logged this."""
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            assert line, f"redis-server ended before {text!r}"
            if text in line:
                return

    def execute(self, *command: Any) -> Any:  # Any: words and answers of RESP
        """Return its answer to a command; an error answer is raised."""
        if self._stream is None:
            self._stream = socket.create_connection(("127.0.0.1", self.port), 20), hiredis.Reader()
        stream, reader = self._stream
        stream.sendall(hiredis.pack_command(command))
        while (reply := reader.gets()) is False:
            data = stream.recv(65_536)
            assert data, "redis-server closed the connection"
            reader.feed(data)
        if isinstance(reply, hiredis.ReplyError):
            raise reply
        return reply

    def held(self) -> list[bytes]:
        """Return everything that it holds."""
        found: list[bytes] = self.execute("KEYS", "*")
        return found

    def advance(self, seconds: float) -> None:
        """Let everything on it come nearer to its end; what ends then is gone when this returns."""
        for key in self.held():
            left = self.execute("PTTL", key)
            if left < 0:
                continue
            rest = left - round(seconds * 1000)
            self.execute("PEXPIRE", key, max(1, rest))
            deadline = time.monotonic() + START_TIMEOUT
            while rest <= 0 and self.execute("PTTL", key) in (0, 1):  # or there is another one
                assert time.monotonic() < deadline

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.wait(START_TIMEOUT)
        self._reading.join(START_TIMEOUT)
        if self._stream is not None:
            self._stream[0].close()
            self._stream = None

    def close(self) -> None:
        """End it and remove what it left."""
        self.kill()
        self._folder.cleanup()


class RedisServers:
    """Servers that the tests of one session share: empty again for each test that asks."""

    def __init__(self) -> None:
        self._single: RedisServer | None = None
        self._cluster: list[RedisServer] = []

    def single(self) -> RedisServer:
        """Return one server, empty."""
        self._require()
        if self._single is None:
            self._single = RedisServer()
        self._single.execute("FLUSHALL")
        return self._single

    def cluster(self) -> list[RedisServer]:
        """Return three servers that are a cluster, empty."""
        self._require()
        if not self._cluster:
            self._cluster = [RedisServer(is_clustered=True) for _ in range(3)]
            join(self._cluster)
        for server in self._cluster:
            server.execute("FLUSHALL")
        return self._cluster

    @staticmethod
    def _require() -> None:
        if IS_MISSING:
            pytest.skip(WHY_MISSING)

    def close(self) -> None:
        """End all."""
        for server in [*([self._single] if self._single else []), *self._cluster]:
            server.close()


def join(servers: list[RedisServer]) -> None:
    """Make a cluster of them, a range of slots each, and wait until each says that all is well."""
    share = SLOTS // len(servers)
    for number, server in enumerate(servers):
        last = SLOTS - 1 if number == len(servers) - 1 else (number + 1) * share - 1
        server.execute("CLUSTER", "ADDSLOTSRANGE", number * share, last)
        server.execute("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
    for server in servers[1:]:
        server.execute("CLUSTER", "MEET", "127.0.0.1", servers[0].port)
    for server in servers:
        server.wait_for_line("Cluster state changed: ok")


def cluster_url(servers: list[RedisServer]) -> str:
    """Return the URL of a cluster; the last server is not named, it has to be found."""
    return "redis+cluster://" + ",".join(f"127.0.0.1:{server.port}" for server in servers[:-1])


@pytest.fixture(scope="session")
def redis_servers() -> Iterator[RedisServers]:
    """Real servers, started when a test asks for them."""
    servers = RedisServers()
    yield servers
    servers.close()
