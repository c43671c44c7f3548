"""What clients did to a system and what they were told: the only thing that checkers look at.

One format for all. An operation is *invoked* and ends `ok` (it took effect, this is the answer),
`fail` (it did not take effect and never will) or `unknown` (it may take effect at any time after its
invocation, or never). One that has no end is unknown. Instants are seconds of one monotonic clock,
shared by all clients of a history.

A file of a history has one event per line, as JSON, in any order (`read_history` sorts them by time):

```
{"event": "invoke", "client": 2, "op": 7, "name": "write", "key": "x", "argument": 1, "at": 0.25}
{"event": "ok", "client": 2, "op": 7, "result": null, "at": 0.31}
```

`op` is a number that a client uses once. Processes that write a file each (`Recorder`) need no other
arrangement: give `read_history` all the files. Bytes are written as `{"base64": "…"}`.
"""

from __future__ import annotations

import base64
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Final, TextIO

from cache.errors import CodecError

SET: Final = "set"
DELETE: Final = "delete"
GET: Final = "get"
INCR: Final = "incr"


class Outcome(Enum):
    """What the caller was told."""

    OK = "ok"
    FAIL = "fail"
    """Not applied, for certain; here that is `RejectedError`."""
    UNKNOWN = "unknown"
    """Anything else, also when the process died under the call."""


@dataclass(slots=True)
class Operation:
    """One call."""

    name: str
    """What was called; the models of `cache.testing.models` say which names they know."""
    key: str = ""
    """What it was called on. Operations on different keys do not touch each other."""
    argument: Any = None  # Any: what the call took, hashable (read_history makes tuples of lists)
    started_at: float = 0.0
    ended_at: float = math.inf
    outcome: Outcome = Outcome.UNKNOWN
    result: Any = None  # Any: what the call returned, hashable; only when it ended ok
    client: int | str = 0
    """Who called."""
    member: int = -1
    """Through which member of a cluster."""
    ttl: float | None = None
    """Seconds to live of what was written; None is for ever."""

    def __str__(self) -> str:
        argument = "" if self.argument is None else repr(self.argument)
        answer = {Outcome.OK: f" -> {self.result!r}", Outcome.FAIL: " failed"}
        key = f" {self.key}" if self.key else ""
        return f"{self.name}({argument}){key}{answer.get(self.outcome, ' unknown')}"


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time."""

    start: float
    end: float

    def overlaps(self, start: float, end: float) -> bool:
        """Return whether it has an instant in common with start..end."""
        return self.start <= end and start <= self.end


@dataclass(frozen=True, slots=True)
class Wipe:
    """At `at` every copy of these keys was destroyed, and that is no violation."""

    at: float
    keys: frozenset[str]


@dataclass(slots=True)
class History:
    """Everything of one run: the operations, and what befell the cluster meanwhile."""

    operations: list[Operation] = field(default_factory=list)
    final_counters: dict[str, int] = field(default_factory=dict)
    divided: list[Span] = field(default_factory=list)
    """When members could not all reach each other, up to the convergence after it: each side serves."""
    wipes: list[Wipe] = field(default_factory=list)
    stalls: list[tuple[int, Span]] = field(default_factory=list)
    """Which member stood still, or was slow, and when."""
    receipts: list[Mapping[str, Any]] = field(default_factory=list)
    """Of members that left gracefully.  Any: fields of the receipt."""
    ownership: dict[tuple[int, int], dict[str, None]] = field(default_factory=dict)
    """Owners seen in any member's table, by (partition, epoch)."""
    clocks_disagree: bool = False
    """Wall clocks were set apart: which side of a split wins is then theirs to say."""

    def was_divided(self, start: float, end: float) -> bool:
        """Return whether members could not all reach each other at any time from start to end."""
        return any(span.overlaps(start, end) for span in self.divided)

    def was_wiped(self, key: str, start: float, end: float) -> bool:
        """Return whether every copy of a key was destroyed at any time from start to end."""
        return any(key in wipe.keys and start <= wipe.at <= end for wipe in self.wipes)

    def was_stalled(self, member: int, start: float, end: float) -> bool:
        """Return whether a member stood still, or was slow, at any time from start to end."""
        return any(index == member and span.overlaps(start, end) for index, span in self.stalls)

    @property
    def writes(self) -> list[Operation]:
        """Writes of a map; a delete is one of None."""
        return [operation for operation in self.operations if operation.name in (SET, DELETE)]

    @property
    def reads(self) -> list[Operation]:
        """Reads of a map that were answered."""
        return [o for o in self.operations if o.name == GET and o.outcome is Outcome.OK]

    @property
    def unanswered(self) -> list[Operation]:
        """Reads that ended with an error; only their times mean anything."""
        return [o for o in self.operations if o.name == GET and o.outcome is not Outcome.OK]

    @property
    def increments(self) -> list[Operation]:
        """Increments by 1."""
        return [operation for operation in self.operations if operation.name == INCR]

    def counts(self) -> dict[str, int]:
        """Return how many writes and increments ended how, and how many reads were answered."""
        by_outcome = {outcome.value: 0 for outcome in Outcome}
        for operation in (*self.writes, *self.increments):
            by_outcome[operation.outcome.value] += 1
        return {**by_outcome, "reads": len(self.reads)}


