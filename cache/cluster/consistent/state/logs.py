"""Logs: records under offsets that rise by one, from 0; the oldest go when there are too many. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from cache.cluster.consistent.state.commands import (
    BATCH_BYTES_MAX,
    BATCH_MAX,
    COST,
    LOG_BYTES_MAX,
    LOG_ENTRIES_MAX,
    VALUE_BYTES_MAX,
    Append,
    Code,
    Failure,
    Kind,
    LogRead,
    Outcome,
    Records,
)
from cache.cluster.consistent.state.room import Room

State = list[tuple[bytes, int, list[bytes]]]


@dataclass(slots=True)
class _Log:
    first: int = 0
    size: int = 0
    values: dict[int, bytes] = field(default_factory=dict)
    """By offset: any of them is found at once."""

    @property
    def end(self) -> int:
        return self.first + len(self.values)


class Logs:
    """All logs of a group. One that was created is there until it is destroyed, also when it is empty."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._logs: dict[bytes, _Log] = {}

    def append(self, command: Append) -> Outcome | Failure:
        """Append, and drop what is over the limits of this append, but never what it brings."""
        if failure := _refusal(command):
            return failure
        log = self._logs.get(command.name)
        added = sum(map(len, command.values))
        own = 0 if log is not None else len(command.name)
        if not self._room.has(added + own + len(command.values) * COST):
            return Failure(Code.FULL, self._room.limit)
        if log is None:
            log = self._logs[command.name] = _Log()
            self._room.take(len(command.name))
        offset = log.end
        for value in command.values:
            self._add(log, value)
        self._retain(log, command, len(command.values))
        self._room.changed(Kind.LOG, command.name)
        return Outcome(True, offset)

    def read(self, query: LogRead) -> Records | None:
        """Return records from an offset on, or from the oldest one that is kept; None while there is none."""
        log = self._logs.get(query.name) or _Log()
        if query.until_some and query.offset >= log.end:
            return None
        offset = min(max(query.offset, log.first), log.end)
        values: list[bytes] = []
        size = 0
        limit = min(max(1, query.limit), BATCH_MAX)
        for place in range(offset, min(offset + limit, log.end)):
            values.append(log.values[place])
            size += len(log.values[place])
            if size >= BATCH_BYTES_MAX:
                break
        return Records(log.first, log.end, offset, values)

    def destroy(self, name: bytes) -> bool:
        """Forget a log; the next one of that name begins at offset 0."""
        log = self._logs.pop(name, None)
        if log is None:
            return False
        while log.values:
            self._drop(log)
        self._room.give(len(name))
        self._room.changed(Kind.LOG, name)
        return True

    def state(self) -> State:
        """Return everything, in one order."""
        return [
            (name, log.first, list(log.values.values())) for name, log in sorted(self._logs.items())
        ]

    def restore(self, state: State) -> None:
        """Add what `state` returned to what is empty."""
        for name, first, values in state:
            log = self._logs[name] = _Log(first)
            self._room.take(len(name))
            for value in values:
                self._add(log, value)
            self._room.changed(Kind.LOG, name)

    def _add(self, log: _Log, value: bytes) -> None:
        log.values[log.end] = value
        log.size += len(value)
        self._room.take(len(value))

    def _drop(self, log: _Log) -> None:
        value = log.values.pop(log.first)
        log.first += 1
        log.size -= len(value)
        self._room.give(len(value))

    def _retain(self, log: _Log, command: Append, brought: int) -> None:
        while len(log.values) > brought and (
            len(log.values) > command.entries_max or log.size > command.bytes_max
        ):
            self._drop(log)


def _refusal(command: Append) -> Failure | None:
    if not 1 <= len(command.values) <= BATCH_MAX:
        return Failure(Code.TOO_LARGE, BATCH_MAX)
    if max(map(len, command.values)) > VALUE_BYTES_MAX:
        return Failure(Code.TOO_LARGE, VALUE_BYTES_MAX)
    if sum(map(len, command.values)) > BATCH_BYTES_MAX:
        return Failure(Code.TOO_LARGE, BATCH_BYTES_MAX)
    if not 1 <= command.entries_max <= LOG_ENTRIES_MAX:
        return Failure(Code.RANGE, LOG_ENTRIES_MAX)
    if not 1 <= command.bytes_max <= LOG_BYTES_MAX:
        return Failure(Code.RANGE, LOG_BYTES_MAX)
    return None
