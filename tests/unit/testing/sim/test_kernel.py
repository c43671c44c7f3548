"""The kernel of virtual time, driven by hand: timers, lanes, seeded order, trace."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cache.testing.sim.kernel import Kernel, Lane, SimulationDeadlock, SimulationTimeout


class Work:
    """A piece of work that calls a function."""

    def __init__(self, action: Callable[[], object]) -> None:
        self._callback = action
        self.is_cancelled = False

    def cancelled(self) -> bool:
        return self.is_cancelled

    def _run(self) -> None:
        self._callback()


def lane_of(kernel: Kernel, name: str = "a") -> Lane:
    return Lane(kernel, name, lambda: None)


def note(log: list[str], text: str) -> Work:
    return Work(lambda: log.append(text))


def run_for(kernel: Kernel, seconds: float) -> None:
    """Let virtual time pass and everything due by then run."""
    over: list[bool] = []
    kernel.at(kernel.now + seconds, lane_of(kernel, "end"), Work(lambda: over.append(True)))
    kernel.run(lambda: bool(over) and not kernel.lanes, limit=kernel.now + seconds)


def interleaving(seed: int) -> str:
    """Return the order in which three processes of four pieces of work each took turns."""
    kernel = Kernel(seed)
    log: list[str] = []
    for name in "abc":
        lane = lane_of(kernel, name)
        for number in range(4):
            lane.add(note(log, f"{name}{number}"))
    kernel.run(lambda: len(log) == 12, limit=1)
    return " ".join(log)


def trace(seed: int, names: str = "abc") -> str:
    """Return the trace hash of a run in which one timer fires on each lane."""
    kernel = Kernel(seed)
    for name in names:
        kernel.at(0.5, lane_of(kernel, name), Work(lambda: None))
    run_for(kernel, 1)
    return kernel.trace_hash()


# -- timers --------------------------------------------------------------------------------------


def test_timers_run_in_order_of_their_instants() -> None:
    """The earliest timer fires first, whenever it was set."""
    kernel, log = Kernel(0), list[str]()
    lane = lane_of(kernel)
    for instant in (3, 1, 2):
        kernel.at(instant, lane, note(log, str(instant)))

    run_for(kernel, 4)

    assert ["1", "2", "3"] == log


def test_timers_of_one_instant_run_in_order_of_making() -> None:
    """Ties are broken by a sequence number, never by address."""
    kernel, log = Kernel(0), list[str]()
    lane = lane_of(kernel)
    for text in "cab":
        kernel.at(1, lane, note(log, text))

    run_for(kernel, 2)

    assert ["c", "a", "b"] == log


def test_time_jumps_to_the_next_timer() -> None:
    """Nothing happens between two timers, so no time is spent there."""
    kernel, seen = Kernel(0), list[float]()
    lane = lane_of(kernel)
    for instant in (0.25, 1000.0):
        kernel.at(instant, lane, Work(lambda: seen.append(kernel.now)))

    run_for(kernel, 2000)

    assert [0.25, 1000.0] == seen


def test_a_timer_in_the_past_runs_now() -> None:
    """Virtual time never goes back."""
    kernel, seen = Kernel(0), list[float]()
    run_for(kernel, 5)
    kernel.at(1, lane_of(kernel), Work(lambda: seen.append(kernel.now)))

    run_for(kernel, 1)

    assert [5.0] == seen


def test_time_stands_still_while_work_is_ready() -> None:
    """A timer waits for all ready work, and for the work which that makes."""
    kernel, seen = Kernel(0), list[float]()
    lane = lane_of(kernel)
    kernel.at(0.001, lane, Work(lambda: seen.append(kernel.now)))

    def again() -> None:
        seen.append(kernel.now)
        for _ in range(len(seen), min(len(seen) + 1, 50)):
            lane.add(Work(again))

    lane.add(Work(again))
    run_for(kernel, 1)

    assert [0.0] * 50 + [0.001] == seen


def test_cancelled_work_does_not_run() -> None:
    """Neither a cancelled timer nor cancelled ready work is run."""
    kernel, log = Kernel(0), list[str]()
    lane = lane_of(kernel)
    timer, ready = note(log, "timer"), note(log, "ready")
    kernel.at(1, lane, timer)
    lane.add(ready)
    timer.is_cancelled = ready.is_cancelled = True

    run_for(kernel, 2)

    assert [] == log


# -- lanes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_work_of_one_process_is_first_in_first_out(seed: int) -> None:
    """Whatever the order between processes, each keeps asyncio's promise."""
    order = interleaving(seed).split()

    for name in "abc":
        assert [f"{name}{n}" for n in range(4)] == [work for work in order if work[0] == name]


