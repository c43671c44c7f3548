"""Histories of clients over three replicas, while leaders die, are cut off, and messages are lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

import pytest

from cache.cluster.consistent.consistent import Consistent
from cache.cluster.structures.lock import LockToken
from cache.errors import CacheError, LockTimeoutError, RejectedError
from cache.testing.history import Operation, Outcome, Recorder
from cache.testing.linearizability import check
from cache.testing.models import CasMap, Counter, FencedLock, Log, Register, State
from tests.unit.cluster.consistent.groups import Client, Replicas, consistent, pause, play

CLIENTS = 4
ROUNDS = 30


class WithdrawnLock(FencedLock):
    """A lock whose claims of unknown end are withdrawn: `withdraw()` frees what such a claim got."""

    names = FencedLock.names | {"withdraw"}

    def step(self, state: State, operation: Operation) -> State:
        """See the class."""
        if operation.name != "withdraw":
            return super().step(state, operation)
        holder, held, latest = state
        return (None, None, latest) if holder == operation.client and held is None else state


class Worker:
    """One client: it does something, notes what it was told, and goes on."""

    def __init__(self, replicas: Replicas, number: int, seed: int) -> None:
        self.rng = Random(f"{seed}.{number}")
        self.client = Client(replicas, ttl=1.5, timeout=self.rng.choice((0.3, 4.0)))
        self.grid: Consistent = consistent(replicas, self.client)
        self.recorder = Recorder(number, clock=replicas.clock.monotonic)
        self.number = number
        self.attempt = 0
        self.holding: LockToken | None = None
        self.client.on_session_lost(self.session_lost)

    def session_lost(self, session: int) -> None:
        """The group may give to others what this worker holds, from now on."""
        del session
        if self.holding is not None:
            self.recorder.begin("expire", "k", int(self.holding))

    async def note(self, name: str, key: str, argument: Any, call: Awaitable[Any]) -> None:
        """Make a call and note how it ended.  # Any: what it takes and gives."""
        operation = self.recorder.begin(name, key, argument)
        try:
            result = await call
        except RejectedError:
            self.recorder.end(operation, Outcome.FAIL)
        except CacheError:
            pass  # Unknown, for ever.
        else:
            self.recorder.end(operation, Outcome.OK, result)

    async def run(self, turn: Callable[[Worker, int], Awaitable[None]]) -> None:
        """Take turns."""
        for number in range(ROUNDS):
            await pause(self.rng.uniform(0, 0.2))
            await turn(self, number)


async def turn_of_register(worker: Worker, number: int) -> None:
    rng, note = worker.rng, worker.note
    key, value = rng.choice("ab"), f"{worker.number}.{number}"
    register = worker.grid.register(key)
    match rng.randrange(3):
        case 0:
            await note("read", key, None, register.get(lease=rng.random() < 0.5))
        case 1:
            await note("write", key, value, register.set(value))
        case _:
            expected = await last_seen(worker, key, "read")
            call = register.compare_and_set(expected, value)
            await note("cas", key, (expected, value), call)


async def turn_of_map(worker: Worker, number: int) -> None:
    rng, note = worker.rng, worker.note
    key, value = rng.choice("ab"), f"{worker.number}.{number}"
    table = worker.grid.map("m")
    match rng.randrange(5):
        case 0:
            await note("get", key, None, table.get(key, lease=rng.random() < 0.5))
        case 1:
            await note("set", key, value, table.set(key, value))
        case 2:
            await note("delete", key, None, table.delete(key))
        case 3:
            await note("put_if_absent", key, value, table.put_if_absent(key, value))
        case _:
            expected = await last_seen(worker, key, "get")
            call = table.compare_and_set(key, expected, value)
            await note("compare_and_set", key, (expected, value), call)


async def last_seen(worker: Worker, key: str, name: str) -> Any:  # Any: a value
    """Return the value that this worker read last, so that exchanges have a chance."""
    seen = [
        operation.result
        for operation in worker.recorder.operations
        if (operation.name, operation.key, operation.outcome) == (name, key, Outcome.OK)
    ]
    return seen[-1] if seen else None


