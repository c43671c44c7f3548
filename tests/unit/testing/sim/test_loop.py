"""The event loop on virtual time, as asyncio code sees it."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from cache.testing.sim.world import World, run_simulation


def test_call_later_runs_in_order_of_time() -> None:
    """The shortest delay fires first, whenever it was asked for."""

    async def scenario(world: World) -> list[float]:
        log: list[float] = []
        for delay in (0.3, 0.1, 0.2):
            asyncio.get_running_loop().call_later(delay, log.append, delay)
        await asyncio.sleep(1)
        return log

    assert [0.1, 0.2, 0.3] == run_simulation(0, scenario)


def test_call_later_fires_after_exactly_its_delay() -> None:
    """There is no lateness in virtual time."""

    async def scenario(world: World) -> float:
        await asyncio.sleep(1234.5)
        return world.now

    assert 1234.5 == pytest.approx(run_simulation(0, scenario))


def test_call_soon_is_first_in_first_out_on_each_process() -> None:
    """FIFO inside a node whichever node goes first."""

    async def scenario(world: World) -> list[str]:
        log: list[str] = []
        a, b = world.process("a"), world.process("b")
        for number in range(10):
            a.loop.call_soon(log.append, f"a{number}")
            b.loop.call_soon(log.append, f"b{number}")
        await asyncio.sleep(1)
        return log

    log = run_simulation(3, scenario)

    assert [f"a{n}" for n in range(10)] == [text for text in log if text[0] == "a"]
    assert [f"b{n}" for n in range(10)] == [text for text in log if text[0] == "b"]


def test_sleeping_zero_seconds_lets_no_time_pass() -> None:
    """Virtual time does not advance while a task can run."""

    async def scenario(world: World) -> float:
        for _ in range(1000):
            await asyncio.sleep(0)
        return world.now

    assert 0.0 == run_simulation(0, scenario)


def test_a_cancelled_timer_does_not_fire() -> None:
    """`TimerHandle.cancel` holds although the timer stays in the queue."""

    async def scenario(world: World) -> list[str]:
        log: list[str] = []
        asyncio.get_running_loop().call_later(1, log.append, "fired").cancel()
        await asyncio.sleep(2)
        return log

    assert [] == run_simulation(0, scenario)


def test_a_paused_process_runs_no_callback_and_no_timer() -> None:
    """SIGSTOP: work and time-outs wait until the process runs on."""

    async def scenario(world: World) -> tuple[list[str], list[str]]:
        log: list[str] = []
        a = world.process("a")
        a.pause()
        a.loop.call_later(1, log.append, "timer")
        a.loop.call_soon(log.append, "soon")
        await asyncio.sleep(5)
        during = list(log)
        a.resume()
        await asyncio.sleep(0.001)
        return during, log

    assert ([], ["soon", "timer"]) == run_simulation(0, scenario)


def test_time_goes_on_for_a_paused_process() -> None:
    """A resumed process finds that its clock has moved, as after a real SIGSTOP."""

    async def scenario(world: World) -> float:
        a = world.process("a")
        before = a.loop.time()
        a.pause()
        await asyncio.sleep(30)
        a.resume()
        return a.loop.time() - before

    assert 30.0 == pytest.approx(run_simulation(0, scenario))


def test_wait_for_times_out_in_virtual_time() -> None:
    """asyncio's own time-outs work on this loop."""

    async def scenario(world: World) -> float:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), 60)
        return world.now

    assert 60.0 == pytest.approx(run_simulation(0, scenario))


def test_an_executor_runs_the_function_at_once() -> None:
    """Threads would not be deterministic."""

    async def scenario(world: World) -> tuple[int, float]:
        answer = await asyncio.to_thread(divmod, 17, 5)
        return sum(answer), world.now

    assert (5, 0.0) == run_simulation(0, scenario)


def test_a_set_of_tasks_iterates_in_order_of_making() -> None:
    """asyncio keeps sets of tasks; their order must not depend on addresses."""

    async def scenario(world: World) -> list[str]:
        names = [f"t{number}" for number in range(6)]
        tasks = [asyncio.create_task(asyncio.sleep(1), name=name) for name in names]
        Random(1).shuffle(tasks)
        return [task.get_name() for task in set(tasks)]

    assert [f"t{number}" for number in range(6)] == run_simulation(0, scenario)


def test_clocks_of_two_processes_have_different_origins() -> None:
    """A monotonic reading of one process means nothing to another."""

    async def scenario(world: World) -> tuple[float, float]:
        return world.process("a").loop.time(), world.process("b").loop.time()

    a, b = run_simulation(0, scenario)

    assert a != b


def test_a_fast_clock_fires_its_timers_early() -> None:
    """With a drift of +25 %, ten seconds of a process are eight of the world."""

    async def scenario(world: World) -> float:
        a = world.process("a")
        a.loop.set_drift(0.25)
        await a.run(asyncio.sleep(10))
        return world.now

    assert 8.0 == pytest.approx(run_simulation(0, scenario))


def test_a_change_of_drift_does_not_make_the_monotonic_clock_jump() -> None:
    """Only the pace changes, from now on."""

    async def scenario(world: World) -> tuple[float, float]:
        a = world.process("a")
        await asyncio.sleep(1000)
        before = a.loop.time()
        a.loop.set_drift(0.5)
        return before, a.loop.time()

    before, after = run_simulation(0, scenario)

    assert before == after


def test_an_exception_in_a_callback_fails_the_run() -> None:
    """What nobody caught in any process surfaces at the end, with its cause."""

    async def scenario(world: World) -> None:
        world.process("a").loop.call_soon(int, "x")
        await asyncio.sleep(1)

    with pytest.raises(AssertionError, match="SimProcess a") as caught:
        run_simulation(0, scenario)

    assert isinstance(caught.value.__cause__, ValueError)


def test_an_exception_in_a_task_nobody_awaits_fails_the_run() -> None:
    """A task's exception that was never retrieved surfaces too."""

    async def fail() -> None:
        raise LookupError("lost")

    async def scenario(world: World) -> None:
        a = world.process("a")
        a.loop.call_soon(lambda: a.loop.create_task(fail()))
        await asyncio.sleep(1)

    with pytest.raises(AssertionError, match="never retrieved") as caught:
        run_simulation(0, scenario)

    assert isinstance(caught.value.__cause__, LookupError)


def test_a_dead_process_is_closed_and_not_running() -> None:
    """asyncio code asks its loop whether it may still schedule."""

    async def scenario(world: World) -> list[bool]:
        a = world.process("a")
        alive = [a.loop.is_running(), a.loop.is_closed()]
        a.kill()
        return [*alive, a.loop.is_running(), a.loop.is_closed()]

    assert [True, False, False, True] == run_simulation(0, scenario)
