"""An asyncio event loop on virtual time, one per simulated process.

It does what ordinary asyncio code needs: callbacks, timers, futures, tasks, executors (run inline).
Sockets are not here: simulated processes reach each other through `SimTransport`.
"""

from __future__ import annotations

import asyncio
import contextvars
from asyncio import events
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar

from cache.testing.sim.kernel import Kernel, Lane

T = TypeVar("T")


class SimTask(asyncio.Task[T]):
    """A task whose hash is a number in order of making, so that sets of tasks have one order."""

    def __init__(
        self,
        coro: Generator[Any, None, T] | Coroutine[Any, Any, T],  # Any: as asyncio has it
        *,
        number: int,
        loop: SimLoop,
        name: str | None,
        context: contextvars.Context | None,
    ) -> None:
        self._number = number  # First: asyncio puts the task into a set while it is made.
        super().__init__(coro, loop=loop, name=name, context=context)

    def __hash__(self) -> int:
        return self._number

    def __eq__(self, other: object) -> bool:
        return self is other


class SimLoop(asyncio.AbstractEventLoop):
    """The event loop of one simulated process. Methods not listed here raise `NotImplementedError`."""

    def __init__(self, kernel: Kernel, name: str) -> None:
        self._kernel = kernel
        self.lane = Lane(kernel, name, self._enter)
        self.name = name
        self.drift = 0.0
        """Part by which this process's clocks run fast (negative: slow)."""
        self.errors: list[dict[str, Any]] = []  # Any: asyncio's exception context
        self.tasks: dict[SimTask[Any], None] = {}  # Any: results are not used here
        self._task_count = 0
        self._origin = 1000.0 + kernel.random(f"origin/{name}").uniform(0, 1000)
        self._anchor = (kernel.now, self._origin)

    def _enter(self) -> None:
        if events._get_running_loop() is not self:
            events._set_running_loop(self)

    # -- time --------------------------------------------------------------------------------

    def time(self) -> float:
        """Return this process's monotonic clock, seconds; the origin differs for each process."""
        since, reading = self._anchor
        return reading + (self._kernel.now - since) * (1 + self.drift)

    def elapsed(self) -> float:
        """Return the seconds since this process started, by its own clock."""
        return self.time() - self._origin

    def set_drift(self, drift: float) -> None:
        """Let the clocks run fast or slow from now on."""
        self._anchor = (self._kernel.now, self.time())
        self.drift = drift

    # -- callbacks ---------------------------------------------------------------------------

    def call_soon(  # type: ignore[override]  # typeshed binds *args to the callback
        self,
        callback: Callable[..., object],
        *args: Any,  # Any: as asyncio has it
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        """Run a callback after those queued before."""
        handle = asyncio.Handle(callback, args, self, context)
        self.lane.add(handle)
        return handle

    def call_soon_threadsafe(  # type: ignore[override]  # typeshed binds *args to the callback
        self,
        callback: Callable[..., object],
        *args: Any,  # Any: as asyncio has it
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        """Same as `call_soon`: there are no threads here."""
        return self.call_soon(callback, *args, context=context)

    def call_later(  # type: ignore[override]  # typeshed binds *args to the callback
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,  # Any: as asyncio has it
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """Run a callback after `delay` seconds of this process's clock."""
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]  # typeshed binds *args to the callback
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,  # Any: as asyncio has it
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """Run a callback at an instant of this process's clock."""
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        delay = (when - self.time()) / (1 + self.drift)
        self._kernel.at(self._kernel.now + delay, self.lane, handle)
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Cancelled timers are skipped when they are due."""

    # -- futures and tasks -------------------------------------------------------------------

    def create_future(self) -> asyncio.Future[Any]:
        """Return a future of this loop."""
        return asyncio.Future(loop=self)

    def create_task(
        self,
        coro: Generator[Any, None, T] | Coroutine[Any, Any, T],
        *,
        name: object = None,
        context: contextvars.Context | None = None,
    ) -> SimTask[T]:
        """Return a task of this loop."""
        text = None if name is None else str(name)
        self._task_count += 1
        number = self._task_count
        task: SimTask[T] = SimTask(coro, number=number, loop=self, name=text, context=context)
        self.tasks[task] = None
        task.add_done_callback(self._task_done)
        return task

    def _task_done(self, task: asyncio.Task[Any]) -> None:
        assert isinstance(task, SimTask), "only this loop's tasks have this callback"
        self.tasks.pop(task, None)

    async def run_in_executor(  # type: ignore[override]  # a coroutine is awaitable as a future is
        self, executor: object, func: Callable[..., T], *args: Any
    ) -> T:
        """Run the function at once: threads would not be deterministic.  # Any: as asyncio."""
        return func(*args)

    # -- the rest asyncio asks for -----------------------------------------------------------

    def get_debug(self) -> bool:
        """Return False: debug mode would read the real clock."""
        return False

    def is_running(self) -> bool:
        """Return whether the process lives."""
        return not self.lane.dead

    def is_closed(self) -> bool:
        """Return whether the process is over."""
        return self.lane.dead

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        """Keep the error for the end of the run.  # Any: asyncio's exception context."""
        if not self.lane.dead:
            self.errors.append(context)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """See `default_exception_handler`.  # Any: asyncio's exception context."""
        self.default_exception_handler(context)

    async def shutdown_asyncgens(self) -> None:
        """Nothing to do."""

    def bury(self) -> None:
        """End the process: nothing of it runs any more, and nothing it left behind complains."""
        self.lane.dead = True
        self.lane.ready.clear()
