"""The event loop that blocking code lends itself: one for the process, in a thread, made on first use.

`SyncCache` crosses to it for whatever needs a loop. The thread is a daemon and ends with the interpreter;
what was adopted is closed first. A forked child has none of its parent's threads, and gets a loop of its
own.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextlib
import functools
import logging
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol, TypeVar
from weakref import WeakSet

from cache.errors import ClosedError, WrongLoopError
from cache.forks import watch

logger = logging.getLogger(__name__)

R = TypeVar("R")

EXIT_TIMEOUT: Final = 5.0
"""Seconds that caches may take to close when the interpreter ends."""

STOP_MARGIN: Final = 1.0
"""Seconds for the loop itself to end after that."""


class Closable(Protocol):
    """What can be adopted."""

    async def close(self) -> None:
        """End; idempotent."""
        ...


class LoopThread:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._renew()
        watch(self, LoopThread._forked)
        atexit.register(self.stop)

    def _renew(self) -> None:
        self._lock = threading.Lock()  # guards the start
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stopping: asyncio.Event | None = None
        self._adopted: WeakSet[Closable] = WeakSet()

    def _forked(self) -> None:
        # The parent's loop is kept: at its end it would complain that nobody closed it.
        self._inherited = self._loop
        self._renew()

    def loop(self) -> asyncio.AbstractEventLoop:
        """Return the loop, running."""
        with self._lock:
            if self._loop is None or self._loop.is_closed():
                ready = threading.Event()
                self._thread = threading.Thread(
                    target=self._run, args=(ready,), name="cache.loop", daemon=True
                )
                self._thread.start()
                ready.wait()
            assert self._loop is not None, "the thread said that it was ready"
            return self._loop

    def _run(self, ready: threading.Event) -> None:
        with asyncio.Runner() as runner:
            runner.run(self._serve(ready))

    async def _serve(self, ready: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        ready.set()
        await self._stopping.wait()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(EXIT_TIMEOUT), asyncio.TaskGroup() as group:
                for cache in list(self._adopted):
                    group.create_task(_close(cache))
        self._adopted.clear()

    def adopt(self, cache: Closable) -> None:
        """Close a cache that lives on this loop before the interpreter ends, if it is still there."""
        self._adopted.add(cache)

    def stop(self) -> None:
        """Close what was adopted and end the thread; a later call of `loop` starts another."""
        thread, loop, stopping = self._thread, self._loop, self._stopping
        if thread is None or loop is None or stopping is None:
            return
        with contextlib.suppress(RuntimeError):  # The loop was closed already.
            loop.call_soon_threadsafe(stopping.set)
        thread.join(EXIT_TIMEOUT + STOP_MARGIN)
        with self._lock:
            self._loop = self._thread = self._stopping = None


async def _close(cache: Closable) -> None:
    try:
        await cache.close()
    except Exception:
        logger.exception("cache.close_failed cache=%r", cache)


@functools.cache
def loop_thread() -> LoopThread:
    """Return the process's one."""
    return LoopThread()


def check_may_wait(target: asyncio.AbstractEventLoop) -> None:
    """Refuse to wait for `target` on a thread whose own event loop would stand still meanwhile.

    Raises:
        WrongLoopError: an event loop runs here, or `target` does not run at all.
    """
    running = asyncio._get_running_loop()
    if running is target:
        raise WrongLoopError(
            "a blocking call on the cache's own event loop would wait for itself; await the async "
            "cache here"
        )
    if running is not None:
        raise WrongLoopError(
            "a blocking call would hold up the event loop that runs in this thread; await the async "
            "cache here (`cache.open`), or make the call with `asyncio.to_thread`"
        )
    if not target.is_running():
        raise WrongLoopError("the event loop that the cache lives on does not run")


def wait_for(future: concurrent.futures.Future[R]) -> R:
    """Return the result of what runs on a loop; whatever ends the wait early ends that, too.

    Raises:
        ClosedError: the loop ended.
    """
    try:
        return future.result()
    except concurrent.futures.CancelledError:
        raise ClosedError("the event loop of this cache ended") from None
    except BaseException:
        future.cancel()
        raise


def submit(
    loop: asyncio.AbstractEventLoop,
    method: Callable[..., Coroutine[Any, Any, R]],
    *args: object,
    **kwargs: object,
) -> concurrent.futures.Future[R]:
    """Begin a coroutine on a loop that runs in another thread.  Any: what coroutines send and yield.

    Raises:
        ClosedError: the loop ended.
    """
    coroutine = method(*args, **kwargs)
    try:
        return asyncio.run_coroutine_threadsafe(coroutine, loop)
    except BaseException as error:
        coroutine.close()
        if isinstance(error, RuntimeError):
            raise ClosedError("the event loop of this cache ended") from error
        raise
