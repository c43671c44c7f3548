"""Virtual time: one queue of timers, one queue of ready work per process, one seeded order.

Work of one process runs first in, first out, as asyncio promises. Which process goes next among
those that are ready is drawn from the seed. Time jumps to the next timer when nothing is ready. The
same seed gives the same trace.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from random import Random
from typing import Protocol

from xxhash import xxh3_64


class SimulationDeadlock(AssertionError):  # noqa: N818  (named for what happened)
    """Nothing is left to happen although the main coroutine waits."""


class SimulationTimeout(AssertionError):  # noqa: N818  (named for what happened)
    """Virtual time passed the limit of the run."""


class Runnable(Protocol):
    """A piece of work; asyncio's `Handle` is one."""

    def _run(self) -> None: ...

    def cancelled(self) -> bool:
        """Return whether it is not to run."""
        ...


class Lane:
    """The work of one process, in order."""

    __slots__ = (
        "_kernel",
        "_queued",
        "dead",
        "name",
        "on_enter",
        "paused",
        "ready",
        "resting",
        "slowness",
    )

    def __init__(self, kernel: Kernel, name: str, on_enter: Callable[[], None]) -> None:
        self._kernel = kernel
        self.name = name
        self.on_enter = on_enter
        self.ready: deque[Runnable] = deque()
        self.paused = False
        self.dead = False
        self.slowness = 0.0
        """Seconds that each piece of work takes."""
        self.resting = False
        """A slow process is still busy with its last piece of work."""
        self._queued = False

    def add(self, work: Runnable) -> None:
        """Queue work to run now."""
        if not self.dead:
            self.ready.append(work)
            self.offer()

    def offer(self) -> None:
        """Let the kernel know that there may be work."""
        if self.ready and not (self._queued or self.resting or self.paused or self.dead):
            self._queued = True
            self._kernel.lanes.append(self)

    def withdrawn(self) -> None:
        """The kernel took this lane off its list."""
        self._queued = False


class Kernel:
    """Runs all processes of one simulated world."""

    def __init__(self, seed: int | str) -> None:
        self.seed = seed
        self.now = 0.0
        """Seconds since the start of the world."""
        self.lanes: list[Lane] = []
        self.step_count = 0
        self._timers: list[tuple[float, int, Lane, Runnable]] = []
        self._sequence = 0
        self._order = self.random("schedule")
        self._trace = xxh3_64()

    def random(self, name: str) -> Random:
        """Return the stream of randomness of that name; streams do not disturb each other."""
        return Random(f"{self.seed}/{name}")  # Text seeds are hashed with SHA-512: always alike.

    def at(self, when: float, lane: Lane, work: Runnable) -> None:
        """Run `work` on `lane` at an instant of virtual time."""
        self._sequence += 1
        heapq.heappush(self._timers, (max(when, self.now), self._sequence, lane, work))

    def run(self, finished: Callable[[], bool], *, limit: float) -> None:
        """Run until `finished`.

        Raises:
            SimulationDeadlock: nothing more can happen.
            SimulationTimeout: `limit` seconds of virtual time passed.
        """
        while not finished():
            if self.lanes:
                self._step()
            elif not self._timers:
                raise SimulationDeadlock(f"seed {self.seed}: nothing can happen any more")
            elif self._timers[0][0] > limit:
                raise SimulationTimeout(f"seed {self.seed}: not finished after {limit} s")
            else:
                self._advance()

    def _advance(self) -> None:
        timers = self._timers
        self.now = timers[0][0]
        while timers and timers[0][0] <= self.now:
            _, _, lane, work = heapq.heappop(timers)
            if not (lane.dead or work.cancelled()):
                lane.add(work)

    def _step(self) -> None:
        lanes = self.lanes
        index = self._order.randrange(len(lanes)) if len(lanes) > 1 else 0
        lane = lanes[index]
        if lane.paused or lane.dead or not lane.ready:
            self._withdraw(index)
            return
        work = lane.ready.popleft()
        if not lane.ready or lane.slowness:
            self._withdraw(index)
        if work.cancelled():
            self._rest(lane, 0.0)
            return
        self.step_count += 1
        self._trace.update(f"{self.now:.9f} {lane.name} {_label(work)}".encode())
        lane.on_enter()
        work._run()
        self._rest(lane, lane.slowness)

    def _withdraw(self, index: int) -> None:
        lane = self.lanes[index]
        self.lanes[index] = self.lanes[-1]
        self.lanes.pop()
        lane.withdrawn()

    def _rest(self, lane: Lane, seconds: float) -> None:
        if seconds > 0:
            lane.resting = True
            self.at(self.now + seconds, lane, _Offer(lane))
        else:
            lane.offer()

    def trace_hash(self) -> str:
        """Return the hash over every step so far: time, process and what ran."""
        return self._trace.hexdigest()


class _Offer:
    """Wakes a slow lane; itself no work."""

    __slots__ = ("_lane",)

    def __init__(self, lane: Lane) -> None:
        self._lane = lane

    def cancelled(self) -> bool:
        self._lane.resting = False
        self._lane.offer()
        return True

    def _run(self) -> None: ...


def _label(work: object) -> str:
    callback = getattr(work, "_callback", None)
    owner = getattr(callback, "__self__", None)
    coroutine = getattr(owner, "get_coro", None)
    if coroutine is not None:
        return getattr(coroutine(), "__qualname__", "task")
    return getattr(callback, "__qualname__", type(callback).__name__)
