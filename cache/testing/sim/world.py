"""A simulated world: processes on hosts, one network, one kernel of virtual time.

```python
async def scenario(world: World) -> None:
    a = world.process("a")
    b = world.process("b")
    ...
    await a.run(coroutine)          # runs on a's event loop, its result comes back here
    world.network.cut(a.host, b.host)
    a.kill()

run_simulation(42, scenario)        # same seed, same trace
```
"""

from __future__ import annotations

import asyncio
from asyncio import events
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from random import Random
from typing import Any, Final, TypeVar

from cache.cluster.environment import Environment
from cache.cluster.ids import Address, format_address, parse_address
from cache.storage import Identity, Storage
from cache.testing.sim.disk import SimDisk, SimStorage
from cache.testing.sim.kernel import Kernel
from cache.testing.sim.loop import SimLoop
from cache.testing.sim.network import SimNetwork
from cache.testing.sim.streams import SimTransport

T = TypeVar("T")

EPOCH: Final = 1_700_000_000.0
"""Wall clock at the start of a world."""

LIMIT: Final = 3600.0
"""Virtual seconds a scenario may take, unless it says otherwise."""


class ProcessKilledError(Exception):
    """The process that was to answer was killed."""


class SimClock:
    """The clocks of one simulated process."""

    def __init__(self, kernel: Kernel, loop: SimLoop) -> None:
        self._loop = loop
        self._started_at = kernel.now
        self.skew = 0.0
        """Seconds by which the wall clock is wrong; a jump changes it."""

    def monotonic(self) -> float:
        """Return the loop's time."""
        return self._loop.time()

    def wall(self) -> float:
        """Return seconds since the epoch, as this process believes."""
        return EPOCH + self._started_at + self._loop.elapsed() + self.skew


