"""The driver of machines: inbox before timers, outputs in order, one timer, stalls noticed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from cache.cluster.driver import Driver

TURNS = 6
"""Turns of the loop that suffice for everything that is due."""


class ManualClock:
    """A clock that stands still until a test sets it."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now


class Recorder:
    """A machine that writes down what it is called with, and answers each event with an output."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, float]] = []
        self.outputs: list[str] = []
        self.deadline: float | None = None

    def handle(self, event: str, now: float) -> None:
        self.calls.append((event, now))
        self.outputs.append(f"re: {event}")

    def tick(self, now: float) -> None:
        self.calls.append(("tick", now))

    def next_deadline(self) -> float | None:
        return self.deadline

    def take_outputs(self) -> list[str]:
        outputs, self.outputs = self.outputs, []
        return outputs


class Rig:
    """A driver with everything around it."""

    def __init__(self, perform: Callable[[str], None] | None = None, inbox_max: int = 100) -> None:
        self.clock = ManualClock()
        self.machine = Recorder()
        self.performed: list[str] = []
        self.stalls: list[float] = []
        self.driver: Driver[str, str] = Driver(
            self.machine,
            clock=self.clock,
            perform=perform or self.performed.append,
            stalled=self.stalls.append,
            inbox_max=inbox_max,
        )

    def called(self) -> list[str]:
        return [name for name, _ in self.machine.calls]


async def turns(count: int = TURNS) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_inbox_is_emptied_before_the_tick() -> None:
    """An acknowledgement already received is taken in before its timer fires (kinship's rule)."""
    rig = Rig()

    for event in ("one", "two", "three"):
        rig.driver.post(event)
    await turns()

    assert ["one", "two", "three", "tick"] == rig.called()


async def test_all_calls_of_a_run_share_one_instant() -> None:
    """The clock is read once a run, so that events and timers agree about now."""
    rig = Rig()

    rig.driver.post("one")
    rig.clock.now = 107.0
    await turns()

    assert [("one", 107.0), ("tick", 107.0)] == rig.machine.calls


async def test_outputs_are_carried_out_in_order() -> None:
    """The shell carries out what the machine returns, in list order (machine.py)."""
    rig = Rig()

    rig.driver.post("one")
    rig.driver.post("two")
    await turns()

    assert ["re: one", "re: two"] == rig.performed


async def test_nothing_runs_inside_post() -> None:
    """Events are handled in a later step of the loop: callers are not re-entered."""
    rig = Rig()

    rig.driver.post("one")

    assert [] == rig.machine.calls


async def test_event_posted_by_an_output_is_handled_in_the_next_run() -> None:
    """An output may answer at once; the machine is not re-entered for it."""
    rig = Rig(perform=lambda output: rig.driver.post("answer") if output == "re: ask" else None)

    rig.driver.post("ask")
    await turns()

    assert ["ask", "tick", "answer", "tick"] == rig.called()


async def test_many_wakes_are_one_run() -> None:
    """Waking is idempotent until the machine has run."""
    rig = Rig()

    for _ in range(5):
        rig.driver.wake()
    await turns()

    assert ["tick"] == rig.called()


async def test_flush_runs_at_once() -> None:
    """What the machine wants done now is done before `flush` returns."""
    rig = Rig()
    rig.driver.post("one")

    rig.driver.flush()

    assert (["one", "tick"], ["re: one"]) == (rig.called(), rig.performed)


async def test_full_inbox_drops_and_counts() -> None:
    """The inbox is bounded; what is above is dropped, and counted."""
    rig = Rig(inbox_max=2)

    for event in ("one", "two", "three", "four"):
        rig.driver.post(event)
    await turns()

    assert ["one", "two", "tick"] == rig.called()
    assert 2 == rig.driver.dropped_count


async def test_due_timer_ticks_the_machine() -> None:
    """The instant of `next_deadline` is met without any event."""
    rig = Rig()
    rig.machine.deadline = 100.0

    rig.driver.flush()
    rig.machine.deadline = None
    await turns()

    assert ["tick", "tick"] == rig.called()
    assert [] == rig.stalls


async def test_timer_follows_the_machine() -> None:
    """After each run the one timer is set to the machine's next deadline, or to none."""
    rig = Rig()
    rig.machine.deadline = 100.0
    rig.driver.flush()

    rig.machine.deadline = None
    rig.driver.flush()
    await turns()

    assert ["tick", "tick"] == rig.called()


async def test_timer_is_armed_for_the_time_that_is_left() -> None:
    """The delay is the deadline minus now, on the injected clock."""
    rig = Rig()
    rig.machine.deadline = 100.0 + 3600.0

    before = asyncio.get_running_loop().time()
    rig.driver.flush()

    timer = rig.driver._timer
    assert timer is not None
    assert pytest.approx(3600.0, abs=60.0) == timer.when() - before
    rig.driver.close()


async def test_late_timer_reports_the_stall() -> None:
    """A loop that did not run for a while makes this member the slow one (Lifeguard §3.1)."""
    rig = Rig()
    rig.machine.deadline = 90.0

    rig.driver.flush()
    rig.machine.deadline = None
    await turns()

    assert [10.0] == rig.stalls


@pytest.mark.parametrize(("late", "stalls"), [(0.5, []), (0.75, [0.75])])
async def test_stall_is_what_exceeds_the_threshold(late: float, stalls: list[float]) -> None:
    """A little late is normal; the default threshold is half a second."""
    rig = Rig()
    rig.machine.deadline = 100.0 - late

    rig.driver.flush()
    rig.machine.deadline = None
    await turns()

    assert stalls == rig.stalls


async def test_after_a_stall_the_sockets_are_read_before_the_tick() -> None:
    """What arrived meanwhile is still in the sockets: two turns pass before others are judged."""
    rig = Rig()
    rig.machine.deadline = 90.0
    rig.driver.flush()
    rig.machine.deadline = None

    rig.driver._expired()
    await turns(1)
    rig.driver.post("ack")
    await turns()

    assert ["tick", "ack", "tick"] == rig.called()[:3]


async def test_closed_driver_runs_no_more() -> None:
    """After `close` neither events, nor wakes, nor the timer reach the machine."""
    rig = Rig()
    rig.machine.deadline = 100.0
    rig.driver.flush()
    rig.driver.post("one")

    rig.driver.close()
    rig.driver.post("two")
    rig.driver.wake()
    rig.driver.flush()
    await turns()

    assert (["tick"], []) == (rig.called(), rig.performed)


async def test_after_a_stall_everything_waiting_is_read_before_the_timer() -> None:
    """A loop hands over one datagram per turn: an answer in the fifth is still an answer."""
    rig = Rig()
    loop = asyncio.get_running_loop()
    rig.driver._timer_at = rig.clock.now - 10.0

    def arrive(left: int) -> None:
        rig.driver.post(f"packet {left}")
        if left:
            loop.call_soon(arrive, left - 1)

    arrive(4)
    rig.driver._expired()
    await turns(4 * TURNS)

    assert ["packet 4", "packet 3", "packet 2", "packet 1", "packet 0", "tick"] == rig.called()


async def test_closing_while_outputs_are_carried_out_ends_them() -> None:
    """Nothing is performed afterwards."""
    performed: list[str] = []

    def perform(output: str) -> None:
        performed.append(output)
        rig.driver.close()

    rig = Rig(perform)
    rig.driver.post("one")
    rig.driver.post("two")

    rig.driver.flush()

    assert ["re: one"] == performed
