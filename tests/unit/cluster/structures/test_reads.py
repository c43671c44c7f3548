"""A lone read leaves at once; reads of one tick leave together."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, cast

import pytest

from cache.cluster.ids import Address
from cache.cluster.structures.gathered import BATCH_MAX
from cache.cluster.structures.reads import ALONE_BYTES, Reads
from cache.cluster.transport.rpc import RpcEndpoint
from cache.cluster.wire.messages import Done, Get, GetMany, Many, Reply, Value
from cache.errors import NotOwnerError, RemoteProtocolError, WrongLoopError

ANN, BOB = Address("127.0.0.1:1"), Address("127.0.0.1:2")


class Peers:
    """Takes requests, and answers when told to."""

    def __init__(self) -> None:
        self.asked: list[tuple[Address, Any]] = []  # Any: a request
        self.answers: list[asyncio.Future[Reply]] = []
        self.refusal: Exception | None = None

    def call(self, to: Address, request: Any, *, timeout: float) -> asyncio.Future[Reply]:
        if self.refusal is not None:
            raise self.refusal
        self.asked.append((to, request))
        self.answers.append(asyncio.get_running_loop().create_future())
        return self.answers[-1]


@pytest.fixture
def peers() -> Peers:
    return Peers()


@pytest.fixture
def reads(peers: Peers) -> Reads:
    return Reads(cast(RpcEndpoint, peers), timeout=1.0)


@pytest.fixture
async def busy(peers: Peers, reads: Reads) -> Reads:
    """Reads that come in crowds."""
    readings = await begin(*(ask(reads, ANN, "users", 0, b"k") for _ in range(3)))
    peers.answers[0].set_result(Value(b"v"))
    peers.answers[1].set_result(Many([b"v", b"v"]))
    await asyncio.gather(*readings)
    peers.asked.clear()
    peers.answers.clear()
    return reads


async def ask(
    reads: Reads, address: Address, map_name: str, partition: int, key: bytes
) -> bytes | None:
    """Read as the router does, which awaits at once."""
    return reads.value_of(await reads.begin(address, map_name, partition, key))


async def begin(*readings: Coroutine[Any, Any, bytes | None]) -> list[asyncio.Task[bytes | None]]:
    """Start them in one tick of the event loop, and let it end."""
    tasks = [asyncio.create_task(reading) for reading in readings]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return tasks


async def test_a_lone_read_leaves_at_once(peers: Peers, reads: Reads) -> None:
    """Nothing waits for the end of the tick."""
    reading = ask(reads, ANN, "users", 3, b"k")
    with suppress(StopIteration):
        reading.send(None)

    assert [(ANN, Get("users", 3, b"k", False))] == peers.asked
    reading.close()


async def test_a_lone_read_is_answered(peers: Peers, reads: Reads) -> None:
    """And leaves the way free for the next one."""
    for number in range(2):
        (reading,) = await begin(ask(reads, ANN, "users", 3, b"k"))
        peers.answers[number].set_result(Value(b"v"))
        assert await reading == b"v"

    assert [Get("users", 3, b"k", False)] * 2 == [request for _, request in peers.asked]


async def test_what_a_lone_read_brought_is_not_kept(peers: Peers, reads: Reads) -> None:
    """It may be large, and the next read may be long in coming."""
    value = bytes(1000)
    held_by = sys.getrefcount(value)
    (reading,) = await begin(ask(reads, ANN, "users", 3, b"k"))
    peers.answers.pop().set_result(Value(value))
    await reading
    del reading
    await asyncio.sleep(0)  # The loop, too, lets go of the task.

    assert held_by == sys.getrefcount(value)


async def test_a_lone_read_that_failed_is_not_kept(peers: Peers, reads: Reads) -> None:
    """Nor the frames of its caller, which its error refers to."""
    reads.begin(ANN, "users", 3, b"k")
    attempt = peers.answers.pop()
    error = NotOwnerError("moved")
    attempt.set_exception(error)
    assert attempt.exception() is error
    del attempt
    held_by = sys.getrefcount(error)
    reads.forget_lone()

    assert held_by - 1 == sys.getrefcount(error)


async def test_a_lone_read_under_way_is_not_forgotten(peers: Peers, reads: Reads) -> None:
    """The next one is gathered."""
    await begin(ask(reads, ANN, "users", 3, b"k"))
    reads.forget_lone()
    await begin(ask(reads, ANN, "users", 4, b"k"), ask(reads, ANN, "users", 5, b"k"))

    assert GetMany("users", [4, 5], [b"k", b"k"], False) == peers.asked[-1][1]


async def test_a_lone_read_with_a_wrong_answer_is_an_error(peers: Peers, reads: Reads) -> None:
    """No silence."""
    (reading,) = await begin(ask(reads, ANN, "users", 3, b"k"))
    peers.answers[0].set_result(Many([b"v"]))

    with pytest.raises(RemoteProtocolError):
        await reading


async def test_company_of_a_lone_read_is_gathered(peers: Peers, reads: Reads) -> None:
    """The first has left; those that come while it is under way leave with the tick."""
    readings = await begin(*(ask(reads, ANN, "users", n, b"%d" % n) for n in range(3)))

    assert [request for _, request in peers.asked] == [
        Get("users", 0, b"0", False),
        GetMany("users", [1, 2], [b"1", b"2"], False),
    ]
    peers.answers[0].set_result(Value(b"a"))
    peers.answers[1].set_result(Many([b"b", None]))
    assert [b"a", b"b", None] == await asyncio.gather(*readings)


async def test_one_that_was_given_up_is_not_under_way(peers: Peers, reads: Reads) -> None:
    """The next one is alone again."""
    (gone,) = await begin(ask(reads, ANN, "users", 0, b"0"))
    gone.cancel()
    await asyncio.wait([gone])
    reading = ask(reads, ANN, "users", 1, b"1")
    with suppress(StopIteration):
        reading.send(None)

    assert peers.asked[-1] == (ANN, Get("users", 1, b"1", False))
    reading.close()


async def test_reads_of_a_crowd_are_one_request_for_each_member_and_map(
    peers: Peers, busy: Reads
) -> None:
    """Each caller gets its own value."""
    readings = await begin(
        *(ask(busy, ANN, "users", n, b"%d" % n) for n in range(3)),
        ask(busy, BOB, "users", 7, b"7"),
        ask(busy, ANN, "items", 8, b"8"),
    )

    assert peers.asked == [
        (ANN, GetMany("users", [0, 1, 2], [b"0", b"1", b"2"], False)),
        (BOB, Get("users", 7, b"7", False)),
        (ANN, Get("items", 8, b"8", False)),
    ]
    peers.answers[0].set_result(Many([b"a", None, b"c"]))
    peers.answers[1].set_result(Value(b"d"))
    peers.answers[2].set_result(Value(b"e"))
    assert [b"a", None, b"c", b"d", b"e"] == await asyncio.gather(*readings)


async def test_a_batch_has_a_limit(peers: Peers, busy: Reads) -> None:
    """The rest goes in more of them, and each answers its own keys."""
    readings = await begin(
        *(ask(busy, ANN, "users", 0, b"%d" % n) for n in range(2 * BATCH_MAX + 1))
    )

    assert [BATCH_MAX, BATCH_MAX, 1] == [len(request.keys) for _, request in peers.asked]
    for (_, request), answer in zip(peers.asked, peers.answers, strict=True):
        answer.set_result(Many(request.keys))
    assert [b"%d" % n for n in range(2 * BATCH_MAX + 1)] == await asyncio.gather(*readings)


async def test_an_error_reaches_every_reader_of_the_batch(peers: Peers, busy: Reads) -> None:
    """They know what to do about it."""
    readings = await begin(*(ask(busy, ANN, "users", 0, b"%d" % n) for n in range(2)))
    peers.answers[0].set_exception(NotOwnerError("moved"))

    results = await asyncio.gather(*readings, return_exceptions=True)

    assert [NotOwnerError, NotOwnerError] == [type(result) for result in results]


@pytest.mark.parametrize("reply", [Done(), Many([b"1"]), Many([b"1", b"2", b"3"]), Value(b"1")])
async def test_a_wrong_answer_is_an_error_and_no_silence(
    peers: Peers, busy: Reads, reply: Reply
) -> None:
    """Of another kind, or with too few or too many values."""
    readings = await begin(*(ask(busy, ANN, "users", 0, b"%d" % n) for n in range(2)))
    peers.answers[0].set_result(reply)

    for reading in readings:
        with pytest.raises(RemoteProtocolError):
            await reading


@pytest.mark.parametrize("count", [1, 2])
async def test_what_cannot_be_sent_is_an_error_for_those_who_asked(
    peers: Peers, reads: Reads, count: int
) -> None:
    """Also when the endpoint refuses at once."""
    peers.refusal = WrongLoopError("elsewhere")
    readings = await begin(*(ask(reads, ANN, "users", 0, b"k") for _ in range(count)))

    for reading in readings:
        with pytest.raises(WrongLoopError):
            await reading


async def test_a_reader_that_left_does_not_disturb_the_others(peers: Peers, busy: Reads) -> None:
    """Its value is dropped."""
    gone, stays = await begin(*(ask(busy, ANN, "users", 0, b"%d" % n) for n in range(2)))
    gone.cancel()
    peers.answers[0].set_result(Many([b"a", b"b"]))

    assert await stays == b"b"


async def test_large_values_are_not_gathered(peers: Peers, busy: Reads) -> None:
    """Once a map gave one its reads leave one by one; other maps, and small values, are gathered again."""
    large = b"v" * ALONE_BYTES
    first = await begin(*(ask(busy, ANN, "users", 0, b"k") for _ in range(2)))
    peers.answers[0].set_result(Many([large, b"v"]))
    await asyncio.gather(*first)

    second = await begin(
        *(ask(busy, ANN, "users", n, b"k") for n in range(3)),
        *(ask(busy, ANN, "others", n, b"k") for n in range(2)),
    )
    asked = [request for _, request in peers.asked[1:]]
    for answer in peers.answers[1:4]:
        answer.set_result(Value(b"v"))
    peers.answers[4].set_result(Many([b"v", b"v"]))
    await asyncio.gather(*second)
    third = await begin(*(ask(busy, ANN, "users", n, b"k") for n in range(2)))
    peers.answers[5].set_result(Many([b"v", b"v"]))
    await asyncio.gather(*third)

    assert asked == [
        *(Get("users", n, b"k", False) for n in range(3)),
        GetMany("others", [0, 1], [b"k", b"k"], False),
    ]
    assert peers.asked[5:] == [(ANN, GetMany("users", [0, 1], [b"k", b"k"], False))]