class SimProcess:
    """One life of a process on a simulated host."""

    def __init__(self, world: World, name: str, host: str) -> None:
        self._world = world
        self.name = name
        self.host = host
        self.loop = SimLoop(world.kernel, name)  # type: ignore[abstract]  # the rest is not needed
        self.clock = SimClock(world.kernel, self.loop)
        self._transports: list[SimTransport] = []
        self._waiting: dict[asyncio.Future[Any], None] = {}  # Any: results of `run`

    def __repr__(self) -> str:
        return f"<SimProcess {self.name} on {self.host}>"

    def environment(self) -> Environment:
        """Return the world as a node in this process sees it."""
        return Environment(
            clock=self.clock,
            seed=self._seed,
            transport=self._transport,
            storage=self._storage,
            kept_name=self._kept_name,
        )

    def _storage(self, data_dir: str, identity: Identity) -> Storage:
        return SimStorage(self._world.disk(self.host, data_dir), identity)

    def _kept_name(self, data_dir: str, proposed: str) -> str:
        return self._world.disk(self.host, data_dir).keep_name(proposed)

    def _seed(self, name: str) -> Random:
        return self._world.kernel.random(f"{self.name}/{name}")

    def _transport(self, bind: Address) -> SimTransport:
        host, port = parse_address(bind)
        if host in ("127.0.0.1", "localhost"):
            host = self.host  # Each process has a loopback address of its own.
        transport = SimTransport(self._world.network, self.loop, format_address(host, port))
        self._transports.append(transport)
        return transport

    async def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on this process's loop; the caller is on another one.

        Raises:
            ProcessKilledError: the process was killed first.
        """
        caller = asyncio.get_running_loop()
        answer: asyncio.Future[T] = caller.create_future()
        if self.loop.lane.dead:
            coroutine.close()
            raise ProcessKilledError(f"{self.name} is dead")
        self._waiting[answer] = None
        task: list[asyncio.Task[T]] = []

        def begin() -> None:
            if answer.done():  # The caller has gone before it began.
                coroutine.close()
                return
            task.append(self.loop.create_task(coroutine))
            task[0].add_done_callback(finish)

        def finish(done: asyncio.Task[T]) -> None:
            caller.call_soon(_copy, done, answer)

        self.loop.call_soon(begin)
        try:
            return await answer
        except asyncio.CancelledError:
            if task:
                self.loop.call_soon(task[0].cancel)
            raise
        finally:
            self._waiting.pop(answer, None)

    def pause(self) -> None:
        """Stop execution, as SIGSTOP does: what arrives waits."""
        self.loop.lane.paused = True

    def resume(self) -> None:
        """Run on."""
        self.loop.lane.paused = False
        self.loop.lane.offer()

    def kill(self) -> None:
        """End the process at once, as SIGKILL does: no `finally` runs, its connections are reset."""
        if self.loop.lane.dead:
            return
        for transport in self._transports:
            transport.unbind()
        streams = self._world.network.streams
        for stream in [s for s in streams if s.lane() is self.loop.lane]:
            streams.pop(stream)
            stream.die()
        self.loop.bury()
        for answer in list(self._waiting):
            if not answer.done():
                answer.set_exception(ProcessKilledError(f"{self.name} was killed"))


def _copy(done: asyncio.Task[T], answer: asyncio.Future[T]) -> None:
    if answer.done():
        if not done.cancelled():
            done.exception()  # Looked at: the caller has gone.
    elif done.cancelled():
        answer.cancel()
    elif (error := done.exception()) is not None:
        answer.set_exception(error)
    else:
        answer.set_result(done.result())


class World:
    """Everything of one simulated run."""

    def __init__(self, seed: int | str) -> None:
        self.seed = seed
        self.kernel = Kernel(seed)
        self.network = SimNetwork(self.kernel)
        self.rng = self.kernel.random("workload")
        """Randomness for the scenario itself."""
        self._processes: list[SimProcess] = []
        self._disks: dict[tuple[str, str], SimDisk] = {}
        self._disk_count = 0
        self._main = self.process("main")

    def process(self, name: str, host: str | None = None) -> SimProcess:
        """Start a process; without a host it gets one of its own."""
        number = len(self._processes)
        host = host or f"127.{number // 60_000}.{number // 250 % 250}.{number % 250 + 1}"
        process = SimProcess(self, name, host)
        self._processes.append(process)
        return process

    def disk(self, host: str, data_dir: str) -> SimDisk:
        """Return the disk that a host has at that path: one for each path, made when first asked for."""
        if (host, data_dir) not in self._disks:
            self._disk_count += 1
            name = f"{host}:{data_dir}#{self._disk_count}"
            self._disks[host, data_dir] = SimDisk(self.kernel, name)
        return self._disks[host, data_dir]

    def drop_disk(self, host: str, data_dir: str) -> None:
        """Take a disk away with all that is on it; the next one asked for is empty."""
        self._disks.pop((host, data_dir), None)

    @property
    def now(self) -> float:
        """Virtual seconds since the start."""
        return self.kernel.now

    def trace_hash(self) -> str:
        """Return the hash of everything that ran so far."""
        return self.kernel.trace_hash()

    def run(self, main: Coroutine[Any, Any, T], *, limit: float = LIMIT) -> T:
        """Run the world until `main` is done, then end every process.

        Raises:
            SimulationDeadlock: nothing can happen any more, but `main` waits.
            SimulationTimeout: `limit` virtual seconds passed.
            AssertionError: a process had an exception that nobody caught.
        """
        before = events._get_running_loop()
        try:
            task = self._main.loop.create_task(main, name="main")
            self.kernel.run(task.done, limit=limit)
            errors = [(p, e) for p in self._processes for e in p.loop.errors]
        finally:
            self._end()
            events._set_running_loop(before)
        result = task.result()
        if errors:
            process, context = errors[0]
            error = context.get("exception")
            raise AssertionError(f"{process}: unhandled {context.get('message')}") from error
        return result

    def _end(self) -> None:
        """End every process without letting anything of it act or complain."""
        for process in self._processes:
            process.loop.bury()
        # No loop: the clean-up of one coroutine would start others, which nobody would run or close.
        events._set_running_loop(None)
        for process in self._processes:
            for task in list(process.loop.tasks):
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                with suppress(BaseException):
                    task.get_coro().close()


def run_simulation(
    seed: int | str,
    scenario: Callable[[World], Awaitable[T]],
    *,
    limit: float = LIMIT,
) -> T:
    """Run `scenario` in a fresh world of that seed and return its result."""
    world = World(seed)

    async def main() -> T:
        return await scenario(world)

    return world.run(main(), limit=limit)
