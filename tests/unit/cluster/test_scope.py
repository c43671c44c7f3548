"""Structured concurrency: leaving a scope means that everything in it has stopped."""

from __future__ import annotations

import asyncio
import inspect
import logging

import pytest

from cache.cluster.scope import Scope


async def _for_ever(ended: list[str], name: str) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        ended.append(name)


async def test_close_ends_every_task() -> None:
    """After `close` nothing of the scope runs."""
    scope, ended = Scope("node"), list[str]()
    tasks = [scope.spawn(_for_ever(ended, name), name=name) for name in ("a", "b")]
    await asyncio.sleep(0)

    await scope.close()

    assert sorted(ended) == ["a", "b"]
    assert all(task.cancelled() for task in tasks)


async def test_close_waits_for_cleanup() -> None:
    """A task that needs some turns of the loop to clean up gets them."""
    scope, steps = Scope("node"), list[int]()

    async def cleans_up() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            for step in range(3):
                await asyncio.sleep(0)
                steps.append(step)

    scope.spawn(cleans_up(), name="cleaner")
    await asyncio.sleep(0)

    await scope.close()

    assert steps == [0, 1, 2]


async def test_close_twice_is_harmless() -> None:
    """`close` is idempotent."""
    scope = Scope("node")

    await scope.close()
    await scope.close()


async def test_closed_scope_takes_no_task() -> None:
    """A late spawn raises, and its coroutine is closed rather than left un-awaited."""
    scope, ended = Scope("node"), list[str]()
    await scope.close()

    with pytest.raises(RuntimeError, match="node is closed"):
        scope.spawn(_for_ever(ended, "late"), name="late")
    scope.spawn_if_open(_for_ever(ended, "late"), name="late")

    assert 0 == scope.task_count


async def test_failure_is_logged_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    """An exception at a task's root is never lost."""
    scope = Scope("node")

    async def fails() -> None:
        raise KeyError("planted")

    with caplog.at_level(logging.ERROR):
        task = scope.spawn(fails(), name="prober")
        await asyncio.wait([task])

    assert scope.failure_count == 1
    assert "task.failed name=node.prober" in caplog.text
    assert "planted" in caplog.text
    await scope.close()


async def test_cancelled_task_is_not_a_failure() -> None:
    """Stopping is not failing."""
    scope, ended = Scope("node"), list[str]()
    task = scope.spawn(_for_ever(ended, "a"), name="a")
    await asyncio.sleep(0)

    task.cancel()
    await asyncio.wait([task])
    await scope.close()

    assert scope.failure_count == 0


async def test_task_may_close_its_own_scope() -> None:
    """A node that is told to stop by one of its tasks does not wait for that task."""
    scope, ended = Scope("node"), list[str]()
    scope.spawn(_for_ever(ended, "other"), name="other")

    async def stops() -> None:
        await asyncio.sleep(0)
        await scope.close()
        ended.append("stopper")

    await asyncio.wait([scope.spawn(stops(), name="stopper")])

    assert ended == ["other", "stopper"]


def test_without_an_event_loop_the_coroutine_is_closed() -> None:
    """The clean-up of an abandoned coroutine may want to run something; a warning would hit another test."""
    scope = Scope("test")

    async def work() -> None:
        """Never runs."""

    coroutine = work()
    with pytest.raises(RuntimeError, match="no running event loop"):
        scope.spawn(coroutine, name="work")

    assert "CORO_CLOSED" == inspect.getcoroutinestate(coroutine)
