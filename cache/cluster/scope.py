"""Structured concurrency for a node: every background task lives in a scope that waits for its end.

`asyncio.TaskGroup` ties start and end to one task; a node is started and closed from different ones
(an application's start-up and shutdown hooks), so the scope is the same idea with explicit ends. This is the
only place in the library that creates tasks.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

logger = logging.getLogger(__name__)


class Scope:
    """Owns tasks. Leaving it (`close`) means that all of them have ended."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._tasks: dict[asyncio.Task[Any], None] = {}  # Any: results of tasks are not used here
        self._closed = False
        self.failure_count = 0

    @property
    def task_count(self) -> int:
        """Tasks that run now."""
        return len(self._tasks)

    def spawn(self, coroutine: Coroutine[Any, Any, None], *, name: str) -> asyncio.Task[None]:
        """Run `coroutine` as a task of this scope; an escaping exception is logged and counted.

        Raises:
            RuntimeError: the scope was closed, or no event loop runs, as when what was left of one is
                collected as garbage; the coroutine was closed.
        """
        if self._closed:
            coroutine.close()
            raise RuntimeError(f"scope {self._name} is closed")
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            coroutine.close()
            raise
        task = loop.create_task(coroutine, name=f"{self._name}.{name}")
        self._tasks[task] = None
        task.add_done_callback(self._finished)
        return task

    def spawn_if_open(self, coroutine: Coroutine[Any, Any, None], *, name: str) -> None:
        """Run `coroutine` as a task of this scope; not at all if that was closed: an answer came late."""
        if self._closed:
            coroutine.close()
        else:
            self.spawn(coroutine, name=name)

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._tasks.pop(task, None)
        if not task.cancelled() and task.exception() is not None:
            self.failure_count += 1
            logger.error("task.failed name=%s", task.get_name(), exc_info=task.exception())

    async def close(self) -> None:
        """Cancel every task and wait until all have ended; idempotent."""
        self._closed = True
        current = asyncio.current_task()
        while tasks := [task for task in self._tasks if task is not current]:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
