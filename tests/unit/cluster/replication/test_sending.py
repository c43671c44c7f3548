"""How a message of many writes is sent to a holder, and what each answer means for each of them."""

from __future__ import annotations

import asyncio
import math
from types import SimpleNamespace
from typing import Any

from cache.cluster.hlc import HybridClock
from cache.cluster.ids import Address, MemberId
from cache.cluster.partitions.table import Row
from cache.cluster.replication.entries import Entry, to_record
from cache.cluster.replication.ownership import BATCH_MAX, Ownership, PendingBatch, PendingWrite
from cache.cluster.replication.replica import PartitionReplica
from cache.cluster.replication.sending import TRANSIT_MAX, Sender
from cache.cluster.replication.transit import Late
from cache.cluster.transport.failures import exception_to_failure
from cache.cluster.wire.messages import (
    NEVER,
    Replicate,
    Replicated,
    ReplicatedEach,
    ReplicateEach,
    Reply,
)
from cache.errors import ConnectionLostError, IndeterminateError, NotOwnerError, UnavailableError
from cache.metrics import Metrics

A, B, C = (MemberId(f"{name}#1") for name in "abc")
ADDRESS = Address("b:1")
EPOCH = 7
WAIT_MAX = 10.0


class Scene:
    """An owner with a `Sender`, and the holder B, whose answers are made by hand."""

    def __init__(self, *holders: MemberId, partitions: int = 3) -> None:
        self.now = 100.0
        self.calls: list[tuple[Any, asyncio.Future[Reply]]] = []  # Any: a request
        self.address: Address | None = ADDRESS
        self.late, self.doubtful = Late(), dict[int, None]()
        self.owned: dict[int, Ownership] = {}
        for partition in range(partitions):
            replica = PartitionReplica(operation_memory=9, tombstone_lifetime=60.0)
            row = Row(EPOCH, (A, *(holders or (B,))), ())
            self.owned[partition] = Ownership(partition, row, replica)
        clock = SimpleNamespace(monotonic=lambda: self.now, wall=lambda: 1e9)
        hlc = HybridClock()
        replication: Any = SimpleNamespace(  # Any: what a sender needs of one
            rpc=self,
            clock=clock,
            owned=self.owned,
            late=self.late,
            doubtful=self.doubtful,
            on_doubt=lambda: None,
            origin=1,
            hlc=hlc,
            stamp=lambda: hlc.stamp(1e9),
            address_of=lambda member: self.address,
            refresh_serving=lambda partition: None,
            yielding=SimpleNamespace(fenced=lambda: None),
            partitions=SimpleNamespace(report_unreachable=lambda holder, partitions: None),
            scope=SimpleNamespace(spawn_if_open=lambda coroutine, name: None),
        )
        self.sender = Sender(replication, Metrics())

    def call(self, to: Address, request: object, *, timeout: float) -> asyncio.Future[Reply]:
        """What `RpcEndpoint.call` does."""
        answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self.calls.append((request, answer))
        return answer

    def write(self, *keys: bytes, expires_at: float = math.inf) -> PendingBatch:
        """Write keys, each into the next partition, as `put_each` does."""
        batch = PendingBatch(
            "m",
            self.owned[0].held_by,
            expires_at,
            self.now + 5.0,
            lambda pending: None,
            lambda batch, parts: None,
        )
        for place, key in enumerate(keys):
            ownership = self.owned[place % len(self.owned)]
            entry = Entry(b"v", 10 + place, 1, expires_at)
            ownership.replica.apply("m", key, entry)
            batch.add(place, ownership, key, entry, None)
        self.sender.send_batch(batch)
        return batch

    async def wait_for_calls(self, count: int) -> None:
        """Wait until so many were made."""
        async with asyncio.timeout(WAIT_MAX):
            while len(self.calls) < count:
                await turn()

    async def answer(self, number: int, outcome: Reply | Exception) -> None:
        """Let the holder answer the `number`-th call."""
        answer = self.calls[number][1]
        if isinstance(outcome, Exception):
            answer.set_exception(outcome)
        else:
            answer.set_result(outcome)
        await turn()


async def turn() -> None:
    """Let what is due run."""
    await asyncio.sleep(0)
    await asyncio.sleep(0)


def over(batch: PendingBatch) -> list[bool]:
    """Return of which writes it is known what came of them."""
    assert batch.parts is not None
    return [part.is_over for part in batch.parts]


async def test_batches_of_one_tick_leave_as_one_message() -> None:
    """Columns side by side, in their order; a single time to live stands for all."""
    scene = Scene()
    first, second = scene.write(b"a", b"b"), scene.write(b"c")

    await turn()

    message, _ = scene.calls[0]
    assert isinstance(message, ReplicateEach)
    assert [b"a", b"b", b"c"] == message.keys
    assert ([0, 1, 0], [EPOCH] * 3) == (message.partitions, message.epochs)
    assert ([10, 11, 10], [NEVER]) == (message.hlcs, message.ttls)

    await scene.answer(0, ReplicatedEach([], []))

    assert (True, True, None) == (first.is_over, second.is_over, first.parts)