class Recorder:
    """Notes one client's operations as they happen, in memory or, event by event, in a file.

    `begin` before the call, `end` after it; a process that dies in between leaves an operation of
    unknown end: what was written before a SIGKILL is in the file.
    """

    def __init__(
        self,
        client: int | str,
        *,
        clock: Callable[[], float] = time.monotonic,
        file: TextIO | None = None,
    ) -> None:
        self.client = client
        self.operations: list[Operation] = []
        self._clock = clock
        self._file = file

    def begin(self, name: str, key: str = "", argument: Any = None) -> Operation:
        """Note that a call is about to be made.  # Any: what it takes, JSON values or bytes."""
        operation = Operation(
            name, key, freeze(argument), started_at=self._clock(), client=self.client
        )
        self.operations.append(operation)
        if self._file is not None:
            self._write(_invocation(operation, len(self.operations)))
        return operation

    def end(self, operation: Operation, outcome: Outcome, result: Any = None) -> None:
        """Note how it ended.  # Any: its answer, JSON values or bytes."""
        operation.ended_at = self._clock()
        operation.outcome = outcome
        operation.result = freeze(result)
        if self._file is not None:
            number = next(i for i, o in _numbered_backwards(self.operations) if o is operation)
            self._write(_completion(operation, number))

    def _write(self, event: dict[str, Any]) -> None:  # Any: JSON
        assert self._file is not None, "asked by the caller"
        self._file.write(json.dumps(event) + "\n")
        self._file.flush()


def _numbered_backwards(operations: list[Operation]) -> Iterator[tuple[int, Operation]]:
    return ((number, operations[number - 1]) for number in range(len(operations), 0, -1))


def write_history(operations: Iterable[Operation], path: Path) -> None:
    """Write a file that `read_history` reads."""
    numbers: dict[int | str, int] = {}
    lines = []
    for operation in operations:
        number = numbers[operation.client] = numbers.get(operation.client, 0) + 1
        lines.append(json.dumps(_invocation(operation, number)))
        if operation.ended_at < math.inf:
            lines.append(json.dumps(_completion(operation, number)))
    path.write_text("".join(line + "\n" for line in lines), "utf-8")


