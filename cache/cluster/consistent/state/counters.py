"""Counters, latches and identifiers: one number for each name. Pure."""

from __future__ import annotations

from cache.cluster.consistent.state.commands import (
    COUNT_MAX,
    INT64_MAX,
    INT64_MIN,
    Code,
    CountDown,
    CounterAdd,
    CounterExchange,
    Failure,
    Kind,
    LatchGet,
    Outcome,
    TakeIds,
)
from cache.cluster.consistent.state.room import Room


class Numbers:
    """A number for each name of one kind; what has never been set is not there."""

    def __init__(self, kind: Kind, room: Room) -> None:
        self._kind = kind
        self._room = room
        self._numbers: dict[bytes, int] = {}

    def get(self, name: bytes) -> int | None:
        """Return the number, or None."""
        return self._numbers.get(name)

    def set(self, name: bytes, number: int) -> Failure | None:
        """Set it, or return why not."""
        if name not in self._numbers:
            if not self._room.has(len(name)):
                return Failure(Code.FULL, self._room.limit)
            self._room.take(len(name))
        self._numbers[name] = number
        self._room.changed(self._kind, name)
        return None

    def destroy(self, name: bytes) -> bool:
        """Forget it; return whether it was there."""
        if self._numbers.pop(name, None) is None:
            return False
        self._room.give(len(name))
        self._room.changed(self._kind, name)
        return True

    def state(self) -> list[tuple[bytes, int]]:
        """Return everything, in one order."""
        return sorted(self._numbers.items())

    def restore(self, state: list[tuple[bytes, int]]) -> None:
        """Add what `state` returned to what is empty."""
        for name, number in state:
            self._room.take(len(name))
            self._numbers[name] = number
            self._room.changed(self._kind, name)


class Counters(Numbers):
    """Counts, of 64 bits; those that are not there are 0."""

    def __init__(self, room: Room) -> None:
        super().__init__(Kind.COUNTER, room)

    def apply(self, command: CounterAdd | CounterExchange) -> Outcome | Failure:
        """Add, or replace a count that is the expected one; return the count that is there then."""
        held = self.get(command.name) or 0
        if isinstance(command, CounterAdd):
            return self._store(command.name, held + command.delta)
        if held != command.expected:
            return Outcome(False, held)
        return self._store(command.name, command.value)

    def count(self, name: bytes) -> Outcome:
        """Return a count."""
        held = self.get(name)
        return Outcome(held is not None, held or 0)

    def _store(self, name: bytes, number: int) -> Outcome | Failure:
        if not INT64_MIN <= number <= INT64_MAX:
            return Failure(Code.RANGE, INT64_MAX)
        return self.set(name, number) or Outcome(True, number)


class Latches(Numbers):
    """What is left to count down; a latch at 0 is open and stays so."""

    def __init__(self, room: Room) -> None:
        super().__init__(Kind.LATCH, room)
        self._counts = Numbers(Kind.LATCH, room)
        """What each began with."""

    def count_down(self, command: CountDown) -> Outcome | Failure:
        """Count down; return what is left."""
        if not (1 <= command.count <= COUNT_MAX and 0 <= command.by <= COUNT_MAX):
            return Failure(Code.RANGE, COUNT_MAX)
        began = self._counts.get(command.name)
        if began not in (None, command.count):
            return Failure(Code.MISMATCH, began or 0)
        if began is None and (failure := self._begin(command)):
            return failure
        left = max(0, (self.get(command.name) or 0) - command.by)
        self.set(command.name, left)
        return Outcome(left == 0, left)

    def _begin(self, command: CountDown) -> Failure | None:
        failure = self._counts.set(command.name, command.count)
        if failure is None and (failure := self.set(command.name, command.count)):
            self._counts.destroy(command.name)
        return failure

    def look(self, query: LatchGet) -> Outcome | None:
        """Return what is left, -1 if nobody counted yet; None while it is not open, if that is awaited."""
        left = self.get(query.name)
        if query.until_open and left != 0:
            return None
        return Outcome(left == 0, -1 if left is None else left)

    def destroy(self, name: bytes) -> bool:
        """Forget it; it begins anew when it is counted."""
        self._counts.destroy(name)
        return super().destroy(name)

    def counts(self) -> list[tuple[bytes, int]]:
        """Return what each began with, in one order."""
        return self._counts.state()

    def restore_counts(self, counts: list[tuple[bytes, int]]) -> None:
        """Add what `counts` returned to what is empty."""
        self._counts.restore(counts)


class Sequences(Numbers):
    """Identifiers: the next one, from 1."""

    def __init__(self, room: Room) -> None:
        super().__init__(Kind.IDS, room)

    def take(self, command: TakeIds) -> Outcome | Failure:
        """Take identifiers; return the first of them."""
        if not 1 <= command.count <= COUNT_MAX:
            return Failure(Code.RANGE, COUNT_MAX)
        first = self.get(command.name) or 1
        if first + command.count > INT64_MAX:
            return Failure(Code.RANGE, INT64_MAX)
        return self.set(command.name, first + command.count) or Outcome(True, first)