async def turn_of_counter(worker: Worker, number: int) -> None:
    del number
    rng, counter = worker.rng, worker.grid.counter("n")
    if rng.random() < 0.4:
        await worker.note("get", "n", None, counter.get(lease=rng.random() < 0.5))
    else:
        delta = rng.randrange(1, 4)
        await worker.note("add", "n", delta, counter.add(delta))


async def turn_of_log(worker: Worker, number: int) -> None:
    log, rng = worker.grid.log("l"), worker.rng
    if rng.random() < 0.5:
        value = f"{worker.number}.{number}"
        await worker.note("append", "l", value, log.append(value))
        return
    offset = rng.randrange(CLIENTS * ROUNDS // 2)

    async def read() -> Any:  # Any: a record
        page = await log.read(offset, 1, lease=rng.random() < 0.5)
        return page.records[0].value if page.records else None

    await worker.note("read", "l", offset, read())


async def turn_of_lock(worker: Worker, number: int) -> None:
    """Claim, hold for a while, give back; each attempt is a client of its own."""
    del number
    worker.attempt += 1
    recorder, lock = worker.recorder, worker.grid.lock("k")
    recorder.client = f"{worker.number}.{worker.attempt}"
    operation = recorder.begin("acquire", "k")
    wait = worker.rng.choice((0, 0.5, 20.0))
    try:
        token = await lock.acquire(wait=wait)
    except CacheError as error:
        if isinstance(error, LockTimeoutError) and wait == 0:
            recorder.end(operation, Outcome.OK, None)
        else:
            recorder.begin("withdraw", "k")  # By a withdrawal, or by the end of its session.
        return
    recorder.end(operation, Outcome.OK, int(token))
    worker.holding = token
    await pause(worker.rng.uniform(0, 0.3))
    worker.holding = None
    if token.lost.is_set():
        return  # Noted when the session was lost.
    operation = recorder.begin("release", "k", int(token))
    try:
        await lock.release(token)
    except CacheError:
        return  # Unknown: it is said again in the background, or the end of the session does it.
    recorder.end(operation, Outcome.OK, True)


async def disturb(replicas: Replicas, workers: list[Worker], rng: Random) -> None:
    """Kill or cut off leaders, and cut off clients for longer than their sessions live."""
    for number in range(6):
        await pause(0.6)
        name = replicas.leader() or "a"
        if number % 2:
            replicas.cut = {name}
            await pause(0.8)
            replicas.cut = set()
        else:
            replicas.kill(name)
            await pause(0.5)
            replicas.start(name)
        if number == 3:
            victim = rng.choice(workers)
            victim.client.is_cut = True
            await pause(2.0)
            victim.client.is_cut = False


TURNS = {
    "register": (turn_of_register, Register),
    "map": (turn_of_map, CasMap),
    "counter": (turn_of_counter, Counter),
    "lock": (turn_of_lock, WithdrawnLock),
    "log": (turn_of_log, Log),
}


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("name", TURNS)
def test_histories_under_faults_are_linearizable(name: str, seed: int) -> None:
    """Invariant 6; undecided is a failure."""
    turn, model = TURNS[name]
    operations: list[Operation] = []

    async def scene(replicas: Replicas) -> None:
        workers = [Worker(replicas, number, seed) for number in range(CLIENTS)]
        replicas.loss = 0.03
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(disturb(replicas, workers, Random(seed)))
            for worker in workers:
                tasks.create_task(worker.run(turn))
        for worker in workers:
            operations.extend(worker.recorder.operations)
        assert 3 == replicas.counts["killed"]
        assert replicas.counts["lost"] > 0

    play(scene, seed=seed)

    told = [operation for operation in operations if operation.outcome is Outcome.OK]
    assert len(told) > CLIENTS * ROUNDS // 2
    check(operations, model()).require()