def read_history(*paths: Path) -> list[Operation]:
    """Return the operations of one or more files, in the order of their invocations.

    Raises:
        CodecError: a line is no event of a history; the message names file and line. The last line of
        a file may
            be incomplete, for its writer may have been killed: it is left out.
    """
    events = [event for path in paths for event in _events(path)]
    open_operations: dict[tuple[int | str, int], Operation] = {}
    operations = []
    for place, event in sorted(events, key=lambda found: found[1]["event"] != "invoke"):
        key = (event["client"], event["op"])
        if event["event"] == "invoke":
            if key in open_operations:
                raise CodecError(f"{place}: client {key[0]} uses op {key[1]} twice")
            operations.append(_invoked(event))
            open_operations[key] = operations[-1]
            continue
        operation = open_operations.get(key)
        if operation is None:
            raise CodecError(f"{place}: client {key[0]} ends op {key[1]}, which was not invoked")
        if operation.ended_at < math.inf:
            raise CodecError(f"{place}: client {key[0]} ends op {key[1]} twice")
        operation.ended_at = event["at"]
        operation.outcome = Outcome(event["event"])
        operation.result = freeze(_restored(event.get("result")))
        if operation.ended_at < operation.started_at:
            raise CodecError(f"{place}: client {key[0]} ends op {key[1]} before it was invoked")
    return sorted(operations, key=lambda operation: operation.started_at)


def freeze(value: Any) -> Any:
    """Return the value with lists and dictionaries as tuples, so that it can be hashed.  # Any: JSON."""
    if isinstance(value, list | tuple):
        return tuple(freeze(item) for item in value)
    if isinstance(value, dict):
        return tuple((freeze(key), freeze(item)) for key, item in value.items())
    return bytes(value) if isinstance(value, bytearray) else value


def _invocation(operation: Operation, number: int) -> dict[str, Any]:  # Any: JSON
    event: dict[str, Any] = {
        "event": "invoke",
        "client": operation.client,
        "op": number,
        "name": operation.name,
        "key": operation.key,
        "argument": _plain(operation.argument),
        "at": operation.started_at,
    }
    if operation.member >= 0:
        event["member"] = operation.member
    if operation.ttl is not None:
        event["ttl"] = operation.ttl
    return event


def _completion(operation: Operation, number: int) -> dict[str, Any]:  # Any: JSON
    return {
        "event": operation.outcome.value,
        "client": operation.client,
        "op": number,
        "result": _plain(operation.result),
        "at": operation.ended_at,
    }


def _invoked(event: dict[str, Any]) -> Operation:  # Any: JSON
    return Operation(
        event["name"],
        event.get("key", ""),
        freeze(_restored(event.get("argument"))),
        started_at=event["at"],
        client=event["client"],
        member=event.get("member", -1),
        ttl=event.get("ttl"),
    )


FIELDS: Final[dict[str, type | tuple[type, ...]]] = {
    "client": (int, str),
    "op": int,
    "at": (int, float),
}


def _events(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:  # Any: JSON
    text = path.read_text("utf-8")
    complete = text.endswith("\n") or not text
    lines = text.splitlines()
    for number, line in enumerate(lines, 1):
        place = f"{path}, line {number}"
        if not line.strip():
            continue
        try:
            event = json.loads(line)
        except ValueError as error:
            if number == len(lines) and not complete:
                return
            raise CodecError(f"{place}: not JSON: {error}") from error
        if problem := _problem(event):
            raise CodecError(f"{place}: {problem}")
        yield place, event


def _problem(event: Any) -> str:  # Any: whatever JSON held
    if not isinstance(event, dict):
        return "not an object"
    if event.get("event") not in ("invoke", *(outcome.value for outcome in Outcome)):
        return f"event={event.get('event')!r}: must be invoke, ok, fail or unknown"
    for name, kind in FIELDS.items():
        if not isinstance(event.get(name), kind):
            return f"{name}={event.get(name)!r}: missing, or of the wrong type"
    if event["event"] == "invoke" and not isinstance(event.get("name"), str):
        return "an invocation has a name"
    return ""


def _plain(value: Any) -> Any:  # Any: JSON values or bytes
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _restored(value: Any) -> Any:  # Any: JSON values
    if isinstance(value, dict) and value.keys() == {"base64"}:
        return base64.b64decode(value["base64"])
    return [_restored(item) for item in value] if isinstance(value, list) else value
