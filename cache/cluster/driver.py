"""Runs any machine: empties the inbox first, then ticks, then carries out what the machine asks for.

The order matters. A loop that was busy for a while finds both an acknowledgement in its inbox and
an overdue timer; were the timer first, an answer already received would become a suspicion.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from cache.clock import Clock
from cache.cluster.machine import Machine

CATCH_UP_TURNS_MAX: Final = 256
"""Turns of the loop after a stall in which only the inbox is handled, while it keeps filling."""

EventT = TypeVar("EventT")
OutputT = TypeVar("OutputT")


class Driver(Generic[EventT, OutputT]):
    """Feeds one machine and keeps one timer for it.

    Args:
        perform: carries out one output; must not raise.
        stalled: called with the seconds by which the loop was late, when above `stall_threshold`.
    """

    def __init__(
        self,
        machine: Machine[EventT, OutputT],
        *,
        clock: Clock,
        perform: Callable[[OutputT], None],
        stalled: Callable[[float], None] | None = None,
        stall_threshold: float = 0.5,
        inbox_max: int = 4096,
    ) -> None:
        self._machine = machine
        self._clock = clock
        self._perform = perform
        self._stalled = stalled
        self._stall_threshold = stall_threshold
        self._inbox: deque[EventT] = deque()
        self._inbox_max = inbox_max
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._woken = False
        self._closed = False
        self._catching_up = 0
        """Turns of the loop that may still be spent on reading after a stall."""
        self._heard = False
        self.dropped_count = 0
        """Events dropped because the inbox was full."""

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def post(self, event: EventT) -> None:
        """Hand over an event; it is handled in this turn of the loop."""
        if self._closed:
            return
        if len(self._inbox) >= self._inbox_max:
            self.dropped_count += 1
            return
        self._inbox.append(event)
        self._heard = True
        self.wake()

    def wake(self) -> None:
        """Run the machine soon."""
        if not self._woken and not self._closed:
            self._woken = True
            asyncio.get_running_loop().call_soon(self._run)

    def flush(self) -> None:
        """Run the machine now."""
        self._woken = True
        self._run()

    def close(self) -> None:
        """Stop; nothing is performed afterwards."""
        self._closed = True
        self._inbox.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _run(self) -> None:
        self._woken = False
        if self._closed:
            return
        now = self._clock.monotonic()
        while self._inbox:
            self._machine.handle(self._inbox.popleft(), now)
        if self._catching_up == 0:
            self._machine.tick(now)
        outputs = deque(self._machine.take_outputs())
        while outputs and not self.closed:  # Carrying out one may close this driver.
            self._perform(outputs.popleft())
        if self._catching_up == 0:
            self._arm()

    def _arm(self) -> None:
        deadline = self._machine.next_deadline()
        if self._timer is not None and deadline == self._timer_at:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if deadline is not None and not self._closed:
            self._timer_at = deadline
            delay = max(0.0, deadline - self._clock.monotonic())
            self._timer = asyncio.get_running_loop().call_later(delay, self._expired)

    def _expired(self) -> None:
        late = self._clock.monotonic() - self._timer_at
        self._timer = None
        if late > self._stall_threshold:
            if self._stalled is not None:
                self._stalled(late)
            self._catching_up = CATCH_UP_TURNS_MAX
            self._heard = True
            self._catch_up()
        else:
            self.wake()

    def _catch_up(self) -> None:
        """Read what arrived during a stall before anybody is judged by a timer.

        An event loop hands over one datagram per turn, so timers wait for a turn that brings none.
        """
        if self._closed:
            return
        self._catching_up -= 1
        heard, self._heard = self._heard, False
        if heard and self._catching_up:
            loop = asyncio.get_running_loop()
            loop.call_soon(loop.call_soon, self._catch_up)
        else:
            self._catching_up = 0
            self.wake()
