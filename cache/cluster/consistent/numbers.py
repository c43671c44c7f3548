"""`ConsistentCounter`, `ConsistentLatch` and `ConsistentIds`: numbers that all members agree on."""

from __future__ import annotations

from cache.cluster.consistent.access import Access, Wait, seconds_of
from cache.cluster.consistent.state.commands import (
    COUNT_MAX,
    CountDown,
    CounterAdd,
    CounterExchange,
    CounterGet,
    Destroy,
    Kind,
    LatchGet,
    Outcome,
    TakeIds,
)
from cache.errors import ConfigError
from cache.keys import INT64_MAX, INT64_MIN


class ConsistentCounter:
    """A number of the whole cluster, 0 at first; get one from `Consistent.counter`.

    Guarantees:
        Consistency: linearizable; an `add` that is retried by the library counts once.
        An ack means: a Raft majority has it, fsynced with `data_dir`, else in memory.
        Under partition, under pause, clocks, loss: as `ConsistentRegister`. After `IndeterminateError` it may
            have counted, and calling again may count twice.
        Tested by: tests/unit/cluster/consistent (test_structures, test_map, test_linearizability).
    """

    def __init__(self, access: Access) -> None:
        self._access = access

    def __repr__(self) -> str:
        return f"<ConsistentCounter {self._access.label}>"

    async def add(self, delta: int = 1) -> int:
        """Add; return the sum.

        Raises:
            WrongTypeError: the sum would leave 64 bits; nothing was changed.
        """
        command = CounterAdd(self._access.name, _whole("delta", delta))
        return (await self._access.tell(command, Outcome)).number

    async def get(self, *, lease: bool = False) -> int:
        """Return the number; `lease` reads by the leader's lease."""
        return (await self._access.ask(CounterGet(self._access.name), Outcome, lease=lease)).number

    async def compare_and_set(self, expected: int, value: int) -> bool:
        """Set the number if it is `expected`; return whether it was."""
        numbers = _whole("expected", expected), _whole("value", value)
        return (await self._access.tell(CounterExchange(self._access.name, *numbers), Outcome)).done

    async def destroy(self) -> bool:
        """Forget the number, which is 0 then; return whether there was one."""
        return (await self._access.tell(Destroy(self._access.name, Kind.COUNTER), Outcome)).done


class ConsistentLatch:
    """Opens when it was counted down `count` times, and stays open; get one from `Consistent.latch`.

    Guarantees:
        Consistency: linearizable. Whoever saw it open can rely on it being open for all.
        An ack means: a Raft majority has it, fsynced with `data_dir`, else in memory.
        Under partition, under pause, clocks, loss: as `ConsistentRegister`. A `count_down` that ended as
            indeterminate may have counted.
        Tested by: tests/unit/cluster/consistent (test_structures, test_map).

    Not bound to sessions: who dies before it counts leaves the latch closed. Give `wait` a sensible bound.
    """

    def __init__(self, access: Access, count: int) -> None:
        if type(count) is not int or not 1 <= count <= COUNT_MAX:
            raise ConfigError(f"{access.label}: count={count!r}: must be 1 to {COUNT_MAX}")
        self.count = count
        """What it begins with."""
        self._access = access

    def __repr__(self) -> str:
        return f"<ConsistentLatch {self._access.label} of {self.count}>"

    async def count_down(self, by: int = 1) -> int:
        """Count down; return what is left, never below 0.

        Raises:
            ConfigError: it was begun with another count.
        """
        if type(by) is not int or not 0 <= by <= COUNT_MAX:
            raise ConfigError(f"{self._access.label}: by={by!r}: must be 0 to {COUNT_MAX}")
        command = CountDown(self._access.name, self.count, by)
        return (await self._access.tell(command, Outcome)).number

    async def left(self, *, lease: bool = False) -> int:
        """Return what is left to count; `lease` reads by the leader's lease."""
        outcome = await self._access.ask(LatchGet(self._access.name), Outcome, lease=lease)
        return self.count if outcome.number < 0 else outcome.number

    async def wait(self, wait: Wait = "1m") -> bool:
        """Return True when it is open, False if it is not within `wait`."""
        query = LatchGet(self._access.name, until_open=True)
        return await self._access.held(query, Outcome, seconds_of(wait)) is not None

    async def destroy(self) -> bool:
        """Forget it, so that it begins anew; who waits goes on waiting. Return whether it was begun."""
        return (await self._access.tell(Destroy(self._access.name, Kind.LATCH), Outcome)).done


class ConsistentIds:
    """Numbers that nobody else gets; get it from `Consistent.ids`.

    Guarantees:
        Consistency: unique in the whole cluster for as long as the sequence is not destroyed. `take` is
            linearizable: a block taken later is higher. `next` takes from a block of this handle: numbers of
            several handles are not in order.
        An ack means: a Raft majority has the block, fsynced with `data_dir`, else in memory.
        Under partition, under pause, clocks: as `ConsistentRegister`; a handle goes on with the block it has.
        Loss is reported by: nothing; numbers of a handle that ends, or of a call that failed, are gaps.
        Tested by: tests/unit/cluster/consistent (test_structures, test_map).
    """

    def __init__(self, access: Access, block: int = 100) -> None:
        self._access = access
        self._block = _count(access, "block", block)
        self._left: range = range(0)

    def __repr__(self) -> str:
        return f"<ConsistentIds {self._access.label}>"

    async def next(self) -> int:
        """Return a number, above 0: of this handle's block, or of the next one."""
        while not self._left:
            taken = await self.take(self._block)
            if (
                not self._left
            ):  # Another task may have taken a block meanwhile: that one's goes first.
                self._left = taken
        number, self._left = self._left[0], self._left[1:]
        return number

    async def take(self, count: int) -> range:
        """Return `count` numbers in a row.

        Raises:
            WrongTypeError: there are no more in 64 bits.
        """
        command = TakeIds(self._access.name, _count(self._access, "count", count))
        first = (await self._access.tell(command, Outcome)).number
        return range(first, first + count)

    async def destroy(self) -> bool:
        """Begin again with 1: only when no number is in use any more. Return whether any was taken."""
        return (await self._access.tell(Destroy(self._access.name, Kind.IDS), Outcome)).done


def _count(access: Access, name: str, count: int) -> int:
    if type(count) is not int or not 1 <= count <= COUNT_MAX:
        raise ConfigError(f"{access.label}: {name}={count!r}: must be 1 to {COUNT_MAX}")
    return count


def _whole(name: str, number: int) -> int:
    if type(number) is not int or not INT64_MIN <= number <= INT64_MAX:
        raise ConfigError(f"{name}={number!r}: must be a whole number of 64 bits")
    return number
