"""Processes that take orders: a member with an application's load in it, a client of Redis, a sink.

`start_worker(stack, "member", …)` starts one; each `order` is a line of JSON to its standard input, its
answer a line of JSON back. A worker ends when its standard input ends, so that it never outlives who
started it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.support import measure, optional, pin, run
from cache.cluster import ClusterConfig, Node
from cache.cluster.structures.map import DistributedMap

ROOT: Final = Path(__file__).resolve().parent.parent
MAP: Final = "users"
ORDER_TIMEOUT: Final = 120.0
"""Seconds until an order must be answered."""
LINE_BYTES_MAX: Final = 2**20
WRITE_EVERY: Final = 10
"""Of so many operations of the mixed load one is a write."""
BATCH: Final = 500
STREAM_CHUNK: Final = 16 * 1024
STREAM_WINDOW: Final = 4
POLL_INTERVAL: Final = 0.002

Orders = dict[str, Callable[..., Awaitable[Any]]]  # Any: JSON values


def key_of(number: int) -> str:
    """Return the text of a key."""
    return f"user:{number}"


class WorkerError(Exception):
    """A worker ended, or did not answer in time."""


class Worker:
    """One process; made by `start_worker`."""

    def __init__(self, process: asyncio.subprocess.Process, ready: dict[str, Any]) -> None:
        # Any: JSON values
        self._process = process
        self.ready = ready
        """What it said when it was ready."""

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    async def order(self, what: str, **settings: Any) -> Any:  # Any: JSON values
        """Let it do something; return its answer.

        Raises:
            WorkerError: it ended, or `ORDER_TIMEOUT` has passed.
        """
        assert self._process.stdin is not None, "started with a pipe"
        self._process.stdin.write(json.dumps({"what": what, **settings}).encode() + b"\n")
        return await _line_of(self._process, what)

    async def stop(self) -> None:
        """Kill it, if it still runs, and wait for its end."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()


async def _line_of(process: asyncio.subprocess.Process, what: str) -> Any:  # Any: JSON values
    assert process.stdout is not None, "started with a pipe"
    try:
        async with asyncio.timeout(ORDER_TIMEOUT):
            line = await process.stdout.readline()
    except TimeoutError as error:
        message = f"worker {process.pid}: no answer to {what!r} in {ORDER_TIMEOUT:.0f} s"
        raise WorkerError(message) from error
    if not line:
        raise WorkerError(f"worker {process.pid} ended before it answered {what!r}")
    return json.loads(line)


async def start_worker(
    stack: AsyncExitStack,
    kind: str,
    *,
    placement: str,
    index: int,
    loop: str = "auto",
    **settings: Any,  # Any: JSON values
) -> Worker:
    """Start a worker, place it, and wait until it is ready."""
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "benchmarks.workers", kind, loop, json.dumps(settings)],
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=LINE_BYTES_MAX,
        cwd=ROOT,
        start_new_session=True,
    )
    pin(process.pid, placement, index=index)
    worker = Worker(process, {})
    stack.push_async_callback(worker.stop)
    worker.ready = await _line_of(process, "start")
    return worker


# -- in the process of the worker -----------------------------------------------------------------


