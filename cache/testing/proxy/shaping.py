"""What happens to the bytes of one direction of one stream, as a function of the bytes and the time.

A `Pipe` is a row of shapers, one for each toxic at work. Items (bytes, or the end of the stream) are fed
at one end and taken at the other once their time has come; order is always kept. A shaper that is taken
out hands on at once what it held back, as the networks it stands for do when they recover.

Pure: time is an argument, randomness arrives as a `Random`. The sockets are in `relay.py`.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable
from math import inf
from random import Random
from typing import Final

RETRANSMISSION: Final = 0.2
"""Seconds after which TCP sends again what was lost, at first; then twice as many each time. RFC 6298 §2.4
has a second, Linux this."""

RETRANSMISSIONS_MAX: Final = 6
"""Doublings; a stream whose every segment is lost stands still."""

SLICE_INTERVAL: Final = 0.1
"""Seconds of a narrow link that one piece takes at most, so that bytes trickle."""


class End(enum.Enum):
    """How a stream ends."""

    EOF = "eof"
    """One side has no more to say; the other may go on."""
    CLOSE = "close"
    """Both directions end, as by `close`."""
    RESET = "reset"
    """Both directions end at once, as by a TCP reset."""


Item = bytes | End


class Tally:
    """How many packets, or pieces of streams, a fault has touched."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0

    def add(self) -> None:
        """One more."""
        self.count += 1


class Shaper:
    """One toxic at work on one direction of one stream. This one lets everything pass."""

    def __init__(self, tally: Tally) -> None:
        self.tally = tally
        self.size_bytes = 0
        self._waiting: deque[tuple[float, Item]] = deque()

    def begin(self, now: float) -> None:
        """Take up work: the stream was opened, or the toxic was added."""

    def feed(self, item: Item, now: float) -> None:
        """Take one item that arrives at `now`."""
        self._put(item, now)

    def deadline(self) -> float | None:
        """When the next item leaves; None while nothing is going to."""
        if not self._waiting or self._waiting[0][0] == inf:
            return None
        return self._waiting[0][0]

    def due(self, now: float) -> list[tuple[float, Item]]:
        """Hand on what leaves by `now`, with the instants at which it does."""
        leaving = []
        while self._waiting and self._waiting[0][0] <= now:
            at, item = self._waiting.popleft()
            self.size_bytes -= _size(item)
            leaving.append((at, item))
        return leaving

    def flush(self) -> list[Item]:
        """Stop working; hand on everything that was held back."""
        items = [item for _, item in self._waiting]
        self._waiting.clear()
        self.size_bytes = 0
        return items

    def leave(self) -> list[Item]:
        """Stop working because the toxic is removed; hand on what follows from that."""
        return self.flush()

    def succeed(self, former: Shaper, now: float) -> None:
        """Take over from the same toxic with other attributes."""

    def _put(self, item: Item, at: float) -> None:
        """Let an item leave at `at`, but not before those before it."""
        self._waiting.append((at, item))
        self.size_bytes += _size(item)


def _size(item: Item) -> int:
    return len(item) if isinstance(item, bytes) else 0


class Delayed(Shaper):
    """Each item leaves after a time of its own."""

    def __init__(self, tally: Tally, delay: Callable[[], float]) -> None:
        super().__init__(tally)
        self._delay = delay

    def feed(self, item: Item, now: float) -> None:
        """Hold it back for as long as the draw says."""
        delay = self._delay()
        if delay > 0:
            self.tally.add()
        self._put(item, now + delay)


class Narrow(Shaper):
    """So many bytes a second; none at all for 0."""

    def __init__(self, tally: Tally, bytes_per_second: float) -> None:
        super().__init__(tally)
        self._rate = bytes_per_second
        self._free_at = 0.0

    def feed(self, item: Item, now: float) -> None:
        """Queue it piece by piece."""
        if isinstance(item, End):
            self._put(item, now)
            return
        self.tally.add()
        if self._rate <= 0:
            self._put(item, inf)
            return
        step = max(1, int(self._rate * SLICE_INTERVAL))
        for start in range(0, len(item), step):
            piece = item[start : start + step]
            self._free_at = max(self._free_at, now) + len(piece) / self._rate
            self._put(piece, self._free_at)


class SlowClose(Shaper):
    """The end of the stream comes late."""

    def __init__(self, tally: Tally, delay: float) -> None:
        super().__init__(tally)
        self._delay = delay

    def feed(self, item: Item, now: float) -> None:
        """Hold back the end only."""
        if isinstance(item, End):
            self.tally.add()
            self._put(item, now + self._delay)
        else:
            self._put(item, now)


class Swallowing(Shaper):
    """Nothing gets through; the stream is closed after a time, and when the toxic is removed."""

    def __init__(self, tally: Tally, timeout: float) -> None:
        super().__init__(tally)
        self._timeout = timeout

    def begin(self, now: float) -> None:
        """Set the time of the end."""
        if self._timeout > 0:
            self._put(End.CLOSE, now + self._timeout)

    def feed(self, item: Item, now: float) -> None:
        """Lose it."""
        self.tally.add()

    def flush(self) -> list[Item]:
        """Hand on nothing: what was swallowed is gone."""
        super().flush()
        return []

    def leave(self) -> list[Item]:
        """End the stream: it has a hole."""
        super().flush()
        return [End.CLOSE]


