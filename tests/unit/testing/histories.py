"""Histories for tests of the checker: by hand, from a real execution, and with one fault put in."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from random import Random
from typing import Any

from cache.testing.history import Operation, Outcome
from cache.testing.models import ANY, REFUSED, FencedLock, Model

OK, FAIL, UNKNOWN = Outcome.OK, Outcome.FAIL, Outcome.UNKNOWN


def op(
    name: str, start: float, end: float, argument: Any = None, result: Any = None, **more: Any
) -> Operation:
    """An operation that ended ok.  # Any: values of the object, fields of Operation."""
    return Operation(
        name, argument=argument, started_at=start, ended_at=end, outcome=OK, result=result, **more
    )


def lost(name: str, start: float, argument: Any = None, **more: Any) -> Operation:
    """An operation of unknown end.  # Any: as above."""
    return Operation(name, argument=argument, started_at=start, **more)


def is_linearizable(operations: Iterable[Operation], model: Model) -> bool:
    """The dumb twin: every order, by trial."""
    todo = [operation for operation in operations if operation.outcome is not FAIL]

    def works(state: Any, left: list[Operation]) -> bool:
        if all(operation.outcome is UNKNOWN for operation in left):
            return True
        for index, operation in enumerate(left):
            others = left[:index] + left[index + 1 :]
            if any(o.ended_at < operation.started_at for o in others if o.outcome is OK):
                continue
            after = model.step(state, operation)
            if after is not REFUSED and works(after, others):
                return True
        return False

    return works(model.initial(), todo)


Choose = Callable[[Random, int], tuple[str, Any]]


def register_call(rng: Random, number: int) -> tuple[str, Any]:
    """Values that are written once, mostly."""
    match rng.randrange(8):
        case 0:
            return "cas", (number - 1, number)
        case 1 | 2 | 3:
            return "write", number
        case _:
            return "read", None


def map_call(rng: Random, number: int) -> tuple[str, Any]:
    match rng.randrange(8):
        case 0:
            return "compare_and_set", (number - 1, number)
        case 1:
            return "put_if_absent", number
        case 2:
            return "delete", None
        case 3 | 4:
            return "set", number
        case _:
            return "get", None


def counter_call(rng: Random, number: int) -> tuple[str, Any]:
    return ("add", 1 + number % 2) if rng.random() < 0.5 else ("get", None)


def queue_call(rng: Random, number: int) -> tuple[str, Any]:
    return ("enqueue", number) if rng.random() < 0.5 else ("dequeue", None)


def log_call(rng: Random, number: int) -> tuple[str, Any]:
    if rng.random() < 0.5:
        return "append", number
    return ("read", rng.randrange(1 + number // 2)) if rng.random() < 0.7 else ("length", None)


CALLS: dict[str, Choose] = {
    "register": register_call,
    "map": map_call,
    "counter": counter_call,
    "queue": queue_call,
    "log": log_call,
}


def execute(
    model: Model, choose: Choose, rng: Random, *, count: int, clients: int, unknown: float = 0.02
) -> list[Operation]:
    """Run a correct object, one operation at a time, each at a random instant of the time it took."""
    ready = [(rng.random(), client) for client in range(clients)]
    heapq.heapify(ready)
    planned = []
    for _ in range(count):
        started_at, client = heapq.heappop(ready)
        ended_at = started_at + rng.expovariate(1.0)
        planned.append((rng.uniform(started_at, ended_at), started_at, ended_at, client))
        heapq.heappush(ready, (ended_at + rng.random() / 10, client))
    state = model.initial()
    operations = []
    for number, (_, started_at, ended_at, client) in enumerate(sorted(planned)):
        name, argument = choose(rng, number)
        operation = Operation(name, "", argument, started_at, result=0, client=client)
        after, answer = model.apply(state, operation)
        operation.result = None
        if rng.random() < unknown:
            state = after if rng.random() < 0.5 else state
        else:
            state = after
            operation.outcome, operation.ended_at = OK, ended_at
            operation.result = None if answer is ANY else answer
        operations.append(operation)
    return operations


def execute_lock(rng: Random, *, count: int, clients: int) -> list[Operation]:
    """Run a fenced lock whose tokens rise; clients take it, are refused, release it, and vanish."""
    operations, at, token = [], 0.0, 0
    holder: tuple[int, int] | None = None
    for _ in range(count):
        client = rng.randrange(clients)
        at += rng.random()
        span = (at - rng.random() / 2, at + rng.random() / 2)
        if holder is None:
            token += rng.randrange(1, 3)
            holder = (client, token)
            operations.append(op("acquire", *span, result=token, client=client))
        elif holder[0] == client or rng.random() < 0.2:
            name = "release" if holder[0] == client else "expire"
            operations.append(op(name, *span, holder[1], True, client=client))
            holder = None
        else:
            operations.append(op("acquire", *span, result=None, client=client))
    assert FencedLock.knows_clients
    return operations