def test_the_order_between_processes_comes_from_the_seed() -> None:
    """The same seed interleaves alike; other seeds find other interleavings."""
    orders = [interleaving(seed) for seed in range(8)]

    assert orders == [interleaving(seed) for seed in range(8)]
    assert 8 == len(set(orders))


def test_a_paused_process_runs_nothing() -> None:
    """Ready work and due timers wait, as after SIGSTOP."""
    kernel, log = Kernel(0), list[str]()
    lane = lane_of(kernel)
    lane.add(note(log, "ready"))
    kernel.at(1, lane, note(log, "timer"))
    lane.paused = True

    run_for(kernel, 10)

    assert [] == log


def test_a_resumed_process_runs_what_waited_in_order() -> None:
    """What became ready during the pause runs afterwards, first in, first out."""
    kernel, log = Kernel(0), list[str]()
    lane = lane_of(kernel)
    lane.paused = True
    lane.add(note(log, "ready"))
    kernel.at(1, lane, note(log, "timer"))
    run_for(kernel, 10)

    lane.paused = False
    lane.offer()
    run_for(kernel, 0)

    assert ["ready", "timer"] == log


def test_a_dead_process_runs_neither_timers_nor_new_work() -> None:
    """After SIGKILL nothing of a process acts."""
    kernel, log = Kernel(0), list[str]()
    lane = lane_of(kernel)
    kernel.at(1, lane, note(log, "timer"))

    lane.dead = True
    lane.add(note(log, "ready"))
    run_for(kernel, 2)

    assert [] == log


def test_each_piece_of_work_of_a_slow_process_takes_its_time() -> None:
    """`slowness` is the time between the pieces of work that are ready."""
    kernel, seen = Kernel(0), list[float]()
    lane = lane_of(kernel)
    lane.slowness = 0.5
    for _ in range(3):
        lane.add(Work(lambda: seen.append(kernel.now)))

    run_for(kernel, 2)

    assert [0.0, 0.5, 1.0] == seen


def test_a_slow_process_holds_up_no_other() -> None:
    """Each process has a processor of its own."""
    kernel, seen = Kernel(0), list[float]()
    slow, quick = lane_of(kernel, "slow"), lane_of(kernel, "quick")
    slow.slowness = 1.0
    for _ in range(3):
        slow.add(Work(lambda: None))
        quick.add(Work(lambda: seen.append(kernel.now)))

    run_for(kernel, 5)

    assert [0.0] * 3 == seen


# -- the end of a run ----------------------------------------------------------------------------


def test_a_run_in_which_nothing_can_happen_raises_and_names_its_seed() -> None:
    """A wait for something that never comes is found at once, not by a time-out."""
    kernel = Kernel(4711)

    with pytest.raises(SimulationDeadlock, match="seed 4711"):
        kernel.run(lambda: False, limit=1)


def test_a_run_past_its_limit_raises_and_names_its_seed() -> None:
    """Virtual time stops short of the first timer beyond the limit."""
    kernel = Kernel(4711)
    kernel.at(11, lane_of(kernel), Work(lambda: None))

    with pytest.raises(SimulationTimeout, match="seed 4711"):
        kernel.run(lambda: False, limit=10)

    assert 0.0 == kernel.now


# -- randomness and trace ------------------------------------------------------------------------


def test_streams_of_randomness_do_not_disturb_each_other() -> None:
    """A stream depends on the seed and its name, not on what others have drawn."""
    undisturbed = Kernel(1).random("a").random()
    kernel = Kernel(1)
    kernel.random("b").random()

    assert undisturbed == kernel.random("a").random()
    assert 4 == len({Kernel(seed).random(name).random() for seed in (1, 2) for name in "ab"})


def test_the_same_seed_gives_the_same_trace() -> None:
    """A trace is a function of the seed and the work."""
    assert trace(7) == trace(7)


def test_the_trace_tells_which_process_ran() -> None:
    """A run on other processes is another run."""
    assert trace(7, "abc") != trace(7, "abd")


def test_the_trace_tells_in_which_order_processes_ran() -> None:
    """Seeds that interleave three processes differently have different traces."""
    assert 1 < len({trace(seed) for seed in range(10)})