class Resetting(Shaper):
    """The first bytes bring a reset, some time later; nothing gets through."""

    def __init__(self, tally: Tally, timeout: float) -> None:
        super().__init__(tally)
        self._timeout = timeout
        self._hit = False

    def feed(self, item: Item, now: float) -> None:
        """Lose it, and arm the reset once."""
        self.tally.add()
        if not self._hit:
            self._hit = True
            self._put(End.RESET, now + self._timeout)

    def flush(self) -> list[Item]:
        """Hand on nothing: the successor will reset."""
        super().flush()
        return []

    def leave(self) -> list[Item]:
        """Reset now what lost bytes already."""
        super().flush()
        return [End.RESET] if self._hit else []

    def succeed(self, former: Shaper, now: float) -> None:
        """What lost bytes already is reset."""
        if isinstance(former, Resetting) and former._hit:
            self._hit = True
            self._put(End.RESET, now + self._timeout)


class Sliced(Shaper):
    """Bytes leave in small pieces with pauses between them."""

    def __init__(
        self, tally: Tally, *, average: int, variation: int, delay: float, rng: Random
    ) -> None:
        super().__init__(tally)
        self._average = average
        self._variation = variation
        self._delay = delay
        self._rng = rng
        self._free_at = 0.0

    def feed(self, item: Item, now: float) -> None:
        """Cut it into pieces of `average` ± `variation` bytes."""
        at = max(self._free_at, now)
        if isinstance(item, End):
            self._put(item, at)
            return
        start = 0
        while start < len(item):
            size = self._average + self._rng.randint(-self._variation, self._variation)
            piece = item[start : start + max(1, size)]
            start += len(piece)
            self.tally.add()
            self._put(piece, at)
            at += self._delay
        self._free_at = at


class Limited(Shaper):
    """The stream is closed once so many bytes have passed."""

    def __init__(self, tally: Tally, limit_bytes: int) -> None:
        super().__init__(tally)
        self._limit_bytes = limit_bytes
        self.passed_bytes = 0
        self._ended = False

    def succeed(self, former: Shaper, now: float) -> None:
        """What has passed before counts."""
        if isinstance(former, Limited):
            self.passed_bytes = former.passed_bytes

    def feed(self, item: Item, now: float) -> None:
        """Let the bytes below the limit pass."""
        if self._ended:
            return
        if isinstance(item, End):
            self._put(item, now)
            return
        allowed = item[: max(0, self._limit_bytes - self.passed_bytes)]
        self.passed_bytes += len(allowed)
        if allowed:
            self._put(allowed, now)
        if self.passed_bytes >= self._limit_bytes:
            self._ended = True
            self.tally.add()
            self._put(End.CLOSE, now)


def retransmitted(probability: float, rng: Random) -> float:
    """Draw how long a segment takes longer when each attempt is lost with this probability."""
    if probability >= 1:
        return inf
    delay = 0.0
    for attempt in range(RETRANSMISSIONS_MAX):
        if rng.random() >= probability:
            break
        delay += RETRANSMISSION * 2**attempt
    return delay


class Pipe:
    """One direction of one stream: shapers in a row, by the names of their toxics."""

    def __init__(self) -> None:
        self._stages: dict[str, Shaper] = {}
        self._out: deque[Item] = deque()
        self._out_bytes = 0

    @property
    def size_bytes(self) -> int:
        """Bytes inside, for the shell to stop reading when there are too many."""
        return self._out_bytes + sum(stage.size_bytes for stage in self._stages.values())

    def feed(self, item: Item, now: float) -> None:
        """Let an item begin its way."""
        self._into(0, item, now)
        self._advance(now)

    def take(self, now: float) -> list[Item]:
        """Return what has arrived at the far end by `now`."""
        self._advance(now)
        arrived = list(self._out)
        self._out.clear()
        self._out_bytes = 0
        return arrived

    def deadline(self) -> float | None:
        """When something moves next by itself; None while nothing is going to."""
        deadlines = [stage.deadline() for stage in self._stages.values()]
        return min((at for at in deadlines if at is not None), default=None)

    def add(self, name: str, shaper: Shaper, now: float) -> None:
        """Put a shaper last in the row, or in the place of the one of that name."""
        former = self._stages.get(name)
        self._stages[name] = shaper
        shaper.begin(now)
        if former is not None:
            shaper.succeed(former, now)
            self._move_on(former.flush(), self._position(name) + 1, now)

    def remove(self, name: str, now: float) -> None:
        """Take a shaper out; what it held back moves on."""
        position = self._position(name)
        former = self._stages.pop(name)
        self._move_on(former.leave(), position, now)

    def __contains__(self, name: object) -> bool:
        return name in self._stages

    def _position(self, name: str) -> int:
        return list(self._stages).index(name)

    def _move_on(self, items: list[Item], position: int, now: float) -> None:
        for item in items:
            self._into(position, item, now)
        self._advance(now)

    def _advance(self, now: float) -> None:
        for position, stage in enumerate(self._stages.values()):
            for at, item in stage.due(now):
                self._into(position + 1, item, at)

    def _into(self, position: int, item: Item, at: float) -> None:
        stages = list(self._stages.values())
        if position < len(stages):
            stages[position].feed(item, at)
        else:
            self._out.append(item)
            self._out_bytes += _size(item)