async def test_a_message_is_never_larger_than_the_limit() -> None:
    """Fairness: others wait for it."""
    scene = Scene()
    half = [b"%d" % number for number in range(BATCH_MAX // 2 + 1)]
    scene.write(*half)
    scene.write(*half)

    await turn()

    assert [len(half)] * 2 == [len(message.keys) for message, _ in scene.calls]


async def test_each_entry_has_its_own_time_left() -> None:
    """Where they differ."""
    scene = Scene()
    scene.write(b"a", expires_at=scene.now + 3.0)
    scene.write(b"b")

    await turn()

    assert [3.0, NEVER] == scene.calls[0][0].ttls


async def test_a_refused_write_is_not_confirmed_with_the_others() -> None:
    """Its partition has another owner: it is taken back; the others stand."""
    scene = Scene()
    batch = scene.write(b"a", b"b", b"c")
    await turn()
    refused = exception_to_failure(NotOwnerError("over"))

    await scene.answer(0, ReplicatedEach([(1, refused)], []))

    assert batch.parts is not None
    assert [None, IndeterminateError, None] == [
        part.error and type(part.error) for part in batch.parts
    ]
    assert (batch.is_over, EPOCH + 1) == (True, scene.owned[1].fence)
    assert scene.owned[1].replica.entry("m", b"b") is None
    assert scene.owned[0].replica.entry("m", b"a") is not None


async def test_a_write_that_a_copy_has_later_is_made_later_still() -> None:
    """It waits for that; the others are done."""
    scene = Scene()
    batch = scene.write(b"a", b"b", b"c")
    await turn()
    held = to_record("m", b"b", Entry(b"other", 2**40, 2, math.inf), scene.now)

    await scene.answer(0, ReplicatedEach([], [(1, Replicated([held], []))]))

    assert [True, False, True] == over(batch)
    message, _ = scene.calls[1]
    assert isinstance(message, Replicate)
    assert [(b"b", b"v")] == [(record.key, record.value) for record in message.entries]
    assert message.entries[0].hlc > 2**40

    await scene.answer(1, Replicated([], []))

    assert batch.is_over


async def test_writes_whose_message_was_lost_are_sent_again_one_by_one() -> None:
    """Until the holder has them, or is struck."""
    scene = Scene()
    batch = scene.write(b"a", b"b")
    await turn()

    await scene.answer(0, ConnectionLostError("lost"))
    assert [False, False] == over(batch)
    await scene.wait_for_calls(3)

    assert [[b"a"], [b"b"]] == [
        [record.key for record in message.entries] for message, _ in scene.calls[1:]
    ]


async def test_what_is_not_confirmed_by_the_deadline_fails() -> None:
    """Nobody knows whether the copy has it: its partition is to be compared."""
    scene = Scene()
    batch = scene.write(b"a", b"b")
    await turn()
    scene.now = batch.deadline

    await scene.answer(0, UnavailableError("silent"))

    assert batch.parts is not None
    assert all(isinstance(part.error, IndeterminateError) for part in batch.parts)
    assert [0, 1] == list(scene.doubtful)


async def test_writes_that_were_long_on_the_way_are_sent_again_if_they_end() -> None:
    """Their seconds to live were counted anew from an arrival that was late."""
    scene = Scene()
    ends, stays = scene.write(b"a", expires_at=scene.now + 3.0), scene.write(b"b")
    await turn()
    scene.now += TRANSIT_MAX + 0.1

    await scene.answer(0, ReplicatedEach([], []))

    assert (False, True) == (ends.is_over, stays.is_over)
    assert [b"a"] == [record.key for record in scene.calls[1][0].entries]
    assert scene.calls[1][0].entries[0].ttl < 3.0


async def test_a_partition_that_is_lost_before_its_message_leaves_is_not_sent() -> None:
    """Its write has failed; those of other partitions go on."""
    scene = Scene()
    batch = scene.write(b"a", b"b", b"c")
    lost = scene.owned.pop(1)
    lost.abandon(IndeterminateError("moved"))

    await turn()

    assert [b"a", b"c"] == scene.calls[0][0].keys

    await scene.answer(0, ReplicatedEach([], []))

    assert batch.is_over


async def test_a_partition_that_is_lost_while_its_message_is_under_way_is_not_confirmed() -> None:
    """What a holder says of it comes too late."""
    scene = Scene()
    batch = scene.write(b"a", b"b", b"c")
    await turn()
    scene.owned.pop(1).abandon(IndeterminateError("moved"))

    await scene.answer(0, ReplicatedEach([], []))

    assert batch.parts is not None
    assert [True, False, True] == [part.error is None for part in batch.parts]
    assert batch.is_over


async def test_a_holder_without_an_address_is_missed_by_each_write() -> None:
    """It may be struck by a table that is on its way."""
    scene = Scene()
    batch = scene.write(b"a", b"b")
    scene.address = None

    await turn()

    assert [False, False] == over(batch)
    assert not scene.calls


async def test_one_of_two_holders_that_refuses_does_not_take_back_what_the_other_confirmed() -> (
    None
):
    """A batch that one holder has is waited for by what the other one says of each."""
    scene = Scene(B, C)
    batch = scene.write(b"a", b"b")
    await turn()
    held = to_record("m", b"b", Entry(b"other", 2**40, 2, math.inf), scene.now)

    await scene.answer(0, ReplicatedEach([], []))
    await scene.answer(1, ReplicatedEach([], [(1, Replicated([held], []))]))

    assert [True, False] == over(batch)
    assert isinstance(scene.calls[2][0], Replicate)


async def test_a_write_alone_goes_after_those_that_were_gathered_before_it() -> None:
    """A holder hears of writes in their order."""
    scene = Scene()
    scene.write(b"a", b"b")
    entry = Entry(None, 99, 1, 60.0)
    ownership = scene.owned[0]
    ownership.replica.apply("m", b"a", entry)
    pending = PendingWrite(
        ownership, [("m", b"a", entry)], [None], None, scene.now + 5.0, lambda _: None
    )

    scene.sender.send(pending, plain=False)

    assert [ReplicateEach, Replicate] == [type(message) for message, _ in scene.calls]
