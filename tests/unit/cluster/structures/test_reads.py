"""Reads of one tick leave together."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from cache.cluster.ids import Address
from cache.cluster.structures.reads import BATCH_MAX, Reads
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


async def test_a_lone_read_is_a_plain_get(peers: Peers, reads: Reads) -> None:
    """It leaves at the end of the tick."""
    reading = reads.get(ANN, "users", 3, b"k")
    assert peers.asked == []
    await asyncio.sleep(0)

    assert [(ANN, Get("users", 3, b"k", False))] == peers.asked
    peers.answers[0].set_result(Value(b"v"))
    assert await reading == b"v"


async def test_reads_of_a_tick_are_one_request_for_each_member_and_map(
    peers: Peers, reads: Reads
) -> None:
    """Each caller gets its own value."""
    readings = [reads.get(ANN, "users", n, b"%d" % n) for n in range(3)]
    reads.get(BOB, "users", 7, b"7")
    reads.get(ANN, "items", 8, b"8")
    await asyncio.sleep(0)

    assert peers.asked == [
        (ANN, GetMany("users", [0, 1, 2], [b"0", b"1", b"2"], False)),
        (BOB, Get("users", 7, b"7", False)),
        (ANN, Get("items", 8, b"8", False)),
    ]
    peers.answers[0].set_result(Many([b"a", None, b"c"]))
    assert [b"a", None, b"c"] == await asyncio.gather(*readings)


async def test_a_batch_has_a_limit(peers: Peers, reads: Reads) -> None:
    """The rest goes in more of them, and each answers its own keys."""
    readings = [reads.get(ANN, "users", 0, b"%d" % n) for n in range(2 * BATCH_MAX + 1)]
    await asyncio.sleep(0)

    assert [BATCH_MAX, BATCH_MAX, 1] == [len(request.keys) for _, request in peers.asked]
    for (_, request), answer in zip(peers.asked, peers.answers, strict=True):
        answer.set_result(Many(request.keys))
    assert [b"%d" % n for n in range(2 * BATCH_MAX + 1)] == await asyncio.gather(*readings)


async def test_an_error_reaches_every_reader_of_the_batch(peers: Peers, reads: Reads) -> None:
    """They know what to do about it."""
    readings = [reads.get(ANN, "users", 0, b"%d" % n) for n in range(2)]
    await asyncio.sleep(0)
    peers.answers[0].set_exception(NotOwnerError("moved"))

    results = await asyncio.gather(*readings, return_exceptions=True)

    assert [NotOwnerError, NotOwnerError] == [type(result) for result in results]


@pytest.mark.parametrize("reply", [Done(), Many([b"1"]), Many([b"1", b"2", b"3"]), Value(b"1")])
async def test_a_wrong_answer_is_an_error_and_no_silence(
    peers: Peers, reads: Reads, reply: Reply
) -> None:
    """Of another kind, or with too few or too many values."""
    readings = [reads.get(ANN, "users", 0, b"%d" % n) for n in range(2)]
    await asyncio.sleep(0)
    peers.answers[0].set_result(reply)

    for reading in readings:
        with pytest.raises(RemoteProtocolError):
            await reading


async def test_what_cannot_be_sent_is_an_error_for_those_who_asked(
    peers: Peers, reads: Reads
) -> None:
    """Also when the endpoint refuses at once."""
    peers.refusal = WrongLoopError("elsewhere")
    reading = reads.get(ANN, "users", 0, b"k")

    with pytest.raises(WrongLoopError):
        await reading


async def test_a_reader_that_left_does_not_disturb_the_others(peers: Peers, reads: Reads) -> None:
    """Its value is dropped."""
    gone, stays = (reads.get(ANN, "users", 0, b"%d" % n) for n in range(2))
    await asyncio.sleep(0)
    gone.cancel()
    peers.answers[0].set_result(Many([b"a", b"b"]))

    assert await stays == b"b"