class Member:
    """An embedded member, and what an application would do through it."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._users: DistributedMap[bytes] = node.map(MAP)
        self._value = b""
        self._keys: list[str] = []

    def orders(self) -> Orders:
        """Return what it can be told to do."""
        return {
            "settled": self.settled,
            "fill": self.fill,
            "use": self.use,
            "mixed": self.mixed,
            "reads": self.reads,
            "stream": self.stream,
        }

    async def settled(self, *, members: int, copies: int) -> int:
        """Wait until all members hold their share; return how many hold some."""
        while True:
            table = self._node.partition_table()
            whole = all(len(row.replicas) == copies and not row.joining for row in table.rows)
            holders = {holder for row in table.rows for holder in row.replicas}
            if whole and len(holders) == members and len(self._node.members()) == members:
                return len(holders)
            await asyncio.sleep(POLL_INTERVAL)

    async def fill(self, *, count: int, size: int) -> int:
        """Write keys; return how many bytes of keys and values that were."""
        keys = await self.use(count=count, size=size)
        for start in range(0, keys, BATCH):
            await self._users.set_many(
                dict.fromkeys(self._keys[start : start + BATCH], self._value)
            )
        return sum(map(len, self._keys)) + keys * size

    async def use(self, *, count: int, size: int, remote: bool = False) -> int:
        """Work with these keys from now on, or those of them that others own; return how many."""
        users, here = self._users, self._node.id
        self._keys = [key_of(number) for number in range(count)]
        if remote:
            self._keys = [key for key in self._keys if users.owner_of(key) != here]
        self._value = b"v" * size
        return len(self._keys)

    async def mixed(self, *, in_flight: int, seconds: float) -> float:
        """Read, and write one time in `WRITE_EVERY`; return operations per second."""
        users, keys, value = self._users, self._keys, self._value

        async def operation(n: int) -> None:
            key = keys[n * 7919 % len(keys)]
            if n % WRITE_EVERY:
                await users.get(key)
            else:
                await users.set(key, value)

        return await measure(operation, in_flight=in_flight, seconds=seconds)

    async def reads(self, *, in_flight: int, seconds: float) -> float:
        """Read only; return operations per second."""
        users, keys = self._users, self._keys

        async def operation(n: int) -> None:
            await users.get(keys[n * 7919 % len(keys)])

        return await measure(operation, in_flight=in_flight, seconds=seconds)

    async def stream(self, *, copies: int) -> list[float]:
        """Wait until copies are being made, and until they are complete; return both instants."""
        now = asyncio.get_running_loop().time
        began: float | None = None
        while True:
            rows = self._node.partition_table().rows
            if began is None and any(row.joining for row in rows):
                began = now()
            whole = all(len(row.replicas) == copies and not row.joining for row in rows)
            if began is not None and whole:
                return [began, now()]
            await asyncio.sleep(POLL_INTERVAL)


class RedisLoad:
    """The same load through `redis.asyncio`."""

    def __init__(self, client: Any) -> None:  # Any: redis.asyncio has no types for strict mode
        self._client = client
        self._keys: list[str] = []
        self._value = b""

    def orders(self) -> Orders:
        """Return what it can be told to do."""
        return {"fill": self.fill, "mixed": self.mixed}

    async def fill(self, *, count: int, size: int) -> int:
        """Write keys."""
        self._keys = [key_of(number) for number in range(count)]
        self._value = b"v" * size
        await self._client.mset(dict.fromkeys(self._keys, self._value))
        return count

    async def mixed(self, *, in_flight: int, seconds: float) -> float:
        """Read, and write one time in `WRITE_EVERY`; return operations per second."""
        client, keys, value = self._client, self._keys, self._value

        async def operation(n: int) -> None:
            key = keys[n * 7919 % len(keys)]
            if n % WRITE_EVERY:
                await client.get(key)
            else:
                await client.set(key, value)

        return await measure(operation, in_flight=in_flight, seconds=seconds)


class _Sink(asyncio.Protocol):
    """Confirms each chunk of a stream, by a byte."""

    def __init__(self) -> None:
        self._held = 0
        self._stream: Any = None  # Any: the event loop's own class

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._stream = transport

    def data_received(self, data: bytes) -> None:
        self._held += len(data)
        whole, self._held = divmod(self._held, STREAM_CHUNK)
        if whole:
            self._stream.write(b"k" * whole)


class Source(asyncio.Protocol):
    """Sends chunks, at most `STREAM_WINDOW` of them unconfirmed."""

    def __init__(self, chunks: int) -> None:
        self._unsent = chunks
        self._unconfirmed = chunks
        self._stream: Any = None  # Any: the event loop's own class
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first chunks."""
        self._stream = transport
        for _ in range(STREAM_WINDOW):
            self._send()

    def data_received(self, data: bytes) -> None:
        """Send as many chunks as were confirmed."""
        self._unconfirmed -= len(data)
        for _ in data:
            self._send()
        if not self._unconfirmed:
            self._stream.close()
            self.done.set_result(None)

    def _send(self) -> None:
        if self._unsent:
            self._unsent -= 1
            self._stream.write(b"s" * STREAM_CHUNK)


async def _member(stack: AsyncExitStack, settings: dict[str, Any]) -> tuple[Orders, Any]:
    # Any: fields of ClusterConfig, JSON values
    config = ClusterConfig.local(bind="127.0.0.1:0", leave_timeout=1.0, **settings)
    node = await stack.enter_async_context(Node(config))
    return Member(node).orders(), {"id": node.id, "address": node.address}


async def _redis(stack: AsyncExitStack, settings: dict[str, Any]) -> tuple[Orders, Any]:
    # Any: as `_member`
    module = optional("redis.asyncio")
    assert module is not None, "checked by who starts it"
    client = module.Redis(port=settings["port"], max_connections=1024)
    stack.push_async_callback(client.aclose)
    return RedisLoad(client).orders(), {}


async def _sink(stack: AsyncExitStack, settings: dict[str, Any]) -> tuple[Orders, Any]:
    # Any: as `_member`
    server = await asyncio.get_running_loop().create_server(_Sink, "127.0.0.1", 0)
    stack.callback(server.close)
    return {}, {"port": server.sockets[0].getsockname()[1], **settings}


KINDS: Final = {"member": _member, "redis": _redis, "sink": _sink}


async def main(kind: str, settings: dict[str, Any]) -> int:  # Any: JSON values
    logging.basicConfig(
        level=logging.ERROR
    )  # Others are killed at the end, which would be warned of.
    async with AsyncExitStack() as stack:
        orders, ready = await KINDS[kind](stack, settings)
        print(json.dumps(ready), flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            order = json.loads(line)
            answer = await orders[order.pop("what")](**order)
            print(json.dumps(answer), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(run(main(sys.argv[1], json.loads(sys.argv[3])), loop=sys.argv[2]))
